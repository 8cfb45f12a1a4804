"""What a run of ours costs beside the bare loop that one would write instead.

    python -m tests.bench.overhead [--reports 20000] [--in-flight 64] [--json PATH]

The hosts answer at once, so reports per second is what the client can do on one core.
In one run and on the same hosts, in turn: a bare loop over the default
`ollama.AsyncClient`; the same loop over that client with aiohttp underneath, the
fastest transport we know; and the whole `run_reports` flow, from a CSV file through
ingest, plan, translation and journal to Parquet. Prefect's start and a first, short run that
imports what is needed are not in that time and are shown apart. The loops run before and after
the flow.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import ollama
from httpx_aiohttp import AiohttpTransport

from tasks.core.dispatch.host_client import KEEP_ALIVE
from tasks.core.translate.profiles import Prompting, choose_profile
from tests.bench.instant_host import MODEL, instant_hosts
from tests.bench.markdown import heading, table
from tests.bench.prefect_session import prefect_session
from tests.bench.results import environment, write_json
from tests.bench.whole_run import report_texts, whole_run

HOSTS = 4
FIRST_RUN_REPORTS = 200
LOOP_SHARE = {"default client": 0.15, "fastest client": 0.4}
"""Of the reports, in each round: enough for a rate, and the default client is slow."""
LEAST_OF_DEFAULT, LEAST_OF_FASTEST = 1.2, 0.6


@dataclass
class Overhead:
    """Reports per second of each contender, round by round."""

    reports: int
    in_flight: int
    prefect_start_s: float
    first_run_s: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)
    """Of the whole run: before the first request, to the last answer, after it."""
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    """Of this process for each report: other work on the machine disturbs it less."""

    def mean(self, contender: str) -> float:
        """Over the rounds."""
        return fmean(self.rates[contender])

    @property
    def against_default(self) -> float:
        """The flow to the loop over the default client."""
        return self.mean("whole run") / self.mean("default client")

    @property
    def against_fastest(self) -> float:
        """The flow to the loop over the fastest client."""
        return self.mean("whole run") / self.mean("fastest client")

    def lines(self) -> list[str]:
        """A table of it."""
        rows = [
            ["client", "reports per second", "each round", "CPU for each report", "whole run ÷"]
        ]
        rows += [
            [
                name,
                f"{self.mean(name):.0f}",
                ", ".join(f"{rate:.0f}" for rate in rates),
                f"{fmean(self.cpu_ms[name]):.2f} ms",
                f"{self.mean('whole run') / self.mean(name):.2f}",
            ]
            for name, rates in self.rates.items()
        ]
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.stages_s.items())
        what = f"{self.reports} reports, {HOSTS} instant hosts, {self.in_flight} in flight."
        return [
            what,
            "",
            *table(rows),
            "",
            f"- The whole run, from a CSV file to Parquet: {stages}.",
            (
                f"- In none of these: Prefect's start, {self.prefect_start_s:.1f} s, and a first "
                f"run of {FIRST_RUN_REPORTS} reports, {self.first_run_s:.1f} s, most of it imports."
            ),
        ]

    def problems(self) -> list[str]:
        """What is below what is wanted."""
        ratios = {
            "default": (self.against_default, LEAST_OF_DEFAULT),
            "fastest": (self.against_fastest, LEAST_OF_FASTEST),
        }
        return [
            f"overhead: {ratio:.2f} times the rate of the {name} client, wanted {least:g}"
            for name, (ratio, least) in ratios.items()
            if ratio < least
        ]

    def as_json(self) -> dict[str, Any]:
        """The figures."""
        return {
            "reports": self.reports,
            "in_flight": self.in_flight,
            "reports_per_s": self.rates,
            "cpu_ms_per_report": self.cpu_ms,
            "whole_run_stages_s": self.stages_s,
            "whole_run_to_default_client": self.against_default,
            "whole_run_to_fastest_client": self.against_fastest,
            "prefect_start_s": self.prefect_start_s,
            "first_run_s": self.first_run_s,
        }


async def bare_loop(
    clients: Sequence[ollama.AsyncClient], texts: Sequence[str], in_flight: int
) -> float:
    """Reports per second of so many workers that take one text after the other."""
    prompting = Prompting(choose_profile(MODEL), MODEL, "fr", "en", 4096)
    left = iter(texts)

    async def work(client: ollama.AsyncClient) -> None:
        for text in left:
            answer = await client.chat(
                MODEL,
                prompting.messages(text),
                think=False,
                options=prompting.options,
                keep_alive=KEEP_ALIVE,
            )
            assert answer.message.content

    for client in clients:
        await client.chat(MODEL, [])
    began = time.perf_counter()
    await asyncio.gather(*(work(clients[at % len(clients)]) for at in range(in_flight)))
    rate = len(texts) / (time.perf_counter() - began)
    for client in clients:
        await client.close()  # type: ignore[no-untyped-call]
    return rate


def default_client(url: str) -> ollama.AsyncClient:
    """As one gets it."""
    return ollama.AsyncClient(url)


def fastest_client(url: str) -> ollama.AsyncClient:
    """With the transport that costs least."""
    return ollama.AsyncClient(url, transport=AiohttpTransport(), trust_env=False)


CLIENTS: dict[str, Callable[[str], ollama.AsyncClient]] = {
    "default client": default_client,
    "fastest client": fastest_client,
}


def loops(
    urls: Sequence[str], texts: Sequence[str], in_flight: int
) -> Iterator[tuple[str, float, float]]:
    """One round of both bare loops: name, rate, and CPU milliseconds for each report."""
    for name, client_of in CLIENTS.items():
        some = texts[: max(in_flight, round(len(texts) * LOOP_SHARE[name]))]

        async def loop(
            client_of: Callable[[str], ollama.AsyncClient] = client_of, some: Sequence[str] = some
        ) -> float:
            return await bare_loop([client_of(url) for url in urls], some, in_flight)

        cpu_before_s = time.process_time()
        rate = asyncio.run(loop())
        yield name, rate, (time.process_time() - cpu_before_s) / len(some) * 1e3


def measure(reports: int, in_flight: int) -> Overhead:
    """All contenders, in turn."""
    texts = report_texts(reports)
    with prefect_session() as prefect_start_s, instant_hosts(HOSTS) as urls:
        result = Overhead(reports, in_flight, prefect_start_s)

        def note(name: str, rate: float, cpu_ms: float) -> None:
            result.rates.setdefault(name, []).append(rate)
            result.cpu_ms.setdefault(name, []).append(cpu_ms)

        def round_of_loops() -> None:
            for measured in loops(urls, texts, in_flight):
                note(*measured)

        # Prefect, Arrow and pandas are imported at their first use.
        began = time.perf_counter()
        whole_run(urls, texts[:FIRST_RUN_REPORTS], in_flight)
        result.first_run_s = time.perf_counter() - began
        round_of_loops()
        cpu_before_s = time.process_time()
        rate, result.stages_s = whole_run(urls, texts, in_flight)
        note("whole run", rate, (time.process_time() - cpu_before_s) / reports * 1e3)
        round_of_loops()
    return result


def main() -> int:
    """Measure and print; 1 when the whole run is slower than is wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=64, help="on all hosts together")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.reports, options.in_flight)
    print("\n".join([*heading(environment()), *result.lines()]))
    for problem in result.problems():
        print(f"PROBLEM: {problem}", file=sys.stderr)
    if options.json:
        write_json(options.json, {**environment(), "overhead": result.as_json()})
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
