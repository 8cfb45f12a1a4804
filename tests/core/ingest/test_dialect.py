from __future__ import annotations

import pytest

from tasks.core.ingest.dialect import Dialect, find_dialect


def find(text: str, wanted: str | None = None, *, cut: bool = False) -> Dialect:
    """The dialect of a text."""
    dialect = find_dialect(text.splitlines(keepends=True), cut=cut, wanted=wanted)
    assert dialect is not None
    return dialect


def test_delimiters_inside_quotes_are_no_evidence() -> None:
    """A delimiter counts by the width of the records it makes, quotes respected."""
    text = 'id;text\n1;"a, b, c"\n2;"d, e, f"\n'
    assert find(text).delimiter == ";"


def test_header_only() -> None:
    """A header without rows is enough."""
    assert find("id;text\n").names == ("id", "text")


@pytest.mark.parametrize("row", ["1,un,", "1"])
def test_a_header_of_another_width_stays_the_header(row: str) -> None:
    """Rows wider or narrower than the header never push the first row into its place."""
    header = "id,text" if row.endswith(",") else "id,text,note"
    dialect = find(f"{header}\n{row}\n{row}\n{row}\n")
    assert dialect.header_row == 1
    assert dialect.preamble == ()


def test_a_quote_in_the_preamble() -> None:
    """A stray quote above the header does not hide it."""
    assert find('"Export du 3 mai\nid,text\n1,un\n2,deux\n').header_row == 2


def test_a_sample_cut_inside_a_cell() -> None:
    """The end of the sample in the middle of a quoted cell is no evidence against it."""
    text = "id,text\n" + "1,un\n" * 10 + '2,"un, long, texte\n' + "suite, a, b, c\n" * 5
    assert find(text, cut=True).delimiter == ","


def test_wanted_names_the_header_ignoring_case() -> None:
    """The named column is found with other case, and beats a wider table elsewhere."""
    dialect = find("a,b,c\nd,e,f\nID;Texte\n1;un\n", wanted="texte")
    assert (dialect.delimiter, dialect.header_row) == (";", 3)


def test_no_record() -> None:
    """Blank lines have no dialect."""
    assert find_dialect(["\n", "  \n"], cut=False, wanted=None) is None
