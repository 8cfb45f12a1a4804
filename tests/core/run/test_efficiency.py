from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.account import FEWEST_TOKENS, Ending, HostAccount
from tasks.core.dispatch.slot_clock import SlotClock
from tasks.core.run.efficiency import (
    Capacity,
    Efficiency,
    TimeShare,
    lower_bound_s,
    where_the_time_went,
)

TOKENS = st.integers(min_value=FEWEST_TOKENS, max_value=500)
NEVER_S = 1e9


@dataclass(frozen=True)
class HostModel:
    """A host whose requests slow one another down: alone / (1 + drag × (others))."""

    slots: int
    alone_tokens_per_s: float
    drag: float
    up: tuple[tuple[float, float | None], ...]

    def tokens_per_s(self, in_flight: int) -> float:
        """Of each of so many requests."""
        return self.alone_tokens_per_s / (1 + self.drag * (in_flight - 1))

    def capacity(self) -> Capacity:
        """What the bound may know of it."""
        return Capacity(self.slots, self.tokens_per_s(self.slots), self.alone_tokens_per_s, self.up)

    def is_up(self, at_s: float) -> bool:
        """Whether it takes requests, and answers those that it has."""
        return any(from_s <= at_s < (to_s or NEVER_S) for from_s, to_s in self.up)


@dataclass
class Running:
    """A request in flight."""

    tokens: int
    left: float
    started_at: float


@dataclass
class Schedule:
    """A run of one list of answers on some hosts; a host that goes down loses its requests."""

    waiting: list[int]
    hosts: Sequence[HostModel]
    rng: random.Random
    at_s: float = 0.0
    running: list[list[Running]] = field(default_factory=list)
    clocks: list[SlotClock] = field(default_factory=list)

    def makespan_s(self) -> float:
        """Run it to its end."""
        self.running = [[] for _ in self.hosts]
        self.clocks = [SlotClock() for _ in self.hosts]
        self._hosts_changed()
        for clock in self.clocks:
            clock.begin(0.0)
        self._fill()
        while self.waiting or any(self.running):
            self._go_on_to(self._next_change_s())
            self._hosts_changed()
            self._fill()
        return self.at_s

    def _next_change_s(self) -> float:
        turns = [turn for host in self.hosts for pair in host.up for turn in pair if turn]
        ends = [
            self.at_s + request.left / host.tokens_per_s(len(requests))
            for host, requests in zip(self.hosts, self.running, strict=True)
            for request in requests
        ]
        return min([turn for turn in turns if turn > self.at_s] + ends)

    def _go_on_to(self, at_s: float) -> None:
        for host, clock, requests in zip(self.hosts, self.clocks, self.running, strict=True):
            done = host.tokens_per_s(len(requests)) * (at_s - self.at_s) if requests else 0.0
            for request in list(requests):
                request.left -= done
                if request.left < 1e-7:
                    requests.remove(request)
                    clock.request_ended(at_s, request.started_at, Ending.ANSWERED, request.tokens)
        self.at_s = at_s

    def _hosts_changed(self) -> None:
        for host, clock, requests in zip(self.hosts, self.clocks, self.running, strict=True):
            if host.is_up(self.at_s):
                clock.limit_changed(self.at_s, host.slots, host.slots)
                continue
            clock.limit_changed(self.at_s, 0, 0)
            for request in requests:
                clock.request_ended(self.at_s, request.started_at, Ending.FAILED)
                self.waiting.append(request.tokens)
            requests.clear()

    def _fill(self) -> None:
        for host, clock, requests in zip(self.hosts, self.clocks, self.running, strict=True):
            while self.waiting and host.is_up(self.at_s) and len(requests) < host.slots:
                tokens = self.waiting.pop(self.rng.randrange(len(self.waiting)))
                requests.append(Running(tokens, float(tokens), self.at_s))
                clock.request_started(self.at_s)


@st.composite
def host_models(draw: st.DrawFn) -> HostModel:
    """A host that goes down and comes back at times, and is up from some moment on."""
    turns = sorted(draw(st.sets(st.integers(0, 60), max_size=5)))
    if len(turns) % 2 == 0:
        turns.append(draw(st.integers(61, 70)))
    ends: list[float | None] = [*map(float, turns[1::2]), None]
    return HostModel(
        slots=draw(st.integers(1, 4)),
        alone_tokens_per_s=draw(st.sampled_from([3.0, 10.0, 50.0])),
        drag=draw(st.sampled_from([0.0, 0.1, 1.0])),
        up=tuple(zip(map(float, turns[::2]), ends, strict=True)),
    )


WORK = st.lists(TOKENS, min_size=1, max_size=25)
HOSTS = st.lists(host_models(), min_size=1, max_size=4)
RNG = st.randoms(use_true_random=False)


@given(WORK, HOSTS, RNG)
def test_no_schedule_takes_less(
    work: list[int], hosts: list[HostModel], rng: random.Random
) -> None:
    """Whatever the order, the hosts and their absences, a run takes at least the bound."""
    bound_s = lower_bound_s(work, [host.capacity() for host in hosts])
    assert bound_s <= Schedule(list(work), hosts, rng).makespan_s() * (1 + 1e-6)


@given(WORK, HOSTS, RNG)
def test_what_hosts_showed_is_never_more_than_they_did(
    work: list[int], hosts: list[HostModel], rng: random.Random
) -> None:
    """The bound that follows from a run's own accounts is not above its makespan."""
    schedule = Schedule(list(work), hosts, rng)
    makespan_s = schedule.makespan_s()
    accounts = [clock.account(makespan_s) for clock in schedule.clocks]
    bound_s = lower_bound_s(work, [Capacity.of(account) for account in accounts])
    assert bound_s <= makespan_s * 1.001 + 0.001
    slots = sum(account.slots for account in accounts)
    total_s = sum(row.slot_seconds for row in where_the_time_went(accounts))
    assert total_s == pytest.approx(slots * makespan_s, rel=1e-3, abs=0.02)
    result = Efficiency.of(work, accounts)
    assert result.makespan_s == pytest.approx(makespan_s, abs=1e-3)
    assert result.efficiency is not None
    assert 0 < result.efficiency <= 1


@given(WORK, HOSTS)
def test_the_bound_against_brute_force(work: list[int], hosts: list[HostModel]) -> None:
    """All that is done by then is just the work, or the bound is that of some longest answers."""
    capacities = [host.capacity() for host in hosts]
    bound_s = lower_bound_s(work, capacities)
    done = sum(
        host.slots * host.tokens_per_s * max(0.0, min(bound_s, to_s or NEVER_S) - from_s)
        for host in capacities
        for from_s, to_s in host.up
    )
    speeds = sorted(
        (host.fastest_tokens_per_s for host in capacities for _ in range(host.slots)), reverse=True
    )
    by_longest_s = max(
        sum(sorted(work, reverse=True)[:count]) / sum(speeds[:count])
        for count in range(1, 1 + min(len(work), len(speeds)))
    )
    assert done >= sum(work) * (1 - 1e-9)
    assert bound_s >= by_longest_s
    assert done == pytest.approx(sum(work)) or bound_s == pytest.approx(by_longest_s)


@given(st.lists(TOKENS, min_size=1, max_size=6), st.integers(1, 3))
def test_close_to_the_best_of_all_schedules(work: list[int], slots: int) -> None:
    """On equal slots the best schedule is at most one answer longer than the bound."""
    bound_s = lower_bound_s(work, [Capacity(slots, 1.0)])
    best_s = min(_makespans(work, slots))
    assert bound_s <= best_s
    assert best_s <= bound_s + max(work)


def _makespans(work: Sequence[int], slots: int) -> list[int]:
    """Of all ways to give the answers to equal slots of one token a second."""
    if slots == 1:
        return [sum(work)]
    every = []
    for count in range(len(work) + 1):
        for chosen in combinations(range(len(work)), count):
            here = sum(work[index] for index in chosen)
            rest = [work[index] for index in range(len(work)) if index not in chosen]
            every += [max(here, other) for other in _makespans(rest, slots - 1)]
    return every


def test_all_hosts_at_work() -> None:
    """Many short answers take what all slots together need."""
    hosts = [Capacity(4, 10.0), Capacity(2, 30.0)]
    assert lower_bound_s([10] * 100, hosts) == 10.0


def test_the_longest_answer() -> None:
    """One long answer takes what the fastest slot alone needs for it."""
    hosts = [Capacity(4, 10.0, 20.0), Capacity(2, 30.0, 40.0)]
    assert lower_bound_s([800, 10, 10], hosts) == 20.0
    assert lower_bound_s([800, 800, 800], hosts) == 2400 / (40 + 40 + 20)


def test_hosts_that_are_not_always_up() -> None:
    """The time in which a host is not up does nothing; a host that joins late helps late."""
    leaves, joins = Capacity(1, 10.0, up=((0.0, 5.0),)), Capacity(1, 10.0, up=((15.0, None),))
    work = [10] * 10
    assert lower_bound_s(work, [leaves, joins]) == 20.0
    assert lower_bound_s(work, [Capacity(1, 10.0, up=((0, 1), (1, 3), (3, 3), (13, None)))]) == 20.0


def test_without_work_or_without_hosts() -> None:
    """No work takes no time, and no hosts never get it done."""
    assert lower_bound_s([], []) == 0.0
    assert lower_bound_s([0, 0], [Capacity(1, 1.0)]) == 0.0
    assert lower_bound_s([1], []) == math.inf
    assert lower_bound_s([1], [Capacity(0, 1.0), Capacity(1, 0.0), Capacity(1, 1.0, up=())]) == (
        math.inf
    )
    assert lower_bound_s([5], [Capacity(1, 1.0, up=((0.0, 4.0),))]) == math.inf


def test_efficiency() -> None:
    """The bound by the makespan; a host without an answer has shown no speed."""
    account = HostAccount(
        slots=2,
        tokens_per_second=10.0,
        fastest_tokens_per_second=12.0,
        last_answer_seconds=10.0,
        up=((0.0, None),),
    )
    idle = HostAccount(slots=8, up=((0.0, None),))
    assert Efficiency.of([10] * 16, [account, idle]) == Efficiency(10.0, 8.0, 0.8)
    assert Efficiency.of([10] * 21, [account]) == Efficiency(10.0, 10.5, 1.0)


def test_slots_that_were_in_use_count() -> None:
    """A host that had more slots for a while could do more than its last number of slots says."""
    assert Capacity.of(HostAccount(slots=2, peak_in_flight=5)).slots == 5


def test_efficiency_of_nothing() -> None:
    """Where nothing was translated there is nothing to compare with."""
    assert Efficiency.of([], []) == Efficiency(0.0, None, None)
    assert Efficiency.of([], [HostAccount(slots=1)]) == Efficiency(0.0, None, None)
    assert Efficiency.of([5], [HostAccount(slots=1)]) == Efficiency(0.0, None, None)


def test_where_the_time_went() -> None:
    """The parts that are not 0, useful time first, with their shares of all of it."""
    first = HostAccount(slots=2, busy_slot_seconds=70.0, idle_tail_slot_seconds=10.0)
    second = HostAccount(slots=1, busy_slot_seconds=5.0, down_slot_seconds=15.0)
    assert where_the_time_went([first, second]) == [
        TimeShare("useful answers", 75.0, 0.75),
        TimeShare("idle when no report waited any more", 10.0, 0.1),
        TimeShare("host down, or out of the run", 15.0, 0.15),
    ]
    assert where_the_time_went([]) == []
    assert where_the_time_went([HostAccount(slots=1)]) == []


def test_every_part_has_a_row() -> None:
    """No part of the slot time is left out of the report."""
    names = [name for name in HostAccount.__slots__ if name.endswith("_slot_seconds")]
    parts: dict[str, Any] = dict.fromkeys(names, 1.0)
    rows = where_the_time_went([HostAccount(slots=1, **parts)])
    assert len(rows) == len(names) == 10
    assert sum(row.share for row in rows) == pytest.approx(1.0)
