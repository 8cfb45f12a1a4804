"""The time that no schedule can beat."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Capacity:
    """Slots, and how much work each does per second, from when on (seconds, the first 0)."""

    slots: int
    speeds: tuple[tuple[float, float], ...]

    def speed_at(self, at_s: float) -> float:
        """Of one slot."""
        return next(speed for since_s, speed in reversed(self.speeds) if since_s <= at_s)


def lower_bound_s(work: Sequence[float], hosts: Sequence[Capacity]) -> float:
    """Seconds that any schedule needs, also one that knows all of this beforehand.

    Each answer is made in one slot at a time. So, for every j, the j longest answers take
    at least as long as the j fastest slots of each moment need for their sum; and all
    answers as long as all slots need. Where speeds do not change, the largest of these is
    the optimal makespan with preemption (Horvath, Lam and Sethi 1977). Infinite when the
    hosts never do all the work; 0 when there is none.
    """
    longest = sorted((each for each in work if each > 0), reverse=True)
    if not longest:
        return 0.0
    slots = sum(host.slots for host in hosts)
    heads = list(accumulate(longest))
    amounts = {count: heads[count - 1] for count in range(1, min(slots, len(longest) + 1))}
    amounts[slots] = heads[-1]
    return max(_done_after_s(amount, count, hosts) for count, amount in amounts.items())


def _done_after_s(amount: float, slots: int, hosts: Sequence[Capacity]) -> float:
    """When so many slots, the fastest of each moment, have done so much work."""
    for since_s, until_s, speed in _fastest(slots, hosts):
        if speed and since_s + amount / speed <= until_s:
            return since_s + amount / speed
        amount -= speed * (until_s - since_s) if speed else 0.0
    return math.inf


def _fastest(slots: int, hosts: Sequence[Capacity]) -> Iterator[tuple[float, float, float]]:
    """From when, until when, how fast: the so many fastest slots, together."""
    starts = sorted({since_s for host in hosts for since_s, _ in host.speeds})
    for since_s, until_s in zip(starts, [*starts[1:], math.inf], strict=True):
        speeds = sorted(
            (host.speed_at(since_s) for host in hosts for _ in range(host.slots)), reverse=True
        )
        yield since_s, until_s, sum(speeds[:slots])
