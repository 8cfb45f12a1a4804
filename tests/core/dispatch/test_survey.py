from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deployments.local_ollama import Settings
from tasks.core.dispatch.host_client import HostClient, RunningModel
from tasks.core.dispatch.survey import (
    HostFacts,
    Survey,
    agree,
    ask_all,
    full_model_name,
    parsed_version,
    partly_on_cpu,
    version_warnings,
)
from tasks.core.errors import ConfigurationError, ErrorKind, HostsUnreachable, RequestFailed
from tasks.core.settings import HostAddress
from tests.fakes import MODEL, digest_of, serving

A, B, C = "http://a:1", "http://b:1", "http://c:1"
D1, D2, D3 = "1" * 64, "2" * 64, "3" * 64


def has(url: str, **digests: str) -> HostFacts:
    """A host that answered; models are given without their tag."""
    models = {f"{name}:latest": digest for name, digest in digests.items()}
    return HostFacts(url, "0.33.0", models)


def silent(url: str) -> HostFacts:
    """A host that did not."""
    return HostFacts(url, error=f"{url} cannot be reached")


def test_hosts_agree() -> None:
    """When all hosts have the model with one digest there is nothing to say."""
    assert agree([has(A, m=D1), has(B, m=D1, other=D2)], "m") == Survey(D1, ())


def test_no_host_answers() -> None:
    """Without any host the run does not begin, and every host is named with its reason."""
    with pytest.raises(HostsUnreachable) as raised:
        agree([silent(A), silent(B)], "m")
    assert str(raised.value) == (
        f"no host can be reached: {A} cannot be reached; {B} cannot be reached. "
        "Start the Ollama servers, or correct --host or --hosts-file"
    )


def test_some_hosts_do_not_answer() -> None:
    """A host that is silent at the start is told of and tried again in the run."""
    survey = agree([silent(A), has(B, m=D1)], "m")
    assert survey == Survey(D1, (f"{A} cannot be reached; it is tried again during the run",))


def test_nobody_has_the_model() -> None:
    """A model nobody has is refused, with the names that come close and how to get it."""
    with pytest.raises(ConfigurationError) as raised:
        agree([has(A, qwen=D2, gemma3=D1), HostFacts(B, "0.33.0", {})], "gemma2")
    assert str(raised.value) == (
        f"--model gemma2: {A} has no model gemma2 (it has gemma3:latest, qwen:latest; get it with "
        f"'ollama pull gemma2'); {B} has no model gemma2 (it has no model at all; get it with "
        "'ollama pull gemma2')"
    )


def test_names_that_are_not_close() -> None:
    """Where no name comes close, a few that are there are shown."""
    models = {f"{name}:7b-{'q' * 40}": D1 for name in ("zzz", "yyy", "xxx", "www")}
    with pytest.raises(ConfigurationError, match=r"it has www:7b-q+, xxx:7b-q+, yyy:7b-q+;"):
        agree([HostFacts(A, "0.33.0", models)], "k")


def test_some_hosts_lack_the_model() -> None:
    """A host without the model is left out, and named."""
    survey = agree([has(A, m=D1), has(B)], "m")
    assert survey.model_digest == D1
    assert [warning.endswith("it is left out") for warning in survey.warnings] == [True]
    assert survey.warnings[0].startswith(f"{B} has no model m (it has no model at all")


def test_one_name_two_models() -> None:
    """The same name with different weights is refused: translations would not be comparable."""
    with pytest.raises(ConfigurationError) as raised:
        agree([has(A, m=D1), has(B, m=D2), silent(C)], "m")
    assert f"{A} has {D1[:12]}, {B} has {D2[:12]}" in str(raised.value)
    assert "'ollama pull m'" in str(raised.value)
    assert "--allow-other-weights" in str(raised.value)


@pytest.mark.parametrize(
    ("digests", "chosen", "other"),
    [
        ({A: D1, B: D2, C: D2}, D2, f"{A} ({D1[:12]})"),
        ({A: D2, B: D1}, D2, f"{B} ({D1[:12]})"),
        ({A: D1, B: D2, C: D3}, D1, f"{B} ({D2[:12]}), {C} ({D3[:12]})"),
        ({A: D1, B: "", C: D1}, D1, f"{B} (no digest)"),
    ],
)
def test_one_name_two_models_on_purpose(digests: dict[str, str], chosen: str, other: str) -> None:
    """Where it is allowed the weights of most hosts are the run's, and the others are named."""
    facts = [has(url, m=digest) for url, digest in digests.items()]
    survey = agree(facts, "m", other_weights=True)
    assert survey.model_digest == chosen
    (warning,) = survey.warnings
    assert f"other weights on {other} than" in warning
    assert chosen[:12] in warning


def test_other_weights_that_are_none() -> None:
    """Leave to differ changes nothing where the hosts agree."""
    assert agree([has(A, m=D1), has(B, m=D1)], "m", other_weights=True) == Survey(D1, ())


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.33.0", (0, 33, 0)),
        ("v0.33.0", (0, 33, 0)),
        ("0.33.0-rc2", (0, 33, 0)),
        ("0.33.0-simulated", (0, 33, 0)),
        ("0.12.6-5-gabc123-dirty", (0, 12, 6)),
        ("0.12.6+cuda.12", (0, 12, 6)),
        ("1.2", (1, 2, 0)),
        ("0.0.0", None),
        ("", None),
        (None, None),
        ("latest", None),
        ("0.33.0 <script>", None),
        ("0.33.0\n0.12", None),
        ("0." + "9" * 5000, None),
        ("٠.١٢.٦", None),
        ("0.33.0" + "-x" * 50, None),
    ],
)
def test_versions(text: str | None, version: tuple[int, int, int] | None) -> None:
    """A version is read as the release it belongs to; what is none is not guessed at."""
    assert parsed_version(text) == version


@pytest.mark.parametrize(
    "versions",
    [
        {A: "0.33.0"},
        {A: "0.12.6"},
        {A: "0.30.0", B: "0.33.3-rc1"},
        {A: "0.32.9", B: "0.32.10"},
        {A: "0.12.6", B: "0.24.0", C: "0.15.5"},
        {A: "0.33.0", B: "nonsense", C: None},
        {A: "0.0.0", B: "0.33.0"},
        {},
    ],
)
def test_versions_of_which_nothing_is_said(versions: dict[str, str | None]) -> None:
    """Versions may differ in what does not change the answers to the requests of a run."""
    assert version_warnings(versions) == []


def test_engines_that_differ() -> None:
    """Hosts on both sides of the change of engines are named, with the reason."""
    (warning,) = version_warnings({A: "0.33.0-rc2", B: "0.24.0", C: "unknown"})
    assert warning.startswith(f"Ollama is older on {B} (0.24.0) than on {A} (0.33.0-rc2): ")
    assert "0.30.0 replaced the engines" in warning
    assert C not in warning


def test_a_host_that_cuts_in_silence() -> None:
    """A host from before `truncate` is named even when it is the only one."""
    (warning,) = version_warnings({A: "0.12.5"})
    assert warning.startswith(f"Ollama on {A} (0.12.5) cuts a text that does not fit")
    assert "--num-ctx" in warning
    both = version_warnings({A: "0.11.0", B: "0.33.0"})
    assert [f"{A} (0.11.0)" in one for one in both] == [True, True]


def test_versions_are_part_of_the_survey() -> None:
    """Versions are compared of the hosts that have the model."""
    facts = [
        HostFacts(A, "0.24.0", {"m:latest": D1}),
        HostFacts(B, "0.33.0", {"m:latest": D1}),
        HostFacts(C, "0.9.0", {}),
    ]
    left_out, engines = agree(facts, "m").warnings
    assert left_out.startswith(f"{C} has no model m")
    assert engines.startswith(f"Ollama is older on {A} (0.24.0) than on {B} (0.33.0)")


def running(size_gb: float, vram_gb: float, name: str = "m:latest") -> RunningModel:
    """A model in the memory of a host."""
    return RunningModel(name, int(size_gb * 1e9), int(vram_gb * 1e9), 4096)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([running(8.2, 5.1)], [f"{A} runs m with 38 % of it on the CPU (size_vram 5.1 of 8.2 GB)"]),
        ([running(8.2, 0)], [f"{A} runs m on the CPU (size_vram 0.0 of 8.2 GB)", "server's log"]),
        ([running(9, 9, "x:latest"), running(8, 4)], ["50 %", "OLLAMA_NUM_PARALLEL", "--num-ctx"]),
    ],
)
def test_a_model_on_the_cpu(models: list[RunningModel], words: list[str]) -> None:
    """A host that runs the model on the CPU, wholly or in part, is told of with the sizes."""
    said = partly_on_cpu(A, models, "m")
    assert said is not None
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "models",
    [
        [],
        [running(8.2, 8.2)],
        [running(8.2, 8.1)],
        [running(8.2, 9)],
        [running(8.2, 0, "other:latest")],
        [running(0, 0)],
        [running(0.02, 0)],
    ],
)
def test_a_model_on_the_gpu(models: list[RunningModel]) -> None:
    """Nothing is said of a model on the GPU, one that is not there, or one that needs none."""
    assert partly_on_cpu(A, models, "m") is None


async def asked_for_running(handler: Callable[[httpx.Request], httpx.Response]) -> Any:
    """What a server that is a function has in memory."""
    client = HostClient(HostAddress(A), httpx.MockTransport(handler))
    try:
        return await client.running_models(5)
    finally:
        await client.close()


async def test_running_models() -> None:
    """Models in memory come with their sizes; what an older server does not say is None."""
    said = {
        "models": [
            {
                "name": "m:latest",
                "model": "m:latest",
                "size": 8_200_000_000,
                "size_vram": 5_100_000_000,
                "expires_at": "2318-03-04T10:15:30.123456789+02:00",
                "context_length": 4096,
            },
            {"name": "old:1b", "size": 7},
        ]
    }
    assert await asked_for_running(lambda _: httpx.Response(200, json=said)) == (
        RunningModel("m:latest", 8_200_000_000, 5_100_000_000, 4096),
        RunningModel("old:1b", 7, 0, None),
    )
    assert await asked_for_running(lambda _: httpx.Response(200, json={"models": []})) == ()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(404, text="404 page not found"), ErrorKind.NOT_FOUND),
        (httpx.Response(200, text="<html>"), ErrorKind.INVALID_ANSWER),
        (httpx.Response(200, json={"models": [{"size": "big"}]}), ErrorKind.INVALID_ANSWER),
        (httpx.Response(200, json=[]), ErrorKind.INVALID_ANSWER),
        (httpx.Response(503, text="busy"), ErrorKind.BUSY),
    ],
)
async def test_running_models_of_what_is_no_server(answer: httpx.Response, kind: ErrorKind) -> None:
    """What goes wrong is a `RequestFailed`, as for every other question."""
    with pytest.raises(RequestFailed) as raised:
        await asked_for_running(lambda _: answer)
    assert raised.value.kind is kind


@pytest.mark.parametrize(
    ("model", "full"),
    [
        ("gemma", "gemma:latest"),
        ("gemma:12b", "gemma:12b"),
        ("me/gemma", "me/gemma:latest"),
        ("registry:5000/me/gemma", "registry:5000/me/gemma:latest"),
        ("registry:5000/me/gemma:12b", "registry:5000/me/gemma:12b"),
    ],
)
def test_full_model_name(model: str, full: str) -> None:
    """A name without a tag has `latest`; a registry's port is no tag."""
    assert full_model_name(model) == full


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    return port


async def test_asking_real_servers() -> None:
    """Every host is asked, those that fail at first again, and each has its facts or error."""
    flaky = {"kind": "status", "status": 502, "path": "/api/version", "times": 1}
    started = time.monotonic()
    async with serving(Settings().instant(), Settings().instant(), faults={1: [flaky]}) as servers:
        urls = [server.url for server in servers]
        gone = [f"http://127.0.0.1:{closed_port()}" for _ in range(2)]
        clients = [HostClient(HostAddress(url)) for url in [*urls, *gone]]
        facts = await ask_all(clients)
        await clients[0].load(MODEL, {"num_ctx": 2048}, 20)
        loaded = [await client.running_models(5) for client in clients[:2]]
        for client in clients:
            await client.close()
        digest = digest_of(servers[0])
    assert [(one.name, one.context_length) for one in loaded[0]] == [(f"{MODEL}:latest", 2048)]
    assert loaded[1] == ()
    assert partly_on_cpu(urls[0], loaded[0], MODEL) is None, "too small to need a GPU"
    assert [one.url for one in facts] == [*urls, *gone]
    for one in facts[:2]:
        assert (one.version, one.digests) == ("0.33.0-simulated", {f"{MODEL}:latest": digest})
    for one in facts[2:]:
        assert one == HostFacts(one.url, error=f"{one.url} cannot be reached (Connection refused)")
    assert time.monotonic() - started < 30
