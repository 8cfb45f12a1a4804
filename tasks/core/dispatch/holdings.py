"""Keeps what a run holds of each host's slots in line with its work and with other runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from tasks.core.dispatch.host import Host
from tasks.core.limits.ledger import SlotLedger


class Holdings:
    """One watch a host: asks the ledger for the run's share and obeys it.

    `need` says for how many slots of a host there is work now. A host's `usable` slots are
    lowered before any are given back, so what others get is never in use; `on_change` is
    called after they were raised.
    """

    def __init__(
        self,
        ledger: SlotLedger,
        need: Callable[[Host], int],
        on_change: Callable[[], None],
        on_bug: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._ledger = ledger
        self._need = need
        self._on_change = on_change
        self._on_bug = on_bug
        self._watches: dict[str, asyncio.Task[None]] = {}

    def start(self, host: Host) -> None:
        """Begin to hold slots of a host whose number is known by now."""
        if host.url not in self._watches:
            watch = asyncio.create_task(self._watch(host))
            watch.add_done_callback(self._on_bug)
            self._watches[host.url] = watch

    def claim_again(self, host: Host) -> None:
        """The number of a host's slots has changed."""
        host.claim_changes = True
        host.holding_changes.set()

    async def stop(self) -> None:
        """Leave everything as it is; the ledger gives back at its own end."""
        for watch in self._watches.values():
            watch.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)

    def look_again(self, hosts: Iterable[Host]) -> None:
        """Something changed: work came, or a request ended that a slot to give back waited for."""
        for host in hosts:
            host.holding_changes.set()

    async def _watch(self, host: Host) -> None:
        while True:
            host.holding_changes.clear()
            await self._settle(host)
            try:
                async with asyncio.timeout(self._ledger.check_every_s):
                    await host.holding_changes.wait()
            except TimeoutError:
                continue

    async def _settle(self, host: Host) -> None:
        if host.claim_changes:
            host.claim_changes = False
            await self._ledger.claim(host.url, host.slots)
        share = await self._ledger.share(host.url, self._need(host))
        # Lowered first: between here and the answer nothing more is sent than may stay.
        host.use(min(host.usable, share), time.monotonic())
        host.held = await self._ledger.hold(host.url, max(share, host.in_flight))
        if host.health.is_leaving and not host.held:
            await self._ledger.claim(host.url, None)  # what it has binds nobody else any more
            host.claim_changes = not host.health.is_leaving
        before = host.usable
        host.use(min(share, host.held), time.monotonic())
        if host.usable > before:
            self._on_change()
