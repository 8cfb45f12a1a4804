"""Which record of a table names its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADER_SEARCH = 50
"""Records from the top among which the header is looked for."""


def header_named(records: Sequence[Sequence[str]], wanted: str) -> int | None:
    """Index of the first record near the top that has a cell `wanted`.

    Compared exactly first, then ignoring case.
    """
    top = [[cell.strip() for cell in record] for record in records[:HEADER_SEARCH]]
    for index, record in enumerate(top):
        if wanted in record:
            return index
    folded = wanted.casefold()
    for index, record in enumerate(top):
        if folded in (cell.casefold() for cell in record):
            return index
    return None


def likely_header(records: Sequence[Sequence[str]]) -> int:
    """Index of the header among records of one width: the first that is well filled.

    Spreadsheet programs pad the lines above a table to its width; such a line has few
    filled cells. A header may have an empty name or a name twice.
    """
    filled = [sum(1 for cell in record if cell.strip()) for record in records]
    fullest = max(filled)
    dense = [index for index, count in enumerate(filled) if count * 2 > fullest]
    # With two columns one filled cell is no evidence, unless most rows fill both.
    if fullest == 2 and len(dense) * 2 <= len(records):  # noqa: PLR2004 - two columns
        return next(index for index, count in enumerate(filled) if count)
    within = [index for index in dense if index < HEADER_SEARCH]
    return within[0] if within else 0


def is_data_below(record: Sequence[str], above: Sequence[str]) -> bool:
    """Whether a record holds numbers or dates while the one above it reads like names."""
    names = [cell.strip() for cell in above]
    if len(names) == 1 or not all(names) or len(set(names)) < len(names):
        return False
    return any(map(_is_number, record)) and not any(map(_is_number, names))


_NUMBER = re.compile(r"\s*[-+]?\d[\d\s.,:/-]*")


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None
