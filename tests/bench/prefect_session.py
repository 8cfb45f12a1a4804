"""A Prefect server of the benchmark's own, which ends with the process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tests.bench.children import end_with_parent, start

START_S = 120.0
_POLL_S = 0.05


@contextlib.contextmanager
def prefect_session() -> Iterator[float]:
    """The seconds it took to start a temporary server, import Prefect and run an empty flow.

    Enter it before anything imports Prefect, which reads its settings then. The server is
    started as Prefect itself would for a command without one; its database is a new one in
    a folder that is removed at the end.
    """
    with tempfile.TemporaryDirectory(prefix="bench-prefect-", ignore_cleanup_errors=True) as home:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]
        os.environ |= {
            "PREFECT_HOME": home,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
            "DO_NOT_TRACK": "1",
        }
        began = time.monotonic()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with start("tests.bench.prefect_session", str(port)) as server:
            try:
                _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", server)
                os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
                _run_nothing()
                yield time.monotonic() - began
            finally:
                server.kill()


def _wait_until_healthy(url: str, server: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - ours
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise RuntimeError("the temporary Prefect server did not start")


def _run_nothing() -> None:
    from prefect import flow, task

    @task
    def nothing() -> None:
        """Do nothing."""

    @flow(name="warm-up")
    def warm_up() -> None:
        """Have everything imported and connected."""
        nothing.submit().wait()

    warm_up()


def _serve(port: int) -> None:
    end_with_parent()
    # As Prefect sets them for its temporary server.
    os.environ |= {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="critical",
        lifespan="on",
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
