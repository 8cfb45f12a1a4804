"""What becomes of a segment whose request failed."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.core.errors import ErrorKind

MOST_FAILURES = 5
"""Failed requests after which a segment is given up."""

MOST_BUSY = 60
"""Refusals by a full queue after which a segment is given up; they cost nothing."""

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 10.0

_HOPELESS = frozenset({ErrorKind.BAD_REQUEST, ErrorKind.CONTEXT_OVERFLOW})


@dataclass(frozen=True, slots=True)
class Retry:
    """Send it again after a delay, on another host if there is one."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No host is going to answer this request differently."""


def after_failure(kind: ErrorKind, failures: int, busy: int, jitter: float) -> Retry | GiveUp:
    """Decide after a failed request; counts include it, `jitter` in [0, 1).

    A host without the model leaves the run and a host that cannot be reached goes
    down, so neither can use up a segment's chances by itself.
    """
    if kind in _HOPELESS or failures >= MOST_FAILURES or busy >= MOST_BUSY:
        return GiveUp()
    return Retry(delay_s(max(failures, min(busy, 6)), jitter))


def delay_s(failures: int, jitter: float) -> float:
    """Seconds to wait: doubling with each failure, all of it random ("full jitter")."""
    return jitter * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 30))


def counts_as_failure(kind: ErrorKind) -> bool:
    """Whether a failed request brings its segment nearer to being given up."""
    return kind is not ErrorKind.BUSY
