from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core import schema
from tasks.core.errors import ErrorKind, StorageError
from tasks.core.records import AttemptOutcome, Measures, ReportOutcome, Status
from tasks.core.run.planning import make_plan
from tasks.core.run.run_record import plan_key
from tasks.core.storage.publish import (
    PARTS,
    RunColumns,
    part_of,
    publish_attempts,
    publish_translations,
    read_table,
    translations_folder,
)
from tasks.core.storage.store import Store
from tasks.core.translate.reuse_key import Recipe
from tests.fakes import NOW, an_attempt, write_reports

FOLDER = translations_folder("ds", "en")
MEASURES = Measures(1, 2, 3, 4, 50, 6, 7, 8)


def columns(run_id: str = "run1", **more: Any) -> RunColumns:
    """What a run writes into each of its rows."""
    given = RunColumns(
        dataset="ds",
        run_id=run_id,
        flow_run_id=None,
        model="m",
        model_digest="d" * 64,
        profile="plain/1",
        prompt_sha256="p" * 64,
        options_sha256="o" * 64,
        glossary_sha256=None,
        target_lang="en",
    )
    return dataclasses.replace(given, **more)


def ok(report_id: str, text: str = "The kidney", **more: Any) -> ReportOutcome:
    """A translated report."""
    fields: dict[str, Any] = {
        "host": "http://gpu1:11434",
        "ollama_version": "0.33.0",
        "done_reason": "stop",
        "started_at": NOW,
        "finished_at": NOW,
        **more,
    }
    return ReportOutcome(report_id, Status.OK, text, 1, 1, MEASURES, **fields)


def failed(report_id: str) -> ReportOutcome:
    """A report without a translation."""
    return ReportOutcome(
        report_id,
        Status.FAILED,
        None,
        1,
        5,
        Measures(),
        error_kind=ErrorKind.TIMEOUT,
        error="no answer",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty root."""
    return Store(tmp_path)


def plan_of(store: Store, run_id: str, digest: str = "d") -> pa.Table:
    """A run's plan over all reports that have no translation with this digest."""
    recipe = Recipe(digest * 64, "fr", "en", "p" * 64, "o" * 64)
    make_plan(store, run_id, "ds", recipe, slots=1)
    return pq.read_table(store.path(plan_key(run_id)))


def publish(store: Store, run_id: str, *outcomes: ReportOutcome, digest: str = "d") -> int:
    """Plan a run and publish these outcomes of it."""
    plan = plan_of(store, run_id, digest)
    by_id = {outcome.report_id: outcome for outcome in outcomes}
    return publish_translations(store, columns(run_id), plan, by_id)


def rows(store: Store) -> dict[str, dict[str, Any]]:
    """The published rows by report; a report published twice is an error."""
    found = read_table(store, FOLDER).to_pylist() if store.list(FOLDER) else []
    by_id = {row["report_id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def schemas(store: Store, folder: str) -> list[pa.Schema]:
    """The schema of every file of a folder."""
    return [pq.read_schema(store.path(key)) for key in store.list(folder)]


def many(count: int) -> dict[str, str]:
    """So many reports."""
    return {f"r{number}": f"Le rein {number}" for number in range(count)}


def test_a_row_holds_all_there_is_to_know(store: Store) -> None:
    """A row holds what was planned, what came of it, and who did it when."""
    write_reports(store, {"r1": "Le rein"}, source={"age": [7], "ward": ["B"]})
    assert publish(store, "run1", ok("r1", flags=("numbers",))) == 1
    row = rows(store)["r1"]
    key = row.pop("reuse_key")
    assert key == Recipe("d" * 64, "fr", "en", "p" * 64, "o" * 64).reuse_key("Le rein")
    assert row == {
        "dataset": "ds", "report_id": "r1", "source_file": "notes.csv", "source_row": 1,
        "age": 7, "ward": "B", "source_text": "Le rein", "translated_text": "The kidney",
        "source_lang": "fr", "detected_lang": None, "target_lang": "en", "segment_count": 1,
        "status": "ok", "flags": ["numbers"], "attempts": 1, "done_reason": "stop",
        "error_kind": None, "error": None, "deleted_at": None, "run_id": "run1",
        "flow_run_id": None, "host": "http://gpu1:11434", "model": "m", "model_digest": "d" * 64,
        "ollama_version": "0.33.0", "profile": "plain/1", "prompt_sha256": "p" * 64,
        "options_sha256": "o" * 64, "glossary_sha256": None, "prompt_tokens": 1,
        "output_tokens": 2, "source_chars": 7, "output_chars": 10, "queue_wait_ns": 3,
        "request_wall_ns": 4, "total_duration_ns": 50, "load_duration_ns": 6,
        "prompt_eval_duration_ns": 7, "eval_duration_ns": 8, "server_wait_ns": 29,
        "started_at": NOW, "finished_at": NOW, "schema_version": 1,
    }  # fmt: skip


def test_every_file_has_every_column(store: Store) -> None:
    """All files have exactly the table's columns, also those in which a column is all null."""
    source = {"age": [7] * 60, "note": pa.nulls(60, pa.string())}
    write_reports(store, many(60), source=source)
    publish(store, "run1", *(failed(report_id) for report_id in many(60)))
    fields = [pa.field("age", pa.int64()), pa.field("note", pa.string())]
    expected = schema.arrow_schema(schema.TRANSLATIONS, fields)
    found = schemas(store, FOLDER)
    assert len(found) > 8
    assert all(one.equals(expected) for one in found)


def test_each_report_has_one_file(store: Store) -> None:
    """A report's file follows from its id alone, and no other file holds it."""
    write_reports(store, many(200))
    publish(store, "run1", *(ok(report_id) for report_id in many(200)))
    for key in store.list(FOLDER):
        part = int(key.removesuffix(".parquet")[-2:])
        ids = pq.read_table(store.path(key), columns=["report_id"])["report_id"].to_pylist()
        assert {part_of(report_id) for report_id in ids} == {part}
    assert len(rows(store)) == 200
    assert len(store.list(FOLDER)) == PARTS


def test_the_file_of_a_report_never_changes() -> None:
    """Rows written by earlier versions are found where they are: the hash is fixed."""
    assert [part_of(report_id) for report_id in ("r1", "r2", "é")] == [2, 11, 10]


def test_a_new_translation_replaces_the_old_one(store: Store) -> None:
    """A report that is translated again has one row, the new one; others keep theirs."""
    write_reports(store, many(40))
    publish(store, "run1", *(ok(report_id) for report_id in many(40)))
    publish(store, "run2", ok("r3", "By another model"), digest="e")
    found = rows(store)
    assert len(found) == 40
    assert (found["r3"]["translated_text"], found["r3"]["run_id"]) == ("By another model", "run2")
    assert {row["run_id"] for report_id, row in found.items() if report_id != "r3"} == {"run1"}


def test_rows_in_a_file_are_in_source_order(store: Store) -> None:
    """Within a file rows stand in the order of their sources, whenever they were written."""
    write_reports(store, many(100))
    publish(store, "run1", *(ok(f"r{number}") for number in range(50, 100)))
    publish(store, "run2", *(ok(f"r{number}") for number in range(50)))
    for key in store.list(FOLDER):
        numbers = pq.read_table(store.path(key))["source_row"].to_pylist()
        assert numbers == sorted(numbers)


def test_untouched_files_stay_untouched(store: Store) -> None:
    """A run writes only the files that its reports belong to."""
    write_reports(store, many(100))
    publish(store, "run1", *(ok(report_id) for report_id in many(100)))
    before = {key: store.path(key).stat().st_ino for key in store.list(FOLDER)}
    publish(store, "run2", ok("r3", "Again"), digest="e")
    after = {key: store.path(key).stat().st_ino for key in store.list(FOLDER)}
    changed = [key for key in after if after[key] != before[key]]
    assert changed == [f"{FOLDER}/part-{part_of('r3'):02}.parquet"]


def test_a_failure_does_not_replace_a_translation_of_the_text(store: Store) -> None:
    """A translation of the very same text stays when a newer run, of another model, fails."""
    write_reports(store, {"r1": "Le rein"})
    publish(store, "run1", ok("r1"))
    publish(store, "run2", failed("r1"), digest="e")
    row = rows(store)["r1"]
    assert (row["status"], row["run_id"]) == ("ok", "run1")


def test_a_failure_replaces_the_translation_of_an_older_text(store: Store) -> None:
    """A translation of a text that has changed since is not left to look like the new one's."""
    write_reports(store, {"r1": "Le rein"})
    publish(store, "run1", ok("r1"))
    write_reports(store, {"r1": "Le foie"})
    publish(store, "run2", failed("r1"))
    row = rows(store)["r1"]
    assert (row["status"], row["source_text"]) == ("failed", "Le foie")
    assert (row["translated_text"], row["error_kind"]) == (None, "timeout")


def test_a_failure_replaces_a_failure(store: Store) -> None:
    """The row of a report that failed again is that of the last run."""
    write_reports(store, {"r1": "Le rein"})
    publish(store, "run1", failed("r1"))
    publish(store, "run2", failed("r1"))
    assert rows(store)["r1"]["run_id"] == "run2"


def test_a_run_does_not_replace_what_a_later_one_translated(store: Store) -> None:
    """What a dead run left is published late without taking the place of newer rows."""
    write_reports(store, {"r1": "Le rein", "r2": "Le foie", "r3": "La rate"})
    plan = plan_of(store, "run1")
    publish(store, "run2", ok("r1", "New"), failed("r2"), digest="e")
    late = {name: ok(name, "Late") for name in ("r1", "r2", "r3")}
    publish_translations(store, columns("run1"), plan, late)
    found = rows(store)
    assert {name: found[name]["translated_text"] for name in found} == {
        "r1": "New",
        "r2": "Late",
        "r3": "Late",
    }


def test_source_columns_that_come_later(store: Store) -> None:
    """A column added to the dataset is in every file afterwards, null where it was not known."""
    write_reports(store, many(60))
    plan = plan_of(store, "run0")
    publish(store, "run1", *(ok(report_id) for report_id in many(60)))
    write_reports(store, many(60), source={"ward": ["B"] * 60})
    publish(store, "run2", ok("r3", "Again"), digest="e")
    fields = [pa.field("ward", pa.string())]
    expected = schema.arrow_schema(schema.TRANSLATIONS, fields)
    assert all(one.equals(expected) for one in schemas(store, FOLDER))
    found = rows(store)
    assert (found["r3"]["ward"], found["r4"]["ward"]) == ("B", None)
    # A run that was planned before the column came fits as well.
    publish_translations(store, columns("run3"), plan, {"r5": ok("r5", "Late")})
    assert all(one.equals(expected) for one in schemas(store, FOLDER))
    assert rows(store)["r5"]["translated_text"] == "Late"


def test_source_types_that_grow(store: Store) -> None:
    """When the dataset's type of a column grows, earlier rows come along."""
    write_reports(store, many(30), source={"age": pa.array([7] * 30, pa.int64())})
    publish(store, "run1", *(ok(report_id) for report_id in many(30)))
    write_reports(store, many(30), source={"age": pa.array([7.5] * 30, pa.float64())})
    publish(store, "run2", ok("r3"), digest="e")
    assert {one.field("age").type for one in schemas(store, FOLDER)} == {pa.float64()}
    assert (rows(store)["r3"]["age"], rows(store)["r4"]["age"]) == (7.5, 7.0)


def test_nothing_to_publish(store: Store) -> None:
    """A run without outcomes writes no file; one outcome writes one."""
    write_reports(store, many(5))
    assert publish(store, "run1") == 0
    assert store.list(FOLDER) == []
    assert publish(store, "run2", ok("r1")) == 1
    assert len(store.list(FOLDER)) == 1


def test_outcomes_of_reports_that_were_not_planned(store: Store) -> None:
    """Only reports of the run's plan are published."""
    write_reports(store, many(2))
    assert publish(store, "run1", ok("r1"), ok("somebody else's")) == 1
    assert set(rows(store)) == {"r1"}


def test_attempts_have_a_file_a_run(store: Store) -> None:
    """Every request of a run is a row of its own file, with all columns of the table."""
    accepted = an_attempt("The kidney", report_id="r1")
    lost = an_attempt(
        None,
        report_id="r1",
        outcome=AttemptOutcome.FAILED,
        error_kind=ErrorKind.RESET,
        error="broke",
        done_reason=None,
        ollama_version=None,
    )
    publish_attempts(store, columns("run1"), [accepted, lost])
    publish_attempts(store, columns("run2"), [lost])
    publish_attempts(store, columns("run3"), [])
    keys = store.list("attempts/ds")
    assert keys == ["attempts/ds/run1.parquet", "attempts/ds/run2.parquet"]
    expected = schema.arrow_schema(schema.ATTEMPTS)
    assert all(one.equals(expected) for one in schemas(store, "attempts/ds"))
    first, second = pq.read_table(store.path(keys[0]), partitioning=None).to_pylist()
    assert (first["outcome"], first["output_chars"], first["segment"]) == ("accepted", 10, 2)
    assert (first["purpose"], first["attempt"], first["server_wait_ns"]) == ("repair", 3, 29)
    assert (second["outcome"], second["output_chars"]) == ("failed", None)
    assert (second["error_kind"], second["error"]) == ("reset", "broke")
    assert {row["run_id"] for row in (first, second)} == {"run1"}
    assert {row["target_lang"] for row in (first, second)} == {"en"}


def test_reading_a_file_that_is_none(store: Store) -> None:
    """A damaged file is a `StorageError` that names it."""
    store.put("reports/ds/a.parquet", b"PAR1 and then nothing")
    with pytest.raises(StorageError, match=r"cannot read .*reports/ds/a\.parquet"):
        read_table(store, "reports/ds")


def test_reading_what_is_not_there(store: Store) -> None:
    """A table without files has no rows, and the columns that were asked for."""
    assert read_table(store, "reports/ds").num_rows == 0
    empty = read_table(store, FOLDER, columns=["report_id", "flags"])
    assert empty.schema == pa.schema([("report_id", schema.STRING), ("flags", schema.STRINGS)])


def test_all_readers_agree(store: Store) -> None:
    """polars, DuckDB, pandas and pyarrow read the glob with the same columns, rows and kinds."""
    write_reports(store, many(50), source={"age": [7] * 50})
    half = [ok(f"r{number}", flags=("numbers",)) for number in range(25)]
    publish(store, "run1", *half, *(failed(f"r{number}") for number in range(25, 50)))
    glob = f"{store.root}/translations/ds/**/*.parquet"
    names = schema.arrow_schema(schema.TRANSLATIONS, [pa.field("age", pa.int64())]).names

    by_polars = pl.read_parquet(glob)
    by_duckdb = duckdb.sql(f"select * from read_parquet('{glob}')")  # noqa: S608 - our own path
    by_pyarrow = pq.read_table(store.path("translations/ds"))
    by_pandas = pd.read_parquet(store.path("translations/ds"))
    totals = duckdb.sql(f"select count(*), sum(eval_duration_ns) from '{glob}'").fetchall()  # noqa: S608

    assert by_polars.columns == by_duckdb.columns == by_pyarrow.column_names == names
    assert list(by_pandas.columns) == names
    counts = [by_polars.height, by_pyarrow.num_rows, len(by_pandas)]
    assert counts == [50] * 3
    assert totals == [(50, 25 * 8)]
    kinds = {
        "polars": [
            "list" if kind == pl.List(pl.String)
            else "number" if kind.is_integer()
            else "time" if kind.is_temporal()
            else "text" if kind == pl.String
            else str(kind)
            for kind in by_polars.dtypes
        ],
        "duckdb": [
            "list" if str(kind) == "VARCHAR[]"
            else "number" if str(kind) in ("INTEGER", "BIGINT")
            else "time" if str(kind) == "TIMESTAMP WITH TIME ZONE"
            else "text" if str(kind) == "VARCHAR"
            else str(kind)
            for kind in by_duckdb.types
        ],
        "pyarrow": [
            "list" if pa.types.is_list(kind)
            else "number" if pa.types.is_integer(kind)
            else "time" if pa.types.is_timestamp(kind)
            else "text" if pa.types.is_string(kind)
            else str(kind)
            for kind in by_pyarrow.schema.types
        ],
    }  # fmt: skip
    assert kinds["polars"] == kinds["duckdb"] == kinds["pyarrow"]
    assert set(kinds["polars"]) == {"list", "number", "time", "text"}
    by_id = by_pandas.set_index("report_id")
    assert str(by_pandas["started_at"].dtype) == "datetime64[us, UTC]"
    assert list(by_id.loc["r1", "flags"]) == ["numbers"]
    statuses = by_polars.group_by("status").len().sort("status").rows()
    assert statuses == [("failed", 25), ("ok", 25)]
