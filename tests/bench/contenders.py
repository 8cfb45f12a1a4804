"""Those who have the same texts translated by the same hosts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import ollama

from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.work import SegmentWork
from tasks.core.limits.ledger import SlotLedger
from tasks.core.limits.local import LocalLedger
from tasks.core.records import Segment
from tasks.core.settings import PolicyName
from tasks.core.translate.segments import predicted_tokens
from tests.bench.contest import MODEL, MODEL_DIGEST, PROMPTING, Contest, Outcome, as_plain, host_of
from tests.bench.prefect_session import prefect_session

Contender = Callable[[Contest], Awaitable[Outcome]]


async def dispatched(
    contest: Contest, policy: PolicyName, ledger: SlotLedger | None = None
) -> Outcome:
    """Our own dispatcher, with one of its policies; only its own one hedges."""
    outcome = Outcome()
    dispatcher = Dispatcher(
        [host_of(address) for address in contest.hosts],
        PROMPTING,
        MODEL_DIGEST,
        record=lambda _: None,
        policy=policy,
        hedge=policy == "pull",
        ledger=ledger,
        rng=random.Random(contest.seed),
    )

    async def let_late_hosts_join() -> None:
        await contest.joins.wait()
        for address in contest.late:
            dispatcher.add_host(host_of(address))

    async with dispatcher:
        joining = asyncio.create_task(let_late_hosts_join())
        asking = (dispatcher.ask(SegmentWork(each)) for each in segments_of(contest.texts))
        outcome.count(await asyncio.gather(*asking, return_exceptions=True))
        outcome.accounts = as_plain(dispatcher.accounts())
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
    return outcome


def segments_of(texts: Sequence[str], first: int = 0) -> list[Segment]:
    """Each text as the one segment of a report."""
    return [
        Segment(f"report {number}", 0, text, f"key {number}", predicted_tokens(text))
        for number, text in enumerate(texts, start=first)
    ]


async def ours_beside_others(contest: Contest) -> Outcome:
    """Our own dispatcher under the limit that runs on one machine share."""
    with tempfile.TemporaryDirectory(prefix="bench-slots-") as folder:
        return await dispatched(contest, "pull", LocalLedger(Path(folder)))


async def naive(contest: Contest) -> Outcome:
    """The usual answer: gather everything, each on a random host; what fails is lost."""
    rng, outcome = random.Random(contest.seed), Outcome()
    clients = [ollama.AsyncClient(address.url) for address in contest.hosts]
    asking = (
        rng.choice(clients).chat(MODEL, PROMPTING.messages(text), options=PROMPTING.options)
        for text in contest.texts
    )
    outcome.count(await asyncio.gather(*asking, return_exceptions=True))
    for client in clients:
        await client.close()  # type: ignore[no-untyped-call]
    return outcome


async def prefect_tasks(contest: Contest) -> Outcome:
    """One Prefect task run for each report, and a global limit taken for each request."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Outcome] = loop.create_future()

    def run() -> None:
        from tests.bench.prefect_tasks import translate_all

        with contextlib.suppress(RuntimeError):  # the loop is gone: this was stopped
            try:
                outcome = translate_all(contest)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
                loop.call_soon_threadsafe(ended.set_exception, error)
            else:
                loop.call_soon_threadsafe(ended.set_result, outcome)

    with prefect_session():
        # A daemon, as a flow cannot be stopped while its tasks wait.
        threading.Thread(target=run, name="flow", daemon=True).start()
        return await ended


CONTENDERS: dict[str, Contender] = {
    "ours": partial(dispatched, policy="pull"),
    "shared": ours_beside_others,
    "least_connections": partial(dispatched, policy="least_connections"),
    "round_robin": partial(dispatched, policy="round_robin"),
    "random": partial(dispatched, policy="random"),
    "naive": naive,
    "prefect": prefect_tasks,
}
