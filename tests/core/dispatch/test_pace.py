from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.pace import (
    FIRST_GRACE_S,
    GRACE_S,
    LONGEST_FADES_TO,
    LONGEST_PROBE_S,
    PATIENCE,
    SLOWEST_TOKENS_PER_S,
    SMOOTHING,
    Pace,
)

TOKENS = st.integers(min_value=1, max_value=100_000)
SECONDS = st.floats(min_value=0, max_value=10_000)
PACES = st.builds(Pace, st.none() | st.floats(min_value=0, max_value=100), SECONDS)


def test_an_unknown_pace_is_the_slowest() -> None:
    """Before a host has answered, its deadline is that of the slowest host imaginable."""
    assert (FIRST_GRACE_S, SLOWEST_TOKENS_PER_S) == (30.0, 2.0)
    assert Pace().deadline_s(600) == 30.0 + 300.0


def test_the_first_answer_sets_the_pace() -> None:
    """One answer is enough to know a pace: five times as long, and ten seconds, are stalled."""
    assert (GRACE_S, PATIENCE) == (10.0, 5.0)
    pace = Pace().after(100, 8.0)
    assert pace == Pace(0.08, 8.0)
    assert pace.deadline_s(100) == 10.0 + 5.0 * 8.0


def test_later_answers_move_it_a_little() -> None:
    """A single odd answer moves the pace by a fifth of the difference."""
    assert SMOOTHING == 0.2
    assert Pace(1.0).after(10, 20.0).s_per_token == pytest.approx(1.2)


def test_an_empty_prediction_counts_as_one_token() -> None:
    """A prediction of no tokens divides by nothing else than one."""
    assert Pace().after(0, 3.0) == Pace(3.0, 3.0)


def test_the_longest_request_is_remembered_for_a_while() -> None:
    """A longer request counts at once; shorter ones let the longest fade, slowly."""
    assert LONGEST_FADES_TO == 0.98
    pace = Pace().after(100, 8.0).after(100, 20.0)
    assert pace.longest_s == 20.0
    assert pace.after(100, 1.0).longest_s == pytest.approx(19.6)
    for _ in range(35):
        pace = pace.after(100, 1.0)
    assert pace.longest_s == pytest.approx(10.0, rel=0.02)


def test_a_probe_may_wait_behind_the_requests_of_others() -> None:
    """A host has to generate a token in twice its longest request, and half the grace."""
    assert Pace().probe_deadline_s() == LONGEST_PROBE_S == 30.0
    assert Pace(0.01, 0.0).probe_deadline_s() == 5.0
    assert Pace(0.01, 4.0).probe_deadline_s() == 13.0
    assert Pace(0.01, 60.0).probe_deadline_s() == 30.0


@given(PACES, TOKENS, TOKENS)
def test_the_deadline_grows_with_length(pace: Pace, tokens: int, more: int) -> None:
    """A longer answer never has the shorter deadline, and every one has the grace."""
    grace_s = FIRST_GRACE_S if pace.s_per_token is None else GRACE_S
    assert grace_s <= pace.deadline_s(tokens) <= pace.deadline_s(tokens + more)


@given(PACES, TOKENS, SECONDS)
def test_the_pace_stays_between_what_was_seen(pace: Pace, tokens: int, wall_s: float) -> None:
    """Smoothing never leaves the range between the old pace and the new answer's."""
    seen = wall_s / tokens
    old = seen if pace.s_per_token is None else pace.s_per_token
    new = pace.after(tokens, wall_s).s_per_token
    assert new is not None
    assert min(old, seen) - 1e-9 <= new <= max(old, seen) + 1e-9


@given(PACES, TOKENS, SECONDS)
def test_a_probe_never_takes_for_ever(pace: Pace, tokens: int, wall_s: float) -> None:
    """However slow a host was, a probe has between 5 and 30 s."""
    for each in (pace, pace.after(tokens, wall_s)):
        assert GRACE_S / 2 <= each.probe_deadline_s() <= LONGEST_PROBE_S
