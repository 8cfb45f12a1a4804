"""The endpoints that list, show, create, copy, delete and pull models, and take their files."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from deployments.local_ollama import cards, responses, wire
from deployments.local_ollama.create import (
    REGISTRY_OUT_OF_REACH,
    checked_request,
    create,
)
from deployments.local_ollama.engine import EngineError
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.text import quote
from deployments.local_ollama.naming import ModelName
from deployments.local_ollama.options import resolve
from deployments.local_ollama.scheduler import QueueFullError, Scheduler
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.store import ModelStore, asked_model
from deployments.local_ollama.structs import COPY, CREATE, DELETE, EMBED, PULL, SHOW, read

NOT_FOUND = 404
CLOUD_DETAILS_ARE_OFF = "ollama cloud is disabled: remote model details are unavailable"


class Management:
    """Answers about the models of one server, and changes them."""

    def __init__(self, settings: Settings, store: ModelStore, scheduler: Scheduler) -> None:
        self._settings = settings
        self._store = store
        self._scheduler = scheduler

    async def tags(self, _request: web.Request) -> web.StreamResponse:
        """Every model."""
        return responses.respond({"models": [cards.listed(each) for each in self._store.listed()]})

    async def ps(self, _request: web.Request) -> web.StreamResponse:
        """The loaded models, those that stay longest first."""
        shown = [
            cards.running(each.model, each.options.context_length, each.expires())
            for each in sorted(self._scheduler.runners, key=lambda runner: -runner.expires())
        ]
        return responses.respond({"models": shown})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """All about one model."""
        given = read(await request.read(), SHOW)
        named = given.get("model") or given.get("name") or ""
        if not named:
            raise RequestError(400, "model is required")
        name = ModelName.parse(named)
        if name is None:
            raise RequestError(400, "invalid model name")
        if name.in_the_cloud:
            raise RequestError(403, CLOUD_DETAILS_ARE_OFF)
        model = self._store.find(name)
        if model is None:
            raise RequestError(404, f"model '{name.shortest}' not found")
        card = cards.shown(model, system=given.get("system") or "")
        return responses.raw(wire.encode_numbers(card).encode(), 200, wire.JSON)

    async def copy(self, request: web.Request) -> web.StreamResponse:
        """Give a model a second name."""
        given = read(await request.read(), COPY)
        self._store.copy(given.get("source") or "", given.get("destination") or "")
        return responses.empty(200)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Forget a model; one that is loaded answers on until it goes."""
        given = read(await request.read(), DELETE)
        self._store.delete(given.get("model") or given.get("name") or "")
        return responses.empty(200)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a model, with a line for each step."""
        given = read(await request.read(), CREATE)
        wanted = checked_request(given, self._store)
        return await self._progress(given, request, create(wanted, self._store))

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Succeed for a model that is there; there is no registry to get another from."""
        given = read(await request.read(), PULL)
        name = ModelName.parse(given.get("model") or given.get("name") or "")
        if name is None:
            raise RequestError(400, "invalid model name")
        return await self._progress(given, request, self._pulled(name))

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """Refuse, politely, whatever is no mistake of the client's."""
        given = read(await request.read(), EMBED)
        named, texts = given.get("model") or "", given.get("input")
        if not named:
            raise RequestError(404, "model '' not found")
        if isinstance(texts, list):
            if not all(isinstance(each, str) for each in texts):
                raise RequestError(400, "invalid input type")
        elif texts is not None and not isinstance(texts, str):
            raise RequestError(400, "invalid input type")
        try:
            model = asked_model(self._store, named)
        except RequestError as refused:
            if refused.status != NOT_FOUND:
                raise
            message = f"model {quote(named)} not found, try pulling it first"
            raise RequestError(NOT_FOUND, message) from refused
        options = resolve(
            given.get("options") or {}, model, shift=True,
            server_context=self._settings.context_length,
        )  # fmt: skip
        try:
            async with self._scheduler.admitted(model, options.launch, given.get("keep_alive")):
                if not texts:
                    return responses.respond({"model": named, "embeddings": []})
        except QueueFullError:
            raise RequestError(503, wire.BUSY) from None
        except EngineError as failed:
            raise RequestError(failed.status, str(failed)) from failed
        raise RequestError(
            400, f'"{named}" has no embeddings: this local server has none; use a real Ollama'
        )

    async def has_blob(self, request: web.Request) -> web.StreamResponse:
        """Whether a file is here."""
        digest = request.match_info["digest"]
        if self._store.blobs.path(digest) is None:
            raise RequestError(NOT_FOUND, f"blob {quote(digest)} not found")
        return responses.empty(200)

    async def add_blob(self, request: web.Request) -> web.StreamResponse:
        """Take a file, straight to disk."""
        digest = request.match_info["digest"]
        new = await self._store.blobs.receive(digest, request.content.iter_any())
        return responses.empty(201 if new else 200)

    async def _pulled(self, name: ModelName) -> AsyncIterator[str]:
        yield "pulling manifest"
        if self._store.find(name) is None:
            raise RequestError(500, REGISTRY_OUT_OF_REACH)

    async def _progress(
        self, given: dict[str, Any], request: web.Request, steps: AsyncIterator[str]
    ) -> web.StreamResponse:
        """The steps as lines, or with `stream` off only how it ended."""
        if given.get("stream") is False:
            try:
                async for _ in steps:
                    pass
            except RequestError as refused:
                return responses.refuse(
                    refused.message, refused.status, content_type=wire.PLAIN_JSON
                )
            return responses.respond({"status": "success"}, content_type=wire.PLAIN_JSON)
        lines = web.StreamResponse(headers=responses.headers(wire.NDJSON))
        lines.enable_chunked_encoding()
        try:
            async for step in steps:
                if not lines.prepared:
                    await lines.prepare(request)
                await lines.write(_line({"status": step}))
        except RequestError as refused:
            if not lines.prepared:
                return responses.refuse(refused.message, refused.status, streamed=True)
            await lines.write(_line(wire.error(refused.message)))
        else:
            await lines.write(_line({"status": "success"}))
        await lines.write_eof()
        return lines


def _line(value: dict[str, Any]) -> bytes:
    return wire.encode(value) + b"\n"
