"""Which failed tasks Prefect tries again: those that the root was the trouble of."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from tasks.core.errors import StorageError


def storage_may_recover(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another try can help: a full disk can be emptied, a share can come back.

    A plain function, because Prefect never calls a partial or a bound method here.
    """
    return isinstance(state.result(raise_on_failure=False), StorageError)


USES_THE_ROOT: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": 5,
    "retry_condition_fn": storage_may_recover,
}
"""Options of every task that reads or writes the root; its results are never cached."""
