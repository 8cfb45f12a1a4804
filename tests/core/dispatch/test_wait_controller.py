from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.dispatch.wait_controller import (
    LEAST_ANSWERS,
    SHORTEST_WAIT,
    SHORTEST_WAIT_S,
    SHORTEST_WINDOW_S,
    WINDOW,
    WINDOWS_TO_LOWER,
    WINDOWS_TO_RAISE,
    WaitController,
)

SERVICE_S = 4.0
SLOTS = st.sampled_from([1, 2, 3, 4, 6, 8, 12])
SEEDS = st.integers(min_value=0, max_value=10_000)


@dataclass(slots=True)
class Request:
    """A request at the server; `left_s` is its work in seconds of a lone request."""

    key: int
    left_s: float
    arrived_at: float
    began_at: float = 0.0


@dataclass(slots=True)
class Server:
    """Hidden slots given out in order and shared fairly: n run at 1 / (1 + alpha (n - 1)) each."""

    slots: int
    alpha: float = 0.05
    now: float = 0.0
    waiting: deque[Request] = field(default_factory=deque)
    running: list[Request] = field(default_factory=list)

    def submit(self, key: int, work_s: float) -> None:
        """A request arrives."""
        self.waiting.append(Request(key, work_s, self.now))
        self._start()

    def next_answer(self) -> tuple[int, float, float]:
        """The request that is answered next, how long it waited and how long it was served."""
        first = min(self.running, key=lambda each: each.left_s)
        done_s = first.left_s
        self.now += done_s * (1 + self.alpha * (len(self.running) - 1))
        for each in self.running:
            each.left_s -= done_s
        self.running.remove(first)
        self._start()
        return first.key, first.began_at - first.arrived_at, self.now - first.began_at

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            request = self.waiting.popleft()
            request.began_at = self.now
            self.running.append(request)


def nobody(_answers: int) -> int:
    """No other client."""
    return 0


def limits(
    controller: WaitController,
    slots: int,
    answers: int,
    *,
    others: Callable[[int], int] = nobody,
    rng: random.Random,
    spread: float = 0.6,
    wait_of: Callable[[float, float], float] = lambda wait_s, _service_s: wait_s,
) -> list[int]:
    """The limit after each answer, of a run that always has as many in flight as it may.

    `others` is how many requests another client has in flight once so many answers came,
    `spread` the sigma of the lognormal lengths.
    """
    server, ours, foreign, keys = Server(slots), dict[int, int](), set[int](), itertools.count()
    seen: list[int] = []
    while len(seen) < answers:
        while len(ours) < controller.limit or len(foreign) < others(len(seen)):
            key = next(keys)
            if len(ours) < controller.limit:
                ours[key] = len(ours) + 1
            else:
                foreign.add(key)
            server.submit(key, SERVICE_S * rng.lognormvariate(0, spread))
        key, wait_s, service_s = server.next_answer()
        foreign.discard(key)
        if key in ours:
            controller = controller.after(wait_of(wait_s, service_s), service_s, ours.pop(key))
            seen.append(controller.limit)
    return seen


def after_answers(
    controller: WaitController, waits_s: Iterable[float], service_s: float = SERVICE_S
) -> WaitController:
    """The controller after answers whose requests filled its limit."""
    for wait_s in waits_s:
        controller = controller.after(wait_s, service_s, controller.limit)
    return controller


def window(limit: int) -> int:
    """Answers in a window."""
    return max(LEAST_ANSWERS, WINDOW * limit)


@pytest.mark.parametrize("slots", [1, 2, 4, 6])
@pytest.mark.parametrize("spread", [0.0, 0.6, 1.0])
def test_a_limit_that_is_too_high_is_lowered_to_the_slots(slots: int, spread: float) -> None:
    """Told of 8 slots where there are fewer, it is at most one off within a few windows."""
    seen = limits(WaitController(8, 8), slots, 2000, rng=random.Random(1), spread=spread)
    assert max(seen) == 8
    assert seen[4 * window(8)] in (slots, slots + 1)
    settled = Counter(seen[500:])
    assert set(settled) <= {slots - 1, slots, slots + 1}
    assert settled[slots] > 0.85 * settled.total()


def test_trying_one_more_becomes_rare() -> None:
    """A limit that proved too high is tried again, each time after twice as many windows."""
    seen = limits(WaitController(8, 8), 4, 6000, rng=random.Random(2))
    raised_at = [at for at, (one, other) in enumerate(itertools.pairwise(seen)) if other > one]
    gaps = [other - one for one, other in itertools.pairwise(raised_at)]
    assert len(raised_at) < 20
    assert gaps[3] > 3 * gaps[0]


@settings(deadline=None, max_examples=40)
@given(SLOTS, SEEDS)
def test_the_limit_never_leaves_the_slots_in_clean_conditions(slots: int, seed: int) -> None:
    """Where nobody else is, the slots that were found stay the limit, whatever lengths come."""
    rng = random.Random(seed)

    def noisy(wait_s: float, service_s: float) -> float:
        """A wait that is short by the clock or beside the service."""
        return wait_s + rng.random() * max(0.9 * SHORTEST_WAIT_S, 0.9 * SHORTEST_WAIT * service_s)

    assert set(limits(WaitController(slots, slots), slots, 3000, rng=rng, wait_of=noisy)) == {slots}


@pytest.mark.parametrize("slots", [2, 4, 8])
@pytest.mark.parametrize("others", [1, 2, 3])
def test_it_yields_to_others_and_comes_back(slots: int, others: int) -> None:
    """While others hold slots fewer are used, and all again soon after they left."""
    seen = limits(
        WaitController(slots, slots),
        slots,
        2000,
        others=lambda answers: others if 400 <= answers < 1000 else 0,
        rng=random.Random(3),
    )
    assert set(seen[:400]) == {slots}
    shared = seen[500:1000]
    assert sum(shared) / len(shared) < slots - 0.4 * min(others, slots - 1)
    assert min(shared) >= max(1, slots - others - 1)
    assert set(seen[1400:]) == {slots}


@settings(deadline=None)
@given(
    st.integers(min_value=1, max_value=20),
    st.lists(
        st.tuples(
            st.floats(min_value=0, max_value=1000),
            st.floats(min_value=0, max_value=1000),
            st.integers(min_value=0, max_value=3),
        ),
        max_size=400,
    ),
)
def test_it_stays_between_one_and_the_ceiling(
    ceiling: int, answers: Sequence[tuple[float, float, int]]
) -> None:
    """Whatever is reported, the limit is a number of requests that may be sent."""
    controller = WaitController(ceiling, ceiling)
    for wait_s, service_s, fewer in answers:
        controller = controller.after(wait_s, service_s, max(1, controller.limit - fewer))
        assert 1 <= controller.limit <= ceiling


def test_requests_that_did_not_fill_the_limit_say_nothing() -> None:
    """With fewer in flight than allowed, or more, an answer changes nothing at all."""
    controller = WaitController(8, 4)
    for in_flight in (1, 2, 3, 5, 8):
        assert controller.after(0.0, SERVICE_S, in_flight) == controller
        assert controller.after(60.0, SERVICE_S, in_flight) == controller


def test_it_is_lowered_by_what_waits() -> None:
    """Half of the time spent waiting means that half of the requests wait."""
    controller = after_answers(WaitController(8, 8), [SERVICE_S] * WINDOWS_TO_LOWER * window(8))
    assert controller.limit == 4


def test_it_is_raised_one_by_one() -> None:
    """After some windows without waits one more is tried; where that goes well, the next."""
    calm = [0.0] * WINDOWS_TO_RAISE * window(4)
    controller = after_answers(WaitController(8, 4), calm[:-1])
    assert controller.limit == 4
    controller = after_answers(controller, calm[-1:])
    assert controller.limit == 5
    assert after_answers(controller, [0.0] * 200).limit == 8


def test_one_slow_window_is_forgiven() -> None:
    """A queue that is gone with the next window changes nothing."""
    waits_s = ([SERVICE_S] * window(4) + [0.0] * window(4)) * 20
    assert after_answers(WaitController(4, 4), waits_s).limit == 4


def test_single_long_waits_are_forgiven() -> None:
    """One wait in a window may be of any length."""
    waits_s = ([600.0] + [0.0] * (window(4) - 1)) * 50
    assert after_answers(WaitController(4, 4), waits_s).limit == 4


@pytest.mark.parametrize("service_s", [0.0, 0.001, 0.02])
def test_instant_servers_do_not_queue(service_s: float) -> None:
    """Waits of milliseconds are none, however short the answers."""
    assert after_answers(WaitController(8, 8), [0.04] * 1000, service_s).limit == 8


def test_servers_that_report_nothing() -> None:
    """Durations of nothing at all are no reason for anything, negative ones neither."""
    assert after_answers(WaitController(4, 4), [0.0, -0.001] * 100, 0.0).limit == 4


def test_a_fast_server_that_is_held_up_for_a_moment_keeps_its_slots() -> None:
    """Many short answers are no long time: what holds a machine up for a second passes."""
    wait_s, service_s, limit = 0.1, 0.08, 4
    held_up = [wait_s] * int(SHORTEST_WINDOW_S / 2 * limit / (wait_s + service_s))
    assert len(held_up) > WINDOWS_TO_LOWER * window(limit)
    controller = after_answers(WaitController(limit, limit), [*held_up, *[0.0] * 400], service_s)
    assert controller.limit == limit
    assert after_answers(controller, held_up * 20, service_s).limit < limit
