"""Leaves a run's summary where the Prefect UI shows it."""

from __future__ import annotations

import re

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from tasks.core.run.run_record import RunRecord
from tasks.core.run.summary import counts_line, host_rows, markdown


def leave_artifacts(record: RunRecord, root: str) -> None:
    """A page about the run, and a table of its hosts; both keep their history by key.

    A run is what it is without them: when they cannot be left, the log says so.
    """
    try:
        _leave(record, root)
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises
        get_run_logger().warning("the summary could not be left as artifacts: %s", error)


def _leave(record: RunRecord, root: str) -> None:
    name = re.sub(r"[^a-z0-9]+", "-", f"{record.dataset}-{record.target_lang}".lower()).strip("-")
    create_markdown_artifact(
        markdown(record, root), key=f"run-{name}", description=counts_line(record)
    )
    create_table_artifact(
        host_rows(record), key=f"hosts-{name}", description="What each host did, and how fast"
    )
