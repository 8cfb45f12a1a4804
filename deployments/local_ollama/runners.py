"""The loaded models: how long each stays, and which of them goes when room is wanted."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from deployments.local_ollama.engine import LaunchOptions, LoadedModel
from deployments.local_ollama.models import Model
from deployments.local_ollama.slots import Slots


@dataclass(slots=True, eq=False)
class Runner:
    """One loaded model. `users` are the requests admitted to it, in a slot or waiting for one."""

    model: Model
    options: LaunchOptions
    slots: Slots
    ready: LoadedModel
    keep_alive: float
    users: int = 0
    stale: bool = False
    expires_at: float | None = None
    expiry: asyncio.TimerHandle | None = None

    def fits(self, options: LaunchOptions) -> bool:
        """Whether a request with these options can run without loading the model again."""
        return not self.stale and self.ready.alive and self.options.serve(options)

    def expires(self) -> float:
        """When an idle model will be unloaded, in unix seconds; infinite for never."""
        return time.time() + self.keep_alive if self.expires_at is None else self.expires_at


class Runners:
    """Runners by blob. `changed` is called whenever one becomes idle or goes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._runners: dict[str, Runner] = {}
        self._changed = changed
        self._closing: set[asyncio.Task[None]] = set()

    def all(self) -> tuple[Runner, ...]:
        """Every loaded model, in the order of loading."""
        return tuple(self._runners.values())

    def get(self, blob: str) -> Runner | None:
        """The loaded model with these weights."""
        return self._runners.get(blob)

    def add(self, runner: Runner) -> None:
        """A model that has been loaded."""
        self._runners[runner.model.blob] = runner

    def to_evict(self, most: int) -> Runner | None:
        """The model that has to go before another can be loaded; None while there is room."""
        if len(self._runners) < most:
            return None
        return min(self._runners.values(), key=lambda each: (each.users > 0, each.keep_alive))

    def keep(self, runner: Runner, seconds: float | None) -> None:
        """Set how long the model stays when it is idle; None leaves that as it was."""
        self._drop_timer(runner)
        if seconds is not None:
            runner.keep_alive = seconds

    def leave(self, runner: Runner) -> None:
        """A user has gone."""
        runner.users -= 1
        if not runner.users:
            self.retire_if_idle(runner)
            self._changed()

    def retire_if_idle(self, runner: Runner) -> None:
        """Start the clock of an idle model, or unload it where it is not to stay."""
        if runner.users or not self._holds(runner):
            return
        self._drop_timer(runner)
        runner.expires_at = time.time() + runner.keep_alive
        if runner.keep_alive <= 0:
            self._expire(runner)
        elif runner.keep_alive < math.inf:
            loop = asyncio.get_running_loop()
            runner.expiry = loop.call_later(runner.keep_alive, self._expire, runner)

    def remove(self, runner: Runner) -> None:
        """Unload a model that nobody uses; `all_closed` waits for the end of that."""
        self._drop_timer(runner)
        if self._holds(runner):
            del self._runners[runner.model.blob]
            closing = asyncio.get_running_loop().create_task(runner.ready.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def all_closed(self) -> None:
        """Wait until models that were unloaded have freed what they held."""
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def close(self) -> None:
        """Unload everything."""
        for runner in self.all():
            self.remove(runner)
        await self.all_closed()

    def _holds(self, runner: Runner) -> bool:
        return self._runners.get(runner.model.blob) is runner

    def _expire(self, runner: Runner) -> None:
        if self._holds(runner) and not runner.users:
            self.remove(runner)
            self._changed()

    def _drop_timer(self, runner: Runner) -> None:
        runner.expires_at = None
        if runner.expiry is not None:
            runner.expiry.cancel()
            runner.expiry = None
