"""HTTP answers with the headers every answer of this server carries."""

from typing import Any

from aiohttp import web

from deployments.local_ollama import wire

# Ollama names no server software; the simulation does, so that no log mistakes it for the real one.
SERVER = "local-ollama-simulation"


def respond(value: Any, status: int = 200, *, content_type: str = wire.JSON) -> web.Response:
    """A JSON answer."""
    return raw(wire.encode(value), status, content_type)


def refuse(message: str, status: int, *, content_type: str = wire.JSON) -> web.Response:
    """An error answer in Ollama's shape."""
    return respond(wire.error(message), status, content_type=content_type)


def text(message: str, status: int = 200, *, content_type: str = wire.TEXT) -> web.Response:
    """A plain-text answer."""
    return raw(message.encode(), status, content_type)


def raw(body: bytes, status: int, content_type: str) -> web.Response:
    """An answer with exactly this body."""
    return web.Response(body=body, status=status, headers=headers(content_type))


def headers(content_type: str) -> dict[str, str]:
    """The headers of an answer whose body is written by hand."""
    return {"Content-Type": content_type, "Server": SERVER}
