"""Flow: source files to reports."""

from __future__ import annotations

from prefect import flow

from tasks.core.ingest.summary import IngestSummary
from tasks.core.settings import IngestSettings
from tasks.ingest import ingest_sources


@flow(name="ingest-reports", flow_run_name="ingest {settings.dataset}")
def ingest_reports(settings: IngestSettings) -> IngestSummary:
    """Read source files as reports and store them as Parquet.

    Args:
        settings: Which files to read, and under which name to store their reports.
    """
    return ingest_sources(settings)
