"""Who watches a run: the flow run's log, and the terminal when the command runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

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


T = TypeVar("T")

LINE_EVERY_S = 10.0

current_watcher: ContextVar[Watcher | None] = ContextVar("current_watcher", default=None)
"""Set by the command: who watches besides the flow run's log."""


class SharedProgress:
    """The progress of a run, told by the dispatcher's thread and shown by another."""

    def __init__(self, record: RunRecord) -> None:
        hosts = {url: HostProgress(host.slots) for url, host in record.hosts.items()}
        self._progress = Progress(
            record.planned, record.predicted_tokens, hosts, started_at=time.monotonic()
        )
        self._lock = threading.Lock()

    def take(self, event: events.Event) -> str | None:
        """Take an event in; returns a sentence when there is something to tell at once."""
        with self._lock:
            return self._progress.take(event, time.monotonic())

    def shown(self, show: Callable[[Progress, float], T]) -> T:
        """Show it with a function of the progress and the present time."""
        with self._lock:
            return show(self._progress, time.monotonic())


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


@dataclass(frozen=True, slots=True)
class All:
    """Several watchers as one."""

    watchers: tuple[Watcher, ...]

    @classmethod
    def of(cls, *watchers: Watcher | None) -> Self:
        """Those that are there."""
        return cls(tuple(watcher for watcher in watchers if watcher is not None))

    def started(self, record: RunRecord) -> None:
        """Tell each."""
        for watcher in self.watchers:
            watcher.started(record)

    @contextmanager
    def watching(self, record: RunRecord) -> Iterator[events.Observer]:
        """Tell each of every event."""
        with ExitStack() as stack:
            observers = [stack.enter_context(each.watching(record)) for each in self.watchers]

            def observe(event: events.Event) -> None:
                for observer in observers:
                    observer(event)

            yield observe


@contextmanager
def _lines(write: Callable[[str], object], record: RunRecord) -> Iterator[events.Observer]:
    progress = SharedProgress(record)
    ended = threading.Event()

    def observe(event: events.Event) -> None:
        news = progress.take(event)
        if news:
            write(news)

    def tick() -> None:
        while not ended.wait(LINE_EVERY_S):
            write(progress.shown(Progress.line))

    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    ticker.start()
    try:
        yield observe
    finally:
        ended.set()
        ticker.join()
        write(progress.shown(Progress.line))
