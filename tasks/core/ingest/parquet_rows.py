"""Parquet as rows: types stay where every reader of the published tables knows them.

Dictionaries become their values, durations int64 with the unit in the column's name,
timestamps microseconds UTC, times ISO text, unsigned integers the next type that holds
them, and nested values JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from tasks.core.errors import SourceError
from tasks.core.ingest.cells import STRING, UNKNOWN, as_text, row_as_json
from tasks.core.ingest.columns import renaming_notes, stored_names
from tasks.core.ingest.encoding import is_whole, printable, reporting_source
from tasks.core.ingest.rows import BadRow, Reading, Reason, Row, SourceFile
from tasks.core.schema import INSTANT, STRINGS

_BATCH_ROWS = 2_000

Cells = list[object]
Predicate = Callable[[pa.DataType], bool]
Array: TypeAlias = "pa.Array[Any]"


@dataclass(frozen=True, slots=True)
class _Column:
    """How one column is stored."""

    name: str
    type: pa.DataType
    cells: Callable[[Array], Cells]
    note: str | None = None


def read_parquet(source: SourceFile) -> Reading:
    """Look at a Parquet file. Raises `SourceError` when it cannot be read."""
    with _reporting(source):
        schema = pq.read_schema(source.path)
    columns = [_column(field) for field in schema]
    names = tuple(field.name for field in schema)
    wanted = [column.name for column in columns]
    stored = stored_names(wanted)
    notes = (f"column {column.name!r}: {column.note}" for column in columns if column.note)
    return Reading(
        names=names,
        fields=tuple(
            pa.field(name, column.type) for name, column in zip(stored, columns, strict=True)
        ),
        rows=lambda: _rows(source, columns, stored),
        notes=(*notes, *renaming_notes(names, stored)),
    )


def _rows(
    source: SourceFile, columns: list[_Column], stored: tuple[str, ...]
) -> Iterator[Row | BadRow]:
    number = 0
    for batch in _batches(source):
        with _reporting(source):
            cells = [column.cells(batch.column(index)) for index, column in enumerate(columns)]
        for row in zip(*cells, strict=True):
            number += 1
            yield _row(number, row, stored)


def _row(number: int, cells: tuple[object, ...], stored: tuple[str, ...]) -> Row | BadRow:
    if all(is_whole(cell) for cell in cells if isinstance(cell, str)):
        return Row(number, cells, raw=None)
    raw = printable(row_as_json(stored, cells))
    return BadRow(number, Reason.UNDECODABLE, "a string that is no UTF-8", raw)


def _batches(source: SourceFile) -> Iterator[pa.RecordBatch]:
    with _reporting(source):
        file = pq.ParquetFile(source.path)
    with file:
        batches = file.iter_batches(batch_size=_BATCH_ROWS)
        while True:
            with _reporting(source):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


@contextmanager
def _reporting(source: SourceFile) -> Iterator[None]:
    try:
        with reporting_source(source.path):
            yield
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise SourceError(
            f"{source.path}: is no Parquet file that can be read: {error}; write it again or "
            "leave it out"
        ) from error


def _column(field: pa.Field[pa.DataType]) -> _Column:
    name, type_ = field.name, field.type
    if isinstance(type_, pa.DictionaryType):
        inner = _column(pa.field(name, type_.value_type))
        return _Column(
            inner.name, inner.type, partial(_decoded, type_.value_type, inner.cells), inner.note
        )
    if isinstance(type_, pa.DurationType):
        ending = f"_{type_.unit}"
        unit_name = name if name.endswith(ending) else f"{name}{ending}"
        return _Column(unit_name, pa.int64(), partial(_cast, pa.int64()))
    if isinstance(type_, pa.TimestampType):
        return _Column(name, INSTANT, _instants, _instant_note(type_))
    stored, cells = _stored_as(type_)
    return _Column(name, stored, cells)


def _stored_as(type_: pa.DataType) -> tuple[pa.DataType, Callable[[Array], Cells]]:
    if any(is_kept(type_) for is_kept in _KEPT):
        return type_, _as_is
    for predicates, stored, cells in _CHANGED:
        if any(is_it(type_) for is_it in predicates):
            return stored, cells
    return STRING, _texts


def _is_list_of_strings(type_: pa.DataType) -> bool:
    if isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        inner = type_.value_type
        return types.is_string(inner) or types.is_large_string(inner)
    return False


def _instant_note(type_: pa.TimestampType[Any, Any]) -> str | None:
    notes = []
    if type_.tz is None:
        notes.append("times without a time zone are taken as UTC")
    if type_.unit == "ns":
        notes.append("nanoseconds are cut to microseconds")
    return "; ".join(notes) or None


def _as_is(array: Array) -> Cells:
    return list(array.to_pylist())


def _texts(array: Array) -> Cells:
    return [None if cell is None else as_text(cell) for cell in array.to_pylist()]


def _strings(array: Array) -> Cells:
    try:
        return _as_is(array)
    except UnicodeDecodeError:
        # Other writers put strings that are no UTF-8; their rows are set aside.
        return [_lenient(cell) for cell in _cast(pa.large_binary(), array)]


def _lenient(cell: object) -> object:
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell


def _cast(type_: pa.DataType, array: Array) -> Cells:
    converted: Array = pc.cast(array, type_)
    return _as_is(converted)


def _decoded(value_type: pa.DataType, cells: Callable[[Array], Cells], array: Array) -> Cells:
    return cells(pc.cast(array, value_type))


def _instants(array: Array) -> Cells:
    return list(pc.cast(array, INSTANT, safe=False).to_pylist())


_KEPT: tuple[Predicate, ...] = (
    types.is_boolean,
    types.is_signed_integer,
    types.is_float32,
    types.is_float64,
    types.is_date32,
    types.is_decimal128,
)
_CHANGED: tuple[tuple[tuple[Predicate, ...], pa.DataType, Callable[[Array], Cells]], ...] = (
    ((types.is_string, types.is_large_string, types.is_string_view), STRING, _strings),
    ((types.is_null,), UNKNOWN, _as_is),
    ((types.is_date64,), pa.date32(), partial(_cast, pa.date32())),
    ((types.is_float16,), pa.float32(), partial(_cast, pa.float32())),
    ((types.is_uint64,), pa.decimal128(20, 0), partial(_cast, pa.decimal128(20, 0))),
    ((types.is_unsigned_integer,), pa.int64(), _as_is),
    ((types.is_binary, types.is_large_binary), pa.binary(), _as_is),
    ((types.is_binary_view, types.is_fixed_size_binary), pa.binary(), _as_is),
    ((_is_list_of_strings,), STRINGS, _as_is),
)
