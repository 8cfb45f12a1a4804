from __future__ import annotations

from tasks.core.identity import report_id
from tasks.core.ingest.rows import BadRow, Reason, Row
from tasks.core.ingest.sift import Report, Roles, sift

ROLES = Roles("a.csv", names=("n", "text"), stored=("n", "text"), text=1, id=None)


def test_ids_depend_on_content_alone() -> None:
    """An id hashes file name, cells in any order and the occurrence, and nothing else."""
    given = report_id("a.csv", [("n", "1"), ("text", "un")], 1)
    assert given == "0172b0a078eccc52144d67b02105a14a"
    assert report_id("a.csv", [("text", "un"), ("n", "1"), ("new", None)], 1) == given
    others = {
        report_id("b.csv", [("n", "1"), ("text", "un")], 1),
        report_id("a.csv", [("n", 1), ("text", "un")], 1),
        report_id("a.csv", [("n", b"1"), ("text", "un")], 1),
        report_id("a.csv", [("n", "1"), ("text", "un")], 2),
    }
    assert len(others | {given}) == 5


def test_identical_rows_are_counted() -> None:
    """Identical rows get different ids, by their occurrence."""
    rows = [Row(1, ("1", "un"), ""), Row(2, ("2", "un"), ""), Row(3, ("1", "un"), "")]
    ids = [row.report_id for row in sift(rows, ROLES, {}) if isinstance(row, Report)]
    pairs = [("n", "1"), ("text", "un")]
    assert (ids[0], ids[2]) == (report_id("a.csv", pairs, 1), report_id("a.csv", pairs, 2))
    assert len(set(ids)) == 3


def test_a_row_without_text_keeps_no_id() -> None:
    """The first row with a text keeps an id, not one that was set aside before it."""
    roles = Roles("a.csv", names=("n", "text"), stored=("n", "text"), text=1, id=0)
    rows = [Row(1, ("1", " "), "1, "), Row(2, ("1", "un"), ""), Row(3, (" ", "x"), "raw")]
    bad, good, blank = sift(rows, roles, {})
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.raw) == (Reason.NO_TEXT, "1, ")
    assert isinstance(good, Report)
    assert isinstance(blank, BadRow)
    assert (blank.reason, blank.raw) == (Reason.NO_ID, "raw")
