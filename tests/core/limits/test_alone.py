from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasks.core.limits.ledger import SlotLedger
from tasks.core.limits.local import LocalLedger
from tests.core.limits.runs import URL, eventually, new_run, other_process


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalLedger]:
    """A run."""
    async with new_run(tmp_path) as ledger:
        yield ledger


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[LocalLedger]:
    """Another run on the same machine."""
    async with new_run(tmp_path) as ledger:
        yield ledger


async def is_alone(ledger: SlotLedger, leave: asyncio.Event, entered: asyncio.Event) -> None:
    """Be alone with the host from `entered` until `leave`."""
    async with ledger.alone(URL):
        entered.set()
        await leave.wait()


async def test_one_at_a_time(one: LocalLedger, two: LocalLedger) -> None:
    """Of two runs that find out a host's slots, one waits, and then finds the number known."""
    found: list[str] = []

    async def find_out(ledger: LocalLedger) -> None:
        async with ledger.alone(URL):
            if await ledger.known_slots(URL) is None:
                found.append("begins")
                await asyncio.sleep(0.05)
                await ledger.claim(URL, 4)
                await ledger.hold(URL, 4)
                found.append("ends")

    await asyncio.gather(find_out(one), find_out(two), find_out(two))
    assert found == ["begins", "ends"]
    assert await one.known_slots(URL) == 4


async def test_others_do_not_begin(one: LocalLedger, two: LocalLedger) -> None:
    """A run that knows the number has to wait until the other has found it out, too."""
    async with one.alone(URL):
        await two.claim(URL, 4)
        await two.share(URL, 4)
        assert await two.hold(URL, 4) == 0
        await one.claim(URL, 3)
        assert await two.hold(URL, 4) == 0
        assert await one.hold(URL, 1) == 1
    assert await two.hold(URL, 4) == 2


async def test_waits_for_what_others_hold(
    tmp_path: Path, one: LocalLedger, two: LocalLedger
) -> None:
    """Slots that are held on the word of a run that is gone are waited for, and not added to."""
    async with new_run(tmp_path) as gone:
        await gone.claim(URL, 4)
        assert await two.hold(URL, 2) == 2
    entered, leave = asyncio.Event(), asyncio.Event()
    alone = asyncio.create_task(is_alone(one, leave, entered))
    assert await two.share(URL, 9) == 0
    for held in (2, 1):
        await two.hold(URL, held)
        await asyncio.sleep(0.05)
        assert not entered.is_set()
    await two.hold(URL, 0)
    await entered.wait()
    leave.set()
    await alone


async def test_known_number_is_not_waited_for(one: LocalLedger, two: LocalLedger) -> None:
    """Where a live run knows the number, nothing is left to find out, and nobody stands still."""
    await two.claim(URL, 4)
    await two.hold(URL, 2)
    async with one.alone(URL):
        assert await one.known_slots(URL) == 4
        assert await two.hold(URL, 3) == 3


async def test_number_that_becomes_known_ends_the_waiting(
    tmp_path: Path, one: LocalLedger, two: LocalLedger
) -> None:
    """Who waited to be alone holds nobody up any longer."""
    async with new_run(tmp_path) as gone:
        await gone.claim(URL, 4)
        await two.hold(URL, 2)
    entered, leave = asyncio.Event(), asyncio.Event()
    alone = asyncio.create_task(is_alone(one, leave, entered))
    await asyncio.sleep(0.05)
    assert not entered.is_set()
    await two.claim(URL, 4)
    await entered.wait()
    assert await two.hold(URL, 4) == 4
    leave.set()
    await alone


async def test_giving_up(one: LocalLedger, two: LocalLedger) -> None:
    """A run that stops waiting, inside or outside, is in nobody's way."""
    entered, never = asyncio.Event(), asyncio.Event()
    inside = asyncio.create_task(is_alone(one, never, entered))
    await entered.wait()
    waiting = asyncio.create_task(is_alone(two, never, asyncio.Event()))
    await asyncio.sleep(0.05)
    for task in (waiting, inside):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with two.alone(URL):
        pass
    await two.claim(URL, 2)
    assert await two.hold(URL, 2) == 2


BE_ALONE = """
async def main():
    async with LocalLedger(folder) as ledger, ledger.alone(url):
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_dies_with_its_holder(tmp_path: Path, one: LocalLedger) -> None:
    """Who was alone when it was killed keeps nobody out."""
    await one.claim(URL, 4)
    with other_process(BE_ALONE, tmp_path) as child:
        assert await one.hold(URL, 4) == 4  # a known number: the other did not have to be alone
        await one.hold(URL, 0)
        child.kill()
        child.wait()
    await one.claim(URL, None)
    with other_process(BE_ALONE, tmp_path) as child:
        await one.claim(URL, 4)
        assert await one.hold(URL, 4) == 0
        entered, leave = asyncio.Event(), asyncio.Event()
        alone = asyncio.create_task(is_alone(one, leave, entered))
        await asyncio.sleep(0.05)
        assert not entered.is_set()
        child.kill()
        child.wait()
        await entered.wait()
        leave.set()
        await alone
    await eventually(lambda: one.hold(URL, 4), 4)
