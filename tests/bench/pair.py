"""Two runs beside each other, which share the slots of their hosts.

    python -m tests.bench.pair [--reports 400] [--json PATH]

Two processes start at once, each with half of the reports. Their makespan is set against
the bound of the joint work, and the servers count what is in flight. Then the same with
one of them killed at half time: how long until the other has all slots in use?
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployments.local_ollama.process import local_servers
from tests.bench.children import said, start_async
from tests.bench.contest import Outcome
from tests.bench.counting import count, load_models
from tests.bench.markdown import heading, table
from tests.bench.pair_run import READY, Share
from tests.bench.results import FOLDER, environment, write_json
from tests.bench.scenarios import REPORTS, SCENARIOS, Timing, timed

KILLED_AT = 0.5
"""Of the bound."""

MOST_RATIO, MOST_TAKEOVER_S = 1.10, 2.0


@dataclass(frozen=True)
class Pair:
    """What came of two runs."""

    scenario: str
    reports: int
    bound_s: float
    makespan_s: float
    answered: list[int]
    """By each run; by the killed one that is not known and 0."""
    slots: list[int]
    peak_in_flight: list[int]
    was_killed: bool = False
    slots_before: int = 0
    """In use by the one that lived on, when the other was killed."""
    takeover_s: float = 0.0
    """From then until it had every slot in use; infinite if it never had."""

    @property
    def ratio(self) -> float:
        """Makespan ÷ bound of the joint work."""
        return self.makespan_s / self.bound_s

    def problems(self) -> list[str]:
        """What must never be, and was."""
        name, found = f"pair in {self.scenario}", []
        share = self.reports // 2
        if any(each < share for each in self.answered[: 1 if self.was_killed else 2]):
            found.append(f"{name}: {self.answered} answered of {share} each")
        if any(peak > slots for peak, slots in zip(self.peak_in_flight, self.slots, strict=True)):
            found.append(f"{name}: in flight {self.peak_in_flight}, of slots {self.slots}")
        if not self.was_killed and self.ratio > MOST_RATIO:
            found.append(f"{name}: {self.ratio:.3f} times the bound, of {MOST_RATIO:g} at most")
        if self.takeover_s > MOST_TAKEOVER_S:
            found.append(f"{name}: slots free for {self.takeover_s:.1f} s after one was killed")
        return found


async def measure_pair(scenario: str, reports: int, *, kill: bool = False) -> Pair:
    """Start two runs over the hosts of a scenario, and perhaps kill the second one."""
    timing = timed(SCENARIOS[scenario], reports, seed=0)
    with (
        tempfile.TemporaryDirectory(prefix="bench-slots-") as folder,
        local_servers(timing.settings()) as servers,
    ):
        load_models(servers)
        hosts = [(server.url, server.settings.slots) for server in servers]
        shares = [Share(hosts, folder, reports, 0, number) for number in (0, 1)]
        children = [
            await start_async("tests.bench.pair_run", json.dumps(asdict(share))) for share in shares
        ]
        try:
            killed_at, answered = await _let_run(children, timing, kill=kill)
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        stats = [server.stats(requests=True) for server in servers]
    counted = count(stats, timing.load.texts)
    slots = [host.slots for host in timing.scenario.hosts]
    slots_before, takeover_s = 0, 0.0
    if killed_at is not None:
        slots_before, takeover_s = _takeover(stats, shares[0].texts(), sum(slots), killed_at)
    return Pair(
        scenario=scenario,
        reports=reports,
        bound_s=timing.bound_s(),
        makespan_s=counted.last_answer_at - counted.first_request_at,
        answered=answered,
        slots=slots,
        peak_in_flight=counted.peaks,
        was_killed=kill,
        slots_before=slots_before,
        takeover_s=takeover_s,
    )


async def _let_run(
    children: Sequence[Process], timing: Timing, *, kill: bool
) -> tuple[float | None, list[int]]:
    """When the second one was killed, if so, and what each has answered."""
    for child in children:
        assert child.stdout
        line = await child.stdout.readline()
        if line.decode().strip() != READY:
            raise RuntimeError("a run did not start")
    for child in children:
        assert child.stdin
        child.stdin.write(b"go\n")
        await child.stdin.drain()
    killed_at = None
    if kill:
        await asyncio.sleep(KILLED_AT * timing.bound_s())
        killed_at = time.time()
        children[1].kill()
        await children[1].wait()
    answered = []
    for child in children:
        if child.returncode is None or not kill or child is children[0]:
            answered.append(Outcome(**json.loads(await said(child))).answered)
        else:
            answered.append(0)
    return killed_at, answered


def _takeover(
    stats: Iterable[dict[str, Any]], texts: Sequence[str], slots: int, killed_at: float
) -> tuple[int, float]:
    """How many slots the requests for these texts had, and the time until they had them all."""
    hashes = {hashlib.sha256(text.encode()).hexdigest() for text in texts}
    changes = sorted(
        change
        for each in stats
        for record in each["requests"]
        if record["sha256"] in hashes
        for change in ((record["started_at"], 1), (record["ended_at"] or math.inf, -1))
    )
    before = in_flight = sum(change for at, change in changes if at < killed_at)
    for at, change in changes:
        if at >= killed_at:
            in_flight += change
            if in_flight >= slots:
                return before, float(at - killed_at)
    return before, math.inf


def pair_lines(pairs: Sequence[Pair]) -> list[str]:
    """A table of them."""
    rows = [["two runs at once over", "reports", "makespan ÷ bound", "in flight of slots"]]
    rows += [
        [
            f"{each.scenario}: {SCENARIOS[each.scenario].title}",
            f"{each.reports // 2} + {each.reports // 2}",
            f"{each.ratio:.3f}",
            f"{'+'.join(map(str, each.peak_in_flight))} of {'+'.join(map(str, each.slots))}",
        ]
        for each in pairs
        if not each.was_killed
    ]
    return [
        *table(rows),
        "",
        *(
            f"- {each.scenario} with one of the two killed at half time: {each.takeover_s:.2f} s "
            f"later the other had all {sum(each.slots)} slots in use; before, {each.slots_before}."
            for each in pairs
            if each.was_killed
        ),
    ]


def measure_pairs(reports: int = REPORTS) -> list[Pair]:
    """A and B, and both with a run that is killed."""

    async def one_by_one() -> list[Pair]:
        return [
            await measure_pair(scenario, reports, kill=kill)
            for kill in (False, True)
            for scenario in "AB"
        ]

    return asyncio.run(one_by_one())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reports", type=int, default=REPORTS, help="of both runs together")
    parser.add_argument("--json", type=Path, default=FOLDER / "pair.json")
    options = parser.parse_args()
    pairs = measure_pairs(options.reports)
    print("\n".join([*heading(environment()), *pair_lines(pairs)]))
    write_json(options.json, {**environment(), "pair": [asdict(each) for each in pairs]})
    wrong = [problem for each in pairs for problem in each.problems()]
    for problem in wrong:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
