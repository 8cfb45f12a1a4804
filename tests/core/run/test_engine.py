from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployments.local_ollama import Settings, local_servers
from deployments.local_ollama.process import ServerProcess
from tasks.core.dispatch import events
from tasks.core.errors import FleetLost, RunError, StorageError
from tasks.core.records import AttemptOutcome, PlannedReport
from tasks.core.run.engine import Engine, _result_however_often_interrupted
from tasks.core.run.lifecycle import StartedRun, open_run, start_run, survey_hosts
from tasks.core.settings import TranslateSettings
from tasks.core.storage.journal import journal_folder, read_journal
from tasks.core.storage.store import Store
from tests.fakes import MODEL, NOW, write_reports

TEXTS = {f"r{number:02}": f"Le patient numéro {number}" for number in range(32)}
RUN_ID = "run1"


def settings_for(store: Store, *servers: ServerProcess, **more: Any) -> TranslateSettings:
    """What a run on these servers is told."""
    hosts = [f"{server.url}={server.settings.slots}" for server in servers]
    return TranslateSettings(root=str(store.root), dataset="ds", hosts=hosts, model=MODEL, **more)


def started(store: Store, settings: TranslateSettings) -> StartedRun:
    """A run whose plan stands."""
    write_reports(store, TEXTS)
    record = open_run(store, settings, settings.addresses, run_id=RUN_ID, now=NOW)
    return start_run(
        store,
        settings,
        record,
        survey_hosts(settings, settings.addresses),
        hosts=settings.addresses,
    )


def dispatcher_threads() -> int:
    """How many engines' threads there are."""
    return sum(thread.name == "dispatcher" for thread in threading.enumerate())


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until the condition holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty root."""
    return Store(tmp_path)


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server with two slots in a process of its own."""
    with local_servers([Settings(slots=2).instant()]) as (one,):
        yield one


def test_many_threads_share_one_dispatcher(store: Store, server: ServerProcess) -> None:
    """Shards from many threads are translated by one dispatcher, within the host's slots."""
    settings = settings_for(store, server)
    run = started(store, settings)
    told: list[events.Event] = []
    with Engine(store, settings, run, told.append) as engine, ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(engine.translate_shard, run.shards))
        assert dispatcher_threads() == 1
        assert engine.accounts()[server.url].requests == 32
    assert counts == [shard.rows for shard in run.shards]
    assert dispatcher_threads() == 0
    stats = server.stats()
    assert stats["received"] == stats["answered"] == 32
    assert stats["peak_in_flight"] <= 2
    done = {event.report_id for event in told if isinstance(event, events.ReportDone)}
    assert done == set(TEXTS)
    account = engine.accounts()[server.url]
    assert (account.requests, account.failures, account.slots) == (32, 0, 2)


def test_a_server_that_dies(store: Store) -> None:
    """A process that dies in the middle costs nothing but the requests it had."""
    both = [Settings(slots=2).instant(), Settings(slots=2, decode_rate=100, load_seconds=0)]
    with local_servers(both) as (dying, other):
        dying.add_faults([{"kind": "die", "after": 3}])
        settings = settings_for(store, dying, other)
        run = started(store, settings)
        with Engine(store, settings, run) as engine:
            for shard in run.shards:
                engine.translate_shard(shard)
        answered = other.stats()["answered"]
        assert dying.exit_code == 1
    content = read_journal(store, RUN_ID)
    assert {outcome.status for outcome in content.outcomes.values()} == {"ok"}
    assert len(content.outcomes) == 32
    accepted = [one for one in content.attempts if one.outcome is AttemptOutcome.ACCEPTED]
    assert len(accepted) == 32
    assert answered == sum(one.host == other.url for one in accepted) >= 29
    failed = [one for one in content.attempts if one.outcome is AttemptOutcome.FAILED]
    assert {one.host for one in failed} == {dying.url}
    assert engine.accounts()[dying.url].failures == len(failed) >= 1


def test_all_servers_die(store: Store, server: ServerProcess) -> None:
    """When the fleet is lost every waiting shard learns it; what was done is in the journal."""
    server.add_faults([{"kind": "die", "after": 5}])
    settings = settings_for(store, server, fleet_timeout_seconds=0)
    run = started(store, settings)
    with Engine(store, settings, run) as engine, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(engine.translate_shard, shard) for shard in run.shards]
        errors = [future.exception(60) for future in futures]
    assert {type(error) for error in errors if error} == {FleetLost}
    content = read_journal(store, RUN_ID)
    outcomes = [attempt.outcome for attempt in content.attempts]
    assert 1 <= outcomes.count(AttemptOutcome.ACCEPTED) <= 5
    assert len(content.outcomes) <= 5


def test_leaving_in_the_middle(store: Store, server: ServerProcess) -> None:
    """Leaving stops what is in flight; waiting threads learn it, and nothing else is sent."""
    server.add_faults([{"kind": "hang", "after": 6}])
    settings = settings_for(store, server)
    run = started(store, settings)
    with ThreadPoolExecutor(8) as pool:
        with Engine(store, settings, run) as engine:
            futures = [pool.submit(engine.translate_shard, shard) for shard in run.shards]
            wait_until(lambda: server.stats()["received"] == 8)
            wait_until(lambda: len(read_journal(store, RUN_ID).outcomes) == 6)
        errors = [future.exception(60) for future in futures]
    assert {type(error) for error in errors} == {RunError}
    assert "stopped before this shard was finished" in str(errors[0])
    wait_until(lambda: server.stats()["in_flight"] == 0)
    assert server.stats()["received"] == 8
    content = read_journal(store, RUN_ID)
    by_outcome = [attempt.outcome for attempt in content.attempts]
    assert by_outcome.count(AttemptOutcome.ACCEPTED) == 6
    assert by_outcome.count(AttemptOutcome.CANCELLED) == 2
    assert len(content.outcomes) == 6
    assert dispatcher_threads() == 0


def test_a_shard_that_comes_too_late(store: Store, server: ServerProcess) -> None:
    """Before its block and after it an engine takes no shard, and says so."""
    settings = settings_for(store, server)
    run = started(store, settings)
    engine = Engine(store, settings, run)
    reports = [PlannedReport("r00", "Le patient", "key")]
    with pytest.raises(RunError, match="was not begun"):
        engine.translate(reports)
    with engine:
        assert engine.translate(reports) == 1
    with pytest.raises(RunError, match="the run is over"):
        engine.translate(reports)
    assert server.stats()["received"] == 1


def test_an_engine_that_cannot_start(store: Store, server: ServerProcess) -> None:
    """When the journal cannot be opened nothing is left behind, neither a thread nor a loop."""
    settings = settings_for(store, server)
    run = started(store, settings)
    store.put(journal_folder(RUN_ID), b"a file in the way")
    engine = Engine(store, settings, run)
    with pytest.raises(StorageError, match="cannot write"):
        engine.__enter__()
    assert dispatcher_threads() == 0
    assert engine._loop.is_closed()
    assert engine.accounts() == {}


def test_an_error_in_the_block_is_kept(store: Store, server: ServerProcess) -> None:
    """An error inside the block comes out, after everything was stopped."""
    settings = settings_for(store, server)
    run = started(store, settings)
    with pytest.raises(ZeroDivisionError), Engine(store, settings, run):
        raise ZeroDivisionError
    assert dispatcher_threads() == 0


@pytest.mark.parametrize("error", [SystemExit(1), BrokenPipeError()])
def test_whoever_watches_cannot_stop_the_work(
    store: Store, server: ServerProcess, error: BaseException
) -> None:
    """An observer that fails, as one of a closed terminal does, is left alone from then on."""
    told: list[object] = []

    def observe(event: object) -> None:
        told.append(event)
        raise error

    settings = settings_for(store, server)
    run = started(store, settings)
    with Engine(store, settings, run, observe) as engine:
        for shard in run.shards:
            engine.translate_shard(shard)
    assert len(told) == 1
    assert len(read_journal(store, RUN_ID).outcomes) == run.record.planned


def test_an_end_is_not_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever interrupts the end of a run is told so when it is through, and not before."""
    stopped: Future[None] = Future()
    waits = 0

    def interrupted_twice() -> None:
        nonlocal waits
        waits += 1
        if waits <= 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stopped, "result", interrupted_twice)
    with pytest.raises(KeyboardInterrupt):
        _result_however_often_interrupted(stopped)
    assert waits == 3
