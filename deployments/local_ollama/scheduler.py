"""Who may run when: the queue for models that are not loaded, and those that are."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deployments.local_ollama.engine import Engine, EngineError, LaunchOptions
from deployments.local_ollama.models import Model
from deployments.local_ollama.runners import Runner, Runners
from deployments.local_ollama.slots import Slots
from deployments.local_ollama.stats import Stats

LOADED_BY_DEFAULT = 3


class QueueFullError(Exception):
    """Too many requests already wait for a model to be loaded."""


@dataclass(slots=True, eq=False)
class _Pending:
    model: Model
    options: LaunchOptions
    keep_alive: float | None
    admitted: asyncio.Future[Runner] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def gone(self) -> bool:
        """Whether nobody waits for this any more."""
        return self.admitted.done()


class Scheduler:
    """Admits requests to models, loading those that are not loaded as the request wants them.

    A request that fits a loaded model goes straight to its slots, past everyone who waits for a
    load: that is what Ollama does, and it can starve them. Loads happen one at a time. With
    `max_loaded` models loaded, the idle one with the shortest keep-alive makes room, or if none is
    idle the one with the shortest keep-alive as soon as it is.
    """

    def __init__(
        self,
        engine: Engine,
        stats: Stats,
        *,
        slots: int,
        max_queue: int,
        max_loaded: int = 0,
        keep_alive: float = 300.0,
        load_timeout: float = 300.0,
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._slots = slots
        self._max_queue = max_queue
        self._max_loaded = max_loaded or LOADED_BY_DEFAULT
        self._keep_alive = keep_alive
        self._load_timeout = load_timeout
        self._changed = asyncio.Event()
        self._loaded = Runners(self._changed.set)
        self._pending: deque[_Pending] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._serving = False
        self._next_load_takes = 0.0

    @property
    def runners(self) -> tuple[Runner, ...]:
        """The loaded models; one that is being loaded does not count."""
        return self._loaded.all()

    @property
    def runner(self) -> Runner | None:
        """The model loaded first of those that are, or None."""
        return next(iter(self.runners), None)

    @asynccontextmanager
    async def admitted(
        self, model: Model, options: LaunchOptions, keep_alive: float | None
    ) -> AsyncIterator[Runner]:
        """Use a model loaded with `options`; it then stays for `keep_alive` seconds of idleness.

        Raises QueueFullError at once if the model has to be loaded and the queue is full, and what
        the engine raises if the load fails.
        """
        runner = self._loaded.get(model.blob)
        if runner is not None and runner.fits(options):
            runner.users += 1
        else:
            runner = await self._wait_for_load(_Pending(model, options, keep_alive))
        self._loaded.keep(runner, keep_alive)
        try:
            yield runner
        finally:
            self._loaded.leave(runner)

    def unload(self, model: Model) -> None:
        """Unload as soon as nobody uses the model; requests that come until then delay it."""
        runner = self._loaded.get(model.blob)
        if runner is not None:
            self._loaded.keep(runner, 0.0)
            self._loaded.retire_if_idle(runner)

    def reload_slowly(self, seconds: float) -> None:
        """Make every later request wait for a new load, which takes at least `seconds`."""
        self._next_load_takes = seconds
        for runner in self.runners:
            runner.stale = True

    async def close(self) -> None:
        """Stop loading; requests still waiting are cancelled."""
        for pending in self._pending:
            pending.admitted.cancel()
        self._pending.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        await self._loaded.close()

    async def _wait_for_load(self, pending: _Pending) -> Runner:
        # Requests whose client left keep their place until it is their turn, as in Ollama. The one
        # being served has left the queue; until the worker has taken one, there is room for it.
        if len(self._pending) >= self._max_queue + (0 if self._serving else 1):
            self._stats.overflows += 1
            raise QueueFullError
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
                self._loaded.leave(granted.result())
            raise
        finally:
            self._stats.queued.down()

    async def _serve_pending(self) -> None:
        try:
            while self._pending:
                pending = self._pending.popleft()
                self._serving = True
                try:
                    await self._admit(pending)
                except Exception as error:  # noqa: BLE001
                    # Whatever the engine's load raised is the waiting request's to report.
                    if not pending.gone:
                        pending.admitted.set_exception(error)
        finally:
            self._serving = False
            self._worker = None

    async def _admit(self, pending: _Pending) -> None:
        while not pending.gone:
            runner = self._loaded.get(pending.model.blob)
            if runner is not None and runner.fits(pending.options):
                _give(runner, pending)
                return
            in_the_way = runner or self._loaded.to_evict(self._max_loaded)
            if in_the_way is None:
                await self._load_for(pending)
            elif in_the_way.users:
                self._changed.clear()
                await self._changed.wait()
            else:
                self._stats.reloads += runner is not None
                self._loaded.remove(in_the_way)

    async def _load_for(self, pending: _Pending) -> None:
        """Load for `pending`; if its client leaves, so does the load, and the next starts anew."""
        load = asyncio.create_task(self._load(pending))
        try:
            either: set[asyncio.Future[Any]] = {load, pending.admitted}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not load.done():
                load.cancel()
                await asyncio.wait({load})
                self._stats.loads_aborted += 1
        if load.cancelled():
            return
        runner = load.result()
        self._stats.loads += 1
        self._loaded.add(runner)
        if pending.gone:
            self._loaded.retire_if_idle(runner)
        else:
            _give(runner, pending)

    async def _load(self, pending: _Pending) -> Runner:
        until = time.monotonic() + self._next_load_takes
        await self._loaded.all_closed()
        try:
            async with asyncio.timeout(self._load_timeout or None):
                ready = await self._engine.load(pending.model, pending.options, self._slots)
                try:
                    await asyncio.sleep(until - time.monotonic())
                except asyncio.CancelledError:
                    await ready.close()
                    raise
        except TimeoutError as late:
            raise EngineError("timed out waiting for llama-server to start") from late
        self._next_load_takes = 0.0
        keep = self._keep_alive if pending.keep_alive is None else pending.keep_alive
        slots = Slots(self._slots, self._stats.running, self._stats.queued)
        return Runner(pending.model, pending.options, slots, ready, keep)


def _give(runner: Runner, pending: _Pending) -> None:
    runner.users += 1
    pending.admitted.set_result(runner)
