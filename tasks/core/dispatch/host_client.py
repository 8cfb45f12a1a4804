"""Talking to one Ollama server.

Every request for a translation is made here, not streamed (cancelling a stream can
leak a slot of the server) and with `truncate: false, shift: false`, for which the
client has no argument: without them a server cuts a long prompt in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import ollama
from httpx_aiohttp import AiohttpTransport
from pydantic_core import to_json

from tasks.core.dispatch.host_failures import failures_of, refuse_errors, valid_text
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import Measures
from tasks.core.settings import HostAddress
from tasks.core.translate.answers import Answer
from tasks.core.translate.profiles import Think

CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 10.0
KEEP_ALIVE = "30m"
"""How long a host keeps the model after a request: longer than any gap of a run."""


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
            event_hooks={"response": [partial(refuse_errors, address.url)]},
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
        async with failures_of(self.url, deadline_s):
            answer = await self._client._request(  # noqa: SLF001 - list() takes no timeout
                ollama.ListResponse, "GET", "/api/tags", timeout=_timeouts(deadline_s)
            )
            models: Sequence[ollama.ListResponse.Model] = answer.models
            return {model.model: model.digest or "" for model in models if model.model}

    async def running_models(self, deadline_s: float = PROBE_TIMEOUT_S) -> tuple[RunningModel, ...]:
        """The models the host has in memory; one that is being loaded is not among them."""
        async with failures_of(self.url, deadline_s):
            answer = await self._client._request(  # noqa: SLF001 - ps() takes no timeout
                ollama.ProcessResponse, "GET", "/api/ps", timeout=_timeouts(deadline_s)
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
        async with failures_of(self.url, deadline_s):
            response = await self._post(self._chat_url, body, _timeouts(deadline_s))
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
            await refuse_errors(self.url, response)
        finally:
            await response.aclose()
        return response

    async def _call(self, method: str, path: str, deadline_s: float) -> Mapping[str, object]:
        async with failures_of(self.url, deadline_s):
            # The client has no method for it.
            response = await self._client._request_raw(  # type: ignore[no-untyped-call]  # noqa: SLF001
                method, path, timeout=_timeouts(deadline_s)
            )
            answer = response.json()
        return answer if isinstance(answer, dict) else {}


# The dispatcher bounds what is in flight. 0 is aiohttp's "no limit"; None would mean its 100.
_LIMITS = httpx.Limits(max_connections=0, max_keepalive_connections=None, keepalive_expiry=60)


def _timeouts(deadline_s: float) -> httpx.Timeout:
    return httpx.Timeout(deadline_s, connect=min(CONNECT_TIMEOUT_S, deadline_s))


def _answer(response: ollama.ChatResponse) -> Answer:
    return Answer(
        content=valid_text(response.message.content or ""),
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
