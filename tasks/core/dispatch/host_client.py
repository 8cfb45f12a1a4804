"""Talking to one Ollama server: the only module that knows ollama, httpx and the wire.

Every request for a translation is made here, not streamed (cancelling a stream can
leak a slot of the server) and with `truncate: false, shift: false`, for which the
client has no argument: without them a server cuts a long prompt in silence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import ollama
import pydantic
from httpx_aiohttp import AiohttpTransport
from pydantic_core import to_json

from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import Measures
from tasks.core.settings import HostAddress, hide_credentials
from tasks.core.translate.answers import Answer
from tasks.core.translate.profiles import Think

CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 10.0
KEEP_ALIVE = "30m"
"""How long a host keeps the model after a request: longer than any gap of a run."""

# Phrases of Ollama 0.12 to 0.33 for a prompt that is longer than the context.
_OVERFLOW = ("exceed_context_size", "longer than the context length", "exceeds the context length")


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A model that a host has in memory."""

    name: str
    size_bytes: int
    size_vram_bytes: int
    """The part of it that is in the memory of GPUs."""
    context_length: int | None
    """Tokens for each slot; None when the host is too old to say."""


class HostClient:
    """One Ollama server and the one client that this event loop has for it.

    Every method raises `RequestFailed` and nothing else when the host does not do
    what was asked; `deadline_s` bounds each call as a whole.
    """

    def __init__(
        self, address: HostAddress, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = address.url
        # httpx's own pool costs more CPU than the rest of a request (DESIGN: transport).
        self._chat_url = httpx.URL(f"{address.url}/api/chat")
        self._transport = transport or AiohttpTransport(limits=_LIMITS)
        self._client = ollama.AsyncClient(
            host=address.url,
            transport=self._transport,
            trust_env=False,
            # A redirected POST becomes a GET, and its error would speak of something else.
            follow_redirects=False,
            event_hooks={"response": [self._refuse]},
            timeout=httpx.Timeout(PROBE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    def __repr__(self) -> str:
        return f"<HostClient {self.url}>"

    async def close(self) -> None:
        """Close every connection to the host."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def version(self, deadline_s: float = PROBE_TIMEOUT_S) -> str:
        """The server's version; shows that it is alive, not that it can generate."""
        answer = await self._call("GET", "/api/version", deadline_s)
        version = answer.get("version")
        if not isinstance(version, str):
            raise RequestFailed(
                ErrorKind.INVALID_ANSWER, f"{self.url}/api/version is not that of an Ollama server"
            )
        return version

    async def model_digests(self, deadline_s: float = PROBE_TIMEOUT_S) -> dict[str, str]:
        """The digest of every model the host has, by full name."""
        async with self._mapped(deadline_s) as timeout:
            answer = await self._client._request(  # noqa: SLF001 - list() takes no timeout
                ollama.ListResponse, "GET", "/api/tags", timeout=timeout
            )
            models: Sequence[ollama.ListResponse.Model] = answer.models
            return {model.model: model.digest or "" for model in models if model.model}

    async def running_models(self, deadline_s: float = PROBE_TIMEOUT_S) -> tuple[RunningModel, ...]:
        """The models the host has in memory; one that is being loaded is not among them."""
        async with self._mapped(deadline_s) as timeout:
            answer = await self._client._request(  # noqa: SLF001 - ps() takes no timeout
                ollama.ProcessResponse, "GET", "/api/ps", timeout=timeout
            )
            models: Sequence[ollama.ProcessResponse.Model] = answer.models
            return tuple(
                RunningModel(
                    name=model.model or model.name or "",
                    size_bytes=model.size or 0,
                    size_vram_bytes=model.size_vram or 0,
                    context_length=model.context_length,
                )
                for model in models
            )

    async def load(self, model: str, options: Mapping[str, float], deadline_s: float) -> None:
        """Have the model loaded with the run's options; returns when it is."""
        await self._chat(model, [], options, think=None, deadline_s=deadline_s)

    async def prove(
        self, model: str, options: Mapping[str, float], think: Think, deadline_s: float
    ) -> None:
        """Have one token generated: a host can answer everything else and not this."""
        probe = [{"role": "user", "content": "."}]
        await self._chat(model, probe, {**options, "num_predict": 1}, think, deadline_s)

    async def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        options: Mapping[str, float],
        think: Think,
        deadline_s: float,
    ) -> Answer:
        """The host's answer to the messages, complete or not."""
        return await self._chat(model, messages, options, think, deadline_s)

    async def _chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        options: Mapping[str, float],
        think: Think | None,
        deadline_s: float,
    ) -> Answer:
        body: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "stream": False,
            "truncate": False,
            "shift": False,
            "keep_alive": KEEP_ALIVE,
            "options": options,
        }
        if think is not None:
            body["think"] = think
        async with self._mapped(deadline_s) as timeout:
            response = await self._post(self._chat_url, body, timeout)
            return _answer(ollama.ChatResponse(**response.json()))

    async def _post(self, url: httpx.URL, body: object, timeouts: httpx.Timeout) -> httpx.Response:
        """The answer to a request that is handed to the client's transport as it is.

        chat() has no `truncate`; and on its way through the client a request costs as much CPU
        again as all the rest of it, for redirects, cookies and merged URLs that no host has.
        """
        request = httpx.Request(
            "POST",
            url,
            headers=self._client._client.headers,  # noqa: SLF001 - the client's own, with its key
            content=to_json(body),
            extensions={"timeout": timeouts.as_dict()},
        )
        response = await self._transport.handle_async_request(request)
        response.request = request
        try:
            await response.aread()
            await self._refuse(response)
        finally:
            await response.aclose()
        return response

    async def _call(self, method: str, path: str, deadline_s: float) -> Mapping[str, object]:
        async with self._mapped(deadline_s) as timeout:
            # The client has no method for it.
            response = await self._client._request_raw(  # type: ignore[no-untyped-call]  # noqa: SLF001
                method, path, timeout=timeout
            )
            answer = response.json()
        return answer if isinstance(answer, dict) else {}

    @asynccontextmanager
    async def _mapped(self, deadline_s: float) -> AsyncIterator[httpx.Timeout]:
        """Every exception of the client and its transport, as `RequestFailed`."""
        try:
            async with asyncio.timeout(deadline_s):
                yield httpx.Timeout(deadline_s, connect=min(CONNECT_TIMEOUT_S, deadline_s))
        except (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError) as error:
            if _was_connected(error):
                raise RequestFailed(
                    ErrorKind.RESET, f"{self.url} broke the connection before it answered"
                ) from error
            raise RequestFailed(ErrorKind.UNREACHABLE, f"{self.url} cannot be reached") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RequestFailed(
                ErrorKind.TIMEOUT, f"{self.url} gave no answer within {deadline_s:.0f} s"
            ) from error
        except httpx.TransportError as error:
            raise RequestFailed(
                ErrorKind.RESET, f"{self.url} broke the connection ({type(error).__name__})"
            ) from error
        except aiohttp.ClientError as error:  # those that httpx-aiohttp forgot
            raise RequestFailed(
                ErrorKind.INVALID_ANSWER, f"{self.url} answered with something that is not HTTP"
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
                f"{self.url} answered 200 with something that is not the JSON of an Ollama server",
            ) from error

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise for an error status before ollama reads the body: it expects a JSON object."""
        if response.is_success:
            return
        await response.aread()
        status, reason = response.status_code, " ".join(_innermost(response.text).split())[:300]
        if response.has_redirect_location:
            location = hide_credentials(response.headers["location"])
            reason = f"it sends on to {location[:300]}; give the address it sends on to as the host"
        raise RequestFailed(
            _kind(status, response.text), f"{self.url} answered {status}: {_valid(reason)}"
        )


# The dispatcher bounds what is in flight. 0 is aiohttp's "no limit"; None would mean its 100.
_LIMITS = httpx.Limits(max_connections=0, max_keepalive_connections=None, keepalive_expiry=60)


def _was_connected(error: Exception) -> bool:
    """Whether a connection that was there broke: httpx-aiohttp calls that a connect timeout."""
    cause = error.__cause__
    return isinstance(cause, _BROKEN) and not isinstance(cause, aiohttp.ClientConnectorError)


_BROKEN = (
    aiohttp.ClientOSError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientConnectionResetError,
)


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


def _valid(text: str) -> str:
    """The text without lone surrogates, which JSON can hold and no file can."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _answer(response: ollama.ChatResponse) -> Answer:
    return Answer(
        content=_valid(response.message.content or ""),
        done=response.done is True,
        done_reason=response.done_reason,
        measures=Measures(
            prompt_tokens=response.prompt_eval_count or 0,
            output_tokens=response.eval_count or 0,
            total_duration_ns=response.total_duration or 0,
            load_duration_ns=response.load_duration or 0,
            prompt_eval_duration_ns=response.prompt_eval_duration or 0,
            eval_duration_ns=response.eval_duration or 0,
        ),
    )
