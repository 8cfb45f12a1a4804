from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.health import (
    FAULTS_IN_A_ROW,
    FIRST_COOL_DOWN_S,
    LONGEST_COOL_DOWN_S,
    Health,
    HostState,
    cool_down_s,
)
from tasks.core.errors import ErrorKind

UP = Health().loaded()
SUSPECT_AT_ONCE = [ErrorKind.TIMEOUT, ErrorKind.NOT_FOUND]
WHEN_REPEATED = [ErrorKind.RESET, ErrorKind.SERVER_ERROR, ErrorKind.INVALID_ANSWER]
OF_THE_REQUEST = [
    ErrorKind.BAD_REQUEST,
    ErrorKind.CONTEXT_OVERFLOW,
    ErrorKind.NOT_DONE,
    ErrorKind.CUT,
    ErrorKind.EMPTY,
]


def after(health: Health, *kinds: ErrorKind, now: float = 100.0) -> Health:
    """The health after these faults in a row."""
    for kind in kinds:
        health = health.after_fault(kind, f"it was {kind}", now, 0.0)
    return health


def test_every_kind_of_error_has_its_effect_named_here() -> None:
    """The lists of these tests, `busy` and `unreachable` are all kinds there are."""
    named = [*SUSPECT_AT_ONCE, *WHEN_REPEATED, *OF_THE_REQUEST]
    named += [ErrorKind.BUSY, ErrorKind.UNREACHABLE]
    assert sorted(named) == sorted(ErrorKind)


def test_a_host_starts_unasked() -> None:
    """At its start a host is neither up nor lost."""
    assert Health().state is HostState.STARTING
    assert not Health().is_lost


def test_from_start_to_up() -> None:
    """A host that answers loads the model and is up when it is loaded."""
    loading = Health().loading()
    assert loading.state is HostState.LOADING
    assert not loading.is_lost
    assert loading.loaded().state is HostState.UP


def test_unreachable_is_down_at_once() -> None:
    """A host without a connection is down, with its reason and a time to try again."""
    down = after(UP, ErrorKind.UNREACHABLE)
    assert down.state is HostState.DOWN
    assert down.is_lost
    assert down.reason == f"it was {ErrorKind.UNREACHABLE}"
    assert down.retry_at == 100.0 + FIRST_COOL_DOWN_S / 2


@pytest.mark.parametrize("kind", SUSPECT_AT_ONCE)
def test_suspect_at_once(kind: ErrorKind) -> None:
    """One such fault makes a host prove itself before the next request; it is not lost."""
    suspect = after(UP, kind)
    assert suspect.state is HostState.SUSPECT
    assert not suspect.is_lost
    assert suspect.reason == f"it was {kind}"


@pytest.mark.parametrize("kind", WHEN_REPEATED)
def test_suspect_after_three_broken_answers(kind: ErrorKind) -> None:
    """Broken answers make a host prove itself when three come in a row, not before."""
    assert FAULTS_IN_A_ROW == 3
    assert after(UP, kind, kind).state is HostState.UP
    assert after(UP, kind, kind, kind).state is HostState.SUSPECT


def test_broken_answers_of_different_kinds_add_up() -> None:
    """It is the row that counts, not the kind."""
    assert after(UP, *WHEN_REPEATED).state is HostState.SUSPECT


def test_an_answer_ends_the_row() -> None:
    """An answer in between starts the count again."""
    health = after(after(UP, ErrorKind.RESET, ErrorKind.RESET).answered(), ErrorKind.RESET)
    assert health.state is HostState.UP
    assert health.faults_in_a_row == 1


@pytest.mark.parametrize("kind", OF_THE_REQUEST)
def test_faults_of_the_request_say_nothing_of_the_host(kind: ErrorKind) -> None:
    """However often a request is refused for what it is, the host stays as it was."""
    assert after(UP, *[kind] * 10) == UP


def test_busy_is_not_down() -> None:
    """A host with a full queue is asked to load again; nothing is counted against it."""
    busy = after(UP, ErrorKind.BUSY)
    assert busy.state is HostState.LOADING
    assert not busy.is_lost
    assert (busy.times_down, busy.faults_in_a_row) == (0, 0)


@pytest.mark.parametrize(
    "health",
    [
        Health(),
        Health().loading(),
        after(UP, ErrorKind.UNREACHABLE),
        after(UP, ErrorKind.TIMEOUT),
        UP.left("no model"),
    ],
)
@pytest.mark.parametrize("kind", list(ErrorKind))
def test_late_faults_change_nothing(health: Health, kind: ErrorKind) -> None:
    """Requests that fail after their host went down do not take it further down."""
    assert after(health, kind, now=999.0) == health


@pytest.mark.parametrize(
    "health",
    [
        Health(),
        Health().loading(),
        after(UP, ErrorKind.UNREACHABLE),
        after(UP, ErrorKind.TIMEOUT),
        UP.left("no model"),
    ],
)
def test_late_answers_change_nothing(health: Health) -> None:
    """An answer to an old request does not bring a host up that is down."""
    assert health.answered() == health


def test_a_host_that_was_down_comes_back() -> None:
    """A suspect that proved itself is up again, its row of faults forgotten."""
    back = after(UP, *WHEN_REPEATED).loaded()
    assert back.state is HostState.UP
    assert back.faults_in_a_row == 0


def test_the_cool_down_doubles_until_an_answer() -> None:
    """Coming up is not enough to be trusted: only an answer shortens the cool-down again."""
    health, waits = UP, []
    for _ in range(6):
        health = after(health, ErrorKind.UNREACHABLE)
        waits.append(health.retry_at - 100.0)
        health = health.loading().loaded()
    assert waits == [0.5, 1.0, 2.0, 4.0, 7.5, 7.5]
    trusted = after(health.answered(), ErrorKind.UNREACHABLE)
    assert trusted.retry_at == 100.5
    assert trusted.times_down == 1


@pytest.mark.parametrize("health", [Health(), Health().loading(), UP, after(UP, ErrorKind.TIMEOUT)])
def test_any_host_can_be_left(health: Health) -> None:
    """A host of no use is left from any state, and counts as lost."""
    left = health.left("it has no model")
    assert left.state is HostState.LEFT
    assert left.is_lost
    assert left.reason == "it has no model"


@given(st.integers(min_value=0), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_cool_down_bounds(times_down: int, jitter: float) -> None:
    """A cool-down is never longer than the longest and never under half of its step."""
    step = min(LONGEST_COOL_DOWN_S, FIRST_COOL_DOWN_S * 2 ** min(times_down, 10))
    assert step / 2 <= cool_down_s(times_down, jitter) <= step
