from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.retry import (
    FIRST_DELAY_S,
    LEAST_SAVED,
    LONGEST_DELAY_S,
    MOST_BROKEN,
    MOST_FAILURES,
    MOST_UNHEARD,
    RETRIES_PER_ANSWER,
    RETRIES_PER_S,
    GiveUp,
    Quarantine,
    Retry,
    RetryBudget,
    Tries,
    after_failure,
    delay_s,
)
from tasks.core.errors import ErrorKind

A, B, C = "http://a:1", "http://b:1", "http://c:1"
HOPELESS = [ErrorKind.BAD_REQUEST, ErrorKind.CONTEXT_OVERFLOW]
UNHEARD = [ErrorKind.BUSY, ErrorKind.UNREACHABLE, ErrorKind.NOT_FOUND]
OTHERS = [kind for kind in ErrorKind if kind not in HOPELESS + UNHEARD]
KINDS = st.sampled_from(ErrorKind)
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)


def tried(*failures: tuple[ErrorKind, str], in_quarantine: bool = False) -> Tries:
    """The tries after these failures."""
    tries = Tries(in_quarantine=in_quarantine)
    for kind, url in failures:
        tries = tries.after(kind, url)
    return tries


# What is counted


@pytest.mark.parametrize("kind", UNHEARD)
def test_what_the_host_did_not_hear_costs_nothing(kind: ErrorKind) -> None:
    """A request that never got as far as the model says nothing of the segment."""
    assert tried((kind, A), (kind, B)) == Tries(unheard=2)


@pytest.mark.parametrize("kind", HOPELESS + OTHERS)
def test_what_the_host_heard_counts_for_the_segment(kind: ErrorKind) -> None:
    """Every other failure may be due to the segment: it is counted, and where it was."""
    assert tried((kind, A), (kind, B), (kind, A)) == Tries(failures=3, broken=frozenset({A, B}))


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_an_interrupted_request_costs_nothing(kind: ErrorKind) -> None:
    """A request that was ended because its host went away is no fault of its segment."""
    before = Tries(failures=1, unheard=2, broken=frozenset({A}))
    assert before.after(kind, B, interrupted=True) == Tries(1, 3, frozenset({A}))


def test_quarantine_is_not_forgotten() -> None:
    """A segment in quarantine stays there, whatever happens to it."""
    for kind in ErrorKind:
        assert tried((kind, A), in_quarantine=True).in_quarantine


# What follows


@pytest.mark.parametrize("kind", HOPELESS)
def test_a_refused_request_is_given_up_at_once(kind: ErrorKind) -> None:
    """No host answers a refused request differently, so no other is asked."""
    assert after_failure(kind, tried((kind, A)), 0.5) == GiveUp()


@pytest.mark.parametrize("kind", OTHERS)
def test_a_broken_answer_is_tried_again_after_a_delay(kind: ErrorKind) -> None:
    """The first time, and on the same host as often as there is no other, each later."""
    delays = [
        after_failure(kind, tried(*[(kind, A)] * times), 0.5) for times in range(1, MOST_FAILURES)
    ]
    assert delays == [Retry(0.25), Retry(0.5), Retry(1.0), Retry(2.0)]


@pytest.mark.parametrize("kind", OTHERS)
def test_breaking_two_hosts_leads_to_quarantine(kind: ErrorKind) -> None:
    """A segment that broke the answers of two hosts may be what breaks them."""
    assert MOST_BROKEN == 2
    assert after_failure(kind, tried((kind, A), (kind, B)), 0.5) == Quarantine()


@pytest.mark.parametrize("kind", OTHERS)
def test_quarantine_is_the_last_try(kind: ErrorKind) -> None:
    """Broken again, with nobody else's answer at stake, it is given up."""
    tries = tried((kind, A), (kind, B), (kind, C), in_quarantine=True)
    assert after_failure(kind, tries, 0.5) == GiveUp()


@pytest.mark.parametrize("kind", UNHEARD)
def test_quarantine_is_not_over_before_it_was_heard(kind: ErrorKind) -> None:
    """Its last try is one that a host has heard."""
    tries = tried((ErrorKind.RESET, A), (ErrorKind.RESET, B), (kind, C), in_quarantine=True)
    assert isinstance(after_failure(kind, tries, 0.5), Retry)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_an_interrupted_request_is_sent_again_at_once(kind: ErrorKind) -> None:
    """Its host is gone, so it goes to another one: there is nothing to wait for."""
    for before in (Tries(), tried((ErrorKind.RESET, A)), tried((kind, A), in_quarantine=True)):
        tries = before.after(kind, B, interrupted=True)
        assert after_failure(kind, tries, 0.5, interrupted=True) == Retry(0.0)


def test_a_host_that_cannot_be_reached_is_not_waited_for() -> None:
    """It takes no more requests, so another one gets the segment at once."""
    tries = tried(*[(ErrorKind.UNREACHABLE, A)] * 9)
    assert after_failure(ErrorKind.UNREACHABLE, tries, 0.5) == Retry(0.0)


def test_refusals_by_a_full_queue_lengthen_the_delay() -> None:
    """A server that stays busy is asked less and less often, but not ever less."""
    delays = [
        after_failure(ErrorKind.BUSY, Tries(unheard=unheard), 0.5) for unheard in (1, 3, 5, 6, 59)
    ]
    assert delays == [Retry(0.25), Retry(1.0), Retry(4.0), Retry(5.0), Retry(5.0)]


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("kind", list(ErrorKind))
def test_nothing_is_tried_for_ever(kind: ErrorKind, *, interrupted: bool) -> None:
    """Five failures, or sixty requests that were not heard, are the end, whatever the last was."""
    assert (MOST_FAILURES, MOST_UNHEARD) == (5, 60)
    for tries in (Tries(failures=5), Tries(unheard=60)):
        assert after_failure(kind, tries, 0.5, interrupted=interrupted) == GiveUp()


HAPPENINGS = st.tuples(KINDS, st.sampled_from([A, B, C]), st.booleans(), JITTER)


@given(st.lists(HAPPENINGS, min_size=1, max_size=20))
def test_every_segment_comes_to_an_end(
    happenings: list[tuple[ErrorKind, str, bool, float]],
) -> None:
    """Whatever fails in whatever order, the segment is given up before it failed 65 times."""
    tries = Tries()
    for count, (kind, url, interrupted, jitter) in enumerate(cycle(happenings), 1):
        tries = tries.after(kind, url, interrupted=interrupted)
        assert tries.failures + tries.unheard == count < MOST_FAILURES + MOST_UNHEARD
        match after_failure(kind, tries, jitter, interrupted=interrupted):
            case GiveUp():
                break
            case Quarantine():
                assert len(tries.broken) >= MOST_BROKEN
                assert not tries.in_quarantine
                tries = Tries(tries.failures, tries.unheard, tries.broken, in_quarantine=True)
            case Retry(delay):
                assert 0 <= delay <= LONGEST_DELAY_S


# Delays


def test_delays_double() -> None:
    """Each failure doubles the delay, up to the longest."""
    assert [delay_s(failures, 1.0) / FIRST_DELAY_S for failures in (1, 2, 3)] == [2, 4, 8]
    assert delay_s(10**6, 1.0) == LONGEST_DELAY_S


@given(st.integers(min_value=0), JITTER)
def test_delay_bounds(failures: int, jitter: float) -> None:
    """A delay is all jitter: from nothing up to its step, and never beyond the longest."""
    step = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures, 10))
    assert 0 <= delay_s(failures, jitter) <= step


# The budget


def waits(budget: RetryBudget, count: int, now: float) -> list[float]:
    """What so many retries wait that are wanted at one moment."""
    waits = []
    for _ in range(count):
        budget, wait_s = budget.spend(now)
        waits.append(wait_s)
    return waits


def spent(budget: RetryBudget, count: int, now: float) -> RetryBudget:
    """The budget after so many retries at one moment."""
    for _ in range(count):
        budget, _ = budget.spend(now)
    return budget


@pytest.mark.parametrize(("slots", "most"), [(0, 50), (1, 50), (5, 50), (6, 60), (40, 400)])
def test_a_budget_is_of_ten_retries_a_slot(slots: int, most: float) -> None:
    """A run begins with ten retries for each slot, and with fifty at least."""
    assert LEAST_SAVED == 50
    assert RetryBudget.of(slots, 7.0) == RetryBudget(most, most, 7.0)


def test_a_burst_of_failures_is_retried_at_once() -> None:
    """As many retries as are saved wait for nothing: a host that dies is no storm."""
    assert waits(RetryBudget.of(8, 100.0), 80, 100.0) == [0.0] * 80


def test_an_empty_budget_lets_one_pass_each_second() -> None:
    """What goes beyond waits a second longer each time, so one goes out after the other."""
    assert RETRIES_PER_S == 1.0
    assert waits(RetryBudget.of(5, 100.0), 54, 100.0)[49:] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_time_refills_a_budget() -> None:
    """A run of failures alone goes on: a retry each second, and no more than there were."""
    empty = spent(RetryBudget.of(5, 100.0), 50, 100.0)
    assert waits(empty, 4, 103.0) == [0.0, 0.0, 0.0, 1.0]
    assert waits(empty, 1, 100.5) == [0.5]
    assert waits(empty, 52, 9999.0)[-3:] == [0.0, 1.0, 2.0]


def test_answers_refill_a_budget() -> None:
    """Each answer earns a tenth of a retry, and never more than the budget holds."""
    assert RETRIES_PER_ANSWER == 0.1
    budget = spent(RetryBudget.of(5, 100.0), 50, 100.0)
    for _ in range(20):
        budget = budget.after_answer()
    assert waits(budget, 3, 100.0) == pytest.approx([0.0, 0.0, 1.0])
    full = RetryBudget.of(5, 100.0)
    assert full.after_answer() == full


def test_answers_pay_back_what_is_owed() -> None:
    """When hosts are well again, retries soon wait no longer."""
    owing = spent(RetryBudget.of(5, 100.0), 60, 100.0)
    assert waits(owing, 1, 100.0) == [11.0]
    for _ in range(110):
        owing = owing.after_answer()
    assert waits(owing, 1, 100.0) == pytest.approx([0.0])


def test_a_clock_that_stands_still_costs_nothing() -> None:
    """A moment before the last one refills nothing, and takes nothing away."""
    budget = RetryBudget.of(5, 100.0)
    assert budget.spend(90.0)[0].saved == 49.0


STEPS = st.lists(
    st.tuples(st.floats(min_value=0, max_value=20), st.sampled_from(["retry", "answer"])),
    max_size=200,
)


@given(st.integers(min_value=0, max_value=20), STEPS)
def test_retries_are_never_more_than_is_earned(slots: int, steps: list[tuple[float, str]]) -> None:
    """At any time, those that were let out are covered by the start, the time and the answers."""
    now, answers, let_out = 100.0, 0, list[float]()
    budget = RetryBudget.of(slots, now)
    for after_s, what in steps:
        now += after_s
        if what == "answer":
            answers += 1
            budget = budget.after_answer()
        else:
            budget, wait_s = budget.spend(now)
            assert wait_s >= 0
            let_out.append(now + wait_s)
        assert budget.saved <= budget.most
    for count, at in enumerate(sorted(let_out), 1):
        assert count <= budget.most + RETRIES_PER_S * (at - 100.0) + 0.1 * answers + 1e-6
