"""The one dispatcher of a process, on one event loop in one thread.

Mapped tasks run in threads of their own; they hand their reports over and wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from tasks.core.dispatch import events, hosts_file
from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.hosts_file import HostChanges
from tasks.core.errors import RunError
from tasks.core.limits.ledger import SlotLedger
from tasks.core.records import PlannedReport, Shard
from tasks.core.run.garbage import searched_rarely
from tasks.core.run.lifecycle import StartedRun
from tasks.core.run.planning import read_shard
from tasks.core.run.translator import Translator
from tasks.core.settings import HostAddress, TranslateSettings
from tasks.core.storage.journal import JournalWriter
from tasks.core.storage.store import Store

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Engine:
    """Translates shards for any number of threads; use it as a context manager.

    Leaving it stops every request that is still in flight.
    """

    def __init__(
        self,
        store: Store,
        settings: TranslateSettings,
        run: StartedRun,
        observe: events.Observer = events.ignore,
        ledger: SlotLedger | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._run = run
        self._observe = observe
        self._ledger = ledger
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="dispatcher", daemon=True
        )
        self._open = AsyncExitStack()
        self._memory = ExitStack()
        self._handing_over = threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._translator: Translator | None = None
        self._accounts: dict[str, HostAccount] = {}
        self._shards: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._memory.enter_context(searched_rarely())
        self._thread.start()
        try:
            self._wait_for(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def translate_shard(self, shard: Shard) -> int:
        """Translate a shard's reports; returns how many there are.

        Raises `FleetLost`, `StorageError`, and `RunError` when the run was stopped.
        """
        return self.translate(read_shard(self._store, shard))

    def translate(self, reports: Sequence[PlannedReport]) -> int:
        """Translate reports; returns how many there are."""
        with self._handing_over:
            if self._translator is None:
                raise RunError("the run is over; this shard was not begun")
            work = self._translated(self._translator, reports)
            ended = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            ended.result()
        except (CancelledError, asyncio.CancelledError) as error:
            raise RunError("the run was stopped before this shard was finished") from error
        return len(reports)

    def accounts(self) -> dict[str, HostAccount]:
        """What each host did up to now, or up to the end."""
        return self._accounts or (self._dispatcher.accounts() if self._dispatcher else {})

    async def _start(self) -> None:
        run, settings, observe = self._run, self._settings, _harmless(self._observe)
        writer = f"{os.uname().nodename}-{os.getpid()}"
        journal = JournalWriter(self._store, run.record.run_id, writer)
        await self._open.enter_async_context(journal)
        # Left between the dispatcher and the journal, which nobody may write to once it is closed.
        self._open.push_async_callback(self._stop_shards)
        self._dispatcher = Dispatcher(
            [_host(address) for address in run.hosts],
            run.prompting,
            None if settings.other_weights else run.recipe.model_digest,
            record=journal.note,
            policy=settings.policy,
            hedge=settings.hedge,
            ledger=self._ledger,
            tokens_ahead=run.record.predicted_tokens,
            fleet_timeout_s=settings.fleet_timeout_seconds,
            load_timeout_s=settings.load_timeout_seconds,
            observe=observe,
        )
        await self._open.enter_async_context(self._dispatcher)
        if settings.hosts_file is not None:
            self._follow_hosts_file(self._dispatcher, settings.hosts_file, observe)
        self._translator = Translator(
            self._dispatcher,
            journal,
            run.prompting,
            run.recipe,
            already_accepted=run.already_accepted,
            observe=observe,
        )

    def _follow_hosts_file(
        self, dispatcher: Dispatcher, path: str, observe: events.Observer
    ) -> None:
        """Let hosts join and leave as the file says."""

        def obey(changes: HostChanges) -> None:
            for address in changes.joined:
                dispatcher.add_host(_host(address))
            for url in changes.left:
                dispatcher.drain_host(url)
            for address in changes.slots_changed:
                dispatcher.change_slots(address.url, address.slots)

        watch = asyncio.ensure_future(
            hosts_file.watch(
                path,
                self._settings.addresses,
                self._run.hosts,
                on_change=obey,
                on_problem=lambda problem: observe(events.Noticed(problem)),
            )
        )
        watch.add_done_callback(dispatcher.watch_ended)
        self._open.callback(watch.cancel)

    async def _stop(self) -> None:
        if self._dispatcher:
            self._accounts = self._dispatcher.accounts()
        await self._open.aclose()

    async def _translated(self, translator: Translator, reports: Sequence[PlannedReport]) -> None:
        shard = asyncio.ensure_future(translator.translate(reports))
        self._shards.add(shard)
        try:
            await shard
        finally:
            self._shards.discard(shard)

    async def _stop_shards(self) -> None:
        """Whoever still waits for a report learns that nothing more will come."""
        for shard in self._shards:
            shard.cancel()
        await asyncio.gather(*self._shards, return_exceptions=True)

    def _end(self) -> None:
        """Stop everything; what was handed over before learns of it, and nothing comes after."""
        with self._handing_over:
            self._translator = None
            stopped = asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        try:
            _result_however_often_interrupted(stopped)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._memory.close()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _result_however_often_interrupted(stopped: Future[None]) -> None:
    """Wait for the end of an end that was begun: left alone, threads would wait for ever.

    It takes seconds at most; whoever interrupts a second time is told when it is through.
    """
    interruption = None
    while True:
        try:
            stopped.result()
        except KeyboardInterrupt as interrupted:
            interruption = interrupted
        else:
            break
    if interruption:
        raise interruption


def _host(address: HostAddress) -> Host:
    return Host(HostClient(address), address.slots)


def _harmless(observe: events.Observer) -> events.Observer:
    """An observer that is left alone once it fails: who watches must not stop the work.

    A terminal whose reader is gone makes `rich` raise `SystemExit`, which would end the
    event loop that everything else waits for.
    """
    is_watching = True

    def observed(event: events.Event) -> None:
        nonlocal is_watching
        if is_watching:
            try:
                observe(event)
            except (Exception, SystemExit):  # noqa: BLE001 - whatever it raises
                is_watching = False
                _log.exception("nobody watches this run any more; it goes on")

    return observed
