from __future__ import annotations

import json

from .conftest import Dataset


def lines(*rows: object) -> str:
    """The rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_types_are_kept_per_column(dataset: Dataset) -> None:
    """A column keeps its JSON type where all its values have it, and is text otherwise."""
    dataset.write(
        "a.jsonl",
        lines(
            {"i": 1, "f": 1, "b": True, "t": "un", "m": 1, "n": None, "o": {"a": [1, "é"]}},
            {"i": -2, "f": 0.5, "b": False, "t": "deux", "m": "x", "n": None, "o": [True]},
        ),
    )
    dataset.ingest(text_column="t")
    assert dataset.types() == {
        "i": "int64",
        "f": "double",
        "b": "bool",
        "t": "string",
        "m": "string",
        "n": "string",
        "o": "string",
    }
    first, second = dataset.rows()
    assert (first["f"], first["m"], second["m"]) == (1.0, "1", "x")
    assert (first["o"], second["o"]) == ('{"a": [1, "é"]}', "[true]")


def test_integers_are_never_rounded(dataset: Dataset) -> None:
    """Integers beyond int64, or beyond a float's precision next to floats, are text."""
    dataset.write(
        "a.jsonl", lines({"t": "un", "big": 2**63, "mix": 2**53 + 1}, {"t": "deux", "mix": 0.5})
    )
    dataset.ingest(text_column="t")
    assert dataset.column("big") == [str(2**63), None]
    assert dataset.column("mix") == [str(2**53 + 1), "0.5"]


def test_keys_are_united(dataset: Dataset) -> None:
    """Rows may have different keys; a missing one is null."""
    dataset.write("a.jsonl", lines({"text": "un"}, {"text": "deux", "late": 1}))
    dataset.ingest()
    assert dataset.column("late") == [None, 1]


def test_bad_lines_are_set_aside(dataset: Dataset) -> None:
    """Each line that is no row is kept with its own reason; the others live."""
    bad = ["{oops", "[1, 2]", '"text"', '{"a": 1, "a": 2}', '{"text": "\\ud800"}', "[" * 100_000]
    dataset.write("a.jsonl", "\n".join(['{"text": "un"}', *bad, '{"text": "deux"}', ""]))
    summary = dataset.ingest()
    assert dataset.column("source_text") == ["un", "deux"]
    assert dataset.column("reason", "rejected") == [
        "not_json",
        "not_an_object",
        "not_an_object",
        "duplicate_key",
        "undecodable",
        "not_json",
    ]
    assert dataset.column("raw", "rejected") == bad
    assert summary.rows_in == 8


def test_deep_values_are_no_crash(dataset: Dataset) -> None:
    """A nested value that can be read but not written is set aside, not a crash."""
    deep = "[" * 900 + "]" * 900
    dataset.write("a.jsonl", '{"text": "un", "v": ' + deep + '}\n{"text": "deux"}\n')
    summary = dataset.ingest()
    assert summary.rows_in == summary.reports + summary.rejected == 2


def test_huge_numbers_are_no_crash(dataset: Dataset) -> None:
    """A number with more digits than Python reads is set aside."""
    dataset.write("a.jsonl", '{"text": "un", "n": ' + "9" * 5_000 + "}\n")
    assert dataset.ingest().reasons == {"not_json": 1}


def test_array(dataset: Dataset) -> None:
    """A .json file may be an array of objects, pretty-printed or not."""
    rows = [{"id": "1", "text": "un long"}, 3, {"id": "2", "text": "deux longs"}]
    dataset.write("a.json", json.dumps(rows, indent=2))
    summary = dataset.ingest()
    assert dataset.column("source_text") == ["un long", "deux longs"]
    assert dataset.column("source_row") == [1, 3]
    assert summary.reasons == {"not_an_object": 1}


def test_cut_array_keeps_what_came_before(dataset: Dataset) -> None:
    """An array that breaks off gives its whole elements; the rest is one rejected record."""
    dataset.write("a.json", '[{"text": "un"}, {"text": "deux"}, {"text": "tro')
    summary = dataset.ingest()
    assert dataset.column("source_text") == ["un", "deux"]
    assert dataset.column("raw", "rejected") == ['{"text": "tro']
    assert summary.rows_in == 3


def test_json_that_is_lines(dataset: Dataset) -> None:
    """A .json file that is no array is read as lines, or as a single object."""
    dataset.write("lines.json", '{"text": "un"}\r\n{"text": "deux"}\r\n')
    dataset.write("one.json", '{\n "text": "trois"\n}')
    dataset.ingest()
    assert dataset.column("source_text") == ["un", "deux", "trois"]


def test_ids_do_not_depend_on_the_type_of_the_column(dataset: Dataset) -> None:
    """A row that changes the type of a column, or adds one, changes no other row's id."""
    path = dataset.write("a.jsonl", lines({"text": "un", "n": 1}))
    dataset.ingest()
    before = dataset.column("report_id")
    path.write_text(lines({"text": "zéro", "n": "x", "new": 1}, {"text": "un", "n": 1}))
    dataset.ingest(evolve=True)
    assert dataset.column("report_id")[1:] == before
