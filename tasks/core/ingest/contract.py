"""What a dataset's files have in common: its source columns, their types, its files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.core.errors import ConfigurationError, StorageError
from tasks.core.ingest.cells import STRING, UNKNOWN, fits, type_name, type_named, wider
from tasks.core.ingest.rows import Field
from tasks.core.ingest.summary import FileSummary
from tasks.core.schema import SCHEMA_VERSION
from tasks.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One source file of a dataset, as its last ingest read it."""

    summary: FileSummary
    reports_key: str
    rejected_key: str
    ingested_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The source columns that every reports file of a dataset has, in order."""

    dataset: str
    source_fields: tuple[Field, ...]
    text_column: str | None
    """The text column of the tabular files, as stored; null when there were none."""
    id_column: str | None
    """The id column of the last ingest, as stored; null when ids are made from rows."""
    files: tuple[FileRecord, ...]


def contract_key(dataset: str) -> str:
    """Where a dataset's record stands below the root."""
    return f"datasets/{dataset}.json"


def read_contract(store: Store, dataset: str) -> Contract | None:
    """The dataset's contract; None before its first ingest.

    Raises `StorageError` when its record cannot be read or is not one of ours.
    """
    key = contract_key(dataset)
    if not store.exists(key):
        return None
    try:
        found = json.loads(store.read(key))
        return _contract_of(found)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{store.path(key)}: is not the record of a dataset ({error!r}); delete it and "
            "ingest the source files again"
        ) from error


def write_contract(store: Store, contract: Contract) -> None:
    """Put the dataset's record, replacing the one that was there."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "dataset": contract.dataset,
        "columns": [
            {"name": field.name, "type": type_name(field.type)} for field in contract.source_fields
        ],
        "text_column": contract.text_column,
        "id_column": contract.id_column,
        "files": [dataclasses.asdict(file) for file in contract.files],
    }
    text = json.dumps(record, ensure_ascii=False, indent=1)
    store.put(contract_key(contract.dataset), text.encode())


def agreed_fields(
    before: Contract | None, files: Iterable[tuple[str, Sequence[Field]]], *, evolve: bool
) -> tuple[Field, ...]:
    """The dataset's source columns with the columns of these files (by name) let in.

    The first ingest fixes the columns of all its files; later ones have to fit unless
    `evolve`. Names are compared ignoring case, the first spelling is kept, and a column
    that never had a value is text. Raises `ConfigurationError` that names the column.
    """
    columns: dict[str, _Agreed] = {}
    if before is not None:
        where = f"dataset {before.dataset}"
        for field in before.source_fields:
            columns[field.name.casefold()] = _Agreed(field.name, field.type, where)
    for source_file, fields in files:
        for field in fields:
            column = columns.get(field.name.casefold())
            if column is None:
                if before is not None and not evolve:
                    raise _unknown_column(field, source_file, before)
                columns[field.name.casefold()] = _Agreed(field.name, field.type, source_file)
            else:
                merged = _merged(column, field, source_file, first=before is None, evolve=evolve)
                columns[field.name.casefold()] = merged
    return tuple(
        pa.field(column.name, STRING if column.type == UNKNOWN else column.type)
        for column in columns.values()
    )


@dataclass(frozen=True, slots=True)
class _Agreed:
    name: str
    type: pa.DataType
    origin: str
    """Which file, or the dataset, gave it its type."""


def _merged(
    column: _Agreed, field: Field, source_file: str, *, first: bool, evolve: bool
) -> _Agreed:
    if fits(field.type, column.type):
        return column
    if evolve or (first and fits(column.type, field.type)):
        return _Agreed(column.name, wider(column.type, field.type), source_file)
    raise ConfigurationError(
        f"column {column.name!r} is {type_name(column.type)} in {column.origin} but "
        f"{type_name(field.type)} in {source_file}; make the types equal, or give --evolve to "
        "store a type that takes both"
    )


def _unknown_column(field: Field, source_file: str, before: Contract) -> ConfigurationError:
    known = ", ".join(known.name for known in before.source_fields)
    return ConfigurationError(
        f"{source_file}: column {field.name!r} is not one of dataset {before.dataset} ({known}); "
        "give --evolve to add it to every file of the dataset, or leave it out of the source"
    )


def _contract_of(found: dict[str, Any]) -> Contract:
    return Contract(
        dataset=found["dataset"],
        source_fields=tuple(
            pa.field(column["name"], type_named(column["type"])) for column in found["columns"]
        ),
        text_column=found["text_column"],
        id_column=found["id_column"],
        files=tuple(_file_record_of(file) for file in found["files"]),
    )


def _file_record_of(found: dict[str, Any]) -> FileRecord:
    summary = {**found["summary"], "preamble": tuple(found["summary"]["preamble"])}
    return FileRecord(**{**found, "summary": FileSummary(**summary)})
