"""The Parquet files of the `reports` and `rejected` tables: one part a source file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import StorageError
from tasks.core.ingest.cells import fit_into

TEXT_FILES = "text-files.parquet"
"""The part that all plain text files share: one part each would be millions of files."""

_ROW_GROUP_ROWS = 20_000
_ROW_GROUP_CHARS = 32 << 20
_SLUG_CHARS = 60


def part_name(source_file: str, format_: str) -> str:
    """File name of the part that holds the rows of a source file."""
    if format_ in ("txt", "md"):
        return TEXT_FILES
    # Readers leave out files whose name starts with "." or "_".
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", source_file)[:_SLUG_CHARS].strip("-._")
    digest = sha256(source_file.encode()).hexdigest()[:8]
    return f"{slug}-{digest}.parquet" if slug else f"{digest}.parquet"


class PartWriter:
    """Rows into one Parquet file, in row groups of bounded size."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._rows: list[Mapping[str, object]] = []
        self._chars = 0

    def add(self, row: Mapping[str, object], chars: int) -> None:
        """Add a row by column name; `chars` is about how much text it holds."""
        self._rows.append(row)
        self._chars += chars
        if len(self._rows) >= _ROW_GROUP_ROWS or self._chars >= _ROW_GROUP_CHARS:
            self.flush()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows that have the part's schema already."""
        self.flush()
        if batch.num_rows:
            self._writer.write_batch(batch)

    def flush(self) -> None:
        """Write out the rows held so far."""
        if self._rows:
            columns = [
                pa.array([row[field.name] for row in self._rows], field.type)
                for field in self._schema
            ]
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
            self._rows = []
            self._chars = 0


@contextmanager
def part_writer(path: Path, schema: pa.Schema) -> Iterator[PartWriter]:
    """A writer of one part; a part without rows still carries its columns and types."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        part = PartWriter(writer, schema)
        yield part
        part.flush()


def kept_rows(
    path: Path,
    schema: pa.Schema,
    *,
    without_files: frozenset[str] = frozenset(),
    without_ids: frozenset[str] = frozenset(),
) -> Iterator[pa.RecordBatch]:
    """Rows of a part that was written before, brought to the schema as it is now.

    Rows of `without_files` and, in reports, of `without_ids` are left out; a column the
    part does not have yet is null. Raises `StorageError` when the part cannot be read.
    """
    for batch in _batches(path):
        kept = batch
        for column, gone in (("source_file", without_files), ("report_id", without_ids)):
            if gone and column in kept.schema.names:
                values = pa.array(sorted(gone), pa.string())
                kept = kept.filter(pc.invert(pc.is_in(kept.column(column), value_set=values)))
        yield _as_schema(kept, schema)


def holds_any_id(path: Path, ids: frozenset[str]) -> bool:
    """Whether a reports part has a row with one of these ids."""
    return any(
        report_id in ids
        for batch in _batches(path, ["report_id"])
        for report_id in batch.column(0).to_pylist()
    )


def _batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_ROW_GROUP_ROWS, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{path}: cannot be read: {error}; delete it and ingest its source file again"
        ) from error


def _as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        if column.type != field.type:
            fit = fit_into(column.type, field.type) or (lambda value: value)
            column = pa.array([fit(value) for value in column.to_pylist()], field.type)
        columns.append(column)
    return pa.record_batch(columns, schema=schema)
