from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.ingest.columns import find_column, renaming_notes, stored_names
from tasks.core.schema import RESERVED_NAMES


def test_names_are_made_distinct() -> None:
    """Empty names are numbered, repeats counted on, and ours given way to."""
    names = [" id ", "", "Text", "text", "Status", "source_status", "text_2"]
    assert stored_names(names) == (
        "id",
        "column_2",
        "Text",
        "text_3",
        "source_source_Status",
        "source_status",
        "text_2",
    )


def test_renamed_columns_are_told() -> None:
    """Only columns that are stored under another name are noted."""
    assert renaming_notes(["id", "model"], ["id", "source_model"]) == (
        "column 2 ('model') is stored as 'source_model'",
    )


@given(st.lists(st.sampled_from(["", "a", "A", "a_2", "status", "source_Status", "column_1", "é"])))
def test_stored_names_never_clash(names: list[str]) -> None:
    """Whatever a file calls its columns, they are distinct and none of ours, ignoring case."""
    folded = [name.casefold() for name in stored_names(names)]
    assert len(set(folded)) == len(names)
    assert not set(folded) & {name.casefold() for name in RESERVED_NAMES}


def test_exact_names_come_first() -> None:
    """A name is compared exactly before case is ignored, and never guessed between two."""
    assert find_column("text", ["Text", "text"], ["Text", "text_2"]) == 1
    assert find_column("TEXT", ["Text", "text"], ["Text", "text_2"]) is None
    assert find_column("status", ["Status"], ["source_Status"]) == 0
