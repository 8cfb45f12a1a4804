from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

import pytest

from tasks.core.limits.ledger import AllOf, SlotLedger, Unlimited
from tests.core.limits.runs import URL, files_in, new_run


class Refuses(Unlimited):
    """A ledger that cannot take part."""

    async def __aenter__(self) -> Self:
        """Refuse."""
        raise OSError("no")


async def test_unlimited() -> None:
    """A run that has its hosts to itself gets whatever it asks for."""
    async with Unlimited() as ledger, ledger.alone(URL):
        assert await ledger.known_slots(URL) is None
        assert await ledger.share(URL, 3) == 0
        await ledger.claim(URL, 4)
        assert await ledger.known_slots(URL) == 4
        assert await ledger.share(URL, 3) == 4
        assert await ledger.hold(URL, 3) == 3


@pytest.mark.parametrize("is_first_tighter", [True, False])
async def test_all_of_holds_the_least(tmp_path: Path, *, is_first_tighter: bool) -> None:
    """Held is what each ledger grants; what one does not grant, no other one keeps from others."""
    names = ["tight", "wide"] if is_first_tighter else ["wide", "tight"]
    both = AllOf(*(new_run(tmp_path / name) for name in names))
    async with (
        both,
        new_run(tmp_path / "tight") as other_in_tight,
        new_run(tmp_path / "wide") as other_in_wide,
    ):
        await both.claim(URL, 4)
        await other_in_tight.hold(URL, 3)
        assert await both.known_slots(URL) == 4
        assert await both.hold(URL, 4) == 1
        assert await other_in_wide.hold(URL, 4) == 3
        assert await both.hold(URL, 0) == 0
        assert await other_in_tight.hold(URL, 4) == 4


async def test_all_of_knows_the_smallest(tmp_path: Path) -> None:
    """The smallest number and the smallest share of any ledger are the whole's."""
    async with (
        AllOf(new_run(tmp_path / "a"), new_run(tmp_path / "b"), Unlimited()) as all_of,
        new_run(tmp_path / "b") as other,
    ):
        assert await all_of.known_slots(URL) is None
        await other.claim(URL, 2)
        assert await all_of.known_slots(URL) == 2
        await all_of.claim(URL, 4)
        await other.share(URL, 9)
        assert await all_of.known_slots(URL) == 2
        assert await all_of.share(URL, 9) == 1


async def test_all_of_is_alone_in_each(tmp_path: Path) -> None:
    """Alone is who is alone in every ledger."""
    all_of = AllOf(new_run(tmp_path / "a"), new_run(tmp_path / "b"))
    async with all_of, new_run(tmp_path / "b") as other:

        async def enter() -> None:
            async with all_of.alone(URL):
                pass

        async with other.alone(URL):
            entering = asyncio.create_task(enter())
            await asyncio.sleep(0.05)
            assert not entering.done()
        await entering


async def test_all_of_begins_and_ends_together(tmp_path: Path) -> None:
    """Leaving gives back everywhere; where one ledger refuses, none is left entered."""
    async with AllOf(new_run(tmp_path / "a"), new_run(tmp_path / "b")) as all_of:
        await all_of.claim(URL, 4)
        assert files_in(tmp_path) == [".claim", ".claim", "gate", "gate"]
    assert files_in(tmp_path) == ["gate", "gate"]
    with pytest.raises(OSError, match="no"):
        await AllOf(new_run(tmp_path / "a"), Refuses()).__aenter__()


def test_all_of_checks_as_often_as_any(tmp_path: Path) -> None:
    """Nobody waits longer for a share because there is a second ledger."""
    ledgers: list[SlotLedger] = [Unlimited(), new_run(tmp_path)]
    assert AllOf(*ledgers).check_every_s == 0.005
