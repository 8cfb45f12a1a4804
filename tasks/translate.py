"""Prefect tasks: plan a run, translate a shard, publish what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.survey import Survey
from tasks.core.errors import RunError, StorageError
from tasks.core.ingest.summary import IngestSummary
from tasks.core.records import Shard
from tasks.core.run import lifecycle
from tasks.core.run.engine import Engine
from tasks.core.run.lifecycle import StartedRun
from tasks.core.run.run_record import RunRecord, RunState
from tasks.core.settings import HostAddress, TranslateSettings
from tasks.core.storage.store import Store
from tasks.recovery import USES_THE_ROOT


@task(name="survey hosts", task_run_name="survey hosts", cache_policy=NO_CACHE)
def survey_hosts(settings: TranslateSettings, hosts: Sequence[HostAddress]) -> Survey:
    """Ask the hosts; see `tasks.core.run.lifecycle.survey_hosts`."""
    return lifecycle.survey_hosts(settings, hosts)


@task(
    name="plan",
    task_run_name="plan {settings.dataset}",
    **USES_THE_ROOT,
)
def plan_run(
    settings: TranslateSettings,
    hosts: Sequence[HostAddress],
    record: RunRecord,
    survey: Survey,
    ingested: IngestSummary | None,
) -> StartedRun:
    """Write the plan; see `tasks.core.run.lifecycle.start_run`."""
    store = Store(settings.root)
    return lifecycle.start_run(store, settings, record, survey, ingested, hosts=hosts)


@task(
    name="translate shard",
    task_run_name="shard {shard.index:05d}: {shard.rows} reports",
    **USES_THE_ROOT,
)
def translate_shard(shard: Shard, engine: Engine) -> int | State[Any]:
    """Translate a shard of the plan; returns how many reports it has.

    When the run is over before the shard is, that is one message and no traceback.
    """
    try:
        return engine.translate_shard(shard)
    except StorageError:
        raise
    except RunError as error:
        return Failed(message=str(error), data=error)


@task(
    name="publish",
    task_run_name="publish {record.dataset}",
    **USES_THE_ROOT,
)
def publish_run(
    settings: TranslateSettings, record: RunRecord, accounts: Mapping[str, HostAccount]
) -> RunRecord:
    """Publish a run that translated all it could; see `tasks.core.run.lifecycle.finish_run`."""
    return lifecycle.finish_run(
        Store(settings.root), record, now=datetime.now(UTC), accounts=accounts
    )


def close_run(
    settings: TranslateSettings,
    record: RunRecord,
    accounts: Mapping[str, HostAccount],
    ended_as: RunState,
    error: str,
) -> RunRecord:
    """Keep what a run did that could not finish.

    Not a task: while a flow run is being cancelled Prefect starts no more of them.
    """
    return lifecycle.finish_run(
        Store(settings.root),
        record,
        now=datetime.now(UTC),
        accounts=accounts,
        ended_as=ended_as,
        error=error,
    )
