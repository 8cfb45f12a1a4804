"""A segment on its way through the dispatcher, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from tasks.core.dispatch.retry import Tries
from tasks.core.errors import RequestFailed
from tasks.core.records import Attempt, AttemptOutcome, Measures, Purpose, Segment
from tasks.core.translate.answers import Answer

RecordAttempt = Callable[[Attempt], object]


@dataclass(slots=True)
class SegmentWork:
    """A segment to be answered, and what has been tried for it so far."""

    segment: Segment
    purpose: Purpose = Purpose.TRANSLATE
    requests: int = 0
    tries: Tries = field(default_factory=Tries)
    failed_on: frozenset[str] = frozenset()
    """Hosts that are asked again only when there is no other."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it went out."""

    work: SegmentWork
    host: str
    ollama_version: str | None
    attempt: int
    purpose: Purpose
    queue_wait_ns: int
    started_at: datetime

    def ended(
        self,
        outcome: AttemptOutcome,
        finished_at: datetime,
        measures: Measures,
        *,
        text: str | None = None,
        done_reason: str | None = None,
        error: RequestFailed | None = None,
    ) -> Attempt:
        """The record of the request, now that it ended."""
        segment = self.work.segment
        return Attempt(
            report_id=segment.report_id,
            segment=segment.index,
            attempt=self.attempt,
            purpose=self.purpose,
            outcome=outcome,
            reuse_key=segment.reuse_key,
            host=self.host,
            ollama_version=self.ollama_version,
            source_chars=len(segment.text),
            started_at=self.started_at,
            finished_at=finished_at,
            measures=measures,
            text=text,
            done_reason=done_reason,
            error_kind=error.kind if error else None,
            error=error.message if error else None,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, complete or not, and the request it belongs to."""

    sent: Sent
    answer: Answer
    measures: Measures
    finished_at: datetime

    def accepted(self, text: str) -> Attempt:
        """The record of the request when its answer is a translation."""
        return self.sent.ended(
            AttemptOutcome.ACCEPTED,
            self.finished_at,
            self.measures,
            text=text,
            done_reason=self.answer.done_reason,
        )

    def refused(self, error: RequestFailed) -> Attempt:
        """The record of the request when its answer is not acceptable."""
        return self.sent.ended(
            AttemptOutcome.REFUSED,
            self.finished_at,
            self.measures,
            done_reason=self.answer.done_reason,
            error=error,
        )
