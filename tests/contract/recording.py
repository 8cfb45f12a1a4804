"""Reads recorded traffic: raw requests and answers, written down one after the other.

    >>> POST /api/show {"model": "m"}
    HTTP/1.1 200 OK
    Content-Type: application/json

    {"modelfile": ...}
    --- 0.002s

The recorder wrote the beginning of what was long. A request of more than `LONG` characters
that is no JSON, and a body shorter than its header says that is none either, have been cut.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.contract.exchange import Exchange

LONG = 250
_BEGIN = re.compile(rb"^>>> ([A-Z]+) (\S+)(?: (.*))?$", re.MULTILINE)
_END = re.compile(rb"\n--- [\d.]+s(?:\n|\Z)")
_SIZE = re.compile(rb"\n(?=[0-9a-f]+\n)")


class NotARecording(ValueError):
    """A file that holds no requests, or one of another form."""


def read_recording(path: Path) -> list[Exchange]:
    """The exchanges of a file, in order. Raises NotARecording where it has none."""
    return parse_recording(path.read_bytes(), path.name)


def parse_recording(raw: bytes, name: str = "recording") -> list[Exchange]:
    """The exchanges in the bytes of a recording."""
    text = raw.replace(b"\r\n", b"\n")
    begins = list(_BEGIN.finditer(text))
    if not begins:
        raise NotARecording(f"{name} holds no '>>> METHOD PATH' line")
    ends = [begin.start() for begin in begins[1:]] + [len(text)]
    exchanges = []
    for begin, end in zip(begins, ends, strict=True):
        line = text.count(b"\n", 0, begin.start()) + 1
        exchanges.append(_exchange(begin, text[begin.end() + 1 : end], f"{name}:{line}"))
    return exchanges


def _exchange(begin: re.Match[bytes], rest: bytes, name: str) -> Exchange:
    head, separator, body = rest.partition(b"\n\n")
    status_line, *lines = head.decode().splitlines()
    if not separator or not status_line.startswith("HTTP/1."):
        raise NotARecording(f"{name}: {status_line!r} is not the status line of an answer")
    end = _END.search(body)
    body = body[: end.start()] if end else body
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    method, request = begin[1].decode(), begin[3] or b""
    if method == "HEAD":
        answer, cut = b"", False
    elif headers.get("transfer-encoding") == "chunked":
        answer, cut = unchunked(body)
    else:
        length = int(headers.get("content-length", len(body)))
        answer, cut = body[:length], len(body) < length and not _is_json(body)
    return Exchange(
        name=name,
        method=method,
        path=begin[2].decode(),
        body=request,
        status=int(status_line.split()[1]),
        content_type=headers.get("content-type"),
        answer=answer,
        body_cut=len(request) > LONG and not _is_json(request),
        answer_cut=cut,
    )


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether its end is missing.

    A chunk is taken to go on to the next line that is a size: where names were replaced in
    a recording, the sizes do not fit any more.
    """
    content, rest = b"", body
    while True:
        size_line, _, rest = rest.partition(b"\n")
        if size_line.strip() == b"0":
            return content, False
        following = _SIZE.search(rest)
        if not following:
            return content + rest, True
        content += rest[: following.start()]
        rest = rest[following.end() :]


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
