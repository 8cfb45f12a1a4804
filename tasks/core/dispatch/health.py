"""Whether a host takes requests: a state that faults and answers move along.

    PROBING ──answered──▶ LOADING ──loaded──▶ CLOSED ──unreachable──▶ OPEN ──asked──▶ LOADING
                                              │   ▲                    ▲                │
                                  bad answers ▼   │ proved itself      │ failed again   ▼
                              SUSPECT ──did not, or unreachable──▶ OPEN └──────── HALF_OPEN
    any ──taken out of the run──▶ DRAINING ──nothing in flight──▶ GONE
    any but CLOSED ──of no use in this run──▶ GONE

The names are those of a circuit breaker: closed lets requests through. A state belongs to a
host and the one model that the run uses. A host that is loading its model is not down: it
answers, and waiting is right. Nor is one that answers badly, for that can be due to what it
was asked: it has to prove itself by generating a token, which a server that looks alive
otherwise may be unable to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from tasks.core.errors import ErrorKind

FIRST_COOL_DOWN_S = 1.0
LONGEST_COOL_DOWN_S = 15.0
FAULTS_IN_A_ROW = 3
"""Broken answers in a row after which a host has to prove itself."""

SLOW_START_ENDS = 64
"""Requests at once up to which a host that came back is led slowly, one more at each answer."""

_SUSPECT_AT_ONCE = frozenset({ErrorKind.TIMEOUT, ErrorKind.NOT_FOUND})
_SUSPECT_WHEN_REPEATED = frozenset(
    {ErrorKind.RESET, ErrorKind.SERVER_ERROR, ErrorKind.INVALID_ANSWER}
)


class HostState(StrEnum):
    """Where a host stands."""

    PROBING = "probing"  # not heard of yet
    LOADING = "loading"  # answers, and is loading the model
    CLOSED = "closed"  # takes requests
    SUSPECT = "suspect"  # answers badly; has to prove itself
    OPEN = "open"  # does not answer, or not well; tried again at `retry_at`
    HALF_OPEN = "half_open"  # came back, and proves itself
    DRAINING = "draining"  # taken out of the run; ends what it has
    GONE = "gone"  # of no use in this run, or taken out of it


@dataclass(frozen=True, slots=True)
class Health:
    """A host's state, and the memory it needs to move on."""

    state: HostState = HostState.PROBING
    faults_in_a_row: int = 0
    times_open: int = 0
    """Since the last answer; each doubles the cool-down."""
    retry_at: float = 0.0
    reason: str = ""
    at_once: int | None = None
    """How many requests it gets at once while it is led slowly; None: as many as it has slots."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be expected of the host at the moment."""
        return self.state in (HostState.OPEN, HostState.GONE)

    @property
    def is_reached(self) -> bool:
        """Whether the host answers, however well."""
        return self.state not in (HostState.PROBING, HostState.OPEN, HostState.GONE)

    @property
    def is_leaving(self) -> bool:
        """Whether the host is out of the run."""
        return self.state in (HostState.DRAINING, HostState.GONE)

    def loading(self) -> Health:
        """The host answered a probe and is loading the model."""
        return replace(self, state=HostState.LOADING)

    def proving(self) -> Health:
        """The model is loaded again; whether it answers is to be seen."""
        return replace(self, state=HostState.HALF_OPEN)

    def loaded(self) -> Health:
        """The host takes requests. The cool-down is forgotten at the first answer only."""
        at_once = 1 if self.times_open else self.at_once
        return replace(self, state=HostState.CLOSED, faults_in_a_row=0, at_once=at_once)

    def answered(self) -> Health:
        """A request was answered."""
        if self.state is not HostState.CLOSED:
            return self
        at_once = self.at_once and self.at_once + 1
        return Health(
            state=HostState.CLOSED,
            at_once=None if at_once is None or at_once > SLOW_START_ENDS else at_once,
        )

    def drained(self) -> Health:
        """The host is taken out of the run; what it has in flight is waited for."""
        return replace(self, state=HostState.DRAINING, reason="")

    def gone(self, reason: str) -> Health:
        """The host is of no use in this run, or has left it."""
        return replace(self, state=HostState.GONE, reason=reason)

    def after_fault(self, kind: ErrorKind, reason: str, now: float, jitter: float) -> Health:
        """The state after a request failed; `jitter` in [0, 1), `now` in seconds.

        Faults of the request itself (it is refused, it does not fit) say nothing of
        the host. A busy server has lost its model or is loading it: it is asked to
        load again instead of being taken for dead.
        """
        if self.state not in (HostState.CLOSED, HostState.SUSPECT):
            return self
        if kind is ErrorKind.UNREACHABLE:
            return self.opened(reason, now, jitter)
        if self.state is HostState.SUSPECT:
            return self
        if kind is ErrorKind.BUSY:
            return self.loading()
        faults = self.faults_in_a_row + (kind in _SUSPECT_WHEN_REPEATED)
        if kind in _SUSPECT_AT_ONCE or faults >= FAULTS_IN_A_ROW:
            return replace(self, state=HostState.SUSPECT, reason=reason)
        return replace(self, faults_in_a_row=faults)

    def opened(self, reason: str, now: float, jitter: float) -> Health:
        """Open, to be tried again after a cool-down that doubles each time."""
        return replace(
            self,
            state=HostState.OPEN,
            faults_in_a_row=0,
            times_open=self.times_open + 1,
            retry_at=now + cool_down_s(self.times_open, jitter),
            reason=reason,
        )


def requests_at_once(health: Health, slots: int, *, is_last: bool) -> int:
    """How many requests a host with so many slots may have in flight, as far as its health goes.

    The last host that could answer is never shut out for bad answers alone: it gets one
    request at a time while it proves itself.
    """
    if health.state is HostState.CLOSED:
        return slots if health.at_once is None else min(slots, health.at_once)
    if health.state is HostState.SUSPECT and is_last:
        return min(slots, 1)
    return 0


def cool_down_s(times_open: int, jitter: float) -> float:
    """Seconds until a host is tried again: doubling, half of it random."""
    longest = min(LONGEST_COOL_DOWN_S, FIRST_COOL_DOWN_S * 2.0 ** min(times_open, 30))
    return longest * (0.5 + 0.5 * jitter)
