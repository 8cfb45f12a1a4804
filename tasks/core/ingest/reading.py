"""Looking at source files before a row of them is stored."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from tasks.core.errors import ConfigurationError, SourceError
from tasks.core.ingest.cells import STRING, UNKNOWN, type_name
from tasks.core.ingest.columns import find_column, required_column
from tasks.core.ingest.delimited import read_delimited
from tasks.core.ingest.encoding import encoding_note, reporting_source
from tasks.core.ingest.excel import read_excel
from tasks.core.ingest.json_records import read_json
from tasks.core.ingest.parquet_rows import read_parquet
from tasks.core.ingest.plain_text import read_plain_text
from tasks.core.ingest.rows import Reading, Row, SourceFile


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """By which a file is known to be the same as before."""

    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, source: SourceFile) -> Self:
        """Of the file as it is now. Raises `SourceError` when it cannot be read."""
        with reporting_source(source.path), source.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(digest, file.tell())


@dataclass(frozen=True, slots=True)
class Looked:
    """A source file with what was found out about it."""

    source: SourceFile
    fingerprint: Fingerprint
    reading: Reading


def look_at(source: SourceFile, text_column: str | None) -> Looked:
    """Open a source file by its format; no row is kept.

    Raises `SourceError` when it cannot be read.
    """
    fingerprint = Fingerprint.of(source)
    reading = _reading(source, text_column)
    note = encoding_note(source.path, reading.encoding)
    return Looked(source, fingerprint, reading.with_notes(note) if note else reading)


def check_unchanged(looked: Looked) -> None:
    """Raise `SourceError` when the file is not the one that was looked at."""
    if Fingerprint.of(looked.source) != looked.fingerprint:
        raise SourceError(
            f"{looked.source.path}: changed while it was being read; nothing was stored, run the "
            "ingest again"
        )


def text_columns(
    files: Sequence[Looked], wanted: str | None, remembered: str | None
) -> dict[str, int | None]:
    """Index of the text column of every file, by the file's name.

    The column the user names; else the one the dataset has had so far; else, of the
    text columns of a file, the one with the longest texts on average over all these
    files. None where no row shows which it is: the file then has no row with a text.
    Raises `ConfigurationError` when a file has no such column.
    """
    chosen: dict[str, int | None] = {}
    open_choice = []
    for looked in files:
        found = _decided_text_column(looked, wanted, remembered)
        chosen[looked.source.name] = found
        if found is None and looked.reading.fields:
            open_choice.append(looked)
    lengths = _mean_lengths(open_choice)
    for looked in open_choice:
        chosen[looked.source.name] = _longest(looked, lengths)
    return chosen


def id_columns(files: Sequence[Looked], wanted: str | None) -> dict[str, int | None]:
    """Index of the id column of every file, by the file's name; None where ids are made.

    Plain text files need not have it. Raises `ConfigurationError` when another has not.
    """
    chosen: dict[str, int | None] = {}
    for looked in files:
        name, reading = looked.source.name, looked.reading
        stored = [field.name for field in reading.fields]
        if wanted is None or not stored:
            chosen[name] = None
        elif reading.text_index is not None:
            chosen[name] = find_column(wanted, reading.names, stored)
        else:
            chosen[name] = required_column(wanted, "id", name, reading.names, stored)
    return chosen


def _reading(source: SourceFile, text_column: str | None) -> Reading:
    if source.format in ("csv", "tsv"):
        return read_delimited(source, text_column)
    if source.format in ("json", "jsonl"):
        return read_json(source)
    if source.format == "parquet":
        return read_parquet(source)
    if source.format == "xlsx":
        return read_excel(source, text_column)
    return read_plain_text(source, text_column)


def _decided_text_column(looked: Looked, wanted: str | None, remembered: str | None) -> int | None:
    reading = looked.reading
    stored = [field.name for field in reading.fields]
    if reading.text_index is not None or not stored:
        return reading.text_index
    if wanted is not None:
        index = required_column(wanted, "text", looked.source.name, reading.names, stored)
        _check_is_text(looked, index)
        return index
    if remembered is not None:
        known = find_column(remembered, stored, stored)
        return known if known is not None and _may_be_text(reading.fields[known].type) else None
    return None


def _check_is_text(looked: Looked, index: int) -> None:
    field = looked.reading.fields[index]
    if pa.types.is_binary(field.type) or pa.types.is_list(field.type):
        raise ConfigurationError(
            f"{looked.source.name}: the text column {field.name!r} is {type_name(field.type)}; "
            "name a column of text with --text-column"
        )


def _may_be_text(type_: pa.DataType) -> bool:
    return type_ in (STRING, UNKNOWN)


def _mean_lengths(files: Sequence[Looked]) -> dict[str, float]:
    """Mean length in characters of every text column, by its name ignoring case."""
    chars: defaultdict[str, int] = defaultdict(int)
    rows: defaultdict[str, int] = defaultdict(int)
    for looked in files:
        names = [field.name.casefold() for field in looked.reading.fields]
        for row in looked.reading.rows():
            if isinstance(row, Row):
                for name, cell in zip(names, row.cells, strict=True):
                    chars[name] += len(cell) if isinstance(cell, str) else 0
                    rows[name] += 1
    return {name: chars[name] / rows[name] for name in rows}


def _longest(looked: Looked, lengths: Mapping[str, float]) -> int | None:
    candidates = [
        index for index, field in enumerate(looked.reading.fields) if _may_be_text(field.type)
    ]
    if not candidates:
        columns = ", ".join(
            f"{field.name} ({type_name(field.type)})" for field in looked.reading.fields
        )
        raise ConfigurationError(
            f"{looked.source.name}: no column holds text; its columns are: {columns}; name the one "
            "to translate with --text-column"
        )
    mean = {
        index: lengths.get(looked.reading.fields[index].name.casefold(), 0.0)
        for index in candidates
    }
    longest = max(candidates, key=lambda index: mean[index])
    return longest if mean[longest] else None
