"""The time that answers made at once take from each other."""

import asyncio
import heapq
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager


class SharedDecoder:
    """Decode time shared by concurrent answers: n of them each run at 1 / (1 + alpha * (n - 1)).

    It keeps one clock of work done, in the seconds a lone answer would have needed. The clock slows
    down as answers join and speeds up as they leave, so a wait is an alarm on that clock. It can be
    slowed down from outside, too, and stopped.
    """

    def __init__(self, slowdown: float) -> None:
        self._slowdown = slowdown
        self._factor = 1.0
        self._active = 0
        self._work = 0.0
        self._moved_at = 0.0
        self._alarms: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def slow_down(self, factor: float) -> None:
        """From now on everything takes `factor` times as long; with infinity nothing ever ends.

        What is being waited for already takes so much longer for the rest of its work.
        """
        self._advance()
        self._factor = factor
        self._set_timer()

    @contextmanager
    def answer(self) -> Iterator[float]:
        """Count as one active answer; yields the reading of the work clock at its start."""
        self._advance()
        self._active += 1
        self._set_timer()
        try:
            yield self._work
        finally:
            self._advance()
            self._active -= 1
            self._set_timer()

    async def until(self, work: float) -> None:
        """Wait until the work clock reads `work`; call it only inside `answer`."""
        self._advance()
        if work <= self._work and not self._stands_still:
            return
        alarm = asyncio.get_running_loop().create_future()
        heapq.heappush(self._alarms, (work, next(self._order), alarm))
        self._set_timer()
        await alarm

    @property
    def _stands_still(self) -> bool:
        return self._factor == math.inf

    def _stretch(self) -> float:
        return self._factor * (1.0 + self._slowdown * max(0, self._active - 1))

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._active:
            self._work += (now - self._moved_at) / self._stretch()
        self._moved_at = now

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._alarms and self._alarms[0][2].done():
            heapq.heappop(self._alarms)
        if self._alarms and not self._stands_still:
            wait = max(0.0, self._alarms[0][0] - self._work) * self._stretch()
            self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._advance()
        # A timer may fire a hair early by the work clock, which adds up many small floats.
        due = self._work + 1e-9
        while self._alarms and self._alarms[0][0] <= due:
            alarm = heapq.heappop(self._alarms)[2]
            if not alarm.done():
                alarm.set_result(None)
        self._set_timer()


class Clocks:
    """The clocks of one server: prompts are read side by side, answers share the decoder."""

    def __init__(self, slowdown: float) -> None:
        self._reader = SharedDecoder(slowdown=0.0)
        self.decoder = SharedDecoder(slowdown)

    async def read(self, seconds: float) -> None:
        """Take the time of reading a prompt."""
        with self._reader.answer() as start:
            await self._reader.until(start + seconds)

    def slow_down(self, factor: float) -> None:
        """Slow both down, as `SharedDecoder.slow_down` does."""
        self._reader.slow_down(factor)
        self.decoder.slow_down(factor)
