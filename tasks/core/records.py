"""The facts that pass between the stages, small and frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """How a report ended."""

    OK = "ok"
    FLAGGED = "flagged"  # translated, but a check found something
    FAILED = "failed"  # no translation; the next run tries again
    REUSED = "reused"  # the translation of an identical text was taken
    PASSED = "passed"  # nothing to translate


class Purpose(StrEnum):
    """Why a request was made."""

    TRANSLATE = "translate"
    REPAIR = "repair"  # asked again because the answer was not acceptable
    HEDGE = "hedge"  # a duplicate on an idle slot


class AttemptOutcome(StrEnum):
    """How a request ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # an answer came, and was not acceptable
    FAILED = "failed"  # no answer came
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Shard:
    """A row range of a run's plan; one Prefect task run translates it."""

    run_id: str
    index: int
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class PlannedReport:
    """A row of the plan, as far as translating it needs."""

    report_id: str
    source_text: str
    reuse_key: str


@dataclass(frozen=True, slots=True)
class Segment:
    """The piece of a report that goes into one request."""

    report_id: str
    index: int
    text: str
    reuse_key: str
    predicted_tokens: int


@dataclass(frozen=True, slots=True)
class Measures:
    """Tokens and times of one answer, or their sums over a report's accepted answers.

    Durations in nanoseconds, as the server reports them; 0 where it reported none.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    queue_wait_ns: int = 0
    request_wall_ns: int = 0
    total_duration_ns: int = 0
    load_duration_ns: int = 0
    prompt_eval_duration_ns: int = 0
    eval_duration_ns: int = 0

    @property
    def server_wait_ns(self) -> int:
        """Time in the server's own queue: total − load − prompt_eval − eval."""
        return (
            self.total_duration_ns
            - self.load_duration_ns
            - self.prompt_eval_duration_ns
            - self.eval_duration_ns
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to one host, however it ended."""

    report_id: str
    segment: int
    attempt: int
    purpose: Purpose
    outcome: AttemptOutcome
    reuse_key: str
    host: str
    ollama_version: str | None
    source_chars: int
    started_at: datetime
    finished_at: datetime
    measures: Measures
    text: str | None = None
    done_reason: str | None = None
    error_kind: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """How one report of a run ended: what its row in `translations` is built from."""

    report_id: str
    status: Status
    translated_text: str | None
    segment_count: int
    attempts: int
    measures: Measures
    flags: tuple[str, ...] = field(default=())
    host: str | None = None
    ollama_version: str | None = None
    done_reason: str | None = None
    error_kind: str | None = None
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
