"""Flow: source files to translations, in one run."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.translation import shard_runner, translate_dataset
from tasks.core.run.run_record import RunRecord
from tasks.core.settings import RunSettings
from tasks.ingest import ingest_sources


@flow(
    name="run-reports",
    flow_run_name="{settings.dataset} to {settings.target_lang}",
    task_runner=shard_runner(),
)
def run_reports(settings: RunSettings) -> State[RunRecord]:
    """Read source files as reports and translate those that have no translation yet.

    Args:
        settings: Which files to read, on which hosts to translate them, with which model.
    """
    return translate_dataset(settings, ingest=lambda: ingest_sources(settings))
