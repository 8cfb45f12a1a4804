"""A fleet in virtual time: `choose` decides, nothing waits and nothing is random but the work."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tasks.core.dispatch.choose import Flight, Hedge, HostView, Send, State, choose
from tasks.core.dispatch.queue import Queue, Waiting
from tasks.core.dispatch.retry import GiveUp, Quarantine, Retry, Tries, after_failure
from tasks.core.dispatch.speed import Speed
from tasks.core.errors import ErrorKind

LOG_SIGMA = 0.8
MEAN_TOKENS = 300
PREDICTION_SIGMA = 0.15

LOOK_AGAIN_EVERY_S = 0.5
"""As the dispatcher does: what is overdue shows by the time alone."""

PATIENCE_S = 1e7
"""A run that takes longer would never end."""

Decide = Callable[[State, float], Send | Hedge | None]


@dataclass(slots=True)
class SimulatedHost:
    """A host: its slots, what one of them gets through in a second, and when that changes."""

    slots: int
    tokens_per_s: float
    changes_at: float = math.inf
    factor: float = 1.0
    """What its speed is multiplied by from then on; 0: it hangs."""
    joins_at: float = 0.0
    speed: Speed = field(default_factory=Speed)
    in_flight: int = 0
    peak: int = 0

    def ends_at(self, now: float, tokens: float) -> float:
        """When a request that starts now is answered."""
        left = tokens
        if now < self.changes_at:
            left -= (self.changes_at - now) * self.tokens_per_s
            if left <= 0:
                return now + tokens / self.tokens_per_s
        rate = self.tokens_per_s * self.factor
        return max(now, self.changes_at) + left / rate if rate else math.inf

    def capacity(self, until_s: float) -> float:
        """Tokens that all its slots get through by some time."""
        before = max(0.0, min(until_s, self.changes_at) - self.joins_at)
        after = max(0.0, until_s - max(self.changes_at, self.joins_at))
        return self.slots * self.tokens_per_s * (before + self.factor * after)


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulated run came to."""

    makespan_s: float
    answered: frozenset[int]
    given_up: frozenset[int]
    requests: Counter[int]
    """How many there were for each segment."""


def lengths(count: int, seed: int) -> list[tuple[int, float]]:
    """Predicted and true tokens of so many segments."""
    rng = random.Random(seed)
    scale = MEAN_TOKENS / math.exp(LOG_SIGMA**2 / 2)
    predicted = [max(4, round(scale * rng.lognormvariate(0, LOG_SIGMA))) for _ in range(count)]
    return [(tokens, tokens * rng.lognormvariate(0, PREDICTION_SIGMA)) for tokens in predicted]


def lower_bound_s(work: Sequence[float], hosts: Sequence[SimulatedHost]) -> float:
    """No schedule ends sooner: all the work over all slots, the longest over the fastest."""
    low, high = 0.0, 1.0
    while sum(host.capacity(high) for host in hosts) < sum(work):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        enough = sum(host.capacity(middle) for host in hosts) >= sum(work)
        low, high = (low, middle) if enough else (middle, high)
    best = (host.tokens_per_s * max(1.0, host.factor) for host in hosts for _ in range(host.slots))
    speeds, longest = sorted(best, reverse=True), sorted(work, reverse=True)
    heads = (sum(longest[:j]) / sum(speeds[:j]) for j in range(1, len(speeds)))
    return max(low, *heads, 0.0)


class Simulation:
    """Runs segments over hosts, as a dispatcher does that obeys `choose`.

    `breaks` has, by segment, the numbers of the hosts that never answer it: they break the
    connection instead, when the answer is due.
    """

    def __init__(
        self,
        work: Sequence[tuple[int, float]],
        hosts: Sequence[SimulatedHost],
        *,
        breaks: Mapping[int, frozenset[int]] | None = None,
        hedge: bool = True,
        decide: Decide = choose,
    ) -> None:
        self.hosts = {f"host-{number}": host for number, host in enumerate(hosts)}
        self.predicted = {key: predicted for key, (predicted, _) in enumerate(work)}
        self.tokens = {key: true for key, (_, true) in enumerate(work)}
        self.breaks = {
            (key, f"host-{number}") for key, numbers in (breaks or {}).items() for number in numbers
        }
        self.tries = dict.fromkeys(self.tokens, Tries())
        self.queue = Queue()
        for key in self.tokens:
            self._put(key)
        self.flights: dict[int, Flight] = {}
        self.hedge = hedge
        self.decide = decide
        self.answered: set[int] = set()
        self.given_up: set[int] = set()
        self.requests: Counter[int] = Counter()
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def run(self) -> Result:
        """To the last answer, or until nothing would ever happen any more."""
        for host in self.hosts.values():
            if host.joins_at:
                self._at(host.joins_at, lambda: None)
        self._fill()
        while len(self.answered) + len(self.given_up) < len(self.tokens):
            # Less often in very long runs, for the sake of whoever waits for the tests.
            next_look = self.now + max(LOOK_AGAIN_EVERY_S, self.now / 1000)
            next_event = self._events[0][0] if self._events else math.inf
            if next_event <= next_look or (not self.flights and self._events):
                self.now, _, happen = heapq.heappop(self._events)
                happen()
            elif self.flights and next_look < PATIENCE_S:
                self.now = next_look
            else:
                break
            self._fill()
        return Result(self.now, frozenset(self.answered), frozenset(self.given_up), self.requests)

    def state(self) -> State:
        """As the dispatcher would show it."""
        views = [
            HostView(url, host.slots, host.in_flight, host.speed.tokens_per_s)
            for url, host in self.hosts.items()
            if host.joins_at <= self.now
        ]
        return State(views, self.queue, self.flights.values(), hedge=self.hedge)

    def _fill(self) -> None:
        while (decision := self.decide(self.state(), self.now)) is not None:
            match decision:
                case Send(waiting, url):
                    self.queue.remove(waiting)
                    self._send(waiting.key, url, is_hedge=False)
                case Hedge(key, url):
                    self._send(key, url, is_hedge=True)

    def _put(self, key: int) -> None:
        tries = self.tries[key]
        self.queue.put(
            Waiting(key, self.predicted[key], tries.broken, in_quarantine=tries.in_quarantine)
        )

    def _send(self, key: int, url: str, *, is_hedge: bool) -> None:
        host, tries, copies = self.hosts[url], self.tries[key], self._copies(key)
        assert host.joins_at <= self.now
        assert host.in_flight < host.slots
        assert len(copies) == is_hedge
        assert all(self.flights[copy].url != url for copy in copies)
        if url in tries.broken:
            there = {each for each, host in self.hosts.items() if host.joins_at <= self.now}
            assert there <= tries.broken
            assert not is_hedge
        if tries.in_quarantine:
            assert not host.in_flight
            assert all(waiting.in_quarantine for waiting in self.queue)
        host.in_flight += 1
        host.peak = max(host.peak, host.in_flight)
        self.requests[key] += 1
        self._allow_hedge(copies, allowed=False)
        number = next(self._numbers)
        self.flights[number] = Flight(
            key,
            url,
            self.predicted[key],
            self.now,
            may_hedge=not is_hedge and not tries.in_quarantine,
            failed_on=tries.broken,
        )
        end = self._break if (key, url) in self.breaks else self._answer
        self._at(host.ends_at(self.now, self.tokens[key]), partial(end, number))

    def _answer(self, number: int) -> None:
        flight = self.flights.get(number)
        if flight is None:
            return  # the other copy was answered first
        host = self.hosts[flight.url]
        host.speed = host.speed.after(flight.tokens, self.now - flight.started_at)
        self.answered.add(flight.key)
        for copy in self._copies(flight.key):
            self._out(copy)

    def _break(self, number: int) -> None:
        flight = self.flights.get(number)
        if flight is None:
            return
        self._out(number)
        key = flight.key
        self.tries[key] = tries = self.tries[key].after(ErrorKind.RESET, flight.url)
        if copies := self._copies(key):
            self._allow_hedge(copies, allowed=True)
            return
        match after_failure(ErrorKind.RESET, tries, 0.5):
            case GiveUp():
                self.given_up.add(key)
            case Quarantine():
                self.tries[key] = replace(tries, in_quarantine=True)
                self._put(key)
            case Retry(delay_s):
                self._at(self.now + delay_s, partial(self._put, key))

    def _copies(self, key: int) -> list[int]:
        return [number for number, flight in self.flights.items() if flight.key == key]

    def _allow_hedge(self, copies: Sequence[int], *, allowed: bool) -> None:
        for number in copies:
            flight = self.flights[number]
            failed_on = self.tries[flight.key].broken
            self.flights[number] = replace(flight, may_hedge=allowed, failed_on=failed_on)

    def _out(self, number: int) -> None:
        self.hosts[self.flights.pop(number).url].in_flight -= 1

    def _at(self, at: float, happen: Callable[[], None]) -> None:
        if at < math.inf:
            heapq.heappush(self._events, (at, next(self._numbers), happen))
