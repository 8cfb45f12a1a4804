"""What the server needs from whatever produces its answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

OnText = Callable[[str], Awaitable[None]]


class EngineError(Exception):
    """The engine failed; the message is what Ollama would say, under status 500."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; a bare prompt is a single `user` message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """The options a model is loaded with: two requests that differ in any of them need a reload.

    `context_length` is in tokens and per slot. `automatic` says that nobody asked for that length;
    a length that somebody asked for never matches it, even where the two are equal.
    """

    context_length: int
    automatic: bool = True
    shift: bool = True
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One prompt that fits the context, and how far its answer may go.

    `output_limit` is in tokens. `slow_by` multiplies the time the answer takes; an engine whose
    time is not its own to choose may wait instead.
    """

    messages: tuple[Message, ...]
    prompt_tokens: int
    output_limit: int
    output_format: str | Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    slow_by: float = 1.0


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with its token counts and its durations in nanoseconds.

    `done` is False, and `done_reason` None, where the engine gave up part of the way.
    """

    text: str
    prompt_tokens: int
    output_tokens: int
    prompt_ns: int
    output_ns: int
    done_reason: Literal["stop", "length"] | None = "stop"
    done: bool = True


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What `/api/tags`, `/api/ps` and `/api/show` say of the one model an engine serves."""

    name: str
    digest: str
    size: int
    family: str
    format: str
    parameter_size: str
    quantization_level: str
    trained_context: int
    modified_ns: int
    template: str
    license: str


class Engine(Protocol):
    """Answers prompts. The scheduler decides when, and calls `load` before the first answer."""

    @property
    def card(self) -> ModelCard:
        """What is known of the model."""
        ...

    async def load(self, options: LaunchOptions) -> None:
        """Make the model ready. Cancelling it leaves the model unloaded."""
        ...

    def unload(self) -> None:
        """Begin to free the model; the next `load` waits for the rest.

        Never called while an answer is being made.
        """
        ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered conversation."""
        ...

    def cut(self, messages: Sequence[Message], limit: int, keep: int) -> tuple[Message, ...]:
        """The conversation in at most `limit` tokens: its first `keep` tokens and its tail."""
        ...

    async def complete(
        self, request: CompletionRequest, on_text: OnText | None = None
    ) -> Completion:
        """Answer; with `on_text`, hand over each piece of text as it is made, in order.

        Cancelling it ends the work at once.
        """
        ...
