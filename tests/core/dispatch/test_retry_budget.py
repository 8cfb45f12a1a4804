"""Runs in which so much fails that retries are slowed."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable

import pytest

from deployments.local_ollama import Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.retry import (
    LEAST_SAVED,
    MOST_FAILURES,
    RETRIES_PER_ANSWER,
    RETRIES_PER_S,
    Tries,
)
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.settings import HostAddress
from tests.fakes import (
    PROBE,
    Dispatching,
    NoJitter,
    digest_of,
    dispatching,
    segment,
    serving,
    times_asked,
    until,
)

BURST = round(LEAST_SAVED) + 2
"""So many retries at once leave two that have to wait."""


def texts(count: int, word: str = "patient") -> list[str]:
    """Different texts of the same length."""
    return [f"Le {word} {number:03}" for number in range(count)]


async def ended(run: Dispatching, wanted: Iterable[str]) -> list[Reply | BaseException]:
    """What all of these texts, asked for at once, came to; none may hang."""
    async with asyncio.timeout(60):
        asked = (run.dispatcher.ask(SegmentWork(segment(text, text))) for text in wanted)
        return list(await asyncio.gather(*asked, return_exceptions=True))


async def test_slowed_once_each_time_the_budget_is_empty() -> None:
    """It is told once when retries begin to wait, and again only after the budget had recovered.

    However long its retries wait, a segment is asked for again as often as ever: once where one
    request fails, and until it is given up where all do.
    """
    first = texts(BURST - 1)
    fails_once = {"kind": "status", "status": 500, "contains": "patient", "per_text": True}
    faults = [{**fails_once, "times": 1}, {"kind": "status", "status": 500, "contains": "cursed"}]
    # Answers take their time: none comes before the whole burst has failed.
    slow = Settings(slots=BURST, slowdown=0.0, decode_rate=10.0, prefill_rate=0.0, load_seconds=0.0)
    async with (
        serving(slow, faults={0: faults}) as (server,),
        dispatching([(server.url, 1)], digest_of(server), rng=NoJitter()) as run,
    ):
        began_at = time.monotonic()
        await ended(run, [PROBE])  # the run begins with the budget of one slot
        run.dispatcher.change_slots(server.url, BURST)
        *answered, given_up = await ended(run, [*first, "cursed"])
        assert {type(each) for each in answered} == {Reply}
        assert type(given_up) is RequestFailed
        assert len(run.told_of(events.RetriesSlowed)) == 1

        spent = len(first) + MOST_FAILURES - 1
        earned = RETRIES_PER_ANSWER * BURST + RETRIES_PER_S * (time.monotonic() - began_at)
        second = texts(math.ceil(LEAST_SAVED - spent + earned) + 1, "patiente")
        assert {type(each) for each in await ended(run, second)} == {Reply}
        assert len(run.told_of(events.RetriesSlowed)) == 2
        all_twice = dict.fromkeys([*first, *second], 2)
        assert times_asked(server) == Counter({**all_twice, "cursed": MOST_FAILURES})
        account = run.dispatcher.accounts()[server.url]
    assert account.failures == len(run.records) == len(all_twice) + MOST_FAILURES
    assert {record.error_kind for record in run.records} == {ErrorKind.SERVER_ERROR}


@pytest.mark.parametrize("slots", [2, 6])
async def test_within_the_budget_nothing_is_slowed(slots: int) -> None:
    """As many retries as the run has saved, ten for each of its slots, are sent at once."""
    wanted = texts(max(round(LEAST_SAVED), 10 * slots))
    fault = {"kind": "status", "status": 500, "contains": "patient", "per_text": True, "times": 1}
    async with (
        serving(Settings(slots=slots).instant(), faults={0: [fault]}) as (server,),
        dispatching([(server.url, slots)], digest_of(server), rng=NoJitter()) as run,
    ):
        assert {type(each) for each in await ended(run, wanted)} == {Reply}
        assert times_asked(server) == Counter(dict.fromkeys(wanted, 2))
    assert run.told_of(events.RetriesSlowed) == []


async def test_what_costs_no_try_costs_no_budget() -> None:
    """However many requests a silent host had, they go to another one at once: that is no retry."""
    wanted = [SegmentWork(segment(text, text)) for text in texts(BURST + 10)]
    many = Settings(slots=len(wanted), slowdown=0.0).instant()
    async with (
        serving(many, many) as (silent, other),
        dispatching([(silent.url, 1)], digest_of(silent), hedge=False, listen_every_s=0.2) as run,
    ):
        await ended(run, [PROBE])  # the run begins with the budget of one slot
        run.dispatcher.change_slots(silent.url, len(wanted))
        silent.add_faults([{"kind": "hang", "path": "*"}])
        asked = [asyncio.create_task(run.dispatcher.ask(work)) for work in wanted]
        await until(lambda: silent.stats.in_flight.level == len(wanted))
        run.dispatcher.add_host(Host(HostClient(HostAddress(other.url)), len(wanted)))
        async with asyncio.timeout(60):
            await asyncio.gather(*asked)
        assert (
            times_asked(silent)
            == times_asked(other)
            == Counter(dict.fromkeys(texts(BURST + 10), 1))
        )
    assert [work.tries for work in wanted] == [Tries(unheard=1)] * len(wanted)
    assert run.told_of(events.RetriesSlowed) == []
