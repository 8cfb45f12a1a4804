"""Prompts longer than the context: cut in silence, or refused as the request says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.exchange import PLAIN_JSON
from tests.contract.target import PROSE, Target, object_of, require
from tests.contract.wire import Answer

NUM_CTX, NUM_KEEP = 256, 4
LONG = "mot " * 400
"""At least one token for each word, whatever the tokens are."""
TOO_LONG = "the prompt is longer than the context length currently available to the model"
SMALL = {"num_ctx": NUM_CTX, "num_predict": 4, "temperature": 0}


def nested(answer: Answer, content_type: str | None = None) -> dict[str, Any]:
    """The runner's own error, which is JSON within the error of the answer."""
    more = {} if content_type is None else {"content_type": content_type}
    said = object_of(answer, status=400, **more).get("error")
    try:
        error = json.loads(said or "")["error"]
    except (ValueError, KeyError, TypeError):
        require("error", "JSON of the runner, as text", said)
        raise
    return dict(error)


def overflow(error: dict[str, Any]) -> None:
    """Check the runner's error for a prompt that is too long."""
    require("type", "exceed_context_size_error", error.get("type"))
    require("code", 400, error.get("code"))
    require("n_ctx", NUM_CTX, error.get("n_ctx"))
    count = error.get("n_prompt_tokens", 0)
    require("n_prompt_tokens", f"above {NUM_CTX}", count, holds=count > NUM_CTX)
    wording = (
        f"request ({count} tokens) exceeds the available context size ({NUM_CTX} tokens), "
        "try increasing it"
    )
    require("message", wording, error.get("message"))


def test_generate_cuts_in_silence(target: Target) -> None:
    """A prompt too long is answered with 200; only its token count tells that it was cut."""
    body = object_of(target.generate(LONG, options=SMALL))
    count = body["prompt_eval_count"]
    require("prompt_eval_count", f"at most {NUM_CTX}", count, holds=count <= NUM_CTX)
    if target.version >= (0, 30, 11):
        kept = NUM_CTX - (NUM_CTX - NUM_KEEP) // 2
        require(
            "prompt_eval_count",
            f"{kept}: num_ctx less half of what num_keep leaves",
            count,
            holds=abs(count - kept) <= 2,
        )


@pytest.mark.parametrize("more", [{"truncate": False}, {"truncate": False, "shift": False}])
@pytest.mark.parametrize("endpoint", ["chat", "generate"])
def test_truncate_false_refuses(target: Target, endpoint: str, more: dict[str, bool]) -> None:
    """The prompt is refused with the runner's own error and both token counts."""
    overflow(nested(getattr(target, endpoint)(LONG, options=SMALL, **more)))


def test_truncate_false_refuses_a_stream_before_it_begins(target: Target) -> None:
    """The refusal has its status, and a content type of its own."""
    answer = target.chat(LONG, options=SMALL, truncate=False, stream=True)
    overflow(nested(answer, PLAIN_JSON))


def test_generate_with_shift_false_refuses(target: Target) -> None:
    """Without context shift a prompt that is too long is refused in Ollama's words."""
    body = object_of(target.generate(LONG, options=SMALL, shift=False), status=400)
    said = body.get("error", "")
    require("error", f"{TOO_LONG}; ...", said, holds=said.startswith(TOO_LONG))


def test_chat_drops_the_oldest_messages(target: Target) -> None:
    """A conversation too long is answered without its oldest messages."""
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "."},
        {"role": "user", "content": PROSE},
    ]
    body = object_of(target.chat(messages=turns, options=SMALL))
    count = body["prompt_eval_count"]
    require("prompt_eval_count", f"below {NUM_CTX}", count, holds=count < NUM_CTX)


def test_an_answer_ends_where_the_context_does(target: Target) -> None:
    """Without context shift an answer that fills the context ends with `length`."""
    ask = "Repeat this text, word for word: "
    options = {"num_ctx": NUM_CTX, "temperature": 0}
    sample = object_of(
        target.chat(ask + PROSE * 6, options={**options, "num_predict": 1}, shift=False)
    )
    # About two thirds of the context are asked for, and one third is left for them.
    text = ask + PROSE * max(1, 6 * 170 // sample["prompt_eval_count"])
    body = object_of(target.chat(text, options={**options, "num_predict": 1000}, shift=False))
    tokens = body["prompt_eval_count"] + body["eval_count"]
    if body["done_reason"] == "stop" and tokens < NUM_CTX:
        pytest.skip(f"the model came to its end after {body['eval_count']} tokens")
    require("done_reason", "length", body["done_reason"])
    require("prompt and answer", f"{NUM_CTX} tokens", tokens, holds=abs(tokens - NUM_CTX) <= 1)
