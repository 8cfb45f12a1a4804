"""Which host gets a segment.

`pull` binds late: a host's free slot takes the longest segment that waits, and until
then no segment belongs to any host. The others bind a segment to a host when it
arrives, as balancers for open traffic do; they are the baselines of the benchmarks.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tasks.core.settings import PolicyName


@dataclass(frozen=True, slots=True)
class HostView:
    """What a policy may know of a host."""

    url: str
    slots: int
    in_flight: int
    waiting: int
    """Segments already bound to it."""
    takes_requests: bool
    is_lost: bool = False


def bind(
    policy: PolicyName,
    hosts: Sequence[HostView],
    turn: int,
    rng: random.Random,
    failed_on: frozenset[str] = frozenset(),
) -> str | None:
    """The host that a newly arrived segment is bound to; None leaves it to any host.

    `turn` counts the segments bound so far. Lost hosts are passed over while there is
    another, and so are those where the segment failed.
    """
    candidates = [host for host in hosts if not host.is_lost] or list(hosts)
    candidates = [host for host in candidates if host.url not in failed_on] or candidates
    if policy == "pull" or not candidates:
        return None
    if policy == "random":
        return rng.choice(candidates).url
    if policy == "round_robin":
        return candidates[turn % len(candidates)].url
    return min(candidates, key=lambda host: host.in_flight + host.waiting).url


def next_host(hosts: Iterable[HostView]) -> list[str]:
    """Hosts with a free slot, the least loaded first."""
    free = [host for host in hosts if host.takes_requests and host.in_flight < host.slots]
    free.sort(key=lambda host: (host.in_flight / host.slots, -host.slots))
    return [host.url for host in free]


@dataclass(slots=True)
class Waiting:
    """A segment in the queue."""

    key: int
    """Names it; a segment that comes back keeps its key."""
    predicted_tokens: int
    bound_to: str | None = None
    failed_on: frozenset[str] = frozenset()

    @property
    def rank(self) -> tuple[bool, int, int]:
        """What was tried before comes first, then the longest, then the oldest."""
        return (not self.failed_on, -self.predicted_tokens, self.key)


@dataclass(slots=True)
class Queue:
    """Segments that wait for a slot, best first."""

    _heaps: dict[str | None, list[tuple[tuple[bool, int, int], Waiting]]] = field(
        default_factory=dict
    )

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())

    def put(self, waiting: Waiting) -> None:
        """Add a segment."""
        heapq.heappush(self._heaps.setdefault(waiting.bound_to, []), (waiting.rank, waiting))

    def bound_to(self, url: str) -> int:
        """How many segments wait for this host alone."""
        return len(self._heaps.get(url, ()))

    def take(self, url: str, others: frozenset[str]) -> Waiting | None:
        """The segment that a free slot of a host should get, removed from the queue.

        `others` are the other hosts that take requests: a segment that failed on this
        host waits for one of them, if there is one where it has not failed. A segment
        that is bound to this host cannot go to another, so it does not wait.
        """
        heads = [
            (heap[0][0], name) for name, heap in self._heaps.items() if heap and name in (None, url)
        ]
        for _, name in sorted(heads, key=lambda head: head[0]):
            taken = _pop_first(self._heaps[name], lambda item: _suits(item, url, others))
            if taken is not None:
                return taken
        return None

    def unbind(self, url: str) -> list[Waiting]:
        """Remove and return what waits for a host that is gone."""
        return [waiting for _, waiting in self._heaps.pop(url, [])]

    def drain(self) -> list[Waiting]:
        """Remove and return everything."""
        everything = [waiting for heap in self._heaps.values() for _, waiting in heap]
        self._heaps.clear()
        return everything


def _suits(waiting: Waiting, url: str, others: frozenset[str]) -> bool:
    is_bound = waiting.bound_to is not None
    return is_bound or url not in waiting.failed_on or not (others - waiting.failed_on)


def _pop_first(
    heap: list[tuple[tuple[bool, int, int], Waiting]], suits: Callable[[Waiting], bool]
) -> Waiting | None:
    passed_over = []
    found = None
    while heap:
        entry = heapq.heappop(heap)
        if suits(entry[1]):
            found = entry[1]
            break
        passed_over.append(entry)
    for entry in passed_over:
        heapq.heappush(heap, entry)
    return found
