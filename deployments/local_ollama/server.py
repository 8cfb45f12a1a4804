"""One server in this process: its parts, its listening socket, its start and its stop."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from deployments.local_ollama.app import VERSIONS, Api
from deployments.local_ollama.control import Control
from deployments.local_ollama.create import model_of
from deployments.local_ollama.engine import Engine
from deployments.local_ollama.faults import FaultPlan, Rule
from deployments.local_ollama.inference import Inference
from deployments.local_ollama.management import Management
from deployments.local_ollama.misbehaviour import Misbehaviour, break_off
from deployments.local_ollama.modelfile import read_modelfile
from deployments.local_ollama.models import Model
from deployments.local_ollama.scheduler import Scheduler
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.stats import Stats
from deployments.local_ollama.store import ModelStore
from deployments.local_ollama.timing_engine import TimingEngine, simulated_model

FaultRules = Iterable[Rule | Mapping[str, Any]]
_BACKLOG = 2048
_REOPEN_EVERY_S = 0.05
_SHUTDOWN_S = 1.0


class LocalServer:
    """An Ollama-compatible server on the running event loop, as an async context manager.

    `url` is known once it has started. `stats` and `faults` may be read and changed directly.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        faults: FaultRules = (),
        *,
        engine: Engine | None = None,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.settings = settings or Settings()
        self.stats = Stats()
        self.faults = FaultPlan()
        self._leave = leave
        self.engine = engine or engine_of(self.settings)
        self.store = ModelStore([built_in_model(self.settings)])
        self.scheduler = Scheduler(
            self.engine,
            self.stats,
            slots=self.settings.slots,
            max_queue=self.settings.max_queue,
            max_loaded=self.settings.max_loaded,
            keep_alive=self.settings.keep_alive,
            load_timeout=self.settings.load_timeout,
        )
        self._misbehaviour = Misbehaviour(self, self.scheduler, self._exit)
        self._first_faults = [_rule(each) for each in faults]
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._port = self.settings.port

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, with the port that was chosen where the settings left it open."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def _host(self) -> str:
        # One name, one address: `localhost` may stand for two, and a port of 0 would differ.
        return "127.0.0.1" if self.settings.host == "localhost" else self.settings.host

    def add_faults(self, rules: FaultRules) -> None:
        """Switch faults on; a rule with `now` happens at once, the others wait for their turn."""
        for rule in [_rule(each) for each in rules]:
            if rule.now:
                self._misbehaviour.happen(rule)
            else:
                self.faults.add([rule])

    async def start(self) -> None:
        """Begin to listen. Raises OSError where the address is taken."""
        inference = Inference(
            settings=self.settings,
            store=self.store,
            scheduler=self.scheduler,
            faults=self.faults,
            stats=self.stats,
            misbehaviour=self._misbehaviour,
        )
        api = Api(
            version=VERSIONS[self.settings.engine],
            inference=inference,
            management=Management(self.settings, self.store, self.scheduler),
            control=Control(self.faults, self.stats, self._misbehaviour),
            faults=self.faults,
            stats=self.stats,
            misbehaviour=self._misbehaviour,
        )
        # Without handler_cancellation a client that leaves would keep its slot to the end.
        self._runner = web.AppRunner(
            api.application(),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await self._runner.setup()
        try:
            await self._listen()
        except OSError:
            await self._runner.cleanup()
            raise
        self.add_faults(self._first_faults)

    async def stop(self) -> None:
        """Stop listening and drop every connection; requests still open get a reset."""
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait({self._reopening})
        self._close_listener()
        self._drop_connections()
        await self.scheduler.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.store.close()

    def refuse(self, seconds: float | None) -> None:
        """Close every connection and take no new one for `seconds`, or for ever with None."""
        self._close_listener()
        self._drop_connections()
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        if seconds is not None:
            self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _listen(self) -> None:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("the server is not set up: call start() before it can listen")
        self._listener = await asyncio.get_running_loop().create_server(
            self._runner.server, self._host, self._port, backlog=_BACKLOG
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while self._listener is None:
            try:
                await self._listen()
            except OSError:
                # Somebody took the port in the meantime; clients know no other, so wait for it.
                await asyncio.sleep(_REOPEN_EVERY_S)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _drop_connections(self) -> None:
        if self._runner is not None and self._runner.server is not None:
            for connection in self._runner.server.connections:
                break_off(connection.transport)

    def _exit(self, code: int) -> None:
        # Unsent bytes, such as the answer to the request that ordered this, need a moment.
        asyncio.get_running_loop().call_later(0.02, self._leave, code)


def _rule(given: Rule | Mapping[str, Any]) -> Rule:
    return given if isinstance(given, Rule) else Rule.from_json(dict(given))


def engine_of(settings: Settings) -> Engine:
    """The engine that the settings ask for. Raises ValueError where it is not installed."""
    if settings.engine == "simulated":
        return TimingEngine(settings)
    try:
        from deployments.local_ollama.llama_engine import LlamaEngine
    except ImportError as missing:
        raise ValueError(
            f"engine llama: {missing.name or missing} is not installed: run "
            "`pip install -e '.[llama]'` or `make demo`"
        ) from missing
    engine: Engine = LlamaEngine(threads=settings.threads)
    return engine


def built_in_model(settings: Settings) -> Model:
    """The model a server comes with. Raises ValueError and OSError for a file it cannot use."""
    if settings.model_file is None:
        return simulated_model(settings)
    return model_of(read_modelfile(Path(settings.model_file)), settings.model)
