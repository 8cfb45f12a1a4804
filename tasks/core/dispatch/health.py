"""Whether a host takes requests: a state that faults and answers move along.

    STARTING ──asked──▶ LOADING ──loaded──▶ UP ──unreachable──▶ DOWN ──asked──▶ LOADING
                                            │ ▲
                              bad answers   ▼ │ proved itself
                                          SUSPECT
    any but UP ──fault──▶ DOWN            any but UP ──no such model──▶ LEFT

A host that is loading its model is not down: it answers, and waiting is right. Nor is one
that answers badly, for that can be due to what it was asked: it has to prove itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from tasks.core.errors import ErrorKind

FIRST_COOL_DOWN_S = 1.0
LONGEST_COOL_DOWN_S = 15.0
FAULTS_IN_A_ROW = 3
"""Broken answers in a row after which a host has to prove itself."""

_SUSPECT_AT_ONCE = frozenset({ErrorKind.TIMEOUT, ErrorKind.NOT_FOUND})
_SUSPECT_WHEN_REPEATED = frozenset(
    {ErrorKind.RESET, ErrorKind.SERVER_ERROR, ErrorKind.INVALID_ANSWER}
)


class HostState(StrEnum):
    """Where a host stands."""

    STARTING = "starting"  # not asked yet
    LOADING = "loading"  # answers, and is loading the model
    UP = "up"  # takes requests
    SUSPECT = "suspect"  # answers badly; has to prove itself
    DOWN = "down"  # does not answer, or not well; tried again at `retry_at`
    LEFT = "left"  # of no use in this run


@dataclass(frozen=True, slots=True)
class Health:
    """A host's state, and the memory it needs to move on."""

    state: HostState = HostState.STARTING
    faults_in_a_row: int = 0
    times_down: int = 0
    """Since the last answer; each doubles the cool-down."""
    retry_at: float = 0.0
    reason: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be expected of the host at the moment."""
        return self.state in (HostState.DOWN, HostState.LEFT)

    def loading(self) -> Health:
        """The host answered a probe and is loading the model."""
        return replace(self, state=HostState.LOADING)

    def loaded(self) -> Health:
        """The model is loaded. The cool-down is forgotten at the first answer only."""
        return replace(self, state=HostState.UP, faults_in_a_row=0)

    def answered(self) -> Health:
        """A request was answered."""
        if self.state is not HostState.UP:
            return self
        return Health(state=HostState.UP)

    def left(self, reason: str) -> Health:
        """The host is of no use in this run."""
        return replace(self, state=HostState.LEFT, reason=reason)

    def after_fault(self, kind: ErrorKind, reason: str, now: float, jitter: float) -> Health:
        """The state after a request failed; `jitter` in [0, 1), `now` in seconds.

        Faults of the request itself (it is refused, it does not fit) say nothing of
        the host. A busy server has lost its model or is loading it: it is asked to
        load again instead of being taken for dead.
        """
        if self.state is not HostState.UP:
            return self
        if kind is ErrorKind.BUSY:
            return self.loading()
        if kind is ErrorKind.UNREACHABLE:
            return self.down(reason, now, jitter)
        faults = self.faults_in_a_row + (kind in _SUSPECT_WHEN_REPEATED)
        if kind in _SUSPECT_AT_ONCE or faults >= FAULTS_IN_A_ROW:
            return replace(self, state=HostState.SUSPECT, reason=reason)
        return replace(self, faults_in_a_row=faults)

    def down(self, reason: str, now: float, jitter: float) -> Health:
        """Down, to be tried again after a cool-down that doubles each time."""
        return replace(
            self,
            state=HostState.DOWN,
            faults_in_a_row=0,
            times_down=self.times_down + 1,
            retry_at=now + cool_down_s(self.times_down, jitter),
            reason=reason,
        )


def cool_down_s(times_down: int, jitter: float) -> float:
    """Seconds until a host is tried again: doubling, half of it random."""
    longest = min(LONGEST_COOL_DOWN_S, FIRST_COOL_DOWN_S * 2.0 ** min(times_down, 30))
    return longest * (0.5 + 0.5 * jitter)
