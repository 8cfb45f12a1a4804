"""Results as Markdown, to be pasted into a README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first row is its head; its source can be read, too."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def heading(environment: dict[str, Any]) -> list[str]:
    """Where the figures come from."""
    where_from = (
        f"`{environment['command']}` on {environment['date']}, {environment['machine']}, "
        f"Python {environment['python']}, commit {environment['commit']}."
    )
    return [where_from, ""]
