from __future__ import annotations

import asyncio
import dataclasses

import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.store import asked_model
from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.health import HostState
from tasks.core.dispatch.work import SegmentWork
from tasks.core.errors import FleetLost
from tests.fakes import (
    PROBE,
    NoJitter,
    digest_of,
    dispatching,
    segment,
    serving,
    times_asked,
    until,
)

INSTANT = Settings(slots=2).instant()


def place(server: LocalServer) -> tuple[str, int]:
    """Where a server is, and its slots."""
    return server.url, server.settings.slots


async def ask_many(dispatcher: Dispatcher, count: int = 20) -> list[object]:
    """Ask for some texts; what failed comes back as its error."""
    async with asyncio.timeout(60):
        asked = (
            dispatcher.ask(SegmentWork(segment(f"Le patient {number}"))) for number in range(count)
        )
        return list(await asyncio.gather(*asked, return_exceptions=True))


def errors_in(ended: list[object]) -> list[object]:
    """Those that are errors."""
    return [one for one in ended if isinstance(one, BaseException)]


async def test_a_host_comes_up() -> None:
    """A host is asked, loaded once and up, before anything is sent; nothing proves itself twice."""
    async with (
        serving(INSTANT) as (server,),
        dispatching([place(server)], digest_of(server)) as run,
    ):
        assert errors_in(await ask_many(run.dispatcher)) == []
        assert run.hosts[0].version == "0.33.0-simulated"
    assert [event for event in run.told if not isinstance(event, events.RequestSent)][:2] == [
        events.HostLoading(server.url),
        events.HostUp(server.url, 2),
    ]
    assert server.stats.loads == 1
    assert server.stats.reloads == 0
    assert PROBE not in {request.text for request in server.stats.requests}


async def test_a_slow_load_is_not_down() -> None:
    """A host that takes its time to load is waited for, and work begins where it can."""
    async with (
        serving(INSTANT, Settings(slots=2, load_seconds=1.0)) as servers,
        dispatching([place(server) for server in servers], digest_of(servers[0])) as run,
    ):
        assert errors_in(await ask_many(run.dispatcher)) == []
        assert run.hosts[1].health.state is HostState.LOADING
        await until(lambda: run.hosts[1].takes_requests)
        assert times_asked(servers[1]).total() == 0
    assert run.told_of(events.HostDown) == []


async def test_a_load_that_takes_too_long() -> None:
    """A host that does not load in the time it has is down."""
    async with (
        serving(INSTANT, Settings(load_seconds=60)) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), load_timeout_s=0.2
        ) as run,
    ):
        assert errors_in(await ask_many(run.dispatcher)) == []
        await until(lambda: bool(run.told_of(events.HostDown)))
    (down,) = run.told_of(events.HostDown)
    assert isinstance(down, events.HostDown)
    assert down.host == servers[1].url
    assert "no answer within" in down.reason


async def test_a_full_queue_in_front_of_the_load() -> None:
    """A load refused with 503 is asked for again; the host is not taken for down."""
    fault = {"kind": "status", "status": 503, "path": "/api/chat", "times": 1}
    async with (
        serving(INSTANT, faults={0: [fault]}) as (server,),
        dispatching([place(server)], digest_of(server), rng=NoJitter()) as run,
    ):
        assert errors_in(await ask_many(run.dispatcher, 3)) == []
    assert run.told_of(events.HostDown) == []
    assert server.stats.faults["status"] == 1
    assert run.records == []


async def test_a_host_that_answers_everything_but_texts() -> None:
    """A host that was down has to generate something before it gets requests again."""
    fault = {"kind": "status", "status": 500}
    async with (
        serving(INSTANT, INSTANT, faults={0: [fault]}) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), rng=NoJitter()
        ) as run,
    ):
        assert errors_in(await ask_many(run.dispatcher, 30)) == []

        def probes() -> int:
            return sum(request.text == PROBE for request in servers[0].stats.requests)

        await until(lambda: probes() >= 2)
        ups = [event for event in run.told_of(events.HostUp) if event.host == servers[0].url]  # type: ignore[union-attr]
        assert len(ups) == 1
        before = times_asked(servers[0]).total()
        assert errors_in(await ask_many(run.dispatcher, 10)) == []
        assert times_asked(servers[0]).total() == before
        servers[0].faults.clear()
        await until(lambda: run.hosts[0].takes_requests)
    assert before >= 3


async def test_other_weights_under_the_same_name() -> None:
    """A host whose model has another digest is left, before it translates anything."""
    async with serving(INSTANT, INSTANT) as servers:
        model = asked_model(servers[1].store, servers[1].settings.model)
        servers[1].store.put(dataclasses.replace(model, digest="f" * 64))
        async with dispatching([place(server) for server in servers], digest_of(servers[0])) as run:
            assert errors_in(await ask_many(run.dispatcher)) == []
            await until(lambda: bool(run.told_of(events.HostLeft)))
        (left,) = run.told_of(events.HostLeft)
        assert isinstance(left, events.HostLeft)
        assert left.host == servers[1].url
        assert "ffffffffffff, not " in left.reason
        assert times_asked(servers[1]).total() == 0


async def test_a_model_that_goes_away() -> None:
    """A host that loses the model in the middle is probed, found without it, and left."""
    fault = {"kind": "status", "status": 404, "contains": "patient", "after": 3, "times": 2}
    async with serving(INSTANT, INSTANT, faults={0: [fault]}) as servers:
        tags = {"kind": "status", "status": 200, "body": {"models": []}, "path": "/api/tags"}
        servers[0].add_faults([{**tags, "after": 1}])
        async with dispatching([place(server) for server in servers], digest_of(servers[0])) as run:
            assert errors_in(await ask_many(run.dispatcher, 30)) == []
            await until(lambda: run.hosts[0].health.state is HostState.GONE)
        (left,) = run.told_of(events.HostLeft)
        assert isinstance(left, events.HostLeft)
        assert "it has no model at all" in left.reason


async def test_no_host_of_any_use() -> None:
    """When every host is left there is nothing to wait for."""
    async with (
        serving(INSTANT) as (server,),
        dispatching([place(server)], "0" * 64, fleet_timeout_s=3600) as run,
    ):
        ended = await ask_many(run.dispatcher, 3)
        assert [type(error) for error in ended] == [FleetLost] * 3
        with pytest.raises(FleetLost):
            await run.dispatcher.ask(SegmentWork(segment("another")))
    assert "no host is of use in this run" in str(ended[0])
    assert run.told_of(events.FleetDown) == []
    assert times_asked(server).total() == 0


async def test_the_fleet_is_lost() -> None:
    """With all hosts gone the run is told at once, waits its time, and then gives up."""
    fault = {"kind": "refuse", "after": 3}
    async with (
        serving(INSTANT, INSTANT, faults={0: [fault], 1: [fault]}) as servers,
        dispatching(
            [place(server) for server in servers],
            digest_of(servers[0]),
            fleet_timeout_s=0.4,
            rng=NoJitter(),
        ) as run,
    ):
        ended = await ask_many(run.dispatcher, 30)
        with pytest.raises(FleetLost):
            await run.dispatcher.ask(SegmentWork(segment("another")))
    errors = errors_in(ended)
    assert {type(error) for error in errors} == {FleetLost}
    assert len(ended) - len(errors) == 6
    assert "all hosts were lost" in str(errors[0])
    assert all(server.url in str(errors[0]) for server in servers)
    (down,) = run.told_of(events.FleetDown)
    assert isinstance(down, events.FleetDown)
    assert down.timeout_s == 0.4
    assert len(down.reasons) == 2
    assert run.told_of(events.FleetBack) == []


async def test_the_fleet_comes_back() -> None:
    """A host that comes back in time ends the wait, and everything is answered."""
    fault = {"kind": "refuse", "after": 3, "times": 1, "seconds": 0.6}
    async with (
        serving(INSTANT, faults={0: [fault]}) as (server,),
        dispatching([place(server)], digest_of(server), fleet_timeout_s=60, rng=NoJitter()) as run,
    ):
        ended = await ask_many(run.dispatcher, 30)
        # The timer of the lost fleet is over with its loss.
        assert run.dispatcher._fleet._timer is not None
        assert run.dispatcher._fleet._timer.cancelled()
    assert errors_in(ended) == []
    assert run.told_of(events.FleetBack) == [events.FleetBack(server.url)]
    assert len(run.told_of(events.FleetDown)) == 1
    kinds = [type(event) for event in run.told]
    assert kinds.index(events.FleetDown) < kinds.index(events.FleetBack)


async def test_a_host_that_is_loading_when_the_time_is_over() -> None:
    """The run does not give up while a host that came back is loading the model."""
    fault = {"kind": "refuse", "after": 2, "times": 1, "seconds": 0.1}
    async with (
        serving(INSTANT, faults={0: [fault]}) as (server,),
        dispatching([place(server)], digest_of(server), fleet_timeout_s=1.0, rng=NoJitter()) as run,
    ):
        asked = asyncio.create_task(ask_many(run.dispatcher, 10))
        await until(lambda: bool(run.told_of(events.FleetDown)))
        server.add_faults([{"kind": "loading", "now": True, "seconds": 2.2}])
        ended = await asked
    assert errors_in(ended) == []
    assert run.told_of(events.FleetBack) == [events.FleetBack(server.url)]
