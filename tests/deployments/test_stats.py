"""The counters a test or a benchmark reads."""

import hashlib
import time

import aiohttp

from deployments.local_ollama import LocalServer
from tests.deployments.conftest import ask, chat


async def stats(
    http: aiohttp.ClientSession, server: LocalServer, query: str = ""
) -> dict[str, object]:
    """What `/_local/stats` answers."""
    async with http.get(server.url + "/_local/stats" + query) as response:
        shown: dict[str, object] = await response.json()
        return shown


async def test_counts_by_endpoint_and_outcome(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Requests with text are counted by outcome; load requests only by endpoint."""
    before = time.time()
    instant.add_faults([{"kind": "status", "contains": "gare"}])
    await ask(http, instant, chat(""))
    await ask(http, instant, chat("le train"))
    await ask(http, instant, chat("la gare"))
    await ask(http, instant, chat("x" * 4000, truncate=False, options={"num_ctx": 64}))
    shown = await stats(http, instant)
    assert shown["endpoints"] == {"/api/chat": 4}
    counts = [shown[name] for name in ("received", "answered", "failed", "cancelled", "in_flight")]
    assert counts == [3, 1, 2, 0, 0]
    assert (shown["loads"], shown["reloads"], shown["output_tokens"]) == (2, 1, 3)
    assert shown["faults"] == {"status": 1}
    first, last = shown["first_request_at"], shown["last_answer_at"]
    assert isinstance(first, float)
    assert isinstance(last, float)
    assert before <= first <= last <= time.time()


async def test_requests_are_listed_by_hash(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Each request with text has the sha256 of the text to translate, its times and its outcome."""
    await ask(http, instant, chat("Traduire\n<report>\nÀ la gare\n</report>"))
    instant.add_faults([{"kind": "empty"}])
    await ask(http, instant, chat("le train"))
    shown = await stats(http, instant, "?requests=1")
    requests = shown["requests"]
    assert isinstance(requests, list)
    assert [each["sha256"] for each in requests] == [
        hashlib.sha256(text.encode()).hexdigest() for text in ("À la gare", "le train")
    ]
    assert [each["fault"] for each in requests] == [None, "empty"]
    assert all(each["outcome"] == "answered" for each in requests)
    assert all(each["started_at"] <= each["ended_at"] for each in requests)
    assert "requests" not in await stats(http, instant)


async def test_reset_starts_from_zero(instant: LocalServer, http: aiohttp.ClientSession) -> None:
    """DELETE forgets counters, peaks, times and requests."""
    await ask(http, instant, chat("le train"))
    async with http.delete(instant.url + "/_local/stats") as response:
        assert response.status == 200
    shown = await stats(http, instant, "?requests=1")
    assert (shown["received"], shown["peak_in_flight"], shown["requests"]) == (0, 0, [])
    assert (shown["first_request_at"], shown["last_answer_at"]) == (None, None)
