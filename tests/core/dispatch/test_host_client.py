from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deployments.local_ollama import LocalServer, Settings, local_server
from tasks.core.dispatch.host_client import HostClient
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import Measures
from tasks.core.settings import HostAddress
from tasks.core.translate.answers import Answer
from tests.fakes import MODEL, digest_of, serving, until

URL = "http://gpu1:11434"
LONGEST_MESSAGE = 350
Handler = Callable[[httpx.Request], httpx.Response]
QUESTION = [{"role": "user", "content": "le patient"}]


def client_of(handler: Handler) -> HostClient:
    """A client whose server is a function."""
    return HostClient(HostAddress(URL), httpx.MockTransport(handler))


async def ask(client: HostClient, deadline_s: float = 10.0) -> Answer:
    """A chat request, after which the client is closed."""
    try:
        return await client.chat(MODEL, QUESTION, {"num_ctx": 4096}, False, deadline_s)  # noqa: FBT003 - think
    finally:
        await client.close()


async def failure_of(handler: Handler) -> RequestFailed:
    """How a chat request fails when it is handled like this."""
    with pytest.raises(RequestFailed) as raised:
        await ask(client_of(handler))
    failed = raised.value
    assert failed.message == str(failed)
    assert failed.message.startswith(URL)
    assert len(failed.message) <= LONGEST_MESSAGE
    return failed


def answering(status: int, **content: Any) -> Handler:
    """A server that always answers the same."""
    return lambda _request: httpx.Response(status, **content)


OVERFLOW = {
    "code": 400,
    "message": "request (5000 tokens) exceeds the available context size (4096 tokens)",
    "type": "exceed_context_size_error",
}
WHOLE = {
    "model": MODEL,
    "message": {"role": "assistant", "content": "the patient"},
    "done": True,
    "done_reason": "stop",
    "total_duration": 50,
    "load_duration": 6,
    "prompt_eval_count": 1,
    "prompt_eval_duration": 7,
    "eval_count": 2,
    "eval_duration": 8,
}


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (200, {"html": "<html><h1>Welcome</h1></html>"}, ErrorKind.INVALID_ANSWER),
        (200, {"html": "<html>" * 10_000}, ErrorKind.INVALID_ANSWER),
        (200, {"content": b""}, ErrorKind.INVALID_ANSWER),
        (200, {"content": b"\xff\xfe\xff"}, ErrorKind.INVALID_ANSWER),
        (200, {"content": json.dumps(WHOLE).encode()[:60]}, ErrorKind.INVALID_ANSWER),
        (200, {"json": [1, 2]}, ErrorKind.INVALID_ANSWER),
        (200, {"json": "text"}, ErrorKind.INVALID_ANSWER),
        (200, {"json": 7}, ErrorKind.INVALID_ANSWER),
        (200, {"json": None}, ErrorKind.INVALID_ANSWER),
        (200, {"json": {}}, ErrorKind.INVALID_ANSWER),
        (200, {"json": {"message": "no object"}}, ErrorKind.INVALID_ANSWER),
        (200, {"json": {**WHOLE, "eval_count": "many"}}, ErrorKind.INVALID_ANSWER),
        (
            200,
            {"content": b"no gzip", "headers": {"content-encoding": "gzip"}},
            ErrorKind.INVALID_ANSWER,
        ),
        (
            200,
            {"json": {**WHOLE, "message": {"role": "assistant", "content": 7}}},
            ErrorKind.INVALID_ANSWER,
        ),
        (301, {"headers": {"location": f"{URL}/again"}}, ErrorKind.BAD_REQUEST),
        (304, {}, ErrorKind.BAD_REQUEST),
        (400, {"json": {"error": "invalid option"}}, ErrorKind.BAD_REQUEST),
        (400, {"json": {"error": json.dumps({"error": OVERFLOW})}}, ErrorKind.CONTEXT_OVERFLOW),
        (400, {"json": {"error": OVERFLOW}}, ErrorKind.CONTEXT_OVERFLOW),
        (
            400,
            {"json": {"error": "the input length exceeds the context length"}},
            ErrorKind.CONTEXT_OVERFLOW,
        ),
        (
            400,
            {"json": {"error": "prompt is longer than the context length, no truncation"}},
            ErrorKind.CONTEXT_OVERFLOW,
        ),
        (401, {"text": "go away"}, ErrorKind.BAD_REQUEST),
        (404, {"json": {"error": "model 'x' not found"}}, ErrorKind.NOT_FOUND),
        (404, {"text": "404 page not found"}, ErrorKind.NOT_FOUND),
        (500, {"json": {"error": "llama runner process has terminated"}}, ErrorKind.SERVER_ERROR),
        (500, {"json": ["no object"]}, ErrorKind.SERVER_ERROR),
        (500, {"json": {"error": None}}, ErrorKind.SERVER_ERROR),
        (500, {"json": {"detail": "a gateway's"}}, ErrorKind.SERVER_ERROR),
        (503, {"json": "server busy"}, ErrorKind.BUSY),
        (500, {"content": b"\xff\xfe"}, ErrorKind.SERVER_ERROR),
        (
            500,
            {"content": json.dumps({"error": "half \ud800 a pair"}).encode()},
            ErrorKind.SERVER_ERROR,
        ),
        (502, {"html": "<html>Bad Gateway</html>"}, ErrorKind.SERVER_ERROR),
        (503, {"json": {"error": "server busy, please try again"}}, ErrorKind.BUSY),
        (504, {"text": "x" * 100_000}, ErrorKind.SERVER_ERROR),
    ],
)
async def test_answers_that_are_none(status: int, content: dict[str, Any], kind: ErrorKind) -> None:
    """Whatever a server answers in place of an answer becomes one `RequestFailed` of its kind."""
    assert (await failure_of(answering(status, **content))).kind is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), ErrorKind.UNREACHABLE),
        (httpx.ConnectTimeout("slow"), ErrorKind.UNREACHABLE),
        (ConnectionError("by ollama"), ErrorKind.UNREACHABLE),
        (httpx.ReadTimeout("slow"), ErrorKind.TIMEOUT),
        (httpx.WriteTimeout("slow"), ErrorKind.TIMEOUT),
        (httpx.PoolTimeout("slow"), ErrorKind.TIMEOUT),
        (TimeoutError(), ErrorKind.TIMEOUT),
        (httpx.ReadError("reset"), ErrorKind.RESET),
        (httpx.WriteError("reset"), ErrorKind.RESET),
        (httpx.CloseError("reset"), ErrorKind.RESET),
        (httpx.RemoteProtocolError("half an answer"), ErrorKind.RESET),
        (httpx.LocalProtocolError("odd"), ErrorKind.RESET),
        (httpx.ProxyError("odd"), ErrorKind.RESET),
        (httpx.UnsupportedProtocol("odd"), ErrorKind.RESET),
        (httpx.DecodingError("odd"), ErrorKind.INVALID_ANSWER),
    ],
)
async def test_errors_of_the_transport(error: Exception, kind: ErrorKind) -> None:
    """Every error that a transport raises becomes one `RequestFailed` of its kind."""

    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    assert (await failure_of(fail)).kind is kind


def leaves(kind: type[Exception]) -> list[type[Exception]]:
    """The classes below an exception that have none below them."""
    below = [leaf for each in kind.__subclasses__() for leaf in leaves(each)]
    return below or [kind]


@pytest.mark.parametrize(
    "kind", [kind for kind in leaves(httpx.TransportError) if kind.__module__ == "httpx"]
)
async def test_no_error_of_httpx_is_forgotten(kind: type[httpx.TransportError]) -> None:
    """The map is complete: every error httpx knows for a transport comes out as ours."""

    def fail(_request: httpx.Request) -> httpx.Response:
        raise kind("some error")

    assert isinstance((await failure_of(fail)).kind, ErrorKind)


async def test_the_message_of_nested_json_is_the_innermost() -> None:
    """Of llama.cpp's JSON within JSON people see the sentence."""
    nested = json.dumps({"error": OVERFLOW})
    for error in (nested, OVERFLOW):
        failed = await failure_of(answering(400, json={"error": error}))
        assert failed.message == f"{URL} answered 400: {OVERFLOW['message']}"


async def test_half_a_surrogate_pair() -> None:
    """What no file could hold is replaced where it comes in, in answers and in messages."""
    message = {"role": "assistant", "content": "the \ud83e kidney \U0001fac0"}
    answer = await ask(
        client_of(answering(200, content=json.dumps({**WHOLE, "message": message}).encode()))
    )
    assert answer.content == "the \ufffd kidney \U0001fac0"
    failed = await failure_of(answering(500, content=json.dumps({"error": "odd \ud83e"}).encode()))
    assert failed.message == f"{URL} answered 500: odd \ufffd"


async def test_a_whole_answer() -> None:
    """An answer's text, state and numbers arrive as they were sent."""
    answer = await ask(client_of(answering(200, json=WHOLE)))
    measures = Measures(
        prompt_tokens=1,
        output_tokens=2,
        total_duration_ns=50,
        load_duration_ns=6,
        prompt_eval_duration_ns=7,
        eval_duration_ns=8,
    )
    assert answer == Answer("the patient", done=True, done_reason="stop", measures=measures)


async def test_an_answer_that_was_given_up() -> None:
    """`done: false` and numbers left out are an answer, too: judging it is not done here."""
    given = {"message": {"role": "assistant"}, "done": False}
    answer = await ask(client_of(answering(200, json=given)))
    assert answer == Answer("", done=False, done_reason=None, measures=Measures())


async def test_the_request_holds_all_that_matters() -> None:
    """Requests are not streamed and forbid the server to cut or shift a prompt in silence."""
    seen: list[httpx.Request] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=WHOLE)

    await ask(client_of(note))
    assert [(request.method, request.url) for request in seen] == [("POST", f"{URL}/api/chat")]
    assert json.loads(seen[0].content) == {
        "model": MODEL,
        "messages": QUESTION,
        "stream": False,
        "truncate": False,
        "shift": False,
        "keep_alive": "30m",
        "options": {"num_ctx": 4096},
        "think": False,
    }


async def test_loading_and_proving() -> None:
    """A load sends no message and no word on thinking; a proof asks for a single token."""
    bodies: list[dict[str, Any]] = []

    def note(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=WHOLE)

    client = client_of(note)
    await client.load(MODEL, {"num_ctx": 4096}, 10)
    await client.prove(MODEL, {"num_ctx": 4096}, "low", 10)
    await client.close()
    load, proof = bodies
    assert load["messages"] == []
    assert "think" not in load
    assert proof["options"] == {"num_ctx": 4096, "num_predict": 1}
    assert proof["think"] == "low"
    assert len(proof["messages"]) == 1
    assert load["options"] == {"num_ctx": 4096}


@pytest.mark.parametrize("given", [{}, {"version": 7}, [], "0.33.0"])
async def test_a_version_that_is_none(given: object) -> None:
    """Something that answers without being an Ollama server is told apart."""
    client = client_of(answering(200, json=given))
    with pytest.raises(RequestFailed) as raised:
        await client.version()
    await client.close()
    assert raised.value.kind is ErrorKind.INVALID_ANSWER


async def test_digests_by_full_name() -> None:
    """A host's models come with their digests; what has no name is left out."""
    models = [{"model": "a:latest", "digest": "d1"}, {"model": "b:1"}, {"digest": "d3"}]
    client = client_of(answering(200, json={"models": models}))
    assert await client.model_digests() == {"a:latest": "d1", "b:1": ""}
    await client.close()


async def test_digests_of_something_else() -> None:
    """A list of models that is none is an invalid answer."""
    client = client_of(answering(200, json={"models": "all of them"}))
    with pytest.raises(RequestFailed) as raised:
        await client.model_digests()
    await client.close()
    assert raised.value.kind is ErrorKind.INVALID_ANSWER


async def test_a_real_server() -> None:
    """Version, digests, load, proof and an answer, over a socket."""
    async with LocalServer(Settings().instant()) as server:
        client = HostClient(HostAddress(server.url))
        assert repr(client) == f"<HostClient {server.url}>"
        assert await client.version() == "0.33.0-simulated"
        assert await client.model_digests() == {f"{MODEL}:latest": digest_of(server)}
        await client.load(MODEL, {}, 10)
        await client.prove(MODEL, {}, False, 10)  # noqa: FBT003 - think
        answer = await ask(client)
        assert (answer.content, answer.done, answer.done_reason) == ("the patient", True, "stop")
        assert answer.measures.output_tokens > 0
        assert answer.measures.total_duration_ns > 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "reset"}, ErrorKind.RESET),
        ({"kind": "reset_mid_body"}, ErrorKind.RESET),
        ({"kind": "refuse"}, ErrorKind.RESET),
        ({"kind": "hang"}, ErrorKind.TIMEOUT),
        ({"kind": "hang", "path": "/api/version"}, None),
        ({"kind": "drip", "piece": 200, "pause": 0.001}, None),
        ({"kind": "drip", "piece": 1, "pause": 0.2}, ErrorKind.TIMEOUT),
        ({"kind": "status", "status": 503}, ErrorKind.BUSY),
        ({"kind": "status", "status": 502, "body": "<html>Bad</html>"}, ErrorKind.SERVER_ERROR),
        ({"kind": "html"}, ErrorKind.INVALID_ANSWER),
        ({"kind": "truncated_json"}, ErrorKind.INVALID_ANSWER),
    ],
)
async def test_faults_on_a_socket(fault: dict[str, Any], kind: ErrorKind | None) -> None:
    """A connection that breaks, hangs or drips ends within the deadline as its own kind."""
    async with serving(Settings().instant(), faults={0: [fault]}) as (server,):
        client = HostClient(HostAddress(server.url))
        if kind is None:
            assert (await ask(client, 5.0)).content == "the patient"
        else:
            with pytest.raises(RequestFailed) as raised:
                await ask(client, 0.3 if kind is ErrorKind.TIMEOUT else 5.0)
            assert raised.value.kind is kind
            assert len(raised.value.message) <= LONGEST_MESSAGE


async def test_a_server_that_is_gone() -> None:
    """A connection that breaks is a reset; one that cannot be made is an unreachable host."""
    async with serving(Settings().instant(), faults={0: [{"kind": "refuse"}]}) as (server,):
        client = HostClient(HostAddress(server.url))
        kinds = []
        for _ in range(2):
            with pytest.raises(RequestFailed) as raised:
                await client.chat(MODEL, QUESTION, {}, False, 5.0)  # noqa: FBT003 - think
            kinds.append(raised.value.kind)
        await client.close()
    assert kinds == [ErrorKind.RESET, ErrorKind.UNREACHABLE]


def test_a_process_that_dies() -> None:
    """A server that dies with a request in it breaks the connection."""
    with local_server(Settings().instant(), faults=[{"kind": "die"}]) as server:
        with pytest.raises(RequestFailed) as raised:
            asyncio.run(ask(HostClient(HostAddress(server.url))))
        assert raised.value.kind is ErrorKind.RESET


async def test_an_idle_connection_that_the_server_closed() -> None:
    """A server that hangs up without a word broke the connection; it is not unreachable."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(RequestFailed) as raised:
        await ask(HostClient(HostAddress(f"http://127.0.0.1:{port}")))
    listener.close()
    await listener.wait_closed()
    assert raised.value.kind is ErrorKind.RESET


async def test_something_that_does_not_speak_http() -> None:
    """A port of another service is an invalid answer, not an error of a library."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(RequestFailed) as raised:
        await ask(HostClient(HostAddress(f"http://127.0.0.1:{port}")))
    listener.close()
    await listener.wait_closed()
    assert raised.value.kind is ErrorKind.INVALID_ANSWER


async def test_no_limit_of_its_own() -> None:
    """The client opens as many connections as there are requests: bounding is not its task."""
    count = 130
    async with serving(Settings(slots=count, decode_rate=4, slowdown=0, load_seconds=0)) as (
        server,
    ):
        client = HostClient(HostAddress(server.url))
        await asyncio.gather(
            *(client.chat(MODEL, QUESTION, {}, False, 30.0) for _ in range(count))  # noqa: FBT003
        )
        await client.close()
    assert server.stats.in_flight.peak == count


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go to the host itself, whatever proxies the environment names."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with LocalServer(Settings().instant()) as server:
        assert (await ask(HostClient(HostAddress(server.url)))).content == "the patient"


async def test_a_cancelled_request_is_no_failure() -> None:
    """Cancelling stays cancelling: it is not taken for a fault of the host."""
    async with serving(Settings().instant(), faults={0: [{"kind": "hang"}]}) as (server,):
        request = asyncio.create_task(ask(HostClient(HostAddress(server.url))))
        await until(lambda: server.stats.in_flight.level == 1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_messages_do_not_hold_texts(caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats the report in its error does not get all of it into our messages."""
    caplog.set_level(logging.DEBUG)
    failed = await failure_of(answering(500, json={"error": "secret " * 1000}))
    assert failed.message.count("secret") < 50
    assert "secret" not in caplog.text


async def test_a_redirect_is_refused_with_where_it_leads() -> None:
    """A proxy that sends on says where to; it is not followed, and shows no password."""
    sends_on = answering(307, headers={"location": "https://user:secret@gpu1/api/chat"})
    failed = await failure_of(sends_on)
    assert failed.kind is ErrorKind.BAD_REQUEST
    assert "https://***@gpu1/api/chat" in failed.message
    assert "secret" not in failed.message
