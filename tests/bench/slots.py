"""What slots are worth with a language model: the same sentences one by one, and several at once.

    python -m tests.bench.slots --model-file data/demo_model/Modelfile

Both ways are measured in turn, on one server in a process of its own, a few times over. Printed are
seconds and their ratio: below 1 the slots pay.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from itertools import islice

from ollama import AsyncClient

from deployments.demo_model.corpus import Corpus
from deployments.demo_model.overlap import Forbidden
from deployments.demo_model.reading import read_grammar
from deployments.local_ollama import Settings, local_server
from flows.local import MODEL, MODEL_FILE

OPTIONS = {"temperature": 0, "num_ctx": 1024, "repeat_penalty": 1.0}


async def seconds(client: AsyncClient, model: str, texts: list[str], at_once: int) -> float:
    """Time to have all texts translated with so many requests in flight."""
    slots = asyncio.Semaphore(at_once)

    async def ask(text: str) -> None:
        async with slots:
            await client.generate(model, text, options=OPTIONS)

    began = time.monotonic()
    await asyncio.gather(*map(ask, texts))
    return time.monotonic() - began


async def compare(url: str, model: str, texts: list[str], slots: int, rounds: int) -> list[float]:
    """The ratio of each round: several at once to one by one."""
    client = AsyncClient(url)
    await client.generate(model, "", options=OPTIONS)
    ratios = []
    for number in range(rounds):
        alone = await seconds(client, model, texts, 1)
        together = await seconds(client, model, texts, slots)
        ratios.append(together / alone)
        print(f"round {number + 1}: one by one {alone:.2f} s, {slots} at once {together:.2f} s")
    return ratios


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model-file", default=str(MODEL_FILE))
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pairs = Corpus(read_grammar(), Forbidden([]), 1_000_003).pairs("held-out")
    texts = [pair.fr for pair in islice(pairs, options.texts)]
    settings = Settings(
        engine="llama", model=MODEL, model_file=options.model_file, slots=options.slots
    )
    with local_server(settings) as server:
        ratios = asyncio.run(compare(server.url, MODEL, texts, options.slots, options.rounds))
    print(f"ratio {statistics.median(ratios):.2f} (median of {len(ratios)})")


if __name__ == "__main__":
    main()
