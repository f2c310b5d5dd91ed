"""The policies of steps as Prefect's: transient errors are retried with jitter, terminal ones are not."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from rag_index.errors import TransientError
from rag_index.indexing.step_retries import JITTER, tries_left

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from rag_index.indexing.step_retries import Policy


def _says_more(record: logging.LogRecord) -> bool:
    """Return False for the warning that Prefect logs of each task in a thread which has a time limit.

    It says that no blocking call is interrupted there. Those have limits of their own: see `Policy.limit`.
    """
    return not str(record.msg).startswith("Timeout of %s seconds configured for this task")


logging.getLogger("prefect.task_runs").addFilter(_says_more)


def policy_of(policy: Policy) -> dict[str, Any]:
    """Return the options of a task that is called as the policy says, from now on if it has a deadline."""
    deadline = None if policy.within is None else time.monotonic() + policy.within

    def may_be_tried(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
        logger, error = get_run_logger(), error_of(state)
        if deadline is not None and time.monotonic() >= deadline:
            logger.error("not tried again after %g s: %s", policy.within, error)
            return False
        left = tries_left(error, run.run_count, retries=task.retries)
        if left:
            logger.warning("transient, trying again (tries left: %d): %s", left, error)
        else:
            kind = (
                "transient, but tried too often" if isinstance(error, TransientError) else "terminal, not tried again"
            )
            logger.error("%s: %s: %s", kind, type(error).__name__, error)
        return left > 0

    return {
        "retries": policy.retries,
        "retry_delay_seconds": exponential_backoff(1) if policy.delay is None else policy.delay,
        "retry_jitter_factor": JITTER,
        "retry_condition_fn": may_be_tried,
        "timeout_seconds": policy.limit,
        "cache_policy": NO_CACHE,  # hashing what a task is given costs more than the task
        "persist_result": False,
    }


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception that a failed state carries, None if it carries none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None
