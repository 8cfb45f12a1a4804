"""Prompts that are longer than the context, by endpoint, kind of model and switches."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.engine import Message
from deployments.local_ollama.overflow import newest_that_fit
from deployments.local_ollama.timing_engine import simulated_model
from deployments.local_ollama.wire import PROMPT_TOO_LONG
from tests.deployments.engines import ScriptedEngine, saying
from tests.deployments.gguf_files import NATIVE

LONG = "x " * 100
RENDERED = "{{ range .Messages }}{{ .Role }} {{ .Content }} {{ end }}"


@dataclass(slots=True)
class Served:
    """A server with one model that renders its chats by a Go template and one that does not."""

    server: LocalServer
    engine: ScriptedEngine


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Models `rendered` and `native`, in tokens of one word."""
    engine = ScriptedEngine(saying("ok"))
    server = LocalServer(Settings(), engine=engine)
    plain = replace(simulated_model(Settings()), trained_context=8192, format="gguf")
    server.store.put(replace(plain, name="rendered", template=RENDERED))
    native = NATIVE.replace("<|", "").replace("|>", " ").replace("}}{% endfor", "}} {% endfor")
    server.store.put(replace(plain, name="native", template=None, chat_template=native))
    async with server:
        yield Served(server, engine)


async def ask(
    http: aiohttp.ClientSession, served: Served, model: str, path: str, **more: Any
) -> tuple[int, Any]:
    """Status, and the prompt's tokens, the words of a refusal or the kind of a nested one."""
    text = more.pop("text", LONG)
    asked = {"prompt": text} if path == "generate" else {}
    if path == "chat":
        asked = {"messages": more.pop("messages", [{"role": "user", "content": text}])}
    body = {"model": model, "stream": False, "options": {"num_ctx": 64}, **asked, **more}
    async with http.post(f"{served.server.url}/api/{path}", json=body) as response:
        said = json.loads(await response.read())
    if "error" not in said:
        return response.status, said["prompt_eval_count"]
    if said["error"].startswith("{"):
        inner = json.loads(said["error"])["error"]
        assert inner["n_ctx"] == 64
        return response.status, (inner["type"], inner["n_prompt_tokens"])
    return response.status, said["error"]


NESTED = (400, ("exceed_context_size_error", 101))
PLAIN = (400, PROMPT_TOO_LONG)
CUT = (200, 34)


@pytest.mark.parametrize(
    ("model", "path", "switches", "expected"),
    [
        ("rendered", "generate", {}, CUT),
        ("rendered", "generate", {"truncate": False}, NESTED),
        ("rendered", "generate", {"shift": False}, PLAIN),
        ("rendered", "generate", {"truncate": False, "shift": False}, NESTED),
        ("rendered", "chat", {}, CUT),
        ("rendered", "chat", {"truncate": False}, NESTED),
        ("rendered", "chat", {"shift": False}, PLAIN),
        ("rendered", "chat", {"truncate": False, "shift": False}, NESTED),
        ("native", "generate", {}, CUT),
        ("native", "generate", {"truncate": False}, NESTED),
        ("native", "generate", {"shift": False}, PLAIN),
        ("native", "chat", {}, NESTED),
        ("native", "chat", {"truncate": False}, NESTED),
        ("native", "chat", {"shift": False}, NESTED),
    ],
)
async def test_the_table_of_overflows(
    served: Served,
    http: aiohttp.ClientSession,
    *,
    model: str,
    path: str,
    switches: dict[str, Any],
    expected: tuple[int, Any],
) -> None:
    """Cut silently, refused by the runner's words or by the server's, as Ollama 0.33 does."""
    assert await ask(http, served, model, path, **switches) == expected


async def test_a_cut_keeps_the_front_and_the_tail(
    served: Served, http: aiohttp.ClientSession
) -> None:
    """The first num_keep tokens stay, then the newest; a negative num_keep keeps all it can."""
    text = " ".join(str(number) for number in range(200))
    await ask(http, served, "rendered", "generate", text=text, raw=True)
    assert served.engine.requests[-1].prompt == (*range(4), *range(170, 200))
    options = {"num_ctx": 64, "num_keep": -1}
    await ask(http, served, "rendered", "generate", text=text, raw=True, options=options)
    assert served.engine.requests[-1].prompt == tuple(range(63))


@pytest.mark.parametrize("model", ["rendered", "native"])
async def test_the_oldest_turns_go_and_system_stays(
    served: Served, http: aiohttp.ClientSession, model: str
) -> None:
    """A chat that is too long loses its oldest turns, never a system message."""
    messages = [
        {"role": "system", "content": "keep"},
        {"role": "user", "content": LONG},
        {"role": "assistant", "content": "old"},
        {"role": "user", "content": "new"},
    ]
    assert (await ask(http, served, model, "chat", messages=messages))[0] == 200
    kept = [each.content for each in served.engine.requests[-1].messages]
    assert kept == ["keep", "old", "new"]


@pytest.mark.parametrize("turns", [1, 2, 3, 64, 100])
@pytest.mark.parametrize("length", [1, 5, 6, 30, 63, 64, 99])
def test_as_many_turns_stay_as_fit(turns: int, length: int) -> None:
    """The newest, whatever their number, and it takes few attempts to find how many."""
    asked: list[int] = []

    def tokens(text: str) -> list[int]:
        asked.append(len(text))
        return [0] * len(text)

    said = [Message("user", str(number % 10)) for number in range(turns)]
    found = newest_that_fit(said, lambda kept: "".join(m.content for m in kept), tokens, length)
    assert found.messages == tuple(said[-min(turns, length) :])
    assert found.text == "".join(each.content for each in found.messages)
    assert len(asked) <= 10


async def test_output_is_bounded(served: Served, http: aiohttp.ClientSession) -> None:
    """Without shift the answer ends with the context, with it after ten contexts or num_predict."""
    asked: list[tuple[dict[str, Any], int]] = [
        ({}, 640),
        ({"shift": False}, 61),
        ({"options": {"num_ctx": 64, "num_predict": 5}}, 5),
        ({"options": {"num_ctx": 64, "num_predict": 5000}}, 640),
        ({"options": {"num_ctx": 64, "num_predict": 0}}, 1),
        ({"options": {"num_ctx": 64, "num_predict": -2}}, 640),
    ]
    for more, limit in asked:
        await ask(http, served, "rendered", "generate", text="a b", **more)
        assert served.engine.requests[-1].output_limit == limit
