from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.health import (
    FAULTS_IN_A_ROW,
    FIRST_COOL_DOWN_S,
    LONGEST_COOL_DOWN_S,
    SLOW_START_ENDS,
    Health,
    HostState,
    cool_down_s,
    requests_at_once,
)
from tasks.core.errors import ErrorKind

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


PROBING = Health()
LOADING = PROBING.loading()
CLOSED = LOADING.loaded()
SUSPECT = after(CLOSED, ErrorKind.TIMEOUT)
OPEN = after(CLOSED, ErrorKind.UNREACHABLE)
HALF_OPEN = OPEN.loading().proving()
DRAINING = CLOSED.drained()
GONE = CLOSED.gone("it has no model")
EVERY = [PROBING, LOADING, CLOSED, SUSPECT, OPEN, HALF_OPEN, DRAINING, GONE]
NOT_CLOSED = [health for health in EVERY if health is not CLOSED]
BACK = HALF_OPEN.loaded()


def state_of(health: Health) -> str:
    """A name for a test of one state."""
    return health.state


# The states


def test_every_state_is_reached_here() -> None:
    """The states of these tests are all there are."""
    assert [health.state for health in EVERY] == list(HostState)


def test_every_kind_of_error_has_its_effect_named_here() -> None:
    """The lists of these tests, `busy` and `unreachable` are all kinds there are."""
    named = [*SUSPECT_AT_ONCE, *WHEN_REPEATED, *OF_THE_REQUEST]
    named += [ErrorKind.BUSY, ErrorKind.UNREACHABLE]
    assert sorted(named) == sorted(ErrorKind)


def test_lost_hosts_are_those_that_nothing_is_expected_of() -> None:
    """Neither a host not heard of yet, nor one that loads or proves itself, is lost."""
    assert [health.state for health in EVERY if health.is_lost] == [HostState.OPEN, HostState.GONE]


def test_reached_hosts_are_those_that_answer() -> None:
    """A host is reached from its first answer on, for as long as it answers, however well."""
    missing = [health.state for health in EVERY if not health.is_reached]
    assert missing == [HostState.PROBING, HostState.OPEN, HostState.GONE]


def test_leaving_hosts_are_those_out_of_the_run() -> None:
    """Also while they end what they have."""
    leaving = [health.state for health in EVERY if health.is_leaving]
    assert leaving == [HostState.DRAINING, HostState.GONE]


def test_a_host_begins_unasked() -> None:
    """At its start nothing is known of a host, and nothing held against it."""
    assert Health() == Health(HostState.PROBING, 0, 0, 0.0, "", None)


# Faults


def test_unreachable_opens_at_once() -> None:
    """A host without a connection is opened, with its reason and a time to try again."""
    assert OPEN.state is HostState.OPEN
    assert OPEN.reason == f"it was {ErrorKind.UNREACHABLE}"
    assert OPEN.retry_at == 100.0 + FIRST_COOL_DOWN_S / 2


@pytest.mark.parametrize("kind", SUSPECT_AT_ONCE)
def test_suspect_at_once(kind: ErrorKind) -> None:
    """One such fault makes a host prove itself before the next request; it is not lost."""
    suspect = after(CLOSED, kind)
    assert suspect.state is HostState.SUSPECT
    assert not suspect.is_lost
    assert suspect.reason == f"it was {kind}"
    assert suspect.times_open == 0


@pytest.mark.parametrize("kind", WHEN_REPEATED)
def test_suspect_after_three_broken_answers(kind: ErrorKind) -> None:
    """Broken answers make a host prove itself when three come in a row, not before."""
    assert FAULTS_IN_A_ROW == 3
    assert after(CLOSED, kind, kind).state is HostState.CLOSED
    assert after(CLOSED, kind, kind, kind).state is HostState.SUSPECT


def test_broken_answers_of_different_kinds_add_up() -> None:
    """It is the row that counts, not the kind."""
    assert after(CLOSED, *WHEN_REPEATED).state is HostState.SUSPECT


def test_an_answer_ends_the_row() -> None:
    """An answer in between starts the count again."""
    health = after(after(CLOSED, ErrorKind.RESET, ErrorKind.RESET).answered(), ErrorKind.RESET)
    assert health.state is HostState.CLOSED
    assert health.faults_in_a_row == 1


@pytest.mark.parametrize("kind", OF_THE_REQUEST)
def test_faults_of_the_request_say_nothing_of_the_host(kind: ErrorKind) -> None:
    """However often a request is refused for what it is, the host stays as it was."""
    assert after(CLOSED, *[kind] * 10) == CLOSED
    in_a_row = after(CLOSED, ErrorKind.RESET, ErrorKind.RESET)
    assert after(in_a_row, kind) == in_a_row


def test_busy_is_not_open() -> None:
    """A host with a full queue is asked to load again; nothing is counted against it."""
    busy = after(CLOSED, ErrorKind.BUSY)
    assert busy.state is HostState.LOADING
    assert not busy.is_lost
    assert (busy.times_open, busy.faults_in_a_row) == (0, 0)


@pytest.mark.parametrize("health", NOT_CLOSED, ids=state_of)
@pytest.mark.parametrize("kind", list(ErrorKind))
def test_late_faults_change_nothing(health: Health, kind: ErrorKind) -> None:
    """Requests that fail after their host stopped taking any do not take it further down.

    But for a suspect one that cannot even be reached: it may get requests, if it is the last.
    """
    if health.state is HostState.SUSPECT and kind is ErrorKind.UNREACHABLE:
        assert after(health, kind, now=999.0).state is HostState.OPEN
    else:
        assert after(health, kind, now=999.0) == health


@pytest.mark.parametrize("health", NOT_CLOSED, ids=state_of)
def test_late_answers_change_nothing(health: Health) -> None:
    """An answer to an old request does not close a host that has to prove itself, or has left."""
    assert health.answered() == health


# Coming up


def test_from_start_to_closed() -> None:
    """A host that answers loads the model, and takes requests when it is loaded."""
    assert LOADING.state is HostState.LOADING
    assert LOADING.loaded() == Health(HostState.CLOSED)


def test_from_open_to_closed() -> None:
    """A host that was open loads, proves itself, and takes requests after that."""
    states = [OPEN.state, OPEN.loading().state, HALF_OPEN.state, BACK.state]
    assert states == [HostState.OPEN, HostState.LOADING, HostState.HALF_OPEN, HostState.CLOSED]


@pytest.mark.parametrize("health", [LOADING, SUSPECT, HALF_OPEN], ids=state_of)
def test_a_host_that_did_not_come_up_is_opened(health: Health) -> None:
    """If loading or the proof fails, the host is tried again after a cool-down."""
    opened = health.opened("no token in time", 50.0, 0.0)
    assert opened.state is HostState.OPEN
    assert opened.reason == "no token in time"
    assert opened.times_open == health.times_open + 1
    assert opened.retry_at == 50.0 + cool_down_s(health.times_open, 0.0)


def test_a_suspect_that_proved_itself_is_closed() -> None:
    """Its row of faults is forgotten, and it gets as many requests as before."""
    back = after(CLOSED, *WHEN_REPEATED).loaded()
    assert back.state is HostState.CLOSED
    assert back.faults_in_a_row == 0
    assert back.at_once is None


# The cool-down


def test_the_cool_down_doubles_until_an_answer() -> None:
    """Coming up is not enough to be trusted: only an answer shortens the cool-down again."""
    health, waits = CLOSED, []
    for _ in range(6):
        health = after(health, ErrorKind.UNREACHABLE)
        waits.append(health.retry_at - 100.0)
        health = health.loading().proving().loaded()
    assert waits == [0.5, 1.0, 2.0, 4.0, 7.5, 7.5]
    trusted = after(health.answered(), ErrorKind.UNREACHABLE)
    assert trusted.retry_at == 100.5
    assert trusted.times_open == 1


@given(st.integers(min_value=0), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_cool_down_bounds(times_open: int, jitter: float) -> None:
    """A cool-down is never longer than the longest and never under half of its step."""
    step = min(LONGEST_COOL_DOWN_S, FIRST_COOL_DOWN_S * 2 ** min(times_open, 10))
    assert step / 2 <= cool_down_s(times_open, jitter) <= step


# The slow start


def test_a_host_that_came_back_is_led_slowly() -> None:
    """It gets one request at first, and one more at once for each answer."""
    allowed, health = [], BACK
    for _ in range(6):
        allowed.append(requests_at_once(health, 4, is_last=False))
        health = health.answered()
    assert allowed == [1, 2, 3, 4, 4, 4]


def test_the_slow_start_ends() -> None:
    """After 64 answers it counts as one that was never away."""
    assert SLOW_START_ENDS == 64
    health = BACK
    for answers in range(SLOW_START_ENDS):
        assert health.at_once == answers + 1
        health = health.answered()
    assert health == CLOSED


def test_a_host_that_was_never_open_gets_all_at_once() -> None:
    """Neither at the start of a run nor after a full queue is anybody led slowly."""
    for health in (CLOSED, after(CLOSED, ErrorKind.BUSY).loaded(), SUSPECT.loaded()):
        assert requests_at_once(health, 8, is_last=False) == 8


def test_a_host_that_is_lost_again_starts_again() -> None:
    """One that goes away before it answered is led as slowly the next time."""
    again = after(BACK, ErrorKind.UNREACHABLE)
    assert again.times_open == 2
    assert again.loading().proving().loaded().at_once == 1


def test_faults_do_not_end_the_slow_start() -> None:
    """Only answers do; neither faults of the host nor of the request."""
    health = after(BACK.answered(), ErrorKind.RESET, ErrorKind.CUT)
    assert health.at_once == 2


# How many requests at once


@pytest.mark.parametrize("health", NOT_CLOSED, ids=state_of)
def test_only_a_closed_host_takes_requests(health: Health) -> None:
    """Whatever else its state is, a host gets no request; not even half open: it is probed."""
    assert requests_at_once(health, 8, is_last=False) == 0


@pytest.mark.parametrize("health", EVERY, ids=state_of)
@pytest.mark.parametrize("slots", [0, 1, 8])
def test_the_last_host_is_not_shut_out_for_bad_answers(health: Health, slots: int) -> None:
    """If no other takes requests, a suspect gets one at a time; no other state is any different."""
    usual = requests_at_once(health, slots, is_last=False)
    expected = min(1, slots) if health is SUSPECT else usual
    assert requests_at_once(health, slots, is_last=True) == expected


@given(
    st.sampled_from([*EVERY, BACK]),
    st.integers(min_value=0, max_value=100),
    st.none() | st.integers(min_value=1, max_value=SLOW_START_ENDS),
    st.booleans(),
)
def test_never_more_than_its_slots(
    health: Health,
    slots: int,
    at_once: int | None,
    is_last: bool,  # noqa: FBT001 - drawn
) -> None:
    """Health never lets through more requests than there are slots."""
    assert 0 <= requests_at_once(replace(health, at_once=at_once), slots, is_last=is_last) <= slots


# Leaving


@pytest.mark.parametrize("health", EVERY, ids=state_of)
def test_any_host_can_be_of_no_use(health: Health) -> None:
    """A host of no use is gone from any state, with its reason, and counts as lost."""
    gone = health.gone("it has other weights")
    assert gone.state is HostState.GONE
    assert gone.is_lost
    assert gone.reason == "it has other weights"


@pytest.mark.parametrize("health", EVERY, ids=state_of)
def test_any_host_can_be_taken_out(health: Health) -> None:
    """A host that drains is not lost: what it has in flight is waited for."""
    draining = health.drained()
    assert draining.state is HostState.DRAINING
    assert not draining.is_lost
    assert draining.reason == ""


# Whatever happens

STEPS = st.lists(
    st.sampled_from(ErrorKind) | st.sampled_from(["answered", "up", "failed to come up"]),
    max_size=60,
)


@given(STEPS, st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_host_is_closed_or_on_its_way(steps: list[ErrorKind | str], jitter: float) -> None:
    """Whatever happens, a host takes requests, or has what it needs to be brought up again."""
    health, now = CLOSED, 100.0
    for step in steps:
        now += 1.0
        before = health
        if isinstance(step, ErrorKind):
            health = health.after_fault(step, "broken", now, jitter)
        elif step == "answered":
            health = health.answered()
        elif step == "up" and health.state is not HostState.CLOSED:
            health = health.loaded()
        elif step != "up" and health.state is not HostState.CLOSED:
            health = health.opened("silent", now, jitter)
        assert health.state in {
            HostState.CLOSED,
            HostState.LOADING,
            HostState.SUSPECT,
            HostState.OPEN,
        }
        assert 0 <= health.faults_in_a_row < FAULTS_IN_A_ROW
        if health.state is HostState.OPEN and before.state is not HostState.OPEN:
            assert now + 0.5 <= health.retry_at <= now + LONGEST_COOL_DOWN_S
        if health.state is HostState.CLOSED and before.state is HostState.OPEN:
            assert requests_at_once(health, 8, is_last=False) == 1


def test_a_slow_start_goes_on_after_a_suspicion() -> None:
    """A host that answered once and then had to prove itself again is still led slowly."""
    back = Health().opened("gone", 0.0, 0.0).loading().proving().loaded().answered()
    suspect = back.after_fault(ErrorKind.TIMEOUT, "late", 1.0, 0.0)
    assert suspect.state is HostState.SUSPECT
    assert suspect.loaded().at_once == back.at_once == 2
