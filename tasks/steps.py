"""The steps of a run as tasks of the flow run that makes them. Their order is in `rag_index.indexing.pipeline`.

Each task is a policy (`rag_index.indexing.step_retries`) around one call: transient errors are retried with jitter,
terminal ones are not. It runs in the flow's process, where that of a shard waits for the worker which embeds it: see
`rag_index.orchestration.window`. The workers are those of the flow's task runner, so that a task which somebody adds,
and submits, runs there as well.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateDetails, TaskRun
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.tasks import Task, exponential_backoff

from rag_index.doctor.checkup import examine
from rag_index.errors import TransientError
from rag_index.indexing.step_retries import JITTER, POLICIES, Policy, Step, tries_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from rag_index.doctor.findings import Diagnosis
    from rag_index.settings import Settings

T = TypeVar("T")


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


def _run(step: Callable[[], None]) -> None:
    step()


TASKS = {kind: task(name=kind, **policy_of(policy))(_run) for kind, policy in POLICIES.items()}
"""The tasks by the kind of the step."""


def flow_client() -> Client:
    """Return the client that the task runner of this flow run has. Starts its cluster, and raises as that does."""
    runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]
    return runner.client


class TaskCall:
    """Calls each step of a run as a task: a `Call`. It knows which task did which step, for the edges of the graph.

    Prefect would find edges by itself, by the `id()` of results, which later objects get again: so tasks return nothing
    here, and are told after which others they come.
    """

    def __init__(self) -> None:
        self._done: dict[str, State[Any]] = {}

    def __call__(self, step: Step, function: Callable[[], T]) -> T:
        """Raises what the function raised at last."""
        found: list[T] = []
        called: Any = TASKS[step.kind].with_options(task_run_name=step.name, **policy_of(step.policy))
        before = [self._done[name] for name in step.after if name in self._done]
        state = called(lambda: found.append(function()), wait_for=before, return_state=True)
        if not state.is_completed():
            raise _ours(step, error_of(state) or RuntimeError(state.message or state.name))
        details = StateDetails(task_run_id=state.state_details.task_run_id)
        self._done[step.name] = Completed(data=True, state_details=details)
        return found[-1]


def _ours(step: Step, error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return TransientError(f"{step.name} took more than {step.policy.limit / 3600:g} h; what is committed is kept")
    return error


@task(name="examine", task_run_name="examine {index}", **policy_of(Policy()))
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    return examine(settings, [index])
