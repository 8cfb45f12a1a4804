"""HTTP as it is on the wire: nothing added, nothing hidden, errors not raised."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_WITHIN_S = 600.0
"""A guard against a server that hangs, not an expectation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the status, the headers (names in lower case), the body without its chunks."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def content_type(self) -> str | None:
        """The Content-Type header as it came."""
        return self.headers.get("content-type")

    def json(self) -> Any:
        """The body as one JSON value; raises ValueError where it is not."""
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The JSON values of a body with one on each line."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
) -> Answer:
    """Send one request on a connection of its own and read the whole answer."""
    connection = _connection(url)
    try:
        came = time.monotonic()
        _send(connection, method, path, body)
        response = connection.getresponse()
        content = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, content, time.monotonic() - came)
    finally:
        connection.close()


def ask_all(url: str, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Post every body at the same time; the answers in the order of the bodies."""
    ready = threading.Barrier(len(bodies))

    def post(body: Mapping[str, Any]) -> Answer:
        ready.wait()
        return ask(url, "POST", path, body)

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(post, bodies))


class Leaver:
    """A client that sends a request and goes away before the answer is complete."""

    def __init__(self, url: str, path: str, body: Mapping[str, Any]) -> None:
        self._connection = _connection(url)
        _send(self._connection, "POST", path, body)

    def read_some(self) -> bytes:
        """Wait for the beginning of the answer."""
        return self._connection.getresponse().read1(64)

    def leave(self) -> None:
        """Close the connection."""
        self._connection.close()


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN_S)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None,
) -> None:
    raw = json.dumps(body).encode() if isinstance(body, Mapping) else body
    connection.request(method, path, body=raw, headers={"Content-Type": "application/json"})
