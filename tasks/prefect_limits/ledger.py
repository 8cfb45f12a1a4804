"""Slots shared by runs on any machine, by global concurrency limits of their Prefect server.

Slots are leased in blocks, about eight for a host and run, which are renewed in the
background. Two calls every two seconds tell a run what others do with a host, however often
it asks; `shares` decides what follows, `hosts` says which limits there are.
More calls are made only when something changes, and none for a request.

When a run is killed, its leases end after a minute, and the server gives its slots to others
within a quarter of a minute more. A run that cannot reach the server keeps what it holds until
its leases end, and takes nothing new.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from prefect.client.orchestration import PrefectClient, get_client

from tasks.core.errors import ConfigurationError
from tasks.core.settings import hide_credentials
from tasks.prefect_limits.hosts import SharedHost
from tasks.prefect_limits.leases import Leases
from tasks.prefect_limits.server import LEASE_S, Lease, LimitsServer, ServerAway, greet

CHECK_EVERY_S = 2.0

_log = logging.getLogger(__name__)


class PrefectLedger:
    """The slots that this run holds on hosts that it shares with runs on any machine.

    The server is that of Prefect's settings where this object is made; the event loop is
    that on which it is entered. `on_note` gets sentences for the user.
    """

    check_every_s = CHECK_EVERY_S

    def __init__(
        self,
        client_factory: Callable[[], PrefectClient] = get_client,
        *,
        on_note: Callable[[str], None] = _log.warning,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client_factory = client_factory
        # Prefect's settings can be those of a context, and the event loop in another thread.
        self._made_in = contextvars.copy_context()
        self._note = on_note
        self._rng = rng or random.Random()  # noqa: S311 - keeps runs out of step
        self._clock = clock
        self._hosts: dict[str, SharedHost] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._is_away = False
        self._told_of_the_end = False
        self._lost_from: set[str] = set()
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect, and begin to renew what will be held.

        Raises `ConfigurationError` when the server cannot be used.
        """
        async with AsyncExitStack() as entered:
            client = self._made_in.run(self._client_factory)
            await entered.enter_async_context(client)
            try:
                await greet(client)
            except ServerAway as away:
                raise ConfigurationError(
                    f"the Prefect server at {hide_credentials(str(client.api_url))} cannot be "
                    f"used to share hosts between runs ({away}); see to it and to "
                    "PREFECT_API_URL, or give --limits local"
                ) from away
            self._server = LimitsServer(client, self._answered)
            self._leases = Leases(self._server, self._clock, self._lost)
            entered.push_async_callback(self._leases.close)
            self._renewing = asyncio.create_task(self._leases.keep_renewing())
            entered.push_async_callback(_stop, self._renewing)
            self._entered = entered.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give everything back; what the server cannot be told of, it takes back by itself."""
        await self._entered.__aexit__(exc_type, exc, traceback)

    async def claim(self, url: str, slots: int | None) -> None:
        """Say how many slots the host has; others hear of it, unless the number is None."""
        async with self._asking_about(url) as host:
            host.claim = slots
            if slots is not None:
                await host.look()

    async def known_slots(self, url: str) -> int | None:
        """The smallest number that any run which is there claims, or that was set by hand."""
        async with self._asking_about(url) as host:
            await host.look()
        return host.slots

    async def share(self, url: str, need: int) -> int:
        """How many slots this run should hold now, as of a look at most `check_every_s` old.

        0 while nobody knows how many there are.
        """
        async with self._asking_about(url) as host:
            await host.look_if_due()
        if self._is_away and need and not host.held:
            self._tell_of_the_end()
        return host.share(need)

    async def hold(self, url: str, slots: int) -> int:
        """Hold so many slots; returns how many of them are held."""
        async with self._asking_about(url) as host:
            await host.hold(slots)
        return min(slots, host.held)

    @asynccontextmanager
    async def alone(self, url: str) -> AsyncIterator[None]:
        """Wait until no other run holds slots of the host; none begins to, meanwhile.

        One run is inside at a time. Where others know the number by then, nothing is left
        to find out: ask `known_slots` inside.
        """
        try:
            while not await self._enter_alone(url):  # noqa: ASYNC110 - the server sends no events
                await asyncio.sleep(self.check_every_s)
            yield
        finally:
            async with self._asking_about(url) as host:
                await host.leave_alone()

    async def _enter_alone(self, url: str) -> bool:
        async with self._asking_about(url) as host:
            if await host.enter_alone():
                return True
        return False

    @asynccontextmanager
    async def _asking_about(self, url: str) -> AsyncIterator[SharedHost]:
        """A host, while nobody else asks; with the server away, what was begun is left."""
        if self._renewing.done():
            # It ends by itself only by an error that nobody thought of.
            self._renewing.result()
        host = self._host(url)
        async with self._locks.setdefault(url, asyncio.Lock()):
            try:
                yield host
            except ServerAway:
                host.ask_no_more()

    def _host(self, url: str) -> SharedHost:
        if url not in self._hosts:
            self._hosts[url] = SharedHost(
                url,
                self._server,
                self._leases,
                look_every_s=self.check_every_s,
                clock=self._clock,
                rng=self._rng,
                tell=self._note,
            )
        return self._hosts[url]

    def _answered(self, away: ServerAway | None) -> None:
        """Tell, once, that the server is away, or there again."""
        if away and not self._is_away:
            self._note(
                f"the Prefect server cannot be used just now ({away}): the run goes on with the "
                f"slots that it holds, whose leases end within {LEASE_S:g} s, and goes on asking"
            )
        elif self._is_away and not away:
            self._note("the Prefect server can be used again")
        self._is_away = away is not None
        if not away:
            self._told_of_the_end = False

    def _tell_of_the_end(self) -> None:
        """Tell, once each time, that a run without leases sends nothing."""
        if not self._told_of_the_end:
            self._told_of_the_end = True
            self._note(
                "the Prefect server cannot be used: this run has no lease left, and sends nothing "
                "until it can"
            )

    def _lost(self, lease: Lease) -> None:
        """Tell, once for a limit, that slots are gone, and what to do."""
        if lease.name in self._lost_from:
            return
        self._lost_from.add(lease.name)
        if self._clock() < lease.ends_at:
            self._note(
                f"the Prefect server has forgotten a lease on {lease.name}, as it does when it "
                "restarts with its leases in memory; the slots stay taken. While no run uses "
                f"them: prefect gcl update {lease.name} --active-slots 0; for the next time, "
                "on the server: PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="
                "prefect.server.concurrency.lease_storage.filesystem"
            )
        else:
            self._note(
                f"the Prefect server took back a lease on {lease.name}, as it did not hear of "
                f"this run for {LEASE_S:g} s; the run asks for it again"
            )


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
