from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest
import xlsxwriter

from tasks.core.errors import SourceError

from .conftest import Dataset


def put(dataset: Dataset, sheets: dict[str, list[list[object]]]) -> Path:
    """Write a workbook with these sheets."""
    path = dataset.write("a.xlsx", b"")
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd"}) as workbook:
        moment = workbook.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        for name, rows in sheets.items():
            sheet = workbook.add_worksheet(name)
            for row, cells in enumerate(rows):
                for column, cell in enumerate(cells):
                    if isinstance(cell, datetime):
                        sheet.write_datetime(row, column, cell, moment)
                    else:
                        sheet.write(row, column, cell)
    return path


def test_first_sheet_as_text(dataset: Dataset) -> None:
    """The first sheet with cells is read as text; the others are named."""
    day, moment = date(2020, 1, 2), datetime(2020, 1, 2, 3, 4)  # noqa: DTZ001 - Excel has no zones
    put(
        dataset,
        {
            "vide": [],
            "Rapports": [
                ["Extraction", "", "", ""],
                [],
                ["id", "jour", "heure", "texte"],
                [1, day, moment, "Un texte\nbien plus long"],
                [],
                [2.5, "", True, "deux"],
            ],
            "Autre": [["x"]],
        },
    )
    summary = dataset.ingest()
    assert summary.files[0].header_row == 3
    assert summary.files[0].preamble == ("Extraction", "")
    assert summary.files[0].text_column == "texte"
    first, second = dataset.rows()
    assert (first["id"], first["jour"], first["heure"]) == (
        "1",
        "2020-01-02",
        "2020-01-02T03:04:00",
    )
    assert (second["id"], second["jour"], second["heure"]) == ("2.5", "", "TRUE")
    assert first["source_text"] == "Un texte\nbien plus long"
    assert [row["source_row"] for row in (first, second)] == [1, 2]
    assert any("Autre" in note for note in summary.notes)


def test_cells_right_of_the_header_are_kept(dataset: Dataset) -> None:
    """A column without a name keeps its cells under a made-up name."""
    put(dataset, {"a": [["id", "texte"], ["1", "un long texte", "note"]]})
    dataset.ingest(text_column="texte")
    assert dataset.column("column_3") == ["note"]


def test_empty_workbook(dataset: Dataset) -> None:
    """A workbook without cells gives no rows."""
    put(dataset, {"a": []})
    assert dataset.ingest().rows_in == 0


def test_no_workbook(dataset: Dataset) -> None:
    """A file that is no workbook is refused by name."""
    dataset.write("a.xlsx", b"PK not really")
    with pytest.raises(SourceError, match=r"a\.xlsx"):
        dataset.ingest()
