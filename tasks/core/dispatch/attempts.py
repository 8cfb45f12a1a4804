"""A segment on its way: who waits for it, and the requests that are out for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tasks.core.dispatch.host import Host
from tasks.core.dispatch.queue import Waiting
from tasks.core.dispatch.work import Reply, SegmentWork, Sent
from tasks.core.errors import RequestFailed


@dataclass(eq=False, slots=True)
class Live:
    """A request that is out."""

    number: int
    host: Host
    sent: Sent
    started_at: float
    in_flight: int
    """Requests to the host when this one was sent, itself included."""
    in_quarantine: bool
    """Nothing else may be sent to the host meanwhile."""
    task: asyncio.Task[None] | None = None
    has_begun: bool = False
    """Its task took its first step; one that is cancelled before never does."""
    interruption: RequestFailed | None = None
    """Why it was ended from outside."""

    def cancel(self) -> None:
        """End it; nobody waits for it any more."""
        if self.task:
            self.task.cancel()


@dataclass(eq=False, slots=True)
class Ticket:
    """A segment that waits for its answer."""

    key: int
    work: SegmentWork
    reply: asyncio.Future[Reply]
    waiting_since_ns: int
    waiting: Waiting | None = None
    """Its place in the queue, while it has one."""
    live: dict[int, Live] = field(default_factory=dict)
    """What is out for it: one request, or two in the tail."""
