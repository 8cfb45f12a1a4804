"""Hosts that fail in every way at once, by the chance of a seeded generator."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.pace import Pace
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import RequestFailed
from tasks.core.records import Attempt
from tasks.core.settings import HostAddress
from tests.fakes import MODEL, PROBE, Dispatching, NoJitter, prompting, segment, until

LOAD = ""
"""The text of the request by which a host loads the model."""
Asked = dict[asyncio.Task[Reply], SegmentWork]
Play = Callable[[str], Awaitable[int | None]]
"""What a host does with a path, or with the text of a request: waits, raises, gives a status."""
_REPORT = re.compile(r"<report>\n(.*)\n</report>", re.DOTALL)
_ALL_ANSWERS = {
    "version": "0.33.0",
    "models": [{"model": f"{MODEL}:latest", "digest": "d"}],
    "message": {"role": "assistant", "content": "x"},
    "done": True,
    "done_reason": "stop",
    "eval_count": 10,
    "eval_duration": 10_000_000,
}


def played(name: str, slots: int | None, play: Play, pace: Pace | None = None) -> Host:
    """A host that answers well, at once, after whatever `play` does."""

    async def handle(request: httpx.Request) -> httpx.Response:
        what = request.url.path
        if what == "/api/chat":
            messages = json.loads(request.content)["messages"]
            what = messages[-1]["content"] if messages else LOAD
            what = match[1] if (match := _REPORT.fullmatch(what)) else what
        status = await play(what)
        return httpx.Response(status or 200, json=_ALL_ANSWERS if not status else {"error": "x"})

    client = HostClient(HostAddress(f"http://{name}:11434"), httpx.MockTransport(handle))
    return Host(client, slots, pace=pace or Pace())


@asynccontextmanager
async def running(
    *hosts: Host, observe: events.Observer = events.ignore, **options: Any
) -> AsyncIterator[Dispatching]:
    """A dispatcher in front of these hosts, for 30 s at most."""
    records: list[Attempt] = []
    told: list[events.Event] = []

    def tell(event: events.Event) -> None:
        told.append(event)
        observe(event)

    dispatcher = Dispatcher(
        hosts,
        prompting(),
        "d",
        record=records.append,
        observe=tell,
        **{"rng": NoJitter(), **options},
    )
    async with dispatcher, asyncio.timeout(30):
        yield Dispatching(dispatcher, list(hosts), records, told)


SEGMENTS = 150
STEPS = 40
"""Outages, silences, leaves and cancels in a run."""
SHORTER = {
    "health.FIRST_COOL_DOWN_S": 0.05,
    "health.LONGEST_COOL_DOWN_S": 0.2,
    "sending.SETTLE_S": 0.01,
    "dispatcher.LOOK_AGAIN_EVERY_S": 0.05,
    "retry.FIRST_DELAY_S": 0.01,
    "retry.LONGEST_DELAY_S": 0.1,
    "retry.RETRIES_PER_S": 200.0,
}
PATIENTS = [f"Le patient {number:03}" for number in range(60)]
POISON, HANG = "poison", "hang " * 50


class TwoSpeeds(Pace):
    """A pace that soon takes the texts that hang for stalled, and hardly ever another."""

    __slots__ = ()

    def after(self, tokens: int, wall_s: float) -> Pace:  # noqa: ARG002 - learns nothing
        """Stay as it is."""
        return self

    def deadline_s(self, tokens: int) -> float:
        """Only the texts that hang are as long."""
        return 0.3 if tokens >= segment(HANG).predicted_tokens else 10.0

    def probe_deadline_s(self) -> float:
        """Longer than any silence."""
        return 10.0


class Troubled:
    """A host that breaks every request for a poisoned text, and one at most for any other.

    That one is counted in `broken`, whichever host breaks it: all else that befalls a request
    is the host's own state.
    """

    def __init__(self, name: str, rng: random.Random, broken: Counter[str]) -> None:
        self.slots = rng.choice([1, 2, 3])
        self.host = played(name, self.slots, self.play, TwoSpeeds())
        self.rng = rng
        self.broken = broken
        self.is_up, self.speaks = asyncio.Event(), asyncio.Event()
        self.is_up.set()
        self.speaks.set()
        self.in_flight = self.peak = 0

    async def play(self, what: str) -> int | None:
        """Do what the state of the host, and chance, make of it."""
        if not self.is_up.is_set():
            raise httpx.ConnectError("down")
        if what.startswith("/") or what == LOAD:
            await self.speaks.wait()
            return None
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return None if what == PROBE else await self._chat(what)
        finally:
            self.in_flight -= 1

    async def _chat(self, text: str) -> int | None:
        if HANG not in text:
            await asyncio.sleep(0.05 * self.rng.random())
            await self.speaks.wait()
        may_break, chance = POISON in text or not self.broken[text], self.rng.random()
        if HANG in text and may_break:
            self.broken[text] += 1
            await asyncio.Event().wait()
        if not self.is_up.is_set():
            self.broken[text] += may_break
            raise httpx.ReadError("down") if may_break else httpx.ConnectError("down")
        if chance > 0.97:
            return 503 if chance > 0.98 else 404
        if may_break and (POISON in text or chance > 0.92):
            self.broken[text] += 1
            return 500
        return None


def a_work(number: int, rng: random.Random) -> SegmentWork:
    """A segment of some length; a few are poisoned, a few hang."""
    word = POISON if number % 49 == 0 else HANG if number % 24 == 1 else "Le "
    return SegmentWork(segment(f"{word} {'x' * rng.randrange(150)} {number}", str(number)))


async def trouble(
    run: Dispatching, hosts: list[Troubled], asked: Asked, rng: random.Random
) -> set[asyncio.Task[Reply]]:
    """Outages, silences, hosts that leave and come back; returns the asks that were cancelled."""
    loop, cancelled = asyncio.get_running_loop(), set()
    for _ in range(STEPS):
        await asyncio.sleep(0.06 * rng.random())
        each, lasts_s = rng.choice(hosts), 0.25 * rng.random()
        begun = [ask for ask, work in asked.items() if work.requests and not ask.done()]
        match rng.choice(["outage", "silence", "leave", "cancel", "cancel"]):
            case "outage":
                each.is_up.clear()
                loop.call_later(lasts_s, each.is_up.set)
            case "silence":
                each.speaks.clear()
                loop.call_later(lasts_s, each.speaks.set)
            case "leave" if each is not hosts[0]:
                run.dispatcher.drain_host(each.host.url)
                loop.call_later(lasts_s, run.dispatcher.add_host, each.host)
            case "cancel" if begun:
                cancelled.add(ask := rng.choice(begun))
                ask.cancel()
    return cancelled


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ask ends, and with a reply unless it is poisoned or was cancelled.

    A fault of a host costs no segment a try. No host ever has more in flight than its slots;
    in the end all are up and free again, and each request is told, and known, exactly once.
    """
    for name, seconds in SHORTER.items():
        monkeypatch.setattr(f"tasks.core.dispatch.{name}", seconds)
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, error: errors.append(error))
    rng, broken = random.Random(seed), Counter[str]()
    hosts = [Troubled(name, rng, broken) for name in "abc"]
    works = [a_work(number, rng) for number in range(SEGMENTS)]
    async with running(
        *(each.host for each in hosts), rng=random.Random(seed), listen_every_s=0.05
    ) as run:

        async def ask(work: SegmentWork, after_s: float) -> Reply:
            await asyncio.sleep(after_s)
            return await run.dispatcher.ask(work)

        asked = {asyncio.create_task(ask(work, rng.random())): work for work in works}
        cancelled = await trouble(run, hosts, asked, rng)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: all(each.host.takes_requests for each in hosts))
        await until(lambda: not any(each.host.in_flight for each in hosts))
        accounts = run.dispatcher.accounts().values()
        assert not any(each.host.is_shielded for each in hosts)
        assert not run.dispatcher._requests.flights
    assert errors == []
    known = Counter((record.report_id, record.attempt) for record in run.records)
    for (task, work), end in zip(asked.items(), ended, strict=True):
        text, report_id = work.segment.text, work.segment.report_id
        wanted = RequestFailed if POISON in text else Reply
        assert type(end) is (asyncio.CancelledError if task in cancelled else wanted)
        assert work.tries.failures <= broken[text]
        if isinstance(end, Reply):
            known[report_id, end.sent.attempt] += 1
        # An answer may have come in the moment in which its ask was cancelled.
        missing = work.requests - sum(known[report_id, n + 1] for n in range(work.requests))
        assert missing == 0 or (missing == 1 and task in cancelled)
    assert set(known.values()) == {1}
    assert all(each.peak <= each.slots for each in hosts)
    sent, requests_ended = run.told_of(events.RequestSent), run.told_of(events.RequestEnded)
    assert len(sent) == len(requests_ended) == sum(work.requests for work in works)
    assert len(sent) == sum(account.requests for account in accounts)
