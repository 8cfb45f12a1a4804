"""Identities made from content: the same content gets the same name in every run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

REPORT_ID_DIGITS = 32


def canonical_cells(cells: Iterable[tuple[str, object]]) -> str:
    """One text for a row's cells, whatever the order of its columns.

    Cells that are None are left out, so that a column that only other rows have
    changes nothing. Two cells of one name keep their order.
    """
    present = sorted(
        ((name, cell) for name, cell in cells if cell is not None), key=lambda pair: pair[0]
    )
    return json.dumps(present, separators=(",", ":"), default=_typed_text)


def report_id(source_file: str, cells: Iterable[tuple[str, object]], occurrence: int) -> str:
    """The id of a report that brings none of its own: 32 hexadecimal digits.

    `occurrence` counts identical rows of the file from 1, so that inserting a row
    anywhere changes the id of no other row.
    """
    return report_id_of(source_file, canonical_cells(cells), occurrence)


def report_id_of(source_file: str, canonical: str, occurrence: int) -> str:
    """`report_id` for cells that `canonical_cells` has been given already."""
    content = f"[{json.dumps(source_file)},{canonical},{occurrence}]"
    return hashlib.sha256(content.encode()).hexdigest()[:REPORT_ID_DIGITS]


def _typed_text(cell: object) -> list[str]:
    """A value that JSON does not know, told apart from a string that reads the same."""
    text = cell.hex() if isinstance(cell, bytes) else str(cell)
    return [type(cell).__name__, text]
