"""What the timing engine answers and how long it says it took."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.engine import Message
from deployments.local_ollama.lexicon import Lexicon
from deployments.local_ollama.overflow import newest_that_fit
from deployments.local_ollama.prompt import render
from deployments.local_ollama.shared_decoder import SharedDecoder
from deployments.local_ollama.timing_engine import (
    TEMPLATE,
    count_tokens,
    pieces_of,
    source_text,
)
from tests.deployments.conftest import answer, ask, chat, generate, serving


@pytest.fixture
async def quick() -> AsyncIterator[LocalServer]:
    """A server with rates that take a little time."""
    settings = Settings(prefill_rate=2000, decode_rate=500, load_seconds=0.05)
    async with serving(settings) as server:
        yield server


def test_lexicon_keeps_everything_but_the_words() -> None:
    """Case, numbers, punctuation, spaces, breaks and unknown words come through unchanged."""
    text = "LE 12/03 :  l'aiguillage n° 7\tde Zorglub\n\nÉtat : usé à 4,5 mm."
    assert Lexicon.french_to_english().translate(text) == (
        "THE 12/03 :  the switch n° 7\tof Zorglub\n\nCondition : worn to 4,5 mm."
    )


def test_lexicon_knows_plurals() -> None:
    """A plural in s or x is found by its singular; only nouns take an English ending."""
    assert Lexicon.french_to_english().translate("Freins usés, boxes") == "Brakes worn, boxes"


def test_lexicon_has_a_few_hundred_words() -> None:
    """The lexicon covers the vocabulary of reports, not only a handful of words."""
    assert len(Lexicon.french_to_english()) > 500


async def test_only_the_report_block_is_answered(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Instructions around the last report block are left out, and one line break inside it."""
    prompt = (
        "Traduire <report> et </report> :\n<report>\nLe train\n\nest en gare.\n</report>\nMerci"
    )
    assert await answer(http, instant, prompt) == "The train\n\nis in station."


async def test_message_without_block_is_answered_whole(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The last user message is the text, whatever came before it."""
    body = chat("", messages=[
        {"role": "system", "content": "le train"},
        {"role": "user", "content": "la gare"},
        {"role": "assistant", "content": "le pont"},
        {"role": "user", "content": "Le frein"},
    ])  # fmt: skip
    _, said = await ask(http, instant, body)
    assert said["message"] == {"role": "assistant", "content": "The brake"}


def test_source_text_without_user_message_is_empty() -> None:
    """A conversation without a user has nothing to translate."""
    assert source_text([Message("system", "le train")]) == ""


async def test_durations_add_up(quick: LocalServer, http: aiohttp.ClientSession) -> None:
    """The four durations are nanoseconds, follow the rates, and leave only the queue wait over."""
    text = "Le train est en gare. " * 10
    _, said = await ask(http, quick, chat(text))
    parts = said["load_duration"] + said["prompt_eval_duration"] + said["eval_duration"]
    assert said["prompt_eval_count"] == count_tokens(text) + 4
    assert said["eval_count"] == count_tokens(said["message"]["content"])
    assert said["load_duration"] >= 0.04e9
    assert said["prompt_eval_duration"] >= 0.9 * said["prompt_eval_count"] / 2000 * 1e9
    assert said["eval_duration"] >= 0.9 * said["eval_count"] / 500 * 1e9
    assert parts <= said["total_duration"]


async def test_generate_answers_in_its_own_shape(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Generate gives `response` and `context` in Ollama's field order; raw gives no context."""
    _, said = await ask(http, instant, generate("le train", system="Traduire"))
    _, raw = await ask(http, instant, generate("le train", raw=True))
    assert list(said) == [
        "model", "created_at", "response", "done", "done_reason", "context", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
        "eval_duration",
    ]  # fmt: skip
    assert (said["response"], raw["response"]) == ("the train", "the train")
    assert len(said["context"]) == said["prompt_eval_count"] + said["eval_count"]
    assert "context" not in raw


async def test_stream_is_ndjson_and_the_default(
    quick: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Without `stream` the answer comes in lines that join to the text; the last has the counts."""
    body = chat("Le train est en gare.")
    del body["stream"]
    async with http.post(quick.url + "/api/chat", json=body) as response:
        assert response.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "The train is in station."
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] == len(lines) - 1


async def test_num_predict_cuts_the_answer(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """An answer that reaches num_predict ends with done_reason length and that many tokens."""
    _, said = await ask(http, instant, chat("train " * 20, options={"num_predict": 3}))
    assert (said["done_reason"], said["eval_count"]) == ("length", 3)
    assert said["message"]["content"] == "train train "


async def test_full_context_ends_an_answer_without_shift(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """With shift off, prompt and answer together never exceed the context."""
    body = chat("train " * 25, shift=False, truncate=False, options={"num_ctx": 64})
    _, said = await ask(http, instant, body)
    assert said["done_reason"] == "length"
    assert said["prompt_eval_count"] + said["eval_count"] == 64


async def test_too_long_prompt_is_refused_when_it_may_not_be_cut(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """With truncate off, the runner's refusal is JSON text inside the error, for both APIs."""
    more = {"truncate": False, "shift": False, "options": {"num_ctx": 64}}
    for body in (chat("train " * 100, **more), generate("train " * 100, **more)):
        status, said = await ask(http, instant, body)
        inner = json.loads(said["error"])["error"]
        assert (status, inner["type"]) == (400, "exceed_context_size_error")
        assert (inner["n_ctx"], inner["n_prompt_tokens"]) == (64, 154)


async def test_too_long_prompt_is_refused_in_words_with_shift_off_alone(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """With only shift off, the refusal is a plain sentence."""
    body = chat("train " * 100, shift=False, options={"num_ctx": 64})
    status, said = await ask(http, instant, body)
    assert status == 400
    assert said["error"].startswith("the prompt is longer than the context length")


async def test_too_long_prompt_is_cut_silently_by_default(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """By default a prompt that is too long is cut to about half the context and answered as ok."""
    status, said = await ask(http, instant, chat("train " * 100, options={"num_ctx": 64}))
    assert (status, said["done_reason"]) == (200, "stop")
    assert 30 <= said["prompt_eval_count"] <= 34


def test_oldest_messages_go_first_when_a_chat_is_too_long() -> None:
    """The system message and the newest turn survive a cut that dropping old turns can satisfy."""
    system, old, new = Message("system", "s"), Message("user", "x" * 400), Message("user", "n")
    kept = newest_that_fit(
        [system, old, new],
        lambda messages: render(TEMPLATE, messages),
        lambda text: list(range(len(pieces_of(text)))),
        40,
    )
    assert kept.messages == (system, new)


async def test_json_format_wraps_the_answer(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A schema gets an object with the text under its first text property."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}}
    _, said = await ask(http, instant, chat("le train", format=schema))
    _, plain = await ask(http, instant, chat("le train", format="json"))
    assert json.loads(said["message"]["content"]) == {"t": "the train"}
    assert json.loads(plain["message"]["content"]) == {"translation": "the train"}


async def test_stop_word_ends_the_answer(instant: LocalServer, http: aiohttp.ClientSession) -> None:
    """The answer ends before the first stop sequence."""
    _, said = await ask(http, instant, chat("le train en gare", options={"stop": ["station"]}))
    assert said["message"]["content"] == "the train in "


async def test_same_text_gets_the_same_answer(http: aiohttp.ClientSession) -> None:
    """Two servers answer one text alike, whatever their seeds and rates."""
    async with (
        serving(Settings(seed=1).instant()) as one,
        serving(Settings(seed=2, decode_rate=9000, load_seconds=0)) as two,
    ):
        text = "La fuite d'eau du réservoir n'est pas réparée."
        assert await answer(http, one, text) == await answer(http, two, text)


async def test_concurrent_answers_slow_each_other_down() -> None:
    """Two answers with alpha 1 take twice as long as one alone would."""
    decoder = SharedDecoder(slowdown=1.0)

    async def take() -> float:
        began = asyncio.get_running_loop().time()
        with decoder.answer() as start:
            await decoder.until(start + 0.1)
        return asyncio.get_running_loop().time() - began

    alone = await take()
    together = await asyncio.gather(take(), take())
    assert alone >= 0.099
    assert min(together) >= 0.198


async def test_cancelled_answer_speeds_up_its_neighbour() -> None:
    """An answer that is cancelled stops slowing the others down."""
    decoder = SharedDecoder(slowdown=99.0)

    async def take(work: float) -> None:
        with decoder.answer() as start:
            await decoder.until(start + work)

    left = asyncio.create_task(take(100.0))
    stayed = asyncio.create_task(take(0.05))
    await asyncio.sleep(0.05)
    left.cancel()
    began = asyncio.get_running_loop().time()
    await stayed
    # Had the cancelled one counted on, this would have lasted about 5 s more.
    assert asyncio.get_running_loop().time() - began < 2.5
    assert left.cancelled() or left.cancelling()


async def test_pieces_with_equal_checksums_are_told_apart(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The CRC-32 of these two is the same; neither may be answered in the place of the other."""
    for piece in ("xzev", "jàxê", "xzev"):
        # After 16 characters, so that the word is a token of its own.
        text = f"Voici : <report>{piece}</report>"
        assert await answer(http, instant, text) == piece
