"""How far a run is, from the events of its dispatch: for a bar, or for lines of text."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from tasks.core.dispatch import events
from tasks.core.records import Status
from tasks.core.run.news import news_of, readable_seconds

RATE_WINDOW_S = 60.0
"""The rate is that of the last minute, so that it follows what happens."""

MARK_EVERY_S = 1.0


@dataclass(slots=True)
class HostProgress:
    """What one host is doing."""

    slots: int
    state: str = "starting"
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """What was done by some moment."""

    at: float
    reports: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Progress:
    """A run seen from outside. `now` is any clock in seconds that does not go back."""

    planned: int
    planned_tokens: int
    """Predicted; the time left follows from them, because long reports come first."""
    hosts: dict[str, HostProgress]
    started_at: float
    done: int = 0
    done_tokens: int = 0
    by_status: Counter[Status] = field(default_factory=Counter)
    _marks: deque[Mark] = field(default_factory=deque)

    def take(self, event: events.Event, now: float) -> str | None:
        """Take an event in; returns a sentence when there is something to tell at once."""
        match event:
            case events.ReportDone(_, status, tokens):
                self.done += 1
                self.done_tokens += tokens
                self.by_status[status] += 1
                self._mark(now)
            case events.RequestSent(url):
                self.hosts[url].in_flight += 1
                self.hosts[url].requests += 1
            case events.RequestEnded(url, tokens, error):
                self.hosts[url].in_flight -= 1
                self.hosts[url].output_tokens += tokens
                self.hosts[url].failures += error is not None
            case _:
                self._follow(event)
                return news_of(event)
        return None

    def rate(self, now: float) -> float:
        """Reports a second, over the last minute."""
        since = self._minute_ago(now)
        return (self.done - since.reports) / max(1e-9, now - since.at)

    def seconds_left(self, now: float) -> float | None:
        """Time until the last report at the pace of the last minute; None without one."""
        since = self._minute_ago(now)
        tokens = self.done_tokens - since.tokens
        if tokens <= 0:
            return None
        return (self.planned_tokens - self.done_tokens) * (now - since.at) / tokens

    def line(self, now: float) -> str:
        """All of it in one line."""
        percent = 100 * self.done / max(1, self.planned)
        parts = [
            f"{self.done}/{self.planned} reports ({percent:.0f} %)",
            f"{self.rate(now):.1f} reports/s",
        ]
        left = self.seconds_left(now)
        if left is not None and self.done < self.planned:
            parts.append(f"{readable_seconds(left)} left")
        if self.by_status[Status.FAILED]:
            parts.append(f"{self.by_status[Status.FAILED]} failed")
        hosts = [
            f"{url} {host.in_flight}/{host.slots}" if host.state == "up" else f"{url} {host.state}"
            for url, host in self.hosts.items()
        ]
        return ", ".join(parts) + " | " + ", ".join(hosts)

    def _minute_ago(self, now: float) -> Mark:
        """The last mark that is a minute old, or the start."""
        past = [mark for mark in self._marks if mark.at <= now - RATE_WINDOW_S]
        return past[-1] if past else Mark(self.started_at)

    def _mark(self, now: float) -> None:
        if not self._marks or now - self._marks[-1].at >= MARK_EVERY_S:
            self._marks.append(Mark(now, self.done, self.done_tokens))
        while len(self._marks) > 1 and self._marks[1].at <= now - RATE_WINDOW_S:
            self._marks.popleft()

    def _follow(self, event: events.Event) -> None:
        """Keep what is shown of a host up to date."""
        match event:
            case events.HostJoined(url, slots):
                self.hosts.setdefault(url, HostProgress(slots or 0)).state = "starting"
            case events.HostLoading(url):
                self.hosts[url].state = "loading"
            case events.HostUp(url, slots):
                self.hosts[url].state, self.hosts[url].slots = "up", slots
            case events.SlotsFound(url, slots) | events.SlotsChanged(url, slots):
                self.hosts[url].slots = slots
            case events.HostSuspect(url):
                self.hosts[url].state = "suspect"
            case events.HostDown(url):
                self.hosts[url].state = "down"
            case events.HostDraining(url):
                self.hosts[url].state = "leaving"
            case events.HostLeft(url):
                self.hosts[url].state = "left out"
            case _:
                pass
