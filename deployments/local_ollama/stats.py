"""What a server counts, by its own clock."""

import hashlib
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["answered", "failed", "cancelled"]
# A soak run must not eat the machine's memory; no test asks for anything near this many.
REQUESTS_REMEMBERED = 200_000


@dataclass(slots=True)
class Gauge:
    """A level and the highest it has been since the last reset."""

    level: int = 0
    peak: int = 0

    def up(self) -> None:
        """One more."""
        self.level += 1
        self.peak = max(self.peak, self.level)

    def down(self) -> None:
        """One less."""
        self.level -= 1

    def reset(self) -> None:
        """Forget the peak; the level is what it is."""
        self.peak = self.level


@dataclass(slots=True)
class TextRequest:
    """One request that carries text. Times are unix seconds; `ended_at` is None while it runs."""

    path: str
    text: str
    started_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    fault: str | None = None
    status: int | None = None
    output_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """The record with the text's sha256 (of its UTF-8 bytes) in place of the text."""
        record = asdict(self)
        text = record.pop("text")
        record["sha256"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        record["characters"] = len(text)
        return record


@dataclass(slots=True)
class Stats:
    """All counters of one server. `in_flight` is what its clients have open: queued or running."""

    in_flight: Gauge = field(default_factory=Gauge)
    running: Gauge = field(default_factory=Gauge)
    queued: Gauge = field(default_factory=Gauge)
    loads: int = 0
    reloads: int = 0
    loads_aborted: int = 0
    overflows: int = 0
    received: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    endpoints: Counter[str] = field(default_factory=Counter)
    output_tokens: int = 0
    first_request_at: float | None = None
    last_answer_at: float | None = None
    requests: deque[TextRequest] = field(default_factory=lambda: deque(maxlen=REQUESTS_REMEMBERED))

    def begin(self, path: str, text: str) -> TextRequest:
        """Count a request that carries text as received and in flight."""
        record = TextRequest(path, text, time.time())
        if self.first_request_at is None:
            self.first_request_at = record.started_at
        self.received += 1
        self.in_flight.up()
        self.requests.append(record)
        return record

    def end(self, record: TextRequest, outcome: Outcome) -> None:
        """Count a request that `begin` counted as over."""
        record.outcome = outcome
        record.ended_at = time.time()
        self.in_flight.down()
        self.outcomes[outcome] += 1
        if outcome == "answered":
            self.output_tokens += record.output_tokens
            self.last_answer_at = record.ended_at

    def reset(self) -> None:
        """Start again from zero; requests still open keep counting as in flight."""
        for gauge in (self.in_flight, self.running, self.queued):
            gauge.reset()
        self.loads = self.reloads = self.loads_aborted = self.overflows = 0
        self.received = self.output_tokens = 0
        self.first_request_at = self.last_answer_at = None
        for counter in (self.outcomes, self.faults, self.endpoints):
            counter.clear()
        self.requests.clear()

    def as_json(self, *, requests: bool = False) -> dict[str, Any]:
        """The counters as `GET /_local/stats` gives them."""
        shown: dict[str, Any] = {
            "endpoints": dict(self.endpoints),
            "received": self.received,
            "answered": self.outcomes["answered"],
            "failed": self.outcomes["failed"],
            "cancelled": self.outcomes["cancelled"],
            "in_flight": self.in_flight.level,
            "peak_in_flight": self.in_flight.peak,
            "running": self.running.level,
            "peak_running": self.running.peak,
            "queued": self.queued.level,
            "peak_queued": self.queued.peak,
            "loads": self.loads,
            "reloads": self.reloads,
            "loads_aborted": self.loads_aborted,
            "overflows": self.overflows,
            "output_tokens": self.output_tokens,
            "faults": dict(self.faults),
            "first_request_at": self.first_request_at,
            "last_answer_at": self.last_answer_at,
        }
        if requests:
            shown["requests"] = [record.as_json() for record in self.requests]
        return shown
