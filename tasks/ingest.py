"""Prefect task: source files to reports."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.core.ingest.summary import IngestSummary
from tasks.core.ingest.upsert import ingest
from tasks.core.settings import IngestSettings
from tasks.core.storage.store import Store
from tasks.recovery import RETRIES, RETRY_DELAY_S, storage_may_recover


@task(
    name="ingest sources",
    task_run_name="ingest {settings.dataset}",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAY_S,
    retry_condition_fn=storage_may_recover,
)
def ingest_sources(settings: IngestSettings) -> IngestSummary:
    """Read the sources and upsert their reports; see `tasks.core.ingest.upsert.ingest`."""
    return ingest(Store(settings.root), settings, datetime.now(UTC))
