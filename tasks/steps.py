"""The steps of a run as tasks of the flow run that makes them. Their order is in `rag_index.indexing.pipeline`.

Each task is a policy (`rag_index.indexing.step_retries`) around one call. What embeds and writes on workers is in
`tasks.embed`; everything else is called in the flow's process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.client.schemas.objects import StateDetails
from prefect.states import Completed

from rag_index.doctor.checkup import examine
from rag_index.errors import TransientError
from rag_index.indexing.pool import embed_step
from rag_index.indexing.step_retries import POLICIES, Policy
from rag_index.orchestration.cluster import Growth, flow_client
from rag_index.orchestration.task_policy import Opaque, error_of, policy_of
from tasks.embed import embed_shard, upsert_from_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from uuid import UUID

    from distributed import Client
    from prefect.client.schemas.objects import State

    from rag_index.doctor.findings import Diagnosis
    from rag_index.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.indexing.scan import Scan
    from rag_index.indexing.step_retries import Step
    from rag_index.orchestration.cluster import Workers
    from rag_index.settings import Settings

T = TypeVar("T")


def _run(step: Opaque[Callable[[], None]]) -> None:
    step.value()


TASKS = {kind: task(name=kind, **policy_of(policy))(_run) for kind, policy in POLICIES.items()}
"""What is done in the flow's process, by the kind of the step."""


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
        state = called(Opaque(lambda: found.append(function())), wait_for=self.before(step), return_state=True)
        if not state.is_completed():
            raise _ours(step, error_of(state) or RuntimeError(state.message or state.name))
        self.note(step.name, state.state_details.task_run_id)
        return found[-1]

    def before(self, step: Step) -> list[State[Any]]:
        """Return states of the tasks that come before a step."""
        return [self._done[name] for name in step.after if name in self._done]

    def note(self, step: str, task_run_id: UUID | None) -> None:
        """Take note of which task does a step."""
        self._done[step] = Completed(data=True, state_details=StateDetails(task_run_id=task_run_id))


def _ours(step: Step, error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return TransientError(f"{step.name} took more than {step.policy.limit / 3600:g} h; what is committed is kept")
    return error


def growth(workers: Workers, call: TaskCall, *, at_once: bool = False) -> Growth:
    """Return what gives a run the workers of its flow, on which shards are tasks."""

    submit_embed: Any = embed_shard.submit
    submit_upsert: Any = upsert_from_worker.submit

    def submitting(scan: Scan, _client: Client) -> Callable[[Shard], Any]:
        def submit(shard: Shard) -> Any:
            run, step = scan.run, embed_step(shard)
            embedded: Any = submit_embed(Opaque(scan.job(shard)), step.of, wait_for=call.before(step))
            call.note(step.name, embedded.task_run_id)
            if run.store.embedded:
                return embedded.wrapped_future
            written: Any = submit_upsert(
                Opaque(run.settings.store), scan.collection.name, embedded, step.of, scan.epoch
            )
            call.note(f"upsert {step.of}", written.task_run_id)
            return written.wrapped_future

        return submit

    return Growth(workers, flow_client, submitting, _result, at_once=at_once)


def _result(future: Any) -> EmbeddedShard | WrittenShard:
    """Return what the task of a future returned, and raise what it raised."""
    state = future.result()  # the state that a Prefect future keeps would hide a task whose workers all died
    error = error_of(state)
    if error is not None:
        raise error
    found: Hashable = state.result()
    return found.value if isinstance(found, Opaque) else found  # type: ignore[return-value]


@task(name="examine", task_run_name="examine {index}", **policy_of(Policy()))
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    return examine(settings, [index])
