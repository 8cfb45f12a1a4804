"""The journal of a run: every request and every finished report, durable at once.

A file of JSON lines that is only ever added to: `runs/RUN_ID/journal/WRITER.jsonl`.
What is read back after a crash is every whole line; a torn last line never counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter
from pydantic_core import from_json

from tasks.core.records import Attempt, ReportOutcome
from tasks.core.storage.store import AppendLog, Store

GATHER_S = 0.01
"""How long a flush waits for more: it costs the same for one record as for a hundred, and no
slot of a host waits for it."""


@dataclass(frozen=True, slots=True)
class JournalContent:
    """What a run did, as far as it is durable."""

    attempts: tuple[Attempt, ...]
    outcomes: dict[str, ReportOutcome]
    """By report id; the last one written counts."""


class JournalWriter:
    """Appends records from one event loop; many at a time share one flush to disk.

    Use it as an async context manager. A failed flush fails every `write` that was
    waiting for it with `StorageError`; its records are kept and written with the next.
    """

    def __init__(self, store: Store, run_id: str, writer: str) -> None:
        self._log: AppendLog = store.append_log(f"{journal_folder(run_id)}/{writer}.jsonl")
        self._batch: _Batch | None = None
        self._unwritten: list[bytes] = []
        self._flusher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._flusher:
                await self._flusher
        finally:
            self._log.close()

    async def write(self, record: Attempt | ReportOutcome) -> None:
        """Append a record; it is durable on return."""
        # Others wait for the same flush: a cancelled waiter must not cancel it.
        await asyncio.shield(self._add(record))

    def note(self, record: Attempt | ReportOutcome) -> None:
        """Append a record whose flush nobody waits for."""
        self._add(record)

    async def settle(self) -> None:
        """Write what could not be written before. Raises `StorageError` when it still cannot.

        To be called before anything is paid for that could not be kept.
        """
        if self._unwritten:
            await asyncio.shield(self._pending().durable)

    def _add(self, record: Attempt | ReportOutcome) -> asyncio.Future[None]:
        line = _line(record)
        batch = self._pending()
        batch.lines.append(line)
        return batch.durable

    def _pending(self) -> _Batch:
        if self._batch is None:
            self._batch = _Batch(asyncio.get_running_loop().create_future())
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return self._batch

    async def _flush(self) -> None:
        while self._batch is not None:
            await asyncio.sleep(GATHER_S)
            batch, self._batch = self._batch, None
            lines, self._unwritten = [*self._unwritten, *batch.lines], []
            try:
                await asyncio.to_thread(self._log.append, b"".join(lines))
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                self._unwritten = lines
                batch.durable.set_exception(error)
                # Nobody waits for the record of a failed request; that is no bug.
                batch.durable.exception()
            else:
                batch.durable.set_result(None)


@dataclass(slots=True)
class _Batch:
    """Records that become durable together."""

    durable: asyncio.Future[None]
    lines: list[bytes] = field(default_factory=list)


def read_journal(store: Store, run_id: str) -> JournalContent:
    """Everything durable that a run wrote, from all its writers."""
    attempts: list[Attempt] = []
    outcomes: dict[str, ReportOutcome] = {}
    for key in store.list(journal_folder(run_id)):
        for record in _records(store.read(key)):
            if isinstance(record, Attempt):
                attempts.append(record)
            else:
                outcomes[record.report_id] = record
    return JournalContent(tuple(attempts), outcomes)


def journal_folder(run_id: str) -> str:
    """The folder of a run's journal."""
    return f"runs/{run_id}/journal"


def _line(record: Attempt | ReportOutcome) -> bytes:
    kind = "attempt" if isinstance(record, Attempt) else "outcome"
    # What could not be read back is refused here.
    fields = _KINDS[kind].dump_json(record, warnings="error")
    return b'{"kind":"' + kind.encode() + b'",' + fields[1:] + b"\n"


def _records(data: bytes) -> Iterator[Attempt | ReportOutcome]:
    whole, _, _ = data.rpartition(b"\n")
    for line in whole.split(b"\n") if whole else ():
        fields: dict[str, Any] = from_json(line)
        yield _KINDS[fields.pop("kind")].validate_python(fields)


_KINDS: dict[str, TypeAdapter[Any]] = {
    "attempt": TypeAdapter(Attempt),
    "outcome": TypeAdapter(ReportOutcome),
}
