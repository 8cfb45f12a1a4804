"""The hand-written sample the model is examined on, and its reference translations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"
REFERENCES = SAMPLE.with_name("sample-references.jsonl")
TEXT_COLUMN = "texte"


@dataclass(frozen=True, slots=True)
class Referenced:
    """A French report and its English translation by hand."""

    fr: str
    en: str


def source_texts(folder: Path = SAMPLE) -> dict[tuple[str, int], str]:
    """Every report of the sample, by file and row."""
    return {
        (str(path.relative_to(folder)), row): text
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for row, text in enumerate(_texts(path), start=1)
    }


def references(path: Path = REFERENCES) -> dict[tuple[str, int], str]:
    """The reference translations, by file and row."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {(row["source_file"], row["source_row"]): row["reference"] for row in rows}


def referenced_reports() -> list[Referenced]:
    """The reports that have a reference."""
    sources = source_texts()
    return [Referenced(sources[key], text) for key, text in references().items()]


def all_texts() -> list[str]:
    """Everything that the corpus must not repeat, in both languages."""
    return [*source_texts().values(), *references().values()]


def _texts(path: Path) -> Iterator[str]:
    if path.suffix == ".csv":
        lines = path.read_bytes().decode("cp1252").splitlines(keepends=True)
        start = next(i for i, line in enumerate(lines) if TEXT_COLUMN in line.strip().split(";"))
        for row in csv.DictReader(io.StringIO("".join(lines[start:])), delimiter=";"):
            yield row[TEXT_COLUMN]
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)[TEXT_COLUMN]
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        column = pq.read_table(path, columns=[TEXT_COLUMN]).column(0)
        yield from (str(text) for text in column.to_pylist())
    else:
        yield path.read_text(encoding="utf-8")
