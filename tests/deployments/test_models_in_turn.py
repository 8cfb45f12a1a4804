"""Several models on one server: who is loaded, who makes room, who waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.engine import Completion, CompletionRequest, OnText
from deployments.local_ollama.timing_engine import simulated_model
from tests.deployments.conftest import ask, until
from tests.deployments.engines import ScriptedEngine, done

Held = dict[str, asyncio.Event]


@asynccontextmanager
async def models(
    names: str = "abcd", engine: ScriptedEngine | None = None, **settings: Any
) -> AsyncIterator[tuple[LocalServer, ScriptedEngine]]:
    """A server with models of these names, each with weights of its own."""
    engine = engine or ScriptedEngine()
    server = LocalServer(Settings(**settings), engine=engine)
    plain = simulated_model(Settings())
    for name in names:
        server.store.put(replace(plain, name=f"{name}:latest", blob=f"sha256:{name}"))
    async with server:
        yield server, engine


def body(model: str, text: str = "x", **more: Any) -> dict[str, Any]:
    """A request to generate with one of the models."""
    return {"model": model, "prompt": text, "stream": False, **more}


def holding(held: Held) -> Callable[[CompletionRequest, OnText | None], Awaitable[Completion]]:
    """Answers a prompt that names an event only when that is set."""

    async def script(request: CompletionRequest, _on_text: OnText | None) -> Completion:
        for name, event in held.items():
            if request.messages[-1].content == name:
                await event.wait()
        return done("ok", request)

    return script


def loaded(server: LocalServer) -> list[str]:
    """Names of the loaded models, in the order of loading."""
    return [each.model.name.removesuffix(":latest") for each in server.scheduler.runners]


async def test_three_models_stay_loaded_by_default(http: aiohttp.ClientSession) -> None:
    """The fourth takes the place of one; a model in use again is not loaded again."""
    async with models() as (server, engine):
        for name in "abca":
            await ask(http, server, body(name))
        assert loaded(server) == ["a", "b", "c"]
        await ask(http, server, body("d"))
        assert len(loaded(server)) == 3
        assert len(engine.loads) == 4
        assert engine.closed == 1


async def test_the_idle_model_with_the_shortest_stay_makes_room(
    http: aiohttp.ClientSession,
) -> None:
    """Of idle models the one with the shortest keep-alive goes."""
    async with models(max_loaded=2) as (server, _):
        await ask(http, server, body("a", keep_alive="2h"))
        await ask(http, server, body("b", keep_alive="1m"))
        await ask(http, server, body("c"))
        assert loaded(server) == ["a", "c"]


async def test_a_model_in_use_goes_only_when_no_idle_one_can(http: aiohttp.ClientSession) -> None:
    """A busy model is passed over for an idle one that is to stay longer."""
    held: Held = {"hold": asyncio.Event()}
    async with models(engine=ScriptedEngine(holding(held)), max_loaded=2) as (server, _):
        busy = asyncio.create_task(ask(http, server, body("a", "hold", keep_alive="1s")))
        await until(lambda: server.stats.running.level == 1)
        await ask(http, server, body("b", keep_alive="2h"))
        await ask(http, server, body("c"))
        assert loaded(server) == ["a", "c"]
        held["hold"].set()
        assert (await busy)[0] == 200


async def test_two_names_on_one_file_share_a_loaded_model(http: aiohttp.ClientSession) -> None:
    """A copy is not loaded beside its original; other launch options reload it for both."""
    async with models() as (server, engine):
        server.store.copy("a", "a2")
        await ask(http, server, body("a"))
        await ask(http, server, body("a2"))
        assert [name for name, _ in engine.loads] == ["a:latest"]
        await ask(http, server, body("a2", options={"num_ctx": 128}))
        assert (len(engine.loads), server.stats.reloads) == (2, 1)


async def test_requests_for_a_loaded_model_starve_one_that_waits(
    http: aiohttp.ClientSession,
) -> None:
    """While its place is never idle, another model waits: later requests pass it."""
    held: Held = {name: asyncio.Event() for name in ("1", "2", "3")}
    engine = ScriptedEngine(holding(held))
    async with models(engine=engine, max_loaded=1, slots=2) as (server, _):
        first = asyncio.create_task(ask(http, server, body("a", "1")))
        await until(lambda: server.stats.running.level == 1)
        waiting = asyncio.create_task(ask(http, server, body("b")))
        await until(lambda: server.stats.queued.level == 1)
        for before, after in (("1", "2"), ("2", "3")):
            later = asyncio.create_task(ask(http, server, body("a", after)))
            await until(lambda: server.stats.running.level == 2)
            held[before].set()
            await first
            assert not waiting.done()
            first = later
        held["3"].set()
        assert (await waiting)[0] == 200
        assert [name for name, _ in engine.loads] == ["a:latest", "b:latest"]


async def test_a_load_that_takes_too_long_is_given_up(http: aiohttp.ClientSession) -> None:
    """After load_timeout the request that waits gets a 500, and nothing is loaded."""
    async with models(load_timeout=0.05) as (server, engine):
        engine.load_seconds = 60
        status, said = await ask(http, server, body("a"))
        assert (status, said["error"]) == (500, "timed out waiting for llama-server to start")
        assert loaded(server) == []


async def test_a_model_that_died_while_idle_is_loaded_again(http: aiohttp.ClientSession) -> None:
    """The next request notices before it is admitted, and is answered."""
    async with models() as (server, engine):
        await ask(http, server, body("a"))
        engine.alive = False
        assert (await ask(http, server, body("a")))[0] == 200
        assert (len(engine.loads), engine.closed) == (2, 1)


async def test_unset_keep_alive_leaves_what_was_set(http: aiohttp.ClientSession) -> None:
    """A request without keep_alive does not change how long the model stays."""
    async with models(keep_alive=300.0) as (server, _):
        await ask(http, server, body("a", keep_alive="2h"))
        await ask(http, server, body("a"))
        (runner,) = server.scheduler.runners
        assert runner.keep_alive == 7200


async def test_running_models_are_listed_longest_first(http: aiohttp.ClientSession) -> None:
    """The list has every loaded model with the context it was loaded with."""
    async with models() as (server, _):
        await ask(http, server, body("a", keep_alive="1m"))
        await ask(http, server, body("b", keep_alive=-1, options={"num_ctx": 128}))
        async with http.get(server.url + "/api/ps") as response:
            shown = (await response.json())["models"]
        assert [(each["name"], each["context_length"]) for each in shown] == [
            ("b:latest", 128), ("a:latest", 4096),
        ]  # fmt: skip


@pytest.mark.parametrize("seconds", [0, "0s"])
async def test_unloading_one_model_leaves_the_others(
    http: aiohttp.ClientSession, seconds: int | str
) -> None:
    """An empty request with keep_alive 0 concerns its own model."""
    async with models() as (server, engine):
        await ask(http, server, body("a"))
        await ask(http, server, body("b"))
        _, said = await ask(http, server, body("a", "", keep_alive=seconds))
        assert said["done_reason"] == "unload"
        assert loaded(server) == ["b"]
    assert engine.closed == 2
