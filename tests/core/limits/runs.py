"""What tests of ledgers need: a host, runs that are processes, and patience."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.limits.local import LocalLedger

URL = "http://gpu1:11434"
PATIENCE_S = 30.0
"""For what has to happen, however slow the machine is that the tests run on."""

_PREAMBLE = """
import asyncio, os, random, signal, sys
from pathlib import Path
from tasks.core.limits.local import LocalLedger
folder, url = Path(sys.argv[1]), sys.argv[2]
"""


def new_run(folder: Path, now_s: float = 0.0) -> LocalLedger:
    """A ledger for which time stands still."""
    return LocalLedger(folder, check_every_s=0.005, clock=lambda: now_s)


@contextmanager
def other_process(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a script; it has said its first word by then, and is killed after."""
    command = [sys.executable, "-c", _PREAMBLE + script, str(folder), URL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def wait_until_stopped(child: subprocess.Popen[str]) -> None:
    """Wait for a process that stops itself."""
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)


def files_in(folder: Path) -> list[str]:
    """What kinds of files lie below a folder."""
    return sorted(path.suffix or path.name for path in folder.rglob("*") if path.is_file())


def clean_up(folder: Path) -> None:
    """Delete everything below a folder, as a cleaner of temporary files does."""
    for path in folder.glob("*"):
        shutil.rmtree(path)


async def eventually(ask: Callable[[], Awaitable[object]], answer: object) -> None:
    """Ask again and again until the answer is this."""
    until = time.monotonic() + PATIENCE_S
    while (found := await ask()) != answer:
        assert time.monotonic() < until, f"still {found}, not {answer}"
        await asyncio.sleep(0.005)
