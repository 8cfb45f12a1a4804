"""The endpoints that Ollama does not have: counters and faults."""

import json

from aiohttp import web

from deployments.local_ollama import responses
from deployments.local_ollama.faults import FaultPlan, Rule
from deployments.local_ollama.misbehaviour import Misbehaviour
from deployments.local_ollama.stats import Stats


class Control:
    """What `/_local/stats` and `/_local/faults` do."""

    def __init__(self, faults: FaultPlan, stats: Stats, misbehaviour: Misbehaviour) -> None:
        self._faults = faults
        self._stats = stats
        self._misbehaviour = misbehaviour

    def add_routes(self, app: web.Application) -> None:
        """Route to the endpoints."""
        app.router.add_get("/_local/stats", self._show_stats)
        app.router.add_delete("/_local/stats", self._reset_stats)
        app.router.add_get("/_local/faults", self._show_faults)
        app.router.add_post("/_local/faults", self._add_faults)
        app.router.add_delete("/_local/faults", self._clear_faults)

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
            for rule in rules:
                self._misbehaviour.require(rule)
        except (ValueError, RecursionError) as wrong:
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
