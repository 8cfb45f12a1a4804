from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.dispatch.discovery import ANSWER_TOKENS
from tasks.core.dispatch.overlap import (
    FIRST_REQUESTS,
    MOST_REQUESTS,
    TURNS,
    TURNS_IN_DOUBT,
    Timed,
    count_slots,
    is_shared,
    requests_wanted,
    tokens_per_s,
)
from tasks.core.records import Measures

SERVICE_S = 0.4
SLOTS = st.integers(min_value=1, max_value=16)
SEEDS = st.integers(min_value=0, max_value=1_000_000)


def timed(
    sent_at_s: float,
    arrived_at_s: float,
    service_s: float,
    wait_s: float = 0.0,
    output_tokens: int = ANSWER_TOKENS,
) -> Timed:
    """An answer; a tenth of its service went into the prompt."""
    prompt_ns, eval_ns = round(service_s * 1e8), round(service_s * 9e8)
    return Timed(
        sent_at_s,
        arrived_at_s,
        Measures(
            output_tokens=output_tokens,
            total_duration_ns=round(wait_s * 1e9) + prompt_ns + eval_ns,
            prompt_eval_duration_ns=prompt_ns,
            eval_duration_ns=eval_ns,
        ),
    )


def burst(
    slots: int,
    requests: int,
    rng: random.Random,
    *,
    others_s: Sequence[float] = (),
    spread: float = 0.05,
    late_s: float = 0.0,
    way_s: float = 0.0,
) -> list[Timed]:
    """What is seen of requests sent at once to a server that gives its slots out in order.

    `others_s` are the seconds for which requests of another client, who was first, have
    slots. Every request and answer is `way_s` on its way, and up to `late_s` more.
    """
    free_at = [0.0] * slots
    for seconds in others_s:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    seen = []
    for arrived_at in sorted(way_s + late_s * rng.random() for _ in range(requests)):
        began_at = max(arrived_at, free_at[0])
        service_s = SERVICE_S * (1 + spread * (2 * rng.random() - 1))
        heapq.heapreplace(free_at, began_at + service_s)
        back_at = began_at + service_s + way_s + late_s * rng.random()
        seen.append(timed(0.0, back_at, service_s, began_at - arrived_at))
    return seen


@settings(deadline=None)
@given(SLOTS, SEEDS, st.floats(min_value=0, max_value=0.5), st.floats(min_value=0, max_value=10))
def test_slots_are_counted_exactly(slots: int, seed: int, spread: float, way_s: float) -> None:
    """The count is that of the slots, however far the host and however uneven the answers."""
    rng = random.Random(seed)
    seen = burst(slots, slots * TURNS, rng, spread=spread, way_s=way_s)
    assert count_slots(seen) == slots


@settings(deadline=None)
@given(SLOTS, SEEDS, st.floats(min_value=0, max_value=0.1))
def test_a_client_that_is_late(slots: int, seed: int, late_share: float) -> None:
    """Clocks that are read late by up to a tenth of an answer's time make no difference."""
    rng = random.Random(seed)
    assert count_slots(burst(slots, slots * TURNS, rng, late_s=late_share * SERVICE_S)) == slots


@settings(deadline=None)
@given(
    SLOTS, SEEDS, st.lists(st.floats(min_value=0, max_value=6 * SERVICE_S), min_size=1, max_size=3)
)
def test_other_clients_do_not_hide_slots(slots: int, seed: int, others_s: list[float]) -> None:
    """Slots that others held are counted when they get free while ours are waiting."""
    rng = random.Random(seed)
    seen = burst(slots, slots * TURNS_IN_DOUBT, rng, others_s=others_s, late_s=0.01)
    assert count_slots(seen) == slots


def test_slots_that_others_never_leave() -> None:
    """What is counted is what can be used: three of eight are taken for the whole time."""
    assert count_slots(burst(8, 48, random.Random(1), others_s=[60.0] * 3)) == 5


def test_one_after_another_is_one() -> None:
    """Answers that only touch, or overlap by how late they were read, were not at once."""
    seen = [timed(0.0, 0.4 * turn + 0.01 * (turn % 2), 0.4, 0.4 * (turn - 1)) for turn in (1, 2, 3)]
    assert count_slots(seen) == 1


def test_nothing_can_be_told() -> None:
    """Without answers, or with answers that took no time, there is one slot."""
    assert count_slots([]) == 1
    assert count_slots([timed(0.0, 0.001 * number, 0.0) for number in range(9)]) == 1
    assert count_slots([timed(0.0, 0.02 + 0.01 * number, 1e-9) for number in range(9)]) == 1


@settings(deadline=None)
@given(
    st.lists(
        st.builds(timed, *[st.floats(min_value=-100, max_value=100)] * 2, st.floats(0, 10)),
        max_size=40,
    )
)
def test_whatever_a_server_reports(answers: list[Timed]) -> None:
    """No answers lead to a count out of range, nor to requests without end."""
    assert 1 <= count_slots(answers) <= max(1, len(answers))
    assert 1 <= requests_wanted(answers) <= MOST_REQUESTS


def test_others_are_noticed_by_waits_beside_free_slots() -> None:
    """Requests that wait although fewer run than did at most have waited for somebody else."""
    rng = random.Random(1)
    assert not is_shared(burst(4, 24, rng), 4)
    assert not is_shared(burst(4, 4, rng), 4)
    assert is_shared(burst(4, 24, rng, others_s=[2.0, 2.0, 2.0]), 4)
    assert is_shared(burst(1, 4, rng, others_s=[2.0]), 1)


def test_how_many_requests_it_takes() -> None:
    """A few to begin with, then some for each slot seen; more where it is hard to see."""
    rng = random.Random(1)
    assert requests_wanted([]) == FIRST_REQUESTS
    assert requests_wanted(burst(1, 4, rng)) == TURNS
    assert requests_wanted(burst(4, 4, rng)) == 4 * TURNS
    assert requests_wanted(burst(4, 24, rng, others_s=[2.0] * 3)) == 4 * TURNS_IN_DOUBT
    assert requests_wanted([timed(0.0, 0.01 * turn, 0.01) for turn in range(4)]) == TURNS_IN_DOUBT
    assert requests_wanted(burst(64, 64, rng)) == MOST_REQUESTS


def test_the_speed_of_a_slot() -> None:
    """Tokens over the time they were generated in, without that of the prompt."""
    assert tokens_per_s([timed(0.0, 1.0, 1.0, output_tokens=18)] * 3) == pytest.approx(20.0)
    assert tokens_per_s([timed(0.0, 1.0, 0.0)]) is None
    assert tokens_per_s([]) is None
