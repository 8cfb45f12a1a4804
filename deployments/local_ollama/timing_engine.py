"""An engine that takes the time of a language model and answers from a lexicon.

A token is four characters of text, rounded up per message, and every message costs four more
tokens for its role. The rule is crude on purpose: anyone can work out the expected count.
"""

import asyncio
import hashlib
import heapq
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from deployments.local_ollama.engine import (
    Completion,
    CompletionRequest,
    LaunchOptions,
    Message,
    ModelCard,
    OnText,
)
from deployments.local_ollama.lexicon import Lexicon
from deployments.local_ollama.settings import Settings

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TRAINED_CONTEXT = 32768
_REPORT = re.compile(r"<report>\n?(.*?)\n?</report>", re.DOTALL)


def count_tokens(text: str) -> int:
    """Tokens of `text`, by the rule of this module."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def source_text(messages: Sequence[Message]) -> str:
    """The text to translate: the last user message, or the last `<report>` block inside it.

    One line break after the opening tag and one before the closing tag belong to the block, not to
    the report.
    """
    last = next((each.content for each in reversed(messages) if each.role == "user"), "")
    blocks = _REPORT.findall(last) if "<report>" in last else []
    return str(blocks[-1]) if blocks else last


class SharedDecoder:
    """Decode time shared by concurrent answers: n of them each run at 1 / (1 + alpha * (n - 1)).

    It keeps one clock of work done, in the seconds a lone answer would have needed. The clock slows
    down as answers join and speeds up as they leave, so a wait is an alarm on that clock.
    """

    def __init__(self, slowdown: float) -> None:
        self._slowdown = slowdown
        self._active = 0
        self._work = 0.0
        self._moved_at = 0.0
        self._alarms: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def answer(self) -> Iterator[float]:
        """Count as one active answer; yields the reading of the work clock at its start."""
        self._advance()
        self._active += 1
        self._set_timer()
        try:
            yield self._work
        finally:
            self._advance()
            self._active -= 1
            self._set_timer()

    async def until(self, work: float) -> None:
        """Wait until the work clock reads `work`; call it only inside `answer`."""
        self._advance()
        if work <= self._work:
            return
        alarm = asyncio.get_running_loop().create_future()
        heapq.heappush(self._alarms, (work, next(self._order), alarm))
        self._set_timer()
        await alarm

    def _stretch(self) -> float:
        return 1.0 + self._slowdown * max(0, self._active - 1)

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._active:
            self._work += (now - self._moved_at) / self._stretch()
        self._moved_at = now

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._alarms and self._alarms[0][2].done():
            heapq.heappop(self._alarms)
        if self._alarms:
            wait = max(0.0, self._alarms[0][0] - self._work) * self._stretch()
            self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._advance()
        # A timer may fire a hair early by the work clock, which adds up many small floats.
        due = self._work + 1e-9
        while self._alarms and self._alarms[0][0] <= due:
            alarm = heapq.heappop(self._alarms)[2]
            if not alarm.done():
                alarm.set_result(None)
        self._set_timer()


class TimingEngine:
    """The engine of the simulation: deterministic answers, durations from the settings' rates."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lexicon = Lexicon.french_to_english()
        self._decoder = SharedDecoder(settings.slowdown)
        self._card = _card(settings)

    @property
    def card(self) -> ModelCard:
        """A model that owns to being simulated."""
        return self._card

    async def load(self, options: LaunchOptions) -> None:  # noqa: ARG002 - all alike
        """Take the time of a load."""
        await asyncio.sleep(self._settings.load_seconds)

    def unload(self) -> None:
        """Nothing is held."""

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the messages, by the rule of this module."""
        return sum(count_tokens(each.content) + TOKENS_PER_MESSAGE for each in messages)

    def cut(self, messages: Sequence[Message], limit: int, keep: int) -> tuple[Message, ...]:
        """System messages and the newest turns that fit; where even the last does not, its tail."""
        kept = list(messages)
        while self.count(kept) > limit:
            oldest = next((i for i, m in enumerate(kept[:-1]) if m.role != "system"), None)
            if oldest is None:
                break
            del kept[oldest]
        excess = self.count(kept) - limit
        if excess <= 0:
            return tuple(kept)
        last = kept[-1]
        head = last.content[: keep * CHARACTERS_PER_TOKEN]
        tail = max(0, count_tokens(last.content) - excess - keep) * CHARACTERS_PER_TOKEN
        shorter = head + (last.content[-tail:] if tail else "")
        return (*kept[:-1], Message(last.role, shorter))

    async def complete(
        self, request: CompletionRequest, on_text: OnText | None = None
    ) -> Completion:
        """Answer from the lexicon, after the time the rates say."""
        text, reason = self._answer(request)
        started = time.monotonic_ns()
        if self._settings.prefill_rate:
            seconds = request.prompt_tokens / self._settings.prefill_rate
            await asyncio.sleep(seconds * request.slow_by)
        read = time.monotonic_ns()
        await self._decode(text, request, on_text)
        return Completion(
            text=text,
            prompt_tokens=request.prompt_tokens,
            output_tokens=count_tokens(text),
            prompt_ns=max(1, read - started),
            output_ns=max(1, time.monotonic_ns() - read),
            done_reason="stop" if reason == "stop" else "length",
        )

    def _answer(self, request: CompletionRequest) -> tuple[str, str]:
        text = self._lexicon.translate(source_text(request.messages))
        if request.output_format:
            text = _as_json(text, request.output_format)
        ends = [at for at in (text.find(word) for word in request.stop if word) if at >= 0]
        if ends:
            text = text[: min(ends)]
        if count_tokens(text) > request.output_limit:
            return text[: request.output_limit * CHARACTERS_PER_TOKEN], "length"
        return text, "stop"

    async def _decode(self, text: str, request: CompletionRequest, on_text: OnText | None) -> None:
        per_token = self._seconds_per_token(text) * request.slow_by
        if not per_token and on_text is None:
            return
        pieces = range(0, len(text), CHARACTERS_PER_TOKEN)
        with self._decoder.answer() as start:
            if on_text is None:
                await self._decoder.until(start + len(pieces) * per_token)
                return
            for made, at in enumerate(pieces, start=1):
                if per_token:
                    await self._decoder.until(start + made * per_token)
                await on_text(text[at : at + CHARACTERS_PER_TOKEN])

    def _seconds_per_token(self, text: str) -> float:
        rate = self._settings.decode_rate
        if not rate:
            return 0.0
        if not self._settings.jitter:
            return 1.0 / rate
        drawn = hashlib.blake2b(f"{self._settings.seed}\0{text}".encode(errors="replace"))
        share = int.from_bytes(drawn.digest()[:8], "big") / 2**63 - 1.0
        return (1.0 + self._settings.jitter * share) / rate


def _as_json(text: str, wanted: str | Mapping[str, Any]) -> str:
    """The answer as an object: under the schema's first text property, else under `translation`."""
    name = "translation"
    properties = wanted.get("properties") if isinstance(wanted, Mapping) else None
    if isinstance(properties, Mapping):
        texts = (
            key
            for key, rule in properties.items()
            if isinstance(rule, Mapping) and rule.get("type") == "string"
        )
        name = next(texts, name)
    return json.dumps({name: text}, ensure_ascii=False)


def _card(settings: Settings) -> ModelCard:
    digest = hashlib.sha256(f"timing model {settings.model}".encode()).hexdigest()
    return ModelCard(
        name=settings.model,
        digest=digest,
        size=1 << 20,
        family="simulated",
        format="simulated",
        parameter_size="0",
        quantization_level="none",
        trained_context=TRAINED_CONTEXT,
        modified_ns=1_767_225_600_000_000_000,
        template="{{ .Prompt }}",
        license="Simulation: a timing model and a word list, no language model.",
    )
