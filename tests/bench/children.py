"""Measurements as processes of their own, which end when whoever started them does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from asyncio.subprocess import Process
from pathlib import Path
from subprocess import PIPE

CHECKOUT = Path(__file__).resolve().parents[2]


class ChildFailed(RuntimeError):
    """A measurement ended with an error; what it was, it has written to standard error."""


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a module; it has to call `end_with_parent`. Closing its standard input ends it."""
    return subprocess.Popen(
        _command(module, *arguments),
        env=_environment(),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
        text=True,
    )


async def start_async(module: str, *arguments: str) -> Process:
    """As `start`, for an event loop."""
    return await asyncio.create_subprocess_exec(
        *_command(module, *arguments),
        env=_environment(),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
    )


async def said(child: Process) -> str:
    """What the rest of a child's output is, once it has ended; kills it when cancelled."""
    assert child.stdout
    try:
        output = await child.stdout.read()
        code = await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if code:
        raise ChildFailed(f"a measurement ended with exit code {code}")
    return output.decode()


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def end_with_parent() -> None:
    """Called by a child: end, at once, when nobody is left who could write to standard input."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def leave() -> None:
    """End a child that has said all it has to say, whatever of it still runs."""
    sys.stdout.flush()
    os._exit(0)
