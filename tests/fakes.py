"""Values and working stand-ins that the tests of several packages share."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deployments.local_ollama import LocalServer, Settings
from tasks.core import schema
from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.pace import Pace
from tasks.core.records import Attempt, AttemptOutcome, Measures, Purpose, Segment
from tasks.core.settings import HostAddress
from tasks.core.storage.store import Store
from tasks.core.translate.profiles import Prompting, choose_profile
from tasks.core.translate.segments import predicted_tokens

MODEL = "simulated-fr-en"
NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
PROBE = "."
"""The text of the request by which a host that was down proves itself."""


def prompting(num_ctx: int = 4096, model: str = MODEL) -> Prompting:
    """How the runs of these tests ask."""
    return Prompting(choose_profile(model), model, "fr", "en", num_ctx)


def segment(text: str, report_id: str = "r", index: int = 0) -> Segment:
    """A segment whose reuse key is made from its text."""
    return Segment(report_id, index, text, f"key of {text}", predicted_tokens(text))


def digest_of(server: LocalServer) -> str:
    """The digest of the one model a server has."""
    return server.engine.card.digest


def times_asked(server: LocalServer) -> Counter[str]:
    """How many requests a server received for each text, but for probes."""
    return Counter(request.text for request in server.stats.requests if request.text != PROBE)


def times_asked_in_all(servers: Iterable[LocalServer]) -> Counter[str]:
    """How many requests several servers received for each text."""
    return sum((times_asked(server) for server in servers), Counter())


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until the condition holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        await asyncio.sleep(0.005)


class Impatient(Pace):
    """A pace whose deadline is always the same short time."""

    __slots__ = ()

    def after(self, tokens: int, wall_s: float) -> Pace:  # noqa: ARG002 - learns nothing
        """Stay as it is."""
        return self

    def deadline_s(self, tokens: int) -> float:  # noqa: ARG002 - the same for every length
        """Half a second."""
        return 0.5


class NoJitter(random.Random):
    """A generator for delays that always draws next to nothing."""

    def random(self) -> float:
        """Hardly any delay."""
        return 0.001


@dataclass(slots=True)
class Dispatching:
    """A dispatcher in front of servers, and all it recorded and told."""

    dispatcher: Dispatcher
    hosts: list[Host]
    records: list[Attempt] = field(default_factory=list)
    told: list[events.Event] = field(default_factory=list)

    def told_of(self, kind: type[events.Event]) -> list[events.Event]:
        """The events of one kind, in order."""
        return [event for event in self.told if isinstance(event, kind)]


@asynccontextmanager
async def dispatching(
    urls_and_slots: Sequence[tuple[str, int | None]],
    model_digest: str,
    *,
    rng: random.Random | None = None,
    pace: Pace | None = None,
    bound: Prompting | None = None,
    **options: Any,
) -> AsyncIterator[Dispatching]:
    """A dispatcher in front of these hosts."""
    hosts = [
        Host(HostClient(HostAddress(url)), slots, pace=pace or Pace())
        for url, slots in urls_and_slots
    ]
    records: list[Attempt] = []
    told: list[events.Event] = []
    dispatcher = Dispatcher(
        hosts,
        bound or prompting(),
        model_digest,
        record=records.append,
        observe=told.append,
        rng=rng or random.Random(1),
        **options,
    )
    async with dispatcher:
        yield Dispatching(dispatcher, hosts, records, told)


@asynccontextmanager
async def serving(
    *settings: Settings, faults: Mapping[int, Sequence[Mapping[str, Any]]] | None = None
) -> AsyncIterator[list[LocalServer]]:
    """Servers in this event loop; `faults` by the number of the server."""
    servers = [
        LocalServer(each, (faults or {}).get(number, ())) for number, each in enumerate(settings)
    ]
    for server in servers:
        await server.start()
    try:
        yield servers
    finally:
        for server in servers:
            await server.stop()


def an_attempt(text: str | None = "the kidney", **fields: Any) -> Attempt:
    """An accepted request with every field filled in, unless told otherwise."""
    given: dict[str, Any] = {
        "report_id": "r1",
        "segment": 2,
        "attempt": 3,
        "purpose": Purpose.REPAIR,
        "outcome": AttemptOutcome.ACCEPTED,
        "reuse_key": "k" * 64,
        "host": "http://gpu1:11434",
        "ollama_version": "0.33.0",
        "source_chars": 8,
        "started_at": NOW,
        "finished_at": NOW,
        "measures": Measures(1, 2, 3, 4, 50, 6, 7, 8),
        "text": text,
        "done_reason": "stop",
    }
    return Attempt(**{**given, **fields})


def write_reports(
    store: Store,
    texts: Mapping[str, str],
    *,
    dataset: str = "ds",
    source_file: str = "notes.csv",
    source: Mapping[str, Sequence[object]] | None = None,
    file: str = "a",
) -> None:
    """A file of the dataset's `reports`, one row for each id; `source` are its own columns."""
    count = len(texts)
    columns = {name: pa.array(values) for name, values in (source or {}).items()}
    fields = [pa.field(name, values.type) for name, values in columns.items()]
    table_schema = schema.arrow_schema(schema.REPORTS, fields)
    values: dict[str, Any] = {
        "dataset": [dataset] * count,
        "report_id": list(texts),
        "source_file": [source_file] * count,
        "source_row": list(range(1, count + 1)),
        "source_text": list(texts.values()),
        "ingested_at": [NOW] * count,
        "schema_version": [schema.SCHEMA_VERSION] * count,
        **columns,
    }
    arrays = [pa.array(values[item.name], item.type) for item in table_schema]
    with store.staged(f"reports/{dataset}/{file}.parquet") as path:
        pq.write_table(pa.table(arrays, schema=table_schema), path)
