from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.limits.shares import (
    TURN_S,
    Claim,
    Standing,
    fair_shares,
    granted,
    known_slots,
    may_enter_alone,
)

claims = st.lists(
    st.builds(
        Claim,
        slots=st.none() | st.integers(1, 9),
        need=st.integers(0, 20),
        held=st.integers(0, 9),
    ),
    min_size=1,
    max_size=7,
)
now_s = st.floats(0, 1e10)


def needing(slots: int, *needs: int) -> list[Claim]:
    """Runs that need so many slots each, on a host that has `slots`."""
    return [Claim(slots, need) for need in needs]


@pytest.mark.parametrize(
    ("slots", "needs", "shares"),
    [
        (4, [9], [4]),
        (4, [2], [2]),
        (4, [9, 9], [2, 2]),
        (4, [1, 9], [1, 3]),
        (4, [0, 9], [0, 4]),
        (6, [1, 2, 9], [1, 2, 3]),
        (9, [1, 2, 3], [1, 2, 3]),
        (8, [1, 9, 9, 3], [1, 2, 2, 3]),
    ],
)
def test_shares(slots: int, needs: list[int], shares: list[int]) -> None:
    """The smallest share is as large as it can be, and nobody gets more than it needs."""
    found = fair_shares(needing(slots, *needs), 0)
    assert sorted(found) == sorted(shares)
    assert [share for share, need in zip(found, needs, strict=True) if share > need] == []


@given(claims, now_s)
def test_never_more_than_the_host_has(claims: list[Claim], now_s: float) -> None:
    """All shares together are within the smallest number that is claimed."""
    shares = fair_shares(claims, now_s)
    assert min(shares) >= 0
    assert sum(shares) <= (known_slots(claims) or 0)


@given(claims, now_s)
def test_no_slot_idles_while_somebody_needs_it(claims: list[Claim], now_s: float) -> None:
    """What the needs come to is given, as far as there are slots."""
    shares = fair_shares(claims, now_s)
    needed = sum(claim.need for claim in claims)
    assert sum(shares) >= min(known_slots(claims) or 0, needed)


@given(claims, now_s)
def test_nobody_gets_what_it_neither_needs_nor_has(claims: list[Claim], now_s: float) -> None:
    """Slots beyond the need are only ever kept, never newly given."""
    for share, claim in zip(fair_shares(claims, now_s), claims, strict=True):
        assert share <= max(claim.need, claim.held)


@given(claims, now_s)
def test_even(claims: list[Claim], now_s: float) -> None:
    """Who lacks slots has at most one fewer than anybody else."""
    shares = fair_shares(claims, now_s)
    for share, claim in zip(shares, claims, strict=True):
        if share < claim.need:
            assert max(shares) <= share + 1


@given(claims, now_s)
def test_what_nobody_else_needs_is_kept(claims: list[Claim], now_s: float) -> None:
    """The share of the only run with work is at least what it holds."""
    free, holding = known_slots(claims) or 0, []
    for claim in claims:
        holding.append(replace(claim, need=0, held=min(claim.held, free)))
        free -= holding[-1].held
    only = replace(holding[0], need=claims[0].need)
    assert fair_shares([only, *holding[1:]], now_s)[0] >= only.held


@given(st.integers(1, 5), st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(0, 99))
def test_everybody_has_a_turn(slots: int, needs: list[int], lap: int) -> None:
    """Within as many turns as there are runs with work, each of them has a slot."""
    claims = needing(slots, *needs)
    needy = sum(need > 0 for need in needs)
    turns = range(lap * needy, (lap + 1) * needy)
    shares = [fair_shares(claims, turn * TURN_S) for turn in turns]
    for place, need in enumerate(needs):
        assert not need or any(share[place] for share in shares)


@given(claims, st.integers(0, 10**9), st.floats(0, 0.99), st.floats(0, 0.99))
def test_nothing_moves_within_a_turn(
    claims: list[Claim], turn: int, early: float, late: float
) -> None:
    """The clock alone takes no slot away before the turn is over."""
    shares = [fair_shares(claims, (turn + part) * TURN_S) for part in (early, late)]
    assert shares[0] == shares[1]


@pytest.mark.parametrize("turns_a_request", [1, 2, 3, 4])
def test_long_requests_starve_nobody(turns_a_request: int) -> None:
    """Also where requests last exactly as long as it takes until it is one's turn again."""
    runs, finished = needing(1, 1, 1), [0, 0]
    for turn in range(0, 400, turns_a_request):
        finished[fair_shares(runs, turn * TURN_S).index(1)] += 1
    assert min(finished) >= sum(finished) // 4


def test_nobody_knows() -> None:
    """Without a number there is no share, whatever is held or needed."""
    assert fair_shares([Claim(None, 3, 2), Claim(None, 1)], 0) == [0, 0]
    assert known_slots([]) is None


def test_smallest_number_holds() -> None:
    """Of different numbers, the smallest is everybody's."""
    assert known_slots([Claim(4), Claim(None), Claim(3)]) == 3
    assert sum(fair_shares([Claim(4, 9), Claim(None, 9), Claim(3, 9)], 0)) == 3


actions = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 9) | st.tuples(st.just("claims"), st.none() | st.integers(1, 9)),
    ),
    max_size=40,
)


@given(actions)
def test_holding_never_exceeds_the_limit(actions: list[tuple[int, int | tuple[str, int]]]) -> None:
    """Whoever asks for what: beyond the limit is only what was held when the limit fell."""
    runs = [Claim() for _ in range(4)]
    for place, action in actions:
        standing = Standing(tuple(runs), place)
        if isinstance(action, tuple):
            runs[place] = replace(runs[place], slots=action[1])
            continue
        held = granted(standing, action)
        before, runs[place] = runs[place].held, replace(runs[place], held=held)
        assert held == action if action <= before else before <= held <= action
        if held > before:
            assert sum(run.held for run in runs) <= (known_slots(runs) or 0)


def test_nobody_raises_beside_one_who_is_alone() -> None:
    """While another is alone a run may keep and give back; the one alone may take."""
    runs = (Claim(4, held=1), Claim(4, is_alone=True))
    assert granted(Standing(runs, 0), 2) == 1
    assert granted(Standing(runs, 0), 0) == 0
    assert granted(Standing(runs, 1), 9) == 3


@pytest.mark.parametrize(
    ("mine", "other", "may_enter"),
    [
        (Claim(), Claim(), True),
        (Claim(held=1), Claim(), True),
        (Claim(), Claim(held=1), False),
        (Claim(), Claim(4, held=1), True),
        (Claim(4), Claim(held=1), True),
    ],
)
def test_entering_alone(mine: Claim, other: Claim, *, may_enter: bool) -> None:
    """Others' slots are waited for only where no number is known."""
    assert may_enter_alone(Standing((mine, other), 0)) is may_enter


def test_standing() -> None:
    """Ours is told from the others', wherever it stands."""
    one, two, three = Claim(1), Claim(2), Claim(3)
    standing = Standing((one, two, three), 1)
    assert standing.mine == two
    assert standing.others == (one, three)
    assert standing.saying(Claim(9)) == Standing((one, Claim(9), three), 1)
