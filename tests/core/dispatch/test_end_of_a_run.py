"""The tail of a run: second copies of what takes longest, and what they must not do."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch.sending import SETTLE_S
from tasks.core.dispatch.speed import Speed
from tasks.core.dispatch.work import SegmentWork
from tasks.core.errors import RequestFailed
from tasks.core.records import AttemptOutcome, Purpose
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

QUICK = Settings(slots=2).instant()
HANG = {"kind": "hang", "times": 1, "contains": "patient"}


def place(server: LocalServer) -> tuple[str, int]:
    """Where a server is, and its slots."""
    return server.url, server.settings.slots


def work(text: str = "Le patient") -> SegmentWork:
    """A segment to ask for."""
    return SegmentWork(segment(text, text))


async def asked_of_the_first(run: Dispatching, wanted: SegmentWork) -> asyncio.Task[object]:
    """Have a segment sent to the first host, which is taken to be much faster."""
    await until(lambda: all(host.takes_requests for host in run.hosts))
    for host, tokens_per_s in zip(run.hosts, (1000.0, 900.0), strict=True):
        host.speed = Speed(tokens_per_s, 1.0)
    asked: asyncio.Task[object] = asyncio.create_task(run.dispatcher.ask(wanted))
    await until(lambda: run.hosts[0].in_flight == 1)
    return asked


async def test_an_idle_slot_asks_again_for_what_hangs() -> None:
    """The copy's answer counts; the request that hangs is ended, told as cancelled, and gone."""
    async with (
        serving(QUICK, QUICK, faults={0: [HANG]}) as servers,
        dispatching([place(server) for server in servers], digest_of(servers[0])) as run,
    ):
        wanted = work()
        async with asyncio.timeout(60):
            await (await asked_of_the_first(run, wanted))
        await until(lambda: servers[0].stats.in_flight.level == 0)
        await until(lambda: run.hosts[0].in_flight == 0)
        accounts = run.dispatcher.accounts()
    assert [times_asked(server).total() for server in servers] == [1, 1]
    assert wanted.requests == 2
    ((record,), hedges) = run.records, [account.hedges for account in accounts.values()]
    assert (record.host, record.purpose) == (servers[0].url, Purpose.TRANSLATE)
    assert record.outcome is AttemptOutcome.CANCELLED
    assert hedges == [0, 1]
    assert accounts[servers[0].url].duplicated_slot_seconds >= SETTLE_S


async def test_without_hedging_nothing_is_sent_twice() -> None:
    """With `hedge=False` a slow answer is waited for, however idle the other host is."""
    slow = Settings(slots=1, decode_rate=2.0, load_seconds=0.0, prefill_rate=0.0)
    async with (
        serving(slow, QUICK) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), hedge=False
        ) as run,
    ):
        async with asyncio.timeout(60):
            await (await asked_of_the_first(run, work()))
    assert [times_asked(server).total() for server in servers] == [1, 0]


async def test_no_copies_while_work_is_ahead() -> None:
    """As long as the plan has more to hand over, an idle slot is no reason for a copy."""
    slow = Settings(slots=1, decode_rate=2.0, load_seconds=0.0, prefill_rate=0.0)
    async with (
        serving(slow, QUICK) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), tokens_ahead=500
        ) as run,
    ):
        asked = await asked_of_the_first(run, work())
        await asyncio.sleep(1.1)
        assert times_asked(servers[1]) == Counter()
        run.dispatcher.begun(500)
        async with asyncio.timeout(60):
            await asked
    assert [times_asked(server).total() for server in servers] == [1, 1]


async def test_the_slots_hold_right_after_a_cancelled_copy() -> None:
    """A slot whose request was cancelled is left alone until the server has noticed."""
    async with (
        serving(QUICK, QUICK, faults={0: [{**HANG, "times": 2}]}) as servers,
        dispatching([place(server) for server in servers], digest_of(servers[0])) as run,
    ):
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(run.dispatcher.ask(work(f"Le patient {number}")) for number in range(4))
            )
            await asyncio.gather(
                *(run.dispatcher.ask(work(f"La fin {number:02}")) for number in range(40))
            )
    assert all(server.stats.in_flight.peak <= 2 for server in servers)


async def test_when_the_first_fails_the_copy_counts() -> None:
    """A request that fails while its copy is out is told, and nothing more is sent for it."""
    late = Settings(slots=1, decode_rate=4.0, load_seconds=0.0, prefill_rate=0.0)
    breaks = {"kind": "status", "status": 500, "delay": 0.8, "contains": "patient", "times": 1}
    async with (
        serving(QUICK, late, faults={0: [breaks]}) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), rng=NoJitter()
        ) as run,
    ):
        async with asyncio.timeout(60):
            await (await asked_of_the_first(run, work()))
    assert [times_asked(server).total() for server in servers] == [1, 1]
    assert [record.outcome for record in run.records] == [AttemptOutcome.FAILED]


async def test_whoever_stops_asking_ends_both() -> None:
    """When nobody waits for the answer any more, the request and its copy are both ended."""
    async with (
        serving(QUICK, QUICK, faults={0: [HANG], 1: [HANG]}) as servers,
        dispatching([place(server) for server in servers], digest_of(servers[0])) as run,
    ):
        asked = await asked_of_the_first(run, work())
        await until(lambda: all(server.stats.in_flight.level == 1 for server in servers))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: all(server.stats.in_flight.level == 0 for server in servers))
        await until(lambda: all(host.in_flight == 0 for host in run.hosts))
    purposes = {record.purpose for record in run.records}
    assert purposes == {Purpose.TRANSLATE, Purpose.HEDGE}
    assert {record.outcome for record in run.records} == {AttemptOutcome.CANCELLED}


async def test_a_segment_that_breaks_its_hosts_is_tried_last_and_alone() -> None:
    """In quarantine a segment waits for all others, and has its host to itself."""
    breaks = {"kind": "status", "status": 500, "contains": "cursed"}
    slow = Settings(slots=2, decode_rate=60.0, load_seconds=0.0, prefill_rate=0.0)
    async with (
        serving(slow, slow, faults={0: [breaks], 1: [breaks]}) as servers,
        dispatching(
            [place(server) for server in servers], digest_of(servers[0]), rng=NoJitter()
        ) as run,
    ):
        cursed = asyncio.create_task(run.dispatcher.ask(work("cursed " * 40)))
        others = [run.dispatcher.ask(work(f"Le rein {number:02}")) for number in range(12)]
        async with asyncio.timeout(60):
            await asyncio.gather(*others)
            with pytest.raises(RequestFailed):
                await cursed
    sent = sorted(
        (request for server in servers for request in server.stats.requests),
        key=lambda request: request.started_at,
    )
    assert sum("cursed" in request.text for request in sent) == 3
    assert "cursed" in sent[-1].text
    assert sent[-1].started_at >= max(request.ended_at or 0.0 for request in sent[:-1])
