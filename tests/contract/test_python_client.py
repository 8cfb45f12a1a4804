"""The official Python client works with the server, and the pipeline's own client too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest

from tasks.core.dispatch.host_client import HostClient
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.settings import HostAddress
from tests.contract.target import PROSE, Target, full_tag, require

OPTIONS = {"temperature": 0, "seed": 7, "num_predict": 6}
MESSAGES = [{"role": "user", "content": f"Repeat: {PROSE * 2}"}]
DEADLINE_S = 600.0
THINK = False


@pytest.fixture
async def client(target: Target) -> AsyncIterator[ollama.AsyncClient]:
    """The official client."""
    async with ollama.AsyncClient(host=target.url, trust_env=False) as client:
        yield client


@pytest.fixture
async def host(target: Target) -> AsyncIterator[HostClient]:
    """The pipeline's client."""
    client = HostClient(HostAddress(target.url))
    yield client
    await client.close()


def calm(target: Target) -> dict[str, Any]:
    """What a model that thinks has to be told."""
    return {"think": False} if "thinking" in target.capabilities else {}


async def test_chat_and_generate(target: Target, client: ollama.AsyncClient) -> None:
    """Both give text, an end and metrics; streamed, the same text."""
    chat = await client.chat(target.model, MESSAGES, options=OPTIONS, **calm(target))
    require("done_reason", "length", chat.done_reason)
    require("eval_count", 6, chat.eval_count)
    parts = [
        part
        async for part in await client.chat(
            target.model, MESSAGES, stream=True, options=OPTIONS, **calm(target)
        )
    ]
    require("chat, streamed", chat.message.content, "".join(p.message.content or "" for p in parts))
    require("done of the last part", True, parts[-1].done)  # noqa: FBT003 - the expected value
    text = MESSAGES[0]["content"]
    whole = await client.generate(target.model, text, options=OPTIONS, **calm(target))
    pieces = [
        piece
        async for piece in await client.generate(
            target.model, text, stream=True, options=OPTIONS, **calm(target)
        )
    ]
    require("generate, streamed", whole.response, "".join(p.response or "" for p in pieces))
    require("context", "token ids", whole.context, holds=bool(whole.context))


async def test_list_ps_and_show(target: Target, client: ollama.AsyncClient) -> None:
    """The management calls parse into the client's models, and agree on the digest."""
    await client.generate(target.model, options={"num_ctx": 512})
    name = full_tag(target.model)
    (running,) = [each for each in (await client.ps()).models if each.model == name]
    require("context_length", 512, running.context_length)
    (listed,) = [each for each in (await client.list()).models if each.model == name]
    require("digest", listed.digest, running.digest)
    shown = await client.show(target.model)
    require(
        "capabilities",
        "completion",
        shown.capabilities,
        holds="completion" in (shown.capabilities or ()),
    )
    require("modelinfo", "some", shown.modelinfo, holds=bool(shown.modelinfo))


async def test_errors_are_response_errors(target: Target, client: ollama.AsyncClient) -> None:
    """A missing model is a 404, whole and streamed; a wrong option is a 500."""
    with pytest.raises(ollama.ResponseError, match="model 'no-such-model' not found") as missing:
        await client.chat("no-such-model", MESSAGES)
    with pytest.raises(ollama.ResponseError, match="not found") as streamed:
        async for _ in await client.chat("no-such-model", MESSAGES, stream=True):
            pass
    with pytest.raises(ollama.ResponseError, match="must be of type integer") as wrong:
        await client.chat(target.model, MESSAGES, options={"num_ctx": "many"})
    statuses = [each.value.status_code for each in (missing, streamed, wrong)]
    require("status codes", [404, 404, 500], statuses)


async def test_an_answer_that_is_not_done_parses(
    target: Target, client: ollama.AsyncClient
) -> None:
    """A 200 with `done: false` is an answer without an end and without metrics."""
    body = {"model": target.model, "messages": MESSAGES, "stream": False}
    said = await client._request(
        ollama.ChatResponse, "POST", "/api/chat", json={**body, "_debug_render_only": True}
    )
    require("done and done_reason", (False, None), (said.done, said.done_reason))
    require("metrics", (None, None), (said.total_duration, said.eval_count))


async def test_the_pipeline_surveys_loads_proves_and_asks(target: Target, host: HostClient) -> None:
    """What a run does with a host, from its first question to an answer."""
    version = await host.version()
    require("version", "some text", version, holds=bool(version))
    digests = await host.model_digests()
    require(
        "the model",
        full_tag(target.model),
        sorted(digests),
        holds=full_tag(target.model) in digests,
    )
    options = {"num_ctx": 512, "temperature": 0.0, "seed": 7}
    await host.load(target.model, options, DEADLINE_S)
    await host.prove(target.model, options, THINK, DEADLINE_S)
    answer = await host.chat(
        target.model, MESSAGES, {**options, "num_predict": 6}, THINK, DEADLINE_S
    )
    require("done, done_reason", (True, "length"), (answer.done, answer.done_reason))
    require("content", "some text", answer.content, holds=bool(answer.content))
    require("output_tokens", 6, answer.measures.output_tokens)


async def test_the_pipeline_tells_failures_apart(target: Target, host: HostClient) -> None:
    """A prompt too long, a missing model and a wrong option are failures of three kinds."""
    kinds = []
    long = [{"role": "user", "content": "mot " * 700}]
    for model, messages, options in (
        (target.model, long, {"num_ctx": 512}),
        ("no-such-model", MESSAGES, {}),
        (target.model, MESSAGES, {"num_ctx": "many"}),
    ):
        with pytest.raises(RequestFailed) as failure:
            await host.chat(model, messages, options, THINK, DEADLINE_S)  # type: ignore[arg-type]
        kinds.append(failure.value.kind)
    expected = [ErrorKind.CONTEXT_OVERFLOW, ErrorKind.NOT_FOUND, ErrorKind.SERVER_ERROR]
    require("kinds of failure", expected, kinds)
