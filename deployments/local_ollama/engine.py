"""What the server needs from whatever produces its answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from deployments.local_ollama.models import Model

OnText = Callable[[str], Awaitable[None]]


class EngineError(Exception):
    """The engine failed; the message is what Ollama would say under `status`.

    After a status of 500 and above the model is loaded anew for the next request; below, the engine
    refused one request and goes on as it is.
    """

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; a bare prompt is a single `user` message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """The options a model is loaded with: two requests that differ in any of them need a reload.

    `context_length` is in tokens and per slot. A `num_gpu` below 0 leaves the number to the server.
    `others` are those that are not as Ollama sets them by itself.
    """

    context_length: int
    shift: bool = True
    num_gpu: int = -1
    others: tuple[tuple[str, str], ...] = ()

    def serve(self, wanted: "LaunchOptions") -> bool:
        """Whether a model that is loaded so does for a request with the options `wanted`."""
        return wanted == (self if wanted.num_gpu >= 0 else replace(self, num_gpu=wanted.num_gpu))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: the request's options over the model's over Ollama's own.

    A negative `seed` asks for chance; every other one for the same answer to the same prompt.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One prompt that fits the context, and how far its answer may go.

    `prompt` is the rendered prompt in tokens, already cut to the context; `messages` is the
    conversation it was rendered from. `output_limit` is in tokens and above 0. `output_format` is
    None, "json" or a JSON schema. `slow_by` multiplies the time the answer takes; an engine whose
    time is not its own to choose may wait instead. Unless it is `streamed`, nobody waits for the
    pieces of the answer, and an engine may hand them over late.
    """

    prompt: tuple[int, ...]
    messages: tuple[Message, ...]
    output_limit: int
    sampling: Sampling = Sampling()
    output_format: str | Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    slow_by: float = 1.0
    streamed: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with its token counts and its durations in nanoseconds.

    `prompt_tokens` counts the whole prompt, cached tokens too; `tokens` are those of the answer.
    `done` is False, and `done_reason` None, where the engine gave up part of the way.
    """

    text: str
    prompt_tokens: int
    output_tokens: int
    prompt_ns: int
    output_ns: int
    done_reason: Literal["stop", "length"] | None = "stop"
    done: bool = True
    tokens: tuple[int, ...] = ()


class LoadedModel(Protocol):
    """A model that is ready. The scheduler gives it at most as many answers at a time as slots."""

    @property
    def alive(self) -> bool:
        """Whether whatever runs the model is still there; if not, it is loaded anew."""
        ...

    def tokens(self, text: str) -> list[int]:
        """Tokens of the text: special ones recognised, the first one added where the model does."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """The text of the tokens."""
        ...

    async def complete(
        self, request: CompletionRequest, on_text: OnText | None = None
    ) -> Completion:
        """Answer; with `on_text`, hand over each piece of text as it is made, in order.

        Cancelling it ends the work at once and frees the slot. Raises EngineError.
        """
        ...

    async def close(self) -> None:
        """Free the model. Never called while an answer is being made."""
        ...


class Engine(Protocol):
    """Loads models. The scheduler decides when."""

    async def load(self, model: Model, launch: LaunchOptions, slots: int) -> LoadedModel:
        """Make the model ready for `slots` answers at a time. Raises EngineError.

        Cancelling it leaves nothing loaded.
        """
        ...
