"""`reports serve`: the deployments of prefect.yaml on this machine, without a work pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from prefect import serve
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings

from tasks.core.errors import ConfigurationError

CHECKOUT = Path(__file__).resolve().parents[1]
PREFECT_YAML = CHECKOUT / "deployments" / "prefect.yaml"


def serve_deployments(limit: int) -> None:
    """Serve until interrupted, at most `limit` runs at a time.

    Raises `ConfigurationError` without a Prefect server: a temporary one neither
    schedules nor shows anything.
    """
    if not get_current_settings().api.url:
        raise ConfigurationError(
            "serve needs a Prefect server: start one with 'prefect server start' and set "
            "PREFECT_API_URL, for example PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    serve(*deployments(), limit=limit)


def deployments() -> list[RunnerDeployment]:
    """The deployments of prefect.yaml, for this process to serve."""
    written: dict[str, Any] = yaml.safe_load(PREFECT_YAML.read_text())
    return [_deployment(entry) for entry in written["deployments"]]


def _deployment(entry: dict[str, Any]) -> RunnerDeployment:
    path, _, name = entry["entrypoint"].partition(":")
    # A placeholder in place of a flow that does not import would fail at every run.
    flow: Any = load_flow_from_entrypoint(f"{CHECKOUT / path}:{name}", use_placeholder_flow=False)
    limit = entry.get("concurrency_limit")
    deployment: RunnerDeployment = flow.to_deployment(
        name=entry["name"],
        description=entry["description"],
        tags=entry["tags"],
        parameters=entry.get("parameters", {}),
        schedules=[_schedule(schedule) for schedule in entry.get("schedules", [])],
        concurrency_limit=ConcurrencyLimitConfig(**limit) if limit else None,
    )
    return deployment


def _schedule(schedule: dict[str, Any]) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(
        schedule=CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]),
        active=schedule["active"],
        slug=schedule["slug"],
    )
