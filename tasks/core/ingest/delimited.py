"""Delimited text (csv, tsv) as rows of strings: nothing is inferred, empty stays empty."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from tasks.core.ingest.cells import STRING
from tasks.core.ingest.columns import renaming_notes, stored_names
from tasks.core.ingest.csv_records import Record, csv_records
from tasks.core.ingest.dialect import Dialect, find_dialect
from tasks.core.ingest.encoding import detect_encoding, is_whole, opened_text, printable
from tasks.core.ingest.rows import BadRow, Reading, Reason, Row, SourceFile

_SAMPLE_LINES = 2_000
_SAMPLE_CHARS = 1 << 20


def read_delimited(source: SourceFile, wanted: str | None) -> Reading:
    """Look at a delimited file; `wanted` is a column that its header must have.

    Raises `SourceError` when the file cannot be read.
    """
    encoding = detect_encoding(source.path)
    lines, cut = _sample(source, encoding)
    preferred = "\t" if source.format == "tsv" else ","
    dialect = find_dialect(lines, cut=cut, wanted=wanted, preferred=preferred)
    if dialect is None:
        return Reading(
            names=(),
            fields=(),
            rows=lambda: _rows(source, encoding, Dialect(None, 0, 1, (), ())),
            encoding=encoding,
        )
    names = tuple(name.strip() for name in dialect.names)
    stored = stored_names(names)
    reading = Reading(
        names=names,
        fields=tuple(pa.field(name, STRING) for name in stored),
        rows=lambda: _rows(source, encoding, dialect),
        encoding=encoding,
        delimiter=dialect.delimiter,
        header_row=dialect.header_row,
        preamble=tuple(printable(line) for line in dialect.preamble),
        notes=renaming_notes(names, stored),
    )
    if not dialect.preamble:
        return reading
    return reading.with_notes(
        f"the header is on line {dialect.header_row}; the lines above it are no reports"
    )


def _sample(source: SourceFile, encoding: str) -> tuple[list[str], bool]:
    lines: list[str] = []
    chars = 0
    with opened_text(source.path, encoding) as file:
        for line in file:
            if len(lines) >= _SAMPLE_LINES or chars >= _SAMPLE_CHARS:
                return lines, True
            lines.append(line)
            chars += len(line)
    return lines, False


def _rows(source: SourceFile, encoding: str, dialect: Dialect) -> Iterator[Row | BadRow]:
    first = dialect.first_data_line
    with opened_text(source.path, encoding) as file:
        records = csv_records(islice(file, first - 1, None), dialect.delimiter, first)
        for number, record in enumerate(records, start=1):
            yield _row(number, record, len(dialect.names))


def _row(number: int, record: Record, width: int) -> Row | BadRow:
    if not is_whole(record.raw):
        detail = f"line {record.line}: bytes that are no text in the file's encoding"
        return BadRow(number, Reason.UNDECODABLE, detail, printable(record.raw))
    if record.problem is not None:
        return BadRow(number, record.problem, record.detail, record.raw)
    if len(record.cells) != width:
        detail = f"{width} cells expected, {len(record.cells)} found"
        return BadRow(number, Reason.WRONG_CELL_COUNT, detail, record.raw)
    return Row(number, tuple(record.cells), record.raw)
