from __future__ import annotations

import pytest

from tasks.core.errors import ErrorKind
from tasks.core.records import Measures
from tasks.core.translate.answers import Answer, Refusal, judge


def answer(content: str, *, done: bool = True, done_reason: str | None = "stop") -> Answer:
    """An answer with these contents."""
    return Answer(content, done, done_reason, Measures())


def test_a_complete_answer_is_accepted() -> None:
    """Done, because the text was complete, and with text: that is a translation, unwrapped."""
    assert judge(answer(" <report>\nThe kidney\n</report>")) == "The kidney"


@pytest.mark.parametrize("reason", ["stop", None, "length"])
def test_an_answer_that_was_given_up(reason: str | None) -> None:
    """`done: false` is no translation, whatever the reason says."""
    assert judge(answer("The kid", done=False, done_reason=reason)) == Refusal(
        ErrorKind.NOT_DONE, "the server stopped in the middle of the answer"
    )


@pytest.mark.parametrize("reason", ["length", "load", "", None, "Stop"])
def test_an_answer_that_was_cut(reason: str | None) -> None:
    """Only the reason `stop` means that the text is complete."""
    assert judge(answer("The kid", done_reason=reason)) == Refusal(
        ErrorKind.CUT, f"the answer was cut (done_reason {reason!r})"
    )


@pytest.mark.parametrize("content", ["", " \n", "<report>\n</report>", "<think>hm</think> "])
def test_an_answer_without_text(content: str) -> None:
    """Nothing but whitespace, tags or thoughts is no translation."""
    refusal = judge(answer(content))
    assert isinstance(refusal, Refusal)
    assert refusal.kind is ErrorKind.EMPTY
