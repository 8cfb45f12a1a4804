from __future__ import annotations

import pytest

from tasks.core.errors import ConfigurationError
from tasks.core.ingest.locate import locate

from .conftest import Dataset


def names(dataset: Dataset, *sources: str) -> list[str]:
    """The names that sources below `in` are known by."""
    given = [str(dataset.folder / "in" / source) for source in sources]
    return [file.name for file in locate(given, dataset.store.root).files]


def test_names_are_relative_to_what_was_given(dataset: Dataset) -> None:
    """A file is known by its name, its path in the folder, or its path below the glob."""
    dataset.write("sub/b.csv", "text\nx\n")
    dataset.write("a.CSV", "text\nx\n")
    assert names(dataset, "sub/b.csv") == ["b.csv"]
    assert names(dataset, "") == ["a.CSV", "sub/b.csv"]
    assert names(dataset, "s*/*.csv") == ["sub/b.csv"]
    assert names(dataset, "**/*.csv") == ["sub/b.csv"]


def test_a_file_counts_once(dataset: Dataset) -> None:
    """A file given twice is read once, under the name it was first given by."""
    dataset.write("sub/b.csv", "text\nx\n")
    assert names(dataset, "sub/b.csv", "", "sub/../sub/b.csv") == ["b.csv"]


def test_two_files_of_one_name_are_refused(dataset: Dataset) -> None:
    """Two files that would be known by one name are named, with the way out."""
    dataset.write("x/a.csv", "")
    dataset.write("y/a.csv", "")
    with pytest.raises(ConfigurationError, match=r"x/a\.csv.*y/a\.csv.*common folder"):
        names(dataset, "x/a.csv", "y/a.csv")


@pytest.mark.parametrize("source", ["nope.csv", "nope/*.csv", "empty", "a.docx", "s3://x/a.csv"])
def test_sources_without_files_are_refused(dataset: Dataset, source: str) -> None:
    """A source that gives nothing to read is named, with what would be accepted."""
    dataset.write("a.docx", "")
    (dataset.folder / "in/empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"only local files|accepted are \.csv"):
        names(dataset, source) if "://" not in source else locate([source], dataset.store.root)


def test_hidden_and_unknown_files_are_noted(dataset: Dataset) -> None:
    """Hidden files, lock files and unknown formats in a folder are left out and counted."""
    for name in ("a.csv", ".b.csv", ".git/c.csv", "~$d.xlsx", "e.docx"):
        dataset.write(name, "")
    located = locate([str(dataset.folder / "in")], dataset.store.root)
    assert [file.name for file in located.files] == ["a.csv"]
    assert "4 hidden or unknown" in located.notes[0]


def test_own_output_is_no_source(dataset: Dataset) -> None:
    """Reports stored below the folder that is ingested do not come back as sources."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.ingest()
    located = locate([str(dataset.folder)], dataset.store.root)
    assert [file.name for file in located.files] == ["in/a.csv"]
