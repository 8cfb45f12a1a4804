"""Slots and segments that nothing may hold for ever, in moments that are easy to miss."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from tasks.core.dispatch import events
from tasks.core.dispatch.bringing_up import MOST_MISSED
from tasks.core.dispatch.retry import Tries
from tasks.core.dispatch.speed import Speed
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import ErrorKind, RequestFailed, RunError
from tasks.core.records import AttemptOutcome, Purpose
from tests.core.dispatch.test_chaos import HANG, PATIENTS, TwoSpeeds, played, running
from tests.core.dispatch.test_leaving import Heard, ask, ask_all
from tests.fakes import PROBE, Dispatching, segment, until

WORKERS = 4


async def all_up(run: Dispatching, *tokens_per_s: float) -> None:
    """Wait until all hosts take requests, and have them taken to be so fast."""
    await until(lambda: all(host.takes_requests for host in run.hosts))
    for host, speed in zip(run.hosts, tokens_per_s, strict=False):
        host.speed = Speed(speed, 1.0)


async def test_quarantine_while_work_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment in quarantine does not wait for work that comes only when it has ended."""
    monkeypatch.setattr("tasks.core.dispatch.health.FAULTS_IN_A_ROW", 1000)
    firsts = [f"poison {number}" for number in range(WORKERS)] + PATIENTS[-WORKERS:]
    shards = [[first, *PATIENTS[3 * n : 3 * n + 3]] for n, first in enumerate(firsts)]
    ahead = sum(segment(text).predicted_tokens for shard in shards for text in shard)
    heard, workers = Heard(), asyncio.Semaphore(WORKERS)
    hosts = [played(name, 2, heard) for name in "ab"]
    async with running(*hosts, tokens_ahead=ahead, hedge=False) as run:

        async def translate(shard: list[str]) -> list[Reply | BaseException]:
            async with workers:
                run.dispatcher.begun(sum(segment(text).predicted_tokens for text in shard))
                return await ask_all(run, shard)

        ended = [end for each in await asyncio.gather(*map(translate, shards)) for end in each]
    assert Counter(type(end) for end in ended) == {Reply: 28, RequestFailed: WORKERS}
    texts = Counter(text for shard in shards for text in shard)
    assert Counter(heard.texts) == texts + Counter(firsts[:WORKERS] * 2)


async def test_quarantine_while_work_never_comes() -> None:
    """A segment in quarantine ends though work that was announced is never asked for."""
    heard = Heard()
    async with running(played("a", 2, heard), played("b", 2, heard), tokens_ahead=100) as run:
        with pytest.raises(RequestFailed):
            await ask(run, "poison")
    assert heard.texts == ["poison"] * 3


@pytest.mark.parametrize("slots", [1, 2])
async def test_the_last_host_proves_itself_while_work_waits(slots: int) -> None:
    """A suspect gets a slot for its probe, even if it has one slot and more work than that."""
    heard = Heard(HANG)

    async def play(what: str) -> int | None:
        if what in PATIENTS:
            await asyncio.sleep(0.01)
        elif what == PROBE:
            heard.go.set()
        return await heard(what)

    async with running(played("a", slots, play, TwoSpeeds())) as run:
        ended = await ask_all(run, [HANG, *PATIENTS])
        assert run.hosts[0].takes_requests
    assert {type(end) for end in ended} == {Reply}
    assert Counter(heard.texts) == {HANG: 2, PROBE: 1, **dict.fromkeys(PATIENTS, 1)}
    assert heard.texts.index(PROBE) < len(PATIENTS)
    assert len(run.told_of(events.HostUp)) == 2
    assert run.told_of(events.HostDown) == []


@pytest.mark.parametrize(("moment", "sent"), [(events.RequestEnded, 2), (events.RequestSent, 3)])
async def test_an_ask_that_is_cancelled_as_it_is_sent(
    moment: type[events.Event], sent: int
) -> None:
    """Cancelled as its slot is freed, or as its request gets it, it leaves the slot to the next."""
    heard, asked = Heard("first"), list[asyncio.Task[Reply]]()

    def observe(event: events.Event) -> None:
        if isinstance(event, moment) and asked:
            asked.pop().cancel()

    async with running(played("a", 1, heard), observe=observe) as run:
        first = ask(run, "first")
        await until(lambda: heard.texts == ["first"])
        unwanted = ask(run, "unwanted")
        asked.append(unwanted)
        await until(lambda: "1 queued" in repr(run.dispatcher))
        heard.go.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await unwanted
        assert isinstance(await ask(run, "last"), Reply)
        assert run.hosts[0].in_flight == 0
    assert heard.texts == ["first", "last"]
    assert len(run.told_of(events.RequestSent)) == len(run.told_of(events.RequestEnded)) == sent
    assert [record.report_id for record in run.records] == ["unwanted"] * (sent - 2)


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_no_copy_of_what_nobody_waits_for(*, is_at_once: bool) -> None:
    """A segment whose asker has gone is not sent to a free host, however late it is.

    Its request may go on for a while: in the moment of the cancelling, or while it is ended.
    """
    unwanted, heard, lingers = SegmentWork(segment("x" * 200)), Heard("quick"), asyncio.Event()

    async def play(what: str) -> int | None:
        if what.startswith("x"):
            try:
                await asyncio.Event().wait()
            finally:
                await lingers.wait()
        return await heard(what)

    def observe(event: events.Event) -> None:
        if is_at_once and isinstance(event, events.RequestEnded):
            late.cancel()

    async with running(played("a", 1, play), played("b", 1, play), observe=observe) as run:
        await all_up(run, 1000.0, 900.0)
        late = ask(run, unwanted)
        await until(lambda: run.hosts[0].in_flight == 1)
        quick = ask(run, "quick")
        await until(lambda: heard.texts == ["quick"])
        run.hosts[0].speed, run.hosts[1].speed = Speed(1.0, 1.0), Speed(100_000.0, 1.0)
        if not is_at_once:
            late.cancel()
            await asyncio.wait({late})
        heard.go.set()
        await quick
        run.dispatcher._fill()
        lingers.set()
        await asyncio.wait({late})
        await ask(run, "last")
    assert late.cancelled()
    assert unwanted.requests == len(run.records) == 1


async def test_silence_before_the_first_step() -> None:
    """A request that has not begun when its host falls silent is sent anew, at no cost in tries."""
    works = [SegmentWork(segment(text)) for text in ("hang", "late")]
    heard, missed, late = Heard("hang"), 0, list[asyncio.Task[Reply]]()

    async def play(what: str) -> int | None:
        nonlocal missed
        if what == "/api/version" and heard.texts == ["hang"] and missed < MOST_MISSED:
            missed += 1
            if missed == MOST_MISSED:
                late.append(ask(run, works[1]))
                await asyncio.sleep(0)  # its request is made, and has not begun
                heard.go.set()
            raise httpx.ReadTimeout("silent")
        return await heard(what)

    async with running(played("a", 2, play), listen_every_s=0.05) as run:
        await ask(run, works[0])
        await late[0]
        assert run.hosts[0].in_flight == 0
    assert heard.texts[:1] + sorted(heard.texts[1:]) == ["hang", PROBE, "hang", "late"]
    assert [work.tries for work in works] == [Tries(unheard=1)] * 2
    assert [record.error_kind for record in run.records] == [ErrorKind.TIMEOUT] * 2


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_shield_beside_a_probe(*, is_cancelled: bool) -> None:
    """However the request in quarantine ends the host gets others, though its probe is out."""
    heard, lists, probe = Heard("poison"), asyncio.Event(), asyncio.Event()

    async def play(what: str) -> int | None:
        if what == "/api/tags" and heard.texts:
            await lists.wait()
        status = await heard(what)
        if what == PROBE:
            await probe.wait()
        return 404 if what == "odd" and heard.texts == ["odd"] else status

    quarantined = SegmentWork(segment("poison"), tries=Tries(2, in_quarantine=True))
    async with running(played("a", 2, play)) as run:
        await all_up(run)
        await ask(run, "odd")
        broken = ask(run, quarantined)
        await until(lambda: run.hosts[0].is_shielded)
        lists.set()
        await until(lambda: PROBE in heard.texts)
        if is_cancelled:
            broken.cancel()
        heard.go.set()
        with pytest.raises(asyncio.CancelledError if is_cancelled else RequestFailed):
            await broken
        assert isinstance(await ask(run, "next"), Reply)
        assert not run.hosts[0].is_shielded
        assert len(run.told_of(events.HostUp)) == 1


async def test_both_copies_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer counts; the other request is told, with what it generated, as one of no use."""
    monkeypatch.setattr("tasks.core.dispatch.dispatcher.LOOK_AGAIN_EVERY_S", 0.02)
    heard, wanted = Heard("twice"), SegmentWork(segment("twice"))
    async with running(played("a", 1, heard), played("b", 1, heard)) as run:
        await all_up(run, 1000.0, 900.0)
        asked = ask(run, wanted)
        await until(lambda: heard.texts == ["twice", "twice"])
        heard.go.set()
        reply = await asked
        await until(lambda: not any(host.in_flight for host in run.hosts))
        accounts = run.dispatcher.accounts().values()
    (record,) = run.records
    assert record.outcome is AttemptOutcome.CANCELLED
    assert {record.purpose, reply.sent.purpose} == {Purpose.TRANSLATE, Purpose.HEDGE}
    assert {record.attempt, reply.sent.attempt} == {1, wanted.requests}
    assert record.measures.output_tokens == reply.measures.output_tokens == 10
    assert [account.requests for account in accounts] == [1, 1]


async def test_an_ask_after_the_end() -> None:
    """Whoever asks when the dispatcher is left, or was, learns that the run is over."""
    heard, late = Heard(), list[BaseException | None]()

    async def play(what: str) -> int | None:
        await heard(what)
        if what == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                ((done,), _) = await asyncio.wait({ask(run, "late")}, timeout=5)
                late.append(done.exception())
        return None

    async with running(played("a", 4, play)) as run:
        asked = ask(run, "hang")
        await until(lambda: heard.texts == ["hang"])
    assert [type(error) for error in late] == [RunError]
    with pytest.raises(RunError, match="over"):
        await ask(run, "later")
    assert asked.cancelled()
    assert heard.texts == ["hang"]
