"""One contender in one scenario with one seed: a process that writes what it measured.

The makespan runs from the first request for a translation that any server received to the
last answer, by the servers' clocks; the model is loaded before.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deployments.local_ollama.process import ServerProcess, local_servers
from tests.bench.children import end_with_parent, leave
from tests.bench.contenders import CONTENDERS
from tests.bench.contest import Contest, Outcome, address_of
from tests.bench.counting import count, load_models
from tests.bench.happening import Happened, first_request_at, happen
from tests.bench.scenarios import SCENARIOS, Timing, timed


@dataclass(frozen=True)
class Cell:
    """What is to be measured."""

    scenario: str
    contender: str
    seed: int
    reports: int
    time_scale: float = 1.0
    give_up_at: float = 10.0
    """Times the bound, after which the contender is stopped."""

    @property
    def timing(self) -> Timing:
        """The scenario with its load."""
        scenario = SCENARIOS[self.scenario]
        return timed(scenario, self.reports, self.seed, time_scale=self.time_scale)


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    cell: Cell
    bound_s: float
    makespan_s: float | None
    """None for a contender that was stopped."""
    outcome: Outcome
    slots: list[int]
    peak_in_flight: list[int]
    """Of each host, as its server counted."""
    requests: int
    answers: int
    """What the servers received and answered, for texts of the load."""
    happened_at_s: float | None = None

    @property
    def ratio(self) -> float:
        """Makespan ÷ bound, and what was given up at for a contender that was stopped."""
        if self.makespan_s is None:
            return self.cell.give_up_at
        return self.makespan_s / self.bound_s

    @property
    def limit_wait_share(self) -> float | None:
        """Of all slot time, the part in which slots were free that the run might not use."""
        waits = [
            account["limit_wait_slot_seconds"]
            for account in self.outcome.accounts.values()
            if "limit_wait_slot_seconds" in account
        ]
        if not waits or not self.makespan_s:
            return None
        return float(sum(waits) / (sum(self.slots) * self.makespan_s))

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "ratio": self.ratio, "limit_wait_share": self.limit_wait_share}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Measured:
        """The same, read again."""
        fields = {name: given[name] for name in cls.__dataclass_fields__}
        fields |= {"cell": Cell(**given["cell"]), "outcome": Outcome(**given["outcome"])}
        return cls(**fields)


def measure(cell: Cell) -> Measured:
    """Start the servers, let the contender work, and read what the servers counted."""
    timing = cell.timing
    with local_servers(timing.settings()) as servers:
        load_models(servers)
        happened = Happened()
        outcome = asyncio.run(_contend(cell, timing, servers, happened))
        stats = [server.stats(requests=True) for server in servers if server.exit_code is None]
        if happened.stats:
            stats.append(happened.stats)
    counted = count(stats, timing.load.texts)
    happened_at_s = happened.at - counted.first_request_at if happened.at else None
    makespan_s = counted.last_answer_at - counted.first_request_at
    return Measured(
        cell=cell,
        bound_s=timing.bound_s(happened_at_s),
        makespan_s=makespan_s if outcome else None,
        outcome=outcome or Outcome(),
        slots=[host.slots for host in timing.scenario.hosts],
        peak_in_flight=counted.peaks,
        requests=counted.requests,
        answers=counted.answers,
        happened_at_s=happened_at_s,
    )


async def _contend(
    cell: Cell, timing: Timing, servers: Sequence[ServerProcess], happened: Happened
) -> Outcome | None:
    """What became of the texts, or None for a contender that had to be stopped."""
    addresses = [address_of(server.url, server.settings.slots) for server in servers]
    late = addresses[-1:] if timing.scenario.happening == "joins" else []
    joins = asyncio.Event()
    contest = Contest(
        addresses[: len(addresses) - len(late)], late, joins, timing.load.texts, cell.seed
    )
    contending = asyncio.ensure_future(CONTENDERS[cell.contender](contest))
    watching = asyncio.create_task(_watch(cell, timing, servers, joins, happened))
    try:
        await asyncio.wait({contending, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        return contending.result() if contending.done() else None
    finally:
        for task in (contending, watching):
            task.cancel()
        await asyncio.gather(contending, watching, return_exceptions=True)


async def _watch(
    cell: Cell,
    timing: Timing,
    servers: Sequence[ServerProcess],
    joins: asyncio.Event,
    happened: Happened,
) -> None:
    """Let happen what is to happen; ends when it is time to give up."""
    began = await first_request_at(servers)
    if timing.scenario.happening:
        await asyncio.sleep(began + timing.happens_at_s - time.time())
        await happen(timing.scenario.happening, servers[-1], joins, happened)
    await asyncio.sleep(began + cell.give_up_at * timing.bound_s() - time.time())


def main() -> None:
    """Measure the cell given as JSON and write the result as a line of JSON."""
    cell = Cell(**json.loads(sys.argv[1]))
    end_with_parent()
    print(json.dumps(measure(cell).as_json()))
    leave()


if __name__ == "__main__":
    main()
