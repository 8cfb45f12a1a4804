"""Slots that a run holds only as long as others let it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.limits.ledger import Unlimited
from tasks.core.limits.local import LocalLedger
from tests.fakes import Dispatching, digest_of, dispatching, segment, serving, times_asked, until

SLOTS = 4
SLOW = Settings(slots=SLOTS, decode_rate=40.0, load_seconds=0.0, prefill_rate=0.0)


class Scripted(Unlimited):
    """A ledger whose share a test sets; it notes what the run asks of it."""

    check_every_s = 0.02

    def __init__(self, share: int, known: int | None = None) -> None:
        super().__init__()
        self.share_now = share
        self.known = known
        self.held = 0
        self.needs: list[int] = []
        self.asked_for: list[int] = []
        self.steps: list[str] = []

    async def claim(self, url: str, slots: int | None) -> None:
        """Note the number."""
        await super().claim(url, slots)
        self.steps.append(f"claim {slots}")

    async def known_slots(self, url: str) -> int | None:
        """What another run claims, or this one."""
        own = await super().known_slots(url)
        return self.known if self.known is not None else own

    async def share(self, url: str, need: int) -> int:  # noqa: ARG002 - one host
        """What the test set."""
        self.needs.append(need)
        return self.share_now

    async def hold(self, url: str, slots: int) -> int:  # noqa: ARG002 - one host
        """All that is asked for."""
        self.asked_for.append(slots)
        self.held = slots
        return slots

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        self.steps.append("alone")
        yield
        self.steps.append("no longer alone")

    def alone(self, url: str) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - one host
        """Note the beginning and the end."""
        return self._alone()


def asks(run: Dispatching, count: int) -> list[asyncio.Task[Reply]]:
    """Ask for so many segments."""
    return [
        asyncio.create_task(run.dispatcher.ask(SegmentWork(segment(f"Le rein {n:03}", str(n)))))
        for n in range(count)
    ]


def place(server: LocalServer, slots: int | None = SLOTS) -> tuple[str, int | None]:
    """Where a server is, and the slots that the run is told."""
    return server.url, slots


async def test_no_more_is_sent_than_is_held() -> None:
    """A run sends what its share allows: less at once when it shrinks, more when it grows."""
    ledger = Scripted(2)
    async with (
        serving(SLOW) as (server,),
        dispatching([place(server)], digest_of(server), ledger=ledger) as run,
    ):
        asked = asks(run, 40)
        await until(lambda: server.stats.in_flight.level == 2)
        await until(lambda: times_asked(server).total() > 6)
        assert server.stats.in_flight.peak == 2
        ledger.share_now = 1
        await until(lambda: ledger.held == 1)
        server.stats.in_flight.reset()
        before = times_asked(server).total()
        await until(lambda: times_asked(server).total() > before + 3)
        assert server.stats.in_flight.peak == 1
        ledger.share_now = SLOTS
        await until(lambda: server.stats.in_flight.level == SLOTS)
        async with asyncio.timeout(60):
            await asyncio.gather(*asked)
        account = run.dispatcher.accounts()[server.url]
    assert server.stats.in_flight.peak == SLOTS
    assert account.limit_wait_slot_seconds > 0
    # What is in use is never given back.
    assert min(ledger.asked_for) >= 1


async def test_the_need_is_told() -> None:
    """A run that has nothing to do needs nothing, and with much to do all slots and no more."""
    ledger = Scripted(SLOTS)
    async with (
        serving(SLOW) as (server,),
        dispatching([place(server)], digest_of(server), ledger=ledger) as run,
    ):
        await until(lambda: len(ledger.needs) > 2)
        assert set(ledger.needs) == {0}
        asked = asks(run, 20)
        await until(lambda: SLOTS in ledger.needs)
        async with asyncio.timeout(60):
            await asyncio.gather(*asked)
        assert max(ledger.needs) == SLOTS
        before = len(ledger.needs)
        await until(lambda: len(ledger.needs) > before + 2)
        assert ledger.needs[-1] == 0


async def test_two_runs_share_a_host(tmp_path: Path) -> None:
    """Two runs at once have no more in flight together than the host has slots; both finish."""
    async with (
        serving(SLOW) as (server,),
        dispatching([place(server)], digest_of(server), ledger=LocalLedger(tmp_path)) as one,
        dispatching([place(server)], digest_of(server), ledger=LocalLedger(tmp_path)) as two,
    ):
        async with asyncio.timeout(60):
            answered = await asyncio.gather(*asks(one, 24), *asks(two, 24))
        accounts = [run.dispatcher.accounts()[server.url] for run in (one, two)]
    assert len(answered) == 48
    assert server.stats.in_flight.peak == SLOTS
    assert sum(account.requests for account in accounts) == 48


async def test_slots_that_nobody_gave_are_found_out() -> None:
    """A burst tells the slots, alone on the host; then the number is claimed and never exceeded."""
    ledger = Scripted(SLOTS)
    async with (
        serving(SLOW) as (server,),
        dispatching([place(server, None)], digest_of(server), ledger=ledger) as run,
    ):
        await until(lambda: run.hosts[0].takes_requests)
        burst = times_asked(server).total()
        server.stats.in_flight.reset()
        async with asyncio.timeout(60):
            await asyncio.gather(*asks(run, 20))
    assert run.told_of(events.SlotsFound) == [events.SlotsFound(server.url, SLOTS, by_burst=True)]
    assert ledger.steps == ["claim None", "alone", f"claim {SLOTS}", "no longer alone"]
    assert burst >= SLOTS
    assert server.stats.in_flight.peak == SLOTS


async def test_what_another_run_found_is_taken_over() -> None:
    """Where another run knows the slots nothing is sent to find them out."""
    ledger = Scripted(3, known=3)
    async with (
        serving(SLOW) as (server,),
        dispatching([place(server, None)], digest_of(server), ledger=ledger) as run,
    ):
        await until(lambda: run.hosts[0].takes_requests)
        assert times_asked(server).total() == 0
        assert run.hosts[0].slots == 3
    assert run.told_of(events.SlotsFound) == [events.SlotsFound(server.url, 3, by_burst=False)]
    assert ledger.steps == ["claim None", "claim 3"]
