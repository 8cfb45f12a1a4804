from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.ingest.csv_records import csv_records
from tasks.core.ingest.rows import Reason


def test_lines_and_raw() -> None:
    """Every record knows its first line and the lines it was made of."""
    lines = ["a,b\r\n", "\n", '"x\n', 'y",z\n', "last"]
    records = list(csv_records(lines, ",", first_line=10))
    assert [(record.line, record.line_count, record.raw) for record in records] == [
        (10, 1, "a,b"),
        (12, 2, '"x\ny",z'),
        (14, 1, "last"),
    ]
    assert records[1].cells == ["x\ny", "z"]


def test_lines_after_a_bad_record_are_read_again() -> None:
    """A stray quote costs one line, also when a later quote seems to close it."""
    lines = ['a,"b\n', "c,d\n", 'e,"f"\n', "g,h\n"]
    records = list(csv_records(lines, ","))
    assert [record.problem for record in records] == [Reason.BAD_QUOTING, None, None, None]
    assert [record.cells for record in records[1:]] == [["c", "d"], ["e", "f"], ["g", "h"]]


@given(st.lists(st.text(st.sampled_from('a",\r'), max_size=8), max_size=12))
def test_every_line_is_in_one_record(lines: list[str]) -> None:
    """However the quotes stand, no line is lost and none is counted twice."""
    ended = [line.replace("\r", "") + "\r\n" for line in lines]
    records = list(csv_records(ended, ","))
    covered = [number for r in records for number in range(r.line, r.line + r.line_count)]
    assert covered == sorted(set(covered))
    blank = [number for number, line in enumerate(ended, start=1) if not line.strip()]
    assert set(covered) | set(blank) == set(range(1, len(ended) + 1))
