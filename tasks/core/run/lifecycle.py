"""The beginning and the end of a run.

A run holds its own lock while it lives. What a run had done whose process died is
taken over by the next run of the same dataset: its finished reports are published, and
the segments of its unfinished reports are not paid for again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.hosts_file import hosts_at_start
from tasks.core.dispatch.survey import Survey, agree, ask_all
from tasks.core.errors import StorageError
from tasks.core.ingest.summary import IngestSummary
from tasks.core.records import Attempt, AttemptOutcome, Shard, Status
from tasks.core.run.efficiency import Efficiency
from tasks.core.run.garbage import searched_rarely
from tasks.core.run.planning import SLOTS_IF_UNKNOWN, make_plan
from tasks.core.run.run_record import (
    RunRecord,
    RunState,
    lock_name,
    plan_key,
    read_run,
    read_runs,
    write_run,
)
from tasks.core.run.summary import ingest_lines
from tasks.core.settings import HostAddress, TranslateSettings
from tasks.core.storage.journal import JournalContent, read_journal
from tasks.core.storage.publish import (
    publish_attempts,
    publish_translations,
    read_parquet,
    read_table,
)
from tasks.core.storage.store import Store
from tasks.core.translate.profiles import Prompting, choose_profile
from tasks.core.translate.reuse_key import Recipe


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run whose plan stands."""

    record: RunRecord
    prompting: Prompting
    recipe: Recipe
    shards: tuple[Shard, ...]
    hosts: tuple[HostAddress, ...]
    already_accepted: Mapping[str, Attempt]
    """Segments that unfinished runs got, by reuse key."""


def open_run(
    store: Store,
    settings: TranslateSettings,
    hosts: Sequence[HostAddress],
    *,
    run_id: str,
    now: datetime,
    flow_run_id: str | None = None,
) -> RunRecord:
    """Write the first `run.json` of a run: what it was told, before anything is done.

    Raises `ConfigurationError` for a profile that does not exist.
    """
    prompting = _prompting(settings)
    record = RunRecord(
        run_id=run_id,
        dataset=settings.dataset,
        model=settings.model,
        source_lang=settings.source_lang,
        target_lang=settings.target_lang,
        profile=prompting.profile.label,
        prompt_sha256=prompting.prompt_sha256,
        options_sha256=prompting.options_sha256,
        options=prompting.options,
        policy=settings.policy,
        hedge=settings.hedge,
        limits=settings.limits,
        limit=settings.limit,
        flow_run_id=flow_run_id,
        started_at=now,
        hosts={address.url: HostAccount(slots=address.slots or 0) for address in hosts},
    )
    write_run(store, record)
    return record


def run_hosts(settings: TranslateSettings) -> tuple[HostAddress, ...]:
    """The hosts that a run starts with.

    Raises `ConfigurationError` for a hosts file that cannot be used.
    """
    return hosts_at_start(settings.addresses, settings.hosts_file)


def survey_hosts(settings: TranslateSettings, hosts: Sequence[HostAddress]) -> Survey:
    """Ask every host whether it is there and has the model.

    Raises `HostsUnreachable` and `ConfigurationError`.
    """
    return asyncio.run(_survey(hosts, settings.model, other_weights=settings.other_weights))


def start_run(
    store: Store,
    settings: TranslateSettings,
    record: RunRecord,
    survey: Survey,
    ingested: IngestSummary | None = None,
    *,
    hosts: Sequence[HostAddress],
) -> StartedRun:
    """Take over what dead runs left, plan, and write down what the run sets out to do.

    With `ingested`, the run is about the reports of those files; without, about the
    whole dataset.
    """
    prompting = _prompting(settings)
    recipe = Recipe.of(prompting, survey.model_digest)
    already_accepted = take_over(store, settings.dataset, settings.target_lang, record.run_id)
    plan = make_plan(
        store,
        record.run_id,
        settings.dataset,
        recipe,
        slots=sum(address.slots or SLOTS_IF_UNKNOWN for address in hosts),
        source_files=[file.source_file for file in ingested.files] if ingested else None,
        limit=settings.limit,
    )
    rejected = ingested.rejected if ingested else _rejected_rows(store, settings.dataset)
    planned = record.model_copy(
        update={
            "model_digest": survey.model_digest,
            "beyond_limit": plan.beyond_limit,
            "shards": len(plan.shards),
            "planned": plan.planned,
            "predicted_tokens": plan.predicted_tokens,
            "rows_in": plan.reports + rejected,
            "reports": plan.reports,
            "rejected": rejected,
            "unchanged": plan.unchanged,
            "unfinished": plan.planned,
            "notes": [*(ingest_lines(ingested) if ingested else ()), *survey.warnings],
            "sources": [asdict(file) for file in ingested.files] if ingested else [],
        }
    )
    write_run(store, planned)
    return StartedRun(planned, prompting, recipe, plan.shards, tuple(hosts), already_accepted)


def finish_run(
    store: Store,
    record: RunRecord,
    *,
    now: datetime,
    accounts: Mapping[str, HostAccount],
    ended_as: RunState | None = None,
    error: str | None = None,
) -> RunRecord:
    """Publish what the run did, count it, and write the last `run.json`.

    `ended_as` says how a run ended that could not finish; a run that finished is
    completed, with or without failures.
    """
    with searched_rarely():
        content = read_journal(store, record.run_id)
        try:
            _publish(store, record, content)
        except StorageError:
            if ended_as is None:
                raise
            is_published = False  # the next run does it
        else:
            is_published = True
    counted = _counted(record, content)
    state = ended_as or (RunState.COMPLETED_WITH_FAILURES if counted.failed else RunState.COMPLETED)
    finished = counted.model_copy(
        update={
            "state": state,
            "finished_at": now,
            "wall_seconds": round((now - record.started_at).total_seconds(), 3),
            "hosts": dict(accounts) or record.hosts,
            **_efficiency(content, accounts),
            "error": error,
            "published": is_published,
        }
    )
    write_run(store, finished)
    return finished


def take_over(store: Store, dataset: str, target_lang: str, by_run_id: str) -> dict[str, Attempt]:
    """Publish what dead runs of a dataset left behind.

    Returns the accepted segments of reports that earlier runs did not finish or that
    failed, by reuse key.
    """
    accepted: dict[str, Attempt] = {}
    for record in read_runs(store):
        if (record.dataset, record.target_lang) != (dataset, target_lang):
            continue
        if record.state is RunState.COMPLETED:
            continue
        if record.run_id == by_run_id:
            continue
        with store.try_lock(lock_name(record.run_id)) as is_dead:
            if is_dead:
                accepted |= _taken_over(store, record.run_id)
    return accepted


def _taken_over(store: Store, run_id: str) -> dict[str, Attempt]:
    # Read again: it may have ended well since, between the list and the lock.
    record, content = read_run(store, run_id), read_journal(store, run_id)
    if record.state is RunState.COMPLETED:
        return {}
    if not record.published:
        _publish(store, record, content)
        state = RunState.ABANDONED if record.state is RunState.RUNNING else record.state
        update = {"state": state, "published": True}
        write_run(store, _counted(record, content).model_copy(update=update))
    return _accepted_in_vain(content)


def _accepted_in_vain(content: JournalContent) -> dict[str, Attempt]:
    """Accepted segments of reports that have no translation all the same, by reuse key."""
    translated = {
        report_id
        for report_id, outcome in content.outcomes.items()
        if outcome.status is not Status.FAILED
    }
    return {
        attempt.reuse_key: attempt
        for attempt in content.attempts
        if attempt.outcome is AttemptOutcome.ACCEPTED and attempt.report_id not in translated
    }


def _counted(record: RunRecord, content: JournalContent) -> RunRecord:
    """The record with its reports counted by how they ended."""
    by_status = Counter(outcome.status for outcome in content.outcomes.values())
    counted = record.model_copy(
        update={
            "translated": by_status[Status.OK],
            "flagged": by_status[Status.FLAGGED],
            "reused": by_status[Status.REUSED],
            "passed": by_status[Status.PASSED],
            "failed": by_status[Status.FAILED],
            "unfinished": record.planned - by_status.total(),
        }
    )
    if not counted.add_up():
        raise AssertionError(f"the counts of run {record.run_id} do not add up: {counted!r}")
    return counted


def _publish(store: Store, record: RunRecord, content: JournalContent) -> None:
    if not store.exists(plan_key(record.run_id)):
        return  # it ended before it had a plan
    plan = read_parquet(store, plan_key(record.run_id))
    publish_attempts(store, record.columns(), content.attempts)
    publish_translations(store, record.columns(), plan, content.outcomes)


def _prompting(settings: TranslateSettings) -> Prompting:
    return Prompting(
        profile=choose_profile(settings.model, settings.profile),
        model=settings.model,
        source_lang=settings.source_lang,
        target_lang=settings.target_lang,
        num_ctx=settings.num_ctx,
    )


def _efficiency(
    content: JournalContent, accounts: Mapping[str, HostAccount]
) -> dict[str, float | None]:
    """How near the run came to the least time that its hosts could have taken."""
    work = [
        attempt.measures.output_tokens
        for attempt in content.attempts
        if attempt.outcome is AttemptOutcome.ACCEPTED
    ]
    reached = Efficiency.of(work, accounts.values())
    return {
        "makespan_seconds": reached.makespan_s,
        "lower_bound_seconds": reached.lower_bound_s,
        "efficiency": reached.efficiency,
    }


async def _survey(addresses: Sequence[HostAddress], model: str, *, other_weights: bool) -> Survey:
    clients = [HostClient(address) for address in addresses]
    try:
        return agree(await ask_all(clients), model, other_weights=other_weights)
    finally:
        for client in clients:
            await client.close()


def _rejected_rows(store: Store, dataset: str) -> int:
    return read_table(store, f"rejected/{dataset}", columns=["source_file"]).num_rows
