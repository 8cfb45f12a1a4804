"""The command, ready to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.harness import Reports


@pytest.fixture
def reports(tmp_path: Path, prefect_api: str) -> Reports:
    """The command with the tests' Prefect server and a folder of its own."""
    return Reports(tmp_path, prefect_api)
