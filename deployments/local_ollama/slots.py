"""The places in which a loaded model answers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.local_ollama.stats import Gauge


class Slots:
    """A fixed number of places, given out in the order they were asked for; the queue is endless.

    Not asyncio.Semaphore: its fairness differs between Python versions, and the gauges have to move
    in the same step as the permit.
    """

    def __init__(self, count: int, running: Gauge, queued: Gauge) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running = running
        self._queued = queued

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one place; leaving, also by cancellation, hands it to the next in line."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    async def _acquire(self) -> None:
        if self._free:
            self._free -= 1
            self._running.up()
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._queued.up()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._release()
            raise
        finally:
            self._queued.down()

    def _release(self) -> None:
        self._running.down()
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                self._running.up()
                place.set_result(None)
                return
        self._free += 1
