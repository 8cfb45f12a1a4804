"""A flow as one writes it at first: a task run for each report, a limit for each host.

Prefect is imported with this module, so import it only once its settings stand.
"""

from __future__ import annotations

import random

import ollama
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import concurrency
from prefect.futures import wait

from tests.bench.contest import MODEL, PROMPTING, Contest, Outcome


def translate_all(contest: Contest) -> Outcome:
    """Run the flow over the texts, each on a random host."""
    rng, outcome = random.Random(contest.seed), Outcome()
    names = {address.url: f"ollama-{number}" for number, address in enumerate(contest.hosts)}
    with get_client(sync_client=True) as client:
        for address in contest.hosts:
            client.upsert_global_concurrency_limit_by_name(names[address.url], address.slots or 1)
    urls = [rng.choice(contest.hosts).url for _ in contest.texts]

    @task
    async def translate(text: str, url: str, limit: str) -> str:
        """One report."""
        async with concurrency(limit, strict=True):
            answer = await ollama.AsyncClient(url).chat(
                MODEL, PROMPTING.messages(text), options=PROMPTING.options
            )
        return answer.message.content or ""

    @flow(name="a task run for each report")
    def translate_reports() -> None:
        """All reports."""
        futures = translate.map(list(contest.texts), urls, [names[url] for url in urls])
        wait(futures)
        outcome.count([future.result(raise_on_failure=False) for future in futures])

    translate_reports()
    return outcome
