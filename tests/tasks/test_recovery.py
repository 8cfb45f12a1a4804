from __future__ import annotations

import inspect
from typing import Any

import pytest
from prefect import Task
from prefect.states import Failed

from tasks.core.errors import FleetLost, StorageError
from tasks.ingest import ingest_sources
from tasks.recovery import storage_may_recover
from tasks.translate import plan_run, publish_run, survey_hosts, translate_shard


@pytest.mark.parametrize(
    ("error", "again"),
    [(StorageError("disk full"), True), (FleetLost("all gone"), False), (ValueError("bug"), False)],
)
def test_only_trouble_of_the_root_is_tried_again(error: Exception, *, again: bool) -> None:
    """A full disk can be emptied; what the dispatcher gave up on is not tried at a second level."""
    state = Failed(data=error)
    unused: Any = None
    assert storage_may_recover(unused, unused, state) is again


@pytest.mark.parametrize("task", [ingest_sources, plan_run, translate_shard, publish_run])
def test_tasks_that_use_the_root(task: Task[..., Any]) -> None:
    """They are tried again by a plain function: Prefect calls nothing else, without a word."""
    assert task.retries == 2
    assert task.retry_condition_fn is storage_may_recover
    assert inspect.isfunction(task.retry_condition_fn)


def test_a_survey_is_not_tried_again() -> None:
    """Hosts are asked again by the survey itself, not by Prefect as well."""
    assert survey_hosts.retries == 0
