"""Who watches a run: the terminal when the command runs it, else the flow run's log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from tasks.core.dispatch import events
from tasks.core.run.progress import HostProgress, Progress
from tasks.core.run.run_record import RunRecord
from tasks.core.run.summary import opening_lines


class Watcher(Protocol):
    """Somebody who is told how a run goes."""

    def started(self, record: RunRecord) -> None:
        """The run's plan stands."""

    def watching(self, record: RunRecord) -> AbstractContextManager[events.Observer]:
        """Give an observer for the time of the translation."""


LINE_EVERY_S = 10.0

current_watcher: ContextVar[Watcher | None] = ContextVar("current_watcher", default=None)
"""Set by the command; a flow run that nobody watches writes lines to its log."""


def progress_of(record: RunRecord) -> Progress:
    """The progress of a run that is about to start."""
    hosts = {url: HostProgress(host.slots) for url, host in record.hosts.items()}
    return Progress(record.planned, record.predicted_tokens, hosts, started_at=time.monotonic())


@dataclass(frozen=True, slots=True)
class Lines:
    """Watches a run by writing a line every so often, and at once what is worth telling."""

    write: Callable[[str], object]

    def started(self, record: RunRecord) -> None:
        """Say what was read and what is going to be done."""
        for line in opening_lines(record):
            self.write(line)

    def watching(self, record: RunRecord) -> AbstractContextManager[events.Observer]:
        """Write lines until the translation ends."""
        return _lines(self.write, record)


@contextmanager
def _lines(write: Callable[[str], object], record: RunRecord) -> Iterator[events.Observer]:
    progress = progress_of(record)
    ended = threading.Event()

    def observe(event: events.Event) -> None:
        news = progress.take(event, time.monotonic())
        if news:
            write(news)

    def tick() -> None:
        while not ended.wait(LINE_EVERY_S):
            write(progress.line(time.monotonic()))

    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    ticker.start()
    try:
        yield observe
    finally:
        ended.set()
        ticker.join()
        write(progress.line(time.monotonic()))
