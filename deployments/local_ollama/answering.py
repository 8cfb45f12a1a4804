"""One admitted request, from its prompt to the last line of its answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from deployments.local_ollama import prompt as prompts
from deployments.local_ollama import responses, wire
from deployments.local_ollama.engine import (
    Completion,
    CompletionRequest,
    EngineError,
    OnText,
)
from deployments.local_ollama.faults import ANSWER_KINDS, BODY_KINDS, Rule, altered
from deployments.local_ollama.options import Options
from deployments.local_ollama.output_format import checked_format
from deployments.local_ollama.preparing import completion_of, rendered_prompt
from deployments.local_ollama.repetition import RepeatedError, Repetition
from deployments.local_ollama.request import Asked
from deployments.local_ollama.runners import Runner
from deployments.local_ollama.stats import TextRequest


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request with text: what was asked, its record, its fault, when it came (monotonic ns)."""

    asked: Asked
    record: TextRequest
    fault: Rule | None
    came_ns: int

    @property
    def shape(self) -> wire.AnswerShape:
        """How its answer is written."""
        return wire.AnswerShape(self.asked.named, self.asked.chat)

    def suffers(self, kinds: frozenset[str]) -> bool:
        """Whether this request has a fault of one of these kinds."""
        return self.fault is not None and self.fault.kind in kinds


async def answer(
    request: web.Request, attempt: Attempt, options: Options, runner: Runner
) -> web.StreamResponse:
    """Answer with a loaded model: render, fit, wait for a slot, complete.

    Raises RequestError and EngineError for what goes wrong before the first byte is sent.
    """
    load_ns = max(1, time.monotonic_ns() - attempt.came_ns)
    asked = attempt.asked
    try:
        rendered = rendered_prompt(asked, options, runner.ready)
    except EngineError as failed:
        note_failure(runner, failed)
        raise
    if asked.render_only:
        return responses.respond(attempt.shape.rendered(rendered.text))
    output_format = checked_format(asked.output_format, asked.body)
    streamed = asked.stream and not attempt.suffers(ANSWER_KINDS | BODY_KINDS)
    completion = completion_of(asked, options, rendered, output_format)
    slow_by = attempt.fault.factor if attempt.fault and attempt.fault.kind == "slow" else 1.0
    completion = replace(completion, slow_by=slow_by, streamed=streamed)
    made = _Answer(attempt, runner, completion, rendered.text, load_ns)
    async with runner.slots.one():
        return await (made.streamed(request) if streamed else made.whole())


def note_failure(runner: Runner, failed: EngineError) -> None:
    """Have the model loaded anew for the next request, if it is the engine that went wrong."""
    runner.stale = runner.stale or failed.status >= responses.FAILED


class _Answer:
    """An answer being made."""

    def __init__(
        self,
        attempt: Attempt,
        runner: Runner,
        completion: CompletionRequest,
        text: str,
        load_ns: int,
    ) -> None:
        self._attempt = attempt
        self._runner = runner
        self._completion = completion
        self._prompt = text
        self._load_ns = load_ns
        self._said = Repetition()
        asked = attempt.asked
        # Ollama leaves the chats of models with a template of their own to llama.cpp altogether.
        self._watched = not (asked.chat and prompts.is_native(asked.model))

    async def whole(self) -> web.Response:
        """The answer in one body; also a stream that a fault wants to have in one piece."""
        made = await self._complete()
        fault = self._attempt.fault
        if fault is not None and fault.kind in ANSWER_KINDS:
            made = altered(fault.kind, made, self._attempt.record.text)
        self._attempt.record.output_tokens = made.output_tokens
        shape = self._attempt.shape
        if not self._attempt.asked.stream:
            return responses.respond(self._last_line(made))
        lines = [shape.piece(made.text)] if made.text else []
        if made.done:
            lines.append(self._last_line(made, streamed=True))
        body = b"".join(wire.encode(line) + b"\n" for line in lines)
        return responses.raw(body, 200, wire.NDJSON)

    async def streamed(self, request: web.Request) -> web.StreamResponse:
        """The answer line by line. A mistake after the first line is the last.

        Where it comes to no good end the record's outcome is set already.
        """
        shape, record = self._attempt.shape, self._attempt.record
        response = web.StreamResponse(headers=responses.headers(wire.NDJSON))
        # Ollama sends the head with the first piece, so that an earlier error can have its status.
        response.enable_chunked_encoding()

        async def send(line: dict[str, Any]) -> None:
            if not response.prepared:
                await response.prepare(request)
            await response.write(wire.encode(line) + b"\n")

        try:
            try:
                made = await self._complete(lambda piece: send(shape.piece(piece)))
                record.output_tokens = made.output_tokens
                if made.done:
                    await send(self._last_line(made, streamed=True))
                elif not response.prepared:
                    await response.prepare(request)
            except EngineError as failed:
                if not response.prepared:
                    raise
                record.outcome = "failed"
                await send(wire.error(str(failed)))
            await response.write_eof()
        except ConnectionError:
            record.outcome = "cancelled"
        return response

    async def _complete(self, send: OnText | None = None) -> Completion:
        async def on_text(piece: str) -> None:
            if self._watched:
                self._said.watch(piece)
            if send is not None:
                await send(piece)

        try:
            wanted = on_text if self._watched or send is not None else None
            return await self._runner.ready.complete(self._completion, wanted)
        except RepeatedError:
            text = self._said.text
            return Completion(text, 0, 0, 0, 0, done_reason=None, done=False)
        except EngineError as failed:
            note_failure(self._runner, failed)
            raise

    def _last_line(self, made: Completion, *, streamed: bool = False) -> dict[str, Any]:
        total_ns = time.monotonic_ns() - self._attempt.came_ns
        return self._attempt.shape.whole(
            made, total_ns, self._load_ns, context=self._context(made), streamed=streamed
        )

    def _context(self, made: Completion) -> Sequence[int]:
        asked = self._attempt.asked
        if asked.chat or asked.raw or not made.done:
            return ()
        return self._runner.ready.tokens(self._prompt + made.text)
