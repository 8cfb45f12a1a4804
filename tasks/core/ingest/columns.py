"""Names of columns: as stored, and found by what the user calls them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from tasks.core.errors import ConfigurationError
from tasks.core.ingest.encoding import printable
from tasks.core.schema import RESERVED_NAMES

_RESERVED = frozenset(name.casefold() for name in RESERVED_NAMES)


def stored_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names columns are stored under: distinct ignoring case, and none of ours.

    Names are stripped; an empty one becomes `column_N` (N from 1), one that an earlier
    column has becomes `NAME_2` and so on, and one of ours becomes `source_NAME`.
    """
    stripped = [printable(name.strip()) for name in names]
    # A made-up name never takes one that another column has by itself.
    theirs = {name.casefold() for name in stripped}
    taken: set[str] = set()
    stored = []
    for number, name in enumerate(stripped, start=1):
        chosen = _free_name(name, number, theirs, taken)
        taken.add(chosen.casefold())
        stored.append(chosen)
    return tuple(stored)


def renaming_notes(names: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """What to tell about columns that are stored under another name."""
    return tuple(
        f"column {number} ({name.strip()!r}) is stored as {new!r}"
        for number, (name, new) in enumerate(zip(names, stored, strict=True), start=1)
        if printable(name.strip()) != new
    )


def find_column(wanted: str, names: Sequence[str], stored: Sequence[str]) -> int | None:
    """Index of the column the user means.

    Names as in the file come first, then as stored; exactly, then ignoring case where
    that leaves one column.
    """
    for candidates in (names, stored):
        if wanted in candidates:
            return candidates.index(wanted)
    folded = wanted.casefold()
    matches = {
        index
        for candidates in (names, stored)
        for index, name in enumerate(candidates)
        if name.casefold() == folded
    }
    return matches.pop() if len(matches) == 1 else None


def required_column(
    wanted: str, role: str, source_file: str, names: Sequence[str], stored: Sequence[str]
) -> int:
    """Index of the column the user means; `role` is "text" or "id".

    Raises `ConfigurationError` with the columns there are, and the closest name.
    """
    index = find_column(wanted, names, stored)
    if index is not None:
        return index
    by_folded = {printable(name).casefold(): printable(name) for name in names}
    close = difflib.get_close_matches(wanted.casefold(), by_folded, n=1)
    hint = f" (did you mean {by_folded[close[0]]!r}?)" if close else ""
    raise ConfigurationError(
        f"--{role}-column {wanted!r}: {source_file} has no such column{hint}; "
        f"its columns are: {', '.join(printable(name) for name in names)}"
    )


def _free_name(name: str, number: int, theirs: set[str], taken: set[str]) -> str:
    def is_free(candidate: str) -> bool:
        folded = candidate.casefold()
        own = folded == name.casefold()
        return folded not in taken and folded not in _RESERVED and (own or folded not in theirs)

    base = name or f"column_{number}"
    while base.casefold() in _RESERVED:
        base = f"source_{base}"
    if is_free(base):
        return base
    if base != name and name:
        while not is_free(base):
            base = f"source_{base}"
        return base
    repeat = 2
    while not is_free(f"{base}_{repeat}"):
        repeat += 1
    return f"{base}_{repeat}"
