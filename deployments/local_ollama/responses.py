"""HTTP answers with the headers every answer of this server carries."""

from typing import Any

from aiohttp import web

from deployments.local_ollama import wire

# Ollama names no server software; this server does, so that no log mistakes it for the real one.
SERVER = "local-ollama"
FAILED = 500
LONGEST_WITH_LENGTH = 2048
"""Go's server gives a longer body no Content-Length but sends it in chunks."""


def respond(value: Any, status: int = 200, *, content_type: str = wire.JSON) -> web.Response:
    """A JSON answer."""
    return raw(wire.encode(value), status, content_type)


def refuse(
    message: str, status: int, *, content_type: str = wire.JSON, streamed: bool = False
) -> web.Response:
    """An error answer in Ollama's shape; `streamed` where it takes the place of a stream."""
    answer = respond(
        wire.error(message), status, content_type=wire.PLAIN_JSON if streamed else content_type
    )
    if streamed:
        answer.enable_chunked_encoding()
    return answer


def text(message: str, status: int = 200, *, content_type: str = wire.TEXT) -> web.Response:
    """A plain-text answer."""
    return raw(message.encode(), status, content_type)


def empty(status: int) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status, headers={"Server": SERVER})


def raw(body: bytes, status: int, content_type: str) -> web.Response:
    """An answer with exactly this body."""
    answer = web.Response(body=body, status=status, headers=headers(content_type))
    if len(body) > LONGEST_WITH_LENGTH or content_type == wire.NDJSON:
        answer.enable_chunked_encoding()
    return answer


def headers(content_type: str) -> dict[str, str]:
    """The headers of an answer whose body is written by hand."""
    return {"Content-Type": content_type, "Server": SERVER}
