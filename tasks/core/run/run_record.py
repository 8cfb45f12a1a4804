"""What a run is and how it ended: `runs/RUN_ID/run.json`, there from the start."""

from __future__ import annotations

import logging
import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.core.dispatch.account import HostAccount
from tasks.core.settings import LimitsName, PolicyName
from tasks.core.storage.publish import RunColumns
from tasks.core.storage.store import Store

_log = logging.getLogger(__name__)


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    COMPLETED = "completed"  # every report that it took on has a translation
    COMPLETED_WITH_FAILURES = "completed_with_failures"  # finished, some reports failed
    FAILED = "failed"  # could not finish
    INTERRUPTED = "interrupted"  # stopped by the user
    ABANDONED = "abandoned"  # its process died; a later run took over what it had done


class Counts(BaseModel):
    """Rows and reports of a run, by how they ended.

    rows_in = reports + rejected, and
    reports = translated + flagged + reused + passed + failed + unchanged + unfinished,
    where only a run that could not finish has unfinished reports.
    """

    model_config = ConfigDict(frozen=True)

    rows_in: int = 0
    reports: int = 0
    rejected: int = 0
    translated: int = 0
    flagged: int = 0
    reused: int = 0
    passed: int = 0
    failed: int = 0
    unchanged: int = 0
    unfinished: int = 0

    def add_up(self) -> bool:
        """Whether both sums hold."""
        ended = self.translated + self.flagged + self.reused + self.passed + self.failed
        return (
            self.rows_in == self.reports + self.rejected
            and self.reports == ended + self.unchanged + self.unfinished
        )


class RunRecord(Counts):
    """A run, as stored. Times are ISO 8601 in UTC."""

    run_id: str
    state: RunState = RunState.RUNNING
    dataset: str
    model: str
    model_digest: str | None = None
    """As the hosts have it; null until they were asked."""
    source_lang: str
    target_lang: str
    profile: str
    prompt_sha256: str
    options_sha256: str
    options: dict[str, int | float]
    glossary_sha256: str | None = None
    policy: PolicyName = "pull"
    hedge: bool = True
    limits: LimitsName = "local"
    """How runs at the same time shared the hosts."""
    limit: int | None = None
    beyond_limit: int = 0
    """Missing reports that `limit` left for another run; not among `reports`."""
    flow_run_id: str | None = None
    started_at: datetime
    finished_at: datetime | None = None
    wall_seconds: float | None = None
    shards: int = 0
    planned: int = 0
    """Reports that the run set out to translate: the rows of its plan."""
    predicted_tokens: int = 0
    """Predicted length of all their translations."""
    error: str | None = None
    published: bool = False
    hosts: dict[str, HostAccount] = Field(default_factory=dict)
    """What each host did, and where the time of its slots went."""
    makespan_seconds: float | None = None
    """From the first request sent to the last useful answer."""
    lower_bound_seconds: float | None = None
    """The least that the same answers could have taken on these hosts as they were."""
    efficiency: float | None = None
    """`lower_bound_seconds` ÷ `makespan_seconds`; null where nothing was translated."""
    notes: list[str] = Field(default_factory=list)
    """What was said before the run began to translate."""
    sources: list[dict[str, Any]] = Field(default_factory=list)
    """What was ingested by the same command, file by file."""

    def columns(self) -> RunColumns:
        """The values that every row of this run's tables has."""
        return RunColumns(
            dataset=self.dataset,
            run_id=self.run_id,
            flow_run_id=self.flow_run_id,
            model=self.model,
            model_digest=self.model_digest,
            profile=self.profile,
            prompt_sha256=self.prompt_sha256,
            options_sha256=self.options_sha256,
            glossary_sha256=self.glossary_sha256,
            target_lang=self.target_lang,
        )


def new_run_id(now: datetime) -> str:
    """An id that sorts by start and is unique without asking anybody."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def run_key(run_id: str) -> str:
    """Where a run's record is kept."""
    return f"runs/{run_id}/run.json"


def plan_key(run_id: str) -> str:
    """Where a run's plan is kept."""
    return f"runs/{run_id}/plan.parquet"


def lock_name(run_id: str) -> str:
    """The lock that a run holds while it lives."""
    return f"run-{run_id}"


def write_run(store: Store, record: RunRecord) -> None:
    """Store a run's record."""
    store.put(run_key(record.run_id), record.model_dump_json(indent=2).encode() + b"\n")


def read_run(store: Store, run_id: str) -> RunRecord:
    """A run's record."""
    return RunRecord.model_validate_json(store.read(run_key(run_id)))


def read_runs(store: Store) -> list[RunRecord]:
    """Every run of the root, oldest first; what is no record is logged and left out."""
    records = []
    for key in store.list("runs"):
        if key.endswith("/run.json"):
            try:
                records.append(RunRecord.model_validate_json(store.read(key)))
            except ValidationError:
                _log.warning("%s is no record of a run; it is left out", store.path(key))
    return records
