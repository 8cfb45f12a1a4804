from __future__ import annotations

import asyncio
import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Sequence

import httpx
import pytest

from deployments.local_ollama import LocalServer, Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher, Ticket
from tasks.core.dispatch.fleet import MOST_MISSED
from tasks.core.dispatch.health import HostState
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.retry import FIRST_DELAY_S, MOST_FAILURES
from tasks.core.dispatch.speed import Speed
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import Attempt, AttemptOutcome, Purpose
from tasks.core.settings import HostAddress, PolicyName
from tests.fakes import (
    MODEL,
    Impatient,
    NoJitter,
    digest_of,
    dispatching,
    prompting,
    segment,
    serving,
    times_asked,
    times_asked_in_all,
    until,
)

INSTANT = Settings(slots=2).instant()
BASELINES: list[PolicyName] = ["random", "round_robin", "least_connections"]
POLICIES: list[PolicyName] = ["pull", *BASELINES]


class Patient(random.Random):
    """A generator for delays that always draws half of the longest."""

    def random(self) -> float:
        """Half."""
        return 0.5


def addresses(servers: Sequence[LocalServer]) -> list[tuple[str, int]]:
    """Where the servers are, and the slots they have."""
    return [(server.url, server.settings.slots) for server in servers]


def texts(count: int, word: str = "patient") -> list[str]:
    """Different texts of nearly the same length."""
    return [f"Le {word} {number:03}" for number in range(count)]


def expected(text: str) -> str:
    """What the local server makes of such a text."""
    return text.replace("Le", "The")


async def ask_all(dispatcher: Dispatcher, wanted: Sequence[str]) -> list[Reply]:
    """The replies to all of these texts; one that fails raises, and none may hang."""
    async with asyncio.timeout(60):
        asked = (dispatcher.ask(SegmentWork(segment(text, text))) for text in wanted)
        return list(await asyncio.gather(*asked))


def answered_times(servers: Sequence[LocalServer]) -> Counter[str]:
    """How often each text was answered, over all servers."""
    return Counter(
        request.text
        for server in servers
        for request in server.stats.requests
        if request.outcome == "answered" and request.text != "."
    )


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_segment_is_answered_once(policy: PolicyName) -> None:
    """Every segment gets its own answer, asked for exactly once, whatever the policy."""
    wanted = texts(60)
    async with (
        serving(INSTANT, INSTANT, INSTANT) as servers,
        dispatching(addresses(servers), digest_of(servers[0]), policy=policy) as run,
    ):
        replies = await ask_all(run.dispatcher, wanted)
        accounts = run.dispatcher.accounts()
        assert times_asked_in_all(servers) == Counter(wanted)
    assert [reply.answer.content for reply in replies] == [expected(text) for text in wanted]
    assert run.records == []
    assert sum(account.requests for account in accounts.values()) == 60
    assert Counter(reply.sent.host for reply in replies) == {
        url: account.requests for url, account in accounts.items() if account.requests
    }
    assert all(account.peak_in_flight <= account.slots for account in accounts.values())
    sent = [event.host for event in run.told if isinstance(event, events.RequestSent)]
    ended = [event.host for event in run.told if isinstance(event, events.RequestEnded)]
    assert sorted(sent) == sorted(ended) == sorted(reply.sent.host for reply in replies)


async def test_a_reply_tells_all_about_its_request() -> None:
    """A reply carries the host, its version, the count of requests and both clocks' times."""
    async with (
        serving(Settings(slots=1, decode_rate=50, load_seconds=0, prefill_rate=0)) as (server,),
        dispatching(addresses([server]), digest_of(server)) as run,
    ):
        first, second = await ask_all(run.dispatcher, texts(2))
    for reply in (first, second):
        assert reply.sent.host == server.url
        assert reply.sent.ollama_version == "0.33.0-simulated"
        assert (reply.sent.attempt, reply.sent.purpose) == (1, Purpose.TRANSLATE)
        assert reply.sent.started_at < reply.finished_at
        assert reply.measures.request_wall_ns >= reply.measures.total_duration_ns > 0
    waits = sorted(reply.measures.queue_wait_ns for reply in (first, second))
    assert waits[1] > min(first.measures.request_wall_ns, second.measures.request_wall_ns)


async def test_longest_first() -> None:
    """What waits for one slot is received by the server longest first."""
    wanted = [f"Le patient {'x' * length}" for length in (30, 300, 3, 1200, 90)]
    async with (
        serving(Settings(slots=1).instant()) as (server,),
        dispatching(addresses([server]), digest_of(server)) as run,
    ):
        await ask_all(run.dispatcher, wanted)
    received = [request.text for request in server.stats.requests]
    assert received == sorted(wanted, key=len, reverse=True)


async def test_never_more_in_flight_than_slots() -> None:
    """A server sees as many requests at once as it has slots: all of them, and never more."""
    settings = [
        Settings(slots=slots, decode_rate=40, load_seconds=0, prefill_rate=0) for slots in (3, 1)
    ]
    async with (
        serving(*settings) as servers,
        dispatching(addresses(servers), digest_of(servers[0])) as run,
    ):
        await ask_all(run.dispatcher, texts(12))
        peaks = [account.peak_in_flight for account in run.dispatcher.accounts().values()]
    assert [server.stats.in_flight.peak for server in servers] == [3, 1]
    assert peaks == [3, 1]


async def test_a_slow_and_a_fast_host_share_by_speed() -> None:
    """Late binding gives a host ten times as fast most of the work."""
    settings = [Settings(decode_rate=rate, load_seconds=0, prefill_rate=0) for rate in (300, 30)]
    async with (
        serving(*settings) as servers,
        dispatching(addresses(servers), digest_of(servers[0])) as run,
    ):
        await ask_all(run.dispatcher, texts(24))
    fast, slow = (times_asked(server).total() for server in servers)
    assert fast + slow == 24
    assert slow >= 1
    assert fast > 3 * slow


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_host_that_dies_costs_nothing(policy: PolicyName) -> None:
    """What a dying host had in flight is answered by another; nothing is answered twice."""
    wanted = texts(40)
    settings = Settings(slots=2, decode_rate=300, load_seconds=0, prefill_rate=0)
    async with (
        serving(settings, settings, faults={1: [{"kind": "refuse", "after": 4}]}) as servers,
        dispatching(addresses(servers), digest_of(servers[0]), policy=policy) as run,
    ):
        replies = await ask_all(run.dispatcher, wanted)
        assert not run.hosts[1].takes_requests
    assert [reply.answer.content for reply in replies] == [expected(text) for text in wanted]
    assert answered_times(servers) == Counter(wanted)
    assert {record.host for record in run.records} == {servers[1].url}
    assert all(record.outcome is AttemptOutcome.FAILED for record in run.records)
    reset = [record for record in run.records if record.error_kind is ErrorKind.RESET]
    assert 1 <= len(reset) <= 2
    assert sum(account.requests for account in run.dispatcher.accounts().values()) == 40 + len(
        run.records
    )
    # A request that is on its way when the connections break never gets to the server.
    assert 40 < times_asked_in_all(servers).total() <= 40 + len(reset)
    assert run.dispatcher.accounts()[servers[1].url].failures == len(run.records)
    down = [event for event in run.told if isinstance(event, events.HostDown)]
    assert down
    assert {event.host for event in down} == {servers[1].url}


@pytest.mark.parametrize("policy", POLICIES)
async def test_hosts_that_never_come_up(policy: PolicyName) -> None:
    """Segments bound to hosts that cannot be reached, or lack the model, go to the others."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
        other = Settings(slots=2, model="another").instant()
        async with serving(INSTANT, other) as servers:
            hosts = [*addresses(servers), (gone, 2)]
            digest = digest_of(servers[0])
            async with dispatching(hosts, digest, policy=policy) as run:
                replies = await ask_all(run.dispatcher, texts(20))
    assert {reply.sent.host for reply in replies} == {servers[0].url}
    assert times_asked(servers[1]) == Counter()
    left = [event for event in run.told if isinstance(event, events.HostLeft)]
    assert [event.host for event in left] == [servers[1].url]


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_failed_request_goes_to_another_host(policy: PolicyName) -> None:
    """Where a request failed its segment is not sent again while there is another host."""
    wanted = texts(10)
    fault = {"kind": "status", "status": 500, "contains": "patient", "times": 2}
    async with (
        serving(INSTANT, INSTANT, faults={0: [fault]}) as servers,
        dispatching(addresses(servers), digest_of(servers[0]), policy=policy) as run,
    ):
        replies = await ask_all(run.dispatcher, wanted)
    assert len(run.records) == 2
    assert answered_times(servers) == Counter(wanted)
    by_text = {reply.sent.work.segment.text: reply for reply in replies}
    for record in run.records:
        again = by_text[record.report_id]
        assert record.error_kind is ErrorKind.SERVER_ERROR
        assert (record.host, record.attempt) == (servers[0].url, 1)
        assert (again.sent.host, again.sent.attempt) == (servers[1].url, 2)


async def test_a_host_that_hangs() -> None:
    """A request past its deadline is given to another host; its own has to prove itself."""
    wanted = texts(6)
    async with (
        serving(INSTANT, INSTANT, faults={0: [{"kind": "hang", "times": 1}]}) as servers,
        dispatching(
            addresses(servers), digest_of(servers[0]), pace=Impatient(), hedge=False
        ) as run,
    ):
        replies = await ask_all(run.dispatcher, wanted)
        await until(lambda: servers[0].stats.in_flight.level == 0)
    assert len(replies) == 6
    assert [(record.host, record.error_kind) for record in run.records] == [
        (servers[0].url, ErrorKind.TIMEOUT)
    ]
    assert answered_times(servers) == Counter(wanted)
    assert [event.host for event in run.told if isinstance(event, events.HostSuspect)] == [
        servers[0].url
    ]
    assert not any(isinstance(event, events.HostDown) for event in run.told)


async def test_a_poisonous_segment_does_not_cost_the_fleet() -> None:
    """One text that breaks its answers fails alone: its host proves itself and works on."""
    wanted = texts(12)
    poison = {"kind": "status", "status": 500, "contains": "poison"}
    async with (
        serving(INSTANT, faults={0: [poison]}) as (server,),
        dispatching(
            addresses([server]), digest_of(server), rng=NoJitter(), fleet_timeout_s=0.0
        ) as run,
    ):
        asked = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment("Le poison"))))
        replies = await ask_all(run.dispatcher, wanted)
        with pytest.raises(RequestFailed):
            await asked
        assert (await ask_all(run.dispatcher, ["La fin"]))[0].sent.host == server.url
    assert len(replies) == 12
    assert times_asked(server)["Le poison"] == MOST_FAILURES
    assert not any(isinstance(event, events.HostDown | events.FleetDown) for event in run.told)


async def test_busy_costs_a_segment_nothing() -> None:
    """503 while a host loads is waited out; it is neither a failure nor a host that is down."""
    fault = {"kind": "status", "status": 503, "contains": "patient", "times": 7}
    work = SegmentWork(segment("Le patient"))
    async with (
        serving(INSTANT, faults={0: [fault]}) as (server,),
        dispatching(addresses([server]), digest_of(server), rng=NoJitter()) as run,
    ):
        async with asyncio.timeout(60):
            reply = await run.dispatcher.ask(work)
    assert reply.answer.content == "The patient"
    assert (work.tries.unheard, work.tries.failures, work.requests) == (7, 0, 8)
    assert work.tries.unheard > MOST_FAILURES
    assert times_asked(server) == Counter({"Le patient": 8})
    assert {record.error_kind for record in run.records} == {ErrorKind.BUSY}
    assert not any(isinstance(event, events.HostDown) for event in run.told)


async def test_a_segment_that_always_fails() -> None:
    """A segment that broke two hosts gets one more chance, at the end, and harms no other."""
    fault = {"kind": "status", "status": 500, "contains": "cursed"}
    async with (
        serving(INSTANT, INSTANT, faults={0: [fault], 1: [fault]}) as servers,
        dispatching(addresses(servers), digest_of(servers[0]), rng=NoJitter()) as run,
    ):
        cursed = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment("cursed"))))
        replies = await ask_all(run.dispatcher, texts(20))
        async with asyncio.timeout(60):
            with pytest.raises(RequestFailed) as raised:
                await cursed
    assert raised.value.kind is ErrorKind.SERVER_ERROR
    assert len(replies) == 20
    asked = times_asked_in_all(servers)
    assert asked == Counter({**dict.fromkeys(texts(20), 1), "cursed": 3})
    assert [record.attempt for record in run.records] == [1, 2, 3]
    (quarantined,) = run.told_of(events.Quarantined)
    assert isinstance(quarantined, events.Quarantined)
    assert quarantined.hosts == tuple(sorted(server.url for server in servers))
    # First one host, then the other; after that there is none where it has not failed.
    assert len({record.host for record in run.records[:2]}) == 2


async def test_a_refused_request_is_given_up_at_once() -> None:
    """400 is the request's own fault: one request, no other host, the host stays up."""
    fault = {"kind": "status", "status": 400, "contains": "odd"}
    async with (
        serving(INSTANT, INSTANT, faults={0: [fault], 1: [fault]}) as servers,
        dispatching(addresses(servers), digest_of(servers[0])) as run,
    ):
        async with asyncio.timeout(60):
            with pytest.raises(RequestFailed) as raised:
                await run.dispatcher.ask(SegmentWork(segment("odd")))
        await ask_all(run.dispatcher, texts(4))
    assert raised.value.kind is ErrorKind.BAD_REQUEST
    assert times_asked_in_all(servers)["odd"] == 1
    assert len(run.records) == 1
    assert not any(isinstance(event, events.HostDown) for event in run.told)


async def test_leaving_cancels_what_is_in_flight() -> None:
    """Leaving the context ends every request and task; whoever waited is cancelled."""
    before = asyncio.all_tasks()
    async with serving(INSTANT, faults={0: [{"kind": "hang"}]}) as (server,):
        async with dispatching(addresses([server]), digest_of(server)) as run:
            works = [SegmentWork(segment(text)) for text in texts(5)]
            asks = [asyncio.create_task(run.dispatcher.ask(work)) for work in works]
            await until(lambda: server.stats.in_flight.level == 2)
            mine = {*before, *asks}
        ended = await asyncio.gather(*asks, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended)
        await until(lambda: server.stats.in_flight.level == 0)
        assert [record.outcome for record in run.records] == [AttemptOutcome.CANCELLED] * 2
        assert times_asked(server).total() == 2
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - mine}  # type: ignore[union-attr]
        assert not any(name.startswith(("Dispatcher", "Fleet", "HostClient")) for name in names)


async def test_whoever_stops_asking_frees_the_slot() -> None:
    """A cancelled `ask` ends its request, records it, and its slot serves the next segment."""
    fault = {"kind": "hang", "contains": "unwanted"}
    async with (
        serving(Settings(slots=1).instant(), faults={0: [fault]}) as (server,),
        dispatching(addresses([server]), digest_of(server)) as run,
    ):
        unwanted = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment("unwanted"))))
        await until(lambda: server.stats.in_flight.level == 1)
        waiting = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment("never sent"))))
        await until(lambda: "1 queued" in repr(run.dispatcher))
        waiting.cancel()
        unwanted.cancel()
        await ask_all(run.dispatcher, texts(3))
        assert times_asked(server) == Counter({"unwanted": 1, **dict.fromkeys(texts(3), 1)})
    assert [record.outcome for record in run.records] == [AttemptOutcome.CANCELLED]


async def test_whoever_stops_asking_between_two_attempts() -> None:
    """A segment that nobody waits for any more is not sent again when its delay is over."""
    fault = {"kind": "status", "status": 500, "contains": "unwanted"}
    async with (
        serving(INSTANT, faults={0: [fault]}) as (server,),
        dispatching(addresses([server]), digest_of(server), rng=Patient()) as run,
    ):
        unwanted = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment("unwanted"))))
        await until(lambda: len(run.records) == 1)
        unwanted.cancel()
        await asyncio.sleep(3 * FIRST_DELAY_S)
        assert repr(run.dispatcher) == f"<Dispatcher [0 queued | {server.url} closed 0/2]>"
        assert times_asked(server) == Counter({"unwanted": 1})


async def test_leaving_waits_for_requests_nobody_waits_for() -> None:
    """Requests whose askers were cancelled just before are over, too, when the context is left."""
    async with serving(INSTANT, faults={0: [{"kind": "hang"}]}) as (server,):
        async with dispatching(addresses([server]), digest_of(server)) as run:
            asks = [
                asyncio.create_task(run.dispatcher.ask(SegmentWork(segment(text))))
                for text in texts(2)
            ]
            await until(lambda: server.stats.in_flight.level == 2)
            attempts = {*run.dispatcher._requests._tasks}
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
        assert len(attempts) == 2
        assert all(attempt.done() for attempt in attempts)
        assert [record.outcome for record in run.records] == [AttemptOutcome.CANCELLED] * 2


async def test_a_bug_does_not_leave_a_segment_waiting() -> None:
    """An error that should never happen reaches whoever asked, instead of nobody."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/version":
            return httpx.Response(200, json={"version": "0"})
        if request.url.path == "/api/tags":
            return httpx.Response(
                200, json={"models": [{"model": f"{MODEL}:latest", "digest": "d"}]}
            )
        if b"<report>" in request.content:
            raise ZeroDivisionError("a bug")
        return httpx.Response(200, json={"message": {"role": "assistant"}, "done": True})

    client = HostClient(HostAddress("http://gpu1:11434"), httpx.MockTransport(handle))
    host = Host(client, 1)
    records: list[object] = []
    async with Dispatcher([host], prompting(), "d", record=records.append) as dispatcher:
        async with asyncio.timeout(60):
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await dispatcher.ask(SegmentWork(segment("Le patient")))
        assert host.in_flight == 0


def answering_after(hangs: asyncio.Event, silent: Callable[[], bool]) -> httpx.MockTransport:
    """A host that has the model; the text "hang" never comes back, and it can fall silent."""
    found = {"models": [{"model": f"{MODEL}:latest", "digest": "d"}]}
    done = {"message": {"role": "assistant", "content": "x"}, "done": True, "done_reason": "stop"}

    async def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/version":
            if silent():
                raise httpx.ReadTimeout("silent")
            return httpx.Response(200, json={"version": "0"})
        if request.url.path == "/api/tags":
            return httpx.Response(200, json=found)
        if b"hang" in request.content and not hangs.is_set():
            hangs.set()
            await asyncio.Event().wait()
        return httpx.Response(200, json=done)

    return httpx.MockTransport(handle)


async def test_a_request_sent_in_the_moment_its_host_falls_silent() -> None:
    """A request that was handed over, and had not begun, fails with its host and is sent anew."""
    hangs, missed = asyncio.Event(), 0
    loop = asyncio.get_running_loop()
    late = Ticket(99, SegmentWork(segment("Le patient")), loop.create_future(), 0)

    def silent() -> bool:
        nonlocal missed
        if not hangs.is_set() or missed == MOST_MISSED:
            return False
        missed += 1
        if missed == MOST_MISSED:
            dispatcher._tickets[late.key] = late
            dispatcher._enqueue(late)
        return True

    host = Host(HostClient(HostAddress("http://gpu1:11434"), answering_after(hangs, silent)), 2)
    records: list[Attempt] = []
    dispatcher = Dispatcher(
        [host], prompting(), "d", record=records.append, listen_every_s=0.05, rng=NoJitter()
    )
    async with dispatcher, asyncio.timeout(60):
        await dispatcher.ask(SegmentWork(segment("hang")))
        await late.reply
        await until(lambda: host.in_flight == 0)
    assert [(record.report_id, record.error_kind) for record in records] == [
        ("r", ErrorKind.TIMEOUT)
    ] * 2
    assert late.reply.result().answer.done


async def test_repr_shows_the_queue_and_the_hosts() -> None:
    """The repr of a dispatcher names what waits, and each host with its state and load."""
    async with (
        serving(Settings(slots=1).instant(), faults={0: [{"kind": "hang"}]}) as (server,),
        dispatching(addresses([server]), digest_of(server)) as run,
    ):
        assert repr(run.dispatcher) == f"<Dispatcher [0 queued | {server.url} probing 0/1]>"
        asks = [
            asyncio.create_task(run.dispatcher.ask(SegmentWork(segment(text)))) for text in texts(3)
        ]
        await until(lambda: server.stats.in_flight.level == 1)
        assert repr(run.dispatcher) == f"<Dispatcher [2 queued | {server.url} closed 1/1]>"
        for ask in asks:
            ask.cancel()


async def test_accounts_add_up() -> None:
    """What the hosts did is counted: requests, failures, tokens and the time they were busy."""
    fault = {"kind": "status", "status": 500, "contains": "patient", "times": 2}
    async with (
        serving(
            Settings(slots=2, decode_rate=100, load_seconds=0, prefill_rate=0),
            INSTANT,
            faults={0: [fault]},
        ) as servers,
        dispatching(addresses(servers), digest_of(servers[0])) as run,
    ):
        replies = await ask_all(run.dispatcher, texts(10))
        accounts = run.dispatcher.accounts()
    assert sum(account.requests for account in accounts.values()) == 12
    assert accounts[servers[0].url].failures == 2
    assert accounts[servers[1].url].failures == 0
    tokens = sum(reply.measures.output_tokens for reply in replies)
    assert sum(account.output_tokens for account in accounts.values()) == tokens > 0
    assert accounts[servers[1].url].busy_seconds > 0
    errors = [event for event in run.told if isinstance(event, events.RequestEnded) and event.error]
    assert len(errors) == 2


def test_the_default_generator_is_not_shared() -> None:
    """Without a generator of the caller's, delays come from one of the dispatcher's own."""
    first, second = (
        Dispatcher([], prompting(), "d", record=lambda _attempt: None) for _ in range(2)
    )
    assert isinstance(first._rng, random.Random)
    assert first._rng is not second._rng


def test_repr_without_hosts() -> None:
    """A dispatcher without hosts says so."""
    dispatcher = Dispatcher([], prompting(), "d", record=lambda _attempt: None)
    assert re.fullmatch(r"<Dispatcher \[0 queued \| \]>", repr(dispatcher))


async def test_a_copy_is_not_sent_again_where_it_failed() -> None:
    """A second copy that is refused leaves the first alone, and is not sent there once more."""
    text = "Le patient 001 " + "x" * 200
    refuses = {"kind": "status", "status": 400, "contains": "patient"}
    slow = Settings(slots=1, decode_rate=40, load_seconds=0, prefill_rate=0)
    async with (
        serving(slow, Settings(slots=1).instant(), faults={1: [refuses]}) as servers,
        dispatching(addresses(servers), digest_of(servers[0])) as run,
    ):
        await until(lambda: all(host.takes_requests for host in run.hosts))
        run.hosts[0].speed = Speed(1000, 1)
        async with asyncio.timeout(60):
            asked = asyncio.create_task(run.dispatcher.ask(SegmentWork(segment(text, text))))
            await until(lambda: run.hosts[0].in_flight == 1)
            run.hosts[0].speed, run.hosts[1].speed = Speed(1, 1), Speed(100_000, 1)
            reply = await asked
    assert reply.sent.host == servers[0].url
    assert [times_asked(server).total() for server in servers] == [1, 1]
    assert [record.purpose for record in run.records] == [Purpose.HEDGE]


async def test_a_host_taken_out_while_it_is_asked_stays_out() -> None:
    """A host that is taken out before its first answer gets no request when that comes."""
    late = {"kind": "slow", "path": "/api/version", "times": 1, "delay": 0.4}
    async with (
        serving(INSTANT, INSTANT, faults={1: [late]}) as servers,
        dispatching(addresses(servers), digest_of(servers[0])) as run,
    ):
        await until(lambda: run.hosts[0].takes_requests)
        run.dispatcher.drain_host(servers[1].url)
        await asyncio.sleep(0.6)
        await ask_all(run.dispatcher, texts(20))
        assert run.hosts[1].health.state is HostState.GONE
    assert times_asked(servers[1]).total() == 0
