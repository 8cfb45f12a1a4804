"""Recorded traffic of a real Ollama, replayed, where `--recordings DIR` names some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.compare import Difference, NotAsOllama
from tests.contract.conftest import REPORTS
from tests.contract.recording import NotARecording, read_recording
from tests.contract.replay import Replayer
from tests.contract.target import Target


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each file of the folder."""
    if "recording" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--recordings", default=None)
        files: list[Any] = sorted(folder.glob("*.txt")) if folder else []
        none = pytest.param(None, marks=pytest.mark.skip("--recordings DIR is not given"))
        metafunc.parametrize(
            "recording", files or [none], ids=lambda file: file.name if file else "none"
        )


@pytest.fixture(scope="module")
def replayer(target: Target) -> Iterator[Replayer]:
    """A replayer whose models are on the server as long as the recordings are replayed."""
    replayer = Replayer(target.url)
    replayer.prepare()
    yield replayer
    replayer.clean_up()


def test_recording(replayer: Replayer, recording: Path, request: pytest.FixtureRequest) -> None:
    """Every request of the recording is answered as it was by Ollama."""
    reports = request.config.stash.setdefault(REPORTS, [])
    try:
        exchanges = read_recording(recording)
    except NotARecording as reason:
        reports.append(f"{recording.name}: skipped, {reason}")
        pytest.skip(str(reason))
    report = replayer.replay(recording.name, exchanges)
    reports.append(str(report))
    if report.differing:
        got = f"{len(report.differing)} that differ; the report of the replay lists them"
        raise NotAsOllama([Difference(recording.name, f"{report.total} equal answers", got)])
