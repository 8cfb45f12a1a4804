"""The bound is what can be worked out by hand, and no schedule beats it."""

from __future__ import annotations

import math
import random

import pytest

from tests.bench.bound import Capacity, lower_bound_s


def steady(slots: int, speed: float) -> Capacity:
    """A host whose speed never changes."""
    return Capacity(slots, ((0.0, speed),))


@pytest.mark.parametrize(
    ("work", "hosts", "seconds"),
    [
        pytest.param([], [steady(1, 1.0)], 0.0, id="no work"),
        pytest.param([2.0] * 8, [steady(2, 1.0), steady(2, 3.0)], 2.0, id="all slots, all busy"),
        pytest.param([9.0, 1.0], [steady(4, 3.0)], 3.0, id="longest answer, fastest slot"),
        pytest.param([9.0, 9.0], [steady(1, 2.0), steady(3, 1.0)], 6.0, id="two longest"),
        pytest.param([5.0], [steady(1, 1.0), steady(1, 5.0)], 1.0, id="fewer answers than slots"),
        pytest.param(
            [1.0] * 12, [steady(1, 1.0), Capacity(1, ((0.0, 2.0), (2.0, 0.0)))], 8.0, id="one dies"
        ),
        pytest.param(
            [1.0] * 12, [steady(1, 1.0), Capacity(1, ((0.0, 4.0), (2.0, 1.0)))], 3.0, id="one slows"
        ),
        pytest.param(
            [1.0] * 12, [steady(1, 1.0), Capacity(1, ((0.0, 0.0), (2.0, 4.0)))], 4.0, id="one joins"
        ),
        pytest.param(
            [10.0], [steady(1, 1.0), Capacity(1, ((0.0, 0.0), (2.0, 4.0)))], 4.0,
            id="the longest may move to the host that joins",
        ),
        pytest.param([9.0], [Capacity(2, ((0.0, 1.0), (8.0, 0.0)))], math.inf, id="never done"),
    ],
)  # fmt: skip
def test_by_hand(work: list[float], hosts: list[Capacity], seconds: float) -> None:
    """Small cases."""
    assert lower_bound_s(work, hosts) == pytest.approx(seconds)


@pytest.mark.parametrize("seed", range(40))
def test_no_schedule_is_faster(seed: int) -> None:
    """Longest first, each to the slot that ends it soonest, never takes less than the bound."""
    rng = random.Random(seed)
    work = [rng.lognormvariate(0, 1) for _ in range(rng.randint(1, 40))]
    hosts = [steady(rng.randint(1, 4), rng.choice((1.0, 2.0, 6.0))) for _ in range(3)]
    speeds = [host.speed_at(0.0) for host in hosts for _ in range(host.slots)]
    free_at = [0.0] * len(speeds)
    for each in sorted(work, reverse=True):
        best = min(range(len(speeds)), key=lambda slot: free_at[slot] + each / speeds[slot])
        free_at[best] += each / speeds[best]
    bound_s = lower_bound_s(work, hosts)
    assert bound_s <= max(free_at) * (1 + 1e-9)
    assert max(free_at) <= 2 * bound_s


def test_losing_a_host_costs_no_less_than_having_it() -> None:
    """The bound grows with what goes wrong, and the earlier the more."""
    work = [1.0 + at % 7 for at in range(100)]
    steady_s = lower_bound_s(work, [steady(4, 1.0), steady(4, 2.0)])
    dying_s = [
        lower_bound_s(work, [steady(4, 1.0), Capacity(4, ((0.0, 2.0), (at_s, 0.0)))])
        for at_s in (1.0, 10.0, 1000.0)
    ]
    assert dying_s[0] > dying_s[1] > dying_s[2] == steady_s
