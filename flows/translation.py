"""The order of a translation run; every rule stands in `tasks.core`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from prefect import unmapped
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.watching import All, Lines, current_watcher
from tasks.core.dispatch import events
from tasks.core.errors import FleetLost, ReportTranslationError, RunError
from tasks.core.ingest.summary import IngestSummary
from tasks.core.records import Shard
from tasks.core.run.engine import Engine
from tasks.core.run.lifecycle import open_run, run_hosts
from tasks.core.run.planning import RUNNING_SHARDS, require_reports
from tasks.core.run.run_record import RunRecord, RunState, lock_name, new_run_id
from tasks.core.settings import TranslateSettings
from tasks.core.storage.store import Store
from tasks.limits import limits_in_use, server_warnings, slot_ledger
from tasks.report import leave_artifacts
from tasks.translate import close_run, plan_run, publish_run, survey_hosts, translate_shard

COMPLETED_WITH_FAILURES = "CompletedWithFailures"


def translate_dataset(
    settings: TranslateSettings, ingest: Callable[[], IngestSummary] | None = None
) -> State[RunRecord]:
    """Survey, ingest, plan, translate shard by shard, publish: the body of the flows.

    Returns a completed state that holds the run's record. Raises `RunError` when the run
    could not finish; what it finished is published all the same.
    """
    store, now = Store(settings.root), datetime.now(UTC)
    settings = settings.model_copy(update={"limits": limits_in_use(settings.limits)})
    hosts = run_hosts(settings)
    if ingest is None:
        require_reports(store, settings.dataset)
    run_id = new_run_id(now)
    with store.locked(lock_name(run_id)):
        record = open_run(store, settings, hosts, run_id=run_id, now=now, flow_run_id=flow_run.id)
        engine = None
        try:
            survey = survey_hosts(settings, hosts)
            survey = survey.and_warn(asyncio.run(server_warnings(settings.limits)))
            run = plan_run(settings, hosts, record, survey, ingest() if ingest else None)
            record = run.record
            watcher = All.of(Lines(get_run_logger().info), current_watcher.get())
            watcher.started(record)
            if run.shards:
                with watcher.watching(record) as observe:
                    ledger = slot_ledger(
                        settings.limits, on_note=lambda note: observe(events.Noticed(note))
                    )
                    with Engine(store, settings, run, observe, ledger) as engine:
                        _translate_shards(engine, run.shards)
            record = publish_run(settings, record, engine.accounts() if engine else {})
        except BaseException as error:
            _close(settings, record, engine, error)
            raise
    leave_artifacts(record, settings.root)
    if record.state is RunState.COMPLETED_WITH_FAILURES:
        message = (
            f"{record.failed} of {record.reports} reports failed; the next run tries them again"
        )
        return Completed(name=COMPLETED_WITH_FAILURES, message=message, data=record)
    return Completed(data=record)


def _close(
    settings: TranslateSettings, record: RunRecord, engine: Engine | None, error: BaseException
) -> None:
    """Keep what a run did that could not finish, and say why it ended."""
    failed = isinstance(error, Exception)
    closed = close_run(
        settings,
        record,
        engine.accounts() if engine else {},
        RunState.FAILED if failed else RunState.INTERRUPTED,
        str(error) or type(error).__name__,
    )
    if failed:
        leave_artifacts(closed, settings.root)


def shard_runner() -> TaskRunner[PrefectFuture[Any]]:
    """Where shards are translated: threads that wait for the one dispatcher."""
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=RUNNING_SHARDS)
    return cast("TaskRunner[PrefectFuture[Any]]", runner)


def _translate_shards(engine: Engine, shards: Sequence[Shard]) -> None:
    futures = translate_shard.map(list(shards), engine=unmapped(engine))
    wait(futures)
    errors = [
        future.state.result(raise_on_failure=False)
        for future in futures
        if not future.state.is_completed()
    ]
    if errors:
        raise _worst(errors)


def _worst(errors: Sequence[object]) -> Exception:
    """The error that explains the others."""
    for kind in (FleetLost, ReportTranslationError, Exception):
        for error in errors:
            if isinstance(error, kind):
                return error
    return RunError(f"{len(errors)} shards ended without a result: {errors[0]!r}")
