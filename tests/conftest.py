"""Settles the environment before anything imports Prefect, and gives the tests one server.

Starting a Prefect server takes about ten seconds, so the tests that need one share it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

_HOME = tempfile.TemporaryDirectory(prefix="report-translation-prefect-")

# Not the user's profile, server or results, and nothing that leaves this machine.
for _name in list(os.environ):
    if _name.startswith("PREFECT_") or _name.lower().endswith("_proxy"):
        del os.environ[_name]
os.environ |= {
    # Runs of these tests share hosts with each other, not with runs of this machine.
    "REPORTS_SLOTS_FOLDER": f"{_HOME.name}/slots",
    "PREFECT_HOME": _HOME.name,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
}
for _name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
    os.environ.pop(_name, None)

SET_AS_OURS = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
}
"""As deployments/compose.yaml sets its Prefect server."""

SERVER_START_S = 90.0
CHILD_STOP_S = 20.0


def pytest_unconfigure() -> None:
    """Remove Prefect's folder when all tests have run."""
    _HOME.cleanup()


def unmeasured(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that runs none of our code: its coverage is not measured."""
    return {name: value for name, value in environment.items() if "COVERAGE" not in name}


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask a child to end; kill it if it does not."""
    child.terminate()
    try:
        child.wait(CHILD_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prefect API that lives as long as the tests, with a database of its own."""
    home = tmp_path_factory.mktemp("prefect-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        child = subprocess.Popen(
            command,
            cwd=home,
            env={**unmeasured(os.environ), "PREFECT_HOME": str(home), **SET_AS_OURS},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", child, home / "server.log")
        yield f"http://127.0.0.1:{port}/api"
    finally:
        stop(child)


def _wait_until_healthy(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + SERVER_START_S
    while time.monotonic() < until and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the Prefect server did not start: {log.read_text(errors='replace')[-2000:]}")
