"""Lines of delimited text to records, each with the lines it was made of.

A record whose quotes are wrong costs its first line, not the rest of the file: the
lines after it are read again.
"""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.core.ingest.rows import Reason

# A delimiter that no decoded text contains, for files of one column.
NO_DELIMITER = "\udfff"

# Reading lines again is bounded by this many times the lines read, so that a file full
# of stray quotes takes linear time; past it, a bad record costs all its lines.
_REREAD_FACTOR = 4
_REREAD_ALWAYS = 10_000

csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of delimited text; blank lines are none."""

    line: int
    """The line of the file it starts on, from 1."""
    line_count: int
    cells: list[str]
    raw: str
    """Its lines as they stand in the file, without the last line end."""
    problem: Reason | None = None
    detail: str = ""


def csv_records(
    lines: Iterable[str], delimiter: str | None, first_line: int = 1
) -> Iterator[Record]:
    """Records of lines that still have their ends; no delimiter means one column.

    Quotes are read strictly, as in RFC 4180: what would have to be guessed comes as a
    record with a `problem` and no cells.
    """
    feed = _Feed(lines, first_line)
    reader = csv.reader(feed, delimiter=delimiter or NO_DELIMITER, strict=True)
    while True:
        start = feed.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            problem = Reason.UNCLOSED_QUOTE if feed.at_end else Reason.BAD_QUOTING
            detail = (
                f"the quote opened on line {start} is never closed"
                if feed.at_end
                else f"line {feed.line}: a quoted cell goes on after its closing quote"
            )
            feed.give_back_all_but_first()
            yield Record(start, len(feed.taken), [], _without_end(feed.taken), problem, detail)
            continue
        if len(cells) > 1 or (cells and "".join(feed.taken).strip()):
            yield Record(start, len(feed.taken), cells, _without_end(feed.taken))


def _without_end(lines: list[str]) -> str:
    text = "".join(lines)
    if text.endswith("\r\n"):
        return text[:-2]
    return text[:-1] if text.endswith(("\n", "\r")) else text


class _Feed:
    """The lines for the csv reader, remembering those of the record it is in."""

    def __init__(self, lines: Iterable[str], first_line: int) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._reread = 0
        self.taken: list[str] = []
        self.line = first_line - 1
        self.at_end = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            try:
                line = next(self._lines)
            except StopIteration:
                self.at_end = True
                raise
        self.taken.append(line)
        self.line += 1
        return line

    def start_record(self) -> int:
        """Forget the last record; the line the next one starts on."""
        self.taken = []
        self.at_end = False
        return self.line + 1

    def give_back_all_but_first(self) -> None:
        """Let the lines of this record be read again, as far as the bound allows."""
        again = self.taken[1:]
        if self._reread + len(again) > _REREAD_ALWAYS + _REREAD_FACTOR * self.line:
            return
        self._reread += len(again)
        self._again.extendleft(reversed(again))
        self.line -= len(again)
        self.taken = self.taken[:1]
