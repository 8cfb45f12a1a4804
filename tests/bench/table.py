"""How close to the bound each contender came, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from tests.bench.cell import Measured
from tests.bench.markdown import table
from tests.bench.scenarios import SCENARIOS, SIGMA
from tests.bench.schedule import BASELINES, ONE_SCENARIO, PREFECT_REPORTS, Schedule

TITLES = {
    "least_connections": "least connections",
    "round_robin": "round robin",
    "naive": "naive gather",
}


def schedule_lines(schedule: Schedule, results: Sequence[Measured]) -> list[str]:
    """Makespan ÷ bound by scenario and contender, and what else is to be said of it."""
    full = [each for each in results if each.cell.reports == schedule.reports]
    shown = [name for name in BASELINES if name in schedule.policies]
    has_ours = "ours" in schedule.policies
    head = ["scenario", "bound", *(["**ours**", "worst seed"] if has_ours else [])]
    rows = [[*head, *(TITLES.get(name, name) for name in shown)]]
    for key in schedule.scenarios:
        here = [each for each in full if each.cell.scenario == key]
        if not here:
            continue
        row = [f"{key}: {SCENARIOS[key].title}", f"{fmean(each.bound_s for each in here):.1f} s"]
        if has_ours:
            ours = sorted(_of(here, "ours"), key=lambda each: each.ratio)
            row += [f"**{_ratio(ours)}**", _ratio(ours[-1:])]
        rows.append([*row, *(_ratio(_of(here, name), digits=2) for name in shown)])
    seeds = "1 seed" if schedule.seeds == 1 else f"mean of {schedule.seeds} seeds"
    what = (
        f"Makespan ÷ lower bound of the makespan; {schedule.reports} reports of log-normal length "
        f"(sigma {SIGMA}), {seeds}."
    )
    return [
        what,
        "",
        *table(rows),
        "",
        *_notes(schedule, results),
    ]


def _notes(schedule: Schedule, results: Sequence[Measured]) -> list[str]:
    signs = (
        f"- `> {schedule.give_up_at:g}`: stopped at {schedule.give_up_at:g} times the bound; "
        "`(-n)`: n reports were lost, on average, and took none of its time. Ours is measured "
        f"alone, the baselines {schedule.at_once} at a time."
    )
    lines = [signs]
    full = [each for each in results if each.cell.reports == schedule.reports]
    if ours := _of(full, "ours"):
        lines.append("- In flight at most, by the servers' count, ours: " + _in_flight(ours) + ".")
    if shared := _of(full, "shared"):
        lines.append(
            f"- {ONE_SCENARIO} under the limit that runs share: {_ratio(shared)}"
            f"{_limit_wait(shared)}."
        )
    small = [
        each
        for each in results
        if each.cell.reports == PREFECT_REPORTS and each.cell.scenario == ONE_SCENARIO
    ]
    if prefect := _of(small, "prefect"):
        lines.append(
            "- One Prefect task run per report and a global concurrency limit per request, in "
            f"{ONE_SCENARIO} with {PREFECT_REPORTS} reports: {_ratio(prefect, digits=2)}; "
            f"ours with the same reports: {_ratio(_of(small, 'ours'))}."
        )
    return lines


def _of(results: Iterable[Measured], contender: str) -> list[Measured]:
    return [each for each in results if each.cell.contender == contender]


def _ratio(results: Sequence[Measured], digits: int = 3) -> str:
    """The mean of the ratios, which is too low where one was stopped, and what was lost."""
    if not results:
        return "-"
    stopped = sum(each.makespan_s is None for each in results)
    mean = fmean(each.ratio for each in results)
    if stopped == len(results):
        return f"> {mean:g}"
    lost = fmean(each.outcome.lost for each in results if each.makespan_s is not None)
    return f"{'> ' * bool(stopped)}{mean:.{digits}f}{f' (-{lost:.0f})' if lost else ''}"


def _in_flight(ours: Sequence[Measured]) -> str:
    """The highest of all seeds, scenario by scenario."""
    keys = sorted({each.cell.scenario for each in ours})
    parts = []
    for key in keys:
        here = [each for each in ours if each.cell.scenario == key]
        peaks = [
            max(of_host) for of_host in zip(*(each.peak_in_flight for each in here), strict=True)
        ]
        parts.append(f"{key} {'+'.join(map(str, peaks))} of {'+'.join(map(str, here[0].slots))}")
    return ", ".join(parts)


def _limit_wait(shared: Sequence[Measured]) -> str:
    shares = [each.limit_wait_share for each in shared if each.limit_wait_share is not None]
    return f", {fmean(shares):.2%} of the slot time spent waiting for it" if shares else ""
