"""Segments that wait for a slot, by their predicted length."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Waiting:
    """A segment in the queue."""

    key: int
    """Names it; a segment that comes back keeps its key."""
    tokens: int
    """Predicted."""
    failed_on: frozenset[str] = frozenset()
    bound_to: str | None = None
    """The one host that may take it; None: any. Only the baseline policies bind."""
    in_quarantine: bool = False
    """It broke two hosts: it goes out when nothing else waits, to a host that does nothing else."""

    def suits(self, url: str, others: frozenset[str]) -> bool:
        """Whether a host should take it, where `others` also take requests.

        A segment that failed on a host waits for one of the others, as long as there is one
        where it has not failed.
        """
        if self.bound_to is not None:
            return self.bound_to == url
        return url not in self.failed_on or not (others - self.failed_on)


Suits = Callable[[Waiting], bool]


class Queue:
    """Waiting segments in the order of their predicted length; of equals the oldest first."""

    def __init__(self) -> None:
        self._ascending: list[tuple[int, int, Waiting]] = []
        self.tokens = 0
        """Predicted, of all that wait."""
        self.restricted = 0
        """How many failed on some host, so that not every host may take them."""
        self.bound: Counter[str] = Counter()
        """How many wait for each host alone."""

    def __len__(self) -> int:
        return len(self._ascending)

    def __iter__(self) -> Iterator[Waiting]:
        """Longest first."""
        return (entry[2] for entry in reversed(self._ascending))

    def put(self, waiting: Waiting) -> None:
        """Add a segment."""
        insort(self._ascending, (waiting.tokens, -waiting.key, waiting))
        self.tokens += waiting.tokens
        self.restricted += bool(waiting.failed_on)
        if waiting.bound_to:
            self.bound[waiting.bound_to] += 1

    def remove(self, waiting: Waiting) -> None:
        """Take a segment out. Raises `KeyError` when it does not wait."""
        place = bisect_left(self._ascending, (waiting.tokens, -waiting.key))
        if place == len(self) or self._ascending[place][2].key != waiting.key:
            raise KeyError(waiting.key)
        del self._ascending[place]
        self.tokens -= waiting.tokens
        self.restricted -= bool(waiting.failed_on)
        if waiting.bound_to:
            self.bound[waiting.bound_to] -= 1

    def longest(self, suits: Suits, at_most: float = inf) -> Waiting | None:
        """The longest that suits, of at most so many tokens."""
        start = len(self) if at_most == inf else bisect_right(self._ascending, (at_most, inf))
        return self._first(range(start - 1, -1, -1), suits)

    def shortest(self, suits: Suits) -> Waiting | None:
        """The shortest that suits."""
        return self._first(range(len(self)), suits)

    def at(self, share: float, suits: Suits) -> Waiting | None:
        """One that suits near this share of the way from the shortest to the longest."""
        middle = int(share * len(self))
        shorter = self._first(range(min(middle, len(self) - 1), -1, -1), suits)
        return shorter or self._first(range(middle, len(self)), suits)

    def drain(self) -> list[Waiting]:
        """Remove and return everything."""
        everything = list(self)
        self._ascending.clear()
        self.bound.clear()
        self.tokens = self.restricted = 0
        return everything

    def _first(self, places: range, suits: Suits) -> Waiting | None:
        for place in places:
            waiting = self._ascending[place][2]
            if suits(waiting):
                return waiting
        return None
