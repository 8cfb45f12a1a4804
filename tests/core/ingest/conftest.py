"""A dataset in a temporary folder, and the ways tests look into it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.core.ingest.summary import IngestSummary
from tasks.core.ingest.upsert import ingest
from tasks.core.settings import IngestSettings
from tasks.core.storage.store import Store

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Dataset:
    """The dataset `ds` below `folder/root`, and source files in `folder/in`."""

    folder: Path

    @property
    def store(self) -> Store:
        """Where the dataset is stored."""
        return Store(self.folder / "root")

    def write(self, name: str, content: bytes | str) -> Path:
        """Put a source file below `in`."""
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def ingest(self, *sources: Path | str, **options: Any) -> IngestSummary:
        """Ingest sources, all of `in` unless some are named."""
        given = [str(source) for source in sources or (self.folder / "in",)]
        settings = IngestSettings(root="root", dataset="ds", sources=given, **options)
        return ingest(self.store, settings, NOW)

    def rows(self, table: str = "reports") -> list[dict[str, Any]]:
        """All rows of a table, by source file and row."""
        parts = sorted(self.folder.glob(f"root/{table}/ds/*.parquet"))
        rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
        return sorted(rows, key=lambda row: (row["source_file"], row["source_row"]))

    def column(self, name: str, table: str = "reports") -> list[Any]:
        """One column of a table, in the order of `rows`."""
        return [row[name] for row in self.rows(table)]

    def types(self) -> dict[str, str]:
        """Types of the source columns, the same in every reports part."""
        schemas = {str(pq.read_schema(part)) for part in self.folder.glob("root/reports/ds/*")}
        assert len(schemas) == 1
        part = next(self.folder.glob("root/reports/ds/*"))
        names = [field.name for field in pq.read_schema(part)]
        source = names[names.index("source_row") + 1 : names.index("source_text")]
        return {name: str(pq.read_schema(part).field(name).type) for name in source}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """An empty dataset."""
    return Dataset(tmp_path)
