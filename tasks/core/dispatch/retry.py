"""What becomes of a segment whose request failed.

A fault of the host costs the segment nothing: it goes to another one. A segment that broke
the answers of two hosts may be what breaks them: it is put in quarantine, to be tried once
more when nobody else's answer is at stake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.core.errors import ErrorKind

MOST_FAILURES = 5
"""Failed requests after which a segment is given up."""

MOST_UNHEARD = 60
"""Requests that never got as far as the model, after which a segment is given up all the same."""

MOST_BROKEN = 2
"""Hosts whose answer a segment may break before it is put in quarantine."""

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 10.0

_HOPELESS = frozenset({ErrorKind.BAD_REQUEST, ErrorKind.CONTEXT_OVERFLOW})
_UNHEARD = frozenset({ErrorKind.BUSY, ErrorKind.UNREACHABLE, ErrorKind.NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Tries:
    """What was tried for a segment so far."""

    failures: int = 0
    """Requests that may have failed because of what they asked."""
    unheard: int = 0
    """Requests that the host's own state kept from an answer."""
    broken: frozenset[str] = frozenset()
    """Hosts where they did."""
    in_quarantine: bool = False

    def after(self, kind: ErrorKind, url: str, *, interrupted: bool = False) -> Tries:
        """The tries after one more request failed, or was ended because its host went away."""
        if interrupted or kind in _UNHEARD:
            return replace(self, unheard=self.unheard + 1)
        return replace(self, failures=self.failures + 1, broken=self.broken | {url})


@dataclass(frozen=True, slots=True)
class Retry:
    """Send it again after a delay, on another host if there is one."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Send it once more when nothing else waits, to a host that does nothing else."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No host is going to answer this request differently."""


def after_failure(
    kind: ErrorKind, tries: Tries, jitter: float, *, interrupted: bool = False
) -> Retry | Quarantine | GiveUp:
    """Decide after a failed request; the tries include it, `jitter` in [0, 1).

    A host without the model leaves the run and a host that cannot be reached is opened,
    so neither can use up a segment's chances by itself.
    """
    if tries.failures >= MOST_FAILURES or tries.unheard >= MOST_UNHEARD:
        return GiveUp()
    if interrupted or kind is ErrorKind.UNREACHABLE:
        return Retry(0.0)  # its host takes no more requests: another one gets it
    if kind in _UNHEARD:
        return Retry(delay_s(min(tries.unheard, 6), jitter))
    if kind in _HOPELESS or tries.in_quarantine:
        return GiveUp()
    if len(tries.broken) >= MOST_BROKEN:
        return Quarantine()
    return Retry(delay_s(tries.failures, jitter))


def delay_s(failures: int, jitter: float) -> float:
    """Seconds to wait: doubling with each failure, all of it random ("full jitter")."""
    return jitter * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 30))


RETRIES_PER_ANSWER = 0.1
"""Share of the answers that may be asked for twice; the value of Google's SRE book."""

RETRIES_PER_S = 1.0
"""What the budget grows by itself, so that a run of failures alone goes on, slowly."""

LEAST_SAVED = 50.0
"""Retries a run may spend at once, at least; ten for each slot, if that is more."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries a run may spend now: hosts in trouble are not helped by a storm."""

    most: float = LEAST_SAVED
    saved: float = LEAST_SAVED
    counted_at: float = 0.0

    @classmethod
    def of(cls, slots: int, now: float) -> RetryBudget:
        """A full budget for so many slots."""
        most = max(LEAST_SAVED, 10.0 * slots)
        return cls(most, most, now)

    def after_answer(self) -> RetryBudget:
        """The budget after one more answer."""
        saved = min(self.most, self.saved + RETRIES_PER_ANSWER)
        return RetryBudget(self.most, saved, self.counted_at)

    def spend(self, now: float) -> tuple[RetryBudget, float]:
        """Spend one retry; returns the budget then, and the seconds to wait for it."""
        saved = min(self.most, self.saved + RETRIES_PER_S * max(0.0, now - self.counted_at)) - 1.0
        # What is owed is paid back by time: retries come one after the other then.
        wait_s = max(0.0, -saved / RETRIES_PER_S)
        return RetryBudget(self.most, saved, now), wait_s
