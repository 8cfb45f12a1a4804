"""What the `reports` command shows: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from flows.watching import Lines, SharedProgress, Watcher
from tasks.core.dispatch import events
from tasks.core.ingest.summary import IngestSummary
from tasks.core.run.news import readable_seconds
from tasks.core.run.progress import HostProgress, Progress
from tasks.core.run.run_record import RunRecord
from tasks.core.run.summary import (
    HostRow,
    counts_line,
    efficiency_line,
    host_rows,
    ingest_lines,
    opening_lines,
)
from tasks.core.storage.publish import translations_folder

REFRESH_PER_SECOND = 4

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line as it is, however long, with no markup in it."""
    console.print(text, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print a line to standard error."""
    errors.print(text, markup=False)


def watcher() -> Watcher:
    """A bar with a line for each host on a terminal, else a line every ten seconds."""
    return TerminalBar() if console.is_terminal else Lines(say)


class TerminalBar:
    """Watches a run with a bar and a line for each host."""

    def started(self, record: RunRecord) -> None:
        """Say what was read and what is going to be done."""
        for line in opening_lines(record):
            say(line)

    def watching(self, record: RunRecord) -> AbstractContextManager[events.Observer]:
        """Draw the bar until the translation ends."""
        return _bar(record)


@contextmanager
def _bar(record: RunRecord) -> Iterator[events.Observer]:
    progress, view = SharedProgress(record), _View(record.planned)

    def observe(event: events.Event) -> None:
        news = progress.take(event)
        if news:
            say(news)

    def render() -> RenderableType:
        return progress.shown(view.render)

    with Live(get_renderable=render, console=console, refresh_per_second=REFRESH_PER_SECOND):
        yield observe


class _View:
    """A progress as something rich can draw."""

    def __init__(self, planned: int) -> None:
        self._bar = Bar(
            TextColumn("{task.completed}/{task.total} reports"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            expand=True,
        )
        self._task: TaskID = self._bar.add_task("", total=planned, rate="")

    def render(self, progress: Progress, now: float) -> RenderableType:
        """The bar, and below it a line for each host."""
        left = progress.seconds_left(now)
        rate = f"{progress.rate(now):.1f}/s" + (
            f", {readable_seconds(left)} left" if left is not None else ""
        )
        self._bar.update(self._task, completed=progress.done, rate=rate)
        table = Table.grid(padding=(0, 2))
        for url, host in progress.hosts.items():
            table.add_row(f"  {url}", *_activity(host))
        return Group(self._bar, table)


def _activity(host: HostProgress) -> tuple[str, str, str]:
    busy = "●" * host.in_flight + "○" * max(0, host.slots - host.in_flight)
    failures = f", {host.failures} failed" if host.failures else ""
    return host.state, busy, f"{host.requests} requests{failures}, {host.output_tokens} tokens"


def show_ingest(summary: IngestSummary) -> None:
    """What was read, from which files, and what was set aside."""
    for line in ingest_lines(summary):
        say(line)


def show_run(record: RunRecord, root: str) -> None:
    """What a run did, what each host did, and where the result is."""
    wall = readable_seconds(record.wall_seconds or 0.0)
    say(f"{counts_line(record)}, in {wall}")
    if record.beyond_limit:
        say(f"  {record.beyond_limit:,} more reports are missing, left by --limit")
    if record.planned:
        for line in _aligned(host_rows(record)):
            say(line)
        if efficiency := efficiency_line(record):
            say(efficiency)
    say(f"translations: {root}/{translations_folder(record.dataset, record.target_lang)}/*.parquet")
    say(f"run: {root}/runs/{record.run_id}/run.json")


def _aligned(rows: list[HostRow]) -> list[str]:
    """Rows as lines of text; rich would cut columns where a terminal is narrow."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]
