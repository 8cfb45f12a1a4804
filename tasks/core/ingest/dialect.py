"""How a delimited file is laid out: its delimiter, its header, what stands above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.core.ingest.csv_records import Record, csv_records
from tasks.core.ingest.headers import HEADER_SEARCH, header_named, is_data_below, likely_header

USUAL_DELIMITERS = (",", ";", "\t", "|")
# Taken only where every record supports them: they are common inside texts.
_RARE_DELIMITERS = (":", "^")

# Share of the records from the header on that must have the header's width.
_LEAST_SHARE = 0.5
_LEAST_SHARE_WITHOUT_PREAMBLE = 0.3
# A table that starts on the first line is preferred to one found further down.
_PREAMBLE_HANDICAP = 0.2
_LEAST_RECORDS_BELOW_PREAMBLE = 2
_LEAST_RECORDS_OF_RARE = 3


@dataclass(frozen=True, slots=True)
class Dialect:
    """The layout of a delimited file; lines are counted from 1."""

    delimiter: str | None
    """None for a file of one column."""
    header_row: int
    first_data_line: int
    names: tuple[str, ...]
    preamble: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    delimiter: str | None
    header: Record
    above: int
    width: int
    share: float
    """Of the records from the header on, those with this width."""

    @property
    def score(self) -> tuple[float, int]:
        handicap = _PREAMBLE_HANDICAP if self.above else 0.0
        return (self.share - handicap, self.width)


def find_dialect(
    lines: Sequence[str], *, cut: bool, wanted: str | None, preferred: str = ","
) -> Dialect | None:
    """The layout that the first lines of a file support best.

    `cut` says that the file goes on after these lines, `wanted` is a column that is
    known to exist, `preferred` the delimiter that the file's extension suggests. None
    when no line holds a record.
    """
    delimiters = sorted(USUAL_DELIMITERS, key=lambda delimiter: delimiter != preferred)
    samples = {
        delimiter: _sample(lines, delimiter, cut=cut)
        for delimiter in (*delimiters, *_RARE_DELIMITERS)
    }
    samples_of_one = {None: _sample(lines, None, cut=cut)}
    layout = (
        (_best(_named(samples, wanted)) if wanted else None)
        or (_best(_named(samples_of_one, wanted)) if wanted else None)
        or _best(_found(samples, delimiters))
        or _best(_rare(samples))
        or _single(samples_of_one[None])
    )
    if layout is None:
        return None
    header = layout.header
    return Dialect(
        delimiter=layout.delimiter,
        header_row=header.line,
        first_data_line=header.line + header.line_count,
        names=tuple(header.cells),
        preamble=tuple(line.rstrip("\r\n") for line in lines[: header.line - 1]),
    )


def _sample(lines: Sequence[str], delimiter: str | None, *, cut: bool) -> list[Record]:
    records = []
    for record in csv_records(lines, delimiter):
        if record.problem is None:
            records.append(record)
        elif cut and record.line > len(lines) // 2:
            # Most likely a cell that the end of the sample cut in two.
            break
    return records


def _best(layouts: Sequence[_Layout]) -> _Layout | None:
    return max(layouts, key=lambda layout: layout.score, default=None)


def _named(
    samples: dict[str, list[Record]] | dict[None, list[Record]], wanted: str
) -> list[_Layout]:
    layouts = []
    for delimiter, records in samples.items():
        index = header_named([record.cells for record in records], wanted)
        if index is not None and (len(records[index].cells) > 1 or delimiter is None):
            layouts.append(_layout(delimiter, records, index))
    return layouts


def _found(samples: dict[str, list[Record]], delimiters: Sequence[str]) -> list[_Layout]:
    layouts = []
    for delimiter in delimiters:
        records = samples[delimiter]
        for width in {len(record.cells) for record in records[:HEADER_SEARCH]} - {1}:
            layout = _layout_of_width(delimiter, records, width)
            if layout is not None and _is_supported(layout, records):
                layouts.append(layout)
    return layouts


def _layout_of_width(delimiter: str, records: list[Record], width: int) -> _Layout | None:
    indexes = [index for index, record in enumerate(records) if len(record.cells) == width]
    if not any(cell.strip() for index in indexes for cell in records[index].cells):
        return None
    header = indexes[likely_header([records[index].cells for index in indexes])]
    layout = _layout(delimiter, records, header)
    if header and is_data_below(records[header].cells, records[header - 1].cells):
        # A header of another width than its rows: better all of them are set aside in
        # plain sight than the first of them taken for the header.
        return replace(layout, header=records[header - 1], above=header - 1)
    return layout


def _layout(delimiter: str | None, records: list[Record], index: int) -> _Layout:
    below = records[index:]
    width = len(records[index].cells)
    same = sum(1 for record in below if len(record.cells) == width)
    return _Layout(delimiter, records[index], index, width, share=same / len(below))


def _is_supported(layout: _Layout, records: list[Record]) -> bool:
    if not layout.above:
        return layout.share >= _LEAST_SHARE_WITHOUT_PREAMBLE
    table = [record.cells for record in records[layout.above :]]
    same = [cells for cells in table if len(cells) == layout.width]
    if len(same) < _LEAST_RECORDS_BELOW_PREAMBLE or layout.share < _LEAST_SHARE:
        return False
    # "Feu, fumée." below a line without commas is prose, not a table of two columns.
    return not all(cell.startswith(" ") for cells in same for cell in cells[1:])


def _rare(samples: dict[str, list[Record]]) -> list[_Layout]:
    layouts = []
    for delimiter in _RARE_DELIMITERS:
        records = samples[delimiter]
        widths = Counter(len(record.cells) for record in records)
        if len(widths) == 1 and 1 not in widths and len(records) >= _LEAST_RECORDS_OF_RARE:
            prose = all(cell.startswith(" ") for record in records for cell in record.cells[1:])
            if not prose:
                layouts.append(_layout(delimiter, records, 0))
    return layouts


def _single(records: list[Record]) -> _Layout | None:
    return _layout(None, records, 0) if records else None
