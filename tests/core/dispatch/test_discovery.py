from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch.discovery import ANSWER_TOKENS, Discovered, discover_slots
from tasks.core.dispatch.host_client import HostClient
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
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import Measures
from tasks.core.settings import HostAddress
from tests.fakes import MODEL, prompting, serving, until

SERVICE_S = 0.4
SLOTS = st.integers(min_value=1, max_value=16)
SEEDS = st.integers(min_value=0, max_value=1_000_000)
SOME_TIME = Settings(
    load_seconds=0.0, decode_rate=250.0, prefill_rate=8000.0, slowdown=0.05, jitter=0.2
)
"""An answer of `ANSWER_TOKENS` takes about 0.12 s."""


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


def with_slots(slots: int) -> Settings:
    """A server with so many slots whose answers take some time."""
    return replace(SOME_TIME, slots=slots)


@asynccontextmanager
async def client_of(server: LocalServer) -> AsyncIterator[HostClient]:
    """A client of a server that has the model loaded."""
    client = HostClient(HostAddress(server.url))
    await client.load(MODEL, prompting().options, 10.0)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def another_client(server: LocalServer, requests: int) -> AsyncIterator[None]:
    """Somebody who has so many requests of different lengths in flight all the time."""
    rng, client, prompts = random.Random(requests), HostClient(HostAddress(server.url)), prompting()

    async def ask_on() -> None:
        while True:
            text = "le patient " * rng.randint(3, 40)
            await client.chat(MODEL, prompts.messages(text), prompts.options, False, 60.0)  # noqa: FBT003 - think

    tasks = [asyncio.create_task(ask_on()) for _ in range(requests)]
    try:
        await asyncio.sleep(0.2)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()


async def discovered(of_settings: Settings, others: int = 0) -> Discovered:
    """What is found out about a server."""
    async with serving(of_settings) as (server,), client_of(server) as client:
        async with another_client(server, others):
            found = await discover_slots(client, prompting())
        assert server.stats.loads == 1
        assert server.stats.running.peak <= of_settings.slots
    return found


@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16])
async def test_a_server_of_ones_own(slots: int) -> None:
    """Every slot of a real server is found, and its model is not loaded anew."""
    started = time.monotonic()
    found = await discovered(with_slots(slots))
    assert found.slots == slots
    assert slots * TURNS <= found.requests <= MOST_REQUESTS
    assert found.tokens_per_s is not None
    assert 60 < found.tokens_per_s < 320
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("slots", "others"), [(1, 2), (2, 1), (4, 2), (8, 3)])
async def test_a_server_that_somebody_else_uses(slots: int, others: int) -> None:
    """While another client is at work, the slots are found to within one."""
    found = await discovered(with_slots(slots), others)
    assert abs(found.slots - slots) <= 1


async def test_an_instant_server() -> None:
    """Where answers take no time there is an end, and a result one can work with."""
    found = await discovered(with_slots(4).instant())
    assert 1 <= found.slots <= 4
    assert found.requests <= TURNS_IN_DOUBT * 4


async def test_some_requests_may_fail() -> None:
    """Requests that fail are samples less, not slots less."""
    some = {"kind": "status", "status": 500, "every": 4}
    async with serving(with_slots(4), faults={0: [some]}) as (server,), client_of(server) as client:
        assert (await discover_slots(client, prompting())).slots == 4
        assert server.stats.outcomes["failed"] >= 4


async def test_a_host_that_fails() -> None:
    """When most requests fail, the reason is what comes out of it."""
    broken = {"kind": "status", "status": 500}
    async with (
        serving(with_slots(2), faults={0: [broken]}) as (server,),
        client_of(server) as client,
    ):
        with pytest.raises(RequestFailed) as raised:
            await discover_slots(client, prompting())
        assert raised.value.kind is ErrorKind.SERVER_ERROR
        assert server.stats.received == FIRST_REQUESTS


async def test_a_host_that_hangs() -> None:
    """Each request has its deadline."""
    hang = {"kind": "hang"}
    async with serving(with_slots(2), faults={0: [hang]}) as (server,), client_of(server) as client:
        with pytest.raises(RequestFailed) as raised:
            await discover_slots(client, prompting(), deadline_s=0.2)
        assert raised.value.kind is ErrorKind.TIMEOUT


async def test_giving_up_leaves_nothing_behind() -> None:
    """Whoever stops waiting for the result takes all requests back."""
    async with serving(with_slots(2)) as (server,), client_of(server) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await discover_slots(client, prompting())
        await until(lambda: server.stats.in_flight.level == 0, 5.0)
