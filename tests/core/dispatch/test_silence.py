from __future__ import annotations

import asyncio

import pytest

from deployments.local_ollama import Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.work import SegmentWork
from tasks.core.errors import ErrorKind, RunError
from tasks.core.records import AttemptOutcome
from tasks.core.settings import HostAddress
from tests.fakes import (
    digest_of,
    dispatching,
    prompting,
    segment,
    serving,
    times_asked_in_all,
    until,
)

SLOW = Settings(slots=2, load_seconds=0.0, decode_rate=20.0)
STANDSTILL = {"kind": "hang", "path": "*"}


async def test_a_silent_host_loses_its_requests_to_the_others() -> None:
    """A host that stands still is noticed long before its requests are overdue."""
    texts = [f"Le train {number} est en panne" for number in range(4)]
    async with (
        serving(SLOW, SLOW) as servers,
        dispatching(
            [(server.url, 2) for server in servers], digest_of(servers[0]), listen_every_s=0.2
        ) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        silent = servers[0]
        silent.add_faults([STANDSTILL])
        async with asyncio.timeout(60):
            replies = await asyncio.gather(
                *(run.dispatcher.ask(SegmentWork(segment(text))) for text in texts)
            )
        assert {reply.sent.host for reply in replies} == {servers[1].url}
        assert {event.host for event in run.told if isinstance(event, events.HostDown)} == {
            silent.url
        }
    failed = [record for record in run.records if record.outcome is AttemptOutcome.FAILED]
    assert [(record.host, record.error_kind) for record in failed] == [
        (silent.url, ErrorKind.TIMEOUT),
        (silent.url, ErrorKind.TIMEOUT),
    ]
    assert sorted(times_asked_in_all(servers).values()) == [1, 1, 2, 2]


async def test_a_host_at_work_is_left_alone() -> None:
    """A host that is alive and takes its time for an answer keeps its requests."""
    async with (
        serving(Settings(slots=1, load_seconds=0.0, decode_rate=5.0)) as (server,),
        dispatching([(server.url, 1)], digest_of(server), listen_every_s=0.1) as run,
    ):
        async with asyncio.timeout(60):
            await run.dispatcher.ask(SegmentWork(segment("Le train est en panne a Lyon")))
        assert server.stats.endpoints["/api/version"] > 2
        assert run.told_of(events.HostDown) == []
    assert [record.outcome for record in run.records] == []


async def test_a_silent_fleet_is_lost() -> None:
    """When every host stands still, that is told at once and the run can go on later."""
    async with (
        serving(SLOW) as (server,),
        dispatching(
            [(server.url, 2)], digest_of(server), listen_every_s=0.2, fleet_timeout_s=60.0
        ) as run,
    ):
        await until(lambda: run.hosts[0].takes_requests)
        server.add_faults([STANDSTILL])
        asked = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment("Le pont"))))
        await until(lambda: bool(run.told_of(events.FleetDown)))
        assert not asked.done()
        server.faults.clear()
        async with asyncio.timeout(60):
            reply = await asked
        assert reply.sent.host == server.url
        assert len(run.told_of(events.FleetBack)) == 1


async def test_a_watch_that_ends_by_a_bug_ends_the_run() -> None:
    """A bug in the watch over a host is told, instead of leaving its segments waiting."""

    class Broken(HostClient):
        async def version(self, deadline_s: float = 1.0) -> str:
            raise ZeroDivisionError(f"within {deadline_s} s")

    hosts = [Host(Broken(HostAddress("http://127.0.0.1:9")), 1)]
    dispatcher = Dispatcher(hosts, prompting(), "d", record=lambda _: None)
    async with dispatcher, asyncio.timeout(60):
        with pytest.raises(RunError, match="this is a bug"):
            await dispatcher.ask(SegmentWork(segment("Le pont")))


async def test_a_host_that_stands_still_while_it_loads() -> None:
    """A load is waited for only as long as the server is alive meanwhile."""
    async with (
        serving(Settings(slots=1, load_seconds=60.0)) as (server,),
        dispatching(
            [(server.url, 1)], digest_of(server), listen_every_s=0.2, fleet_timeout_s=60.0
        ) as run,
    ):
        await until(lambda: bool(run.told_of(events.HostLoading)))
        server.add_faults([STANDSTILL])
        await until(lambda: bool(run.told_of(events.FleetDown)))
        assert run.hosts[0].health.is_lost
