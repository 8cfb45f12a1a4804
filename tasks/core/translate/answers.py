"""Whether an answer can be accepted as a translation."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.core.errors import ErrorKind
from tasks.core.records import Measures
from tasks.core.translate.profiles import unwrap


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered: HTTP 200 and the JSON that was asked for."""

    content: str
    done: bool
    done_reason: str | None
    measures: Measures


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an answer is not accepted."""

    kind: ErrorKind
    reason: str


def judge(answer: Answer) -> str | Refusal:
    """The translation in an answer, or why there is none.

    Only `done is True` with `done_reason == "stop"` is a complete answer: a server
    sends 200 for an answer it gave up on and for one that filled the context, too.
    """
    if not answer.done:
        return Refusal(ErrorKind.NOT_DONE, "the server stopped in the middle of the answer")
    if answer.done_reason != "stop":
        return Refusal(ErrorKind.CUT, f"the answer was cut (done_reason {answer.done_reason!r})")
    text = unwrap(answer.content)
    if not text:
        return Refusal(ErrorKind.EMPTY, "the answer holds no text")
    return text
