"""How many answers of a host were made at once, from when they were asked for and came.

The host was given more requests than it has slots, and what certainly ran at the same time
is counted. A server hands a slot on only after it has taken the duration of the answer
before, so this count cannot exceed the slots, and reaches them while ours are waiting.

Other ways were measured and given up. The waits that servers report (nearly none: had a slot
at once) count what another client has left over, and fail where an answer takes milliseconds.
Answers placed by the time they arrived, less their duration, overlap where none did as soon
as the client is late in reading them: 13 "slots" of 4. The work done over the time it took is
exact for a host that nobody else uses, and too low for every other.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.records import Measures

FIRST_REQUESTS = 4
"""Of a host with one slot, as most are, each costs as long as a whole answer."""

TURNS = 6
"""Requests for each slot that was seen: without other clients 4 were always enough."""

TURNS_IN_DOUBT = 12
"""The same where others hold slots, whose answers have to end while ours are waiting, and
where answers are too short to see well when they ran."""

SHORT_S = 0.1
"""The time of such an answer; a busy client reads the clock some 0.02 to 0.05 s late."""

MOST_REQUESTS = 128
"""Sent in all; hosts of up to 64 slots still take turns."""

HELD = 0.15
"""Share of an answer's time for which a number must have run at once to count: between 0.1 and
0.2 too much and too little were seen equally seldom."""

SET_ASIDE = 0.25
"""Requests that go out together wait for each other in this machine. The quarter that was
fastest on its way says nothing of how long all others were at least."""


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer, and when its request was sent and it was there, by this machine's clock."""

    sent_at_s: float
    arrived_at_s: float
    measures: Measures

    @property
    def service_s(self) -> float:
        """Time that it had a slot."""
        return (self.measures.prompt_eval_duration_ns + self.measures.eval_duration_ns) / 1e9

    @property
    def wait_s(self) -> float:
        """Time that it waited for one."""
        return self.measures.server_wait_ns / 1e9

    @property
    def on_the_way_s(self) -> float:
        """Time in which the server knew nothing of it yet, or was through with it already."""
        return self.arrived_at_s - self.sent_at_s - self.measures.total_duration_ns / 1e9

    @property
    def began_by_s(self) -> float:
        """When it had a slot at the latest: had the answer been here at once."""
        return self.arrived_at_s - self.service_s

    @property
    def ran_until_s(self) -> float:
        """Until when it had one at least: had the request been there at once."""
        return self.sent_at_s + self.measures.total_duration_ns / 1e9


def requests_wanted(answers: Sequence[Timed]) -> int:
    """How many requests it takes in all, by what the answers up to now show."""
    if not answers:
        return FIRST_REQUESTS
    slots = count_slots(answers)
    turns = TURNS_IN_DOUBT if _are_short(answers) or is_shared(answers, slots) else TURNS
    return min(MOST_REQUESTS, slots * turns)


def count_slots(answers: Sequence[Timed]) -> int:
    """How many of the answers were made at once; at least 1.

    When an answer had its slot is known but for the time that its request and itself were
    on the way. What all had of that shifts all alike and is taken off; what one had beyond
    that shortens the time in which it certainly ran. The same is done without those that
    were fast on their way, since what the others had in common is more; the higher count
    is the result. Of short answers it is not done: what is taken off too much there makes
    answers overlap that followed each other.
    """
    timed = sorted(
        (answer for answer in answers if answer.service_s > 0), key=lambda each: each.on_the_way_s
    )
    slower = [] if _are_short(timed) else timed[int(len(timed) * SET_ASIDE) :]
    return max(1, _ran_at_once(timed), _ran_at_once(slower))


def is_shared(answers: Sequence[Timed], slots: int) -> bool:
    """Whether requests waited while fewer than that many of them ran: others had the slots."""
    waited = [answer for answer in answers if answer.wait_s > answer.service_s / 4]
    if not waited:
        return False
    begin = min(answer.began_by_s - answer.wait_s for answer in waited)
    end = max(answer.began_by_s for answer in waited)
    ran_s = sum(
        max(0.0, min(end, answer.arrived_at_s) - max(begin, answer.began_by_s))
        for answer in answers
    )
    return ran_s < (slots - 0.5) * (end - begin)


def tokens_per_s(answers: Sequence[Timed]) -> float | None:
    """Tokens that one slot generates in a second."""
    seconds = sum(answer.measures.eval_duration_ns for answer in answers) / 1e9
    tokens = sum(answer.measures.output_tokens for answer in answers)
    return tokens / seconds if tokens and seconds else None


def _are_short(answers: Sequence[Timed]) -> bool:
    return bool(answers) and statistics.median(each.service_s for each in answers) < SHORT_S


def _ran_at_once(answers: Sequence[Timed]) -> int:
    """The most that ran at once for long enough; the first was on its way for the least time."""
    if not answers:
        return 0
    all_had_s = answers[0].on_the_way_s
    spans = [(answer.began_by_s - all_had_s, answer.ran_until_s) for answer in answers]
    long_enough_s = HELD * statistics.median(answer.service_s for answer in answers)
    seconds = _seconds_at_level(spans)
    held_s = 0.0
    for running in sorted(seconds, reverse=True):
        held_s += seconds[running]
        if held_s >= long_enough_s:
            return running
    return 0


def _seconds_at_level(spans: Sequence[tuple[float, float]]) -> dict[int, float]:
    """For how long exactly so many of the spans were open."""
    open_spans = [span for span in spans if span[0] < span[1]]
    steps = [(begin, 1) for begin, _ in open_spans] + [(end, -1) for _, end in open_spans]
    seconds: defaultdict[int, float] = defaultdict(float)
    running, since = 0, 0.0
    for at, step in sorted(steps):
        if running:
            seconds[running] += at - since
        running, since = running + step, at
    return seconds
