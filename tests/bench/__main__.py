"""How close to the bound each contender comes, over real HTTP and by the servers' clocks.

    python -m tests.bench [--scenarios ABCDEFGH] [--seeds 3] [--reports 400]
        [--policies ours naive ...] [--time-scale 1] [--json PATH]
    python -m tests.bench --quick     A, B and D, one seed, 100 reports in less time each,
                                      baselines stopped at 4 times the bound
    python -m tests.bench --all       also two runs beside each other, and the client's overhead

Ends with exit code 1 when our own dispatcher had more in flight than slots, or lost a
report.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import overhead, pair
from tests.bench.markdown import heading
from tests.bench.results import FOLDER, environment, write_json
from tests.bench.scenarios import REPORTS, SCENARIOS
from tests.bench.schedule import POLICIES, Schedule, measure_all, problems
from tests.bench.table import schedule_lines

QUICK = Schedule(
    scenarios="ABD",
    seeds=1,
    reports=100,
    policies=tuple(name for name in POLICIES if name not in ("shared", "prefect")),
    time_scale=0.7,
    give_up_at=4.0,
    at_once=6,
)
OVERHEAD_REPORTS, OVERHEAD_IN_FLIGHT = 20_000, 64


def main() -> int:
    """Measure, print, and write the figures down."""
    options = _parser().parse_args()
    schedule = QUICK if options.quick else _schedule(options)
    path = options.json or FOLDER / ("quick.json" if options.quick else "bench.json")
    where_from = environment()
    results: dict[str, Any] = dict(where_from)
    wrong: list[str] = []

    def tell(part: str, figures: object, lines: list[str], problems_found: list[str]) -> None:
        """Print a part and write down all there is: what comes next may take long, or fail."""
        wrong.extend(problems_found)
        results.update({part: figures, "problems": wrong})
        print("\n".join(lines), flush=True)
        write_json(path, results)

    measured = asyncio.run(measure_all(schedule))
    tell(
        "schedule",
        [each.as_json() for each in measured],
        [*heading(where_from), *schedule_lines(schedule, measured)],
        problems(schedule, measured),
    )
    if options.all:
        pairs = pair.measure_pairs(schedule.reports)
        found = [problem for each in pairs for problem in each.problems()]
        tell("pair", [asdict(each) for each in pairs], ["", *pair.pair_lines(pairs)], found)
        client = overhead.measure(OVERHEAD_REPORTS, OVERHEAD_IN_FLIGHT)
        tell("overhead", client.as_json(), ["", *client.lines()], client.problems())
    print(f"written: {path}", file=sys.stderr)
    for problem in wrong:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    return 1 if wrong else 0


def _schedule(options: argparse.Namespace) -> Schedule:
    return Schedule(
        scenarios=options.scenarios,
        seeds=options.seeds,
        reports=options.reports,
        policies=tuple(options.policies),
        time_scale=options.time_scale,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenarios", type=_scenarios, default="".join(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reports", type=int, default=REPORTS)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--time-scale", type=float, default=1.0, help="make it last longer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--all", action="store_true")
    return parser


def _scenarios(keys: str) -> str:
    if unknown := set(keys) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(f"there is no scenario {', '.join(sorted(unknown))}")
    return keys


if __name__ == "__main__":
    sys.exit(main())
