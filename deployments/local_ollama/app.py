"""The routes: which path answers what."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from deployments.local_ollama import responses, wire
from deployments.local_ollama.control import Control
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.faults import BODY_KINDS, FaultPlan
from deployments.local_ollama.hosts import is_local
from deployments.local_ollama.inference import Inference
from deployments.local_ollama.management import Management
from deployments.local_ollama.misbehaviour import Misbehaviour
from deployments.local_ollama.request import parse_chat, parse_generate
from deployments.local_ollama.stats import Stats

VERSIONS = {"simulated": "0.33.0-simulated", "llama": "0.33.0-local"}
LONGEST_BODY_BYTES = 64 << 20
BLOBS = "/api/blobs/"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The endpoints of one server, and the aiohttp application that routes to them."""

    def __init__(
        self,
        *,
        version: str,
        inference: Inference,
        management: Management,
        control: Control,
        faults: FaultPlan,
        stats: Stats,
        misbehaviour: Misbehaviour,
    ) -> None:
        self._version_text = version
        self._inference = inference
        self._management = management
        self._control = control
        self._faults = faults
        self._stats = stats
        self._misbehaviour = misbehaviour

    def application(self) -> web.Application:
        """A new application with every route."""
        app = web.Application(client_max_size=LONGEST_BODY_BYTES, middlewares=[_only_local])
        app.router.add_post("/api/chat", self._chat)
        app.router.add_post("/api/generate", self._generate)
        models = self._management
        for method, path, answer in (
            ("GET", "/", self._root),
            ("HEAD", "/", self._root),
            ("GET", "/api/version", self._version),
            ("HEAD", "/api/version", self._version),
            ("GET", "/api/tags", models.tags),
            ("HEAD", "/api/tags", models.tags),
            ("GET", "/api/ps", models.ps),
            ("GET", "/api/status", self._status),
            ("POST", "/api/show", models.show),
            ("POST", "/api/embed", models.embed),
            ("POST", "/api/pull", models.pull),
            ("POST", "/api/create", models.create),
            ("POST", "/api/copy", models.copy),
            ("DELETE", "/api/delete", models.delete),
            ("HEAD", BLOBS + "{digest}", models.has_blob),
            ("POST", BLOBS + "{digest}", models.add_blob),
        ):
            app.router.add_route(method, path, self._open_to_faults(answer))
        self._control.add_routes(app)
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
            # Every digest is a path of its own, and clients choose them: count them as one.
            path = BLOBS if request.path.startswith(BLOBS) else request.path
            self._stats.endpoints[path] += 1
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

    async def _root(self, _request: web.Request) -> web.StreamResponse:
        return responses.text("Ollama is running")

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        return responses.respond({"version": self._version_text})

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return responses.respond({"cloud": {"disabled": True, "source": "env"}})


@web.middleware
async def _only_local(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests that call this server by a name from elsewhere, as Ollama on loopback."""
    if not is_local(request.headers.get("Host", "")):
        return responses.empty(403)
    if request.method == "OPTIONS":
        return responses.empty(204)
    return await handler(request)


def _nothing_here(known: frozenset[str]) -> Handler:
    async def nothing_here(request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith(BLOBS) and "/" not in path.removeprefix(BLOBS):
            path = BLOBS + "{digest}"
        if path in known:
            return responses.text("405 method not allowed", 405, content_type=wire.PLAIN_TEXT)
        return responses.text("404 page not found", 404, content_type=wire.PLAIN_TEXT)

    return nothing_here
