"""All contenders in all scenarios: which cells there are, and when each is measured.

What our own policy is judged by is measured with nothing beside it, and so is Prefect,
which needs the whole machine. The baselines are measured several at a time: all of them
wait nearly all the time, and are far off the bound.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.bench.cell import Cell, Measured
from tests.bench.children import ChildFailed, said, start_async
from tests.bench.scenarios import REPORTS, SCENARIOS

BASELINES = ("least_connections", "round_robin", "random", "naive")
POLICIES = ("ours", "shared", *BASELINES, "prefect")
PREFECT_REPORTS = 80
"""At some 0.3 s for each, more would take too long."""

ONE_SCENARIO = "A"
"""Where the limit that runs share is measured, and Prefect."""


@dataclass(frozen=True)
class Schedule:
    """What to measure."""

    scenarios: str = "".join(SCENARIOS)
    seeds: int = 3
    reports: int = REPORTS
    policies: Sequence[str] = POLICIES
    time_scale: float = 1.0
    give_up_at: float = 10.0
    at_once: int = 12
    """Baselines measured at the same time."""

    def alone(self) -> list[Cell]:
        """What is measured with nothing beside it."""
        cells = []
        for scenario in self.scenarios:
            cells += self._cells(scenario, "ours", self.reports)
            if scenario == ONE_SCENARIO:
                cells += self._cells(scenario, "shared", self.reports)
                if "prefect" in self.policies:
                    cells += self._cells(scenario, "ours", PREFECT_REPORTS)
                    cells += self._cells(scenario, "prefect", PREFECT_REPORTS)
        return cells

    def beside_others(self) -> list[Cell]:
        """The baselines, those first that take longest."""
        # Pushed to the slow host of D, or to the one that hangs in F, they are stopped.
        order = sorted(self.scenarios, key="DFBHECGA".index)
        return [
            cell
            for scenario in order
            for baseline in reversed(BASELINES)
            for cell in self._cells(scenario, baseline, self.reports)
        ]

    def _cells(self, scenario: str, contender: str, reports: int) -> list[Cell]:
        if contender not in self.policies:
            return []
        return [
            Cell(scenario, contender, seed, reports, self.time_scale, self.give_up_at)
            for seed in range(self.seeds)
        ]


async def measure_all(schedule: Schedule) -> list[Measured]:
    """Measure every cell in a process of its own; says on standard error how far it is.

    A cell that could not be measured is left out, and `problems` speaks of it.
    """
    began = time.monotonic()
    alone, beside = schedule.alone(), schedule.beside_others()
    progress = Progress(len(alone) + len(beside))
    results = [await _measured(cell, progress) for cell in alone]
    places = asyncio.Semaphore(schedule.at_once)

    async def in_turn(cell: Cell) -> Measured | None:
        async with places:
            return await _measured(cell, progress)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(in_turn(cell)) for cell in beside]
    results += [task.result() for task in tasks]
    progress.tell(f"measured in {(time.monotonic() - began) / 60:.1f} minutes")
    return [measured for measured in results if measured]


class Progress:
    """Lines on standard error."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._done = 0

    def done(self, measured: Measured) -> None:
        """A cell is measured."""
        self._done += 1
        cell = measured.cell
        sign = ">" if measured.makespan_s is None else " "
        lost = f" lost {measured.outcome.lost}" if measured.outcome.lost else ""
        self.tell(
            f"[{self._done:3}/{self._cells}] {cell.scenario} {cell.contender:18} seed {cell.seed} "
            f"{cell.reports:4} reports {sign}{measured.ratio:.3f}{lost}"
        )

    def tell(self, line: str) -> None:
        """Write a line."""
        print(line, file=sys.stderr, flush=True)


async def _measured(cell: Cell, progress: Progress) -> Measured | None:
    child = await start_async("tests.bench.cell", json.dumps(asdict(cell)))
    try:
        measured = Measured.from_json(json.loads(await said(child)))
    except ChildFailed as failure:
        progress.tell(f"{cell}: {failure}")
        return None
    progress.done(measured)
    return measured


def problems(schedule: Schedule, results: Sequence[Measured]) -> list[str]:
    """What our own dispatcher must never do, and did; and what could not be measured."""
    measured = {each.cell for each in results}
    found = [
        f"{cell.contender} in {cell.scenario}, seed {cell.seed}: could not be measured"
        for cell in (*schedule.alone(), *schedule.beside_others())
        if cell not in measured
    ]
    for each in results:
        cell = each.cell
        name = f"{cell.contender} in {cell.scenario}, seed {cell.seed}"
        if cell.contender not in ("ours", "shared"):
            continue
        if each.makespan_s is None:
            found.append(f"{name}: stopped at {cell.give_up_at:g} times the bound")
        elif each.outcome.answered != cell.reports:
            errors = "; ".join(each.outcome.errors)
            found.append(f"{name}: {each.outcome.answered} of {cell.reports} answered: {errors}")
        if any(peak > slots for peak, slots in zip(each.peak_in_flight, each.slots, strict=True)):
            found.append(f"{name}: in flight {each.peak_in_flight}, of slots {each.slots}")
    return found
