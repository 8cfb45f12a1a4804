"""Builds the published tables from a run's plan and journal.

Each report's row belongs to exactly one file of `translations`, by a hash of its id,
and files are replaced whole: at every moment a reader sees each report at most once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core import schema
from tasks.core.errors import StorageError
from tasks.core.records import Attempt, Measures, ReportOutcome, Status
from tasks.core.storage.store import Store

PARTS = 16
"""Files of a dataset's translations in one language. Never changed: a row's file must
not depend on when it was written."""

ROW_GROUP_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class RunColumns:
    """The values that are the same in every row a run writes."""

    dataset: str
    run_id: str
    flow_run_id: str | None
    model: str
    model_digest: str | None
    profile: str
    prompt_sha256: str
    options_sha256: str
    glossary_sha256: str | None
    target_lang: str


def translations_folder(dataset: str, target_lang: str) -> str:
    """The folder of a dataset's translations into one language."""
    return f"translations/{dataset}/{target_lang}"


def part_of(report_id: str) -> int:
    """The number of the file that a report's row belongs to."""
    return hashlib.sha256(report_id.encode()).digest()[0] % PARTS


def publish_translations(
    store: Store,
    run: RunColumns,
    plan: pa.Table,
    outcomes: dict[str, ReportOutcome],
) -> int:
    """Put the row of every outcome into `translations`; returns how many rows.

    The rows get the source columns that the dataset has now, which can be more than
    it had when the run was planned; files written before that are brought up to date.
    A failed report does not replace the translation of the very same text that an
    earlier run left: the row stays until a newer translation succeeds. Nor does a row
    replace that of a run that began later, which a run can leave that died long ago.
    """
    source_fields = schema.source_fields(_schema_of(store, f"reports/{run.dataset}"))
    table_schema = schema.arrow_schema(schema.TRANSLATIONS, source_fields)
    plan = _in_schema(plan, schema.arrow_schema(schema.PLAN, source_fields))
    ids = strings(plan["report_id"])
    taken = [row for row, report_id in enumerate(ids) if report_id in outcomes]
    rows = _translation_rows(
        plan.take(pa.array(taken, type=schema.INT64)),
        [outcomes[ids[row]] for row in taken],
        run,
        table_schema,
    )
    parts = [part_of(report_id) for report_id in strings(rows["report_id"])]
    folder = translations_folder(run.dataset, run.target_lang)
    with store.locked(f"publish-{run.dataset}"):
        for part in range(PARTS):
            new = rows.filter(pa.array([other == part for other in parts], pa.bool_()))
            _replace_part(store, f"{folder}/part-{part:02}.parquet", new, table_schema)
    return rows.num_rows


def publish_attempts(store: Store, run: RunColumns, attempts: Sequence[Attempt]) -> None:
    """Put a run's requests into `attempts`, a file a run; nothing without requests."""
    if attempts:
        rows = _attempt_rows(attempts, run)
        _write(store, f"attempts/{run.dataset}/{run.run_id}.parquet", rows)


def read_table(store: Store, folder: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a folder's Parquet files; no rows when there are no files."""
    keys = [key for key in store.list(folder) if key.endswith(".parquet")]
    if not keys:
        every = {column.name: column for column in (*schema.REPORTS, *schema.TRANSLATIONS)}
        names = columns or [column.name for column in schema.REPORTS]
        return pa.schema([(name, every[name].type) for name in names]).empty_table()
    tables = [read_parquet(store, key, columns) for key in keys]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise StorageError(
            f"the files below {store.path(folder)} have different columns ({error}); an ingest "
            "was cut off: give it again"
        ) from error


def strings(column: pa.ChunkedArray[Any]) -> list[str]:
    """The values of a string column that has no nulls."""
    values: list[Any] = column.to_pylist()
    return values


def _replace_part(store: Store, key: str, new: pa.Table, table_schema: pa.Schema) -> None:
    """One file with the new rows in it, written in the dataset's present columns."""
    old = read_parquet(store, key) if store.exists(key) else None
    if old is None and not new.num_rows:
        return
    if old is not None:
        old = _in_schema(old, table_schema)
        if not new.num_rows and old.schema.equals(_read_schema(store, key)):
            return
        new = _worth_putting(new, old)
        replaced = pc.is_in(old["report_id"], value_set=new["report_id"].combine_chunks())
        new = pa.concat_tables([old.filter(pc.invert(replaced)), new])
    _write(store, key, new.sort_by([("source_file", "ascending"), ("source_row", "ascending")]))


@dataclass(frozen=True, slots=True)
class _Row:
    """What decides whether one row takes the place of another."""

    text: str
    status: str
    run_id: str

    def gives_way_to(self, new: _Row) -> bool:
        if new.status == Status.FAILED:
            keeps = self.status != Status.FAILED and self.text == new.text
            return not keeps and self.run_id <= new.run_id
        return self.status == Status.FAILED or self.run_id <= new.run_id


def _worth_putting(new: pa.Table, old: pa.Table) -> pa.Table:
    """The new rows that have no better row in their place."""
    rows = _rows_by_id(old)
    keep = [
        report_id not in rows or rows[report_id].gives_way_to(row)
        for report_id, row in _rows_by_id(new).items()
    ]
    return new.filter(pa.array(keep, pa.bool_()))


def _rows_by_id(table: pa.Table) -> dict[str, _Row]:
    names = ("source_text", "status", "run_id")
    values = zip(*(strings(table[name]) for name in names), strict=True)
    return dict(zip(strings(table["report_id"]), itertools.starmap(_Row, values), strict=True))


def _in_schema(table: pa.Table, table_schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns; those it lacks are null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in table_schema
    ]
    return pa.table(columns, schema=table_schema)


def _translation_rows(
    plan: pa.Table, outcomes: Sequence[ReportOutcome], run: RunColumns, table_schema: pa.Schema
) -> pa.Table:
    count = len(outcomes)
    values: dict[str, list[object] | pa.ChunkedArray[Any]] = {
        name: plan[name] for name in plan.column_names if name in table_schema.names
    }
    values |= {name: [value] * count for name, value in _run_values(run).items()}
    values |= _measure_values([outcome.measures for outcome in outcomes])
    for name in (
        "translated_text", "segment_count", "attempts", "done_reason", "error_kind", "error",
        "host", "ollama_version", "started_at", "finished_at",
    ):  # fmt: skip
        values[name] = [getattr(outcome, name) for outcome in outcomes]
    values["status"] = [str(outcome.status) for outcome in outcomes]
    values["flags"] = [list(outcome.flags) for outcome in outcomes]
    values["source_chars"] = [len(text) for text in strings(plan["source_text"])]
    values["output_chars"] = [
        None if outcome.translated_text is None else len(outcome.translated_text)
        for outcome in outcomes
    ]
    for name in ("detected_lang", "deleted_at"):
        values[name] = [None] * count
    return _table(values, table_schema)


def _attempt_rows(attempts: Sequence[Attempt], run: RunColumns) -> pa.Table:
    values: dict[str, list[object] | pa.ChunkedArray[Any]] = {
        name: [value] * len(attempts) for name, value in _run_values(run).items()
    }
    values |= _measure_values([attempt.measures for attempt in attempts])
    for name in (
        "report_id", "segment", "attempt", "purpose", "outcome", "done_reason", "error_kind",
        "error", "host", "ollama_version", "reuse_key", "source_chars", "started_at",
        "finished_at",
    ):  # fmt: skip
        values[name] = [getattr(attempt, name) for attempt in attempts]
    values["output_chars"] = [
        None if attempt.text is None else len(attempt.text) for attempt in attempts
    ]
    return _table(values, schema.arrow_schema(schema.ATTEMPTS))


def _run_values(run: RunColumns) -> dict[str, object]:
    return {
        "dataset": run.dataset,
        "run_id": run.run_id,
        "flow_run_id": run.flow_run_id,
        "model": run.model,
        "model_digest": run.model_digest,
        "profile": run.profile,
        "prompt_sha256": run.prompt_sha256,
        "options_sha256": run.options_sha256,
        "glossary_sha256": run.glossary_sha256,
        "target_lang": run.target_lang,
        "schema_version": schema.SCHEMA_VERSION,
    }


def _measure_values(measures: Sequence[Measures]) -> dict[str, list[object]]:
    names = [
        column.name for column in (*schema.USAGE, *schema.TIMING) if hasattr(Measures, column.name)
    ]
    return {name: [getattr(one, name) for one in measures] for name in names}


def _table(
    values: dict[str, list[object] | pa.ChunkedArray[Any]], table_schema: pa.Schema
) -> pa.Table:
    columns = []
    for field in table_schema:
        column = values[field.name]
        if isinstance(column, list):
            columns.append(pa.array(column, field.type))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, schema=table_schema)


def read_parquet(store: Store, key: str, columns: list[str] | None = None) -> pa.Table:
    """One file's rows. Raises `StorageError` when it cannot be read."""
    with _readable(store, key) as path:
        return pq.read_table(path, columns=columns, partitioning=None)


def read_row_group(store: Store, key: str, index: int, columns: list[str]) -> pa.Table:
    """One row group of a file. Raises `StorageError` when it cannot be read."""
    with _readable(store, key) as path, pq.ParquetFile(path) as file:
        return file.read_row_group(index, columns=columns)


def _read_schema(store: Store, key: str) -> pa.Schema:
    with _readable(store, key) as path:
        return pq.read_schema(path)


def _schema_of(store: Store, folder: str) -> pa.Schema:
    """The columns that the files of a folder have between them."""
    keys = [key for key in store.list(folder) if key.endswith(".parquet")]
    return pa.unify_schemas(
        [_read_schema(store, key) for key in keys], promote_options="permissive"
    )


@contextmanager
def _readable(store: Store, key: str) -> Iterator[Path]:
    path = store.path(key)
    try:
        yield path
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {error}; if the file is damaged, take it away and give the "
            "command again"
        ) from error


def _write(store: Store, key: str, table: pa.Table) -> None:
    with store.staged(key) as path:
        pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
