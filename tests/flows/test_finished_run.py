"""One run over two hosts, from a file as real ones come, and all it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.types as kinds
import pytest

from deployments.local_ollama import ServerProcess, Settings, local_servers
from tasks.core import schema
from tests.flows.harness import (
    MODEL,
    PREAMBLE,
    Ended,
    Reports,
    french_texts,
    hosts,
    write_csv,
)

TEXTS = [*french_texts(120), "12 345,6 / 7"]
BLANK = 'N-900;Évry;" "\r\n'
SHORT = "N-901;Évry\r\n"
SLOTS = (3, 2)
COLUMNS = {
    "translations": schema.TRANSLATIONS,
    "attempts": schema.ATTEMPTS,
    "reports": schema.REPORTS,
    "rejected": schema.REJECTED,
}


@dataclass(frozen=True)
class Finished:
    """A finished run and the counters of its hosts."""

    reports: Reports
    options: list[str]
    ended: Ended
    record: dict[str, Any]
    counters: dict[str, dict[str, Any]]
    servers: list[ServerProcess]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Finished]:
    """121 reports and two bad rows, in cp1252 below a preamble, through two hosts."""
    reports = Reports(tmp_path_factory.mktemp("finished"), prefect_api)
    source = write_csv(
        reports.folder / "été 2024.csv",
        TEXTS,
        encoding="cp1252",
        preamble=PREAMBLE,
        more=BLANK + SHORT,
    )
    settings = [Settings(slots=slots, decode_rate=400.0, load_seconds=0.0) for slots in SLOTS]
    with local_servers(settings) as servers:
        given = [f"{server.url}={server.settings.slots}" for server in servers]
        options = ["run", str(source), "--root", str(reports.root), "--text-column", "texte"]
        options += ["--dataset", "mesures", *hosts(*given), "--model", MODEL]
        ended = reports.alone(*options)
        assert ended.code == 0, ended.said
        counters = {server.url: server.stats() for server in servers}
        [record] = reports.runs()
        yield Finished(reports, options, ended, record, counters, servers)


def test_every_report_is_translated_exactly_once(finished: Finished) -> None:
    """Each report of the source is in `translations` once, with its text as it was."""
    rows = finished.reports.table("translations", "mesures")
    assert sorted(rows["source_text"]) == sorted(TEXTS)
    assert rows["report_id"].n_unique() == len(TEXTS)
    assert rows["translated_text"].null_count() == 0
    by_text = dict(rows.select("source_text", "status").iter_rows())
    assert by_text.pop("12 345,6 / 7") == "passed"
    assert set(by_text.values()) == {"ok"}
    number_of = dict(rows.select("source_text", "numero").iter_rows())
    assert number_of == {text: f"N-{number}" for number, text in enumerate(TEXTS)}


def test_translations_are_of_their_own_report(finished: Finished) -> None:
    """No answer is mixed up with another's: each holds its report's number, and English words."""
    rows = finished.reports.table("translations", "mesures").filter(pl.col("status") == "ok")
    for source, translated in rows.select("source_text", "translated_text").iter_rows():
        assert source[8:14] in translated
        assert translated != source


def test_bad_rows_are_set_aside_with_a_reason(finished: Finished) -> None:
    """A row without text and a row with too few cells are in `rejected`, as they stood."""
    rows = finished.reports.table("rejected", "mesures").sort("source_row")
    assert rows["reason"].to_list() == ["no_text", "wrong_cell_count"]
    assert rows["source_row"].to_list() == [122, 123]
    assert rows["raw"].to_list() == [BLANK.strip(), SHORT.strip()]
    assert "2 rejected" in finished.ended.out
    assert "1 no_text" in finished.ended.out


def test_how_the_file_was_read_is_recorded(finished: Finished) -> None:
    """`run.json` says which file was read, and in which encoding, delimiter and header row."""
    [source] = finished.record["sources"]
    assert source["source_file"] == "été 2024.csv"
    assert source["encoding"] == "cp1252"
    assert source["delimiter"] == ";"
    assert source["header_row"] == 4
    assert len(source["sha256"]) == 64


def test_run_record_has_every_field_and_its_sums_hold(finished: Finished) -> None:
    """The counts of `run.json` are those of the tables and add up; its times are times."""
    record = finished.record
    counts = ("translated", "flagged", "reused", "passed", "failed", "unchanged")
    assert record["rows_in"] == record["reports"] + record["rejected"] == 123
    assert record["reports"] == sum(record[name] for name in counts) == 121
    assert {name: record[name] for name in counts} == {
        "translated": 120, "flagged": 0, "reused": 0, "passed": 1, "failed": 0, "unchanged": 0,
    }  # fmt: skip
    assert record["state"] == "completed"
    assert record["dataset"] == "mesures"
    assert record["model"] == MODEL
    folder = finished.reports.root / "runs" / record["run_id"]
    assert json.loads((folder / "run.json").read_text()) == record
    started, ended = (datetime.fromisoformat(record[f"{at}_at"]) for at in ("started", "finished"))
    assert record["wall_seconds"] == pytest.approx((ended - started).total_seconds(), abs=0.01)
    assert 0 < record["wall_seconds"] < finished.ended.seconds


def test_host_figures_are_those_that_the_hosts_counted(finished: Finished) -> None:
    """Requests and tokens per host are what each server counted, and no slot was overdrawn."""
    assert set(finished.record["hosts"]) == set(finished.counters)
    for server in finished.servers:
        said, counted = finished.record["hosts"][server.url], finished.counters[server.url]
        assert said["requests"] == counted["received"] == counted["answered"] > 0
        assert said["output_tokens"] == counted["output_tokens"] > 0
        assert said["failures"] == 0
        assert 0 < said["busy_seconds"] < finished.record["wall_seconds"]
        # The server's own count: every slot was used, and never one more.
        assert counted["peak_in_flight"] == said["peak_in_flight"] == server.settings.slots


def test_every_request_is_an_attempt(finished: Finished) -> None:
    """`attempts` has a row for every request, all of them accepted, with the server's timing."""
    attempts = finished.reports.table("attempts", "mesures")
    assert attempts.height == sum(host["received"] for host in finished.counters.values())
    assert set(attempts["outcome"]) == {"accepted"}
    per_host = dict(attempts.group_by("host").len().iter_rows())
    assert per_host == {url: host["received"] for url, host in finished.counters.items()}
    times = attempts.select(pl.col("^.*_duration_ns$"), "server_wait_ns")
    parts = pl.sum_horizontal(
        "load_duration_ns", "prompt_eval_duration_ns", "eval_duration_ns", "server_wait_ns"
    )
    assert times.select((parts == pl.col("total_duration_ns")).all()).item()
    assert attempts.select((pl.col("request_wall_ns") >= pl.col("total_duration_ns")).all()).item()


def arrow_name(type_: pa.DataType) -> str:
    """An Arrow type by the name that all readers are compared with."""
    if kinds.is_string(type_) or kinds.is_large_string(type_):
        return "string"
    if kinds.is_list(type_) or kinds.is_large_list(type_):
        return f"list<{arrow_name(type_.value_type)}>"
    if kinds.is_timestamp(type_):
        return f"timestamp {type_.unit} {type_.tz}"
    return str(type_)


POLARS_NAMES = {
    pl.String(): "string",
    pl.Int32(): "int32",
    pl.Int64(): "int64",
    pl.List(pl.String): "list<string>",
    pl.Datetime("us", "UTC"): "timestamp us UTC",
}
DUCKDB_NAMES = {
    "VARCHAR": "string",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "VARCHAR[]": "list<string>",
    "TIMESTAMP WITH TIME ZONE": "timestamp us UTC",
}


def read_by_polars(glob: str) -> tuple[int, dict[str, str]]:
    """Rows and column types, by polars."""
    frame = pl.read_parquet(glob)
    return frame.height, {name: POLARS_NAMES[type_] for name, type_ in frame.schema.items()}


def read_by_duckdb(glob: str) -> tuple[int, dict[str, str]]:
    """Rows and column types, by DuckDB."""
    with duckdb.connect() as connection:
        described = connection.execute(
            "select column_name, column_type from (describe from read_parquet($1))", [glob]
        ).fetchall()
        counted = connection.execute("select count(*) from read_parquet($1)", [glob]).fetchone()
    assert counted is not None
    return counted[0], {name: DUCKDB_NAMES[type_] for name, type_ in described}


def read_by_pyarrow(glob: str) -> tuple[int, dict[str, str]]:
    """Rows and column types, by pyarrow."""
    table = ds.dataset(_files(glob), format="parquet").to_table()
    return table.num_rows, {field.name: arrow_name(field.type) for field in table.schema}


def read_by_pandas(glob: str) -> tuple[int, dict[str, str]]:
    """Rows and column types, by pandas."""
    frame = pd.concat(
        [pd.read_parquet(path, dtype_backend="pyarrow") for path in _files(glob)],
        ignore_index=True,
    )
    types = {str(name): arrow_name(type_.pyarrow_dtype) for name, type_ in frame.dtypes.items()}
    return len(frame), types


def _files(glob: str) -> list[str]:
    folder, _, pattern = glob.partition("/**/")
    return [str(path) for path in sorted(Path(folder).rglob(pattern))]


@pytest.mark.parametrize("table", COLUMNS)
def test_readers_agree(finished: Finished, table: str) -> None:
    """polars, DuckDB, pyarrow and pandas read each table by glob, with the same rows and types."""
    glob = f"{finished.reports.root}/{table}/mesures/**/*.parquet"
    rows, types = read_by_polars(glob)
    assert rows == {"translations": 121, "attempts": 120, "reports": 121, "rejected": 2}[table]
    declared = {column.name: arrow_name(column.type) for column in COLUMNS[table]}
    of_source = dict.fromkeys(("numero", "site", "texte"), "string")
    if table in {"attempts", "rejected"}:
        of_source = {}
    assert types == declared | of_source
    for read in (read_by_duckdb, read_by_pyarrow, read_by_pandas):
        assert read(glob) == (rows, types)


def test_plain_output_is_plain(finished: Finished) -> None:
    """Where there is no terminal, lines are written without any control sequence."""
    said = finished.ended.out + finished.ended.err
    assert not any(character < " " for character in said.replace("\n", ""))
    assert "121 to translate, 0 unchanged" in said
    assert "121/121 reports (100 %)" in said
    assert finished.record["run_id"] in said
    assert finished.ended.err == ""


def test_log_of_the_flow_run_says_what_the_command_said(finished: Finished) -> None:
    """The Prefect UI has the lines, too, that the command wrote to its user."""
    log = finished.reports.log(finished.record)
    assert "121 to translate, 0 unchanged" in log
    assert "121/121 reports (100 %)" in log


def test_same_command_again_sends_nothing(finished: Finished) -> None:
    """A second identical run finds everything unchanged and asks no host for a translation."""
    for server in finished.servers:
        server.reset_stats()
    before = finished.reports.table("translations", "mesures").sort("report_id")
    ended = finished.reports(*finished.options)
    assert ended.code == 0, ended.said
    assert "121 reports: 121 unchanged" in ended.out
    assert [server.stats()["received"] for server in finished.servers] == [0, 0]
    second = finished.reports.runs()[-1]
    assert second["run_id"] != finished.record["run_id"]
    assert (second["unchanged"], second["translated"], second["rows_in"]) == (121, 0, 123)
    assert finished.reports.table("translations", "mesures").sort("report_id").equals(before)
