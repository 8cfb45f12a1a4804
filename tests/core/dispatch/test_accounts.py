"""What the accounts of a run say of its hosts, whatever happened to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import asdict

import pytest

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.speed import Speed
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.settings import HostAddress
from tests.fakes import (
    Dispatching,
    NoJitter,
    digest_of,
    dispatching,
    segment,
    serving,
    times_asked,
    until,
)

BUSY = Settings(slots=2, slowdown=0.0, decode_rate=100.0, prefill_rate=0.0, load_seconds=0.0)
INSTANT = Settings(slots=4).instant()
STAND_STILL = {"kind": "hang", "now": True}
GO_ON = {"kind": "slow", "now": True, "factor": 1.0}
ROUNDED_S = 0.01
"""What rounding each part to milliseconds can come to."""


def texts(count: int, word: str = "patient") -> list[str]:
    """Different texts of the same length."""
    return [f"Le {word} {number:03}" for number in range(count)]


def ask_for(run: Dispatching, wanted: Iterable[str]) -> list[asyncio.Task[Reply]]:
    """Ask for all of these texts at once."""
    asks = (run.dispatcher.ask(SegmentWork(segment(text, text))) for text in wanted)
    return [asyncio.create_task(each) for each in asks]


async def replies_to(asked: list[asyncio.Task[Reply]]) -> list[Reply]:
    """The replies; one that fails raises, and none may hang."""
    async with asyncio.timeout(30):
        return list(await asyncio.gather(*asked))


def slot_seconds(account: HostAccount) -> float:
    """All slot time of a host; no part of it is negative."""
    parts: list[float] = [
        value for name, value in asdict(account).items() if name.endswith("_slot_seconds")
    ]
    assert min(parts) >= 0
    return sum(parts)


def lasted_s(accounts: dict[str, HostAccount]) -> float:
    """From the first request of a run that is over to its last answer, on whichever host."""
    return max(account.last_answer_seconds for account in accounts.values())


def place(server: LocalServer) -> tuple[str, int]:
    """Where a server is, and its slots."""
    return server.url, server.settings.slots


async def test_all_slot_time_is_accounted_for() -> None:
    """After failures, a hedge and a host that went down, each host's parts add up to its slots."""
    breaks = {"kind": "status", "status": 500, "contains": "patient", "times": 2}
    hangs = {"kind": "hang", "contains": "rein", "times": 1}
    goes = {"kind": "refuse", "contains": "patient", "after": 3}
    async with (
        serving(BUSY, BUSY, BUSY, faults={1: [breaks, hangs], 2: [goes]}) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), rng=NoJitter()
        ) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        await replies_to(ask_for(run, texts(24)))
        await until(lambda: run.hosts[1].takes_requests)
        run.hosts[0].speed, run.hosts[1].speed = Speed(900.0, 1.0), Speed(1000.0, 1.0)
        await replies_to(ask_for(run, ["Le rein"]))
        await until(lambda: run.hosts[1].in_flight == 0)
        await replies_to(ask_for(run, texts(8, "foie")))
        accounts = run.dispatcher.accounts()
    well, breaking, down = (accounts[server.url] for server in servers)
    for account in accounts.values():
        assert account.slots == 2
        assert slot_seconds(account) == pytest.approx(2 * lasted_s(accounts), abs=ROUNDED_S)
    assert (breaking.failures, well.failures) == (2, 0)
    assert well.hedges >= 1
    assert breaking.lost_slot_seconds > 0
    assert breaking.duplicated_slot_seconds > 0
    assert down.down_slot_seconds > 0
    assert down.failures == sum(
        record.host == servers[2].url for record in run.records if record.error
    )
    assert down.up[0][1] is not None
    assert well.up == ((0.0, None),)
    assert sum(account.requests for account in accounts.values()) == 33 + len(run.records)


async def test_requests_that_are_still_out() -> None:
    """What is in flight counts as open up to now, also beyond the slots that the host has left."""
    async with (
        serving(INSTANT) as (server,),
        dispatching([place(server)], digest_of(server)) as run,
    ):
        await until(lambda: run.hosts[0].takes_requests)
        server.add_faults([STAND_STILL])
        asked_at = time.monotonic()
        asked = ask_for(run, texts(6))
        await until(lambda: run.hosts[0].in_flight == 4)
        sent_at = time.monotonic()
        run.dispatcher.change_slots(server.url, 1)
        await asyncio.sleep(0.1)
        least_s = time.monotonic() - sent_at
        account = run.dispatcher.accounts()[server.url]
        most_s = time.monotonic() - asked_at
        server.add_faults([GO_ON])
        await replies_to(asked)
        after = run.dispatcher.accounts()[server.url]
    assert 4 * least_s - ROUNDED_S <= account.open_slot_seconds <= 4 * most_s + ROUNDED_S
    assert slot_seconds(account) == pytest.approx(
        account.open_slot_seconds, abs=4 * (most_s - least_s) + ROUNDED_S
    )
    assert (account.slots, account.usable, account.peak_in_flight) == (1, 1, 4)
    assert after.open_slot_seconds == 0
    assert after.busy_slot_seconds >= account.open_slot_seconds


async def test_a_host_that_joined_late() -> None:
    """It counts from the beginning of the run, as loading, with the slots it had at first."""
    loads = Settings(slots=3, load_seconds=0.2, decode_rate=100.0, prefill_rate=0.0)
    async with (
        serving(INSTANT, loads) as (first, late),
        dispatching([place(first)], digest_of(first), hedge=False) as run,
    ):
        first.add_faults([STAND_STILL])
        asked = ask_for(run, texts(16))
        await until(lambda: run.hosts[0].in_flight == 4)
        run.dispatcher.add_host(Host(HostClient(HostAddress(late.url)), 3))
        await until(lambda: late.stats.in_flight.level == 3)
        first.add_faults([GO_ON])
        await replies_to(asked)
        accounts = run.dispatcher.accounts()
    for server in (first, late):
        account = accounts[server.url]
        expected = server.settings.slots * lasted_s(accounts)
        assert slot_seconds(account) == pytest.approx(expected, abs=ROUNDED_S)
    ((up_from, up_to),) = accounts[late.url].up
    assert accounts[late.url].loading_slot_seconds == pytest.approx(3 * up_from, abs=ROUNDED_S)
    assert up_from > 0
    assert up_to is None
    assert accounts[first.url].loading_slot_seconds == 0


async def test_a_host_that_is_taken_out() -> None:
    """Its slots count as down from then on, but for those where requests go on to their end."""
    async with (
        serving(INSTANT, INSTANT) as (leaving, staying),
        dispatching([place(leaving), place(staying)], digest_of(leaving), hedge=False) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        leaving.add_faults([STAND_STILL])
        staying.add_faults([STAND_STILL])
        asked = ask_for(run, texts(4))
        await until(lambda: [host.in_flight for host in run.hosts] == [2, 2])
        run.dispatcher.drain_host(leaving.url)
        drained_at = time.monotonic()
        await asyncio.sleep(0.1)
        least_s = time.monotonic() - drained_at
        leaving.add_faults([GO_ON])
        await until(lambda: bool(run.told_of(events.HostLeft)))
        staying.add_faults([GO_ON])
        await replies_to(asked)
        accounts = run.dispatcher.accounts()
    for account in accounts.values():
        assert slot_seconds(account) == pytest.approx(4 * lasted_s(accounts), abs=ROUNDED_S)
        assert account.requests == 2
    left = accounts[leaving.url]
    # Two requests that went on, and two slots that stood empty.
    assert left.busy_slot_seconds >= 2 * least_s - ROUNDED_S
    assert left.down_slot_seconds >= 2 * least_s - ROUNDED_S
    assert accounts[staying.url].down_slot_seconds == 0


async def test_reloads_are_counted() -> None:
    """An answer that had to wait for the model to be loaded again counts as a reload."""
    async with (
        serving(Settings(slots=1).instant()) as (server,),
        dispatching([place(server)], digest_of(server)) as run,
    ):
        reloads = list[int]()
        for again in (False, True, False):
            if again:
                server.add_faults([{"kind": "loading", "now": True, "seconds": 0.7}])
            await replies_to(ask_for(run, texts(2, f"patient {len(reloads)}")))
            reloads.append(run.dispatcher.accounts()[server.url].reloads)
        assert (server.stats.loads, server.stats.reloads) == (2, 1)
        assert times_asked(server).total() == 6
    assert reloads == [0, 1, 1]


async def test_refused_answers_are_lost_time() -> None:
    """The time of an answer that is not acceptable is lost; it is no failure of the host."""
    async with (
        serving(BUSY) as (server,),
        dispatching([place(server)], digest_of(server)) as run,
    ):
        kept, refused = await replies_to(ask_for(run, texts(2)))
        before = run.dispatcher.accounts()[server.url]
        run.dispatcher.refused(refused)
        after = run.dispatcher.accounts()[server.url]
    took_s = refused.measures.request_wall_ns / 1e9
    assert before.lost_slot_seconds == 0
    assert after.lost_slot_seconds == pytest.approx(took_s, abs=ROUNDED_S)
    assert after.busy_slot_seconds == pytest.approx(
        before.busy_slot_seconds - took_s, abs=ROUNDED_S
    )
    assert slot_seconds(after) == pytest.approx(slot_seconds(before), abs=ROUNDED_S)
    assert (after.requests, after.failures, after.output_tokens) == (2, 0, before.output_tokens)
    speed = kept.measures.output_tokens / after.busy_slot_seconds
    assert after.tokens_per_second == pytest.approx(speed, rel=0.1)
    assert run.records == []
