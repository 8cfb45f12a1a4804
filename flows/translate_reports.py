"""Flow: the reports of a dataset to translations."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.translation import shard_runner, translate_dataset
from tasks.core.run.run_record import RunRecord
from tasks.core.settings import TranslateSettings


@flow(
    name="translate-reports",
    flow_run_name="{settings.dataset} to {settings.target_lang}",
    task_runner=shard_runner(),
)
def translate_reports(settings: TranslateSettings) -> State[RunRecord]:
    """Translate the reports of a dataset that have no translation yet.

    Args:
        settings: Which dataset to translate, on which hosts, with which model.
    """
    return translate_dataset(settings)
