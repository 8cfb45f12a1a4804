"""Slots, queues, loading, keep-alive and what happens when a client leaves."""

import asyncio
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from tests.deployments.conftest import ask, chat, serving, until

STEADY = Settings(prefill_rate=0, decode_rate=100, slowdown=0, load_seconds=0)
# Nine tokens in the answer: 0.09 s at 100 tokens a second.
TEXT = "train " * 6


async def loaded_models(http: aiohttp.ClientSession, server: LocalServer) -> list[Any]:
    """What `/api/ps` lists."""
    async with http.get(server.url + "/api/ps") as response:
        models: list[Any] = (await response.json())["models"]
        return models


async def test_slots_are_never_exceeded_and_served_in_order(http: aiohttp.ClientSession) -> None:
    """Ten requests on two slots run two at a time, in the order they came."""
    async with serving(
        Settings(slots=2, prefill_rate=0, decode_rate=100, load_seconds=0)
    ) as server:
        await ask(http, server, chat(""))
        waiting = []
        for _ in range(10):
            waiting.append(asyncio.create_task(ask(http, server, chat(TEXT))))
            await until(lambda: server.stats.received == len(waiting))
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * 10
        assert server.stats.running.peak == 2
        ends = [record.ended_at or 0.0 for record in server.stats.requests]
        # Two start together, so only the order of the pairs is certain.
        assert all(max(ends[at : at + 2]) <= min(ends[at + 2 : at + 4]) for at in range(0, 8, 2))


async def test_a_loaded_model_queues_without_limit(http: aiohttp.ClientSession) -> None:
    """A full slot makes requests wait, never a 503, and the wait shows in no other duration."""
    async with serving(Settings(max_queue=1, decode_rate=100, load_seconds=0)) as server:
        await ask(http, server, chat(""))
        answers = await asyncio.gather(*(ask(http, server, chat(TEXT)) for _ in range(6)))
        assert [status for status, _ in answers] == [200] * 6
        waits = sorted(
            said["total_duration"] - said["load_duration"]
            - said["prompt_eval_duration"] - said["eval_duration"]
            for _, said in answers
        )  # fmt: skip
        assert waits[-1] >= 4 * 0.09e9
        assert waits[0] < waits[-1] / 2


async def test_queue_for_a_load_overflows_with_503(http: aiohttp.ClientSession) -> None:
    """While a model loads, the queue takes one in hand and max_queue more; the rest get a 503."""
    settings = Settings(slots=2, max_queue=2, load_seconds=1.0, decode_rate=0, prefill_rate=0)
    async with serving(settings) as server:
        answers = await asyncio.gather(*(ask(http, server, chat(TEXT)) for _ in range(8)))
        good = [said for status, said in answers if status == 200]
        refused = [said for status, said in answers if status == 503]
        assert (len(good), len(refused)) == (3, 5)
        assert refused[0] == {
            "error": "server busy, please try again.  maximum pending requests exceeded"
        }
        assert all(said["load_duration"] >= 0.4e9 for said in good)
        assert server.stats.loads == 1


async def test_a_loading_model_is_not_listed(http: aiohttp.ClientSession) -> None:
    """The list of running models stays empty until the load is over, then has the context."""
    async with serving(Settings(load_seconds=1.0, decode_rate=0)) as server:
        waiting = asyncio.create_task(ask(http, server, chat("", options={"num_ctx": 2048})))
        await until(lambda: server.stats.queued.level == 1)
        assert await loaded_models(http, server) == []
        assert (await waiting)[1]["done_reason"] == "load"
        (model,) = await loaded_models(http, server)
        assert (model["name"], model["context_length"]) == ("simulated-fr-en:latest", 2048)


async def test_empty_request_with_keep_alive_zero_unloads(http: aiohttp.ClientSession) -> None:
    """An empty request loads; with keep_alive 0 it unloads."""
    async with serving(STEADY) as server:
        assert (await ask(http, server, chat("")))[1]["done_reason"] == "load"
        assert len(await loaded_models(http, server)) == 1
        assert (await ask(http, server, chat("", keep_alive=0)))[1]["done_reason"] == "unload"
        assert await loaded_models(http, server) == []
        assert server.stats.received == 0


async def test_idle_model_expires(http: aiohttp.ClientSession) -> None:
    """A model goes when it was idle for keep_alive, and the next request loads it again."""
    async with serving(STEADY) as server:
        await ask(http, server, chat("le train", keep_alive="50ms"))
        await until(lambda: server.scheduler.runner is None)
        await ask(http, server, chat("le train", keep_alive=-1))
        assert server.stats.loads == 2
        assert server.scheduler.runner is not None


@pytest.mark.parametrize(
    "change",
    [{"options": {"num_ctx": 512}}, {"shift": False}, {"options": {"num_batch": 64}}],
)
async def test_launch_options_reload_the_model(
    http: aiohttp.ClientSession, change: dict[str, Any]
) -> None:
    """Another num_ctx, shift or num_batch loads the model again; sampling options do not."""
    async with serving(STEADY) as server:
        await ask(http, server, chat("le train"))
        await ask(http, server, chat("le train", options={"temperature": 0.1, "seed": 4}))
        assert server.stats.reloads == 0
        await ask(http, server, chat("le train", **change))
        await ask(http, server, chat("le train", **change))
        assert (server.stats.loads, server.stats.reloads) == (2, 1)


@pytest.mark.parametrize(
    "same",
    [
        {"num_ctx": 4096}, {"num_batch": 512}, {"num_gpu": -1}, {"main_gpu": 0},
        {"num_thread": 0}, {"draft_num_predict": 4},
    ],
)  # fmt: skip
async def test_what_a_model_is_loaded_with_anyway_reloads_nothing(
    http: aiohttp.ClientSession, same: dict[str, Any]
) -> None:
    """Saying what Ollama does by itself is the same as saying nothing, in any order."""
    async with serving(STEADY) as server:
        for options in ({}, same, {}):
            await ask(http, server, chat("le train", options=options))
        assert server.stats.loads == 1


async def test_a_request_without_num_gpu_takes_any(http: aiohttp.ClientSession) -> None:
    """Another number of layers on the GPU reloads; none given fits whatever is loaded."""
    async with serving(STEADY) as server:
        loads = []
        for options in ({"num_gpu": 7}, {}, {"num_gpu": 7}, {"num_gpu": 8}):
            await ask(http, server, chat("le train", options=options))
            loads.append(server.stats.loads)
        assert loads == [1, 1, 1, 2]


async def test_reload_waits_for_running_answers(http: aiohttp.ClientSession) -> None:
    """A request that needs another context waits for the answer in the way to end."""
    async with serving(STEADY) as server:
        first = asyncio.create_task(ask(http, server, chat(TEXT * 3)))
        await until(lambda: server.stats.running.level == 1)
        _, said = await ask(http, server, chat("le train", options={"num_ctx": 512}))
        assert first.done()
        assert said["load_duration"] > 0.05e9


async def test_leaving_client_frees_its_slot(http: aiohttp.ClientSession) -> None:
    """A cancelled request gives its slot to the next one at once."""
    async with serving(STEADY) as server:
        await ask(http, server, chat(""))
        endless = asyncio.create_task(ask(http, server, chat("train " * 5000)))
        await until(lambda: server.stats.running.level == 1)
        queued = asyncio.create_task(ask(http, server, chat("train " * 5000)))
        await until(lambda: server.stats.queued.level == 1)
        for leaving in (queued, endless):
            leaving.cancel()
        status, _ = await asyncio.wait_for(ask(http, server, chat("le train")), 20)
        assert status == 200
        assert server.stats.outcomes["cancelled"] == 2
        assert server.stats.in_flight.level == 0


async def test_leaving_stream_frees_its_slot(http: aiohttp.ClientSession) -> None:
    """A client that walks away from a stream counts as cancelled and holds no slot."""
    async with serving(STEADY) as server:
        body = chat("train " * 5000, stream=True)
        async with http.post(server.url + "/api/chat", json=body) as response:
            await response.content.readline()
            response.close()
        await until(lambda: server.stats.running.level == 0)
        assert server.stats.outcomes["cancelled"] == 1


async def test_load_is_aborted_when_its_client_leaves(http: aiohttp.ClientSession) -> None:
    """The next request in the queue starts the load anew, and pays for all of it."""
    async with serving(Settings(load_seconds=1.0, decode_rate=0)) as server:
        leaving = asyncio.create_task(ask(http, server, chat("le train")))
        await until(lambda: server.stats.received == 1)
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(ask(http, server, chat("le train")))
        await until(lambda: server.stats.received == 2)
        leaving.cancel()
        _, said = await waiting
        assert said["load_duration"] >= 0.95e9
        assert (server.stats.loads, server.stats.loads_aborted) == (1, 1)


async def test_stop_ends_requests_still_open(http: aiohttp.ClientSession) -> None:
    """A server that stops drops its clients instead of waiting for their answers."""
    async with serving(STEADY) as server:
        endless = asyncio.create_task(ask(http, server, chat("train " * 5000)))
        await until(lambda: server.stats.running.level == 1)
    with pytest.raises(aiohttp.ClientError):
        await endless
    assert server.stats.in_flight.level == 0
