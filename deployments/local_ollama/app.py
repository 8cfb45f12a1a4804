"""The routes: which path answers what."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from deployments.local_ollama import responses, wire
from deployments.local_ollama.engine import Engine
from deployments.local_ollama.faults import BODY_KINDS, FaultError, FaultPlan, Rule
from deployments.local_ollama.inference import Inference
from deployments.local_ollama.misbehaviour import Misbehaviour
from deployments.local_ollama.request import (
    RequestError,
    check_model,
    parse_chat,
    parse_generate,
    parse_object,
)
from deployments.local_ollama.scheduler import Scheduler
from deployments.local_ollama.stats import Stats

VERSION = "0.33.0-simulated"
LONGEST_BODY_BYTES = 64 << 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The endpoints of one server, and the aiohttp application that routes to them."""

    def __init__(
        self,
        *,
        engine: Engine,
        scheduler: Scheduler,
        inference: Inference,
        faults: FaultPlan,
        stats: Stats,
        misbehaviour: Misbehaviour,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._inference = inference
        self._faults = faults
        self._stats = stats
        self._misbehaviour = misbehaviour

    def application(self) -> web.Application:
        """A new application with every route."""
        app = web.Application(client_max_size=LONGEST_BODY_BYTES)
        app.router.add_post("/api/chat", self._chat)
        app.router.add_post("/api/generate", self._generate)
        read: tuple[tuple[str, Handler], ...] = (
            ("/", self._root),
            ("/api/version", self._version),
            ("/api/tags", self._tags),
            ("/api/ps", self._ps),
        )
        for path, answer in read:
            app.router.add_get(path, self._open_to_faults(answer))
        asked: tuple[tuple[str, Handler], ...] = (
            ("/api/show", self._show),
            ("/api/embed", self._embed),
            ("/api/pull", self._pull),
        )
        for path, answer in asked:
            app.router.add_post(path, self._open_to_faults(answer))
        app.router.add_get("/_local/stats", self._show_stats)
        app.router.add_delete("/_local/stats", self._reset_stats)
        app.router.add_get("/_local/faults", self._show_faults)
        app.router.add_post("/_local/faults", self._add_faults)
        app.router.add_delete("/_local/faults", self._clear_faults)
        known = frozenset(resource.canonical for resource in app.router.resources())
        app.router.add_route("*", "/{path:.*}", _nothing_here(known))
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._inference.serve(request, parse_chat)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await self._inference.serve(request, parse_generate)

    def _open_to_faults(self, answer: Handler) -> Handler:
        """The endpoint, counted, with the faults that name its path in front of it."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            self._stats.endpoints[request.path] += 1
            fault = self._faults.strike(request.path, None)
            if fault is not None:
                self._stats.faults[fault.kind] += 1
                if replaced := await self._misbehaviour.instead(request, fault):
                    return replaced
            try:
                response = await answer(request)
            except RequestError as refused:
                return responses.refuse(refused.message, refused.status)
            if fault and fault.kind in BODY_KINDS and isinstance(response, web.Response):
                return await self._misbehaviour.deliver(request, fault, response)
            return response

        return guarded

    async def _root(self, _request: web.Request) -> web.Response:
        return responses.text("Ollama is running")

    async def _version(self, _request: web.Request) -> web.Response:
        return responses.respond({"version": VERSION})

    async def _tags(self, _request: web.Request) -> web.Response:
        return responses.respond({"models": [wire.listed(self._engine.card)]})

    async def _ps(self, _request: web.Request) -> web.Response:
        runner = self._scheduler.runner
        models = (
            [wire.running(self._engine.card, runner.options.context_length, runner.expires())]
            if runner is not None
            else []
        )
        return responses.respond({"models": models})

    async def _show(self, request: web.Request) -> web.Response:
        given = parse_object(await request.read(), "ShowRequest")
        model = _model(given)
        if not model:
            raise RequestError(400, "model is required")
        try:
            check_model(model, self._engine.card.name)
        except RequestError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                raise RequestError(404, f"model '{wire.full_name(model)}' not found") from refused
            raise
        return responses.respond(wire.shown(self._engine.card))

    async def _embed(self, request: web.Request) -> web.Response:
        given = parse_object(await request.read(), "EmbedRequest")
        model, texts = _model(given), given.get("input")
        if texts is not None and not isinstance(texts, str | list):
            raise RequestError(400, "invalid input type")
        try:
            check_model(model, self._engine.card.name)
        except RequestError as refused:
            if refused.status == HTTPStatus.NOT_FOUND and model:
                message = f'model "{model}" not found, try pulling it first'
                raise RequestError(404, message) from refused
            raise
        if not texts:
            return responses.respond({"model": model, "embeddings": []})
        raise RequestError(
            400, f'"{model}" is a simulation and has no embeddings; use a real model'
        )

    async def _pull(self, request: web.Request) -> web.Response:
        given = parse_object(await request.read(), "PullRequest")
        model = _model(given)
        stream = given.get("stream") is not False
        lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        try:
            check_model(model, self._engine.card.name)
            lines.append({"status": "success"})
        except RequestError as refused:
            if refused.status != HTTPStatus.NOT_FOUND or not model:
                raise RequestError(400, "invalid model name") from refused
            message = (
                "pull model manifest: file does not exist (this server simulates Ollama and only "
                f"has {self._engine.card.name})"
            )
            if not stream:
                return responses.refuse(message, 500, content_type=wire.PLAIN_JSON)
            lines.append(wire.error(message))
        if not stream:
            return responses.respond(lines[-1], content_type=wire.PLAIN_JSON)
        body = b"".join(wire.encode(line) + b"\n" for line in lines)
        return responses.raw(body, 200, wire.NDJSON)

    async def _show_stats(self, request: web.Request) -> web.Response:
        every = request.query.get("requests", "0") not in ("0", "false", "")
        return responses.respond(self._stats.as_json(requests=every))

    async def _reset_stats(self, _request: web.Request) -> web.Response:
        self._stats.reset()
        return responses.respond(self._stats.as_json())

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return responses.respond(self._faults.as_json())

    async def _add_faults(self, request: web.Request) -> web.Response:
        try:
            given = json.loads(await request.read())
            rules = [
                Rule.from_json(each) for each in (given if isinstance(given, list) else [given])
            ]
        except (ValueError, FaultError) as wrong:
            return responses.refuse(str(wrong), 400)
        self._faults.add(rule for rule in rules if not rule.now)
        response = responses.respond(self._faults.as_json())
        if any(rule.now for rule in rules):
            # The answer has to be out before the server may go.
            response.force_close()
            await response.prepare(request)
            await response.write_eof()
            for rule in rules:
                if rule.now:
                    self._misbehaviour.happen(rule)
        return response

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return responses.respond(self._faults.as_json())


def _model(given: dict[str, Any]) -> str:
    """The model a request names; `name` is the older word for it."""
    named = given.get("model") or given.get("name") or ""
    if not isinstance(named, str):
        raise RequestError(400, "model must be text")
    return named


def _nothing_here(known: frozenset[str]) -> Handler:
    async def nothing_here(request: web.Request) -> web.Response:
        if request.path in known:
            return responses.text("405 method not allowed", 405, content_type="text/plain")
        return responses.text("404 page not found", 404, content_type="text/plain")

    return nothing_here
