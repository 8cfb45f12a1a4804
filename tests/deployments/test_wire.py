"""Shapes, headers and errors on the wire, as a real server gives them."""

import json
import math
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings, cards, wire
from deployments.local_ollama.timing_engine import simulated_model
from tests.deployments.conftest import MODEL, ask, chat, generate


def test_escapes_are_gos() -> None:
    """Angle brackets, ampersands and line separators are escaped, accents are not."""
    said = wire.encode({"a": "<é & \u2028>"})
    assert said == '{"a":"\\u003cé \\u0026 \\u2028\\u003e"}'.encode()


def test_lone_surrogate_becomes_the_replacement_character() -> None:
    """Text that UTF-8 cannot hold is written all the same."""
    assert wire.encode("a\ud800") == '"a\ufffd"'.encode()


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
    ],
)
def test_timestamps_drop_trailing_zeros(ns: int, text: str) -> None:
    """A timestamp has as many decimals as it needs, up to nine."""
    assert wire.timestamp(ns) == text


def test_endless_keep_alive_has_a_timestamp() -> None:
    """A model that never expires still shows a time that parsers accept."""
    assert cards.running(simulated_model(Settings()), 64, math.inf)["expires_at"].startswith(
        "2262-"
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("generate", b"", 400, "missing request body"),
        (
            "generate",
            b"{bad",
            400,
            "invalid character 'b' looking for beginning of object key string",
        ),
        ("generate", b'{"model":', 400, "unexpected EOF"),
        ("generate", b'{"model":"' + MODEL.encode() + b'","keep_alive":true}', 400,
         "Unsupported type: 'bool'"),
        ("generate", b'{"model":5}', 400, ("json: cannot unmarshal number into Go struct "
         "field GenerateRequest.model of type string")),
        ("generate", b"[1]", 400,
         "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        ("generate", b'{"model":""}', 404, "model '' not found"),
        ("generate", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("generate", b'{"model":"a b"}', 400, "invalid model name"),
        ("chat", b'{"model":""}', 400, "model is required"),
        ("chat", b'{"model":"nope","messages":[]}', 404, "model 'nope' not found"),
        ("chat", b'{"model":"nope","messages":"x"}', 400, ("json: cannot unmarshal string into "
         "Go struct field ChatRequest.messages of type []api.Message")),
        ("show", b'{"model":"nope"}', 404, "model 'nope:latest' not found"),
        ("show", b"{}", 400, "model is required"),
        ("embed", b'{"model":"nope","input":"x"}', 404,
         'model "nope" not found, try pulling it first'),
        ("embed", b'{"model":"nope","input":5}', 400, "invalid input type"),
        ("pull", b"{}", 400, "invalid model name"),
    ],
)  # fmt: skip
async def test_errors_have_their_recorded_words(
    instant: LocalServer,
    http: aiohttp.ClientSession,
    *,
    path: str,
    body: bytes,
    status: int,
    message: str,
) -> None:
    """A malformed request is refused with the status and the words of a real server."""
    async with http.post(f"{instant.url}/api/{path}", data=body) as response:
        said = json.loads(await response.read())
    assert (response.status, said) == (status, {"error": message})


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({"options": {"num_ctx": "9"}}, 500, 'option "num_ctx" must be of type integer'),
        ({"options": {"temperature": "hot"}}, 500, 'option "temperature" must be of type float32'),
        ({"options": {"stop": "X"}}, 500, 'option "stop" must be of type array'),
        ({"options": {"stop": [1]}}, 500, 'option "stop" must be of an array of strings'),
        ({"keep_alive": "abc"}, 400, 'time: invalid duration "abc"'),
        ({"think": True}, 400, f'"{MODEL}" does not support thinking'),
        ({"format": "xml"}, 500,
         'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    ],
)  # fmt: skip
async def test_wrong_options_are_refused(
    instant: LocalServer,
    http: aiohttp.ClientSession,
    more: dict[str, Any],
    status: int,
    message: str,
) -> None:
    """An option of the wrong type is refused by name, in chat and in generate."""
    for body in (chat("le train", **more), generate("le train", **more)):
        assert await ask(http, instant, body) == (status, {"error": message})


async def test_unknown_options_and_fields_pass(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A field nobody knows is ignored, as a real server does."""
    status, _ = await ask(http, instant, chat("le train", bogus=1, options={"bogus": 1}))
    assert status == 200


async def test_small_paths(instant: LocalServer, http: aiohttp.ClientSession) -> None:
    """The root says Ollama runs, the version says simulated, a wrong path or method says so."""
    async with http.get(instant.url) as response:
        assert await response.text() == "Ollama is running"
    async with http.head(instant.url) as response:
        assert response.status == 200
    async with http.get(instant.url + "/api/version") as response:
        assert (await response.json())["version"].endswith("-simulated")
        assert response.headers["Server"] == "local-ollama"
    async with http.get(instant.url + "/nope") as response:
        assert (response.status, await response.text()) == (404, "404 page not found")
        assert response.headers["Content-Type"] == "text/plain"
    async with http.get(instant.url + "/api/chat") as response:
        assert (response.status, await response.text()) == (405, "405 method not allowed")


async def test_pull_and_embed_answer_politely(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Pulling the model succeeds, pulling another ends in an error line, embeddings are refused."""
    async with http.post(instant.url + "/api/pull", json={"model": MODEL}) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert lines == [{"status": "pulling manifest"}, {"status": "success"}]
    async with http.post(instant.url + "/api/pull", json={"model": "other"}) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert lines[-1]["error"].startswith("pull model manifest")
    async with http.post(
        instant.url + "/api/embed", json={"model": MODEL, "input": "x"}
    ) as refused:
        assert refused.status == 400
    async with http.post(instant.url + "/api/embed", json={"model": MODEL}) as empty:
        assert await empty.json() == {"model": MODEL, "embeddings": []}
