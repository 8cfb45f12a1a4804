from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.errors import SourceError

from .conftest import Dataset


def put(dataset: Dataset, name: str, table: pa.Table) -> None:
    """Write a Parquet source file."""
    pq.write_table(table, dataset.write(name, b""))


def test_types_the_contract_allows(dataset: Dataset) -> None:
    """Every Arrow type is kept or becomes the documented one, and no value is lost."""
    naive = datetime(2020, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - a column without a time zone
    columns = {
        "text": pa.array(["un", "deux"], pa.large_string()),
        "dict": pa.array(["a", "b"]).dictionary_encode(),
        "wait": pa.array([timedelta(microseconds=7), None], pa.duration("us")),
        "naive": pa.array([naive, None], pa.timestamp("ns")),
        "zoned": pa.array([naive, None], pa.timestamp("ms", tz="Europe/Paris")),
        "day": pa.array([date(2020, 1, 2), None], pa.date32()),
        "day64": pa.array([date(2020, 1, 2), None], pa.date64()),
        "clock": pa.array([time(3, 4, 5), None], pa.time64("us")),
        "half": pa.array([0.5, None], pa.float16()),
        "u64": pa.array([2**64 - 1, None], pa.uint64()),
        "u8": pa.array([255, None], pa.uint8()),
        "i16": pa.array([1, None], pa.int16()),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "void": pa.nulls(2),
        "tags": pa.array([["a", "b"], None], pa.list_(pa.string())),
        "nested": pa.array([{"a": [1]}, None], pa.struct({"a": pa.list_(pa.int32())})),
        "blob": pa.array([b"\x00\xff", None], pa.large_binary()),
    }
    put(dataset, "a.parquet", pa.table(columns))
    summary = dataset.ingest(text_column="text")
    assert dataset.types() == {
        "text": "string",
        "dict": "string",
        "wait_us": "int64",
        "naive": "timestamp[us, tz=UTC]",
        "zoned": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "day64": "date32[day]",
        "clock": "string",
        "half": "float",
        "u64": "decimal128(20, 0)",
        "u8": "int64",
        "i16": "int16",
        "price": "decimal128(9, 2)",
        "void": "string",
        "tags": "list<element: string>",
        "nested": "string",
        "blob": "binary",
    }
    row = dataset.rows()[0]
    assert row["wait_us"] == 7
    assert row["naive"] == naive.replace(tzinfo=UTC)
    assert row["clock"] == "03:04:05"
    assert row["u64"] == 2**64 - 1
    assert row["tags"] == ["a", "b"]
    assert json.loads(row["nested"]) == {"a": [1]}
    assert row["blob"] == b"\x00\xff"
    assert any("'naive'" in note and "UTC" in note for note in summary.notes)
    # The record of the dataset names these types again.
    assert dataset.ingest(text_column="text").reports == 2


def test_unreadable_files_are_named(dataset: Dataset) -> None:
    """A file that is no Parquet, or half of one, is refused by name."""
    table = pa.table({"text": ["un"] * 1000})
    put(dataset, "a.parquet", table)
    whole = (dataset.folder / "in/a.parquet").read_bytes()
    dataset.write("a.parquet", whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"a\.parquet"):
        dataset.ingest()
    assert dataset.rows() == []


def test_damaged_pages_are_named(dataset: Dataset) -> None:
    """A file whose footer is sound but whose pages are not is refused by name."""
    put(dataset, "a.parquet", pa.table({"text": [f"texte {n}" for n in range(5000)]}))
    data = bytearray((dataset.folder / "in/a.parquet").read_bytes())
    data[4:2000] = b"\xff" * 1996
    dataset.write("a.parquet", bytes(data))
    with pytest.raises(SourceError, match=r"a\.parquet"):
        dataset.ingest()


def test_strings_that_are_no_utf8(dataset: Dataset) -> None:
    """A string that other writers stored as bytes costs its row only."""
    bad = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"un", b"de\xffux"], pa.binary()).buffers()
    )
    put(dataset, "a.parquet", pa.table({"text": bad}))
    summary = dataset.ingest()
    assert summary.reasons == {"undecodable": 1}
    assert "de\\xffux" in dataset.column("raw", "rejected")[0]


def test_rejected_rows_are_json(dataset: Dataset) -> None:
    """A row without text is kept as the JSON of its cells."""
    put(dataset, "a.parquet", pa.table({"text": ["un", "  "], "n": [1, 2], "d": [b"\x01", None]}))
    dataset.ingest(text_column="text")
    assert json.loads(dataset.column("raw", "rejected")[0]) == {"text": "  ", "n": 2, "d": None}
