"""What every reader of source files yields, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeAlias

import pyarrow as pa

Field: TypeAlias = "pa.Field[pa.DataType]"


class Reason(StrEnum):
    """Why a record of a source file is not a report."""

    NO_TEXT = "no_text"  # the text is missing, or only white space
    NO_ID = "no_id"  # the id column is empty in this row
    DUPLICATE_ID = "duplicate_id"  # an earlier row of this ingest has the same id
    WRONG_CELL_COUNT = "wrong_cell_count"  # more or fewer cells than the header
    BAD_QUOTING = "bad_quoting"  # a quoted cell that goes on after its closing quote
    UNCLOSED_QUOTE = "unclosed_quote"  # a quoted cell that never ends
    UNDECODABLE = "undecodable"  # bytes that are no text in the file's encoding
    NOT_JSON = "not_json"  # not a JSON value, or one nested too deep to read
    NOT_AN_OBJECT = "not_an_object"  # a JSON value that has no columns
    DUPLICATE_KEY = "duplicate_key"  # a JSON object that has one key twice


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read: where it is, the name it is known by, and its format."""

    path: Path
    name: str
    """Relative to the folder or glob that was given, with forward slashes."""
    format: str


@dataclass(frozen=True, slots=True)
class Row:
    """One data record whose cells stand in the order of the file's columns."""

    number: int
    """Data records of the file, from 1."""
    cells: tuple[object, ...]
    raw: str | None
    """The record as it stands in the file; None where only its cells have a text form."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """One data record that cannot be read as cells."""

    number: int
    reason: Reason
    detail: str
    raw: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A source file that was looked at, and a way to go through its rows.

    It holds no rows, so that many can be held at once; `rows` reads the file again
    each time it is called.
    """

    names: tuple[str, ...]
    """The columns' names as they stand in the file, stripped."""
    fields: tuple[Field, ...]
    """The columns as they can be stored; type null where no row has a value."""
    rows: Callable[[], Iterator[Row | BadRow]]
    encoding: str | None = None
    delimiter: str | None = None
    header_row: int | None = None
    """Line of the header in the file, from 1."""
    preamble: tuple[str, ...] = ()
    """Lines above the header, without their line ends."""
    text_index: int | None = None
    """The column with the text, where the format decides it."""
    notes: tuple[str, ...] = ()

    def with_notes(self, *notes: str) -> Self:
        """The same reading with something more to tell."""
        return replace(self, notes=(*self.notes, *notes))
