"""How many of a host's slots this run may use, when other runs use the host, too.

Slots are held over many requests, never taken one request at a time: what the limit costs
does not grow with the number of reports. A run holds what is its share, gives back what
others need as its requests end, and takes what others leave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Protocol, Self


class SlotLedger(Protocol):
    """Who holds how many slots of which host; one object for each run, on one event loop.

    Used as an async context manager; leaving it gives everything back. Hosts are named by
    their normalised URL.
    """

    check_every_s: float
    """How often `share` is worth asking."""

    async def __aenter__(self) -> Self:
        """Begin to take part."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give everything back."""
        ...

    async def claim(self, url: str, slots: int | None) -> None:
        """Say how many slots the host has; None when this run does not know yet.

        May be called again, with another number.
        """
        ...

    async def known_slots(self, url: str) -> int | None:
        """The smallest number that any run which is alive claims; None when none knows."""
        ...

    async def share(self, url: str, need: int) -> int:
        """How many slots this run should hold now, when it has work for `need` of them.

        Never more than `known_slots`. What others do not need is nobody's loss: the share is
        then at least what this run holds already.
        """
        ...

    async def hold(self, url: str, slots: int) -> int:
        """Hold so many slots; returns how many are held: fewer when others hold them.

        Giving back always succeeds; the caller never asks for fewer than it has in use.
        """
        ...

    def alone(self, url: str) -> AbstractAsyncContextManager[None]:
        """Nobody else finds out the host's slots, or begins to hold any, meanwhile."""
        ...


class Unlimited:
    """The ledger of a run that has its hosts to itself."""

    check_every_s = 3600.0

    def __init__(self) -> None:
        self._claims: dict[str, int | None] = {}

    async def __aenter__(self) -> Self:
        """Nothing to begin."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to give back."""

    async def claim(self, url: str, slots: int | None) -> None:
        """Remember the number."""
        self._claims[url] = slots

    async def known_slots(self, url: str) -> int | None:
        """The number of this run."""
        return self._claims.get(url)

    async def share(self, url: str, need: int) -> int:  # noqa: ARG002 - all of it, always
        """All slots."""
        return self._claims.get(url) or 0

    async def hold(self, url: str, slots: int) -> int:  # noqa: ARG002
        """As many as wanted."""
        return slots

    def alone(self, url: str) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """There is nobody else."""
        return nullcontext()


class AllOf:
    """Several ledgers as one: a slot is held when it is held in each of them."""

    def __init__(self, *ledgers: SlotLedger) -> None:
        self._ledgers: Sequence[SlotLedger] = ledgers
        self._entered = AsyncExitStack()
        self.check_every_s = min(ledger.check_every_s for ledger in ledgers)

    async def __aenter__(self) -> Self:
        """Begin to take part in each; in none when one refuses."""
        async with AsyncExitStack() as entered:
            for ledger in self._ledgers:
                await entered.enter_async_context(ledger)
            self._entered = entered.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give everything back, also where giving back to another ledger fails."""
        await self._entered.__aexit__(exc_type, exc, traceback)

    async def claim(self, url: str, slots: int | None) -> None:
        """Say it in each."""
        for ledger in self._ledgers:
            await ledger.claim(url, slots)

    async def known_slots(self, url: str) -> int | None:
        """The smallest number known in any."""
        known = [await ledger.known_slots(url) for ledger in self._ledgers]
        return min((slots for slots in known if slots is not None), default=None)

    async def share(self, url: str, need: int) -> int:
        """The smallest share."""
        return min([await ledger.share(url, need) for ledger in self._ledgers])

    async def hold(self, url: str, slots: int) -> int:
        """Hold what each grants; what a later one does not, the earlier ones get back."""
        held = slots
        for ledger in self._ledgers:
            held = await ledger.hold(url, held)
        for ledger in self._ledgers[:-1]:
            await ledger.hold(url, held)
        return held

    @asynccontextmanager
    async def alone(self, url: str) -> AsyncIterator[None]:
        """Alone in each; all runs ask in the same order, so none waits for another in vain."""
        async with AsyncExitStack() as stack:
            for ledger in self._ledgers:
                await stack.enter_async_context(ledger.alone(url))
            yield
