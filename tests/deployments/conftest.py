"""Servers and clients for the tests of the local server; traffic stays on the loopback address."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings

MODEL = "simulated-fr-en"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@asynccontextmanager
async def serving(settings: Settings, *faults: dict[str, Any]) -> AsyncIterator[LocalServer]:
    """A server in this event loop, with these faults."""
    async with LocalServer(settings, faults) as server:
        yield server


@pytest.fixture
async def instant() -> AsyncIterator[LocalServer]:
    """A server that costs no time."""
    async with serving(Settings().instant()) as server:
        yield server


def chat(text: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request that is not streamed."""
    messages = [{"role": "user", "content": text}] if text else []
    return {"model": MODEL, "stream": False, "messages": messages, **more}


def generate(text: str, **more: Any) -> dict[str, Any]:
    """The body of a generate request that is not streamed."""
    return {"model": MODEL, "stream": False, "prompt": text, **more}


async def ask(
    http: aiohttp.ClientSession, server: LocalServer, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a chat or generate request."""
    path = "/api/chat" if "messages" in body else "/api/generate"
    async with http.post(server.url + path, json=body) as response:
        return response.status, json.loads(await response.read())


async def answer(http: aiohttp.ClientSession, server: LocalServer, text: str) -> str:
    """The text a chat request is answered with; it has to succeed."""
    status, body = await ask(http, server, chat(text))
    assert status == 200, body
    return str(body["message"]["content"])


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until the condition holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        await asyncio.sleep(0.005)
