"""The hosts of a run: keeps watch over them, and says when none is left.

What a host goes through to come up stands in `bringing_up`, what its state means in
`health`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable

from tasks.core.dispatch import events
from tasks.core.dispatch.bringing_up import MOST_MISSED, BringingUp, HostOfNoUse
from tasks.core.dispatch.health import Health, HostState
from tasks.core.dispatch.host import Host
from tasks.core.errors import FleetLost, ReportTranslationError, RequestFailed, RunError

LISTEN_EVERY_S = 5.0
_NEEDS_NOTHING = frozenset({HostState.CLOSED, HostState.DRAINING, HostState.GONE})


class Fleet:
    """The hosts of a run and the tasks that bring each one up, again and again.

    Calls `on_change` when the state of a host has changed, `on_silence` when requests are
    in flight to a host that is no longer there, and `on_lost` when every host has been lost
    for `fleet_timeout_s` seconds, or when the run cannot go on for another reason.
    """

    def __init__(
        self,
        bringing_up: BringingUp,
        *,
        fleet_timeout_s: float,
        observe: events.Observer,
        rng: random.Random,
        on_change: Callable[[Host], None],
        on_silence: Callable[[Host, RequestFailed], None],
        on_lost: Callable[[RunError], None],
        listen_every_s: float = LISTEN_EVERY_S,
    ) -> None:
        self._bringing_up = bringing_up
        self._hosts: dict[str, Host] = {}
        self._fleet_timeout_s = fleet_timeout_s
        self._observe = observe
        self._rng = rng
        self._on_change = on_change
        self._on_silence = on_silence
        self._on_lost = on_lost
        self._listen_every_s = listen_every_s
        self._keepers: list[asyncio.Task[None]] = []
        self._down_for: dict[str, str] = {}
        """The reason that was told for each host that is down."""
        self._lost_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, host: Host) -> None:
        """Begin to bring a host up."""
        self._hosts[host.url] = host
        host.needs_attention.set()
        for watch in (self._keep(host), self._listen(host)):
            keeper = asyncio.create_task(watch)
            keeper.add_done_callback(self.watch_ended)
            self._keepers.append(keeper)

    async def stop(self) -> None:
        """Leave the hosts alone."""
        if self._timer:
            self._timer.cancel()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def watch_ended(self, keeper: asyncio.Task[None]) -> None:
        """A host that nobody watches would be lost for good: that ends the run, loudly."""
        if not keeper.cancelled() and (cause := keeper.exception()):
            error = RunError(
                str(cause)
                if isinstance(cause, ReportTranslationError)
                else f"the watch over a host ended: {cause!r}; this is a bug, please report it"
            )
            error.__cause__ = cause
            self._on_lost(error)

    def request_failed(self, host: Host, failure: RequestFailed) -> None:
        """Take note of a failed request; the host may be opened by it."""
        before = host.health
        host.health = before.after_fault(
            failure.kind, failure.message, time.monotonic(), self._rng.random()
        )
        if host.health.state is not before.state:
            self.changed(host)
            host.needs_attention.set()

    def drain(self, host: Host) -> None:
        """Take a host out of the run; what it has in flight is waited for."""
        if not host.health.is_leaving:
            host.health = host.health.drained()
            self.changed(host)
            self.request_ended(host)

    def request_ended(self, host: Host) -> None:
        """A host that is taken out of the run is gone when nothing is in flight any more."""
        if host.health.state is HostState.DRAINING and not host.in_flight:
            host.health = host.health.gone("")  # as it was asked for
            self.changed(host)

    def take_back(self, host: Host) -> None:
        """Bring a host up again that was taken out of the run."""
        if host.health.is_leaving:
            host.health = type(host.health)()
            host.needs_attention.set()

    def changed(self, host: Host) -> None:
        """The state of a host has changed: let everybody know."""
        host.changed(time.monotonic())
        self._announce(host)
        self._on_change(host)
        self._watch(host)

    async def _keep(self, host: Host) -> None:
        while True:
            await host.needs_attention.wait()
            host.needs_attention.clear()
            while host.health.state not in _NEEDS_NOTHING:
                await asyncio.sleep(max(0.0, host.health.retry_at - time.monotonic()))
                if not host.health.is_leaving:
                    await self._bring_up(host)

    async def _bring_up(self, host: Host) -> None:
        silence: RequestFailed | None = None
        try:
            await self._bringing_up.bring_up(host)
        except HostOfNoUse as reason:
            after = host.health.gone(str(reason))
        except RequestFailed as failure:
            after, silence = self._opened(host, failure), failure
        else:
            after = host.health.loaded()
        if host.health.is_leaving:
            self.request_ended(host)  # the probe was the last one, perhaps
            return
        host.health = after
        self.changed(host)
        if silence is not None:
            # It could not do the least thing; what it still has will hardly fare better.
            self._on_silence(host, silence)

    def _opened(self, host: Host, failure: RequestFailed) -> Health:
        return host.health.opened(failure.message, time.monotonic(), self._rng.random())

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
                    self._fell_silent(host, failure)
            else:
                missed = 0

    def _fell_silent(self, host: Host, failure: RequestFailed) -> None:
        host.health = self._opened(host, failure)
        self.changed(host)
        self._on_silence(host, failure)
        host.needs_attention.set()

    def _announce(self, host: Host) -> None:
        health = host.health
        match health.state:
            case HostState.CLOSED:
                self._down_for.pop(host.url, None)
                self._observe(events.HostUp(host.url, host.slots or 0))
            case HostState.LOADING:
                self._observe(events.HostLoading(host.url))
            case HostState.SUSPECT:
                self._observe(events.HostSuspect(host.url, health.reason))
            case HostState.OPEN:
                wait_s = max(0.0, health.retry_at - time.monotonic())
                again = self._down_for.get(host.url) == health.reason
                self._down_for[host.url] = health.reason
                self._observe(events.HostDown(host.url, health.reason, wait_s, again))
            case HostState.DRAINING:
                self._observe(events.HostDraining(host.url, host.in_flight))
            case HostState.GONE:
                self._observe(events.HostLeft(host.url, health.reason))
            case HostState.HALF_OPEN | HostState.PROBING:
                pass  # nothing that anybody has to know

    def _watch(self, host: Host) -> None:
        """Start, or end, the time that the run waits for a lost fleet."""
        hosts = self._hosts.values()
        if all(each.health.state is HostState.GONE for each in hosts):
            if self._timer:
                self._timer.cancel()
            self._on_lost(
                FleetLost(
                    "no host is of use in this run: "
                    + ("; ".join(_reasons(hosts)) or "every one was taken out of it")
                    + ". What is finished is kept: correct that, then give the same command again"
                )
            )
        elif self._lost_at is not None and host.takes_requests:
            self._lost_at = None
            if self._timer:
                self._timer.cancel()
            self._observe(events.FleetBack(host.url))
        elif self._lost_at is None and all(each.health.is_lost for each in hosts):
            self._lost_at = time.monotonic()
            self._observe(events.FleetDown(_reasons(hosts), self._fleet_timeout_s))
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._fleet_timeout_s, self._give_up)

    def _give_up(self) -> None:
        """The time is over; but a host that is loading by now is waited for."""
        hosts = self._hosts.values()
        if all(host.health.is_lost for host in hosts):
            lost_s = time.monotonic() - (self._lost_at or 0.0)
            self._on_lost(
                FleetLost(
                    f"all hosts were lost and none came back within {lost_s:.0f} s: "
                    + "; ".join(_reasons(hosts))
                    + ". What is finished is kept: give the same command again when they are back"
                )
            )
        else:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._give_up)


def _reasons(hosts: Iterable[Host]) -> tuple[str, ...]:
    return tuple(host.health.reason for host in hosts if host.health.reason)
