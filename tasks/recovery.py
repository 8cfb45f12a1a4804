"""Which failed tasks Prefect tries again: those that the root was the trouble of."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from tasks.core.errors import StorageError

RETRIES = 2
RETRY_DELAY_S = 5


def storage_may_recover(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another try can help: a full disk can be emptied, a share can come back.

    A plain function, because Prefect never calls a partial or a bound method here.
    """
    return isinstance(state.result(raise_on_failure=False), StorageError)
