"""The policy of all tasks: transient errors are retried with jitter, terminal ones are not."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.tasks import Task, exponential_backoff

from rag_index.errors import TransientError
from rag_index.indexing.step_retries import JITTER, MAX_RETRIES, tries_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State, TaskRun

T = TypeVar("T")


def is_transient(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether the error that ended the task is transient: Prefect's retry condition."""
    error = error_of(state)
    transient = isinstance(error, TransientError)
    left = tries_left(error, run.run_count, retries=task.retries)
    if left:
        get_run_logger().warning("transient, trying again (tries left: %d): %s", left, error)
    else:
        kind = "transient, but tried too often" if transient else "terminal, not tried again"
        get_run_logger().error("%s: %s: %s", kind, type(error).__name__, error)
    return left > 0


def transient_for(seconds: float) -> Callable[[Task[Any, Any], TaskRun, State[Any]], bool]:
    """Return a retry condition: transient errors are tried again, until this many seconds from now."""
    deadline = time.monotonic() + seconds

    def may_be_tried(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
        if time.monotonic() < deadline:
            return is_transient(task, run, state)
        get_run_logger().error("not tried again after %g s: %s", seconds, error_of(state))
        return False

    return may_be_tried


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception that a failed state carries, None if it carries none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None


RETRIED: dict[str, Any] = {
    "retries": MAX_RETRIES,
    "retry_delay_seconds": exponential_backoff(1),
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,  # hashing what a task is given costs more than the task
    "persist_result": False,
}
"""The policy of tasks that are harmless to repeat. Retries are short, because they hold a worker's slot."""


class Opaque(Generic[T]):
    """A holder of `value`, which is a leaf to whoever walks over arguments."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __dask_tokenize__(self) -> str:
        """Return a new token each time: Dask names a task by its arguments, and would pickle all of them for that."""
        return uuid.uuid4().hex
