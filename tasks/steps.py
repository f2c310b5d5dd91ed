"""The steps of a run as tasks of the flow run that makes them. Their order is in `rag_index.indexing.pipeline`.

Each task is a policy (`rag_index.indexing.step_retries`) around one call. It runs in the flow's process, where that of
a shard waits for the worker which embeds it: see `rag_index.orchestration.window`. The workers are those of the flow's
task runner, so that a task which somebody adds, and submits, runs there as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.client.schemas.objects import StateDetails
from prefect.context import FlowRunContext
from prefect.states import Completed

from rag_index.doctor.checkup import examine
from rag_index.errors import TransientError
from rag_index.indexing.step_retries import POLICIES, Policy
from rag_index.orchestration.task_policy import error_of, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client
    from prefect.client.schemas.objects import State

    from rag_index.doctor.findings import Diagnosis
    from rag_index.indexing.step_retries import Step
    from rag_index.settings import Settings

T = TypeVar("T")


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
