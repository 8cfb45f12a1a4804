"""What went wrong between a host and us, as `RequestFailed`.

This and `host_client` are the only modules that know ollama, httpx and the wire.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import httpx
import pydantic

from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.settings import hide_credentials

# Phrases of Ollama 0.12 to 0.33 for a prompt that is longer than the context.
_OVERFLOW = ("exceed_context_size", "longer than the context length", "exceeds the context length")


@asynccontextmanager
async def failures_of(url: str, deadline_s: float) -> AsyncIterator[None]:
    """Raise `RequestFailed` for every exception of the client and its transport.

    What is done inside is given up after `deadline_s` seconds.
    """
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError) as error:
        if _was_connected(error):
            raise RequestFailed(
                ErrorKind.RESET, f"{url} broke the connection before it answered"
            ) from error
        reason = _why_unreachable(error)
        raise RequestFailed(ErrorKind.UNREACHABLE, f"{url} cannot be reached{reason}") from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise RequestFailed(
            ErrorKind.TIMEOUT, f"{url} gave no answer within {deadline_s:.0f} s"
        ) from error
    except httpx.TransportError as error:
        raise RequestFailed(
            ErrorKind.RESET, f"{url} broke the connection ({type(error).__name__})"
        ) from error
    except aiohttp.ClientError as error:  # those that httpx-aiohttp forgot
        raise RequestFailed(
            ErrorKind.INVALID_ANSWER, f"{url} answered with something that is not HTTP"
        ) from error
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        pydantic.ValidationError,
        httpx.RequestError,  # what cannot be decoded, redirects without end
        TypeError,  # a response model made from JSON that is no object
    ) as error:
        raise RequestFailed(
            ErrorKind.INVALID_ANSWER,
            f"{url} answered 200 with something that is not the JSON of an Ollama server",
        ) from error


async def refuse_errors(url: str, response: httpx.Response) -> None:
    """Raise for an error status before ollama reads the body: it expects a JSON object."""
    if response.is_success:
        return
    await response.aread()
    status, reason = response.status_code, " ".join(_innermost(response.text).split())[:300]
    if response.has_redirect_location:
        location = hide_credentials(response.headers["location"])
        reason = f"it sends on to {location[:300]}; give the address it sends on to as the host"
    raise RequestFailed(
        _kind(status, response.text), f"{url} answered {status}: {valid_text(reason)}"
    )


def _was_connected(error: Exception) -> bool:
    """Whether a connection that was there broke: httpx-aiohttp calls that a connect timeout."""
    cause = error.__cause__
    return isinstance(cause, _BROKEN) and not isinstance(cause, aiohttp.ClientConnectorError)


_BROKEN = (
    aiohttp.ClientOSError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientConnectionResetError,
)


def _why_unreachable(error: Exception) -> str:
    """What the system says of it, in brackets; nothing where it says nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            # asyncio puts words of its own for those of the system; a name that does not resolve
            # has a number below 0 that is no errno.
            return f" ({os.strerror(cause.errno) if cause.errno > 0 else cause.strerror})"
        cause = cause.__cause__
    return ""


def _kind(status: int, error: str) -> ErrorKind:
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        return ErrorKind.BUSY
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return ErrorKind.SERVER_ERROR
    if status == httpx.codes.NOT_FOUND:
        return ErrorKind.NOT_FOUND
    if any(phrase in error for phrase in _OVERFLOW):
        return ErrorKind.CONTEXT_OVERFLOW
    return ErrorKind.BAD_REQUEST


def _innermost(body: object) -> str:
    """The message in a body that is text, JSON or, as llama.cpp's are, JSON within JSON."""
    if isinstance(body, str):
        try:
            inner = json.loads(body)
        except ValueError:
            return body
        return _innermost(inner) if isinstance(inner, dict) else body
    if isinstance(body, dict):
        for name in ("error", "message"):
            if body.get(name):
                return _innermost(body[name])
    return str(body)


def valid_text(text: str) -> str:
    """The text without lone surrogates, which JSON can hold and no file can."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
