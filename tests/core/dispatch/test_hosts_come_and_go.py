"""Hosts that join a run, leave it, come back to it, or have other slots than before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate

import pytest

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import FleetLost
from tasks.core.settings import HostAddress
from tests.fakes import (
    Dispatching,
    digest_of,
    dispatching,
    segment,
    serving,
    times_asked,
    times_asked_in_all,
    until,
)

TWO = Settings(slots=2, slowdown=0.0).instant()
FOUR = Settings(slots=4, slowdown=0.0).instant()
STAND_STILL = {"kind": "hang", "now": True}
GO_ON = {"kind": "slow", "now": True, "factor": 1.0}
Asked = list[asyncio.Task[Reply]]


def texts(count: int) -> list[str]:
    """Different texts of the same length."""
    return [f"Le patient {number:03}" for number in range(count)]


def tell(fault: dict[str, object], *servers: LocalServer) -> None:
    """Have it happen on all of these servers now."""
    for server in servers:
        server.add_faults([fault])


def late(server: LocalServer, slots: int | None) -> Host:
    """A server as a host that joins during the run."""
    return Host(HostClient(HostAddress(server.url)), slots)


def ask_for(run: Dispatching, wanted: list[str]) -> Asked:
    """Ask for all of these texts at once."""
    asks = (run.dispatcher.ask(SegmentWork(segment(text, text))) for text in wanted)
    return [asyncio.create_task(each) for each in asks]


async def held(run: Dispatching, server: LocalServer, wanted: list[str], count: int = 2) -> Asked:
    """Ask for all of these texts at once; the server has so many of them, and stands still."""
    tell(STAND_STILL, server)
    asked = ask_for(run, wanted)
    await until(lambda: server.stats.in_flight.level == count)
    return asked


async def replies_to(asked: Asked, *still: LocalServer) -> list[Reply]:
    """The replies, when these servers go on; one that fails raises, and none may hang."""
    tell(GO_ON, *still)
    async with asyncio.timeout(30):
        return list(await asyncio.gather(*asked))


def in_flight_at_each_request(told: Iterable[events.Event]) -> list[int]:
    """How many requests were out when each of them was sent, itself included."""
    of_requests = [
        each for each in told if isinstance(each, events.RequestSent | events.RequestEnded)
    ]
    steps = [1 if isinstance(each, events.RequestSent) else -1 for each in of_requests]
    return [out for out, step in zip(accumulate(steps), steps, strict=True) if step > 0]


async def test_a_host_that_joins_gets_requests() -> None:
    """A host added during a run fills its slots, and never has more in flight than those."""
    wanted = texts(20)
    async with (
        serving(TWO, FOUR) as (first, second),
        dispatching([(first.url, 2)], digest_of(first), hedge=False) as run,
    ):
        tell(STAND_STILL, second)
        asked = await held(run, first, wanted)
        run.dispatcher.add_host(late(second, 3))
        await until(lambda: second.stats.in_flight.level == 3)
        replies = await replies_to(asked, first, second)
        account = run.dispatcher.accounts()[second.url]
        assert second.stats.in_flight.peak == account.peak_in_flight == account.slots == 3
        assert times_asked_in_all([first, second]) == Counter(wanted)
    assert Counter(reply.sent.host for reply in replies)[second.url] == account.requests >= 3
    assert run.told_of(events.HostJoined) == [events.HostJoined(second.url, 3)]


async def test_a_host_that_joins_without_slots() -> None:
    """The slots of such a host are found out before it gets a request, and never exceeded."""
    wanted = texts(30)
    host = Settings(slots=3, slowdown=0.0, decode_rate=200.0, prefill_rate=0.0, load_seconds=0.0)
    async with (
        serving(TWO, host) as (first, second),
        dispatching([(first.url, 2)], digest_of(first), hedge=False) as run,
    ):
        asked = await held(run, first, wanted)
        run.dispatcher.add_host(late(second, None))
        await until(lambda: bool(run.told_of(events.SlotsFound)))
        second.stats.in_flight.reset()
        await until(lambda: events.RequestSent(second.url) in run.told)
        await replies_to(asked, first)
        account = run.dispatcher.accounts()[second.url]
        assert second.stats.in_flight.peak <= account.slots
        asked_for = times_asked_in_all([first, second])
        assert {text: asked_for[text] for text in wanted} == dict.fromkeys(wanted, 1)
    (found,) = run.told_of(events.SlotsFound)
    assert found == events.SlotsFound(second.url, account.slots, by_burst=True)
    assert 1 <= account.slots <= 3
    assert run.told_of(events.HostJoined) == [events.HostJoined(second.url, None)]
    assert run.told.index(found) < run.told.index(events.RequestSent(second.url))


async def test_a_drained_host_gets_nothing_new() -> None:
    """A drained host gets nothing new; what it has in flight is answered and counted once."""
    wanted = texts(12)
    async with (
        serving(TWO, TWO) as (leaving, staying),
        dispatching([(leaving.url, 2), (staying.url, 2)], digest_of(leaving), hedge=False) as run,
    ):
        tell(STAND_STILL, staying)
        asked = await held(run, leaving, wanted)
        run.dispatcher.drain_host(leaving.url)
        assert run.told_of(events.HostDraining) == [events.HostDraining(leaving.url, 2)]
        tell(GO_ON, staying)
        await until(lambda: sum(each.done() for each in asked) == 10)
        assert run.told_of(events.HostLeft) == []
        replies = await replies_to(asked, leaving)
        await until(lambda: bool(run.told_of(events.HostLeft)))
        account = run.dispatcher.accounts()[leaving.url]
        assert times_asked(leaving).total() == 2
    assert Counter(reply.sent.host for reply in replies) == {leaving.url: 2, staying.url: 10}
    assert (account.requests, account.failures, account.peak_in_flight) == (2, 0, 2)


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_a_drained_host_comes_back(slots: int) -> None:
    """A host that was taken out and is added again serves again, with the slots it has then."""
    async with (
        serving(FOUR, TWO) as (first, second),
        dispatching([(first.url, 2), (second.url, 2)], digest_of(first), hedge=False) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        run.dispatcher.drain_host(first.url)
        await replies_to(ask_for(run, texts(8)))
        assert times_asked(first).total() == 0
        run.dispatcher.add_host(late(first, slots))
        tell(STAND_STILL, second)
        asked = await held(run, first, [f"Le rein {number:03}" for number in range(8)], slots)
        await replies_to(asked, first, second)
        assert first.stats.in_flight.peak == slots
        assert set(times_asked_in_all([first, second]).values()) == {1}


async def test_a_host_that_comes_back_before_it_left() -> None:
    """What it had in flight stands for its slots again: nothing is lost, nothing sent twice."""
    wanted = texts(8)
    async with serving(TWO) as (server,), dispatching([(server.url, 2)], digest_of(server)) as run:
        asked = await held(run, server, wanted)
        run.dispatcher.drain_host(server.url)
        run.dispatcher.add_host(late(server, 2))
        await until(lambda: run.hosts[0].takes_requests)
        await replies_to(asked, server)
        assert times_asked(server) == Counter(wanted)
    assert max(in_flight_at_each_request(run.told)) == 2
    assert run.told_of(events.HostLeft) == []


async def test_the_last_host_is_drained() -> None:
    """What the last host has in flight is answered; who still waits learns that none is left."""
    async with (
        serving(TWO) as (server,),
        dispatching([(server.url, 2)], digest_of(server), fleet_timeout_s=3600.0) as run,
    ):
        asked = await held(run, server, texts(6))
        run.dispatcher.drain_host(server.url)
        assert not any(each.done() for each in asked)
        tell(GO_ON, server)
        async with asyncio.timeout(30):
            ended = await asyncio.gather(*asked, return_exceptions=True)
            with pytest.raises(FleetLost, match="no host is of use in this run"):
                await run.dispatcher.ask(SegmentWork(segment("Le pont")))
        assert times_asked(server).total() == 2
    assert Counter(type(each) for each in ended) == {Reply: 2, FleetLost: 4}


async def test_another_host_joins_before_the_last_one_left() -> None:
    """A run whose only host drains goes on with one that joins meanwhile."""
    wanted = texts(10)
    async with (
        serving(TWO, TWO) as (leaving, joining),
        dispatching([(leaving.url, 2)], digest_of(leaving), hedge=False) as run,
    ):
        asked = await held(run, leaving, wanted)
        run.dispatcher.drain_host(leaving.url)
        run.dispatcher.add_host(late(joining, 2))
        replies = await replies_to(asked, leaving)
        assert times_asked_in_all([leaving, joining]) == Counter(wanted)
    assert Counter(reply.sent.host for reply in replies) == {leaving.url: 2, joining.url: 8}


@pytest.mark.parametrize(("before", "after"), [(4, 1), (4, 3), (1, 4), (2, 3)])
async def test_other_slots_while_requests_are_in_flight(before: int, after: int) -> None:
    """From then on nothing is sent beyond the new number; what is in flight stays."""
    wanted = texts(16)
    async with (
        serving(FOUR) as (server,),
        dispatching([(server.url, before)], digest_of(server)) as run,
    ):
        asked = await held(run, server, wanted, before)
        run.dispatcher.change_slots(server.url, after)
        run.dispatcher.change_slots(server.url, None)
        await until(lambda: server.stats.in_flight.level == max(before, after))
        await replies_to(asked, server)
        assert times_asked(server) == Counter(wanted)
        account = run.dispatcher.accounts()[server.url]
    assert max(in_flight_at_each_request(run.told)[before:]) == after
    assert (account.slots, account.peak_in_flight) == (after, max(before, after))


async def test_slots_that_go_up_and_down() -> None:
    """However often the number changes, each request finds a slot free of those there are then."""
    wanted, changes = texts(60), [4, 1, 3, 2]
    async with serving(FOUR) as (server,), dispatching([(server.url, 2)], digest_of(server)) as run:
        asked, changed_at = ask_for(run, wanted), [(0, 2)]
        for number, slots in enumerate(changes, start=1):
            await asyncio.wait_for(asked[10 * number], 30)
            changed_at.append((len(run.told_of(events.RequestSent)), slots))
            run.dispatcher.change_slots(server.url, slots)
        await replies_to(asked)
        assert times_asked(server) == Counter(wanted)
    levels = in_flight_at_each_request(run.told)
    ends = [*(sent for sent, _ in changed_at[1:]), len(levels)]
    for (begin, slots), end in zip(changed_at, ends, strict=True):
        assert max(levels[begin:end], default=0) <= slots
