"""What an answer holds: text, ends, metrics, and the same text streamed or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.target import PROSE, Target, lines_of, object_of, require

SAME = {"temperature": 0, "seed": 7}
ASK = f"Repeat this text, word for word: {PROSE * 8}"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(autouse=True)
def loaded(target: Target) -> None:
    """The model is loaded as these tests ask for it."""
    object_of(target.generate())


def text_of(body: dict[str, Any]) -> str:
    """The words of a whole answer or of one line of a stream."""
    return str(body["message"]["content"] if "message" in body else body["response"])


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
def test_durations_are_nanoseconds_and_add_up(target: Target, endpoint: str) -> None:
    """The total holds the load, the prompt and the output, and is what the client waited."""
    answer = getattr(target, endpoint)(ASK, options={**SAME, "num_predict": 80})
    body = object_of(answer)
    parts = sum(body[f"{part}_duration"] for part in ("load", "prompt_eval", "eval"))
    total = body["total_duration"]
    require("total_duration", f"{parts}, the parts, or more", total, holds=parts <= total * 1.05)
    waited = answer.seconds * 1e9
    require(
        "total_duration in nanoseconds",
        f"most of the {waited:.0f} that the client waited",
        total,
        holds=0.2 * waited <= total <= 1.05 * waited,
    )


def test_a_raw_prompt_is_answered_without_context(target: Target) -> None:
    """With `raw` the prompt stays as it is, and the answer holds no tokens to go on with.

    What the model says to it, if anything, is its own affair.
    """
    body = object_of(target.generate(ASK, raw=True, options={**SAME, "num_predict": 4}))
    require("done", "true", body["done"], holds=body["done"] is True)
    require("context", "no such field", body.get("context"), holds="context" not in body)
    whole = object_of(target.generate(ASK, options={**SAME, "num_predict": 4}))
    require("context", "a list of tokens", whole.get("context"), holds=bool(whole.get("context")))


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
def test_num_predict_cuts_the_answer(target: Target, endpoint: str) -> None:
    """An answer has at most `num_predict` tokens, and ends with `length` when it is cut."""
    for limit in (1, 5):
        body = object_of(getattr(target, endpoint)(ASK, options={**SAME, "num_predict": limit}))
        require("eval_count", limit, body["eval_count"])
        require("done_reason", "length", body["done_reason"])


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
def test_stop_ends_the_answer(target: Target, endpoint: str) -> None:
    """The answer ends in front of the first stop text, with `stop`."""
    ask = getattr(target, endpoint)
    whole = text_of(object_of(ask(ASK, options={**SAME, "num_predict": 24})))
    words = whole.split()
    if len(words) < 3:
        pytest.skip(f"the model says only {whole!r}")
    body = object_of(ask(ASK, options={**SAME, "num_predict": 24, "stop": [words[2]]}))
    require("the text before the stop", whole[: whole.index(words[2])], text_of(body))
    require("done_reason", "stop", body["done_reason"])


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
def test_a_stream_has_the_text_of_the_whole_answer(target: Target, endpoint: str) -> None:
    """The pieces joined are the answer that is given at once; only the last line is done."""
    ask = getattr(target, endpoint)
    options = {**SAME, "num_predict": 24}
    whole = object_of(ask(ASK, options=options))
    lines = lines_of(ask(ASK, options=options, stream=True))
    require("the joined pieces", text_of(whole), "".join(map(text_of, lines)))
    require("pieces", "more than one", len(lines) - 1, holds=len(lines) > 2)
    done = [line["done"] for line in lines]
    require("done", [False] * (len(lines) - 1) + [True], done)
    require("the last line's eval_count", whole["eval_count"], lines[-1]["eval_count"])
    require("the last line's done_reason", whole["done_reason"], lines[-1]["done_reason"])


@pytest.mark.parametrize("output_format", ["json", SCHEMA], ids=["json", "schema"])
def test_a_format_makes_the_answer_json(
    target: Target, output_format: str | dict[str, Any]
) -> None:
    """An answer that has come to its end is valid JSON."""
    ask = "Answer with a JSON object whose field a is the number 6."
    body = object_of(target.chat(ask, format=output_format, options={**SAME, "num_predict": 200}))
    if body["done_reason"] != "stop":
        pytest.skip(f"the model did not come to an end: {text_of(body)[-80:]!r}")
    try:
        json.loads(text_of(body))
    except ValueError:
        require("the text", "valid JSON", text_of(body))


def test_marks_and_accents_survive(target: Target) -> None:
    """The prompt that the model gets has every character of the text, and so has the answer."""
    text = 'é « ’ — < > & " \\ \u2028 😀'
    rendered = object_of(target.chat(text, _debug_render_only=True))["_debug_info"]
    prompt = rendered["rendered_template"]
    require("the rendered prompt", f"{text!r} in it", repr(prompt), holds=text in prompt)
    said = text_of(object_of(target.chat(text, options={**SAME, "num_predict": 40})))
    require("the answer", "text of whole characters", repr(said), holds="\ufffd" not in said)
    if target.is_own:
        require("the answer", text, said)


def test_a_system_prompt_and_several_turns_are_taken(target: Target) -> None:
    """A conversation counts with all its messages."""
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": PROSE},
        {"role": "assistant", "content": "The train arrives."},
        {"role": "user", "content": PROSE},
    ]
    options = {**SAME, "num_predict": 4}
    long = object_of(target.chat(messages=turns, options=options))
    short = object_of(target.chat(messages=turns[-1:], options=options))
    require(
        "prompt_eval_count of four messages",
        f"more than {short['prompt_eval_count']}, those of one",
        long["prompt_eval_count"],
        holds=long["prompt_eval_count"] > short["prompt_eval_count"],
    )
