"""The committed model: it is what its card says, and it translates through the local server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
import pytest_asyncio
from ollama import AsyncClient

from deployments.demo_model import examination
from deployments.demo_model.corpus import Corpus, Pair
from deployments.demo_model.overlap import Forbidden
from deployments.demo_model.reading import read_grammar
from deployments.local_ollama import LocalServer, Settings

pytest.importorskip(
    "xllamacpp",
    reason="needs llama.cpp: pip install -e '.[llama]', and libgomp1 on Debian",
    exc_type=ImportError,
)
sacrebleu = pytest.importorskip("sacrebleu", reason="chrF is sacrebleu's: pip install -e '.[demo]'")

FOLDER = Path(__file__).resolve().parents[3] / "data" / "demo_model"
MODEL_FILE = FOLDER / "Modelfile"
WEIGHTS = FOLDER / "reports-fr-en.gguf"
MODEL = "reports-fr-en"
OPTIONS = {"temperature": 0, "num_ctx": 1024, "repeat_penalty": 1.05}
EXAMINED = 150
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
BELOW_THE_CARD = 3.0
"""Points by which a part of the held-out pairs may score lower than all that the card is about."""


@pytest_asyncio.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A server with the committed model on four slots."""
    settings = Settings(engine="llama", model=MODEL, model_file=str(MODEL_FILE), slots=4)
    async with LocalServer(settings) as server:
        asking = AsyncClient(server.url)
        await asking.generate(MODEL, "", options=OPTIONS)
        yield asking
        await asking.close()


def held_out(count: int) -> list[Pair]:
    """Pairs whose shapes training never saw."""
    corpus = Corpus(read_grammar(), Forbidden(examination.all_texts()), 1_000_003)
    return list(islice(corpus.pairs("held-out"), count))


async def translated(client: AsyncClient, texts: Sequence[str], at_once: int = 4) -> list[str]:
    """The translations, so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def ask(text: str) -> str:
        async with slots:
            answer = await client.chat(MODEL, [{"role": "user", "content": text}], options=OPTIONS)
        assert answer.done_reason == "stop"
        return (answer.message.content or "").strip()

    return list(await asyncio.gather(*map(ask, texts)))


def card_score(row: str, column: int) -> float:
    """A number of the card's table of scores."""
    [cells] = re.findall(
        rf"^\| {row}[^|]*\|(.+)\|$", (FOLDER / "README.md").read_text(), re.MULTILINE
    )
    return float(cells.split("|")[column])


def test_the_file_is_small_enough_to_ship() -> None:
    """The weights stay under 20 MB, and the Modelfile beside them names them."""
    assert WEIGHTS.stat().st_size < 20_000_000
    assert f"FROM ./{WEIGHTS.name}" in MODEL_FILE.read_text()


async def test_it_scores_what_its_card_says(client: AsyncClient) -> None:
    """On shapes training never saw, chrF and exact numbers are those of the card."""
    pairs = held_out(EXAMINED)
    made = await translated(client, [pair.fr for pair in pairs])
    wanted = [pair.en for pair in pairs]
    chrf = sacrebleu.corpus_chrf(made, [wanted]).score
    exact = [
        sorted(NUMBER.findall(a)) == sorted(NUMBER.findall(b))
        for a, b in zip(made, wanted, strict=True)
    ]
    assert chrf > card_score("held-out", 0) - BELOW_THE_CARD
    assert 100 * sum(exact) / len(exact) > card_score("held-out", 1) - BELOW_THE_CARD


async def test_four_slots_are_faster_than_one_request_after_another(client: AsyncClient) -> None:
    """Four requests at once take less time in total; the best of a few rounds, side by side."""
    texts = [pair.fr for pair in held_out(24)]
    ratios = []
    for _ in range(4):
        marks = [time.monotonic()]
        for at_once in (1, 4):
            await translated(client, texts, at_once)
            marks.append(time.monotonic())
        ratios.append((marks[2] - marks[1]) / (marks[1] - marks[0]))
    assert min(ratios) < 1.0, ratios
