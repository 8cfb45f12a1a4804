from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.pace import GRACE_S, PATIENCE, SLOWEST_TOKENS_PER_S, SMOOTHING, Pace

TOKENS = st.integers(min_value=1, max_value=100_000)
SECONDS = st.floats(min_value=0, max_value=10_000)
PACES = st.builds(Pace, st.none() | st.floats(min_value=0, max_value=100))


def test_an_unknown_pace_is_the_slowest() -> None:
    """Before a host has answered, its deadline is that of the slowest host imaginable."""
    assert Pace().deadline_s(600) == GRACE_S + 600 / SLOWEST_TOKENS_PER_S


def test_the_first_answer_sets_the_pace() -> None:
    """One answer is enough to know a pace, and the deadline follows from it."""
    pace = Pace().after(100, 5.0)
    assert pace == Pace(0.05)
    assert pace.deadline_s(100) == GRACE_S + PATIENCE * 5.0


def test_later_answers_move_it_a_little() -> None:
    """A single odd answer moves the pace by a fifth of the difference."""
    assert SMOOTHING == 0.2
    assert Pace(1.0).after(10, 20.0).s_per_token == pytest.approx(1.2)


def test_an_empty_prediction_counts_as_one_token() -> None:
    """A prediction of no tokens divides by nothing else than one."""
    assert Pace().after(0, 3.0) == Pace(3.0)


@given(PACES, TOKENS, TOKENS)
def test_the_deadline_grows_with_length(pace: Pace, tokens: int, more: int) -> None:
    """A longer answer never has the shorter deadline, and every one has the grace."""
    assert GRACE_S <= pace.deadline_s(tokens) <= pace.deadline_s(tokens + more)


@given(PACES, TOKENS, SECONDS)
def test_the_pace_stays_between_what_was_seen(pace: Pace, tokens: int, wall_s: float) -> None:
    """Smoothing never leaves the range between the old pace and the new answer's."""
    seen = wall_s / tokens
    old = seen if pace.s_per_token is None else pace.s_per_token
    new = pace.after(tokens, wall_s).s_per_token
    assert new is not None
    assert min(old, seen) - 1e-9 <= new <= max(old, seen) + 1e-9
