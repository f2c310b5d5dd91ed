"""The batches of a watch as flow runs, and how the flow of a watch ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.logging import get_logger
from prefect.states import Completed, Failed

from rag_index.errors import TransientError
from rag_index.indexing.changed import Applied, BatchIndexer
from rag_index.orchestration.launch import UNREACHABLE
from rag_index.orchestration.task_policy import Opaque
from rag_index.reports.outcome import IndexOutcome, failed_to_start
from rag_index.watch import PlainRunner
from rag_index.watch.loop import Stop, stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State

    from rag_index.settings import Settings

logger = get_logger("rag_index.watch")

UNANSWERED = (httpx.HTTPError, PrefectException, RuntimeError)


@dataclass(slots=True)
class Batch:
    """A batch on its way through a flow run. `applied` is what became of it."""

    indexer: BatchIndexer
    stop: Stop
    applied: Applied | None = None

    def run(self, name: str) -> IndexOutcome:
        """Index the batch and return its outcome, also if an error of ours ended it."""
        with stopped_by_signals(self.stop):  # a flow in another has installed Prefect's handler, which raises
            self.applied = self.indexer.index(name)
        if self.applied.outcome is not None:
            return self.applied.outcome
        return failed_to_start(name, self.applied.error or TransientError("the batch did not begin"))


class FlowRunner(PlainRunner):
    """The `Runner` of a watch under Prefect. What another run keeps waiting makes no flow run."""

    def __init__(self, settings: Settings, stop: Stop, index_changes: Callable[..., Any]) -> None:
        super().__init__(settings)
        self._stop = stop
        self._index_changes = index_changes

    def index_changes(self, name: str, waiting: int) -> Applied:
        """Index a batch in a flow run of its own, or without one if Prefect's server is away."""
        if (locked := self._batches.locked(name)) is not None:
            return Applied(None, locked)
        batch = Batch(self._batches, self._stop)
        try:
            state = self._index_changes(name, waiting, Opaque(batch), return_state=True)
        except TerminationSignal:
            self._stop.set()
            return batch.applied or Applied(None, TransientError("the batch was stopped"))
        except UNANSWERED as error:
            if batch.applied is None:
                if isinstance(error, RuntimeError) and UNREACHABLE not in str(error):
                    raise
                away = f"Prefect's server does not answer ({error}); start it again"
                logger.warning("%s: changes are indexed without a flow run: %s", name, away)
                batch.run(name)
        return batch.applied or Applied(None, TransientError(str(state.message or state.name)))


def watch_state(caught_up: bool) -> State[bool]:
    """Return the final state of a watch that was not stopped by Prefect."""
    if caught_up:
        return Completed(message="the watch has ended; what changes now is indexed by the next", data=True)
    return Failed(message="not everything that changed could be indexed: `rag-index status` says why", data=False)
