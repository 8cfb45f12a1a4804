"""An engine that does what a test tells it, in tokens of one word each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from deployments.local_ollama.engine import (
    Completion,
    CompletionRequest,
    EngineError,
    LaunchOptions,
    OnText,
)
from deployments.local_ollama.models import Model

Script = Callable[[CompletionRequest, OnText | None], Awaitable[Completion]]


def done(text: str, request: CompletionRequest) -> Completion:
    """An answer that took no time to speak of."""
    return Completion(text, len(request.prompt), max(1, len(text.split())), 1, 1)


def saying(*pieces: str) -> Script:
    """Answers with these pieces, one by one."""

    async def script(request: CompletionRequest, on_text: OnText | None) -> Completion:
        for piece in pieces:
            await asyncio.sleep(0)
            if on_text is not None:
                await on_text(piece)
        return done("".join(pieces), request)

    return script


def failing(message: str, status: int = 500, *, after: Sequence[str] = ()) -> Script:
    """Fails, after these pieces."""

    async def script(request: CompletionRequest, on_text: OnText | None) -> Completion:
        await saying(*after)(request, on_text)
        raise EngineError(message, status)

    return script


class ScriptedEngine:
    """Follows `script`; `loads` are the names and options it was asked to load, in order.

    `requests` are those it was asked to complete, and `closed` counts the models it gave up.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or saying("ok")
        self.loads: list[tuple[str, LaunchOptions]] = []
        self.requests: list[CompletionRequest] = []
        self.closed = 0
        self.load_error: str | None = None
        self.load_seconds = 0.0
        self.alive = True

    async def load(self, model: Model, launch: LaunchOptions, slots: int) -> "ScriptedModel":
        """Load at once, or as told."""
        assert slots > 0
        self.loads.append((model.name, launch))
        await asyncio.sleep(self.load_seconds)
        if self.load_error is not None:
            raise EngineError(self.load_error)
        return ScriptedModel(self)


class ScriptedModel:
    """A loaded model of a ScriptedEngine."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self._words: list[str] = []

    @property
    def alive(self) -> bool:
        """Whether no test has ended it."""
        return self._engine.alive

    def tokens(self, text: str) -> list[int]:
        """One token for each word."""
        words = text.split()
        self._words += [word for word in words if word not in self._words]
        return [self._words.index(word) for word in words]

    def text(self, tokens: Sequence[int]) -> str:
        """The words."""
        return " ".join(self._words[token] for token in tokens)

    async def complete(
        self, request: CompletionRequest, on_text: OnText | None = None
    ) -> Completion:
        """Do what the script says."""
        self._engine.requests.append(request)
        return await self._engine.script(request, on_text)

    async def close(self) -> None:
        """Count."""
        self._engine.closed += 1
