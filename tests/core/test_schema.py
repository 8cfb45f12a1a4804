from __future__ import annotations

import pyarrow as pa
import pytest

from tasks.core import schema

TABLES = {
    "reports": schema.REPORTS,
    "rejected": schema.REJECTED,
    "translations": schema.TRANSLATIONS,
    "attempts": schema.ATTEMPTS,
    "plan": schema.PLAN,
}
COLUMNS = [(table, column) for table, columns in TABLES.items() for column in columns]


@pytest.mark.parametrize("table", TABLES)
def test_names_are_unique_ignoring_case(table: str) -> None:
    """No table has two columns of one name: some readers do not tell upper from lower case."""
    names = [column.name.lower() for column in TABLES[table]]
    assert len(set(names)) == len(names)


def test_types_that_every_reader_knows() -> None:
    """Only types on which polars, DuckDB, pandas and Spark agree are used."""
    known = {schema.STRING, schema.INT32, schema.INT64, schema.STRINGS, schema.INSTANT}
    assert {column.type for _, column in COLUMNS} <= known
    assert pa.timestamp("us", tz="UTC") == schema.INSTANT


def test_durations_have_their_unit_in_the_name() -> None:
    """A duration is an int64 whose name ends in its unit, and an instant ends in `_at`."""
    for _, column in COLUMNS:
        assert (column.type == schema.INSTANT) == column.name.endswith("_at")
        if "duration" in column.name or "wait" in column.name or "wall" in column.name:
            assert column.name.endswith("_ns")
            assert column.type == schema.INT64


def test_one_name_has_one_type_and_meaning() -> None:
    """A column that several tables have is of the same type in all of them."""
    types: dict[str, set[pa.DataType]] = {}
    for _, column in COLUMNS:
        types.setdefault(column.name, set()).add(column.type)
        assert column.meaning
    assert {name for name, found in types.items() if len(found) > 1} == set()


def test_reserved_names() -> None:
    """Every column of every table is a name that a source column cannot keep."""
    assert {column.name for _, column in COLUMNS} == schema.RESERVED_NAMES
    assert all(name == name.lower() for name in schema.RESERVED_NAMES)


def test_source_columns_follow_the_source_row() -> None:
    """The dataset's own columns stand together, after those that say where a row is from."""
    own = [pa.field("ward", pa.string()), pa.field("age", pa.int64())]
    names = schema.arrow_schema(schema.TRANSLATIONS, own).names
    assert names[:7] == [
        "dataset",
        "report_id",
        "source_file",
        "source_row",
        "ward",
        "age",
        "source_text",
    ]
    plain = schema.arrow_schema(schema.TRANSLATIONS)
    assert [name for name in names if name not in ("ward", "age")] == plain.names
    assert plain.names == [column.name for column in schema.TRANSLATIONS]


def test_source_columns_are_found_again() -> None:
    """From the schema of a `reports` file its source columns come back, types and all."""
    own = [pa.field("ward", pa.string()), pa.field("age", pa.int64())]
    assert schema.source_fields(schema.arrow_schema(schema.REPORTS, own)) == own
    assert schema.source_fields(schema.arrow_schema(schema.REPORTS)) == []


def test_every_published_table_has_its_version() -> None:
    """Each table that readers open says which version of its columns it has."""
    for name in ("reports", "rejected", "translations", "attempts"):
        assert TABLES[name][-1].name == "schema_version"
    assert schema.SCHEMA_VERSION == 1
