"""The first sheet of an Excel workbook that holds anything, as rows of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time
from functools import partial
from itertools import islice

import pyarrow as pa
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum

from tasks.core.errors import SourceError
from tasks.core.ingest.cells import STRING
from tasks.core.ingest.columns import renaming_notes, stored_names
from tasks.core.ingest.encoding import reporting_source
from tasks.core.ingest.headers import HEADER_SEARCH, header_named, likely_header
from tasks.core.ingest.rows import Reading, Row, SourceFile

# Excel keeps 15 significant digits; larger whole numbers are shown as they are stored.
_WHOLE_BELOW = 1e15


@dataclass(frozen=True, slots=True)
class _Table:
    sheet: str
    header_row: int
    names: tuple[str, ...]
    preamble: tuple[str, ...]


def read_excel(source: SourceFile, wanted: str | None) -> Reading:
    """Look at a workbook; `wanted` is a column that its header must have.

    Raises `SourceError` when the file is no workbook, or protected by a password.
    """
    with _workbook(source) as workbook:
        sheet, others = _first_sheet(workbook)
        notes = (f"sheets left out: {', '.join(others)}",) if others else ()
        table = None if sheet is None else _table(sheet, wanted)
    if table is None:
        return Reading(names=(), fields=(), rows=partial(iter, ()), notes=notes)
    stored = stored_names(table.names)
    if table.preamble:
        notes = (*notes, f"the header is in row {table.header_row}; the rows above are no reports")
    return Reading(
        names=table.names,
        fields=tuple(pa.field(name, STRING) for name in stored),
        rows=lambda: _rows(source, table),
        header_row=table.header_row,
        preamble=table.preamble,
        notes=(*notes, *renaming_notes(table.names, stored)),
    )


@contextmanager
def _workbook(source: SourceFile) -> Iterator[CalamineWorkbook]:
    try:
        with reporting_source(source.path), CalamineWorkbook.from_path(source.path) as workbook:
            yield workbook
    except CalamineError as error:
        raise SourceError(
            f"{source.path}: is no Excel workbook that can be read: {error}; save it again as "
            ".xlsx, without a password"
        ) from error


def _first_sheet(workbook: CalamineWorkbook) -> tuple[CalamineSheet | None, list[str]]:
    first = None
    others = []
    for metadata in workbook.sheets_metadata:
        if metadata.typ != SheetTypeEnum.WorkSheet:
            continue
        sheet = workbook.get_sheet_by_name(metadata.name)
        if first is None and any(any(row) for row in _texts(sheet)):
            first = sheet
        elif sheet.start is not None:
            others.append(metadata.name)
    return first, others


def _table(sheet: CalamineSheet, wanted: str | None) -> _Table:
    texts = list(_texts(sheet))
    filled = [(number, row) for number, row in enumerate(texts, start=1) if any(row)]
    records = [row[: _width(row)] for _, row in filled]
    index = header_named(records, wanted) if wanted else None
    if index is None:
        index = _header_index(records)
    header_row = filled[index][0]
    width = max(len(row) for row in records[index:])
    names = [*records[index], *[""] * (width - len(records[index]))]
    return _Table(
        sheet=sheet.name,
        header_row=header_row,
        names=tuple(name.strip() for name in names),
        preamble=tuple("\t".join(row[: _width(row)]) for row in texts[: header_row - 1]),
    )


def _header_index(records: list[list[str]]) -> int:
    widths = Counter(len(record) for record in records)
    usual = max(widths, key=lambda width: (widths[width], width))
    # Rows may leave their last cells empty, the header seldom does.
    wide = [index for index, record in enumerate(records) if len(record) >= usual]
    top = [records[index] for index in wide[:HEADER_SEARCH]]
    return wide[likely_header(top)]


def _rows(source: SourceFile, table: _Table) -> Iterator[Row]:
    width = len(table.names)
    with _workbook(source) as workbook:
        below = islice(_texts(workbook.get_sheet_by_name(table.sheet)), table.header_row, None)
        filled = (row for row in below if any(row))
        for number, row in enumerate(filled, start=1):
            cells = (*row[:width], *[""] * (width - len(row)))
            yield Row(number, cells, raw=None)


def _texts(sheet: CalamineSheet) -> Iterator[list[str]]:
    for row in sheet.iter_rows():
        yield [_text(cell) for cell in row]


def _width(row: list[str]) -> int:
    return max((index for index, cell in enumerate(row, start=1) if cell), default=0)


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _WHOLE_BELOW:
        return str(int(cell))
    if isinstance(cell, date | time):
        return cell.isoformat()
    return str(cell)
