"""Prefect task: source files to reports."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task

from tasks.core.ingest.summary import IngestSummary
from tasks.core.ingest.upsert import ingest
from tasks.core.settings import IngestSettings
from tasks.core.storage.store import Store
from tasks.recovery import USES_THE_ROOT


@task(
    name="ingest sources",
    task_run_name="ingest {settings.dataset}",
    **USES_THE_ROOT,
)
def ingest_sources(settings: IngestSettings) -> IngestSummary:
    """Read the sources and upsert their reports; see `tasks.core.ingest.upsert.ingest`."""
    return ingest(Store(settings.root), settings, datetime.now(UTC))
