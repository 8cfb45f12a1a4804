"""Clients that wait for each other, and clients that go away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.contract.target import PROSE, Target, eventually, object_of, require
from tests.contract.wire import Leaver, ask_all

MOST_TOKENS = 1200
ANSWERED_WITHIN = 0.6
"""Of the time that the abandoned answer takes; nothing freed would mean 0.85."""
LEAVES_AFTER = 0.15


@pytest.fixture(scope="module")
def long_answer(target: Target) -> tuple[dict[str, Any], float]:
    """A request whose answer takes long, and how many seconds."""
    object_of(target.chat())
    options = {"temperature": 0, "num_predict": 32}
    sample = object_of(target.chat(f"Repeat this text ten times: {PROSE * 20}", options=options))
    rate = sample["eval_count"] / sample["eval_duration"] * 1e9
    tokens = min(MOST_TOKENS, max(32, int(rate * target.busy_s)))
    text = f"Repeat this text ten times: {PROSE * (tokens // 8)}"
    body = target.chat_body(text, options={"temperature": 0, "num_predict": tokens})
    answer = target.ask("POST", "/api/chat", body)
    if object_of(answer)["done_reason"] != "length":
        pytest.skip(f"the model ended after {object_of(answer)['eval_count']} of {tokens} tokens")
    return body, answer.seconds


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_frees_its_slot(
    target: Target, long_answer: tuple[dict[str, Any], float], *, stream: bool
) -> None:
    """With every slot taken by clients that leave, the next request is answered soon."""
    body, seconds = long_answer
    request = {**body, "stream": stream}
    leavers = [Leaver(target.url, "/api/chat", request) for _ in range(target.slots)]
    time.sleep(LEAVES_AFTER * seconds)
    for leaver in leavers:
        leaver.leave()
    answer = target.chat("x", options={"num_predict": 1})
    object_of(answer)
    require(
        "the next answer",
        f"within {ANSWERED_WITHIN:.0%} of the {seconds:.2f} s of the one that was left",
        f"{answer.seconds:.2f} s",
        holds=answer.seconds < ANSWERED_WITHIN * seconds,
    )


def test_a_client_that_leaves_during_a_load(target: Target) -> None:
    """The next request is answered, whether it finds the load going on or starts it anew."""
    target.unload()
    began = time.monotonic()
    object_of(target.chat())
    seconds = time.monotonic() - began
    target.unload()
    leaver = Leaver(target.url, "/api/chat", target.chat_body(""))
    time.sleep(0.3 * seconds)
    leaver.leave()
    body = object_of(target.chat("x", options={"num_predict": 1}))
    require("done", True, body["done"])  # noqa: FBT003 - the expected value
    eventually("the model is in /api/ps", lambda: target.running() is not None)


def test_more_requests_than_slots_are_all_answered(target: Target) -> None:
    """Requests for a loaded model wait for a slot without limit and without errors."""
    object_of(target.chat())
    bodies = [
        target.chat_body(f"{number}. {PROSE}", options={"num_predict": 8})
        for number in range(4 * target.slots + 4)
    ]
    answers = ask_all(target.url, "/api/chat", bodies)
    require("statuses", [200] * len(bodies), [answer.status for answer in answers])
    for answer in answers:
        require("done", True, object_of(answer)["done"])  # noqa: FBT003 - the expected value


def test_requests_during_a_load_are_all_answered(target: Target) -> None:
    """Requests that come while the model loads wait for it; one load serves them all."""
    target.unload()
    began = time.monotonic()
    object_of(target.chat())
    alone = time.monotonic() - began
    target.unload()
    bodies = [
        target.chat_body(f"{number}. {PROSE}", options={"num_predict": 2}) for number in range(4)
    ]
    answers = ask_all(target.url, "/api/chat", bodies)
    require("statuses", [200] * len(bodies), [answer.status for answer in answers])
    slowest = max(object_of(answer)["load_duration"] for answer in answers) / 1e9
    require(
        "the longest load_duration of four requests",
        f"that of one load, {alone:.2f} s, not of several",
        f"{slowest:.2f} s",
        holds=slowest < 2 * alone + 0.5,
    )
