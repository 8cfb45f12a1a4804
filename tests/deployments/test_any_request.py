"""Whatever a client sends, the server answers it or refuses it, and goes on."""

import asyncio
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.structs import CHAT, COPY, CREATE, DELETE, EMBED, GENERATE, PULL, SHOW
from tests.deployments.conftest import MODEL

# A status of 500 that a real server gives, too: it begins with one of these.
KNOWN_FAILURES = (
    "option ",
    "invalid format: ",
    "template: ",
    "pull model manifest: ",
    "open sha256-",
    "cannot read the context: ",
)
STRUCTS = {
    "/api/generate": GENERATE, "/api/chat": CHAT, "/api/embed": EMBED, "/api/show": SHOW,
    "/api/pull": PULL, "/api/create": CREATE, "/api/copy": COPY, "/api/delete": DELETE,
}  # fmt: skip
FUZZED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["json", MODEL, "5m", "{{ .Prompt }}", "sha256:" + "0" * 64]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
OPTIONS = st.dictionaries(
    st.sampled_from(["num_ctx", "num_keep", "num_predict", "seed", "stop", "top_p", "main_gpu"]),
    st.integers() | st.floats(allow_nan=False) | st.lists(st.text(max_size=4), max_size=2) | JSON,
)  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Host and port of one server for all examples, in a thread of its own."""
    loop, server = asyncio.new_event_loop(), LocalServer(Settings().instant())
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(20)
        host, port = server.url.removeprefix("http://").rsplit(":", 1)
        yield host, int(port)
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def send(address: tuple[str, int], method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = HTTPConnection(*address, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def check(status: int, answer: bytes) -> None:
    """The answer is one that a real server could give."""
    if status < 500:
        return
    said = json.loads(answer)["error"]
    assert said.startswith(KNOWN_FAILURES), said


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    """An endpoint and an object with some of its fields, of any type, or of the type it wants."""
    path = draw(st.sampled_from(sorted(STRUCTS)))
    names = draw(st.lists(st.sampled_from(sorted(STRUCTS[path].fields)), unique=True, max_size=6))
    body = {name: draw(OPTIONS if name == "options" else JSON) for name in names}
    if draw(st.booleans()):
        body["model"] = MODEL
    if path == "/api/chat" and draw(st.booleans()):
        body["messages"] = [{"role": "user", "content": draw(st.text(max_size=30))}]
    if path == "/api/delete":
        body["model"] = "other"
    return path, body


@FUZZED
@given(requests())
def test_any_json_gets_an_answer(address: tuple[str, int], asked: tuple[str, Any]) -> None:
    """Fields of any type and value never fail the server."""
    path, body = asked
    method = "DELETE" if path == "/api/delete" else "POST"
    check(*send(address, method, path, json.dumps(body).encode()))


@FUZZED
@given(st.sampled_from(sorted(STRUCTS)), st.binary(max_size=80))
def test_any_bytes_get_an_answer(address: tuple[str, int], path: str, body: bytes) -> None:
    """A body of any bytes is refused as bad JSON, or read."""
    method = "DELETE" if path == "/api/delete" else "POST"
    status, answer = send(address, method, path, body)
    check(status, answer)
    assert status in (200, 400, 404)


@FUZZED
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
    st.sampled_from(
        ["/", "/api/", "/api/blobs/", "/api/tags", "/api/blobs/sha256:0", "/%00", "//"]
    ),
    st.text(alphabet="abc/:%?#.0", max_size=8),
)
def test_any_path_gets_an_answer(
    address: tuple[str, int], method: str, start: str, rest: str
) -> None:
    """Any method on any path is answered, found or not."""
    status, _ = send(address, method, start + rest, b"{}")
    assert status in (200, 201, 400, 404, 405)


@FUZZED
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_on_the_socket_leave_the_server_well(
    address: tuple[str, int], sent: bytes
) -> None:
    """Bytes that are no HTTP end a connection, not the server."""
    connection = HTTPConnection(*address, timeout=20)
    connection.connect()
    connection.sock.sendall(sent)
    connection.close()
    assert send(address, "GET", "/", b"") == (200, b"Ollama is running")


@pytest.mark.parametrize("digits", [308, 309, 350, 5000])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}]}),
        ("/api/generate", {"prompt": "x"}),
        ("/api/embed", {"input": ""}),
    ],
)
@pytest.mark.parametrize("field", ["keep_alive", "temperature", "num_ctx"])
def test_numbers_of_any_length(
    address: tuple[str, int], path: str, more: dict[str, Any], field: str, digits: int
) -> None:
    """One that no float64 can hold is refused in Go's words, unless nobody reads it."""
    number = "9" * digits
    given = f'"{field}": {number}'
    if field != "keep_alive":
        given = f'"options": {{{given}}}'
    body = json.dumps({"model": MODEL, "stream": False, **more})[:-1] + f", {given}}}"
    status, answer = send(address, "POST", path, body.encode())
    if digits == 308:
        assert status in (200, 503), answer
    else:
        assert status == 400
        assert f"cannot unmarshal number {number} into Go " in json.loads(answer)["error"]


def test_a_long_number_among_the_parameters_of_a_model(address: tuple[str, int]) -> None:
    """What can be created can be shown."""
    for digits, created in ((308, 200), (350, 400)):
        asked = f'{{"model": "long", "from": "{MODEL}", "parameters": {{"x": {"9" * digits}}}}}'
        assert send(address, "POST", "/api/create", asked.encode())[0] == created
    status, _ = send(address, "POST", "/api/show", b'{"model": "long"}')
    assert status == 200
    assert send(address, "DELETE", "/api/delete", b'{"model": "long"}')[0] == 200
