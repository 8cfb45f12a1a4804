from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import ConfigurationError, SourceError, StorageError
from tasks.core.ingest import upsert
from tasks.core.ingest.contract import read_contract
from tasks.core.schema import REJECTED, REPORTS, arrow_schema

from .conftest import NOW, Dataset


def test_summary_is_json_and_adds_up(dataset: Dataset) -> None:
    """The summary of an ingest is JSON, and its rows are reports plus rejected."""
    dataset.write("a.csv", "id,text\n1,un\n2,\n")
    dataset.write("b.txt", "un rapport\n")
    summary = dataset.ingest(text_column="text")
    found = json.loads(json.dumps(dataclasses.asdict(summary)))
    assert (found["rows_in"], found["reports"], found["rejected"]) == (3, 2, 1)
    assert [file["source_file"] for file in found["files"]] == ["a.csv", "b.txt"]
    assert found["files"][0]["size_bytes"] == 16


def test_stored_tables(dataset: Dataset) -> None:
    """Reports hold our columns around the source's own; both tables carry all their types."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.ingest(text_column="text")
    (row,) = dataset.rows()
    assert row.pop("report_id")
    assert row == {
        "dataset": "ds",
        "source_file": "a.csv",
        "source_row": 1,
        "id": "1",
        "text": "un",
        "source_text": "un",
        "ingested_at": NOW,
        "schema_version": 1,
    }
    fields = [pa.field("id", pa.string()), pa.field("text", pa.string())]
    (reports,) = dataset.folder.glob("root/reports/ds/*")
    (rejected,) = dataset.folder.glob("root/rejected/ds/*")
    assert pq.read_schema(reports) == arrow_schema(REPORTS, fields)
    assert pq.read_schema(rejected) == arrow_schema(REJECTED)
    assert reports.name.startswith("a.csv-")
    assert pq.ParquetFile(reports).metadata.row_group(0).column(0).compression == "ZSTD"


def test_polars_and_duckdb_agree(dataset: Dataset) -> None:
    """A glob over parts of files with different columns reads the same everywhere."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.write("b.jsonl", '{"text": "deux", "extra": 7}\n')
    dataset.write("c.txt", "trois")
    dataset.ingest(text_column="text")
    pattern = str(dataset.folder / "root/reports/ds/*.parquet")
    query = f"select * from '{pattern}' order by source_text"  # noqa: S608 - a path of this test
    by_polars = pl.read_parquet(pattern).sort("source_text")
    assert by_polars["extra"].to_list() == [7, None, None]
    assert [row[2:4] for row in duckdb.sql(query).fetchall()] == [
        row[2:4] for row in by_polars.rows()
    ]
    rejected = str(dataset.folder / "root/rejected/ds/*.parquet")
    assert pl.read_parquet(rejected).height == 0


def test_given_again_replaces(dataset: Dataset) -> None:
    """A file given again replaces its reports and its rejected rows; the others stay."""
    a = dataset.write("a.csv", "id,text\n1,un\n2,\n")
    dataset.write("b.csv", "id,text\n3,trois\n")
    dataset.ingest()
    kept = dataset.rows()[1]
    a.write_text("id,text\n1,autre\n")
    dataset.ingest(a)
    assert dataset.column("source_text") == ["autre", "trois"]
    assert dataset.rows()[1] == kept
    assert dataset.rows("rejected") == []


def test_given_again_unchanged_gives_the_same(dataset: Dataset) -> None:
    """Ingesting the same files twice changes nothing that is stored."""
    dataset.write("a.csv", "id,text\n1,un\n1,un\n")
    dataset.write("b.txt", "trois")
    dataset.ingest(text_column="text")
    rows, record = dataset.rows(), dataset.store.read("datasets/ds.json")
    dataset.ingest(text_column="text")
    assert dataset.rows() == rows
    assert dataset.store.read("datasets/ds.json") == record
    assert len({row["report_id"] for row in rows}) == 3


def test_text_files_share_a_part(dataset: Dataset) -> None:
    """Plain text files are one report each, in one part, upserted one by one."""
    dataset.write("a.txt", "un\r\ndeux\n".encode("cp1252"))
    dataset.write("sub/b.md", "\ufefftrois")
    dataset.write("empty.txt", " \n")
    dataset.ingest()
    assert dataset.column("source_text") == ["un\r\ndeux\n", "trois"]
    assert dataset.column("file_name") == ["a.txt", "b.md"]
    a = dataset.write("a.txt", "changé")
    dataset.ingest(a)
    assert dataset.column("source_text") == ["changé", "trois"]
    assert dataset.column("reason", "rejected") == ["no_text"]
    assert [path.name for path in dataset.folder.glob("root/reports/ds/*")] == [
        "text-files.parquet"
    ]


def test_id_column(dataset: Dataset) -> None:
    """Ids come from the id column; rows without one, or with one twice, are set aside."""
    dataset.write("a.csv", "ref,text\nA,\nA,un\n,deux\nB,trois\nB,quatre\n")
    dataset.write("b.csv", "ref,text\nB,cinq\nC,six\n")
    summary = dataset.ingest(text_column="text", id_column="ref")
    assert dataset.column("report_id") == ["A", "B", "C"]
    assert dataset.column("source_text") == ["un", "trois", "six"]
    assert summary.reasons == {"duplicate_id": 2, "no_id": 1, "no_text": 1}
    assert "a.csv, row 4" in dataset.column("detail", "rejected")[-1]


def test_typed_ids_become_text(dataset: Dataset) -> None:
    """An id that is a number in its source is the text of that number."""
    dataset.write("a.jsonl", '{"n": 7, "text": "un"}\n{"text": "deux"}\n')
    summary = dataset.ingest(id_column="n")
    assert dataset.column("report_id") == ["7"]
    assert summary.reasons == {"no_id": 1}


def test_id_column_must_exist(dataset: Dataset) -> None:
    """An id column that a file lacks is refused with the columns there are."""
    dataset.write("a.csv", "ref,text\n1,un\n")
    with pytest.raises(ConfigurationError, match=r"--id-column 'rfe'.*did you mean 'ref'"):
        dataset.ingest(id_column="rfe")


def test_ids_move_between_files(dataset: Dataset) -> None:
    """An id that a later file brings is taken from the rows of the file that had it."""
    dataset.write("a.csv", "ref,text\n1,un\n2,deux\n")
    dataset.ingest(id_column="ref")
    b = dataset.write("b.csv", "ref,text\n2,DEUX\n3,trois\n")
    summary = dataset.ingest(b, id_column="ref")
    assert [(row["report_id"], row["source_text"]) for row in dataset.rows()] == [
        ("1", "un"),
        ("2", "DEUX"),
        ("3", "trois"),
    ]
    assert any("a.csv" in note for note in summary.notes)


texts = st.lists(st.sampled_from(["un", "deux", "trois"]), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(rows=texts, added=st.sampled_from(["un", "quatre"]), place=st.integers(0, 6))
def test_inserting_a_row_changes_no_other_id(rows: list[str], added: str, place: int) -> None:
    """Ids made from rows survive the insertion of any row, an identical one too."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder))
        path = dataset.write("a.csv", "\n".join(["n,text", *(f"1,{row}" for row in rows)]))
        dataset.ingest(text_column="text")
        before = dataset.column("report_id")
        assert len(set(before)) == len(rows)
        more = [*rows[:place], added, *rows[place:]]
        path.write_text("\n".join(["n,text", *(f"1,{row}" for row in more)]))
        dataset.ingest(text_column="text")
        after = dataset.column("report_id")
        assert set(before) < set(after)
        assert len(set(after)) == len(more)


def test_unknown_columns_need_evolve(dataset: Dataset) -> None:
    """A later file's new column is refused by name; with evolve every part gets it."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.write("t.txt", "texte")
    dataset.ingest(text_column="text")
    b = dataset.write("b.csv", "id,TEXT,new\n2,deux,x\n")
    with pytest.raises(ConfigurationError, match=r"b\.csv: column 'new'.*--evolve"):
        dataset.ingest(b, text_column="text")
    assert dataset.column("source_text") == ["un", "texte"]
    dataset.ingest(b, text_column="text", evolve=True)
    assert list(dataset.types()) == ["id", "text", "file_name", "new"]
    assert dataset.column("new") == [None, "x", None]
    assert dataset.column("text") == ["un", "deux", "texte"]


def test_missing_columns_are_null(dataset: Dataset) -> None:
    """A later file may lack columns of the dataset."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.ingest()
    dataset.ingest(dataset.write("b.csv", "text\ndeux\n"))
    assert dataset.column("id") == ["1", None]


def test_types_are_fixed_and_evolve(dataset: Dataset) -> None:
    """Another type is refused by name; evolve widens integers to floats, then to text."""
    dataset.write("a.jsonl", '{"text": "un", "n": 1}\n')
    dataset.ingest()
    b = dataset.write("b.jsonl", '{"text": "deux", "n": 0.5}\n')
    with pytest.raises(ConfigurationError, match=r"'n' is int64 in dataset ds but double in b"):
        dataset.ingest(b)
    dataset.ingest(b, evolve=True)
    assert dataset.types()["n"] == "double"
    assert dataset.column("n") == [1.0, 0.5]
    dataset.ingest(dataset.write("c.jsonl", '{"text": "trois", "n": "x"}\n'), evolve=True)
    assert dataset.types()["n"] == "string"
    assert dataset.column("n") == ["1.0", "0.5", "x"]
    contract = read_contract(dataset.store, "ds")
    assert contract is not None
    assert [str(field.type) for field in contract.source_fields] == ["string", "string"]


def test_types_differ_within_one_ingest(dataset: Dataset) -> None:
    """Two files that disagree on a type are both named; integers fit a float column."""
    dataset.write("a.jsonl", '{"text": "un", "n": 1}\n')
    dataset.write("b.jsonl", '{"text": "deux", "N": "x"}\n')
    with pytest.raises(ConfigurationError, match=r"int64 in a\.jsonl but string in b\.jsonl"):
        dataset.ingest()
    dataset.write("b.jsonl", '{"text": "deux", "N": 0.5}\n')
    dataset.ingest()
    assert dataset.column("n") == [1.0, 0.5]


def test_all_null_columns_keep_the_declared_type(dataset: Dataset) -> None:
    """A column without a value in one file has the type it has in the others."""
    dataset.write("a.jsonl", '{"text": "un", "n": null}\n')
    dataset.write("b.jsonl", '{"text": "deux", "n": 5}\n')
    dataset.ingest()
    assert dataset.types()["n"] == "int64"
    dataset.ingest(dataset.write("c.jsonl", '{"text": "trois", "n": null}\n'))
    assert dataset.types()["n"] == "int64"


def test_text_column_is_the_longest_over_all_files(dataset: Dataset) -> None:
    """Without a name, the column with the longest texts of all files is taken everywhere."""
    dataset.write("a.csv", "title,text\nun titre assez long,court\n")
    dataset.write("b.csv", "title,text\nt,un texte vraiment beaucoup plus long que le titre\n")
    summary = dataset.ingest()
    assert {file.text_column for file in summary.files} == {"text"}
    later = dataset.write("c.csv", "title,text\nun titre plus long que son texte,court\n")
    assert dataset.ingest(later).files[0].text_column == "text"


def test_a_file_without_rows_decides_nothing(dataset: Dataset) -> None:
    """The text column is not guessed from a header alone, nor remembered from one."""
    path = dataset.write("a.csv", "id,text\n")
    assert dataset.ingest().files[0].text_column is None
    path.write_text("id,text\n1,un texte\n")
    assert dataset.ingest().files[0].text_column == "text"


def test_no_text_column(dataset: Dataset) -> None:
    """A file in which no column holds text is refused with its columns."""
    dataset.write("a.jsonl", '{"n": 1}\n')
    with pytest.raises(ConfigurationError, match=r"no column holds text.*n \(int64\)"):
        dataset.ingest()


def test_reserved_names_give_way(dataset: Dataset) -> None:
    """A source column with one of our names is stored as source_NAME, and found by its own."""
    dataset.write("a.csv", "Status,source_text\nok,un\n")
    summary = dataset.ingest(text_column="source_text")
    assert list(dataset.types()) == ["source_Status", "source_source_text"]
    assert dataset.column("source_text") == ["un"]
    assert any("source_Status" in note for note in summary.notes)


def test_leftovers_of_a_broken_ingest_are_deleted(dataset: Dataset) -> None:
    """A part that no record names does not stay among the reports."""
    dataset.store.put("reports/ds/stray-00000000.parquet", b"")
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.ingest()
    assert len(dataset.rows()) == 1


def test_refused_ingest_stores_nothing(dataset: Dataset) -> None:
    """When one of the files cannot be read, none of them is stored."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.write("b.parquet", b"PAR1")
    with pytest.raises(SourceError, match=r"b\.parquet"):
        dataset.ingest()
    assert dataset.store.list("reports") == []
    assert not list(dataset.folder.glob("root/.staging/*"))


def test_file_that_changes_meanwhile(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes between being looked at and being stored stops the ingest."""
    path = dataset.write("a.csv", "id,text\n1,un\n")
    planned = upsert.made_plan

    def plan_slowly(*args: object) -> object:
        path.write_text("id,text\n1,un\n2,deux\n")
        return planned(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(upsert, "made_plan", plan_slowly)
    with pytest.raises(SourceError, match="changed while"):
        dataset.ingest()
    assert dataset.rows() == []


def test_damaged_record(dataset: Dataset) -> None:
    """A dataset record that is not ours is named with the way out."""
    dataset.store.put("datasets/ds.json", b"{}")
    with pytest.raises(StorageError, match=r"ds\.json.*delete it"):
        read_contract(dataset.store, "ds")


def test_contract(dataset: Dataset) -> None:
    """The contract gives the stages after this one the columns and the files."""
    assert read_contract(dataset.store, "ds") is None
    dataset.write("a.csv", "id,text\n1,un\n")
    summary = dataset.ingest(text_column="text", id_column="id")
    contract = read_contract(dataset.store, "ds")
    assert contract is not None
    assert contract.source_fields == (pa.field("id", pa.string()), pa.field("text", pa.string()))
    assert (contract.text_column, contract.id_column) == ("text", "id")
    (file,) = contract.files
    assert file.summary == summary.files[0]
    assert dataset.store.exists(file.reports_key)
    assert dataset.store.exists(file.rejected_key)


def test_changed_id_rule_is_told(dataset: Dataset) -> None:
    """A later ingest that makes ids another way says so."""
    dataset.write("a.csv", "id,text\n1,un\n")
    dataset.ingest(id_column="id")
    assert any("have other ids" in note for note in dataset.ingest().notes)
