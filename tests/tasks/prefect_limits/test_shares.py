from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.prefect_limits.shares import (
    MOST_BLOCKS,
    REST_S,
    TURN_S,
    Seen,
    Turn,
    blocks,
    decide,
    limit_name,
    number_to_set,
    to_give_back,
)

LOOK_EVERY_S = 2.0
ENOUGH = 99


@pytest.mark.parametrize(
    "url", ["http://gpu1:11434", "https://[fe80::1]:443/a%20b", f"http://{'x' * 300}.example:80"]
)
def test_names_are_allowed_by_prefect(url: str) -> None:
    """A name has none of the characters that Prefect forbids, and a length that fits a table."""
    assert re.fullmatch(r"ollama-[a-z0-9-]{1,80}", limit_name(url))


def test_names_differ() -> None:
    """Hosts that read alike have names of their own."""
    urls = ["http://a:80", "https://a:80", "http://a:80/", "http://a-80", "http://a:80/b"]
    assert len({limit_name(url) for url in urls}) == len(urls)


def share(seen: Seen, need: int, held: int, claim: int | None = None) -> int:
    """What a run should hold that has not had a turn yet."""
    turn = Turn(runs=seen.others + 1)
    found = decide(seen, turn, claim=claim, need=need, held=held, now_s=0.0, draw=0.5)
    return found.share


@pytest.mark.parametrize(
    ("seen", "need", "held", "expected"),
    [
        (Seen(4, 0), 9, 0, 4),  # nobody else: everything
        (Seen(4, 0), 0, 4, 4),  # nobody else: kept though not needed
        (Seen(4, 0), 1, 0, 1),
        (Seen(4, 2), 9, 0, 2),  # taken by no run: respected
        (Seen(4, 0, others=1), 9, 4, 4),  # another one, that has what it needs
        (Seen(4, 0, others=1), 1, 4, 1),  # what is not needed is left to it
        (Seen(4, 0, others=1, others_wait=1), 9, 4, 2),
        (Seen(4, 0, others=1, others_wait=1), 1, 4, 1),
        (Seen(4, 4, others=1), 9, 0, 0),  # nothing free
        (Seen(4, 1, others=1), 9, 1, 3),  # free ones are taken
        (Seen(4, 1, others=1, is_used_up=True), 9, 1, 1),
        (Seen(5, 0, others=1, others_wait=1), 9, 5, 3),  # one more, until its turn is over
        (Seen(4, 4, others=1), 9, 4, 2),  # the limit was lowered below what is held
        (Seen(0, 0), 9, 4, 0),  # set to none by hand
    ],
)
def test_shares(seen: Seen, need: int, held: int, expected: int) -> None:
    """A run takes what is free, keeps what nobody needs, and goes down for those who wait."""
    assert share(seen, need, held) == expected


def test_a_run_never_uses_more_than_it_claims() -> None:
    """A limit set by hand above a run's own number is not for this run."""
    assert share(Seen(8, 0, is_by_hand=True), 9, 0, claim=4) == 4


seen_by_one = st.builds(
    Seen,
    limit=st.integers(0, 70),
    others_held=st.integers(0, 70),
    others=st.integers(0, 9),
    others_wait=st.integers(0, 9),
)


@given(seen_by_one, st.integers(0, 80), st.integers(0, 70), st.none() | st.integers(1, 70))
def test_a_share_is_within_bounds(seen: Seen, need: int, held: int, claim: int | None) -> None:
    """No share is above the limit, the claim, or what is there; a right is not above the need."""
    found = decide(seen, Turn(), claim=claim, need=need, held=held, now_s=0.0, draw=0.0)
    assert 0 <= found.share <= min(seen.limit, claim or seen.limit, held + seen.free(held))
    assert 0 <= found.due <= need


@dataclass
class Run:
    """A run that keeps every slot busy that it may use."""

    phase: float
    request_s: float
    need: int = ENOUGH
    turn: Turn = field(default_factory=Turn)
    held: int = 0
    share: int = 0
    due: int = 0
    ends: list[float] = field(default_factory=list)
    """When its requests end."""
    used_s: float = 0.0
    longest_without_s: float = 0.0
    without_since: float = 0.0


class SharedHost:
    """Runs that share one host, in a time of its own."""

    def __init__(self, limit: int, runs: list[Run], rng: random.Random) -> None:
        self.limit, self.runs, self.rng, self.now_s = limit, runs, rng, 0.0

    def go_on(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass; nothing ever exceeds the limit."""
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s += step_s
            for run in self.runs:
                run.ends = [end for end in run.ends if end > self.now_s]
                if (self.now_s + run.phase) % LOOK_EVERY_S < step_s:
                    self._look(run)
                self._use(run)
                run.used_s += step_s * len(run.ends)
                if run.ends or not run.need:
                    run.without_since = self.now_s
                waited = self.now_s - run.without_since
                run.longest_without_s = max(run.longest_without_s, waited)
            assert sum(run.held for run in self.runs) <= self.limit

    def _look(self, run: Run) -> None:
        others = [other for other in self.runs if other is not run]
        seen = Seen(
            self.limit,
            sum(other.held for other in others),
            len(others),
            sum(other.held < other.due for other in others),
        )
        found = decide(
            seen,
            run.turn,
            claim=None,
            need=run.need,
            held=run.held,
            now_s=self.now_s,
            draw=self.rng.random(),
        )
        run.turn, run.due, run.share = found.turn, found.due, found.share
        run.held = max(run.held, found.share)

    def _use(self, run: Run) -> None:
        run.held = max(min(run.held, run.share), len(run.ends))
        while len(run.ends) < min(run.held, run.share, run.need):
            run.ends.append(self.now_s + run.request_s * self.rng.uniform(0.5, 1.5))


def shared(limit: int, needs: list[int], request_s: float, seed: int) -> SharedHost:
    """Runs that begin together on one host."""
    rng = random.Random(seed)
    runs = [Run(rng.uniform(0, LOOK_EVERY_S), request_s, need) for need in needs]
    return SharedHost(limit, runs, rng)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from([0.5, 4.0, 15.0]),
    st.integers(0, 2**20),
)
def test_everybody_has_a_turn(limit: int, runs: int, request_s: float, seed: int) -> None:
    """However many runs share however few slots, each of them gets on, and few slots idle."""
    host = shared(limit, [ENOUGH] * runs, request_s, seed)
    host.go_on(1200)
    a_turn_s = 1.25 * TURN_S + REST_S + 1.5 * request_s + 2 * LOOK_EVERY_S
    rounds = max(1, -(-runs // limit))
    for run in host.runs:
        assert run.longest_without_s <= 3 * rounds * a_turn_s
    assert sum(run.used_s for run in host.runs) >= 0.8 * limit * 1200


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 6), st.integers(0, 2**20))
def test_over_time_all_get_as_much(limit: int, runs: int, seed: int) -> None:
    """What cannot be divided evenly goes round: in half an hour nobody is far behind."""
    host = shared(limit, [ENOUGH] * runs, 4.0, seed)
    host.go_on(1800)
    used = [run.used_s for run in host.runs]
    assert min(used) >= 0.5 * max(used)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 2**20)
)
def test_small_needs_are_met(limit: int, needs: list[int], seed: int) -> None:
    """A run that needs no more than its even part has all it needs, and what is left is used."""
    host = shared(limit, needs, 2.0, seed)
    host.go_on(120)
    for run in host.runs:
        run.used_s = 0.0
    host.go_on(300)
    even = limit // len(needs)
    for run in host.runs:
        assert run.used_s >= 0.75 * 300 * min(run.need, even)
    assert sum(run.used_s for run in host.runs) >= 0.75 * 300 * min(limit, sum(needs))


def test_a_newcomer_gets_its_part_at_once() -> None:
    """It waits for requests to end and for a few looks, not for the end of a turn."""
    host = shared(4, [ENOUGH, ENOUGH], 1.0, seed=1)
    host.go_on(60)
    newcomer = Run(0.3, 1.0)
    host.runs.append(newcomer)
    host.go_on(8)
    assert newcomer.held >= 1
    host.go_on(300)
    assert min(run.used_s for run in host.runs) > 0.8 * 300


@pytest.mark.parametrize(
    ("seen", "claim", "number"),
    [
        (Seen(8, 0), 4, 4),  # alone: its own
        (Seen(4, 0), 8, 8),
        (Seen(8, 4, others=1), 4, 4),  # with others: the smaller
        (Seen(4, 4, others=1), 8, None),
        (Seen(4, 0, others=1), 8, None),
        (Seen(4, 4), 8, None),  # held by something that is no run
        (Seen(4, 0), 4, None),
        (Seen(4, 0), None, None),
        (Seen(8, 0, is_by_hand=True), 4, None),
        (Seen(2, 0, is_by_hand=True), 4, None),
    ],
)
def test_the_number_of_a_limit(seen: Seen, claim: int | None, number: int | None) -> None:
    """The smallest claim counts as long as its run is there; what was set by hand stays."""
    assert number_to_set(seen, claim) == number


@given(st.integers(0, 200), st.integers(1, 200))
def test_blocks(slots: int, limit: int) -> None:
    """Blocks make up all slots, are few, and are single slots where there are few slots."""
    sizes = blocks(slots, limit)
    assert sum(sizes) == slots
    assert all(size > 0 for size in sizes)
    if slots <= limit:
        assert len(sizes) <= MOST_BLOCKS + 6
    if limit <= MOST_BLOCKS:
        assert set(sizes) <= {1}


@given(st.integers(1, 200), st.data())
def test_any_number_can_be_given_back(limit: int, data: st.DataObject) -> None:
    """What was raised at once can be given back in any part, to the slot."""
    sizes = blocks(limit, limit)
    surplus = data.draw(st.integers(0, limit))
    assert sum(sizes[place] for place in to_give_back(sizes, surplus)) == surplus


def test_never_more_is_given_back_than_is_too_much() -> None:
    """A block that holds a slot in use stays."""
    assert to_give_back([4, 4], 3) == []
    assert to_give_back([4, 1, 4], 6) == [0, 1]
