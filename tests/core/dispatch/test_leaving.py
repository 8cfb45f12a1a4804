"""Hosts that leave a run, or the run's reach, in the middle of something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import httpx
import pytest

from tasks.core.dispatch import discovery, events
from tasks.core.dispatch.health import HostState
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import ErrorKind, FleetLost
from tests.core.dispatch.test_chaos import HANG, PATIENTS, Play, TwoSpeeds, played, running
from tests.core.dispatch.test_holdings import Scripted
from tests.fakes import PROBE, Dispatching, segment, until


class Heard:
    """Plays hosts: notes the texts they get. What is named in `waits` waits for `go`."""

    def __init__(self, *waits: str) -> None:
        self.texts: list[str] = []
        self.waits = waits
        self.go = asyncio.Event()

    async def __call__(self, what: str) -> int | None:
        """Note a text; the poisoned ones break."""
        if what and not what.startswith("/"):
            self.texts.append(what)
        if what in self.waits:
            await self.go.wait()
        return 500 if "poison" in what else None


def ask(run: Dispatching, wanted: SegmentWork | str) -> asyncio.Task[Reply]:
    """Ask for a segment, or one of this text."""
    work = SegmentWork(segment(wanted, wanted)) if isinstance(wanted, str) else wanted
    return asyncio.create_task(run.dispatcher.ask(work))


async def ask_all(run: Dispatching, wanted: Iterable[str]) -> list[Reply | BaseException]:
    """What all of these texts, asked for at once, come to."""
    return await asyncio.gather(*(ask(run, text) for text in wanted), return_exceptions=True)


class Obliging(Scripted):
    """A ledger that gives no larger shares than needed; a test may act while a claim is made."""

    def __init__(self, share: int, known: int | None = None) -> None:
        super().__init__(share, known)
        self.claims: list[tuple[int | None, int]] = []
        self.meanwhile: Callable[[int | None], None] = lambda _slots: None

    async def claim(self, url: str, slots: int | None) -> None:
        """Note the number, and what is held; all but the claim of two slots take a while."""
        self.meanwhile(slots)
        await asyncio.sleep(0.0 if slots == 2 else 0.1)
        await super().claim(url, slots)
        self.claims.append((slots, self.held))

    async def share(self, url: str, need: int) -> int:
        """What the test set, as far as there is use for it."""
        return min(await super().share(url, need), need)

    async def checked(self) -> None:
        """Wait until the share was asked for a few times more."""
        before = len(self.needs)
        await until(lambda: len(self.needs) > before + 3)


@pytest.fixture
def back_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is down is tried again soon."""
    monkeypatch.setattr("tasks.core.dispatch.health.FIRST_COOL_DOWN_S", 0.02)


def down_at(text: str, heard: Heard, probe: int | None = None) -> Play:
    """A host that is down when it gets a text first; then it gives its probe this status."""

    async def play(what: str) -> int | None:
        await heard(what)
        if what == text and heard.texts.count(text) == 1:
            raise httpx.ConnectError("down")
        return probe if what == PROBE else None

    return play


async def unreachable(_what: str) -> None:
    """A host that is always down."""
    raise httpx.ConnectError("down")


async def drained_in_its_probe(run: Dispatching, host: Host, heard: Heard) -> None:
    """Take a host out while it proves itself, and let its probe end then."""
    await until(lambda: PROBE in heard.texts)
    run.dispatcher.drain_host(host.url)
    assert (host.health.state, host.in_flight) == (HostState.DRAINING, 1)
    heard.go.set()
    await until(lambda: bool(run.told_of(events.HostLeft)))
    assert (host.health.state, host.in_flight) == (HostState.GONE, 0)


@pytest.mark.usefixtures("back_soon")
@pytest.mark.parametrize("probe", [None, 500])
async def test_the_last_host_leaves_in_its_probe(probe: int | None) -> None:
    """However its probe ends it is gone then, and who waits learns that no host is left."""
    heard = Heard(PROBE)
    async with running(played("a", 2, down_at("first", heard, probe))) as run:
        first = ask(run, "first")
        await drained_in_its_probe(run, run.hosts[0], heard)
        with pytest.raises(FleetLost, match="no host is of use in this run"):
            await first
    assert heard.texts == ["first", PROBE]


@pytest.mark.usefixtures("back_soon")
async def test_a_host_that_left_in_its_probe_is_not_waited_for() -> None:
    """When all others are lost then, the time that the run waits for them begins, and ends."""
    heard = Heard(PROBE)

    async def play(what: str) -> None:
        if run.told_of(events.HostLeft):
            await unreachable(what)

    leaving, staying = played("a", 2, down_at("first", heard)), played("b", 1, play)
    async with running(leaving, staying, fleet_timeout_s=0.1) as run:
        await until(lambda: all(host.takes_requests for host in run.hosts))
        assert (await ask(run, "first")).sent.host == staying.url
        await drained_in_its_probe(run, leaving, heard)
        with pytest.raises(FleetLost, match="none came back"):
            await ask(run, "last")


async def test_slots_given_while_they_are_found_out() -> None:
    """What the user says during the burst holds, for this run and for the others."""
    heard, ledger = Heard(discovery.TEXT), Obliging(4)
    async with running(played("a", None, heard), ledger=ledger) as run:
        await until(lambda: discovery.TEXT in heard.texts)
        run.dispatcher.change_slots(run.hosts[0].url, 2)
        heard.go.set()
        await until(lambda: run.hosts[0].takes_requests)
    assert run.told_of(events.HostUp) == [events.HostUp(run.hosts[0].url, 2)]
    assert {slots for slots, _held in ledger.claims} == {None, 2}


@pytest.mark.usefixtures("back_soon")
@pytest.mark.parametrize("given", [3, None])
async def test_slots_given_while_others_are_claimed(given: int | None) -> None:
    """What the user says stays, when the number before is claimed again or another run's taken."""
    ledger = Obliging(4, known=3)
    async with running(played("a", given, down_at("first", Heard())), ledger=ledger) as run:
        url = run.hosts[0].url
        await until(lambda: given is None or run.hosts[0].takes_requests)
        ledger.meanwhile = lambda slots: run.dispatcher.change_slots(url, 2 if slots == 3 else None)
        await ask(run, "first")
        await ledger.checked()
    assert run.told_of(events.HostUp)[-1] == events.HostUp(url, 2)
    assert (len(run.told_of(events.SlotsChanged)), ledger.claims[-1][0]) == (1, 2)


@pytest.mark.usefixtures("back_soon")
async def test_a_probe_waits_for_a_slot_that_the_run_holds() -> None:
    """A host that came back is asked to prove itself only in a slot; the need for it is told."""
    heard, ledger = Heard(), Obliging(1)
    back = down_at("first", heard)

    async def play(what: str) -> int | None:
        if what == "first" and PROBE not in heard.texts:
            ledger.share_now = 0
        if what == PROBE:
            assert ledger.held == 1
        return await back(what)

    async with running(played("a", 1, play), ledger=ledger) as run:
        first = ask(run, "first")
        await until(lambda: run.hosts[0].health.state is HostState.HALF_OPEN)
        await ledger.checked()
        assert (ledger.needs[-1], ledger.held) == (1, 0)
        assert heard.texts == ["first"]
        ledger.share_now = 1
        await first
    assert heard.texts == ["first", PROBE, "first"]


@pytest.mark.parametrize("is_at_once", [False, True])
async def test_a_host_that_left_binds_nobody(*, is_at_once: bool) -> None:
    """Its claim is given back when nothing of it is held, and made anew whenever it comes back."""
    heard, ledger = Heard("first"), Obliging(2)
    async with running(played("a", 2, heard), played("b", 1, unreachable), ledger=ledger) as run:
        host, first = run.hosts[0], ask(run, "first")
        await until(lambda: heard.texts == ["first"])
        run.dispatcher.drain_host(host.url)
        await ledger.checked()
        assert ledger.held == 1
        assert {slots for slots, _held in ledger.claims} == {2}
        if is_at_once:
            ledger.meanwhile = lambda _slots: run.dispatcher.add_host(host)
        heard.go.set()
        await first
        await until(lambda: (None, 0) in ledger.claims)
        run.dispatcher.add_host(host)
        assert isinstance(await ask(run, "second"), Reply)
        await ledger.checked()
        assert ledger.claims[-1][0] == 2
    assert {held for slots, held in ledger.claims if slots is None} == {0}


@pytest.mark.parametrize("slots", [1, 2])
async def test_the_last_host_generates_nothing(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that looks alive and answers no request is found out by one probe, and is lost."""
    monkeypatch.setattr(TwoSpeeds, "probe_deadline_s", lambda _pace: 0.3)
    texts = [f"{HANG} {number}" for number in range(6)]
    heard = Heard(PROBE, *texts)
    async with running(played("a", slots, heard, TwoSpeeds()), fleet_timeout_s=0.1) as run:
        ended = await ask_all(run, texts)
    assert [type(end) for end in ended] == [FleetLost] * 6
    assert heard.texts.count(PROBE) == 1


@pytest.mark.parametrize("slots", [1, 2])
async def test_the_last_host_goes_away_while_it_is_suspect(slots: int) -> None:
    """An outage costs one request that is refused, and no segment."""
    heard = Heard("/api/tags")
    heard.go.set()
    works = [SegmentWork(segment(text)) for text in ["odd", *PATIENTS]]

    async def play(what: str) -> int | None:
        await heard(what)
        if what == "odd" and heard.texts == ["odd"]:
            heard.go.clear()  # it does not get as far as its probe
            return 404
        if len(heard.texts) > 5 and not run.told_of(events.HostDown):
            raise httpx.ConnectError("down")
        return None

    async with running(played("a", slots, play)) as run:
        asked = [ask(run, works[0])]
        await until(lambda: bool(run.told_of(events.HostSuspect)))
        asked += [ask(run, work) for work in works[1:]]
        await until(lambda: bool(run.told_of(events.FleetDown)))
        heard.go.set()
        await asyncio.gather(*asked)
    refused = [record.error_kind for record in run.records]
    assert refused == [ErrorKind.NOT_FOUND, ErrorKind.UNREACHABLE]
    assert sum(work.requests for work in works) == len(works) + 2
