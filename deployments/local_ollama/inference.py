"""The life of one `/api/chat` or `/api/generate` request: its record, its faults, its refusals."""

import asyncio
import time
from http import HTTPStatus

from aiohttp import web

from deployments.local_ollama import responses, wire
from deployments.local_ollama.answering import Attempt, answer
from deployments.local_ollama.engine import EngineError
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.faults import BODY_KINDS, UNANSWERED_KINDS, FaultPlan
from deployments.local_ollama.misbehaviour import Misbehaviour
from deployments.local_ollama.request import Asked, Parse, Unload
from deployments.local_ollama.scheduler import QueueFullError, Scheduler
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.stats import Outcome, Stats
from deployments.local_ollama.store import ModelStore
from deployments.local_ollama.timing_engine import source_text


class Inference:
    """Answers prompts through the scheduler, and lets faults interfere."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: ModelStore,
        scheduler: Scheduler,
        faults: FaultPlan,
        stats: Stats,
        misbehaviour: Misbehaviour,
    ) -> None:
        self._settings = settings
        self._store = store
        self._scheduler = scheduler
        self._faults = faults
        self._stats = stats
        self._misbehaviour = misbehaviour

    async def serve(self, request: web.Request, parse: Parse) -> web.StreamResponse:
        """Answer one request. Its record ends with the answer, also where its client leaves."""
        came_ns = time.monotonic_ns()
        self._stats.endpoints[request.path] += 1
        try:
            asked = parse(await request.read(), self._store, self._settings)
        except RequestError as refused:
            return responses.refuse(refused.message, refused.status)
        if isinstance(asked, Unload) or not asked.messages:
            return await self._load_or_unload(request, asked)
        record = self._stats.begin(request.path, source_text(asked.messages))
        attempt = Attempt(asked, record, self._faults.strike(request.path, asked.prompt), came_ns)
        outcome: Outcome = "failed"
        try:
            response = await self._attempt(request, attempt)
            record.status = response.status
            if response.status == HTTPStatus.OK and not attempt.suffers(UNANSWERED_KINDS):
                outcome = "answered"
        except asyncio.CancelledError:
            if not attempt.suffers(UNANSWERED_KINDS - {"hang"}):
                outcome = "cancelled"
            raise
        finally:
            self._stats.end(record, record.outcome or outcome)
        return response

    async def _load_or_unload(
        self, request: web.Request, asked: Asked | Unload
    ) -> web.StreamResponse:
        fault = self._faults.strike(request.path, None)
        if fault is not None:
            self._stats.faults[fault.kind] += 1
            if replaced := await self._misbehaviour.instead(request, fault):
                return replaced
        shape = wire.AnswerShape(asked.named, asked.chat)
        if isinstance(asked, Unload):
            self._scheduler.unload(asked.model)
            return responses.respond(shape.bare("unload"))
        try:
            launch = asked.options.launch
            async with self._scheduler.admitted(asked.model, launch, asked.keep_alive):
                return responses.respond(shape.bare("load"))
        except QueueFullError:
            return responses.refuse(wire.BUSY, 503)
        except EngineError as failed:
            return responses.refuse(str(failed), failed.status)

    async def _attempt(self, request: web.Request, attempt: Attempt) -> web.StreamResponse:
        fault = attempt.fault
        if fault is not None:
            self._stats.faults[fault.kind] += 1
            attempt.record.fault = fault.kind
            if replaced := await self._misbehaviour.instead(request, fault):
                return replaced
        response = await self._answer_or_refusal(request, attempt)
        if fault is not None and fault.kind in BODY_KINDS and isinstance(response, web.Response):
            return await self._misbehaviour.deliver(request, fault, response)
        return response

    async def _answer_or_refusal(
        self, request: web.Request, attempt: Attempt
    ) -> web.StreamResponse:
        asked, loaded = attempt.asked, False
        try:
            async with self._scheduler.admitted(
                asked.model, asked.options.launch, asked.keep_alive
            ) as runner:
                loaded = True
                return await answer(request, attempt, asked.options, runner)
        except QueueFullError:
            return responses.refuse(wire.BUSY, 503)
        except RequestError as refused:
            streamed = asked.stream and refused.by_runner
            return responses.refuse(refused.message, refused.status, streamed=streamed)
        except EngineError as failed:
            return responses.refuse(str(failed), failed.status, streamed=asked.stream and loaded)
