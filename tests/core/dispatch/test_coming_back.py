"""Hosts that failed: how they come back, and what becomes of the requests they had."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate

import pytest

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.health import HostState
from tasks.core.dispatch.retry import Tries
from tasks.core.dispatch.speed import Speed
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import ErrorKind, FleetLost
from tasks.core.records import AttemptOutcome
from tests.fakes import (
    PROBE,
    Dispatching,
    NoJitter,
    digest_of,
    dispatching,
    segment,
    serving,
    times_asked,
    until,
)

FOUR = Settings(slots=4, slowdown=0.0).instant()
STAND_STILL = {"kind": "hang", "now": True}
GO_ON = {"kind": "slow", "now": True, "factor": 1.0}
NO_MODEL = {"kind": "status", "status": 404, "contains": "odd", "times": 1}
"""Makes its host suspect at once."""
NO_LIST = {"kind": "hang", "path": "/api/tags"}
"""Keeps a host that is suspect from proving itself."""
OTHERS_PASS = {"kind": "slow", "contains": "patient", "factor": 1.0}
"""Put before a fault that is meant for probes alone."""


class AllJitter(random.Random):
    """A generator for delays that draws nearly the longest."""

    def random(self) -> float:
        """As long as it gets."""
        return 0.999


def texts(count: int) -> list[str]:
    """Different texts of the same length."""
    return [f"Le patient {number:03}" for number in range(count)]


def works(wanted: Iterable[str]) -> list[SegmentWork]:
    """A segment to ask for, of each text."""
    return [SegmentWork(segment(text, text)) for text in wanted]


def ask_for(run: Dispatching, wanted: Iterable[SegmentWork]) -> list[asyncio.Task[Reply]]:
    """Ask for all of these segments at once."""
    return [asyncio.create_task(run.dispatcher.ask(work)) for work in wanted]


def probes(server: LocalServer) -> int:
    """How often a server was asked to prove itself."""
    return sum(request.text == PROBE for request in server.stats.requests)


def in_flight_at_each_request(told: Iterable[events.Event]) -> list[int]:
    """How many requests were out when each of them was sent, itself included."""
    of_requests = [e for e in told if isinstance(e, events.RequestSent | events.RequestEnded)]
    steps = [1 if isinstance(each, events.RequestSent) else -1 for each in of_requests]
    return [out for out, step in zip(accumulate(steps), steps, strict=True) if step > 0]


async def test_a_host_that_was_down_is_led_slowly() -> None:
    """It proves itself first; then it gets one request, and one more at once for each answer."""
    wanted = texts(24)
    slow_probe = {"kind": "slow", "delay": 0.3, "factor": 1.0}
    async with (
        serving(FOUR, faults={0: [OTHERS_PASS, slow_probe]}) as (server,),
        dispatching([(server.url, 4)], digest_of(server), rng=NoJitter()) as run,
    ):
        server.add_faults([STAND_STILL])
        asked = ask_for(run, works(wanted))
        await until(lambda: server.stats.in_flight.level == 4)
        server.refuse(None)
        await until(lambda: bool(run.told_of(events.HostDown)))
        server.add_faults([GO_ON])
        server.refuse(0.0)
        await until(lambda: run.hosts[0].health.state is HostState.HALF_OPEN)
        await until(lambda: probes(server) == 1)
        assert times_asked(server).total() == 4
        async with asyncio.timeout(30):
            await asyncio.gather(*asked)
        # What was in flight when the connections broke was asked for once more, all else once.
        assert sorted(times_asked(server).values()) == [1] * 20 + [2] * 4
        assert run.dispatcher.accounts()[server.url].peak_in_flight == 4
    back_at = len(run.told) - 1 - run.told[::-1].index(events.HostUp(server.url, 4))
    after = run.told[back_at:]
    assert [type(event) for event in run.told_of(events.HostUp)] == [events.HostUp] * 2
    assert probes(server) == 1
    answers, levels = 0, in_flight_at_each_request(after)
    for event in after:
        if isinstance(event, events.RequestSent):
            assert levels.pop(0) <= 1 + answers
        elif isinstance(event, events.RequestEnded):
            answers += 1
    assert max(in_flight_at_each_request(after)) == 4


async def test_a_suspect_that_fails_its_proof() -> None:
    """What it has in flight goes to another host, at no cost in tries."""
    odd, *patients = wanted = works(["Le plan odd", *texts(2)])
    hang = {"kind": "hang", "contains": "patient"}
    broken = {"kind": "status", "status": 500}
    async with (
        serving(FOUR, FOUR, faults={0: [NO_MODEL, hang, broken]}) as (bad, good),
        dispatching(
            [(bad.url, 4), (good.url, 4)], digest_of(bad), rng=NoJitter(), hedge=False
        ) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        run.hosts[0].speed, run.hosts[1].speed = Speed(1000.0, 1.0), Speed(900.0, 1.0)
        asked = ask_for(run, wanted)
        async with asyncio.timeout(30):
            replies = await asyncio.gather(*asked)
        assert probes(bad) == 1
        assert (
            times_asked(bad) == times_asked(good) == Counter(work.segment.text for work in wanted)
        )
    assert {reply.sent.host for reply in replies} == {good.url}
    assert [work.tries for work in wanted] == [Tries(unheard=1)] * 3
    assert odd.failed_on == {bad.url}
    assert not any(work.failed_on for work in patients)
    kinds = {record.report_id: record.error_kind for record in run.records}
    assert kinds.pop("Le plan odd") is ErrorKind.NOT_FOUND
    assert list(kinds.values()) == [ErrorKind.SERVER_ERROR] * 2
    assert {record.outcome for record in run.records} == {AttemptOutcome.FAILED}
    of_bad = [event for event in run.told if getattr(event, "host", "") == bad.url]
    states = [event for event in of_bad if isinstance(event, events.HostSuspect | events.HostDown)]
    assert [type(event) for event in states][:2] == [events.HostSuspect, events.HostDown]


async def test_a_suspect_that_proves_itself() -> None:
    """It keeps what it has in flight, and is not led slowly: it has all its slots again."""
    patients = works(texts(3))
    late = {"kind": "slow", "contains": "patient", "delay": 0.5, "factor": 1.0, "times": 3}
    async with (
        serving(FOUR, faults={0: [NO_MODEL, late]}) as (server,),
        dispatching([(server.url, 4)], digest_of(server), rng=NoJitter()) as run,
    ):
        asked = ask_for(run, [*patients, *works(["odd"])])
        await until(lambda: len(run.told_of(events.HostUp)) == 2)
        assert run.hosts[0].health.at_once is None
        async with asyncio.timeout(30):
            await asyncio.gather(*asked)
        assert probes(server) == 1
        assert times_asked(server) == Counter({**dict.fromkeys(texts(3), 1), "odd": 2})
    assert [work.tries for work in patients] == [Tries()] * 3
    assert len(run.told_of(events.HostSuspect)) == 1
    assert run.told_of(events.HostDown) == []


async def test_the_last_host_is_suspect() -> None:
    """It gets its requests one at a time rather than none, for as long as it is suspect."""
    wanted = texts(10)
    async with (
        serving(FOUR) as (server,),
        dispatching([(server.url, 4)], digest_of(server), rng=NoJitter()) as run,
    ):
        await until(lambda: run.hosts[0].takes_requests)
        server.add_faults([NO_LIST, NO_MODEL])
        asked = ask_for(run, works(["odd"]))
        await until(lambda: bool(run.told_of(events.HostSuspect)))
        asked += ask_for(run, works(wanted))
        async with asyncio.timeout(30):
            replies = await asyncio.gather(*asked)
        assert run.hosts[0].health.state is HostState.SUSPECT
        assert times_asked(server) == Counter({**dict.fromkeys(wanted, 1), "odd": 2})
        assert probes(server) == 0
    assert len(replies) == 11
    assert in_flight_at_each_request(run.told) == [1] * 12
    assert len(run.told_of(events.HostUp)) == 1


async def test_a_suspect_beside_a_host_that_is_well() -> None:
    """A suspect that is not the last host gets nothing at all."""
    async with (
        serving(FOUR, FOUR) as (bad, good),
        dispatching([(bad.url, 4), (good.url, 4)], digest_of(bad), rng=NoJitter()) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        run.hosts[0].speed, run.hosts[1].speed = Speed(1000.0, 1.0), Speed(900.0, 1.0)
        bad.add_faults([NO_LIST, NO_MODEL])
        async with asyncio.timeout(30):
            await asyncio.gather(*ask_for(run, works(["odd"])))
            await asyncio.gather(*ask_for(run, works(texts(20))))
        assert run.hosts[0].health.state is HostState.SUSPECT
        assert (times_asked(bad).total(), times_asked(good).total()) == (1, 21)


async def test_a_fleet_that_stays_away() -> None:
    """Whoever waits for any host when the time is over gets `FleetLost`, wherever it stood."""
    broken = {"kind": "status", "status": 500, "contains": "odd"}
    async with (
        serving(FOUR, FOUR, faults={0: [broken], 1: [broken]}) as servers,
        dispatching(
            [(server.url, 2) for server in servers],
            digest_of(servers[0]),
            fleet_timeout_s=0.3,
            rng=AllJitter(),
        ) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        asked = ask_for(run, works(["odd"]))
        await until(lambda: len(run.records) == 1)  # waits for its next attempt
        for server in servers:
            server.add_faults([STAND_STILL])
        asked += ask_for(run, works(texts(12)))
        await until(lambda: sum(server.stats.in_flight.level for server in servers) == 4)
        for server in servers:
            server.refuse(None)
        async with asyncio.timeout(30):
            ended = await asyncio.gather(*asked, return_exceptions=True)
            with pytest.raises(FleetLost, match="none came back"):
                await run.dispatcher.ask(SegmentWork(segment("Le pont")))
        heard = sum((times_asked(server) for server in servers), Counter[str]())
    assert [type(each) for each in ended] == [FleetLost] * 13
    assert len({str(each) for each in ended}) == 1
    del heard["odd"]
    assert list(heard.values()) == [1] * 4
    assert len(run.told_of(events.FleetDown)) == 1
