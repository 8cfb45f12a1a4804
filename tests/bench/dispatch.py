"""How well each policy uses unequal hosts: makespan as a multiple of the lower bound.

    python -m tests.bench.dispatch [--reports 200] [--seeds 1] [--scenarios AB]

Real HTTP against local servers with a timing model, each a process of its own. The
makespan runs from the first translation request that any server received to the last
answer, by the servers' clocks; loading is done before. The naive baseline is
`asyncio.gather` over `random.choice(hosts)`; it gets the same hosts, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import ollama

from deployments.local_ollama.process import ServerProcess, local_servers
from deployments.local_ollama.settings import Settings
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.work import SegmentWork
from tasks.core.records import Segment
from tasks.core.settings import HostAddress, PolicyName
from tasks.core.translate.profiles import DEFAULT_PROFILE, Prompting
from tasks.core.translate.segments import predicted_tokens

MEAN_SECONDS = 0.6
"""Of one answer on the slowest slot of scenario A."""
SIGMA = 0.8
GIVE_UP_AT = 10.0
"""Times the bound at which a baseline is stopped."""

POLICIES: tuple[PolicyName, ...] = ("pull", "least_connections", "round_robin", "random")


@dataclass(frozen=True)
class Scenario:
    """Hosts by slots and speed of each slot, in tokens per second."""

    name: str
    hosts: tuple[tuple[int, float], ...]

    def settings(self) -> list[Settings]:
        """One local server for each host; nothing but generation takes time."""
        return [
            Settings(
                slots=slots, decode_rate=rate, prefill_rate=0.0, load_seconds=0.0, slowdown=0.0
            )
            for slots, rate in self.hosts
        ]

    def lower_bound_s(self, tokens: Sequence[int]) -> float:
        """No schedule is faster: all work over all slots, or the j longest on the j fastest.

        The optimal preemptive makespan on uniform machines (Horvath, Lam and Sethi 1977).
        """
        speeds = sorted((rate for slots, rate in self.hosts for _ in range(slots)), reverse=True)
        longest = sorted(tokens, reverse=True)
        heads = (sum(longest[:j]) / sum(speeds[:j]) for j in range(1, len(speeds)))
        return max(sum(tokens) / sum(speeds), *heads)


SCENARIOS = {
    "A": Scenario("A  two equal hosts, 4 slots", ((4, 100.0), (4, 100.0))),
    "B": Scenario("B  two hosts, speeds 1:4", ((4, 40.0), (4, 160.0))),
    "D": Scenario("D  1, 4 and 8 slots, speeds 1:2:6", ((1, 30.0), (4, 60.0), (8, 180.0))),
}


def reports(count: int, seed: int) -> list[str]:
    """Texts of log-normal length, of words that the server leaves as they are."""
    rng = random.Random(seed)
    mean_tokens = MEAN_SECONDS * 100.0
    scale = mean_tokens / 2.718281828 ** (SIGMA**2 / 2)
    lengths = [max(4, round(scale * rng.lognormvariate(0, SIGMA))) for _ in range(count)]
    return [
        " ".join(f"r{number:05}" for _ in range(max(1, n * 4 // 7)))
        for number, n in enumerate(lengths)
    ]


async def ours(servers: Sequence[ServerProcess], texts: Sequence[str], policy: PolicyName) -> None:
    """All texts through our dispatcher."""
    prompting = Prompting(DEFAULT_PROFILE, servers[0].settings.model, "fr", "en", 4096)
    addresses = [HostAddress(server.url, server.settings.slots) for server in servers]
    hosts = [Host(HostClient(address), address.slots or 1) for address in addresses]
    digests = await hosts[0].client.model_digests()
    async with Dispatcher(
        hosts, prompting, next(iter(digests.values())), record=lambda _: None, policy=policy
    ) as dispatcher:
        segments = [
            Segment(str(number), 0, text, "", predicted_tokens(text))
            for number, text in enumerate(texts)
        ]
        await asyncio.gather(*(dispatcher.ask(SegmentWork(segment)) for segment in segments))


async def naive(servers: Sequence[ServerProcess], texts: Sequence[str], seed: int) -> None:
    """The usual answer: gather everything, each on a random host."""
    rng = random.Random(seed)
    prompting = Prompting(DEFAULT_PROFILE, servers[0].settings.model, "fr", "en", 4096)
    clients = [ollama.AsyncClient(server.url, trust_env=False) for server in servers]
    try:
        for client in clients:
            await client.chat(prompting.model, [], options=prompting.options)
        await asyncio.gather(
            *(
                rng.choice(clients).chat(
                    prompting.model, prompting.messages(text), options=prompting.options
                )
                for text in texts
            )
        )
    finally:
        for client in clients:
            await client.close()


def measure(
    scenario: Scenario, texts: Sequence[str], policy: PolicyName | None, seed: int
) -> float:
    """Makespan ÷ lower bound of one run; infinity for one that was stopped."""
    with local_servers(scenario.settings()) as servers:
        # The servers' own count of tokens: four characters are one.
        bound_s = scenario.lower_bound_s([-(-len(text) // 4) for text in texts])
        run = ours(servers, texts, policy) if policy else naive(servers, texts, seed)
        try:
            asyncio.run(asyncio.wait_for(run, GIVE_UP_AT * bound_s))
        except TimeoutError:
            return float("inf")
        stats = [server.stats() for server in servers]
        answered = sum(each["answered"] for each in stats)
        if answered < len(texts):
            raise RuntimeError(f"{answered} of {len(texts)} reports were answered")
        started = min(each["first_request_at"] for each in stats if each["first_request_at"])
        ended = max(each["last_answer_at"] for each in stats if each["last_answer_at"])
        return float(ended - started) / bound_s


def main() -> None:
    """Print one line for each scenario."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reports", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scenarios", default="ABD")
    options = parser.parse_args()
    contenders: list[tuple[str, PolicyName | None]] = [(name, name) for name in POLICIES]
    contenders.append(("naive gather", None))
    print(f"makespan ÷ lower bound, {options.reports} reports, mean of {options.seeds} seed(s)")
    print(f"{'':36}" + "".join(f"{name:>19}" for name, _ in contenders), flush=True)
    for key in options.scenarios:
        scenario = SCENARIOS[key]
        print(f"{scenario.name:36}", end="", flush=True)
        for _, policy in contenders:
            ratios = [
                measure(scenario, reports(options.reports, seed), policy, seed)
                for seed in range(options.seeds)
            ]
            mean = statistics.fmean(ratios)
            shown = f"{mean:.2f}" if mean < GIVE_UP_AT else f"> {GIVE_UP_AT:.0f}"
            print(f"{shown:>19}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
