"""What becomes of a prompt that is longer than the context: turns dropped, cut, or refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployments.local_ollama.engine import Message
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.wire import PROMPT_TOO_LONG, context_exceeded

Render = Callable[[Sequence[Message]], str]
Tokens = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation, its prompt and the tokens of that."""

    messages: tuple[Message, ...]
    text: str
    tokens: list[int]


def newest_that_fit(
    messages: Sequence[Message], render: Render, tokens: Tokens, length: int
) -> Rendered:
    """The prompt without as many of its oldest turns as it takes to fit.

    System messages stay, and so does the last one, whether that fits or not.
    """
    for start in range(len(messages)):
        kept = (*(m for m in messages[:start] if m.role == "system"), *messages[start:])
        text = render(kept)
        found = Rendered(kept, text, tokens(text))
        if len(found.tokens) <= length:
            break
    return found


def fitted(
    tokens: Sequence[int], length: int, keep: int, *, truncate: bool, shift: bool, native: bool
) -> tuple[int, ...]:
    """The prompt in fewer tokens than the context has. Raises RequestError where it may not be cut.

    A cut prompt has its first `keep` tokens and its tail, and leaves about half the context free. A
    chat of a model that renders its own prompts (`native`) is never cut.
    """
    if len(tokens) < length:
        return tuple(tokens)
    if native or not truncate:
        raise RequestError(400, context_exceeded(len(tokens), length), by_runner=True)
    if not shift:
        raise RequestError(400, PROMPT_TOO_LONG, by_runner=True)
    keep = min(len(tokens) if keep < 0 else keep, length - 1)
    limit = length - max((length - keep) // 2, 1)
    return (*tokens[:keep], *tokens[len(tokens) - (limit - keep) :])
