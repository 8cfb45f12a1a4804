from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import ConfigurationError, ReportTranslationError

from .conftest import Dataset

ARIA = (
    "Base de données ARIA;;\r\n"
    "État au 03/05/2021, tous accidents\r\n"
    "\r\n"
    "Critères : pays = France; période = tout\r\n"
    "Nombre : 3\r\n"
    "\r\n"
    "Ministère de la transition écologique\r\n"
    "Numéro ARIA;Titre;Type d'accident;Contenu\r\n"
    "1;Feu, fumée;industrie;L’incendie a été éteint à 07h33, sans blessé.\r\n"
    '2;Fuite;usine;"Une fuite\r\nd’ammoniac; ""grave"""\r\n'
    "3;Choc;rail;Un wagon a déraillé.\r\n"
)


def test_aria_shape(dataset: Dataset) -> None:
    """Windows-1252, semicolons and seven lines above the header are found without help."""
    dataset.write("aria.csv", ARIA.encode("cp1252"))
    summary = dataset.ingest()
    file = summary.files[0]
    assert (file.encoding, file.delimiter, file.header_row) == ("cp1252", ";", 8)
    assert len(file.preamble) == 7
    assert file.preamble[4] == "Nombre : 3"
    assert file.text_column == "Contenu"
    assert dataset.column("source_text")[1] == 'Une fuite\r\nd’ammoniac; "grave"'
    assert dataset.column("source_row") == [1, 2, 3]
    assert list(dataset.types().values()) == ["string"] * 4


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
)
def test_every_encoding_gives_the_same_texts(dataset: Dataset, encoding: str) -> None:
    """The same table in any encoding gives the same characters."""
    table = "id;texte\n1;été à Noël\n2;ça va où ?\n"
    dataset.write("a.csv", table.encode(encoding))
    dataset.ingest()
    assert dataset.column("source_text") == ["été à Noël", "ça va où ?"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^"])
def test_delimiters(dataset: Dataset, delimiter: str) -> None:
    """The delimiter is found from the records, whatever the extension says."""
    lines = [["id", "text"], ["1", "un texte: long"], ["2", "deux"], ["3", "trois"]]
    dataset.write("a.csv", "\n".join(delimiter.join(line) for line in lines))
    summary = dataset.ingest()
    assert summary.files[0].delimiter == delimiter
    assert dataset.column("source_text") == ["un texte: long", "deux", "trois"]


def test_one_column_of_prose(dataset: Dataset) -> None:
    """Commas and semicolons inside the texts of a one-column file delimit nothing."""
    dataset.write("a.csv", "text\nFeu, fumée.\nPanne; arrêt.\nTrain, quai, foule.\nRien.\n")
    summary = dataset.ingest()
    assert summary.files[0].delimiter is None
    assert dataset.column("source_text")[0] == "Feu, fumée."
    assert summary.reports == 4


def test_text_column_decides_the_header(dataset: Dataset) -> None:
    """The record that holds the named text column is the header, and gives the delimiter."""
    dataset.write("a.csv", "x,y,z\na,b,c\nd,e,f\nid;Texte,Remarque\n1;Un, deux\n")
    summary = dataset.ingest(text_column="id")
    assert (summary.files[0].delimiter, summary.files[0].header_row) == (";", 4)
    assert dataset.column("source_text") == ["1"]


def test_padded_preamble(dataset: Dataset) -> None:
    """A line above the header that is padded to its width is not taken for the header."""
    dataset.write("a.csv", "sep=;\nExport;;\nid;date;text\n1;2020;un texte\n2;2021;deux textes\n")
    summary = dataset.ingest()
    assert summary.files[0].header_row == 3
    assert dataset.column("source_text") == ["un texte", "deux textes"]


def test_wrong_cell_count(dataset: Dataset) -> None:
    """A record of another width is set aside with its lines as they stand in the file."""
    dataset.write("a.csv", 'id,text\r\n1,un\r\n2\r\n3,"a\r\nb",c\r\n4,quatre\r\n')
    summary = dataset.ingest()
    assert (summary.rows_in, summary.reports, summary.rejected) == (4, 2, 2)
    assert dataset.column("reason", "rejected") == ["wrong_cell_count"] * 2
    assert dataset.column("detail", "rejected")[0] == "2 cells expected, 1 found"
    assert dataset.column("raw", "rejected") == ["2", '3,"a\r\nb",c']
    assert dataset.column("source_row", "rejected") == [2, 3]


def test_unclosed_quote_costs_one_line(dataset: Dataset) -> None:
    """A quote that is never closed costs the line it opens on, not the rest of the file."""
    dataset.write("a.csv", 'id,text\n1,un\n2,"deux\n3,trois\n4,quatre\n')
    summary = dataset.ingest()
    assert dataset.column("source_text") == ["un", "trois", "quatre"]
    assert summary.reasons == {"unclosed_quote": 1}
    assert dataset.column("raw", "rejected") == ['2,"deux']
    assert "line 3" in dataset.column("detail", "rejected")[0]


def test_bad_quoting_is_not_guessed(dataset: Dataset) -> None:
    """A quoted cell that goes on after its quote is set aside, not silently changed."""
    dataset.write("a.csv", 'id,text\n1,un\n2,"dit "non" fort"\n3,trois\n')
    summary = dataset.ingest()
    assert summary.reasons == {"bad_quoting": 1}
    assert dataset.column("raw", "rejected") == ['2,"dit "non" fort"']
    assert dataset.column("source_text") == ["un", "trois"]


def test_bad_quoting_without_a_delimiter(dataset: Dataset) -> None:
    """Wrong quotes in a file of one column are told without a delimiter (found by a search)."""
    dataset.write("a.csv", '""\x01')
    dataset.ingest()
    assert dataset.column("reason", "rejected") == ["bad_quoting"]


def test_stray_quotes_take_linear_time(dataset: Dataset) -> None:
    """A file that opens a quote on every line is read to its end, every line accounted for."""
    dataset.write("a.csv", "id,text\n" + 'x","y\n' * 50_000)
    summary = dataset.ingest(text_column="text")
    assert summary.rows_in == summary.reports + summary.rejected
    assert summary.reasons["unclosed_quote"] > 0


def test_blank_lines_are_no_rows(dataset: Dataset) -> None:
    """Blank lines are skipped; a line of empty cells is a row without text."""
    dataset.write("a.csv", "id,text\n\n1,un\n   \n,\n")
    summary = dataset.ingest()
    assert summary.rows_in == 2
    assert summary.reasons == {"no_text": 1}


def test_empty_cells_stay_empty(dataset: Dataset) -> None:
    """An empty cell is an empty string, and nothing is read as a number."""
    dataset.write("a.csv", "id,note,text\n007,,un\n1e5,NA,deux\n")
    dataset.ingest(text_column="text")
    assert dataset.column("id") == ["007", "1e5"]
    assert dataset.column("note") == ["", "NA"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8-sig", "utf-32-le"])
def test_undecodable_rows_are_set_aside(dataset: Dataset, encoding: str) -> None:
    r"""Bytes that are no text cost their row only, which is kept with them as \xNN."""
    codec = encoding.removesuffix("-sig")
    bad = {"utf-16-le": b"\x00\xd8", "utf-16-be": b"\xd8\x00", "utf-8-sig": b"\xff"}
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    before = (mark + "id,text\n1,un\n2,de").encode(encoding)
    data = before + bad.get(encoding, b"\xff" * 4) + "ux\n3,trois\n".encode(codec)
    dataset.write("a.csv", data)
    summary = dataset.ingest()
    assert summary.files[0].encoding == encoding
    assert dataset.column("source_text") == ["un", "trois"]
    assert summary.reasons == {"undecodable": 1}
    raw = dataset.column("raw", "rejected")[0]
    assert raw.startswith("2,de\\x")
    assert raw.endswith("ux")


def test_missing_text_column_is_refused(dataset: Dataset) -> None:
    """A text column that is not there is refused with the columns and the closest name."""
    dataset.write("a.csv", "id,texte,date\n1,un,2020\n")
    with pytest.raises(ConfigurationError, match=r"'text'.*did you mean 'texte'.*id, texte, date"):
        dataset.ingest(text_column="text")


def test_text_column_ignores_case_where_unique(dataset: Dataset) -> None:
    """A column is found ignoring case when only one can be meant."""
    dataset.write("a.csv", "id,TEXTE,date\n1,un,deux mots\n")
    assert dataset.ingest(text_column="texte").files[0].text_column == "TEXTE"


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_empty_files_hold_no_reports(dataset: Dataset, content: str) -> None:
    """A file without a record is read as no rows, with a note."""
    dataset.write("a.csv", content)
    summary = dataset.ingest()
    assert summary.rows_in == 0
    assert "no columns" in summary.notes[0]
    assert dataset.rows() == []


def test_very_long_cells(dataset: Dataset) -> None:
    """A cell longer than the csv module's usual limit is read whole."""
    dataset.write("a.csv", "id,text\n1," + "é" * 300_000 + "\n")
    dataset.ingest()
    assert len(dataset.column("source_text")[0]) == 300_000


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8),
)
def test_round_trip(delimiter: str, rows: list[tuple[str, str]]) -> None:
    """A table written by the csv module comes back with the same cells."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerows([("id", "note", "text"), *((first, note, "mot") for first, note in rows)])
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder))
        dataset.write("a.csv", buffer.getvalue())
        dataset.ingest(text_column="text")
        assert [(row["id"], row["note"]) for row in dataset.rows()] == rows
        assert dataset.rows("rejected") == []


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.text(st.sampled_from('a"1,;\n\r\t{}[]:\\ é\x00'), max_size=60).map(str.encode),
        st.binary(max_size=40).map(lambda data: b"\xff\xfe" + data),
    ),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".txt"]),
)
def test_arbitrary_bytes_add_up(content: bytes, suffix: str) -> None:
    """Whatever a file holds, it is counted whole or refused in words."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder))
        path = dataset.write(f"a{suffix}", content)
        try:
            summary = dataset.ingest(path)
        except ReportTranslationError:
            return
        assert summary.rows_in == summary.reports + summary.rejected
        assert summary.reports == len(dataset.rows())
        assert summary.rejected == len(dataset.rows("rejected"))
