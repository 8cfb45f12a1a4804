"""The process of one model: llama.cpp's own server, behind a Unix socket."""

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from deployments.local_ollama.engine import EngineError

_Pipe = TypeVar("_Pipe", asyncio.StreamReader, asyncio.StreamWriter)
_RUNNER = Path(__file__).with_name("llama_runner.py")
_READY = b"ready\n"
_ASK_S = 30.0
_END_S = 5.0
_LINES_REMEMBERED = 50
_LONGEST_LINE = 1 << 16
_LOG_PREFIX = re.compile(r"^[\d.]+ [A-Z] ")


class LlamaProcess:
    """The process of one model, in a folder with its socket that only this user may enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=_LINES_REMEMBERED)
        self._listener: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Path:
        """Where llama.cpp listens."""
        return self._folder / "llama.sock"

    @property
    def runs(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, **launch: Any) -> None:
        """Return once the model is loaded. Raises EngineError."""
        given = json.dumps({"socket": str(self.socket), **launch})
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Else the folder of the program would be searched first, and it has common names.
            "-P",
            str(_RUNNER),
            given,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            # Where llama.cpp aborts it would call a debugger to print its own stack.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            # A Ctrl-C in the terminal is the parent's to handle, which then ends this process.
            start_new_session=True,
        )
        self._listener = asyncio.create_task(self._listen(_pipe(self._process.stderr)))
        if await _pipe(self._process.stdout).readline() != _READY:
            await self._listener
            # The first line names the cause, those after it what came of that.
            raise EngineError(_terminated(await self._process.wait(), next(iter(self._said), "")))
        self._said.clear()

    async def failure(self, what: str) -> EngineError:
        """What to say of a request that broke off: why the process ended, if it did."""
        if self._process is None:
            return EngineError(what)
        try:
            async with asyncio.timeout(_END_S):
                code = await self._process.wait()
        except TimeoutError:
            return EngineError(what)
        return EngineError(_terminated(code, self._said[-1] if self._said else ""))

    def ask(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Ask and wait for the answer, while nothing else runs. Raises EngineError."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("POST", path, json.dumps(asked))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as lost:
            raise EngineError(f"llama-server does not answer: {lost}") from lost
        finally:
            connection.close()
        if response.status != HTTPStatus.OK:
            raise EngineError(body.decode(), response.status)
        answer: dict[str, Any] = json.loads(body)
        return answer

    async def end(self, *, at_once: bool = False) -> None:
        """End the process and remove its folder, also where it never came up."""
        process = self._process
        try:
            if process is not None:
                _pipe(process.stdin).close()
                if not at_once:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_END_S):
                            await process.wait()
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                await process.wait()
            if self._listener is not None:
                await self._listener
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _listen(self, errors: asyncio.StreamReader) -> None:
        """Remember the last lines on standard error; unread they would block the process."""
        rest = ""
        while received := await errors.read(_LONGEST_LINE):
            *lines, rest = (rest + received.decode(errors="replace")).split("\n")
            self._said.extend(_LOG_PREFIX.sub("", line) for line in lines if line.strip())
            rest = rest[-_LONGEST_LINE:]
        if rest.strip():
            self._said.append(_LOG_PREFIX.sub("", rest))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("llama", timeout=_ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _pipe(pipe: _Pipe | None) -> _Pipe:
    if pipe is None:
        raise AssertionError("the process was started with this pipe")
    return pipe


def _terminated(code: int, cause: str) -> str:
    """In Ollama's words, which are Go's: `exit status 1`, `signal: killed`."""
    if code < 0:
        how = f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    else:
        how = f"exit status {code}"
    return f"llama-server process has terminated: {how}" + (f": {cause}" if cause else "")
