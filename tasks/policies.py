"""When Prefect tries a task again, and how a state tells what ended one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rag_index.core.recovery import may_try_again, said_of_try

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task


UNCACHED: Any = {"cache_policy": NO_CACHE, "persist_result": False}
"""Hashing what a task is given costs more than the task."""


def may_be_tried(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task that failed is tried again, and log who is away, why, and which try it was. Errors carry
    how long that may go on: decorators are evaluated before the settings are known."""
    error, began = error_of(state), (run.start_time or state.timestamp).timestamp()
    again, logger = may_try_again(error, run.run_count, began), get_run_logger()
    (logger.warning if again else logger.error)("%s", said_of_try(error, run.run_count, began))
    return again


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception that a failed state carries, None if it carries none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None
