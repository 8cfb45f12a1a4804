from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.retry import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    MOST_BUSY,
    MOST_FAILURES,
    GiveUp,
    Retry,
    after_failure,
    counts_as_failure,
    delay_s,
)
from tasks.core.errors import ErrorKind

HOPELESS = [ErrorKind.BAD_REQUEST, ErrorKind.CONTEXT_OVERFLOW]
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.mark.parametrize("kind", HOPELESS)
def test_a_refused_request_is_given_up_at_once(kind: ErrorKind) -> None:
    """No host answers a refused request differently, so no other is asked."""
    assert after_failure(kind, 1, 0, 0.5) == GiveUp()


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind not in HOPELESS])
def test_other_failures_are_tried_again_within_bounds(kind: ErrorKind) -> None:
    """A segment gets MOST_FAILURES failed requests and MOST_BUSY refusals, and no more."""
    assert isinstance(after_failure(kind, MOST_FAILURES - 1, MOST_BUSY - 1, 0.5), Retry)
    assert after_failure(kind, MOST_FAILURES, 0, 0.5) == GiveUp()
    assert after_failure(kind, 0, MOST_BUSY, 0.5) == GiveUp()


def test_only_busy_costs_nothing() -> None:
    """A full queue uses up none of a segment's chances; everything else does."""
    assert [kind for kind in ErrorKind if not counts_as_failure(kind)] == [ErrorKind.BUSY]


def test_delays_double() -> None:
    """Each failure doubles the delay, up to the longest."""
    assert [delay_s(failures, 1.0) / FIRST_DELAY_S for failures in (1, 2, 3)] == [2, 4, 8]
    assert delay_s(10**6, 1.0) == LONGEST_DELAY_S


def test_refusals_by_a_full_queue_lengthen_the_delay_too() -> None:
    """A server that stays busy is asked less and less often, but not ever less."""
    delays = [after_failure(ErrorKind.BUSY, 0, busy, 0.5) for busy in (1, 3, 6, 7, 59)]
    assert delays == [Retry(0.25), Retry(1.0), Retry(5.0), Retry(5.0), Retry(5.0)]


@given(st.integers(min_value=0), JITTER)
def test_delay_bounds(failures: int, jitter: float) -> None:
    """A delay is all jitter: from nothing up to its step, and never beyond the longest."""
    step = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures, 10))
    assert 0 <= delay_s(failures, jitter) <= step
