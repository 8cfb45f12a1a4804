"""What goes between the request and the engine: prompts, options, repeats and errors."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.engine import Message, Sampling
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.prompt import render_chat
from deployments.local_ollama.repetition import MOST_REPEATS
from deployments.local_ollama.timing_engine import simulated_model
from tests.deployments.conftest import MODEL
from tests.deployments.engines import ScriptedEngine, failing, saying
from tests.deployments.gguf_files import NATIVE

GO = "{{ if .System }}<|system|>{{ .System }}{{ end }}{{ range .Messages }}<|{{ .Role }}|>{{ .Content }} {{ end }}"  # noqa: E501
ONE_TURN = "{{ if .System }}S:{{ .System }} {{ end }}U:{{ .Prompt }} A:{{ .Response }}."
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture
def engine() -> ScriptedEngine:
    """The engine of the server."""
    return ScriptedEngine()


@pytest.fixture
async def server(engine: ScriptedEngine) -> AsyncIterator[LocalServer]:
    """A server with models `go`, `native`, `turn` and `insert` beside its own."""
    server = LocalServer(Settings(), engine=engine)
    plain = replace(simulated_model(Settings()), format="gguf")
    server.store.put(replace(plain, name="go", template=GO))
    server.store.put(replace(plain, name="native", template=None, chat_template=NATIVE))
    server.store.put(replace(plain, name="turn", template=ONE_TURN, system="base"))
    insert = "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}{{ .Prompt }}{{ end }}"
    server.store.put(replace(plain, name="insert", template=insert))
    async with server:
        yield server


async def post(
    http: aiohttp.ClientSession, server: LocalServer, path: str, body: dict[str, Any]
) -> tuple[int, str, list[dict[str, Any]]]:
    """Status, content type and JSON lines of an answer."""
    async with http.post(f"{server.url}/api/{path}", json=body) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
        return response.status, response.headers["Content-Type"], lines


@pytest.mark.parametrize(
    ("path", "body", "prompt"),
    [
        ("generate", {"model": "go", "prompt": "hi", "system": "sys"},
         "<|system|>sys<|system|>sys <|user|>hi "),
        ("generate", {"model": "native", "prompt": "hi", "system": "sys"},
         "<|system|>sys<|user|>hi"),
        ("generate", {"model": "go", "prompt": "hi", "raw": True}, "hi"),
        ("generate", {"model": "go", "prompt": "hi", "template": "[{{ .Prompt }}]"}, "[hi]"),
        ("generate", {"model": "insert", "prompt": "a", "suffix": "b"}, "<P>a<S>b<M>"),
        ("generate", {"model": "turn", "prompt": "hi"}, "S:base U:hi A:"),
        ("generate", {"model": "turn", "prompt": "hi", "system": "own"}, "S:own U:hi A:"),
        ("chat", {"model": "native", "messages": USER}, "<|user|>hi"),
        ("chat", {"model": "turn", "messages": USER}, "S:base U:hi A:"),
        ("chat", {"model": "turn", "messages": [{"role": "SYSTEM", "content": "own"}, *USER]},
         "S:own U:hi A:"),
        ("chat", {"model": "turn", "messages": [
            *USER, {"role": "assistant", "content": "yes"}, *USER, *USER]},
         "S:base U:hi A:yes.U:hi\n\nhi A:"),
        ("chat", {"model": "turn", "messages": [*USER, {"role": "assistant", "content": "Ye"}]},
         "S:base U:hi A:Ye"),
    ],
)  # fmt: skip
async def test_prompts_are_rendered(
    server: LocalServer,
    http: aiohttp.ClientSession,
    *,
    path: str,
    body: dict[str, Any],
    prompt: str,
) -> None:
    """System, template, raw, suffix and turns come out as the model's template has them."""
    _, kind, (said,) = await post(http, server, path, {**body, "_debug_render_only": True})
    assert said["_debug_info"] == {"rendered_template": prompt}
    assert (said["done"], kind) == (False, "application/json; charset=utf-8")
    if path == "chat":
        assert said["message"] == {"role": "", "content": ""}
    else:
        assert said["response"] == ""


async def test_context_goes_before_the_prompt(
    server: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The tokens of an earlier answer stand before the new prompt."""
    body = {"model": "go", "prompt": "one", "stream": False}
    _, _, (first,) = await post(http, server, "generate", body)
    more = {**body, "prompt": "two", "context": first["context"], "_debug_render_only": True}
    _, _, (said,) = await post(http, server, "generate", more)
    assert said["_debug_info"]["rendered_template"] == "<|user|>one ok<|user|>two "


async def test_options_come_from_request_model_and_ollama(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """The request's options win over the model's, and those over Ollama's own."""
    model = server.store.listed()[0]
    server.store.put(
        replace(model, name="set", parameters={"temperature": 0.1, "seed": 3, "stop": ["A"]})
    )
    body = {"model": "set", "prompt": "x", "options": {"seed": 4, "top_k": 7.9, "bogus": 1}}
    await post(http, server, "generate", body)
    assert engine.requests[-1].sampling == Sampling(temperature=0.1, seed=4, top_k=7)
    assert engine.requests[-1].stop == ("A",)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "model", "given_up"),
    [("generate", "go", True), ("generate", "native", True), ("chat", "go", True),
     ("chat", "native", False)],
)  # fmt: skip
async def test_an_answer_that_repeats_itself_is_given_up(
    server: LocalServer,
    http: aiohttp.ClientSession,
    engine: ScriptedEngine,
    *,
    path: str,
    model: str,
    given_up: bool,
    stream: bool,
) -> None:
    """After 31 equal pieces the answer ends with `done` false, but for chats of native models."""
    engine.script = saying(*[" ."] * 60)
    body = {"model": model, "prompt": "x", "messages": USER, "stream": stream}
    status, _, lines = await post(http, server, path, body)
    said = [each["message"]["content"] if path == "chat" else each["response"] for each in lines]
    assert (status, "".join(said)) == (200, " ." * (MOST_REPEATS + 1 if given_up else 60))
    assert lines[-1]["done"] is not given_up
    assert ("eval_count" in lines[-1]) is not given_up


@pytest.mark.parametrize(("blanks", "done"), [(30, True), (31, False)])
async def test_blank_pieces_count_from_the_first(
    server: LocalServer,
    http: aiohttp.ClientSession,
    engine: ScriptedEngine,
    *,
    blanks: int,
    done: bool,
) -> None:
    """Ollama begins to count with an empty text, so that the first blank repeats it already."""
    engine.script = saying(*[" "] * blanks, "x")
    _, _, lines = await post(http, server, "chat", {"model": "go", "messages": USER})
    assert lines[-1]["done"] is done


async def test_an_error_before_the_first_piece_has_its_status(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """Such an error has a status, and under a stream a head without charset."""
    engine.script = failing("boom")
    for stream, kind in ((False, "application/json; charset=utf-8"), (True, "application/json")):
        body = {"model": "go", "prompt": "x", "stream": stream}
        assert await post(http, server, "generate", body) == (500, kind, [{"error": "boom"}])


async def test_an_error_in_the_middle_is_the_last_line(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """Once a piece is out, the status is 200 and the last line is the error."""
    engine.script = failing("an error was encountered", after=["a"])
    status, kind, lines = await post(http, server, "generate", {"model": "go", "prompt": "x"})
    assert (status, kind) == (200, "application/x-ndjson")
    assert (lines[0]["response"], lines[-1]) == ("a", {"error": "an error was encountered"})


async def test_a_crash_loads_the_model_again_and_a_refusal_does_not(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """After a 500 the next request finds the model loaded anew; a 400 leaves it as it is."""
    body = {"model": "go", "prompt": "x", "stream": False}
    for status, loads in ((400, 1), (500, 1), (400, 2)):
        engine.script = failing("no", status)
        assert (await post(http, server, "generate", body))[0] == status
        assert len(engine.loads) == loads
    assert engine.closed == 1


async def test_a_failed_load_is_a_500(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """The engine's words come back to every request that waits, in the server's own form."""
    engine.load_error = "llama-server process has terminated: exit status 1: no"
    kind = "application/json; charset=utf-8"
    for body in ({"model": MODEL, "prompt": "x"}, {"model": MODEL}):
        assert await post(http, server, "generate", body) == (
            500, kind, [{"error": engine.load_error}],
        )  # fmt: skip
    assert len(engine.loads) == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("generate", {"model": MODEL, "prompt": "x", "template": "{{ .Foo"}, 500,
         "template: :1: unclosed action"),
        ("generate", {"model": MODEL, "prompt": "x", "suffix": "y"}, 400,
         f"registry.ollama.ai/library/{MODEL}:latest does not support insert"),
        ("chat", {"model": MODEL, "messages": USER, "tools": [{"type": "function"}]}, 400,
         f"registry.ollama.ai/library/{MODEL}:latest does not support tools"),
        ("generate", {"model": MODEL, "prompt": "x", "raw": True, "system": "s"}, 400,
         "raw mode does not support template, system, or context"),
        ("generate", {"model": MODEL, "top_logprobs": 21}, 400,
         "top_logprobs must be between 0 and 20"),
        ("generate", {"model": "m:cloud", "prompt": "x"}, 403,
         "ollama cloud is disabled: remote model is unavailable"),
        ("chat", {"model": MODEL, "messages": USER, "think": "huge"}, 400,
         'invalid think value: "huge" (must be "high", "medium", "low", "max", true, or false)'),
        ("chat", {"model": MODEL, "messages": USER, "format": [1, "é"]}, 500,
         'invalid format: "[1, \\"\\\\u00e9\\"]"; expected "json" or a valid JSON Schema object'),
    ],
)  # fmt: skip
async def test_refusals(
    server: LocalServer,
    http: aiohttp.ClientSession,
    *,
    path: str,
    body: dict[str, Any],
    status: int,
    message: str,
) -> None:
    """What a model cannot do, and what cannot be asked, is refused in Ollama's words."""
    kind = "application/json; charset=utf-8"
    assert await post(http, server, path, body) == (status, kind, [{"error": message}])


async def test_other_hosts_are_refused(server: LocalServer, http: aiohttp.ClientSession) -> None:
    """A request by another name than this machine's gets an empty 403."""
    async with http.get(server.url + "/api/tags", headers={"Host": "evil.com"}) as response:
        assert (response.status, await response.read()) == (403, b"")
    async with http.get(server.url + "/api/tags", headers={"Host": "box.local"}) as response:
        assert response.status == 200


async def test_long_answers_come_in_chunks(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """An answer of more than 2048 bytes has no length, as from Go's server."""
    for words, chunked in ((10, False), (1000, True)):
        engine.script = saying("word " * words)
        body = {"model": "go", "messages": USER, "stream": False}
        async with http.post(server.url + "/api/chat", json=body) as response:
            assert ("Content-Length" not in response.headers) is chunked
            assert len(json.loads(await response.read())["message"]["content"]) == 5 * words


async def test_a_stream_that_ends_in_an_error_counts_as_failed(
    server: LocalServer, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    """Its status is 200 all the same, for the head was sent."""
    engine.script = failing("boom", after=["a"])
    status, _, lines = await post(http, server, "chat", {"model": "go", "messages": USER})
    assert (status, lines[-1]) == (200, {"error": "boom"})
    assert server.stats.outcomes == {"failed": 1}


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x'|center(10**3) }}",
        "{{ 'x'.center(1000) }}",
        "{{ '{:1000}'.format('x') }}",
        "{{ '%1000s'|format('x') }}",
        "{{ '%1000s' % 'x' }}",
        "{{ 'x' * 1000 }}",
        "{{ 'x'|indent(1000, true) }}",
    ],
)
def test_a_chat_template_cannot_pad_to_any_width(template: str) -> None:
    """A template of a few letters could ask for all the memory there is."""
    plain = replace(simulated_model(Settings()), template=None, chat_template=template)
    with pytest.raises(RequestError, match="chat template: "):
        render_chat(plain, [Message("user", "hi")])
