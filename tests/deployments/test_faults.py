"""Each kind of fault, and which requests get it."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deployments.local_ollama import LocalServer, Settings
from deployments.local_ollama.engine import LaunchOptions, LoadedModel
from deployments.local_ollama.faults import KINDS, FaultError, FaultPlan, Rule
from deployments.local_ollama.models import Model
from tests.deployments.conftest import answer, ask, chat, serving, until

INSTANT = Settings().instant()


async def test_reset_ends_the_connection_before_any_byte(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The client sees its connection break; the next request is answered."""
    instant.add_faults([{"kind": "reset", "times": 1}])
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        await ask(http, instant, chat("le train"))
    assert await answer(http, instant, "le train") == "the train"
    assert instant.stats.outcomes == {"failed": 1, "answered": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_mid_body_breaks_after_half_the_answer(
    instant: LocalServer, http: aiohttp.ClientSession, *, stream: bool
) -> None:
    """The head and half the body arrive, then the connection breaks."""
    instant.add_faults([{"kind": "reset_mid_body"}])
    body = chat("le train", stream=stream)
    async with http.post(instant.url + "/api/chat", json=body) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_hang_never_answers_until_the_client_leaves(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A hanging request holds no slot and ends as cancelled when its client gives up."""
    instant.add_faults([{"kind": "hang", "times": 1}])
    hanging = asyncio.create_task(ask(http, instant, chat("le train")))
    await until(lambda: instant.stats.in_flight.level == 1)
    assert await answer(http, instant, "la gare") == "the station"
    hanging.cancel()
    await until(lambda: instant.stats.in_flight.level == 0)
    assert instant.stats.outcomes["cancelled"] == 1


async def test_drip_sends_the_whole_answer_slowly(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The body comes complete, in pieces with pauses."""
    instant.add_faults([{"kind": "drip", "piece": 50, "pause": 0.02}])
    began = time.monotonic()
    assert await answer(http, instant, "le train") == "the train"
    assert time.monotonic() - began >= 0.06


async def test_status_answers_with_the_body_given(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A status fault gives its status, its JSON or HTML body and its headers."""
    instant.add_faults([
        {"kind": "status", "status": 500, "times": 1},
        {"kind": "status", "status": 503, "times": 1, "headers": {"Retry-After": "2"}},
        {"kind": "status", "status": 502, "body": "<html>Bad Gateway</html>"},
    ])  # fmt: skip
    assert await ask(http, instant, chat("x")) == (
        500,
        {"error": "simulated fault: status 500"},
    )
    async with http.post(instant.url + "/api/chat", json=chat("x")) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
    async with http.post(instant.url + "/api/chat", json=chat("x")) as response:
        assert (response.status, response.content_type) == (502, "text/html")
        assert await response.text() == "<html>Bad Gateway</html>"


async def test_html_is_a_page_with_status_200(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """An html fault looks like a captive portal: 200 and no JSON."""
    instant.add_faults([{"kind": "html"}])
    async with http.post(instant.url + "/api/chat", json=chat("x")) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert (await response.text()).startswith("<!DOCTYPE html>")
    assert instant.stats.outcomes == {"failed": 1}


async def test_truncated_json_is_a_whole_http_answer(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The body is complete for HTTP, and half a JSON object."""
    instant.add_faults([{"kind": "truncated_json"}])
    async with http.post(instant.url + "/api/chat", json=chat("x")) as response:
        body = await response.read()
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "text", "done", "reason"),
    [
        ("empty", "", True, "stop"),
        ("not_done", "the train i", False, None),
        ("length", "the train i", True, "length"),
        ("wrong_language", "le train est parti aussi", True, "stop"),
        ("repeat", "the train i" + " i" * 60, True, "stop"),
    ],
)
async def test_spoilt_answers(
    instant: LocalServer,
    http: aiohttp.ClientSession,
    *,
    kind: str,
    text: str,
    done: bool,
    reason: str | None,
    stream: bool,
) -> None:
    """An answer that is empty, unfinished, cut, untranslated or repeating comes with status 200."""
    instant.add_faults([{"kind": kind}])
    body = chat("le train est parti aussi", stream=stream)
    async with http.post(instant.url + "/api/chat", json=body) as response:
        assert response.status == 200
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == text
    assert (lines[-1]["done"], lines[-1].get("done_reason")) == (done, reason)
    assert ("eval_count" in lines[-1]) is done
    assert instant.stats.outcomes == {"answered": 1}


async def test_slow_multiplies_the_time(http: aiohttp.ClientSession) -> None:
    """A slow answer takes `factor` times as long, and its durations say so."""
    settings = Settings(prefill_rate=0, decode_rate=1000, load_seconds=0)
    async with serving(settings, {"kind": "slow", "factor": 20, "contains": "SLOW"}) as server:
        _, slow = await ask(http, server, chat("SLOW le train en gare"))
        assert slow["eval_duration"] >= 0.9 * 20 * slow["eval_count"] / 1000 * 1e9


SLOTS_OF_3 = Settings(slots=3, prefill_rate=0, decode_rate=50, load_seconds=0, slowdown=0)
"""Forty characters take 0.2 s on this server, however many are made at once."""


async def fault_now(http: aiohttp.ClientSession, server: LocalServer, **rule: Any) -> None:
    """Have a fault happen, the way a client does."""
    rules = [{**rule, "now": True}]
    async with http.post(server.url + "/_local/faults", json=rules) as response:
        assert (response.status, await response.json()) == (200, [])


async def test_slow_now_slows_answers_in_the_making(http: aiohttp.ClientSession) -> None:
    """An answer that is half made takes `factor` times as long for the rest, later ones whole."""
    async with serving(SLOTS_OF_3) as server:
        began = time.monotonic()
        under_way = asyncio.create_task(ask(http, server, chat("a" * 160)))  # 0.8 s
        await asyncio.sleep(0.4)
        struck = time.monotonic()
        await fault_now(http, server, kind="slow", factor=3)
        status, _ = await under_way
        assert status == 200
        expected_s = (struck - began) + 3 * (0.8 - (struck - began))
        assert time.monotonic() - began == pytest.approx(expected_s, abs=0.15)
        _, later = await ask(http, server, chat("b" * 20))
        assert later["eval_duration"] == pytest.approx(3 * 0.1e9, rel=0.3)


async def test_slow_now_slows_the_reading_of_prompts(http: aiohttp.ClientSession) -> None:
    """Reading the prompt takes longer, too; a factor of 1 brings the old speed back."""
    settings = Settings(prefill_rate=100, decode_rate=0, load_seconds=0)
    async with serving(settings) as server:
        _, before = await ask(http, server, chat("a" * 40))
        await fault_now(http, server, kind="slow", factor=2)
        _, slow = await ask(http, server, chat("b" * 40))
        await fault_now(http, server, kind="slow", factor=1)
        _, after = await ask(http, server, chat("c" * 40))
    durations = [each["prompt_eval_duration"] for each in (before, slow, after)]
    assert durations[1] == pytest.approx(2 * durations[0], rel=0.3)
    assert durations[2] == pytest.approx(durations[0], rel=0.3)


@pytest.mark.parametrize("stream", [False, True])
async def test_hang_now_stops_every_answer_and_nothing_else(
    http: aiohttp.ClientSession, *, stream: bool
) -> None:
    """Answers in the making and later ones never come, while the server says that it is well."""
    async with serving(SLOTS_OF_3) as server:
        asking = [asyncio.create_task(ask(http, server, chat("a" * 40, stream=stream)))]
        await until(lambda: server.stats.running.level == 1)
        await fault_now(http, server, kind="hang")
        asking.append(asyncio.create_task(ask(http, server, chat("la gare", stream=stream))))
        await until(lambda: server.stats.running.level == 2)
        for path in ("/api/version", "/api/tags", "/api/ps"):
            async with http.get(server.url + path) as response:
                assert response.status == 200
        assert (await ask(http, server, chat("")))[0] == 200
        await asyncio.sleep(0.3)
        assert server.stats.running.level == 2
        for each in asking:
            each.cancel()
        await until(lambda: server.stats.running.level == 0)
        assert server.stats.outcomes == {"cancelled": 2}


@pytest.mark.parametrize("stream", [False, True])
async def test_hang_now_stops_a_server_that_needs_no_time(
    instant: LocalServer, http: aiohttp.ClientSession, *, stream: bool
) -> None:
    """Even an answer that costs no time does not come any more."""
    await fault_now(http, instant, kind="hang")
    asking = asyncio.create_task(ask(http, instant, chat("la gare", stream=stream)))
    await until(lambda: instant.stats.running.level == 1)
    await asyncio.sleep(0.1)
    assert instant.stats.running.level == 1
    asking.cancel()


async def test_hang_now_can_be_ended(http: aiohttp.ClientSession) -> None:
    """A slow rule with a factor of 1 lets answers go on where they stopped."""
    async with serving(SLOTS_OF_3) as server:
        under_way = asyncio.create_task(ask(http, server, chat("le train")))
        await until(lambda: server.stats.running.level == 1)
        await fault_now(http, server, kind="hang")
        await fault_now(http, server, kind="slow", factor=1)
        _, said = await under_way
        assert said["message"]["content"] == "the train"


@pytest.mark.parametrize("kind", ["slow", "hang"])
async def test_time_is_the_simulation_s_to_choose(http: aiohttp.ClientSession, kind: str) -> None:
    """With another engine a slow or hang rule with `now` is refused, and no rule is set."""

    class Other:
        """An engine that is not asked for anything here."""

        async def load(self, model: Model, launch: LaunchOptions, slots: int) -> LoadedModel:
            raise NotImplementedError

    rules: list[dict[str, Any]] = [{"kind": "reset"}, {"kind": kind, "now": True}]
    async with LocalServer(INSTANT, engine=Other()) as server:
        async with http.post(server.url + "/_local/faults", json=rules) as response:
            assert response.status == 400
            assert "needs the simulated engine" in (await response.json())["error"]
        assert len(server.faults) == 0
        with pytest.raises(FaultError, match="needs the simulated engine"):
            server.add_faults([rules[1]])


async def test_refuse_closes_the_listener_for_a_while(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The request that triggers it breaks, new connections are refused, then all is well again."""
    instant.add_faults([{"kind": "refuse", "seconds": 1.0, "times": 1}])
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        await ask(http, instant, chat("le train"))
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(http, instant, chat("le train"))
    for _ in range(100):
        await asyncio.sleep(0.1)
        with contextlib.suppress(aiohttp.ClientConnectorError):
            assert await answer(http, instant, "le train") == "the train"
            return
    pytest.fail("the listener never came back")


async def test_refuse_now_needs_no_request(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A refuse rule with `now` shuts the door when it is set, after its own answer."""
    rules = [{"kind": "refuse", "now": True}]
    async with http.post(instant.url + "/_local/faults", json=rules) as response:
        assert response.status == 200
    with pytest.raises(aiohttp.ClientError):
        await ask(http, instant, chat("le train"))


async def test_die_ends_the_process() -> None:
    """A die fault breaks the connection and leaves with the exit code given."""
    left: list[int] = []
    server = LocalServer(INSTANT, [{"kind": "die", "exit_code": 7}], leave=left.append)
    async with server, aiohttp.ClientSession() as http:
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await ask(http, server, chat("le train"))
        await until(lambda: bool(left))
    assert left == [7]


async def test_loading_makes_the_request_wait_for_a_new_load(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """The model is unloaded and takes the seconds given to come back; then it answers."""
    await ask(http, instant, chat(""))
    instant.add_faults([{"kind": "loading", "seconds": 0.3, "times": 1}])
    status, said = await ask(http, instant, chat("le train"))
    assert (status, said["message"]["content"]) == (200, "the train")
    assert said["load_duration"] >= 0.29e9
    assert instant.stats.loads == 2


async def test_delay_comes_before_the_fault(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """A fault with a delay happens that much later."""
    instant.add_faults([{"kind": "status", "delay": 0.2}])
    began = time.monotonic()
    status, _ = await ask(http, instant, chat("x"))
    assert status == 503
    assert time.monotonic() - began >= 0.19


async def test_path_names_other_endpoints(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """Without a path only requests with text are struck; with one, that endpoint is."""
    instant.add_faults([{"kind": "status"}, {"kind": "status", "path": "/api/version"}])
    async with http.get(instant.url + "/api/tags") as response:
        assert response.status == 200
    async with http.get(instant.url + "/api/version") as response:
        assert response.status == 503
    assert (await ask(http, instant, chat("")))[0] == 200
    assert (await ask(http, instant, chat("x")))[0] == 503


async def test_faults_are_set_and_cleared_at_run_time(
    instant: LocalServer, http: aiohttp.ClientSession
) -> None:
    """POST adds rules and shows them with their counts, DELETE takes them away."""
    url = instant.url + "/_local/faults"
    async with http.post(url, json=[{"kind": "empty", "times": 1, "contains": "a"}]) as response:
        assert response.status == 200
    await ask(http, instant, chat("a"))
    await ask(http, instant, chat("b"))
    async with http.get(url) as response:
        (rule,) = await response.json()
    assert rule == {"kind": "empty", "times": 1, "contains": "a", "matched": 1, "fired": 1}
    async with http.delete(url) as response:
        assert await response.json() == []


def strikes(rule: dict[str, Any], texts: list[str]) -> list[bool]:
    """Which of the texts a reset rule strikes."""
    plan = FaultPlan([Rule.from_json({"kind": "reset", **rule})])
    return [plan.strike("/api/chat", text) is not None for text in texts]


@pytest.mark.parametrize(
    ("rule", "texts", "struck"),
    [
        ({}, "aaa", [1, 1, 1]),
        ({"times": 2}, "aaaa", [1, 1, 0, 0]),
        ({"after": 1, "times": 1}, "aaa", [0, 1, 0]),
        ({"every": 2}, "aaaaa", [1, 0, 1, 0, 1]),
        ({"after": 1, "every": 2, "times": 2}, "aaaaaa", [0, 1, 0, 1, 0, 0]),
        ({"contains": "b", "times": 1}, "abab", [0, 1, 0, 0]),
        ({"per_text": True, "times": 1}, "abab", [1, 1, 0, 0]),
        ({"path": "/api/generate"}, "a", [0]),
        ({"path": "*"}, "a", [1]),
    ],
)
def test_rules_choose_requests(rule: dict[str, Any], texts: str, struck: list[int]) -> None:
    """times, after, every, contains, path and per_text pick exactly the requests they say."""
    assert strikes(rule, list(texts)) == [bool(each) for each in struck]


def test_first_rule_wins_and_a_beaten_rule_is_not_used_up() -> None:
    """Of two rules that match a request the first strikes; the other keeps its times."""
    plan = FaultPlan([Rule("reset", times=1), Rule("empty", times=1)])
    kinds = [rule and rule.kind for rule in (plan.strike("/api/chat", "a") for _ in range(3))]
    assert kinds == ["reset", "empty", None]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "nope"}, "unknown fault kind"),
        ({"kind": "reset", "tmies": 1}, "unknown field 'tmies'"),
        ({"kind": "reset", "times": "1"}, "times is"),
        ({"kind": "reset", "times": True}, "times is true"),
        ({"kind": "reset", "every": 0}, "the least is 1"),
        ({"kind": "slow", "factor": 0}, "factor is 0"),
        ({"kind": "status", "status": 99}, "status is 99"),
        ({"kind": "empty", "now": True}, "can happen now"),
        ({"kind": "slow", "delay": float("nan")}, "delay is nan"),
        ({"kind": "slow", "factor": float("inf")}, "factor is inf"),
        ({"kind": "status", "headers": {"Retry-After": 5}}, "headers is"),
        ({"kind": "status", "headers": {"a b": "x"}}, "headers is"),
        ({"kind": "status", "headers": {"X-A": "a\r\nX-B: b"}}, "headers is"),
        (["reset"], "a JSON object"),
    ],
)
async def test_wrong_rules_are_refused(
    instant: LocalServer, http: aiohttp.ClientSession, rule: Any, words: str
) -> None:
    """A rule that cannot be read is refused with its field, and no rule of the list is set."""
    with pytest.raises(FaultError, match=words):
        Rule.from_json(rule)
    rules = [{"kind": "reset"}, rule]
    async with http.post(instant.url + "/_local/faults", json=rules) as response:
        assert response.status == 400
        assert words in (await response.json())["error"]
    assert len(instant.faults) == 0


def test_every_kind_is_tested() -> None:
    """Each fault kind is named in this file, so that a new one cannot come without a test."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []
