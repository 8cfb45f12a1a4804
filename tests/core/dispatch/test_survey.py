from __future__ import annotations

import socket
import time

import pytest

from deployments.local_ollama import Settings
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.survey import HostFacts, Survey, agree, ask_all, full_model_name
from tasks.core.errors import ConfigurationError, HostsUnreachable
from tasks.core.settings import HostAddress
from tests.fakes import MODEL, digest_of, serving

A, B, C = "http://a:1", "http://b:1", "http://c:1"
D1, D2 = "1" * 64, "2" * 64


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
        "Start the Ollama servers, or correct --host"
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
        for client in clients:
            await client.close()
        digest = digest_of(servers[0])
    assert [one.url for one in facts] == [*urls, *gone]
    for one in facts[:2]:
        assert (one.version, one.digests) == ("0.33.0-simulated", {f"{MODEL}:latest": digest})
    for one in facts[2:]:
        assert one == HostFacts(one.url, error=f"{one.url} cannot be reached")
    assert time.monotonic() - started < 30
