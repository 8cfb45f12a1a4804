"""Brings hosts up, keeps watch over them, and says when none is left."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from tasks.core.dispatch import events
from tasks.core.dispatch.health import HostState
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.survey import full_model_name, missing_model
from tasks.core.errors import ErrorKind, FleetLost, RequestFailed
from tasks.core.translate.profiles import Prompting

PROVE_TIMEOUT_S = 30.0
BUSY_PAUSE_S = 2.0

LISTEN_EVERY_S = 5.0
MOST_MISSED = 2
"""Questions in a row without an answer after which a host is silent: within 20 s."""


class HostOfNoUse(Exception):
    """A host answered, and cannot take part in this run."""


class Fleet:
    """The hosts of a run and the tasks that bring each one up, again and again.

    Calls `on_change` when the state of a host has changed, `on_silence` when requests are
    in flight to a host that is no longer there, and `on_lost` once, when every host has
    been lost for `fleet_timeout_s` seconds.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        prompting: Prompting,
        model_digest: str,
        *,
        fleet_timeout_s: float,
        load_timeout_s: float,
        observe: events.Observer,
        rng: random.Random,
        on_change: Callable[[], None],
        on_silence: Callable[[Host, RequestFailed], None],
        on_lost: Callable[[FleetLost], None],
        listen_every_s: float = LISTEN_EVERY_S,
    ) -> None:
        self._hosts = hosts
        self._prompting = prompting
        self._model_digest = model_digest
        self._fleet_timeout_s = fleet_timeout_s
        self._load_timeout_s = load_timeout_s
        self._observe = observe
        self._rng = rng
        self._on_change = on_change
        self._on_silence = on_silence
        self._on_lost = on_lost
        self._listen_every_s = listen_every_s
        self._keepers: list[asyncio.Task[None]] = []
        self._lost_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to bring every host up."""
        for host in self._hosts:
            host.needs_attention.set()
            for watch in (self._keep(host), self._listen(host)):
                keeper = asyncio.create_task(watch)
                keeper.add_done_callback(self._watch_ended)
                self._keepers.append(keeper)

    async def stop(self) -> None:
        """Leave the hosts alone."""
        if self._timer:
            self._timer.cancel()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def _watch_ended(self, keeper: asyncio.Task[None]) -> None:
        """A host that nobody watches would be lost for good: that ends the run, loudly."""
        if not keeper.cancelled() and (bug := keeper.exception()):
            error = FleetLost(
                f"the watch over a host ended: {bug!r}; this is a bug, please report it"
            )
            error.__cause__ = bug
            self._on_lost(error)

    def request_failed(self, host: Host, failure: RequestFailed) -> None:
        """Take note of a failed request; the host may go down by it."""
        before = host.health
        host.health = before.after_fault(
            failure.kind, failure.message, time.monotonic(), self._rng.random()
        )
        if host.health.state is not before.state:
            self._changed(host)
            host.needs_attention.set()

    async def _keep(self, host: Host) -> None:
        while host.health.state is not HostState.LEFT:
            await host.needs_attention.wait()
            host.needs_attention.clear()
            while host.health.state not in (HostState.UP, HostState.LEFT):
                await asyncio.sleep(max(0.0, host.health.retry_at - time.monotonic()))
                await self._bring_up(host)

    async def _listen(self, host: Host) -> None:
        """Notice a host that has gone silent, long before its requests are overdue.

        A machine that lost its network or stands still breaks no connection. What is
        asked is whether the server is alive; that it generates is shown by its answers.
        """
        missed, every_s = 0, self._listen_every_s
        while True:
            await asyncio.sleep(every_s)
            silent_s = time.monotonic() - host.heard_at
            if not (host.takes_requests and host.in_flight and silent_s >= every_s):
                missed = 0
                continue
            try:
                await host.client.version(every_s)
            except RequestFailed as failure:
                missed += 1
                if missed == MOST_MISSED and host.takes_requests:
                    host.health = host.health.down(
                        failure.message, time.monotonic(), self._rng.random()
                    )
                    # What was sent this very moment has to begin before it can be ended.
                    await asyncio.sleep(0)
                    self._on_silence(host, failure)
                    self._changed(host)
                    host.needs_attention.set()
            else:
                missed = 0

    async def _bring_up(self, host: Host) -> None:
        """One try: ask for the version, check the model, load it, and have it prove itself."""
        is_first = host.health.state is HostState.STARTING
        try:
            host.version = await host.client.version()
            await self._check_model(host)
            if host.health.state in (HostState.STARTING, HostState.DOWN):
                host.health = host.health.loading()
                self._changed(host)
            await self._load(host)
            if not is_first:
                await self._prove(host)
        except HostOfNoUse as reason:
            host.health = host.health.left(str(reason))
        except RequestFailed as failure:
            host.health = host.health.down(failure.message, time.monotonic(), self._rng.random())
        else:
            host.health = host.health.loaded()
        self._changed(host)

    async def _check_model(self, host: Host) -> None:
        digests = await host.client.model_digests()
        digest = digests.get(full_model_name(self._prompting.model))
        if digest is None:
            raise HostOfNoUse(missing_model(host.url, self._prompting.model, digests))
        if digest != self._model_digest:
            raise HostOfNoUse(
                f"{host.url} has other weights under the name {self._prompting.model} "
                f"({digest[:12]}, not {self._model_digest[:12]})"
            )

    async def _load(self, host: Host) -> None:
        """Load the model, as long as the server is alive meanwhile."""
        load = asyncio.create_task(self._load_in_time(host))
        missed = 0
        try:
            while not (await asyncio.wait({load}, timeout=self._listen_every_s))[0]:
                try:
                    await host.client.version(self._listen_every_s)
                except RequestFailed:
                    missed += 1
                    if missed == MOST_MISSED:
                        raise
                else:
                    missed = 0
            await load
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)

    async def _load_in_time(self, host: Host) -> None:
        """Load the model; a full queue in front of it means waiting longer."""
        prompting, until = self._prompting, time.monotonic() + self._load_timeout_s
        while True:
            try:
                await host.client.load(
                    prompting.model, prompting.options, max(1.0, until - time.monotonic())
                )
            except RequestFailed as failure:
                if failure.kind is not ErrorKind.BUSY or time.monotonic() > until:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S * (0.5 + 0.5 * self._rng.random()))
            else:
                return

    async def _prove(self, host: Host) -> None:
        while host.in_flight >= host.slots:
            host.slot_freed.clear()
            await host.slot_freed.wait()
        host.occupy(time.monotonic())
        try:
            prompting = self._prompting
            await host.client.prove(
                prompting.model, prompting.options, prompting.profile.think, PROVE_TIMEOUT_S
            )
        finally:
            host.release(time.monotonic())

    def _changed(self, host: Host) -> None:
        self._announce(host)
        self._on_change()
        self._watch(host)

    def _announce(self, host: Host) -> None:
        health = host.health
        match health.state:
            case HostState.UP:
                self._observe(events.HostUp(host.url, host.slots))
            case HostState.LOADING:
                self._observe(events.HostLoading(host.url))
            case HostState.SUSPECT:
                self._observe(events.HostSuspect(host.url, health.reason))
            case HostState.DOWN:
                wait_s = max(0.0, health.retry_at - time.monotonic())
                self._observe(events.HostDown(host.url, health.reason, wait_s))
            case HostState.LEFT:
                self._observe(events.HostLeft(host.url, health.reason))
            case HostState.STARTING:
                raise AssertionError(f"{host.url} went back to its start")

    def _watch(self, host: Host) -> None:
        """Start, or end, the time that the run waits for a lost fleet."""
        if all(host.health.state is HostState.LEFT for host in self._hosts):
            if self._timer:
                self._timer.cancel()
            self._on_lost(
                FleetLost(
                    "no host is of use in this run: "
                    + "; ".join(self._reasons())
                    + ". What is finished is kept: correct that, then give the same command again"
                )
            )
        elif self._lost_at is not None and host.takes_requests:
            self._lost_at = None
            if self._timer:
                self._timer.cancel()
            self._observe(events.FleetBack(host.url))
        elif self._lost_at is None and all(host.health.is_lost for host in self._hosts):
            self._lost_at = time.monotonic()
            self._observe(events.FleetDown(self._reasons(), self._fleet_timeout_s))
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._fleet_timeout_s, self._give_up)

    def _give_up(self) -> None:
        """The time is over; but a host that is loading by now is waited for."""
        if all(host.health.is_lost for host in self._hosts):
            lost_s = time.monotonic() - (self._lost_at or 0.0)
            self._on_lost(
                FleetLost(
                    f"all hosts were lost and none came back within {lost_s:.0f} s: "
                    + "; ".join(self._reasons())
                    + ". What is finished is kept: give the same command again when they are back"
                )
            )
        else:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._give_up)

    def _reasons(self) -> tuple[str, ...]:
        return tuple(host.health.reason for host in self._hosts if host.health.reason)
