"""Rows of a source file to reports and rejected records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from tasks.core.identity import canonical_cells, report_id_of
from tasks.core.ingest.cells import as_text, row_as_json
from tasks.core.ingest.encoding import printable
from tasks.core.ingest.rows import BadRow, Reason, Row


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of one source file are for."""

    source_file: str
    names: tuple[str, ...]
    """The columns as the file calls them: ids are made with these."""
    stored: tuple[str, ...]
    text: int | None
    """Index of the text column; None only where no row has a text."""
    id: int | None
    """Index of the id column; None where ids are made from the rows."""


@dataclass(frozen=True, slots=True)
class Report:
    """One row that becomes a report."""

    number: int
    report_id: str
    text: str
    cells: tuple[object, ...]


def sift(
    rows: Iterable[Row | BadRow], roles: Roles, seen: dict[str, str]
) -> Iterator[Report | BadRow]:
    """Every row of a file as a report or as a rejected record, in their order.

    `seen` holds the ids of this ingest and where they stand; it is added to. The first
    row with an id keeps it. Ids made from rows count identical rows of the file.
    """
    alike: Counter[bytes] = Counter()
    for row in rows:
        yield row if isinstance(row, BadRow) else _sifted(row, roles, seen, alike)


def _sifted(row: Row, roles: Roles, seen: dict[str, str], alike: Counter[bytes]) -> Report | BadRow:
    text = None if roles.text is None else row.cells[roles.text]
    if text is None or not as_text(text).strip():
        return _rejected(row, roles, Reason.NO_TEXT, "the text is missing or only white space")
    if roles.id is None:
        made = _made_id(row, roles, alike)
        return Report(row.number, made, as_text(text), row.cells)
    given = row.cells[roles.id]
    known_as = "" if given is None else as_text(given)
    if not known_as.strip():
        return _rejected(row, roles, Reason.NO_ID, f"no value in {roles.names[roles.id]!r}")
    place = f"{roles.source_file}, row {row.number}"
    first = seen.setdefault(known_as, place)
    if first != place:
        detail = f"id {known_as!r} is already that of {first}"
        return _rejected(row, roles, Reason.DUPLICATE_ID, detail)
    return Report(row.number, known_as, as_text(text), row.cells)


def _made_id(row: Row, roles: Roles, alike: Counter[bytes]) -> str:
    canonical = canonical_cells(zip(roles.names, row.cells, strict=True))
    content = sha256(canonical.encode()).digest()
    alike[content] += 1
    return report_id_of(roles.source_file, canonical, alike[content])


def _rejected(row: Row, roles: Roles, reason: Reason, detail: str) -> BadRow:
    raw = row_as_json(roles.stored, row.cells) if row.raw is None else row.raw
    return BadRow(row.number, reason, detail, printable(raw))
