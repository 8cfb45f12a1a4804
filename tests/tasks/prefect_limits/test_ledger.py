from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import count
from unittest import mock

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.core.errors import ConfigurationError
from tasks.prefect_limits.hosts import STARVED_S
from tasks.prefect_limits.leases import SAFE_S
from tasks.prefect_limits.ledger import PrefectLedger
from tasks.prefect_limits.server import LEASE_S
from tasks.prefect_limits.shares import limit_name
from tests.tasks.prefect_limits.runs import (
    LimitsApi,
    Run,
    eventually,
    killed_holder,
    limits_api,
    new_run,
)

_numbers = count()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitsApi]:
    """A server that takes back ended leases every second."""
    home = tmp_path_factory.mktemp("limits-server")
    with limits_api(home, PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS="1") as started:
        yield started


@pytest.fixture(autouse=True)
def _renew_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.prefect_limits.leases.RENEW_TICK_S", 3600.0)


@pytest.fixture
def url() -> str:
    """A host of the test's own."""
    return f"http://gpu{next(_numbers)}:11434"


@pytest.fixture
async def one(api: LimitsApi) -> AsyncIterator[Run]:
    """A run."""
    async with new_run(api) as run:
        yield run


@pytest.fixture
async def two(api: LimitsApi) -> AsyncIterator[Run]:
    """Another run."""
    async with new_run(api) as run:
        yield run


async def test_one_run_has_all(one: Run, api: LimitsApi, url: str) -> None:
    """A run by itself holds what it needs, up to the host's slots, and gives back."""
    await one.ledger.claim(url, 4)
    assert await one.ledger.share(url, 9) == 4
    assert await one.ledger.hold(url, 9) == 4
    assert api.taken(url) == 4
    assert await one.ledger.hold(url, 1) == 1
    assert api.taken(url) == 1
    assert await one.ledger.hold(url, 3) == 3
    assert await one.ledger.hold(url, 0) == 0
    assert api.taken(url) == 0
    assert one.notes == []


async def test_two_runs_share(one: Run, two: Run, api: LimitsApi, url: str) -> None:
    """Who had all gives back half as its requests end, and the newcomer gets that half."""
    for run in (one, two):
        await run.ledger.claim(url, 4)
    assert await one.settle(url, 9) == 4
    assert await two.settle(url, 9) == 0
    assert await one.settle(url, 9, in_flight=4) == 2
    assert api.taken(url) == 4
    assert await two.settle(url, 9) == 0
    assert await one.settle(url, 9, in_flight=2) == 2
    assert await two.settle(url, 9) == 2
    assert await one.settle(url, 9, in_flight=2) == 2
    assert api.taken(url) == 4


async def test_what_others_leave_is_taken(one: Run, two: Run, api: LimitsApi, url: str) -> None:
    """A run that needs less, or ends, leaves its slots to the other."""
    for run in (one, two, one, two):
        await run.ledger.claim(url, 4)
        await run.settle(url, 9)
    assert await one.settle(url, 9) == await two.settle(url, 9) == 2
    # A need counts with its peak since the look before the last.
    assert await two.settle(url, 1) == 2
    assert await two.settle(url, 1) == 1
    assert await one.settle(url, 9) == 3
    await two.ledger.__aexit__(None, None, None)
    assert await one.settle(url, 9) == 4
    assert api.taken(url, "-runs") == 1


async def test_never_more_than_there_are(api: LimitsApi, url: str) -> None:
    """Whatever runs need, and however their calls mix."""
    rng = random.Random(3)
    async with new_run(api) as one, new_run(api) as two, new_run(api) as three:
        runs = one, two, three
        for run in runs:
            await run.ledger.claim(url, 4)
        for _ in range(6):
            used = await asyncio.gather(*(run.settle(url, rng.randint(0, 6)) for run in runs))
            assert sum(used) <= api.taken(url) <= 4


async def test_odd_slots_go_round(one: Run, two: Run, url: str) -> None:
    """A slot that cannot be divided changes hands after a turn."""
    had = {one.line: 0, two.line: 0}
    for run in (one, two):
        await run.ledger.claim(url, 3)
    for _ in range(40):
        for run in (one, two):
            had[run.line] += await run.settle(url, 9)
    assert min(had.values()) > 0.8 * max(had.values())


async def test_many_slots_are_a_few_leases(one: Run, api: LimitsApi, url: str) -> None:
    """A host of many slots costs few leases, and any number of them can be given back."""
    await one.ledger.claim(url, 64)
    assert await one.settle(url, 99) == 64
    assert len(one.ledger._leases._of(limit_name(url))) <= 12
    assert await one.ledger.hold(url, 21) == 21
    assert api.taken(url) == 21


async def test_leaving_gives_everything_back(api: LimitsApi, url: str) -> None:
    """Nothing stays taken when a run ends, whichever way it leaves."""
    async with new_run(api) as run:
        await run.ledger.claim(url, 4)
        await run.settle(url, 9)
        async with new_run(api) as waiting:
            await waiting.ledger.claim(url, 4)
            await waiting.settle(url, 9)
            assert api.taken(url, "-runs") == 1002
    assert api.taken(url) == api.taken(url, "-runs") == 0


async def test_a_cancelled_run_gives_everything_back(api: LimitsApi, url: str) -> None:
    """Also what it was asking for at that moment."""
    run = Run(api)
    is_asking = asyncio.Event()

    async def use() -> None:
        async with run.ledger:
            await run.ledger.claim(url, 4)
            await run.settle(url, 1)
            run.line.answers_after_s = 0.5
            is_asking.set()
            await run.ledger.hold(url, 4)

    using = asyncio.create_task(use())
    await is_asking.wait()
    await asyncio.sleep(0.2)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    # Three leases, one of them hardly asked for, and that the run is there.
    assert run.line.calls.count("POST increment-with-lease") == 3
    assert run.line.calls.count("POST decrement-with-lease") == 3
    assert api.taken(url) == api.taken(url, "-runs") == 0


async def test_the_smaller_number_counts(one: Run, two: Run, api: LimitsApi, url: str) -> None:
    """As long as the run that claims it is there; the other user is told what to do."""
    await one.ledger.claim(url, 8)
    assert await one.settle(url, 9) == 8
    await two.ledger.claim(url, 2)
    assert await one.settle(url, 9, in_flight=8) <= 2
    assert await one.ledger.known_slots(url) == await two.ledger.known_slots(url) == 2
    assert f"prefect gcl update {limit_name(url)} --limit 8" in one.notes[0]
    assert "by another run" in one.notes[0]
    assert one.notes[1:] == two.notes == []
    await two.ledger.__aexit__(None, None, None)
    await one.settle(url, 9)
    assert await one.settle(url, 9) == 8
    assert api.limit(url)["limit"] == 8


async def test_a_number_that_was_set_by_hand_counts(one: Run, api: LimitsApi, url: str) -> None:
    """Before the first run, and after; it is neither raised nor lowered."""
    async with api.client() as operator:
        await operator.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=limit_name(url), limit=2)
        )
        assert await one.ledger.known_slots(url) == 2
        await one.ledger.claim(url, 4)
        assert await one.settle(url, 9) == 2
        assert "set by hand" in one.notes[0]
        one.now_s += 60
        await operator.update_global_concurrency_limit(
            limit_name(url), GlobalConcurrencyLimitUpdate(limit=6)
        )
    assert await one.settle(url, 9) == 4
    assert api.limit(url)["limit"] == 6
    assert len(one.notes) == 1


async def test_numbers_set_at_the_same_moment(one: Run, two: Run, api: LimitsApi, url: str) -> None:
    """Two runs whose calls crossed are not taken for somebody's hand."""
    await one.ledger.claim(url, 8)
    await two.ledger.claim(url, 2)
    async with api.client() as operator:
        await operator.update_global_concurrency_limit(
            limit_name(url), GlobalConcurrencyLimitUpdate(limit=8)
        )
    assert await one.ledger.known_slots(url) == 8
    assert await two.ledger.known_slots(url) == 2
    assert await one.ledger.known_slots(url) == 2
    assert api.limit(url)["limit"] == 2


async def test_what_runs_before_knew_is_not_known(one: Run, two: Run, url: str) -> None:
    """A number is known as long as a run is there that knows it."""
    await one.ledger.claim(url, None)
    assert await one.ledger.known_slots(url) is None
    assert await one.settle(url, 9) == await one.ledger.hold(url, 3) == 0
    await two.ledger.claim(url, 4)
    assert await one.ledger.known_slots(url) == 4
    await two.ledger.__aexit__(None, None, None)
    assert await one.settle(url, 9) == 4


async def test_a_number_ends_with_its_runs(one: Run, api: LimitsApi, url: str) -> None:
    """Others that did not know it have to find it out."""
    async with new_run(api) as before:
        await before.ledger.claim(url, 4)
        await before.settle(url, 9)
    assert await one.ledger.known_slots(url) is None
    await one.ledger.claim(url, 2)
    assert await one.settle(url, 9) == 2
    assert one.notes == []


async def test_runs_that_begin_together(api: LimitsApi, url: str) -> None:
    """The first to say a number creates the limits; all agree on the smallest."""
    async with new_run(api) as one, new_run(api) as two, new_run(api) as three:
        runs = {one.ledger: 4, two.ledger: 8, three.ledger: 6}
        await asyncio.gather(*(ledger.claim(url, slots) for ledger, slots in runs.items()))
        for run in (one, two, three):
            await run.settle(url, 9)
        known = [await ledger.known_slots(url) for ledger in runs]
        assert known == [4, 4, 4]
        assert api.limit(url)["limit"] == 4
        assert api.limit(url, "-runs")["limit"] == 1_000_000_004
        assert 0 < api.taken(url) <= 4


async def test_alone(one: Run, two: Run, api: LimitsApi, url: str) -> None:
    """While one finds out the slots, another neither does nor begins; then it knows."""
    one.ledger.check_every_s = two.ledger.check_every_s = 0.2
    async with one.ledger.alone(url):
        inside = asyncio.create_task(_known_inside(two, url))
        await asyncio.sleep(0.6)
        assert not inside.done()
        await one.ledger.claim(url, 4)
        assert await two.settle(url, 9) == 0
        assert api.taken(url) == 0
        assert await one.settle(url, 1) == 1
    assert await inside == 4
    assert await two.settle(url, 9) == 3
    assert api.taken(url, "-discovery") == 0


async def _known_inside(run: Run, url: str) -> int | None:
    async with run.ledger.alone(url):
        return await run.ledger.known_slots(url)


async def test_who_waits_to_be_alone_can_be_cancelled(one: Run, api: LimitsApi, url: str) -> None:
    """Nothing of it stays."""
    async with new_run(api) as other:
        async with other.ledger.alone(url):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await _known_inside(one, url)
        assert api.taken(url, "-discovery") == 0
        assert await _known_inside(one, url) is None


async def test_how_many_calls_it_takes(one: Run, url: str) -> None:
    """Two for each look, however often the share is asked for; none for a request."""
    await one.ledger.claim(url, 4)
    await one.settle(url, 9)
    one.line.counted()
    for _ in range(100):
        assert await one.ledger.hold(url, await one.ledger.share(url, 9)) == 4
    assert one.line.counted() == []
    for _ in range(3):
        await one.settle(url, 9)
    assert one.line.counted() == [f"GET {limit_name(url)}", f"GET {limit_name(url)}-runs"] * 3
    await one.renew()
    # Four slots, and that the run is there.
    assert one.line.counted() == ["POST leases"] * 5


async def test_how_many_calls_a_run_takes_in_vain(one: Run, two: Run, url: str) -> None:
    """A run that waits says so once, and then looks like any other."""
    for run in (one, two):
        await run.ledger.claim(url, 1)
        await run.settle(url, 9)
    two.line.counted()
    for _ in range(3):
        assert await two.settle(url, 9) == 0
        assert await two.ledger.hold(url, 1) == 0
    assert len(two.line.counted()) == 6


async def test_slots_of_a_killed_run_come_back(one: Run, api: LimitsApi, url: str) -> None:
    """The server gives them to others when the leases of the run are over."""
    with killed_holder(api, url) as holder:
        await one.ledger.claim(url, 4)
        assert await one.settle(url, 9) == 0
        holder.kill()
        holder.wait()
    assert await one.settle(url, 9) == 0
    await api.end_leases()
    # This run's own are lost with them.
    await eventually(lambda: api.taken(url), 0)
    await eventually(lambda: api.taken(url, "-runs"), 0)
    await one.renew()
    assert await one.settle(url, 9) == 4
    assert api.taken(url) == 4


async def test_a_run_whose_leases_are_over_asks_anew(one: Run, api: LimitsApi, url: str) -> None:
    """It holds nothing that the server does not know of, and says so."""
    await one.ledger.claim(url, 4)
    await one.settle(url, 9)
    await api.end_leases()
    await eventually(lambda: api.taken(url), 0)
    one.now_s += LEASE_S
    await one.renew()
    assert any(f"took back a lease on {limit_name(url)}," in note for note in one.notes)
    assert await one.settle(url, 9, in_flight=4) == 4
    assert api.taken(url) == 4


async def test_a_server_that_forgot_its_leases(one: Run, api: LimitsApi, url: str) -> None:
    """Its slots stay taken: the user is told once for each limit how to free them."""
    await one.ledger.claim(url, 4)
    await one.settle(url, 9)
    await api.forget_leases()
    await one.renew()
    assert await one.settle(url, 9, in_flight=4) == 0
    cure = f"prefect gcl update {limit_name(url)} --active-slots 0"
    assert [note for note in one.notes if cure in note]
    assert len(one.notes) == 2
    async with api.client() as operator:
        for name in (limit_name(url), f"{limit_name(url)}-runs"):
            await operator.update_global_concurrency_limit(
                name, GlobalConcurrencyLimitUpdate(active_slots=0)
            )
    assert await one.settle(url, 9) == 4


async def test_a_deleted_limit_is_created_again(one: Run, api: LimitsApi, url: str) -> None:
    """What was held of it is taken anew."""
    await one.ledger.claim(url, 4)
    await one.settle(url, 9)
    async with api.client() as operator:
        for name in (limit_name(url), f"{limit_name(url)}-runs"):
            await operator.delete_global_concurrency_limit_by_name(name)
        assert await one.ledger.hold(url, 3) == 3
        assert await one.settle(url, 9, in_flight=3) == 4
    assert api.taken(url) == 4
    assert api.taken(url, "-runs") == 1


async def test_a_limit_that_is_switched_off(one: Run, api: LimitsApi, url: str) -> None:
    """It limits nobody, as Prefect has it; the user is told once."""
    await one.ledger.claim(url, 4)
    async with api.client() as operator:
        await operator.update_global_concurrency_limit(
            limit_name(url), GlobalConcurrencyLimitUpdate(active=False)
        )
    assert await one.settle(url, 9) == await one.settle(url, 9) == 4
    [note] = one.notes
    assert f"prefect gcl update {limit_name(url)} --enable" in note


async def test_slots_that_stay_taken_are_told(one: Run, url: str) -> None:
    """A run without a slot for longer than a killed run could keep it hears what to do, once."""
    async with new_run(one.api) as dead:
        await dead.ledger.claim(url, 2)
        assert await dead.settle(url, 9) == 2
        await one.ledger.claim(url, 2)
        for _ in range(int(2 * STARVED_S / 2.0)):
            # As those of a server that restarted with its leases in memory: nobody gives them up.
            assert await one.settle(url, 9) == 0
        [note] = one.notes
        assert f"{url}: this run has had no slot for" in note
        assert note.endswith(f"prefect gcl update {limit_name(url)} --active-slots 0")


async def test_a_server_that_is_away(one: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is used until its leases end, and nothing new is taken."""
    await one.ledger.claim(url, 4)
    assert await one.settle(url, 3) == 3
    one.line.is_cut = True
    with monkeypatch.context() as impatient:
        impatient.setattr("tasks.prefect_limits.server.CALL_S", 0.1)
        assert await one.settle(url, 9) == 3
        assert await one.settle(url, 9) == 3
        [note] = one.notes
        assert "goes on" in note
        one.now_s += LEASE_S - SAFE_S
        assert await one.settle(url, 9, in_flight=3) == 0
    one.line.is_cut = False
    # Its leases had not ended for the server: renewed, they are good again.
    await one.renew()
    assert await one.settle(url, 9) == 4
    ended, back = one.notes[1:]
    assert ended.endswith("this run has no lease left, and sends nothing until it can")
    assert back == "the Prefect server can be used again"


async def test_a_run_ends_without_its_server(
    api: LimitsApi, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for long, nor fail; the server takes the slots back by itself."""
    monkeypatch.setattr("tasks.prefect_limits.server.CALL_S", 0.2)
    async with new_run(api) as run:
        await run.ledger.claim(url, 4)
        await run.settle(url, 9)
        run.line.is_cut = True
    assert api.taken(url) == 4
    await api.end_leases()
    await eventually(lambda: api.taken(url), 0)


async def test_leases_are_renewed_in_the_background(
    api: LimitsApi, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to ask for it; a bug there ends the run instead of its slots."""
    monkeypatch.setattr("tasks.prefect_limits.leases.RENEW_TICK_S", 0.05)
    async with new_run(api) as run:
        await run.ledger.claim(url, 1)
        run.line.counted()
        run.now_s += 25
        await asyncio.sleep(0.5)
        assert run.line.counted() == ["POST leases"]
        monkeypatch.setattr(run.ledger._leases, "renew_old", mock.AsyncMock(side_effect=KeyError))
        await asyncio.sleep(0.2)
        with pytest.raises(KeyError):
            await run.ledger.share(url, 1)


async def test_the_server_has_to_be_there_at_the_start() -> None:
    """The user is told which server was asked, and what else to do; no password is shown."""
    api = "http://me:secret@127.0.0.1:9/api"
    with pytest.raises(ConfigurationError, match="--limits local") as refused:
        async with PrefectLedger(lambda: PrefectClient(api)):
            pass
    assert "127.0.0.1:9" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_in_a_thread_of_its_own(api: LimitsApi, url: str) -> None:
    """Where it is made says which server; where it is entered, which event loop."""
    held: list[int] = []

    async def use(ledger: PrefectLedger) -> None:
        async with ledger:
            await ledger.claim(url, 2)
            held.append(await ledger.hold(url, await ledger.share(url, 9)))

    with temporary_settings({PREFECT_API_URL: api.url}):
        ledger = PrefectLedger()
    thread = threading.Thread(target=lambda: asyncio.run(use(ledger)))
    thread.start()
    thread.join()
    assert held == [2]
