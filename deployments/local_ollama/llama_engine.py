"""The engine that runs language models: llama.cpp, from the wheel `xllamacpp`, a process a model.

Requests go to llama.cpp's own server over a Unix socket, which has what the wheel's Python calls
lack: its tokenizer, the tokens of an answer, and an end to the work as soon as a connection closes.
"""

import asyncio
import importlib.util
import json
import re
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from deployments.local_ollama.engine import (
    Completion,
    CompletionRequest,
    EngineError,
    LaunchOptions,
    OnText,
)
from deployments.local_ollama.llama_process import LlamaProcess
from deployments.local_ollama.models import Model

if importlib.util.find_spec("xllamacpp") is None:
    raise ModuleNotFoundError("No module named 'xllamacpp'", name="xllamacpp")

# Of the prompt, when the context is shifted under a long answer; Ollama's default as well.
_KEPT_AT_FRONT = 4
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Without this, llama.cpp sends every setting and the whole prompt back with each answer.
_LAST_EVENT = ("stop", "content", "stop_type", "timings", "tokens_evaluated")

# Between the parts of JSON, as in llama.cpp's own grammars. The wheel has LLGuidance instead, which
# allows any amount, and a small model may then write nothing else.
_SPACE = r"( |\n{1,2}[ \t]{0,20})?"


class LlamaEngine:
    """Loads GGUF files into llama.cpp; every model has `threads` threads."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    async def load(self, model: Model, launch: LaunchOptions, slots: int) -> "LlamaModel":
        """Start a process with the model. Raises EngineError with the reason of llama.cpp.

        Cancelling it ends that process. Of the launch options, `others` make no difference here.
        """
        if model.path is None:
            raise EngineError(f"model '{model.name}' has no weights on this server")
        runner = LlamaProcess(Path(tempfile.mkdtemp(prefix="llama-")))
        try:
            await runner.start(
                model=str(model.path.absolute()),
                context_length=launch.context_length,
                slots=slots,
                threads=self._threads,
                shift=launch.shift,
            )
        except BaseException:
            await runner.end(at_once=True)
            raise
        return LlamaModel(runner)


class LlamaModel:
    """A model in a process of its own. Answers made at the same time share llama.cpp's batches.

    The same prompt and seed give the same answer, except where rounding decides between two tokens:
    sums come out differently in the last digit with other answers in the batch, and for a prompt
    whose beginning the slot still holds from the one before.
    """

    def __init__(self, runner: LlamaProcess) -> None:
        self._runner = runner
        connector = aiohttp.UnixConnector(str(runner.socket), limit=0, force_close=True)
        self._http = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None)
        )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._runner.runs

    def tokens(self, text: str) -> list[int]:
        """Tokens of the text: special ones recognised, the first one added where the model does.

        It blocks for a fraction of a millisecond, and more for long texts. Raises EngineError.
        """
        asked = {"content": _sendable(text), "add_special": True, "parse_special": True}
        found: list[int] = self._runner.ask("/tokenize", asked)["tokens"]
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """The text of the tokens, special ones included. Raises EngineError for unknown numbers."""
        return str(self._runner.ask("/detokenize", {"tokens": list(tokens)})["content"])

    async def complete(
        self, request: CompletionRequest, on_text: OnText | None = None
    ) -> Completion:
        """Answer; with `on_text`, hand over each piece of text as it is made, in order.

        No piece ends inside a character, nor inside what may become a stop word: an answer that its
        limit ends there lacks that rest. Cancelling closes the connection, and llama.cpp frees the
        slot with the next token; while it reads the prompt, up to a second late.
        """
        started = time.monotonic()
        made = _Made()
        async with aclosing(self._events(request)) as events:
            async for arrived in events:
                # One by one, however they arrived: whoever looks for repetitions counts pieces.
                for event in arrived:
                    text = made.add(event)
                    if text and on_text is not None:
                        await on_text(text)
        if made.last is None:
            raise await self._runner.failure("the answer broke off")
        await asyncio.sleep((time.monotonic() - started) * (request.slow_by - 1.0))
        return made.completion(request.slow_by)

    async def close(self) -> None:
        """End the process."""
        await self._http.close()
        await self._runner.end()

    async def _events(self, request: CompletionRequest) -> AsyncGenerator[list[dict[str, Any]]]:
        """Events of llama.cpp, those that arrived together in one list. Raises EngineError."""
        try:
            async with self._http.post("http://llama/completion", json=_asked(request)) as response:
                if response.status != HTTPStatus.OK:
                    raise EngineError((await response.read()).decode(), response.status)
                rest = b""
                async for received in response.content.iter_any():
                    *lines, rest = (rest + received).split(b"\n")
                    events = [json.loads(line[6:]) for line in lines if line[:6] == b"data: "]
                    for event in events:
                        if "error" in event:
                            status = int(event["error"].get("code", 500))
                            raise EngineError(json.dumps(event), status)
                    yield events
        except (aiohttp.ClientError, OSError) as lost:
            raise await self._runner.failure(str(lost)) from lost


@dataclass(slots=True)
class _Made:
    """What there is of an answer."""

    pieces: list[str] = field(default_factory=list)
    last: dict[str, Any] | None = None

    def add(self, event: dict[str, Any]) -> str:
        """Take an event; the text that it adds."""
        text: str = event["content"]
        self.pieces.append(text)
        if event["stop"]:
            self.last = event
        return text

    def completion(self, slow_by: float) -> Completion:
        """The whole answer, with llama.cpp's own counts and times.

        Without its tokens: a stream has none for text that llama.cpp held back.
        """
        last = self.last or {}
        timings = last["timings"]
        return Completion(
            text="".join(self.pieces),
            prompt_tokens=last["tokens_evaluated"],
            output_tokens=timings["predicted_n"],
            prompt_ns=max(1, round(timings["prompt_ms"] * 1e6 * slow_by)),
            output_ns=max(1, round(timings["predicted_ms"] * 1e6 * slow_by)),
            done_reason="length" if last["stop_type"] == "limit" else "stop",
        )


def _asked(request: CompletionRequest) -> dict[str, Any]:
    """The request in llama.cpp's words. It always streams, because then it stops when told to."""
    sampling = request.sampling
    asked: dict[str, Any] = {
        "prompt": request.prompt,
        "stream": True,
        "response_fields": _LAST_EVENT,
        "n_predict": request.output_limit,
        "n_keep": _KEPT_AT_FRONT,
        "cache_prompt": True,
        "stop": [_sendable(word) for word in request.stop if word],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_last_n": sampling.repeat_last_n,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed & 0xFFFFFFFF if sampling.seed >= 0 else -1,
    }
    if request.output_format is not None:
        schema = request.output_format
        fixed = schema if isinstance(schema, Mapping) else {"type": "object"}
        asked["json_schema"] = {"x-guidance": {"whitespace_pattern": _SPACE}, **fixed}
    return asked


def _sendable(text: str) -> str:
    return _LONE_SURROGATE.sub("\ufffd", text)
