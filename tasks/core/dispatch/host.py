"""One host during a run: its client, its health, its slots and what it has done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tasks.core.dispatch.health import Health, HostState
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.pace import Pace
from tasks.core.dispatch.policies import HostView


@dataclass(frozen=True, slots=True)
class HostAccount:
    """What a host did in a run."""

    slots: int
    requests: int = 0
    failures: int = 0
    output_tokens: int = 0
    busy_seconds: float = 0.0
    """Time with at least one request in flight."""
    peak_in_flight: int = 0


@dataclass(slots=True)
class Host:
    """The state that the dispatcher keeps of a host; changed on its event loop only."""

    client: HostClient
    slots: int
    version: str | None = None
    health: Health = field(default_factory=Health)
    pace: Pace = field(default_factory=Pace)
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    output_tokens: int = 0
    peak_in_flight: int = 0
    heard_at: float = 0.0
    """When it last answered anything, by the monotonic clock."""
    needs_attention: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the host is to be probed and loaded (again)."""
    slot_freed: asyncio.Event = field(default_factory=asyncio.Event)
    _busy_s: float = 0.0
    _busy_since: float = 0.0

    @property
    def url(self) -> str:
        """The host's name everywhere."""
        return self.client.url

    @property
    def takes_requests(self) -> bool:
        """Whether requests may be sent."""
        return self.health.state is HostState.UP

    def view(self, waiting: int) -> HostView:
        """What a policy may know."""
        return HostView(
            self.url,
            self.slots,
            self.in_flight,
            waiting,
            self.takes_requests,
            self.health.is_lost,
        )

    def occupy(self, now: float) -> None:
        """A slot is taken."""
        if self.in_flight == 0:
            self._busy_since = now
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def release(self, now: float) -> None:
        """A slot is free again."""
        self.in_flight -= 1
        self.slot_freed.set()
        if self.in_flight == 0:
            self._busy_s += now - self._busy_since

    def account(self, now: float) -> HostAccount:
        """What the host did up to now."""
        running_s = now - self._busy_since if self.in_flight else 0.0
        return HostAccount(
            slots=self.slots,
            requests=self.requests,
            failures=self.failures,
            output_tokens=self.output_tokens,
            busy_seconds=round(self._busy_s + running_s, 3),
            peak_in_flight=self.peak_in_flight,
        )
