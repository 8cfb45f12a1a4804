"""Models that clients make: their files, their lines of progress, and what is said of them."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.blobs import BlobStore
from deployments.local_ollama.errors import RequestError
from tests.deployments.conftest import MODEL, ask, generate
from tests.deployments.gguf_files import NATIVE, gguf

TINY = gguf(NATIVE)


def digest(body: bytes) -> str:
    """The digest under which a blob is sent."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


async def call(
    http: aiohttp.ClientSession, server: LocalServer, method: str, path: str, body: Any = None
) -> tuple[int, list[Any]]:
    """Status and the JSON lines of an answer."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    async with http.request(method, server.url + path, data=data) as response:
        return response.status, [json.loads(line) for line in (await response.read()).splitlines()]


@pytest.fixture
async def tiny(instant: LocalServer, http: aiohttp.ClientSession) -> LocalServer:
    """A server that was sent a small model, `tiny`, which renders its own chats."""
    status, _ = await call(http, instant, "POST", f"/api/blobs/{digest(TINY)}", TINY)
    assert status == 201
    body = {"model": "tiny", "files": {"tiny.gguf": digest(TINY)}}
    _, lines = await call(http, instant, "POST", "/api/create", body)
    assert lines == [
        {"status": "parsing GGUF"},
        {"status": "verifying conversion"},
        {"status": f"using existing layer {digest(TINY)}"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]
    return instant


async def test_blobs_are_taken_once(tiny: LocalServer, http: aiohttp.ClientSession) -> None:
    """A file that is there is known; a digest that does not fit or is none is refused."""
    place = f"/api/blobs/{digest(TINY)}"
    assert (await call(http, tiny, "HEAD", place))[0] == 200
    assert (await call(http, tiny, "POST", place, b"ignored"))[0] == 200
    assert (await call(http, tiny, "HEAD", f"/api/blobs/{digest(b'x')}"))[0] == 404
    assert await call(http, tiny, "POST", f"/api/blobs/{digest(b'x')}", b"abc") == (
        400,
        [{"error": f'digest mismatch, expected "{digest(b"x")}", got "{digest(b"abc")}"'}],
    )
    assert await call(http, tiny, "POST", "/api/blobs/x", b"") == (
        400,
        [{"error": "invalid digest format"}],
    )


async def test_blobs_are_bounded_and_go_with_the_store() -> None:
    """A blob that is one too many is refused and leaves nothing behind; close removes the rest."""

    async def parts(body: bytes) -> AsyncIterator[bytes]:
        yield body

    blobs = BlobStore(most_bytes=10)
    assert await blobs.receive(digest(b"12345678"), parts(b"12345678"))
    with pytest.raises(RequestError, match="no space left"):
        await blobs.receive(digest(b"123"), parts(b"123"))
    path = blobs.path(digest(b"12345678"))
    assert path is not None
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    blobs.close()
    assert not path.parent.exists()


async def test_a_created_model_is_shown_whole(
    tiny: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A copy with settings of its own shows them, its parent and the facts of the file."""
    body = {
        "model": "copy", "from": "tiny", "system": "be terse", "stream": False,
        "parameters": {"num_ctx": 2048, "temperature": 0, "stop": ["X"]},
    }  # fmt: skip
    assert await call(http, tiny, "POST", "/api/create", body) == (200, [{"status": "success"}])
    _, (card,) = await call(http, tiny, "POST", "/api/show", {"model": "copy"})
    assert list(card) == [
        "modelfile", "parameters", "template", "system", "details", "model_info", "tensors",
        "capabilities", "modified_at",
    ]  # fmt: skip
    assert card["parameters"].splitlines() == [
        "num_ctx                        2048",
        'stop                           "X"',
        "temperature                    0",
    ]
    assert card["modelfile"].splitlines()[2:4] == ["# FROM copy:latest", ""]
    assert card["modelfile"].splitlines()[5:] == [
        "TEMPLATE {{ .Prompt }}", "SYSTEM be terse", "PARAMETER num_ctx 2048", "PARAMETER stop X",
        "PARAMETER temperature 0",
    ]  # fmt: skip
    assert (card["template"], card["details"]["parent_model"]) == (NATIVE, "tiny:latest")
    assert card["details"]["quantization_level"] == "unknown"
    assert card["model_info"]["general.parameter_count"] == 160
    assert card["model_info"]["tokenizer.ggml.tokens"] is None
    assert "general.name" not in card["model_info"]
    assert card["tensors"][0] == {"name": "token_embd.weight", "type": "F32", "shape": [32, 4]}


async def test_fractions_of_a_file_are_shown_plainly(
    tiny: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A number of 32 bits has no noise in its last digits, and no exponent."""
    async with http.post(tiny.url + "/api/show", json={"model": "tiny"}) as response:
        assert b'"llama.attention.layer_norm_rms_epsilon":0.00001,' in await response.read()


async def test_lists_have_every_model(tiny: LocalServer, http: aiohttp.ClientSession) -> None:
    """A created model is listed with the kind of its weights and its lengths."""
    _, (answer,) = await call(http, tiny, "GET", "/api/tags")
    (found,) = [each for each in answer["models"] if each["name"] == "tiny:latest"]
    assert len(answer["models"]) == 2
    assert found["details"] == {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "160", "quantization_level": "F32", "context_length": 8192,
        "embedding_length": 32,
    }  # fmt: skip


async def test_copy_and_delete(tiny: LocalServer, http: aiohttp.ClientSession) -> None:
    """A copy answers under its own name; a deleted model is not found any more."""
    body = {"source": "TINY", "destination": "other:1"}
    assert await call(http, tiny, "POST", "/api/copy", body) == (200, [])
    assert (await ask(http, tiny, {**generate("le train"), "model": "other:1"}))[0] == 200
    assert await call(http, tiny, "DELETE", "/api/delete", {"model": "other:1"}) == (200, [])
    assert await ask(http, tiny, {**generate("x"), "model": "other:1"}) == (
        404,
        {"error": "model 'other:1' not found"},
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "copy", {"source": "no", "destination": "z"}, 404, 'model "no" not found'),
        ("POST", "copy", {"source": "a b", "destination": "z"}, 400, 'source "a b" is invalid'),
        ("POST", "copy", {"source": MODEL}, 400, 'destination "" is invalid'),
        ("DELETE", "delete", {"model": "no"}, 404, "model 'no' not found"),
        ("DELETE", "delete", {}, 400, 'name "" is invalid'),
        ("POST", "create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
        ("POST", "create", {"model": "x", "files": {}}, 400, "unknown type"),
        ("POST", "create", {"model": "x y"}, 400, "invalid model name"),
        ("POST", "create", {"model": "x", "files": {"a.gguf": "no"}}, 400, "invalid digest format"),
        ("POST", "create", {"model": "x", "from": "a b"}, 400, "invalid model name"),
    ],
)
async def test_refusals(
    instant: LocalServer,
    http: aiohttp.ClientSession,
    *,
    method: str,
    path: str,
    body: dict[str, Any],
    status: int,
    message: str,
) -> None:
    """What cannot be copied, deleted or made is refused in Ollama's words."""
    got = await call(http, instant, method, f"/api/{path}", body)
    assert got == (status, [{"error": message}])


@pytest.mark.parametrize(
    ("weights", "more", "last"),
    [
        (b"GGUF nonsense", {}, "unsupported GGUF version"),
        (b"no model", {}, "invalid file magic"),
        (TINY, {"template": "{{ if }}"}, "template error: template: :1: missing value for if"),
    ],
)
async def test_a_model_that_cannot_be_made_ends_in_an_error_line(
    instant: LocalServer,
    http: aiohttp.ClientSession,
    weights: bytes,
    more: dict[str, Any],
    last: str,
) -> None:
    """Once the first line is out, a mistake is the last line of an answer with status 200."""
    await call(http, instant, "POST", f"/api/blobs/{digest(weights)}", weights)
    body = {"model": "x", "files": {"x.gguf": digest(weights)}, **more}
    status, lines = await call(http, instant, "POST", "/api/create", body)
    assert (status, lines[0], lines[-1]["error"][: len(last)]) == (
        200, {"status": "parsing GGUF"}, last,
    )  # fmt: skip
    status, (only,) = await call(http, instant, "POST", "/api/create", {**body, "stream": False})
    assert status >= 400
    assert only["error"].startswith(last)


async def test_the_folder_goes_with_the_server(http: aiohttp.ClientSession) -> None:
    """A server that stops leaves no file behind."""
    async with LocalServer(Settings().instant()) as server:
        await call(http, server, "POST", f"/api/blobs/{digest(TINY)}", TINY)
        path = server.store.blobs.path(digest(TINY))
    assert path is not None
    assert not path.parent.exists()
