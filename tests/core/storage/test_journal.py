from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic_core import PydanticSerializationError

from tasks.core.errors import ErrorKind, StorageError
from tasks.core.records import Attempt, AttemptOutcome, Measures, Purpose, ReportOutcome, Status
from tasks.core.storage.journal import JournalWriter, journal_folder, read_journal
from tasks.core.storage.store import AppendLog, Store
from tests.fakes import NOW, an_attempt

FULL_OUTCOME = ReportOutcome(
    report_id="r1",
    status=Status.FLAGGED,
    translated_text="the “kidney”\u2028\n \U0001fac0",
    segment_count=2,
    attempts=3,
    measures=Measures(1, 2, 3, 4, 50, 6, 7, 8),
    flags=("numbers", "length"),
    host="http://gpu1:11434",
    ollama_version="0.33.0",
    done_reason="stop",
    error_kind=ErrorKind.CUT,
    error="it was cut",
    started_at=NOW,
    finished_at=NOW + timedelta(microseconds=1),
)
BARE_OUTCOME = ReportOutcome("r2", Status.PASSED, "12", 0, 0, Measures())
FAILED_ATTEMPT = an_attempt(
    None,
    outcome=AttemptOutcome.FAILED,
    purpose=Purpose.TRANSLATE,
    ollama_version=None,
    done_reason=None,
    error_kind=ErrorKind.TIMEOUT,
    error="no answer",
)


class GatedLog(AppendLog):
    """A log whose writes wait until they are let through, and fail when told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.began = threading.Event()
        self.appended: list[bytes] = []
        self.fails = False

    def append(self, data: bytes) -> None:
        """Wait, then append or fail."""
        self.began.set()
        assert self.gate.wait(30)
        if self.fails:
            raise StorageError("cannot write the log: No space left on device")
        self.appended.append(data)
        super().append(data)


@dataclass
class GatedStore(Store):
    """A store of one gated log."""

    folder: Path
    logs: list[GatedLog] = field(default_factory=list)

    def __post_init__(self) -> None:
        Store.__init__(self, self.folder)

    def append_log(self, key: str) -> AppendLog:
        """A log that waits."""
        self.logs.append(GatedLog(self.path(key)))
        return self.logs[-1]


async def write_all(store: Store, *records: Attempt | ReportOutcome, writer: str = "w") -> None:
    """A journal with these records."""
    async with JournalWriter(store, "run", writer) as journal:
        for record in records:
            await journal.write(record)


def all_filled(record: Attempt | ReportOutcome) -> bool:
    """Whether no field is left at nothing, so that a round trip of all is tested."""
    return all(getattr(record, item.name) for item in dataclasses.fields(record))


async def test_every_field_comes_back(tmp_path: Path) -> None:
    """Records come back equal, field by field, with their types."""
    store = Store(tmp_path)
    full_attempt = an_attempt(error_kind=ErrorKind.EMPTY, error="odd")
    assert all_filled(full_attempt)
    assert all_filled(FULL_OUTCOME)
    await write_all(store, full_attempt, FAILED_ATTEMPT, FULL_OUTCOME, BARE_OUTCOME)
    content = read_journal(store, "run")
    assert content.attempts == (full_attempt, FAILED_ATTEMPT)
    assert content.outcomes == {"r1": FULL_OUTCOME, "r2": BARE_OUTCOME}
    read = content.attempts[0]
    assert isinstance(read.purpose, Purpose)
    assert isinstance(read.outcome, AttemptOutcome)
    assert isinstance(content.outcomes["r1"].status, Status)


async def test_lines_of_json(tmp_path: Path) -> None:
    """The journal is one JSON object a line, whatever line breaks the texts hold."""
    store = Store(tmp_path)
    await write_all(store, an_attempt("a\nb\r\u2028\u0085c"), BARE_OUTCOME)
    (key,) = store.list(journal_folder("run"))
    lines = store.read(key).split(b"\n")
    assert [json.loads(line)["kind"] for line in lines[:-1]] == ["attempt", "outcome"]
    assert lines[-1] == b""
    assert read_journal(store, "run").attempts[0].text == "a\nb\r\u2028\u0085c"


def test_no_journal(tmp_path: Path) -> None:
    """A run that wrote nothing has an empty journal."""
    content = read_journal(Store(tmp_path), "run")
    assert content.attempts == ()
    assert content.outcomes == {}


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
async def test_a_torn_last_line_never_counted(tmp_path: Path, keep: int) -> None:
    """What is left of a record that was being written when the process died is ignored."""
    store = Store(tmp_path)
    await write_all(store, BARE_OUTCOME, FULL_OUTCOME)
    (key,) = store.list(journal_folder("run"))
    first, second = store.read(key).splitlines(keepends=True)
    store.put(key, first + second[:keep])
    assert read_journal(store, "run").outcomes == {"r2": BARE_OUTCOME}


async def test_only_a_torn_line(tmp_path: Path) -> None:
    """A journal that is nothing but a torn line holds nothing."""
    store = Store(tmp_path)
    store.put(f"{journal_folder('run')}/w.jsonl", b'{"kind": "att')
    assert read_journal(store, "run").attempts == ()


async def test_several_writers(tmp_path: Path) -> None:
    """All writers of a run count; of a report's outcomes the last one written does."""
    store = Store(tmp_path)
    later = dataclasses.replace(BARE_OUTCOME, status=Status.OK)
    await write_all(store, BARE_OUTCOME, later, writer="one")
    await write_all(store, FULL_OUTCOME, writer="two")
    await write_all(Store(tmp_path), an_attempt(), writer="one")
    content = read_journal(store, "run")
    assert content.outcomes == {"r1": FULL_OUTCOME, "r2": later}
    assert content.attempts == (an_attempt(),)


async def test_many_share_a_flush(tmp_path: Path) -> None:
    """Records that come while a flush is under way go to disk together in the next one."""
    store = GatedStore(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        (log,) = store.logs
        first = asyncio.create_task(journal.write(an_attempt()))
        await asyncio.to_thread(log.began.wait, 30)
        others = [asyncio.create_task(journal.write(BARE_OUTCOME)) for _ in range(99)]
        await asyncio.sleep(0)
        assert not first.done()
        log.gate.set()
        await asyncio.gather(first, *others)
    assert [data.count(b"\n") for data in log.appended] == [1, 99]


async def test_durable_on_return(tmp_path: Path) -> None:
    """A write returns when its record is on disk, not before."""
    store = GatedStore(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        writing = asyncio.create_task(journal.write(BARE_OUTCOME))
        await asyncio.to_thread(store.logs[0].began.wait, 30)
        assert not writing.done()
        assert read_journal(store, "run").outcomes == {}
        store.logs[0].gate.set()
        await writing
        assert read_journal(store, "run").outcomes == {"r2": BARE_OUTCOME}


async def test_a_failed_flush_fails_its_writers_only(tmp_path: Path) -> None:
    """Whoever waited for a flush that failed learns of it; its records come with the next."""
    store = GatedStore(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        (log,) = store.logs
        first = asyncio.create_task(journal.write(an_attempt()))
        await asyncio.to_thread(log.began.wait, 30)
        together = [asyncio.create_task(journal.write(BARE_OUTCOME)) for _ in range(3)]
        await asyncio.sleep(0)
        log.fails = True
        log.gate.set()
        failed = await asyncio.gather(first, *together, return_exceptions=True)
        log.fails = False
        await journal.write(FULL_OUTCOME)
    assert [type(error) for error in failed] == [StorageError] * 4
    assert read_journal(store, "run").outcomes == {"r1": FULL_OUTCOME, "r2": BARE_OUTCOME}
    assert read_journal(store, "run").attempts == (an_attempt(),)


async def test_settling(tmp_path: Path) -> None:
    """What could not be written is written, or that it still cannot be is told."""
    store = GatedStore(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        (log,) = store.logs
        log.gate.set()
        await journal.settle()
        log.fails = True
        with pytest.raises(StorageError):
            await journal.write(BARE_OUTCOME)
        with pytest.raises(StorageError):
            await journal.settle()
        log.fails = False
        await journal.settle()
        await journal.settle()
    assert read_journal(store, "run").outcomes == {"r2": BARE_OUTCOME}


async def test_a_failed_flush_that_nobody_waits_for(tmp_path: Path) -> None:
    """A record that is only noted waits for the next flush, without a word."""
    store = GatedStore(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        (log,) = store.logs
        log.fails = True
        log.gate.set()
        journal.note(an_attempt())
        assert journal._flusher is not None
        await journal._flusher
        log.fails = False
        await journal.write(BARE_OUTCOME)
    assert read_journal(store, "run").outcomes == {"r2": BARE_OUTCOME}
    assert read_journal(store, "run").attempts == (an_attempt(),)


async def test_a_cancelled_waiter_harms_nobody(tmp_path: Path) -> None:
    """One who stops waiting leaves the flush to the others; even its own record is written."""
    store = GatedStore(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        (log,) = store.logs
        cancelled = asyncio.create_task(journal.write(BARE_OUTCOME))
        patient = asyncio.create_task(journal.write(FULL_OUTCOME))
        await asyncio.to_thread(log.began.wait, 30)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert cancelled.cancelled()
        log.gate.set()
        await patient
    assert set(read_journal(store, "run").outcomes) == {"r1", "r2"}


async def test_leaving_waits_for_what_was_noted(tmp_path: Path) -> None:
    """Records that nobody waits for are on disk when the writer is left."""
    store = Store(tmp_path)
    async with JournalWriter(store, "run", "w") as journal:
        for number in range(50):
            journal.note(an_attempt(segment=number))
    attempts = read_journal(store, "run").attempts
    assert [attempt.segment for attempt in attempts] == list(range(50))


async def test_what_does_not_belong_in_a_journal(tmp_path: Path) -> None:
    """A record that cannot be read back is refused when it is written."""
    async with JournalWriter(Store(tmp_path), "run", "w") as journal:
        with pytest.raises(PydanticSerializationError, match="Expected `str`"):
            journal.note(an_attempt(b"text"))  # type: ignore[arg-type]
        await journal.write(BARE_OUTCOME)
    assert set(read_journal(Store(tmp_path), "run").outcomes) == {"r2"}
