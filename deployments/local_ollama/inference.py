"""The life of one `/api/chat` or `/api/generate` request, from its first byte to its answer."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from deployments.local_ollama import responses, wire
from deployments.local_ollama.engine import (
    CompletionRequest,
    Engine,
    EngineError,
    LaunchOptions,
)
from deployments.local_ollama.faults import (
    ANSWER_KINDS,
    BODY_KINDS,
    UNANSWERED_KINDS,
    FaultPlan,
    Rule,
    altered,
)
from deployments.local_ollama.misbehaviour import Misbehaviour
from deployments.local_ollama.request import Asked, RequestError, check_format
from deployments.local_ollama.scheduler import QueueFullError, Scheduler
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.stats import Outcome, Stats, TextRequest
from deployments.local_ollama.timing_engine import source_text

Parse = Callable[[bytes, Settings], Asked]
# A client that sets no limit gets at most this many contexts of output, as from Ollama.
CONTEXTS_OF_OUTPUT = 10


@dataclass(slots=True)
class _Attempt:
    """One request with text: what was asked, its record, its fault, when it came (monotonic ns)."""

    asked: Asked
    record: TextRequest
    fault: Rule | None
    came_ns: int

    @property
    def shape(self) -> wire.AnswerShape:
        context = not self.asked.chat and not self.asked.raw
        return wire.AnswerShape(self.asked.model, self.asked.chat, with_context=context)

    def suffers(self, kinds: frozenset[str]) -> bool:
        """Whether this request has a fault of one of these kinds."""
        return self.fault is not None and self.fault.kind in kinds


class Inference:
    """Answers prompts through the scheduler and the engine, and lets faults interfere."""

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Engine,
        scheduler: Scheduler,
        faults: FaultPlan,
        stats: Stats,
        misbehaviour: Misbehaviour,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._scheduler = scheduler
        self._faults = faults
        self._stats = stats
        self._misbehaviour = misbehaviour

    async def serve(self, request: web.Request, parse: Parse) -> web.StreamResponse:
        """Answer one request. Its record ends with the answer, also where its client leaves."""
        came_ns = time.monotonic_ns()
        self._stats.endpoints[request.path] += 1
        try:
            asked = parse(await request.read(), self._settings)
        except RequestError as refused:
            return responses.refuse(refused.message, refused.status)
        if not asked.messages:
            return await self._load_only(request, asked)
        record = self._stats.begin(request.path, source_text(asked.messages))
        attempt = _Attempt(asked, record, self._faults.strike(request.path, asked.prompt), came_ns)
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
            self._stats.end(record, "cancelled" if record.client_left else outcome)
        return response

    async def _load_only(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        fault = self._faults.strike(request.path, None)
        if fault is not None:
            self._stats.faults[fault.kind] += 1
            if replaced := await self._misbehaviour.instead(request, fault):
                return replaced
        shape = wire.AnswerShape(asked.model, asked.chat)
        if asked.keep_alive <= 0:
            self._scheduler.unload()
            return responses.respond(shape.bare("unload"))
        try:
            async with self._scheduler.admitted(self._launch(asked), asked.keep_alive):
                return responses.respond(shape.bare("load"))
        except QueueFullError:
            return responses.refuse(wire.BUSY, 503)
        except EngineError as failed:
            return responses.refuse(str(failed), 500)

    async def _attempt(self, request: web.Request, attempt: _Attempt) -> web.StreamResponse:
        fault = attempt.fault
        if fault is not None:
            self._stats.faults[fault.kind] += 1
            attempt.record.fault = fault.kind
            if replaced := await self._misbehaviour.instead(request, fault):
                return replaced
        # A stream that fails before its first line is refused with a slightly different header.
        content_type = wire.PLAIN_JSON if attempt.asked.stream else wire.JSON
        try:
            response = await self._complete(request, attempt)
        except QueueFullError:
            return responses.refuse(wire.BUSY, 503)
        except RequestError as refused:
            return responses.refuse(refused.message, refused.status, content_type=content_type)
        except EngineError as failed:
            return responses.refuse(str(failed), 500, content_type=content_type)
        if fault is not None and fault.kind in BODY_KINDS and isinstance(response, web.Response):
            return await self._misbehaviour.deliver(request, fault, response)
        return response

    async def _complete(self, request: web.Request, attempt: _Attempt) -> web.StreamResponse:
        """Wait for the model and a slot, then answer."""
        asked = attempt.asked
        launch = self._launch(asked)
        async with self._scheduler.admitted(launch, asked.keep_alive) as runner:
            load_ns = max(1, time.monotonic_ns() - attempt.came_ns)
            check_format(asked.output_format)
            prompt = self._fitted(attempt, launch)
            async with runner.slots.one():
                if asked.stream and not attempt.suffers(ANSWER_KINDS | BODY_KINDS):
                    return await self._stream(request, attempt, prompt, load_ns)
                return await self._whole(attempt, prompt, load_ns)

    def _launch(self, asked: Asked) -> LaunchOptions:
        longest = self._engine.card.trained_context
        if asked.options.context_length <= longest:
            return asked.options
        return dataclasses.replace(asked.options, context_length=longest)

    def _fitted(self, attempt: _Attempt, launch: LaunchOptions) -> CompletionRequest:
        """The prompt as the engine gets it: refused or cut where it is longer than the context."""
        asked, length = attempt.asked, launch.context_length
        messages, tokens = asked.messages, self._engine.count(asked.messages)
        if tokens >= length:
            if not asked.truncate:
                raise RequestError(400, wire.context_exceeded(tokens, length))
            if not launch.shift:
                raise RequestError(400, wire.PROMPT_TOO_LONG)
            keep = min(asked.keep_tokens, length - 1)
            messages = self._engine.cut(messages, length - (length - keep) // 2, keep)
            tokens = self._engine.count(messages)
        limit = CONTEXTS_OF_OUTPUT * length if launch.shift else max(1, length - tokens)
        return CompletionRequest(
            messages=messages,
            prompt_tokens=tokens,
            output_limit=min(asked.output_limit, limit) if asked.output_limit > 0 else limit,
            output_format=asked.output_format,
            stop=asked.stop,
            slow_by=attempt.fault.factor if attempt.fault and attempt.fault.kind == "slow" else 1.0,
        )

    async def _whole(
        self, attempt: _Attempt, prompt: CompletionRequest, load_ns: int
    ) -> web.Response:
        answer = await self._engine.complete(prompt)
        if attempt.fault is not None and attempt.fault.kind in ANSWER_KINDS:
            answer = altered(attempt.fault.kind, answer, attempt.record.text)
        attempt.record.output_tokens = answer.output_tokens
        total_ns = time.monotonic_ns() - attempt.came_ns
        shape = attempt.shape
        if not attempt.asked.stream:
            return responses.respond(shape.whole(answer, total_ns, load_ns))
        lines = [shape.piece(answer.text)] if answer.text else []
        if answer.done:
            lines.append(shape.whole(answer, total_ns, load_ns, streamed=True))
        body = b"".join(wire.encode(line) + b"\n" for line in lines)
        return responses.raw(body, 200, wire.NDJSON)

    async def _stream(
        self, request: web.Request, attempt: _Attempt, prompt: CompletionRequest, load_ns: int
    ) -> web.StreamResponse:
        shape = attempt.shape
        response = web.StreamResponse(headers=responses.headers(wire.NDJSON))
        # Ollama sends the head with the first piece, so that an earlier error can have its status.
        response.enable_chunked_encoding()

        async def send(line: dict[str, object]) -> None:
            if not response.prepared:
                await response.prepare(request)
            await response.write(wire.encode(line) + b"\n")

        try:
            answer = await self._engine.complete(prompt, lambda text: send(shape.piece(text)))
            attempt.record.output_tokens = answer.output_tokens
            total_ns = time.monotonic_ns() - attempt.came_ns
            await send(shape.whole(answer, total_ns, load_ns, streamed=True))
            await response.write_eof()
        except ConnectionError:
            attempt.record.client_left = True
        except EngineError as failed:
            if not response.prepared:
                raise
            await response.write(wire.encode(wire.error(str(failed))) + b"\n")
        return response
