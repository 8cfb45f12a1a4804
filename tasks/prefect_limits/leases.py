"""Leases on a Prefect server's global concurrency limits, held by one run.

Prefect's own `concurrency()` starts a thread for each block of slots and waits one by one,
as long as the server says; here a denied lease is an answer, and one task renews them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

from tasks.prefect_limits.server import Lease, LimitsServer, ServerAway
from tasks.prefect_limits.shares import to_give_back

RENEW_EVERY_S = 20.0
RENEW_TICK_S = 5.0
SAFE_S = 10.0
"""A lease that ends sooner is not relied on, and left to the server to take back."""
CLOSE_S = 10.0

T = TypeVar("T")


class Leases:
    """All leases of a run; they are renewed until they are given back.

    What was begun is finished though the caller is cancelled: no slot is taken that nobody
    knows of. `on_lost` hears of a lease that the server does not know any more.
    """

    def __init__(
        self,
        server: LimitsServer,
        clock: Callable[[], float],
        on_lost: Callable[[Lease], None],
    ) -> None:
        self._server = server
        self._clock = clock
        self._on_lost = on_lost
        self._held: list[Lease] = []
        self._begun: set[asyncio.Task[Any]] = set()

    def usable(self, name: str) -> int:
        """Slots of a limit that are surely ours for a while."""
        return sum(lease.slots for lease in self._of(name) if self._is_safe(lease))

    def counted(self, name: str) -> int:
        """Slots of a limit that the server counts as ours, as far as we know."""
        return sum(lease.slots for lease in self._of(name))

    def has(self, name: str, slots: int) -> bool:
        """Whether there is a lease of just so many slots."""
        return any(lease.slots == slots for lease in self._of(name))

    async def take(self, name: str, slots: int) -> bool:
        """Take slots under one lease; False when they are not to be had."""
        return await self._surely(self._take(name, slots))

    async def give_back(self, name: str, slots: int) -> None:
        """Give back so many slots, or fewer where whole leases do not make them up."""
        held = self._of(name)
        for place in to_give_back([lease.slots for lease in held], slots):
            await self._end(held[place])

    async def give_back_lease(self, name: str, slots: int) -> None:
        """Give back a lease of just so many slots, if there is one."""
        for lease in [lease for lease in self._of(name) if lease.slots == slots][:1]:
            await self._end(lease)

    def forget_others(self, name: str, limit_id: UUID | None) -> None:
        """Forget leases on a limit that was deleted: they are on nothing."""
        for lease in self._of(name):
            if lease.limit_id != limit_id:
                self._held.remove(lease)

    async def keep_renewing(self) -> None:
        """Renew what is to be renewed, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_TICK_S)
            await self.renew_old()

    async def renew_old(self) -> None:
        """Renew each lease that was not renewed lately."""
        now_s = self._clock()
        old = [lease for lease in self._held if now_s - lease.renewed_at >= RENEW_EVERY_S]
        await asyncio.gather(*map(self._renew, old))

    async def close(self) -> None:
        """Finish what was begun and give everything back; what fails, the server takes back."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*self._begun, return_exceptions=True)
                ends = [self._end(lease) for lease in self._held]
                await asyncio.gather(*ends, return_exceptions=True)

    def _of(self, name: str) -> list[Lease]:
        return [lease for lease in self._held if lease.name == name]

    def _is_safe(self, lease: Lease) -> bool:
        return self._clock() < lease.ends_at - SAFE_S

    async def _take(self, name: str, slots: int) -> bool:
        lease = await self._server.lease(name, slots, self._clock())
        if lease:
            self._held.append(lease)
        return lease is not None

    async def _end(self, lease: Lease) -> None:
        # First, so that no renewal takes the end for a loss.
        self._held.remove(lease)
        # Given back while the server takes it back, it would be counted down twice.
        if self._is_safe(lease):
            await self._surely(self._server.give_back(lease.id))

    async def _renew(self, lease: Lease) -> None:
        now_s = self._clock()
        try:
            is_known = await self._server.renew(lease)
        except ServerAway:
            return
        if is_known:
            lease.renewed_at = now_s
        elif lease in self._held:
            self._held.remove(lease)
            self._on_lost(lease)

    async def _surely(self, call: Coroutine[Any, Any, T]) -> T:
        begun = asyncio.create_task(call)
        self._begun.add(begun)
        begun.add_done_callback(self._ended)
        return await asyncio.shield(begun)

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._begun.discard(call)
        if not call.cancelled():
            # Read, for the case that its caller was cancelled and does not.
            call.exception()
