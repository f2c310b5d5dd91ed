"""How Prefect tries a task again, and how a state tells what ended one."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from rag_index.core.machine import JITTER, Policy, tries_left
from rag_index.errors import TransientError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task


def options_of(policy: Policy) -> dict[str, Any]:
    """Return the options of a task with this policy."""
    return {
        "retries": policy.retries,
        "retry_delay_seconds": exponential_backoff(1) if policy.delay is None else policy.delay,
        "retry_jitter_factor": JITTER,
        "retry_condition_fn": partial(may_be_tried, policy, _deadline(policy)),
        "cache_policy": NO_CACHE,  # hashing what a task is given costs more than the task
        "persist_result": False,
    }


def _deadline(policy: Policy) -> float | None:
    return None if policy.within is None else time.monotonic() + policy.within


def may_be_tried(policy: Policy, deadline: float | None, task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task that failed is tried again, and log why."""
    logger, error = get_run_logger(), error_of(state)
    left = tries_left(policy, error, run.run_count)
    if deadline is not None and time.monotonic() >= deadline:
        logger.error("not tried again, because its time is used up: %s", error)
        return False
    if left:
        logger.warning("transient, trying again (tries left: %d): %s", left, error)
    else:
        transient = isinstance(error, TransientError)
        kind = "transient, but tried or waited for too long" if transient else "terminal, not tried again"
        logger.error("%s: %s: %s", kind, type(error).__name__, error)
    return left > 0


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception that a failed state carries, None if it carries none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None
