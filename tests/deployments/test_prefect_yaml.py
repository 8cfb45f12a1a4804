"""The deployments: what prefect.yaml says, what the run form shows, and one real run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from deployments.local_ollama import Settings, local_servers
from flows.serving import deployments
from tests.conftest import stop
from tests.flows.harness import MODEL, french_texts, get, post, until, write_csv

CHECKOUT = Path(__file__).resolve().parents[2]
PREFECT_YAML = CHECKOUT / "deployments" / "prefect.yaml"
FLOWS = {
    "flows/ingest_reports.py:ingest_reports",
    "flows/translate_reports.py:translate_reports",
    "flows/run_reports.py:run_reports",
}
RUN_S = 90.0


def written() -> dict[str, dict[str, Any]]:
    """The deployments of prefect.yaml by name."""
    entries = yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))["deployments"]
    return {entry["name"]: entry for entry in entries}


def load(entrypoint: str) -> Flow[..., Any]:
    """The flow at an entrypoint, as Prefect's own loader finds it from the checkout."""
    path, _, name = entrypoint.partition(":")
    return load_flow_from_entrypoint(f"{CHECKOUT / path}:{name}", use_placeholder_flow=False)


@pytest.mark.parametrize(
    "entrypoint", sorted(FLOWS | {entry["entrypoint"] for entry in written().values()})
)
def test_entrypoint_is_a_flow(entrypoint: str) -> None:
    """Each entrypoint holds a real flow, not the placeholder for one that does not import."""
    flow = load(entrypoint)
    assert type(flow).__name__ == "Flow"
    assert flow.fn.__name__ == entrypoint.partition(":")[2]
    assert flow.flow_run_name is not None


def fields_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every field of a parameter schema, those of nested models included."""
    models = {"": schema, **schema.get("definitions", {})}
    for model, described in models.items():
        for name, field in described.get("properties", {}).items():
            yield f"{model}.{name}", field


@pytest.mark.parametrize("entrypoint", sorted(FLOWS))
def test_every_field_of_the_form_is_described(entrypoint: str) -> None:
    """The run form explains every field, at the top and in the settings below it."""
    schema = parameter_schema(load(entrypoint)).model_dump()
    fields = dict(fields_of(schema))
    assert "settings" in schema["properties"]
    assert len(fields) > 5
    for name, field in fields.items():
        assert len(field.get("description", "")) > 10, name
        assert field["description"].endswith("."), name


REQUIRED = {
    "ingest_reports": {"root", "dataset", "sources"},
    "translate_reports": {"root", "dataset", "model"},
    "run_reports": {"root", "sources", "model"},
}


@pytest.mark.parametrize("entrypoint", sorted(FLOWS))
def test_required_fields_of_the_form_are_marked(entrypoint: str) -> None:
    """What a run cannot do without is marked as required, and nothing else is."""
    schema = parameter_schema(load(entrypoint)).model_dump()
    assert schema["required"] == ["settings"]
    [model] = schema["definitions"].values()
    assert set(model["required"]) == REQUIRED[entrypoint.partition(":")[2]]
    positions = [field["position"] for field in model["properties"].values()]
    assert len(set(positions)) == len(positions)


def test_there_is_a_nightly_and_an_ad_hoc_deployment() -> None:
    """One flow is deployed twice: every night, one run at a time, and on demand."""
    nightly, ad_hoc = written()["nightly"], written()["ad-hoc"]
    assert nightly["entrypoint"] == ad_hoc["entrypoint"]
    [schedule] = nightly["schedules"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", schedule["cron"])
    assert schedule["timezone"] == "Europe/Paris"
    assert schedule["active"] is True
    assert nightly["concurrency_limit"]["limit"] == 1
    assert "schedules" not in ad_hoc
    assert all(entry["description"] for entry in (nightly, ad_hoc))


def test_nightly_parameters_are_valid() -> None:
    """The parameters written for the nightly run are ones that its flow accepts."""
    nightly = written()["nightly"]
    validated = load(nightly["entrypoint"]).validate_parameters(nightly["parameters"])
    assert validated["settings"].dataset == "sample"


def test_serve_offers_the_same_deployments() -> None:
    """`reports serve` serves what prefect.yaml says, schedule and limit included."""
    served = {deployment.name: deployment for deployment in deployments()}
    assert set(served) == set(written())
    [schedule] = served["nightly"].schedules or []
    assert isinstance(schedule.schedule, CronSchedule)
    assert schedule.schedule.cron == written()["nightly"]["schedules"][0]["cron"]
    assert served["nightly"].concurrency_limit == 1
    assert not served["ad-hoc"].schedules
    for name, deployment in served.items():
        assert deployment.description == written()[name]["description"]


def prefect(api: str, *arguments: str) -> str:
    """Run the prefect command from the root of the checkout; what it wrote."""
    ended = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PREFECT_API_URL": api},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=RUN_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@contextmanager
def worker(api: str, log: Path) -> Iterator[None]:
    """A worker of the pool `reports`, from its own process until the block ends."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": api,
        # Lines below this level are not in the flow run's log either.
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    }
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "reports"],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        stop(child)


@pytest.mark.timeout(240)
def test_ad_hoc_run_from_the_form(prefect_api: str, tmp_path: Path) -> None:
    """Deployed as the yaml says and started with form values only, a run does all its work."""
    before = PREFECT_YAML.read_bytes()
    prefect(prefect_api, "work-pool", "create", "reports", "--type", "process")
    prefect(
        prefect_api, "deploy", "--all", "--prefect-file", str(PREFECT_YAML.relative_to(CHECKOUT))
    )
    assert PREFECT_YAML.read_bytes() == before
    nightly = get(f"{prefect_api}/deployments/name/run-reports/nightly")
    assert nightly["schedules"][0]["schedule"]["timezone"] == "Europe/Paris"
    assert nightly["global_concurrency_limit"]["limit"] == 1
    # Or it would run, too, in a test that runs at half past one.
    post(f"{prefect_api}/deployments/{nightly['id']}/pause_deployment", {})
    ad_hoc = get(f"{prefect_api}/deployments/name/run-reports/ad-hoc")

    texts = french_texts(40)
    source = write_csv(tmp_path / "Rapports 2024.csv", texts, encoding="cp1252")
    settings = Settings(slots=2, decode_rate=150.0, load_seconds=0.0)
    with (
        local_servers([settings, settings]) as servers,
        worker(prefect_api, tmp_path / "worker.log"),
    ):
        form = {
            "sources": [str(source)],
            "root": str(tmp_path / "root"),
            "dataset": "Rapports_2024",
            "text_column": "texte",
            "hosts": [f"{server.url}=2" for server in servers],
            "model": MODEL,
        }
        flow_run = post(
            f"{prefect_api}/deployments/{ad_hoc['id']}/create_flow_run",
            {"parameters": {"settings": form}},
        )
        url = f"{prefect_api}/flow_runs/{flow_run['id']}"
        until(
            lambda: get(url)["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"},
            "the flow run ended",
            RUN_S,
        )
        ended = get(url)
    log = (tmp_path / "worker.log").read_text(encoding="utf-8")
    assert ended["state"]["type"] == "COMPLETED", log
    assert ended["state"]["name"] == "Completed"
    assert ended["name"] == "Rapports_2024 to en"

    rows = pl.read_parquet(f"{tmp_path}/root/translations/Rapports_2024/**/*.parquet")
    assert sorted(rows["source_text"]) == sorted(texts)
    assert set(rows["status"]) == {"ok"}
    assert set(rows["flow_run_id"]) == {flow_run["id"]}
    assert_task_runs_are_readable(prefect_api, flow_run["id"])
    [record] = [json.loads(path.read_text()) for path in tmp_path.glob("root/runs/*/run.json")]
    assert list(record["hosts"]) == [server.url for server in servers]
    assert_artifacts_tell(prefect_api, flow_run["id"], record["hosts"])


def assert_task_runs_are_readable(api: str, flow_run_id: str) -> None:
    """A task run for each stage and for each shard, named by what it does."""
    runs = ended_task_runs(api, flow_run_id)
    names = {run["name"] for run in runs}
    assert {"ingest Rapports_2024", "plan Rapports_2024", "publish Rapports_2024"} <= names
    shards = sorted(name for name in names if name.startswith("shard "))
    numbers = [re.fullmatch(r"shard (\d{5}): (\d+) reports", name) for name in shards]
    assert all(numbers)
    assert [int(number[1]) for number in numbers if number] == list(range(len(shards)))
    assert sum(int(number[2]) for number in numbers if number) == 40
    assert len(shards) >= 4


def ended_task_runs(api: str, flow_run_id: str) -> list[dict[str, Any]]:
    """The task runs of a flow run, once the server has taken in the events of all."""
    query = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    end = time.monotonic() + 20
    while True:
        runs: list[dict[str, Any]] = post(f"{api}/task_runs/filter", query)
        if len(runs) >= 7 and all(run["state_type"] == "COMPLETED" for run in runs):
            return runs
        assert time.monotonic() < end, [(run["name"], run["state_type"]) for run in runs]
        time.sleep(0.2)


def assert_artifacts_tell(api: str, flow_run_id: str, hosts: Mapping[str, Any]) -> None:
    """A page with the counts, and a table with a rate for each host."""
    query = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
    artifacts = {artifact["key"]: artifact for artifact in post(f"{api}/artifacts/filter", query)}
    page = artifacts["run-rapports-2024-en"]
    assert page["type"] == "markdown"
    assert "| translated | 40 |" in page["data"]
    assert "| rejected | 0 |" in page["data"]
    assert page["description"] == "40 reports: 40 translated"
    table = artifacts["hosts-rapports-2024-en"]
    assert table["type"] == "table"
    rows = {row["host"]: row for row in json.loads(table["data"])}
    assert set(rows) == set(hosts)
    assert sum(row["requests"] for row in rows.values()) == 40
    for url, host in hosts.items():
        assert url in page["data"]
        assert rows[url]["requests"] == host["requests"]
        assert rows[url]["tokens"] == host["output_tokens"] > 0
        rate = host["output_tokens"] / host["busy_seconds"]
        assert rows[url]["tokens/s"] == pytest.approx(rate, abs=0.01)
