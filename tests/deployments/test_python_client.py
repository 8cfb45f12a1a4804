"""The official Python client works with the local server as with a real one."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import ollama
import pytest

from deployments.local_ollama import LocalServer, Settings
from tests.deployments.conftest import MODEL, serving, until


@pytest.fixture
async def client(instant: LocalServer) -> AsyncIterator[ollama.AsyncClient]:
    """The official client of an instant server."""
    async with ollama.AsyncClient(host=instant.url, trust_env=False) as client:
        yield client


MESSAGES = [{"role": "user", "content": "Le train"}]


async def test_chat_generate_and_stream(client: ollama.AsyncClient) -> None:
    """Chat, generate and both streams give the text and the typed metrics."""
    chat = await client.chat(MODEL, MESSAGES)
    assert (chat.message.content, chat.done_reason) == ("The train", "stop")
    assert chat.eval_count == 3
    generate = await client.generate(MODEL, "Le train")
    assert (generate.response, generate.done) == ("The train", True)
    parts = [part async for part in await client.chat(MODEL, MESSAGES, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "The train"
    assert parts[-1].done_reason == "stop"
    pieces = [part async for part in await client.generate(MODEL, "Le train", stream=True)]
    assert "".join(piece.response or "" for piece in pieces) == "The train"


async def test_ps_list_show_and_pull(client: ollama.AsyncClient) -> None:
    """The management calls parse into the client's models."""
    await client.generate(MODEL, options={"num_ctx": 1024})
    (running,) = (await client.ps()).models
    assert (running.model, running.context_length) == (f"{MODEL}:latest", 1024)
    assert running.expires_at is not None
    (listed,) = (await client.list()).models
    assert listed.model == f"{MODEL}:latest"
    assert listed.digest == running.digest
    shown = await client.show(MODEL)
    assert "simulated.context_length" in (shown.modelinfo or {})
    assert (await client.pull(MODEL)).status == "success"


async def test_errors_become_response_errors(
    instant: LocalServer, client: ollama.AsyncClient
) -> None:
    """A missing model, a wrong option and a server fault are ResponseErrors with their status."""
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as missing:
        await client.chat("nope", MESSAGES)
    with pytest.raises(ollama.ResponseError, match="num_ctx") as wrong:
        await client.chat(MODEL, MESSAGES, options={"num_ctx": "many"})
    instant.add_faults([{"kind": "status", "status": 502, "body": "<html>no</html>"}])
    with pytest.raises(ollama.ResponseError) as page:
        await client.chat(MODEL, MESSAGES)
    assert [e.value.status_code for e in (missing, wrong, page)] == [404, 500, 502]


async def test_broken_connections_raise_httpx_errors(
    instant: LocalServer, client: ollama.AsyncClient
) -> None:
    """A reset and a body that breaks off are transport errors, as from a real server."""
    instant.add_faults([{"kind": "reset", "times": 1}, {"kind": "reset_mid_body", "times": 1}])
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            await client.chat(MODEL, MESSAGES)
    assert (await client.chat(MODEL, MESSAGES)).message.content == "The train"


async def test_cancelled_call_frees_the_slot() -> None:
    """Cancelling the client's task lets the next call run at once."""
    settings = Settings(prefill_rate=0, decode_rate=100, load_seconds=0)
    async with (
        serving(settings) as server,
        ollama.AsyncClient(host=server.url, trust_env=False) as client,
    ):
        endless = asyncio.create_task(client.generate(MODEL, "train " * 5000))
        await until(lambda: server.stats.running.level == 1)
        endless.cancel()
        said = await asyncio.wait_for(client.generate(MODEL, "Le train"), 20)
        assert said.response == "The train"
