"""How many requests a host can use at the moment, from the waits that it reports.

A host that was found to have c slots has fewer for this run while other clients use them,
or after it loaded the model anew. Requests then wait in the server, where they are bound to
it and another host cannot have them. By Little's law, of n requests in flight

    queued = n · Σ wait / Σ (wait + service)

are waiting on average; by so many the limit is lowered. A host whose requests do not wait
shows nothing of the slots it has left, so now and then one more is tried, up to the ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

TOO_MANY_QUEUED = 0.6
NONE_QUEUED = 0.25
"""Between the two nothing is changed; one request too many counts 1."""

WINDOW = 2
"""Answers in a window, for each request of the limit; at least `LEAST_ANSWERS`."""

LEAST_ANSWERS = 4

SHORTEST_WINDOW_S = 2.0
"""A window goes on for that long at least: a server that answers fifty times a second is
slowed down by anything that its machine does meanwhile."""

WINDOWS_TO_LOWER = 2
"""In a row, and the smallest counts: what slows one window down is no lasting queue."""

WINDOWS_TO_RAISE = 3
"""In a row, until a raise had to be taken back: then twice as many each time."""

MOST_WINDOWS_TO_RAISE = 48

SHORTEST_WAIT_S = 0.05
SHORTEST_WAIT = 0.1
"""Seconds, and share of the service, below which a wait is none: servers need some time between
two answers, and read prompts in batches."""


@dataclass(frozen=True, slots=True)
class Window:
    """What some answers in a row say of the waits; as much work for each, however many."""

    answers: int = 0
    waited_s: float = 0.0
    served_s: float = 0.0
    longest_s: float = 0.0
    second_longest_s: float = 0.0
    """Of the waits."""

    def with_answer(self, wait_s: float, service_s: float) -> Self:
        """The window with one more answer; a wait that is too short to be one counts 0."""
        if wait_s < max(SHORTEST_WAIT_S, SHORTEST_WAIT * service_s):
            wait_s = 0.0
        return type(self)(
            self.answers + 1,
            self.waited_s + wait_s,
            self.served_s + service_s,
            max(self.longest_s, wait_s),
            max(self.second_longest_s, min(self.longest_s, wait_s)),
        )

    def is_full(self, limit: int) -> bool:
        """Whether it can be decided on, of a host that had `limit` requests all the time."""
        lasted_s = (self.waited_s + self.served_s) / limit
        return self.answers >= max(LEAST_ANSWERS, WINDOW * limit) and lasted_s >= SHORTEST_WINDOW_S

    def queued(self, limit: int) -> float:
        """How many of the requests waited, on average; the longest wait counts as the second."""
        waited_s = self.waited_s - self.longest_s + self.second_longest_s
        return limit * waited_s / (waited_s + self.served_s) if waited_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class WaitController:
    """The limit of one host, and what its latest answers say of it.

    It never exceeds `ceiling`, and moves by answers alone whose request filled the limit:
    with fewer in flight there is nothing to see, and more were sent under another limit.
    """

    ceiling: int
    limit: int
    window: Window = field(default_factory=Window)
    """The one that is being filled."""
    queued: tuple[float, ...] = ()
    """Requests that waited in each of the latest windows, under this limit."""
    windows_to_raise: int = WINDOWS_TO_RAISE
    is_trial: bool = False
    """Whether the limit was raised and has not proved right yet."""

    def after(self, wait_s: float, service_s: float, in_flight: int) -> WaitController:
        """The controller after one more answer.

        `in_flight` counts the requests to the host when this one was sent, itself included.
        """
        if in_flight != self.limit:
            return self
        window = self.window.with_answer(wait_s, service_s)
        if not window.is_full(self.limit):
            return replace(self, window=window)
        queued = (*self.queued, window.queued(self.limit))
        return _decided(replace(self, window=Window(), queued=queued))


def _decided(now: WaitController) -> WaitController:
    """The controller after a window that is full."""
    lowest = min(now.queued[-WINDOWS_TO_LOWER:])
    if len(now.queued) >= WINDOWS_TO_LOWER and lowest > TOO_MANY_QUEUED and now.limit > 1:
        return _lowered(now, by=max(1, int(lowest + 0.5)))
    if now.is_trial and now.queued[-1] <= NONE_QUEUED:
        return replace(now, is_trial=False, windows_to_raise=WINDOWS_TO_RAISE)
    latest = now.queued[-now.windows_to_raise :]
    is_calm = len(latest) == now.windows_to_raise and max(latest) <= NONE_QUEUED
    if is_calm and now.limit < now.ceiling:
        return replace(now, limit=now.limit + 1, queued=(), is_trial=True)
    return replace(now, queued=latest)


def _lowered(now: WaitController, by: int) -> WaitController:
    longer = min(MOST_WINDOWS_TO_RAISE, 2 * now.windows_to_raise)
    return replace(
        now,
        limit=max(1, now.limit - by),
        queued=(),
        windows_to_raise=longer if now.is_trial else WINDOWS_TO_RAISE,
        is_trial=False,
    )
