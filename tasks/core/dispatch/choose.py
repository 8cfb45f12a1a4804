"""What goes where next: the one decision that keeps every slot busy until the last report.

The work of a run is known from the start, so the aim is its end, not the wait of each
request. Segments bind late: a free slot takes the longest that waits, since what is left
for the end should be short. Two rules go beyond that on unequal hosts:

* The guard. A slow host takes a segment only if it would be through with it well before
  everything else is; else the run would end with all others waiting for it.
* The hedge. When nothing waits any more, an idle slot asks again for the segment that has
  the most time left on another host, if it can expect to be first.

Nothing here has a clock or changes anything. Lengths are predicted tokens, speeds the
predicted tokens that one slot gets through in a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from tasks.core.dispatch.queue import Queue, Suits, Waiting

MARGIN = 0.7
"""Share of the time that is left in which a slow host has to be through with a segment."""

HEDGE_GAIN = 0.9
"""Share of the time a segment still needs where it is, within which another slot has to do it."""

LEAST_GAIN_S = 0.3
"""What a second copy has to save at least, to be worth its requests."""

AS_FAST = 1.05
"""Hosts whose speeds differ by less are as fast as each other."""

CALIBRATION = 0.2
"""Where in the order of lengths the first segments for a host of unknown speed are taken."""

STALLED = 2.5
"""A host is stalled when all that it has in flight takes so many times its predicted time."""

LEAST_LEFT = 0.15
"""Share of its time that a running segment is taken to need at least, until it is overdue."""

OVERDUE_LEFT = 0.5
"""A segment that is overdue is taken to need half as long again as it took: the longer it
ran, the longer it will."""


@dataclass(frozen=True, slots=True)
class HostView:
    """A host that takes requests."""

    url: str
    slots: int
    """Requests that this run may have in flight there now."""
    in_flight: int
    tokens_per_s: float | None
    """Of one slot; None until it has answered."""

    @property
    def is_free(self) -> bool:
        """Whether it may get one more request."""
        return self.in_flight < self.slots


@dataclass(frozen=True, slots=True)
class Flight:
    """A segment that is with a host."""

    key: int
    url: str
    tokens: int
    started_at: float
    may_hedge: bool = True
    """Whether a second copy may be sent elsewhere: not while there is one."""
    failed_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class State:
    """All that the decision depends on, but for the time."""

    hosts: Sequence[HostView]
    """Those that take requests."""
    queue: Queue
    flights: Collection[Flight]
    tokens_ahead: float = 0.0
    """Of the plan's work, what is not in the queue yet."""
    more_hosts: bool = False
    """Whether the run has others, which may come."""
    hedge: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Send this segment to this host."""

    waiting: Waiting
    url: str


@dataclass(frozen=True, slots=True)
class Hedge:
    """Send a second copy of a segment that is in flight elsewhere."""

    key: int
    url: str


def choose(state: State, now: float) -> Send | Hedge | None:
    """What to send next, or None when nothing should be sent as things are.

    To be asked again after each thing sent, and whenever something changed. A slot stays
    free only if nothing waits that its host may take, or if the guard keeps it free.
    """
    free = [host for host in state.hosts if host.is_free]
    if not free:
        return None
    speeds = _speeds(state.hosts)
    free.sort(key=lambda host: (-speeds[host.url], host.in_flight / host.slots))
    urls = frozenset(host.url for host in state.hosts)
    for host in free:
        waiting = _next_for(host, state, speeds, urls, now)
        if waiting is not None:
            return Send(waiting, host.url)
    if state.hedge and _nothing_waits(state):
        for host in free:
            flight = _worth_a_hedge(host, state, speeds, now)
            if flight is not None:
                return Hedge(flight.key, host.url)
    return None


def _next_for(
    host: HostView,
    state: State,
    speeds: Mapping[str, float],
    urls: frozenset[str],
    now: float,
) -> Waiting | None:
    """The waiting segment that a free slot of a host should get."""
    queue, others = state.queue, urls - {host.url}

    def suits(waiting: Waiting) -> bool:
        return not waiting.in_quarantine and waiting.suits(host.url, others)

    longest = queue.longest(suits)
    if longest is None:
        return _from_quarantine(host, state, others)
    is_unknown = host.tokens_per_s is None and (len(state.hosts) > 1 or state.more_hosts)
    if is_unknown and len(queue) > sum(each.slots for each in state.hosts):
        return queue.at(CALIBRATION, suits)
    return _guarded(host, state, speeds, now, longest, suits=suits, others=others)


def _from_quarantine(host: HostView, state: State, others: frozenset[str]) -> Waiting | None:
    """After all that waits by now, and alone: whatever it breaks, it breaks nobody's answer.

    What is still ahead is not waited for: it may come only when this is done.
    """
    if host.in_flight or not _all_in_quarantine(state):
        return None
    return state.queue.longest(lambda waiting: waiting.suits(host.url, others))


def _guarded(
    host: HostView,
    state: State,
    speeds: Mapping[str, float],
    now: float,
    longest: Waiting,
    *,
    suits: Suits,
    others: frozenset[str],
) -> Waiting | None:
    """The longest that the host is through with well before the rest of the work is done."""
    queue, speed = state.queue, speeds[host.url]
    if speed * AS_FAST >= max(speeds[each.url] for each in state.hosts):
        return longest
    waits = queue.tokens + state.tokens_ahead
    capacity = sum(each.slots * speeds[each.url] for each in state.hosts)
    # Less than the horizon below, and enough as long as much is left.
    if longest.tokens <= MARGIN * speed * waits / capacity:
        return longest
    moving = _moving(state, speeds, now)
    faster = [each for each in moving if speeds[each.url] > speed * AS_FAST]
    if not faster:
        return longest
    only_here = _only_here(host, faster, queue, suits, others=others)
    if only_here is not None:
        return only_here
    capacity = sum(each.slots * speeds[each.url] for each in moving)
    horizon_s = (waits + _tokens_left(state, speeds, now)) / capacity
    fits = queue.longest(suits, at_most=MARGIN * horizon_s * speed)
    if fits is not None:
        return fits
    shortest = queue.shortest(suits) or longest
    elsewhere_s = min(horizon_s + shortest.tokens / speeds[each.url] for each in faster)
    return shortest if shortest.tokens / speed <= elsewhere_s else None


def _only_here(
    host: HostView,
    faster: Sequence[HostView],
    queue: Queue,
    suits: Suits,
    *,
    others: frozenset[str],
) -> Waiting | None:
    """The longest that a slow host may take and no faster one: waiting makes it no better."""
    if not queue.restricted:
        return None
    everybody = others | {host.url}
    return queue.longest(
        lambda waiting: (
            suits(waiting)
            and not any(waiting.suits(each.url, everybody - {each.url}) for each in faster)
        )
    )


def _worth_a_hedge(
    host: HostView, state: State, speeds: Mapping[str, float], now: float
) -> Flight | None:
    """The segment elsewhere with the most time left, of those that this host would have sooner."""
    best, most_left_s = None, 0.0
    for flight in state.flights:
        if not flight.may_hedge or flight.url == host.url or host.url in flight.failed_on:
            continue
        left_s = _left_s(flight, speeds, now)
        here_s = flight.tokens / speeds[host.url]
        if here_s < min(HEDGE_GAIN * left_s, left_s - LEAST_GAIN_S) and left_s > most_left_s:
            best, most_left_s = flight, left_s
    return best


def _nothing_waits(state: State) -> bool:
    """Whether all of the plan is done, in flight or in quarantine."""
    return state.tokens_ahead <= 0 and _all_in_quarantine(state)


def _all_in_quarantine(state: State) -> bool:
    return all(waiting.in_quarantine for waiting in state.queue)


def _speeds(hosts: Sequence[HostView]) -> dict[str, float]:
    """Speeds by host; one that has not answered yet is taken to be like the others."""
    known = [host.tokens_per_s for host in hosts if host.tokens_per_s is not None]
    typical = sum(known) / len(known) if known else 1.0
    return {host.url: host.tokens_per_s or typical for host in hosts}


def _moving(state: State, speeds: Mapping[str, float], now: float) -> list[HostView]:
    """Hosts that can be counted on: they have slots, and something of theirs is in time."""
    busy: set[str] = set()
    in_time: set[str] = set()
    for flight in state.flights:
        busy.add(flight.url)
        predicted_s = flight.tokens / speeds.get(flight.url, inf)
        if now - flight.started_at <= STALLED * predicted_s:
            in_time.add(flight.url)
    return [
        host for host in state.hosts if host.slots and (host.url in in_time or host.url not in busy)
    ]


def _tokens_left(state: State, speeds: Mapping[str, float], now: float) -> float:
    """Work that is left of what is in flight."""
    return sum(
        _left_s(flight, speeds, now) * speeds[flight.url]
        for flight in state.flights
        if flight.url in speeds
    )


def _left_s(flight: Flight, speeds: Mapping[str, float], now: float) -> float:
    """Seconds until a segment in flight is done; for ever on a host that takes no requests."""
    speed = speeds.get(flight.url)
    if speed is None:
        return inf
    predicted_s, ran_s = flight.tokens / speed, now - flight.started_at
    if ran_s < predicted_s:
        return max(predicted_s - ran_s, LEAST_LEFT * predicted_s)
    return OVERDUE_LEFT * ran_s
