from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.local_ollama import Settings, local_servers
from deployments.local_ollama.process import ServerProcess
from tasks.core import schema
from tasks.core.dispatch.account import HostAccount
from tasks.core.errors import ConfigurationError, ErrorKind, HostsUnreachable
from tasks.core.ingest.summary import IngestSummary
from tasks.core.records import Measures, ReportOutcome, Status
from tasks.core.run.engine import Engine
from tasks.core.run.lifecycle import (
    StartedRun,
    finish_run,
    open_run,
    start_run,
    survey_hosts,
    take_over,
)
from tasks.core.run.run_record import (
    RunRecord,
    RunState,
    lock_name,
    plan_key,
    read_run,
    run_key,
    write_run,
)
from tasks.core.settings import TranslateSettings
from tasks.core.storage.journal import JournalWriter, journal_folder, read_journal
from tasks.core.storage.publish import read_table, translations_folder
from tasks.core.storage.store import Store
from tests.core.run.test_summary import a_file
from tests.fakes import MODEL, NOW, an_attempt, write_reports

TEXTS = {f"r{number:02}": f"Le patient numéro {number}" for number in range(20)}


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ServerProcess]]:
    """Two servers in processes of their own, shared by the tests of this module."""
    with local_servers([Settings(slots=2).instant(), Settings(slots=1).instant()]) as started:
        yield started


@dataclass
class Runs:
    """A root, and the runs that the tests make in it."""

    store: Store
    servers: Sequence[ServerProcess]

    def settings(self, **more: Any) -> TranslateSettings:
        """What a run is told."""
        given: dict[str, Any] = {
            "root": str(self.store.root),
            "dataset": "ds",
            "hosts": [f"{server.url}={server.settings.slots}" for server in self.servers],
            "model": MODEL,
            **more,
        }
        return TranslateSettings(**given)

    def start(self, run_id: str, ingested: IngestSummary | None = None, **more: Any) -> StartedRun:
        """Open, survey and plan a run."""
        settings = self.settings(**more)
        record = open_run(self.store, settings, settings.addresses, run_id=run_id, now=NOW)
        return start_run(
            self.store,
            settings,
            record,
            survey_hosts(settings, settings.addresses),
            ingested,
            hosts=settings.addresses,
        )

    def run(self, run_id: str, **more: Any) -> RunRecord:
        """A whole run."""
        started = self.start(run_id, **more)
        with Engine(self.store, self.settings(**more), started) as engine:
            for shard in started.shards:
                assert engine.translate_shard(shard) == shard.rows
        later = NOW + timedelta(seconds=12.3456)
        return finish_run(self.store, started.record, now=later, accounts=engine.accounts())

    def rows(self) -> dict[str, dict[str, Any]]:
        """The published rows by report."""
        folder = translations_folder("ds", "en")
        if not self.store.list(folder):
            return {}
        rows = read_table(self.store, folder).to_pylist()
        by_id = {row["report_id"]: row for row in rows}
        assert len(by_id) == len(rows)
        return by_id

    def received(self) -> int:
        """Requests with text that the servers received since they were last asked."""
        count = sum(server.stats()["received"] for server in self.servers)
        for server in self.servers:
            server.reset_stats()
        return count


@pytest.fixture
def runs(tmp_path: Path, servers: list[ServerProcess]) -> Iterator[Runs]:
    """A root with reports, and servers that count from zero and have no faults."""
    store = Store(tmp_path)
    write_reports(store, TEXTS, source={"ward": ["A"] * len(TEXTS)})
    runs = Runs(store, servers)
    runs.received()
    yield runs
    for server in servers:
        server.clear_faults()


async def leave_behind(
    store: Store,
    started: StartedRun,
    *,
    finished: Mapping[str, Status],
    accepted: Mapping[str, str],
) -> None:
    """Write what a run had in its journal when its process died."""
    async with JournalWriter(store, started.record.run_id, "dead") as journal:
        for report_id, text in accepted.items():
            key = started.recipe.reuse_key(TEXTS[report_id])
            await journal.write(an_attempt(text, report_id=report_id, reuse_key=key))
        for report_id, status in finished.items():
            outcome = ReportOutcome(report_id, status, "by the dead", 1, 1, Measures())
            await journal.write(outcome)
        journal._log.append(b'{"kind": "outcome", "report_id": "r1')


def test_a_run(runs: Runs) -> None:
    """A run translates what is missing; its counts add up and its record tells all of it."""
    record = runs.run("run1")
    assert record.add_up()
    assert (record.state, record.translated, record.reports) == (RunState.COMPLETED, 20, 20)
    assert (record.rows_in, record.planned, record.unfinished) == (20, 20, 0)
    assert runs.received() == 20
    rows = runs.rows()
    assert set(rows) == set(TEXTS)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows["r07"]["translated_text"].startswith("The patient")
    assert (rows["r07"]["ward"], rows["r07"]["run_id"]) == ("A", "run1")
    assert all(row["server_wait_ns"] >= 0 for row in rows.values())
    attempts = pq.read_table(runs.store.path("attempts/ds/run1.parquet"), partitioning=None)
    assert attempts.num_rows == 20


def test_the_record_of_a_run(runs: Runs) -> None:
    """`run.json` holds the model's digest, the times, the counts and each host's part."""
    record = runs.run("run1")
    shown = json.loads(runs.store.read(run_key("run1")))
    assert read_run(runs.store, "run1") == record
    assert shown["model_digest"] == runs.rows()["r01"]["model_digest"]
    assert (shown["profile"], shown["policy"], shown["limit"]) == ("plain/1", "pull", None)
    assert shown["options"]["num_ctx"] == 4096
    assert (shown["wall_seconds"], shown["published"], shown["error"]) == (12.346, True, None)
    assert shown["shards"] == 4
    assert shown["predicted_tokens"] > 20
    hosts = shown["hosts"]
    assert list(hosts) == [server.url for server in runs.servers]
    assert sum(host["requests"] for host in hosts.values()) == 20
    assert [host["slots"] for host in hosts.values()] == [2, 1]
    assert all(host["peak_in_flight"] <= host["slots"] for host in hosts.values())
    assert all(host["failures"] == 0 for host in hosts.values())


def test_a_second_run_sends_nothing(runs: Runs) -> None:
    """What is translated is not asked for again, and its rows stay as they are."""
    runs.run("run1")
    before = runs.rows()
    assert runs.received() == 20
    record = runs.run("run2")
    assert (record.unchanged, record.planned, record.shards) == (20, 0, 0)
    assert record.state is RunState.COMPLETED
    assert record.add_up()
    assert runs.received() == 0
    assert runs.rows() == before


def test_a_run_with_a_limit(runs: Runs) -> None:
    """A limited run does its part; the next one does the rest, and nothing twice."""
    first = runs.run("run1", limit=5)
    assert (first.reports, first.translated, first.beyond_limit) == (5, 5, 15)
    assert runs.received() == 5
    second = runs.run("run2")
    assert (second.translated, second.unchanged) == (15, 5)
    assert runs.received() == 15
    assert second.add_up()


def test_a_run_in_which_reports_fail(runs: Runs) -> None:
    """Failed reports have rows with their error; the next run tries them, and them only."""
    fault = {"kind": "status", "status": 400, "contains": "numéro 7"}
    for server in runs.servers:
        server.add_faults([fault])
    first = runs.run("run1")
    assert (first.state, first.failed, first.translated) == (
        RunState.COMPLETED_WITH_FAILURES,
        1,
        19,
    )
    row = runs.rows()["r07"]
    assert (row["status"], row["error_kind"], row["translated_text"]) == (
        "failed",
        ErrorKind.BAD_REQUEST,
        None,
    )
    assert runs.received() == 20
    for server in runs.servers:
        server.clear_faults()
    second = runs.run("run2")
    assert (second.state, second.translated, second.unchanged) == (RunState.COMPLETED, 1, 19)
    assert runs.received() == 1
    assert runs.rows()["r07"]["status"] == "ok"


def test_a_changed_text(runs: Runs) -> None:
    """Only the report whose text changed is translated again, and its row replaced."""
    runs.run("run1")
    runs.received()
    write_reports(runs.store, {**TEXTS, "r03": "Le foie"}, source={"ward": ["A"] * 20})
    record = runs.run("run2")
    assert (record.translated, record.unchanged) == (1, 19)
    assert runs.received() == 1
    assert runs.rows()["r03"]["source_text"] == "Le foie"


def test_a_run_about_some_files(runs: Runs) -> None:
    """A run after an ingest is about the files of that ingest, and counts their rows."""
    write_reports(
        runs.store, {"z": "Le foie"}, source={"ward": ["B"]}, source_file="a.csv", file="b"
    )
    ingested = IngestSummary.of("ds", [a_file(3, 2)], Counter(no_text=2), ["a note"])
    started = runs.start("run1", ingested)
    record = started.record
    assert (record.rows_in, record.reports, record.rejected, record.planned) == (3, 1, 2, 1)
    assert record.notes[0].startswith("ds: 3 rows in 1 file")
    assert [source["source_file"] for source in record.sources] == ["a.csv"]
    assert record.add_up()


def test_taking_over(runs: Runs) -> None:
    """A run takes over a dead one: it publishes it, abandons it, and pays for nothing twice."""
    dead = runs.start("run1")
    finished = {"r00": Status.OK, "r01": Status.PASSED}
    accepted = {"r00": "by the dead", "r02": "known already", "r03": "known, too"}
    asyncio.run(leave_behind(runs.store, dead, finished=finished, accepted=accepted))

    record = runs.run("run2")

    abandoned = read_run(runs.store, "run1")
    assert (abandoned.state, abandoned.published) == (RunState.ABANDONED, True)
    assert abandoned.add_up()
    assert (abandoned.translated, abandoned.passed, abandoned.unfinished) == (1, 1, 18)
    assert (record.unchanged, record.translated, record.planned) == (2, 18, 18)
    assert record.add_up()
    assert runs.received() == 16
    rows = runs.rows()
    assert len(rows) == 20
    assert (rows["r00"]["run_id"], rows["r00"]["translated_text"]) == ("run1", "by the dead")
    assert (rows["r01"]["run_id"], rows["r01"]["status"]) == ("run1", "passed")
    assert (rows["r02"]["run_id"], rows["r02"]["translated_text"]) == ("run2", "known already")
    assert (rows["r02"]["attempts"], rows["r04"]["attempts"]) == (0, 1)
    attempts = pq.read_table(runs.store.path("attempts/ds/run1.parquet"), partitioning=None)
    assert attempts.num_rows == 3
    # Taken over once, it is not touched again.
    before = runs.store.read(run_key("run1"))
    assert runs.run("run3").planned == 0
    assert runs.store.read(run_key("run1")) == before


def test_segments_of_a_report_that_failed(runs: Runs) -> None:
    """What was accepted for a report that failed in the end is not paid for again."""
    dead = runs.start("run1")
    finished = dict.fromkeys(("r00", "r01"), Status.FAILED)
    accepted = {"r00": "known already"}
    asyncio.run(leave_behind(runs.store, dead, finished=finished, accepted=accepted))

    runs.run("run2", limit=2)

    rows = runs.rows()
    assert (rows["r00"]["status"], rows["r00"]["translated_text"]) == ("ok", "known already")
    assert (rows["r00"]["attempts"], rows["r01"]["attempts"]) == (0, 1)
    assert runs.received() == 1


def test_a_run_that_lives_is_left_alone(runs: Runs) -> None:
    """A run that holds its lock is not taken over, whatever its journal holds."""
    alive = runs.start("run1")
    asyncio.run(
        leave_behind(
            runs.store, alive, finished={"r00": Status.OK}, accepted={"r02": "known already"}
        )
    )
    with runs.store.locked(lock_name("run1")):
        assert take_over(runs.store, "ds", "en", "run2") == {}
    assert read_run(runs.store, "run1").state is RunState.RUNNING
    assert runs.rows() == {}
    assert set(take_over(runs.store, "ds", "en", "run2")) == {alive.recipe.reuse_key(TEXTS["r02"])}
    assert set(runs.rows()) == {"r00"}


def test_only_runs_of_the_same_table_are_taken_over(runs: Runs) -> None:
    """Another dataset's runs, another language's and the run itself are left alone."""
    started = runs.start("run1")
    other = started.record.model_copy(update={"run_id": "run2", "dataset": "other"})
    german = started.record.model_copy(update={"run_id": "run3", "target_lang": "de"})
    for record in (other, german):
        write_run(runs.store, record)
    assert take_over(runs.store, "ds", "en", "run1") == {}
    states = {read_run(runs.store, run_id).state for run_id in ("run1", "run2", "run3")}
    assert states == {RunState.RUNNING}


def test_a_run_that_died_before_it_had_a_plan(runs: Runs) -> None:
    """A run that ended before its plan was written leaves nothing, and is abandoned."""
    settings = runs.settings()
    open_run(runs.store, settings, settings.addresses, run_id="run1", now=NOW)
    assert not runs.store.exists(plan_key("run1"))
    assert take_over(runs.store, "ds", "en", "run2") == {}
    assert read_run(runs.store, "run1").state is RunState.ABANDONED


def test_stopped_in_the_middle(runs: Runs) -> None:
    """A run that is stopped keeps what it finished, and the next one does the rest."""
    started = runs.start("run1")
    with Engine(runs.store, runs.settings(), started) as engine:
        engine.translate_shard(started.shards[0])
    record = finish_run(
        runs.store,
        started.record,
        now=NOW,
        accounts=engine.accounts(),
        ended_as=RunState.INTERRUPTED,
        error="KeyboardInterrupt",
    )
    done = started.shards[0].rows
    assert (record.state, record.error) == (RunState.INTERRUPTED, "KeyboardInterrupt")
    assert (record.translated, record.unfinished) == (done, 20 - done)
    assert record.add_up()
    assert len(runs.rows()) == done
    assert runs.received() == done
    second = runs.run("run2")
    assert (second.translated, second.unchanged) == (20 - done, done)
    assert runs.received() == 20 - done
    assert read_run(runs.store, "run1").state is RunState.INTERRUPTED


def test_a_run_that_never_began(runs: Runs) -> None:
    """A run that ended before anything was sent keeps the hosts it was told of."""
    started = runs.start("run1")
    record = finish_run(
        runs.store, started.record, now=NOW, accounts={}, ended_as=RunState.FAILED, error="no"
    )
    assert list(record.hosts) == [server.url for server in runs.servers]
    assert (record.unfinished, record.translated) == (20, 0)
    account = HostAccount(slots=9)
    again = finish_run(runs.store, started.record, now=NOW, accounts={"http://a:1": account})
    assert again.hosts["http://a:1"].slots == 9


def test_counts_that_do_not_add_up(runs: Runs) -> None:
    """A run whose sums are wrong is a bug and says so, instead of storing them."""
    started = runs.start("run1")
    wrong = started.record.model_copy(update={"rejected": 1})
    with pytest.raises(AssertionError, match="do not add up"):
        finish_run(runs.store, wrong, now=NOW, accounts={})
    assert read_run(runs.store, "run1").state is RunState.RUNNING


def test_nobody_answers(tmp_path: Path) -> None:
    """Without a host a run ends before its plan, and its record is there all the same."""
    store = Store(tmp_path)
    settings = TranslateSettings(
        root=str(tmp_path), dataset="ds", hosts=["127.0.0.1:1"], model=MODEL
    )
    record = open_run(store, settings, settings.addresses, run_id="run1", now=NOW, flow_run_id="f1")
    with pytest.raises(HostsUnreachable, match=r"127\.0\.0\.1:1 cannot be reached"):
        survey_hosts(settings, settings.addresses)
    assert read_run(store, "run1") == record
    assert (record.state, record.model_digest) == (RunState.RUNNING, None)
    assert (record.flow_run_id, record.add_up()) == ("f1", True)


def test_a_profile_that_does_not_exist(runs: Runs) -> None:
    """An unknown profile is refused before anything is written."""
    settings = runs.settings(profile="fancy")
    with pytest.raises(ConfigurationError, match="there is no such profile"):
        open_run(runs.store, settings, settings.addresses, run_id="run1", now=NOW)
    assert not runs.store.exists(run_key("run1"))


def test_rejected_rows_are_counted(runs: Runs) -> None:
    """A run about the whole dataset counts the rows that were rejected at ingest."""
    table_schema = schema.arrow_schema(schema.REJECTED)
    rows = [{"dataset": "ds", "source_file": "notes.csv", "source_row": 21, "reason": "no_text"}]
    with runs.store.staged("rejected/ds/a.parquet") as path:
        pq.write_table(pa.Table.from_pylist(rows, schema=table_schema), path)
    record = runs.run("run1")
    assert (record.rows_in, record.reports, record.rejected) == (21, 20, 1)
    assert record.add_up()


def test_every_request_is_in_the_journal(runs: Runs) -> None:
    """The journal of a run holds every request and every outcome."""
    runs.run("run1")
    assert len(runs.store.list(journal_folder("run1"))) == 1
    content = read_journal(runs.store, "run1")
    assert set(content.outcomes) == set(TEXTS)
    assert sorted(attempt.report_id for attempt in content.attempts) == sorted(TEXTS)


def test_a_run_that_ended_well_meanwhile(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finishes between being listed and being looked at keeps its record."""
    other = runs.start("run1")
    stale = other.record
    runs.run("run1b")
    ended = finish_run(
        runs.store,
        stale.model_copy(
            update={
                "planned": 0,
                "unfinished": 0,
                "reports": stale.unchanged,
                "rows_in": stale.unchanged,
            }
        ),
        now=NOW,
        accounts={},
    )
    monkeypatch.setattr("tasks.core.run.lifecycle.read_runs", lambda _store: [stale])
    take_over(runs.store, "ds", "en", "run2")
    assert read_run(runs.store, "run1") == ended


def test_a_record_that_is_none_stops_nobody(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    """A `run.json` that holds something else is named in the log and left out."""
    runs.store.put("runs/odd/run.json", b"{}")
    assert runs.run("run1").translated == len(TEXTS)
    assert "runs/odd/run.json is no record of a run" in caplog.text


def test_a_run_that_fails_while_nothing_can_be_published(runs: Runs) -> None:
    """A run that could not finish and not publish says so; the next one does it."""
    run = runs.start("run1")
    asyncio.run(leave_behind(runs.store, run, finished={"r00": Status.OK}, accepted={}))
    blocked = runs.store.path("translations/ds")
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    closed = finish_run(
        runs.store, run.record, now=NOW, accounts={}, ended_as=RunState.FAILED, error="lost"
    )
    assert (closed.state, closed.published, closed.translated) == (RunState.FAILED, False, 1)
    blocked.unlink()
    runs.run("run2")
    later = read_run(runs.store, "run1")
    assert (later.state, later.published) == (RunState.FAILED, True)
    assert len(runs.rows()) == len(TEXTS)
