"""The compose file: valid, and set as two Ollama servers with a GPU each need it.

It is not run here: that takes Docker, GPUs and a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings.models.server.concurrency import ServerConcurrencySettings
from prefect.settings.models.server.services import ServerServicesRepossessorSettings

from tasks.core.settings import HostAddress, TranslateSettings
from tasks.prefect_limits.check import problems_of

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
COMPOSE = DEPLOYMENTS / "compose.yaml"
OLLAMAS = ("ollama-0", "ollama-1")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, parsed."""
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return parsed


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """Its services."""
    found: dict[str, Any] = compose["services"]
    return found


def test_there_are_a_server_a_worker_and_two_ollamas(services: dict[str, Any]) -> None:
    """Prefect's server, one worker, and an Ollama server for each of two GPUs."""
    assert set(services) == {"prefect-server", "worker", *OLLAMAS}


def test_each_ollama_has_a_gpu_of_its_own(services: dict[str, Any]) -> None:
    """Two servers on one GPU would share its memory, and leave the other idle."""
    gpus = []
    for name in OLLAMAS:
        [device] = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert device["capabilities"] == ["gpu"]
        gpus += device["device_ids"]
    assert len(gpus) == len(set(gpus)) == 2


@pytest.mark.parametrize("name", OLLAMAS)
def test_ollama_is_set_for_translation(services: dict[str, Any], name: str) -> None:
    """Slots, context and keep-alive are set, and agree with what a run asks for."""
    environment = services[name]["environment"]
    assert int(environment["OLLAMA_NUM_PARALLEL"]) > 1
    asked = TranslateSettings.model_fields["num_ctx"].default
    assert int(environment["OLLAMA_CONTEXT_LENGTH"]) == asked
    assert environment["OLLAMA_KEEP_ALIVE"].endswith("h")
    assert int(environment["OLLAMA_MAX_LOADED_MODELS"]) == 1


def test_hosts_to_give_in_the_form_are_right(services: dict[str, Any]) -> None:
    """The hosts that its first lines tell to use are its own, with the slots that they have."""
    line = next(
        line for line in COMPOSE.read_text(encoding="utf-8").splitlines() if "hosts: http" in line
    )
    addresses = [HostAddress.parse(host) for host in line.partition("hosts: ")[2].split(", ")]
    for name, address in zip(OLLAMAS, addresses, strict=True):
        slots = int(services[name]["environment"]["OLLAMA_NUM_PARALLEL"])
        assert address == HostAddress(f"http://{name}:11434", slots)


def test_worker_reaches_the_server(services: dict[str, Any]) -> None:
    """The worker waits for a healthy server, and speaks to it by its name and port."""
    worker, server = services["worker"], services["prefect-server"]
    assert worker["environment"]["PREFECT_API_URL"] == "http://prefect-server:4200/api"
    assert "--host 0.0.0.0" in server["command"]
    assert worker["depends_on"]["prefect-server"]["condition"] == "service_healthy"
    assert "healthcheck" in server
    for name in OLLAMAS:
        assert worker["depends_on"][name]["condition"] == "service_healthy"
        assert "healthcheck" in services[name]


def test_server_is_set_for_limits(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs can rely on the server's limits: it is set in a way that Prefect understands."""
    server = services["prefect-server"]
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, value)
    concurrency = ServerConcurrencySettings().model_dump()
    assert problems_of(concurrency, ServerServicesRepossessorSettings().model_dump()) == []
    assert concurrency["lease_storage"].endswith("lease_storage.filesystem")
    # Leases on disk are known to one server only, and have to outlive its container.
    assert "prefect:/root/.prefect" in server["volumes"]
    assert "--no-services" not in server["command"]


def test_worker_deploys_what_prefect_yaml_says(services: dict[str, Any]) -> None:
    """The worker makes the pool that prefect.yaml names, deploys from it, and works on it."""
    command = services["worker"]["command"]
    written = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text(encoding="utf-8"))
    [pool] = {entry["work_pool"]["name"] for entry in written["deployments"]}
    assert f"work-pool create {pool} --type process" in command
    assert "deploy --all --prefect-file deployments/prefect.yaml" in command
    assert f"worker start --pool {pool}" in command


def test_worker_is_built_from_this_checkout(services: dict[str, Any]) -> None:
    """The image's build file exists, and copies what there is."""
    build = services["worker"]["build"]
    root = (DEPLOYMENTS / build["context"]).resolve()
    lines = (root / build["dockerfile"]).read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    assert copied
    for path in itertools.chain(*copied):
        assert (root / path).exists(), path


def test_servers_are_not_offered_to_the_network(services: dict[str, Any]) -> None:
    """Neither Prefect nor Ollama asks who is there: only this machine reaches them."""
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_named_volumes_are_declared(compose: dict[str, Any]) -> None:
    """Every volume that is not a folder is declared."""
    used = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])


def environment_lines() -> Iterator[tuple[str, str]]:
    """Every line that sets an environment variable, and the line before it."""
    lines = [line.strip() for line in COMPOSE.read_text(encoding="utf-8").splitlines()]
    for before, line in itertools.pairwise(lines):
        name = line.partition(":")[0]
        if name.isupper() and "_" in name:
            yield line, before


def test_every_environment_variable_is_explained(services: dict[str, Any]) -> None:
    """A comment stands above each variable."""
    set_lines = dict(environment_lines())
    for line, before in set_lines.items():
        assert before.startswith("# "), line
    named = {line.partition(":")[0] for line in set_lines}
    assert named == {name for each in services.values() for name in each.get("environment", {})}
