from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch.discovery import Discovered, discover_slots
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.overlap import (
    FIRST_REQUESTS,
    MOST_REQUESTS,
    TURNS,
    TURNS_IN_DOUBT,
)
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.settings import HostAddress
from tests.fakes import MODEL, prompting, serving, until

SOME_TIME = Settings(
    load_seconds=0.0, decode_rate=250.0, prefill_rate=8000.0, slowdown=0.05, jitter=0.2
)
"""An answer of `ANSWER_TOKENS` takes about 0.12 s."""


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
