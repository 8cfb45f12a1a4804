"""The sample: several formats, all of it readable, with references that resolve."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tasks.core.ingest.summary import IngestSummary
from tasks.core.ingest.upsert import ingest
from tasks.core.settings import IngestSettings
from tasks.core.storage.store import Store

DATA = Path(__file__).resolve().parents[2] / "data"
SAMPLE = DATA / "sample"


@pytest.fixture(scope="module")
def ingested(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[IngestSummary, pl.DataFrame]:
    """What ingesting the sample says, and the reports that come of it."""
    root = tmp_path_factory.mktemp("sample")
    settings = IngestSettings(
        root=str(root), dataset="sample", sources=[str(SAMPLE)], text_column="texte"
    )
    summary = ingest(Store(str(root)), settings, datetime.now(UTC))
    return summary, pl.read_parquet(f"{root}/reports/sample/**/*.parquet")


def test_all_of_it_is_reports(ingested: tuple[IngestSummary, pl.DataFrame]) -> None:
    """Every row of the sample is a report: at least 60, and none rejected."""
    summary, rows = ingested
    assert summary.rejected == 0
    assert summary.reports == rows.height >= 60
    assert rows["report_id"].n_unique() == rows.height
    assert rows["source_text"].n_unique() == rows.height


def test_it_comes_in_four_formats(ingested: tuple[IngestSummary, pl.DataFrame]) -> None:
    """A CSV, JSON lines, Parquet and text files, with several reports in each."""
    _, rows = ingested
    by_format = dict(
        rows.group_by(pl.col("source_file").str.extract(r"\.(\w+)$")).len().iter_rows()
    )
    assert set(by_format) == {"csv", "jsonl", "parquet", "txt"}
    assert min(by_format.values()) >= 5


def test_csv_is_as_real_ones_are(ingested: tuple[IngestSummary, pl.DataFrame]) -> None:
    """The CSV is cp1252 with semicolons below lines that are no header, and that is recorded."""
    raw = (SAMPLE / "inspections.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    assert raw.decode("cp1252")
    summary, _ = ingested
    [read] = [file for file in summary.files if file.source_file == "inspections.csv"]
    assert (read.encoding, read.delimiter, read.header_row) == ("cp1252", ";", 5)
    assert any("inspections.csv" in note and "line 5" in note for note in summary.notes)


def test_reports_have_one_to_thirty_sentences(
    ingested: tuple[IngestSummary, pl.DataFrame],
) -> None:
    """There are short reports and long ones, and some of several paragraphs."""
    _, rows = ingested
    lengths = [len(re.findall(r"[.!?…](?:\s|$)", text)) for text in rows["source_text"]]
    assert min(lengths) <= 1
    assert 10 < max(lengths) <= 40
    assert rows.filter(pl.col("source_text").str.contains("\n\n")).height >= 3


def test_references_resolve(ingested: tuple[IngestSummary, pl.DataFrame]) -> None:
    """Each reference translation belongs to one report, and there are at least 20 of them."""
    _, rows = ingested
    known = {(row["source_file"], row["source_row"]): row for row in rows.to_dicts()}
    text = (DATA / "sample-references.jsonl").read_text(encoding="utf-8")
    references = [json.loads(line) for line in text.splitlines()]
    keys = [(each["source_file"], each["source_row"]) for each in references]
    assert len(set(keys)) == len(keys) >= 20
    for key, each in zip(keys, references, strict=True):
        source = known[key]["source_text"]
        assert each["reference"].strip()
        assert each["reference"] != source
        # A translation of that report, not of its neighbour: the same numbers are in it.
        figures = set(re.findall(r"\d{2,}", source))
        shared = figures & set(re.findall(r"\d{2,}", each["reference"]))
        assert len(shared) >= len(figures) / 2, key
    assert len({file.split("/")[0] for file, _ in keys}) == 4
