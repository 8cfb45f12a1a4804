"""What an ingest did, in numbers that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class FileSummary:
    """How one source file was read, and what became of its rows."""

    source_file: str
    format: str
    sha256: str
    """Of the file's bytes, hexadecimal."""
    size_bytes: int
    encoding: str | None
    """None for formats that are not text."""
    delimiter: str | None
    """None for formats without one, and for files of one column."""
    header_row: int | None
    """Line (or sheet row) of the header, from 1; None where there is none."""
    preamble: tuple[str, ...]
    """Lines above the header."""
    text_column: str | None
    """As stored; None for a file in which no row shows which it is."""
    id_column: str | None
    """As stored; None where ids are made from the rows."""
    rows_in: int
    reports: int
    rejected: int

    def __post_init__(self) -> None:
        if self.rows_in != self.reports + self.rejected:
            raise AssertionError(
                f"{self.source_file}: {self.rows_in} rows read, but {self.reports} reports and "
                f"{self.rejected} rejected; this is a bug, please report it"
            )


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What one ingest read; `dataclasses.asdict` of it is JSON."""

    dataset: str
    rows_in: int
    reports: int
    rejected: int
    reasons: dict[str, int]
    """Rejected rows by reason."""
    files: tuple[FileSummary, ...]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rows_in != self.reports + self.rejected:
            raise AssertionError(
                f"{self.dataset}: {self.rows_in} rows read, but {self.reports} reports and "
                f"{self.rejected} rejected; this is a bug, please report it"
            )

    @classmethod
    def of(
        cls,
        dataset: str,
        files: Iterable[FileSummary],
        reasons: Counter[str],
        notes: Iterable[str],
    ) -> Self:
        """The sums over the files of one ingest."""
        counted = tuple(files)
        return cls(
            dataset=dataset,
            rows_in=sum(file.rows_in for file in counted),
            reports=sum(file.reports for file in counted),
            rejected=sum(file.rejected for file in counted),
            reasons=dict(sorted(reasons.items())),
            files=counted,
            notes=tuple(notes),
        )
