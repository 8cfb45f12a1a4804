"""Who may run when: the queue for a model that is not loaded, and the slots of one that is."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deployments.local_ollama.engine import Engine, LaunchOptions
from deployments.local_ollama.stats import Gauge, Stats


class QueueFullError(Exception):
    """Too many requests already wait for the model to be loaded."""


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


@dataclass(slots=True, eq=False)
class Runner:
    """One loaded model. `users` are the requests admitted to it, in a slot or waiting for one."""

    options: LaunchOptions
    slots: Slots
    keep_alive: float
    users: int = 0
    stale: bool = False
    expires_at: float | None = None
    expiry: asyncio.TimerHandle | None = None

    def fits(self, options: LaunchOptions) -> bool:
        """Whether a request with these options can run without loading the model again."""
        return not self.stale and self.options == options

    def expires(self) -> float:
        """When an idle model will be unloaded, in unix seconds; infinite for never."""
        return time.time() + self.keep_alive if self.expires_at is None else self.expires_at


@dataclass(slots=True, eq=False)
class _Pending:
    options: LaunchOptions
    keep_alive: float
    admitted: asyncio.Future[Runner] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Scheduler:
    """Admits requests to one model, loading it where its options ask for that.

    A request that fits the loaded model goes straight to its slots, past everyone who waits for
    another load: that is what Ollama does, and it can starve them. Loads happen one at a time.
    """

    def __init__(self, engine: Engine, stats: Stats, *, slots: int, max_queue: int) -> None:
        self._engine = engine
        self._stats = stats
        self._slots = slots
        self._max_queue = max_queue
        self._runner: Runner | None = None
        self._pending: deque[_Pending] = deque()
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._serving = False
        self._next_load_takes = 0.0

    @property
    def runner(self) -> Runner | None:
        """The loaded model, or None; one that is being loaded does not count."""
        return self._runner

    @asynccontextmanager
    async def admitted(self, options: LaunchOptions, keep_alive: float) -> AsyncIterator[Runner]:
        """Use the model, loaded with `options`; it then stays for `keep_alive` seconds of idleness.

        Raises QueueFullError at once if the model has to be loaded and the queue is full, and what
        the engine raises if the load fails.
        """
        runner = self._runner
        if runner is not None and runner.fits(options):
            runner.users += 1
        else:
            runner = await self._wait_for_load(options, keep_alive)
        self._keep(runner, keep_alive)
        try:
            yield runner
        finally:
            self._leave(runner)

    def unload(self) -> None:
        """Unload as soon as nobody uses the model; requests that come until then delay it."""
        if self._runner is not None:
            self._keep(self._runner, 0.0)
            self._retire_if_idle(self._runner)

    def reload_slowly(self, seconds: float) -> None:
        """Make every later request wait for a new load, which takes at least `seconds`."""
        self._next_load_takes = seconds
        if self._runner is not None:
            self._runner.stale = True

    async def close(self) -> None:
        """Stop loading; requests still waiting are cancelled."""
        for pending in self._pending:
            pending.admitted.cancel()
        self._pending.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        if self._runner is not None:
            self._drop_timer(self._runner)
            self._runner = None
            self._engine.unload()

    async def _wait_for_load(self, options: LaunchOptions, keep_alive: float) -> Runner:
        # Requests whose client left keep their place until it is their turn, as in Ollama. The one
        # being served has left the queue; until the worker has taken one, there is room for it.
        if len(self._pending) >= self._max_queue + (0 if self._serving else 1):
            self._stats.overflows += 1
            raise QueueFullError
        pending = _Pending(options, keep_alive)
        pending.admitted.add_done_callback(lambda _: self._changed.set())
        self._pending.append(pending)
        self._stats.queued.up()
        if self._worker is None:
            self._worker = asyncio.create_task(self._serve_pending())
        try:
            return await pending.admitted
        except asyncio.CancelledError:
            granted = pending.admitted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._leave(granted.result())
            raise
        finally:
            self._stats.queued.down()

    async def _serve_pending(self) -> None:
        try:
            while self._pending:
                pending = self._pending.popleft()
                self._serving = True
                if pending.admitted.done():
                    continue
                try:
                    await self._admit(pending)
                except Exception as error:  # noqa: BLE001
                    # Whatever the engine's load raised is the waiting request's to report.
                    if not pending.admitted.done():
                        pending.admitted.set_exception(error)
        finally:
            self._serving = False
            self._worker = None

    async def _admit(self, pending: _Pending) -> None:
        if self._runner is None or not self._runner.fits(pending.options):
            if not await self._made_room(pending):
                return
            if self._runner is None and not await self._loaded(pending):
                return
        if self._runner is None:
            return
        if pending.admitted.done():
            self._retire_if_idle(self._runner)
        else:
            self._runner.users += 1
            pending.admitted.set_result(self._runner)

    async def _made_room(self, pending: _Pending) -> bool:
        """Wait until the model in the way is idle and unload it; False if the client left."""
        while self._runner is not None and self._runner.users:
            if pending.admitted.done():
                return False
            self._changed.clear()
            await self._changed.wait()
        if self._runner is not None:
            self._stats.reloads += 1
            self._drop_timer(self._runner)
            self._runner = None
            self._engine.unload()
        return not pending.admitted.done()

    async def _loaded(self, pending: _Pending) -> bool:
        """Load for `pending`; if its client leaves, so does the load, and the next starts anew."""
        load = asyncio.create_task(self._load(pending.options))
        try:
            either: set[asyncio.Future[Any]] = {load, pending.admitted}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not load.done():
                load.cancel()
                await asyncio.wait({load})
                self._stats.loads_aborted += 1
        if load.cancelled():
            return False
        load.result()
        self._stats.loads += 1
        slots = Slots(self._slots, self._stats.running, self._stats.queued)
        self._runner = Runner(pending.options, slots, pending.keep_alive)
        return True

    async def _load(self, options: LaunchOptions) -> None:
        until = time.monotonic() + self._next_load_takes
        await self._engine.load(options)
        await asyncio.sleep(until - time.monotonic())
        self._next_load_takes = 0.0

    def _keep(self, runner: Runner, seconds: float) -> None:
        self._drop_timer(runner)
        runner.keep_alive = seconds

    def _leave(self, runner: Runner) -> None:
        runner.users -= 1
        if not runner.users:
            self._retire_if_idle(runner)
            self._changed.set()

    def _retire_if_idle(self, runner: Runner) -> None:
        if runner.users or runner is not self._runner:
            return
        self._drop_timer(runner)
        runner.expires_at = time.time() + runner.keep_alive
        if runner.keep_alive <= 0:
            self._expire(runner)
        elif runner.keep_alive < math.inf:
            loop = asyncio.get_running_loop()
            runner.expiry = loop.call_later(runner.keep_alive, self._expire, runner)

    def _expire(self, runner: Runner) -> None:
        if runner is self._runner and not runner.users:
            self._runner = None
            self._engine.unload()
            self._changed.set()

    def _drop_timer(self, runner: Runner) -> None:
        runner.expires_at = None
        if runner.expiry is not None:
            runner.expiry.cancel()
            runner.expiry = None
