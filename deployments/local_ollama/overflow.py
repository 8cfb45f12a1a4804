"""What becomes of a prompt that is longer than the context: turns dropped, cut, or refused."""

from bisect import bisect_left
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

    def without(dropped: int) -> Rendered:
        kept = (*(m for m in messages[:dropped] if m.role == "system"), *messages[dropped:])
        text = render(kept)
        return Rendered(kept, text, tokens(text))

    found = without(0)
    if len(found.tokens) <= length:
        return found
    # Fewer turns are fewer tokens, so halving finds the turn without trying every one.
    drops = range(1, len(messages) - 1)
    least = bisect_left(drops, x=True, key=lambda drop: len(without(drop).tokens) <= length)
    return without(least + 1) if len(messages) > 1 else found


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
