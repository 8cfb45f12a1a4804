"""Runs a flow for the command and turns how it ended into words and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings

from flows.command import COULD_NOT_FINISH, DONE, SOME_FAILED
from flows.ingest_reports import ingest_reports
from flows.run_reports import run_reports
from flows.terminal import say, show_ingest, show_run, watcher
from flows.translate_reports import translate_reports
from flows.watching import current_watcher
from tasks.core.errors import ConfigurationError
from tasks.core.ingest.summary import IngestSummary
from tasks.core.run.run_record import RunRecord, RunState
from tasks.core.settings import Settings, hide_credentials

FLOWS: Mapping[str, Any] = {
    "run": run_reports,
    "ingest": ingest_reports,
    "translate": translate_reports,
}


def run_flow(name: str, settings: Settings) -> int:
    """Run one of the flows in this process; returns the command's exit code.

    Raises the error of a flow run that failed, and `KeyboardInterrupt`.
    """
    api_url = get_current_settings().api.url
    if api_url:
        _require_server(api_url)
    else:
        say("starting a temporary Prefect server (set PREFECT_API_URL to use one of yours)")
    token = current_watcher.set(watcher())
    try:
        state: State[Any] = FLOWS[name](settings, return_state=True)
    finally:
        current_watcher.reset(token)
    result = state.result(raise_on_failure=False)
    if isinstance(result, IngestSummary):
        show_ingest(result)
        return DONE
    if isinstance(result, RunRecord):
        show_run(result, settings.root)
        return SOME_FAILED if result.state is RunState.COMPLETED_WITH_FAILURES else DONE
    if isinstance(result, BaseException):
        raise result
    return COULD_NOT_FINISH


def _require_server(api_url: str) -> None:
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            raise ConfigurationError(
                f"PREFECT_API_URL {hide_credentials(api_url)}: no Prefect server answers there; "
                "start one with 'prefect server start', or unset it to use a temporary one"
            )
