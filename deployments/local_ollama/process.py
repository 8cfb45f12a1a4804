"""Servers as child processes, for the demo, the tests and the benchmarks."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from deployments.local_ollama.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
START_S = 30.0
STOP_S = 5.0
_ASK_S = 10.0
_FIRST_WORDS = "Listening on "


class ServerStartError(RuntimeError):
    """A child process that did not come up; the message holds what it wrote."""


class ServerProcess:
    """A local server in a child process of this one.

    The child stops when its standard input closes, so it cannot outlive its parent, however that
    ends. Only this child is ever stopped or killed.
    """

    def __init__(self, settings: Settings, faults: Iterable[Mapping[str, Any]] = ()) -> None:
        """Start the child without waiting for it; `wait_until_up` gives it its `url`."""
        self.settings = settings
        self.url = ""
        command = [sys.executable, "-m", "deployments.local_ollama", "--until-stdin-closes"]
        command += settings.command_line()
        for fault in faults:
            command += ["--fault", json.dumps(fault)]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._child = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # A Ctrl-C in the terminal is the parent's to handle, which then stops the child.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """The child's exit code, or None while it runs."""
        return self._child.poll()

    def wait_until_up(self, seconds: float = START_S) -> None:
        """Wait until the child listens. Raises ServerStartError where it ends or takes longer."""
        stdout = self._child.stdout
        if stdout is None:
            raise RuntimeError("the child was started without a pipe to read its URL from")
        until, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], max(0.0, until - time.monotonic()))
            part = os.read(stdout.fileno(), 1024) if ready else b""
            if not part:
                self.kill()
                why = "it ended" if ready else f"it said nothing for {seconds:g} s"
                raise ServerStartError(f"the local server did not start: {why}. {self._said()}")
            line += part
            if b"\n" in line:
                line = line[: line.index(b"\n") + 1]
        self.url = line.decode().removeprefix(_FIRST_WORDS).strip()

    def stats(self, *, requests: bool = False) -> dict[str, Any]:
        """The server's counters; with `requests`, one record per request that carried text."""
        answer: dict[str, Any] = self._ask("GET", f"/_local/stats?requests={int(requests)}")
        return answer

    def reset_stats(self) -> None:
        """Start counting again from zero."""
        self._ask("DELETE", "/_local/stats")

    def add_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Switch faults on, after those already in force."""
        self._ask("POST", "/_local/faults", [dict(rule) for rule in rules])

    def clear_faults(self) -> None:
        """Switch every fault off."""
        self._ask("DELETE", "/_local/faults")

    def stop(self) -> None:
        """Ask the child to end and wait for it; kill it if it does not within STOP_S seconds."""
        if self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._close_pipes()

    def kill(self) -> None:
        """End the child as a power cut would, and wait for it."""
        self._child.kill()
        self._child.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _said(self) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        self._errors.close()
        return f"It wrote: {said}" if said else "It wrote nothing."

    def close(self) -> None:
        """Stop the child, if it still runs, and free what belongs to it here."""
        self.stop()
        self._errors.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310
        # Proxy variables are meant for other machines; this is a child on the loopback address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_ASK_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                said = json.load(refused).get("error", "")
            raise ValueError(f"{method} {path} was refused: {said}") from refused


@contextlib.contextmanager
def local_servers(
    settings: Sequence[Settings], *, faults: Sequence[Mapping[str, Any]] = ()
) -> Iterator[list[ServerProcess]]:
    """Run one child process for each of `settings`, all with the same faults, until the block ends.

    They start side by side, and each has a `url` that answers when the block begins.
    """
    started: list[ServerProcess] = []
    try:
        # One by one, so that a child that cannot be started leaves none behind.
        for each in settings:
            started.append(ServerProcess(each, faults))  # noqa: PERF401
        for server in started:
            server.wait_until_up()
        yield started
    finally:
        for server in started:
            server.close()


@contextlib.contextmanager
def local_server(
    settings: Settings | None = None, *, faults: Sequence[Mapping[str, Any]] = ()
) -> Iterator[ServerProcess]:
    """Run one server as a child process until the block ends."""
    with local_servers([settings or Settings()], faults=faults) as servers:
        yield servers[0]


def _environment() -> dict[str, str]:
    """Our environment with the checkout importable; settings come by arguments alone."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "LOCAL_OLLAMA_"))}
    before = kept.get("PYTHONPATH")
    kept["PYTHONPATH"] = f"{CHECKOUT}{os.pathsep}{before}" if before else str(CHECKOUT)
    return kept
