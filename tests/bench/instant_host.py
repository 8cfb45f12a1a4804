"""Hosts that answer at once: what is left is the cost of the client.

    python -m tests.bench.instant_host --count 4

They speak as much of Ollama as a run asks for, and not streamed. One process serves
several ports, so that on two cores the client has one for itself. Every answer is the
same; `GET /_local/stats` says how many there were since it was last asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.bench.children import end_with_parent, start

MODEL = "instant-fr-en"
TRANSLATION = (
    "The switch was inspected in the morning; no anomaly was found. The rail is worn, yet below "
    "the limit, and the part has been replaced."
)
DIGEST = "1f" * 32
VERSION = "0.33.0-instant"

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_FIRST_WORDS = "Listening on "


def _json(status: str, body: object) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


_HEAD = {"model": MODEL, "created_at": "2026-11-22T12:00:00.123456Z"}
_METRICS = {
    "total_duration": 1_200_000,
    "load_duration": 40_000,
    "prompt_eval_count": 120,
    "prompt_eval_duration": 300_000,
    "eval_count": -(-len(TRANSLATION) // 4),
    "eval_duration": 800_000,
}
_LOADED = {"done": True, "done_reason": "load"}
_MADE = {"done": True, "done_reason": "stop", **_METRICS}
_CHAT = b"/api/chat"
_ANSWERS = {
    _CHAT: _json(
        "200 OK", {**_HEAD, "message": {"role": "assistant", "content": TRANSLATION}, **_MADE}
    ),
    b"/api/generate": _json("200 OK", {**_HEAD, "response": TRANSLATION, **_MADE}),
}
_LOADS = {
    _CHAT: _json("200 OK", {**_HEAD, "message": {"role": "assistant", "content": ""}, **_LOADED}),
    b"/api/generate": _json("200 OK", {**_HEAD, "response": "", **_LOADED}),
}
_CARD = {
    "name": f"{MODEL}:latest",
    "model": f"{MODEL}:latest",
    "size": 1 << 20,
    "digest": DIGEST,
    "details": {"format": "instant", "family": "instant", "parameter_size": "0"},
}
_RUNNING = {
    **_CARD,
    "expires_at": "2026-11-22T12:30:00Z",
    "size_vram": 1 << 20,
    "context_length": 4096,
}
_FACTS = {
    b"/api/version": _json("200 OK", {"version": VERSION}),
    b"/api/tags": _json("200 OK", {"models": [{**_CARD, "modified_at": _HEAD["created_at"]}]}),
    b"/api/ps": _json("200 OK", {"models": [_RUNNING]}),
}
_NOT_HERE = _json("404 Not Found", {"error": "an instant host has no such endpoint"})
_NOT_SO = _json("400 Bad Request", {"error": "an instant host reads whole bodies, unstreamed"})


@dataclass
class InstantHost:
    """The counters of one port."""

    answered: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    other: int = 0
    """Requests for anything but an answer."""
    first_request_at: float = 0.0
    last_answer_at: float = 0.0
    """Unix seconds, both."""
    connections: set[Connection] = field(default_factory=set)

    def take_stats(self) -> bytes:
        """The counters since the last time this was asked for, as a response."""
        stats = _json(
            "200 OK",
            {
                "answered": self.answered,
                "peak_in_flight": self.peak_in_flight,
                "other": self.other,
                "first_request_at": self.first_request_at,
                "last_answer_at": self.last_answer_at,
                "connections": len(self.connections),
            },
        )
        self.answered = self.other = 0
        self.peak_in_flight = self.in_flight
        self.first_request_at = self.last_answer_at = 0.0
        return stats


class Connection(asyncio.Protocol):
    """One connection of a client, kept open as long as the client likes."""

    def __init__(self, host: InstantHost) -> None:
        self._host = host
        self._unread = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End."""
        self._transport = None
        self._host.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._unread += data
        while (end := self._unread.find(_END_OF_HEAD)) >= 0:
            head = self._unread[:end]
            body_at = end + len(_END_OF_HEAD)
            at = head.lower().find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._unread) < body_at + length:
                return
            body = self._unread[body_at : body_at + length]
            self._unread = self._unread[body_at + length :]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        host = self._host
        if path in _ANSWERS:
            if not body or b'"stream":true' in body:
                self._write(_NOT_SO)
            elif b'"role"' not in body and b'"prompt":"' not in body:
                host.other += 1
                self._write(_LOADS[path])
            else:
                host.first_request_at = host.first_request_at or time.time()
                host.in_flight += 1
                host.peak_in_flight = max(host.peak_in_flight, host.in_flight)
                # One turn of the loop later, so that what came together counts as together.
                asyncio.get_running_loop().call_soon(self._made, _ANSWERS[path])
            return
        host.other += 1
        if path == b"/_local/stats":
            self._write(host.take_stats())
        else:
            self._write(_FACTS.get(path, _NOT_HERE))

    def _made(self, answer: bytes) -> None:
        self._host.in_flight -= 1
        self._host.answered += 1
        self._host.last_answer_at = time.time()
        self._write(answer)

    def _write(self, response: bytes) -> None:
        if self._transport is not None:
            self._transport.write(response)


@contextlib.contextmanager
def instant_hosts(count: int) -> Iterator[list[str]]:
    """The URLs of so many hosts, in one child process that ends with the block or with us."""
    with start("tests.bench.instant_host", "--count", str(count), "--until-stdin-closes") as child:
        try:
            assert child.stdout
            lines = [child.stdout.readline().strip() for _ in range(count)]
            yield [line.removeprefix(_FIRST_WORDS) for line in lines]
        finally:
            child.kill()


def take_stats(url: str) -> dict[str, Any]:
    """What a host counted since the last call."""
    with urllib.request.urlopen(f"{url}/_local/stats") as answer:  # noqa: S310 - ours
        counted: dict[str, Any] = json.load(answer)
    return counted


async def _serve(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        host = InstantHost()
        server = await loop.create_server(lambda host=host: Connection(host), "127.0.0.1", 0)  # type: ignore[misc]
        port = server.sockets[0].getsockname()[1]
        sys.stdout.write(f"{_FIRST_WORDS}http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--until-stdin-closes", action="store_true")
    options = parser.parse_args()
    if options.until_stdin_closes:
        end_with_parent()
    try:
        import uvloop as loops  # type: ignore[import-not-found]  # twice as fast, where it is
    except ModuleNotFoundError:
        import asyncio as loops
    with contextlib.suppress(KeyboardInterrupt):
        loops.run(_serve(options.count))


if __name__ == "__main__":
    main()
