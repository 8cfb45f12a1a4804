from __future__ import annotations

import json
import random
import time
from dataclasses import asdict, dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.account import FEWEST_TOKENS, Ending, HostAccount
from tasks.core.dispatch.slot_clock import SlotClock

STEPS = st.sampled_from(["limit", "start", "end", "tail", "work", "new work", "wait"])
SLOWEST_CALL_US = 20.0


def begun(slots: int, usable: int | None = None, at: float = 100.0) -> SlotClock:
    """The clock of a host that is up when the run sends its first request."""
    clock = SlotClock()
    clock.limit_changed(at - 9, slots, slots if usable is None else usable)
    clock.begin(at)
    return clock


def slot_seconds(account: HostAccount) -> dict[str, float]:
    """Where the slot time went, the parts that are not 0."""
    return {
        name.removesuffix("_slot_seconds"): seconds
        for name, seconds in asdict(account).items()
        if name.endswith("_slot_seconds") and seconds
    }


def test_requests_count_from_start_to_end() -> None:
    """Each request's whole time counts as what became of it."""
    clock = begun(4)
    for _ in range(4):
        clock.request_started(100.0)
    clock.request_ended(101.0, 100.0, Ending.FAILED)
    clock.request_ended(102.0, 100.0, Ending.CANCELLED)
    clock.tail_began(102.0)
    clock.request_ended(104.0, 100.0, Ending.ANSWERED, 40)
    clock.request_ended(104.0, 100.0, Ending.DUPLICATE, 7)
    account = clock.account(104.0)
    assert slot_seconds(account) == {
        "busy": 4.0,
        "lost": 3.0,
        "duplicated": 4.0,
        "idle_middle": 1.0,
        "idle_tail": 4.0,
    }
    assert (account.requests, account.failures, account.output_tokens) == (4, 1, 47)
    assert (account.busy_seconds, account.peak_in_flight) == (4.0, 4)


def test_idle_time_by_when_it_was() -> None:
    """Idle slots count as start until the first request, as tail once nothing waits."""
    clock = begun(2)
    clock.request_started(103.0)
    clock.request_ended(104.0, 103.0, Ending.ANSWERED)
    clock.request_started(105.0)
    clock.tail_began(106.0)
    clock.request_ended(107.0, 105.0, Ending.ANSWERED)
    assert slot_seconds(clock.account(107.0)) == {
        "idle_start": 6.0,
        "busy": 3.0,
        "idle_middle": 1.0 + 2.0 + 1.0,
        "idle_tail": 1.0,
    }


def test_a_host_that_comes_up_in_the_tail_is_idle_in_the_tail() -> None:
    """Where nothing waited, a host without a request lost nothing at the start."""
    clock = SlotClock()
    clock.begin(0.0)
    clock.tail_began(1.0)
    clock.limit_changed(2.0, 3, 3)
    assert slot_seconds(clock.account(4.0)) == {"loading": 6.0, "idle_tail": 6.0}


def test_slots_that_other_runs_hold_are_waited_for() -> None:
    """Slots beyond this run's share count apart from idle ones, and only while work waits."""
    clock = begun(4, usable=1)
    clock.request_started(100.0)
    clock.limit_changed(102.0, 4, 3)
    clock.tail_began(105.0)
    clock.request_ended(106.0, 100.0, Ending.ANSWERED)
    account = clock.account(107.0)
    assert slot_seconds(account) == {
        "busy": 6.0,
        "limit_wait": 3 * 2.0 + 1 * 3.0,
        "idle_middle": 2 * 3.0,
        "idle_tail": 3 * 1.0 + 4 * 1.0,
    }
    assert (account.slots, account.usable) == (4, 3)


def test_a_share_below_what_is_in_flight() -> None:
    """A share that shrank below the requests in flight withholds the free slots, no more."""
    clock = begun(4)
    for _ in range(3):
        clock.request_started(100.0)
    clock.limit_changed(100.0, 4, 1)
    assert slot_seconds(clock.account(101.0)) == {"open": 3.0, "limit_wait": 1.0}


def test_new_work_makes_a_pause_of_the_tail() -> None:
    """Work that came late makes idle time of the middle; a segment sent again does not."""
    again, late = begun(1), begun(1)
    for clock, has_new_work in ((again, False), (late, True)):
        clock.request_started(100.0)
        clock.request_ended(101.0, 100.0, Ending.FAILED)
        clock.tail_began(101.0)
        clock.tail_ended(103.0, has_new_work=has_new_work)
    assert slot_seconds(again.account(103.5)) == {"lost": 1.0, "idle_tail": 2.0, "idle_middle": 0.5}
    assert slot_seconds(late.account(103.5)) == {"lost": 1.0, "idle_middle": 2.5}


def test_loading_and_down_are_no_idle_time() -> None:
    """A host that takes no requests counts by the slots it gets, or had."""
    clock = SlotClock(slots=1)
    clock.begin(0.0)
    clock.limit_changed(10.0, 4, 4)
    clock.limit_changed(11.0, 0, 0)
    clock.limit_changed(14.0, 2, 2)
    clock.limit_changed(15.0, 0, 0)
    clock.reloaded(5.0, 4.0)
    account = clock.account(16.0)
    assert slot_seconds(account) == {
        "loading": 40.0,
        "idle_start": 4.0 + 2.0,
        "down": 4 * 3.0 + 2 * 1.0,
    }
    assert (account.slots, account.reloads) == (2, 1)
    assert account.up == ((10.0, 11.0), (14.0, 15.0))
    assert account.up_seconds == 2.0


def test_a_host_that_never_was_up() -> None:
    """Nobody knows how many slots were lost of a host that was never reached."""
    clock = SlotClock(slots=3)
    clock.begin(0.0)
    assert clock.account(60.0) == HostAccount(slots=3)


def test_nothing_counts_before_the_run_sends_anything() -> None:
    """What hosts are before the run's first request is nobody's loss, nor is it up time."""
    clock = SlotClock()
    clock.limit_changed(1.0, 2, 2)
    clock.limit_changed(2.0, 0, 0)
    clock.limit_changed(3.0, 2, 1)
    assert clock.account(5.0) == HostAccount(slots=2, usable=1)
    clock.begin(7.0)
    account = clock.account(9.0)
    assert slot_seconds(account) == {"idle_start": 2.0, "limit_wait": 2.0}
    assert account.up == ((0.0, None),)
    assert account.up_seconds == 2.0


def test_a_request_outlives_its_host() -> None:
    """A request goes on to count while its host is down, and stands for one of its slots."""
    clock = begun(2)
    clock.request_started(100.0)
    clock.limit_changed(101.0, 0, 0)
    clock.request_ended(103.0, 100.0, Ending.ANSWERED)
    account = clock.account(104.0)
    assert slot_seconds(account) == {"busy": 3.0, "idle_middle": 1.0, "down": 2.0 + 2.0}
    assert account.up == ((0.0, 3.0),)  # it worked until then


def test_a_probe_takes_a_slot_and_no_time() -> None:
    """A probe is in flight, and is no request: the time it takes is still idle, or down."""
    clock = begun(2)
    clock.probe_started()
    clock.request_started(100.0)
    assert clock.in_flight == 2
    clock.limit_changed(101.0, 0, 0)
    clock.probe_ended()
    assert clock.in_flight == 1
    account = clock.account(102.0)
    assert slot_seconds(account) == {"open": 2.0, "idle_middle": 1.0, "down": 1.0}
    assert (account.requests, account.peak_in_flight) == (1, 1)


def test_a_request_from_before_the_run_counts_from_its_beginning() -> None:
    """Of a request that was in flight when the run began, what came after counts."""
    clock = SlotClock()
    clock.limit_changed(90.0, 2, 2)
    clock.request_started(91.0)
    clock.request_ended(92.0, 91.0, Ending.ANSWERED)
    for _ in range(2):
        clock.request_started(95.0)
    clock.begin(100.0)
    clock.request_ended(103.0, 95.0, Ending.FAILED)
    assert slot_seconds(clock.account(104.0)) == {"lost": 3.0, "open": 4.0, "idle_middle": 1.0}


def test_more_in_flight_than_slots() -> None:
    """A host whose slots turn out to be fewer has no slot idle until requests have ended."""
    clock = begun(3)
    for _ in range(3):
        clock.request_started(100.0)
    clock.limit_changed(101.0, 1, 1)
    for _ in range(3):
        clock.request_ended(102.0, 100.0, Ending.ANSWERED)
    assert slot_seconds(clock.account(103.0)) == {"busy": 6.0, "idle_middle": 1.0}


def test_a_refused_answer_is_lost() -> None:
    """What is not acceptable takes its time and tokens out of what was useful."""
    clock = begun(1)
    for started_at in (100.0, 102.0):
        clock.request_started(started_at)
        clock.request_ended(started_at + 2, started_at, Ending.ANSWERED, 50)
    clock.refused(2.0, 50)
    account = clock.account(104.0)
    assert slot_seconds(account) == {"busy": 2.0, "lost": 2.0}
    assert (account.output_tokens, account.failures) == (100, 0)
    assert account.tokens_per_second == 25.0


def test_speeds() -> None:
    """The usual speed is that of all useful answers, the fastest that of a long enough one."""
    clock = begun(2)
    clock.request_started(100.0)
    clock.request_ended(101.0, 100.0, Ending.ANSWERED, FEWEST_TOKENS)
    clock.request_started(101.0, is_hedge=True)
    clock.request_ended(101.1, 101.0, Ending.ANSWERED, FEWEST_TOKENS - 1)
    clock.request_started(102.0)
    clock.request_ended(102.5, 102.0, Ending.DUPLICATE, 500)
    account = clock.account(103.0)
    assert account.fastest_tokens_per_second == FEWEST_TOKENS
    assert account.tokens_per_second == round(39 / 1.1, 3)
    assert account.hedges == 1
    assert account.last_answer_seconds == 1.1
    assert clock.last_answer_at == 101.1


def test_an_account_of_a_moment_that_is_past() -> None:
    """An account up to the last answer leaves out what came after, unless something changed."""
    clock = begun(2)
    clock.request_started(100.0)
    clock.tail_began(100.0)
    clock.request_ended(102.0, 100.0, Ending.ANSWERED)
    assert slot_seconds(clock.account(101.0)) == {"busy": 2.0, "idle_tail": 2.0}
    assert slot_seconds(clock.account(103.0)) == {"busy": 2.0, "idle_tail": 4.0}


def test_an_account_can_be_stored() -> None:
    """An account is JSON as it is, with null for a host that is still up."""
    stored = json.loads(json.dumps(asdict(begun(2).account(101.0))))
    assert stored["up"] == [[0.0, None]]
    assert stored["idle_start_slot_seconds"] == 2.0


@dataclass
class Replay:
    """A clock and the same account kept in the plainest way, second by second."""

    clock: SlotClock = field(default_factory=SlotClock)
    at: int = 0
    slots: int = 0
    last_slots: int = 0
    first_slots: int = 0
    usable: int = 0
    is_tail: bool = False
    has_sent: bool = False
    started: list[int] = field(default_factory=list)
    capacity: int = 0
    """Slot-seconds of max(slots, in flight), with the last slots of a host that is down."""
    waited: int = 0
    loading_s: int = 0
    down: int = 0
    up_s: int = 0
    busy_s: int = 0

    def pass_time(self, seconds: int) -> None:
        """Nothing changes for some seconds."""
        for _ in range(seconds):
            in_flight = len(self.started)
            free = max(0, self.slots - in_flight)
            self.busy_s += bool(in_flight)
            self.up_s += bool(self.slots)
            self.capacity += max(self.last_slots, in_flight)
            self.loading_s += not self.first_slots
            self.down += 0 if self.slots else max(0, self.last_slots - in_flight)
            self.waited += 0 if self.is_tail else min(free, self.slots - self.usable)
        self.at += seconds

    def take(self, step: str, rng: random.Random) -> None:
        """One change, told to the clock as well."""
        now = float(self.at)
        if step == "limit":
            self.slots = rng.choice([0, 1, 2, 5])
            self.usable = rng.randint(0, self.slots)
            self.last_slots = self.slots or self.last_slots
            self.first_slots = self.first_slots or self.slots
            self.clock.limit_changed(now, self.slots, self.usable)
        elif step == "start" and self.slots:
            self.started.append(self.at)
            self.clock.request_started(now)
        elif step == "end" and self.started:
            started_at = self.started.pop(rng.randrange(len(self.started)))
            self.clock.request_ended(now, float(started_at), rng.choice(list(Ending)), 30)
        elif step == "tail":
            self.is_tail = True
            self.clock.tail_began(now)
        elif step in ("work", "new work"):
            self.is_tail = False
            self.clock.tail_ended(now, has_new_work=step == "new work")


@given(
    st.lists(st.tuples(STEPS, st.integers(0, 3)), max_size=80), st.randoms(use_true_random=False)
)
def test_all_slot_time_is_accounted_for(steps: list[tuple[str, int]], rng: random.Random) -> None:
    """Whatever happens in whatever order, the parts add up to the host's slot time."""
    replay = Replay()
    replay.clock.begin(0.0)
    for step, seconds in steps:
        replay.take(step, rng)
        replay.pass_time(seconds)
        account = replay.clock.account(float(replay.at))
        loading = replay.loading_s * replay.first_slots
        parts = slot_seconds(account)
        assert sum(parts.values()) == pytest.approx(replay.capacity + loading)
        assert min(parts.values(), default=0) >= 0
        assert account.open_slot_seconds == sum(replay.at - started for started in replay.started)
        assert account.limit_wait_slot_seconds == replay.waited
        assert account.loading_slot_seconds == loading
        assert account.down_slot_seconds == replay.down
        assert account.busy_seconds == replay.busy_s
        assert account.up_seconds >= replay.up_s  # more by answers of a host taken for down


def test_a_change_costs_little() -> None:
    """Telling of a request takes microseconds, also when a great many came before."""
    clock = begun(8)
    best_s = float("inf")
    for began_at in range(100, 50_100, 10_000):
        began_s = time.perf_counter()
        for at in range(began_at, began_at + 10_000):
            clock.request_started(at)
            clock.request_ended(at + 1, at, Ending.ANSWERED, 30)
        best_s = min(best_s, time.perf_counter() - began_s)
    assert best_s / 20_000 * 1e6 < SLOWEST_CALL_US
