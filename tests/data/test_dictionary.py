"""The data dictionary keeps step with the schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core import data_dictionary, schema

README = Path(__file__).resolve().parents[2] / "data" / "README.md"


def test_readme_is_what_the_schema_says() -> None:
    """`data/README.md` is what `make docs` writes, character for character."""
    assert README.read_text(encoding="utf-8") == data_dictionary.render()


@pytest.mark.parametrize(
    "columns", [schema.REPORTS, schema.REJECTED, schema.TRANSLATIONS, schema.ATTEMPTS]
)
def test_every_column_is_explained(columns: tuple[schema.Column, ...]) -> None:
    """Each column of each table stands in it, with its meaning."""
    lines = README.read_text(encoding="utf-8").splitlines()
    for column in columns:
        rows = [line for line in lines if line.startswith(f"| `{column.name}` |")]
        assert any(column.meaning in row for row in rows), column.name
