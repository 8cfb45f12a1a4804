"""Obeys `retry` for the failed requests of one run, within its budget."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from tasks.core.dispatch import events
from tasks.core.dispatch.retry import GiveUp, Quarantine, RetryBudget, after_failure
from tasks.core.dispatch.work import SegmentWork
from tasks.core.errors import RequestFailed


class Retrying:
    """Says when a segment whose request failed is asked for again."""

    def __init__(self, observe: events.Observer, rng: random.Random) -> None:
        self._observe = observe
        self._rng = rng
        self._budget = RetryBudget()

    def begin(self, slots: int, now: float) -> None:
        """The run begins to send, to so many slots."""
        self._budget = RetryBudget.of(slots, now)

    def answered(self) -> None:
        """An answer came: the budget grows."""
        self._budget = self._budget.after_answer()

    def delay_s(
        self, work: SegmentWork, failure: RequestFailed, *, interrupted: bool
    ) -> float | None:
        """Seconds until the segment is to wait for a slot again; None: it is given up.

        The tries of `work` include the failed request; it may be put in quarantine here.
        """
        decision = after_failure(
            failure.kind, work.tries, self._rng.random(), interrupted=interrupted
        )
        match decision:
            case GiveUp():
                return None
            case Quarantine():
                work.tries = replace(work.tries, in_quarantine=True)
                broken = tuple(sorted(work.tries.broken))
                self._observe(events.Quarantined(work.segment.report_id, broken, failure.message))
                return 0.0
            case _:
                return decision.delay_s + self._wait_for_budget_s(decision.delay_s)

    def _wait_for_budget_s(self, delay_s: float) -> float:
        """How much longer a retry waits because too many were sent of late."""
        if not delay_s:
            return 0.0
        had = self._budget.saved > 0
        self._budget, wait_s = self._budget.spend(time.monotonic())
        if had and wait_s:
            self._observe(
                events.RetriesSlowed("more than a tenth of the requests fail; retries are slowed")
            )
        return wait_s
