"""The batches of a watch as flow runs, and how the flow of a watch ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.logging import get_logger
from prefect.states import Completed, Crashed, Failed

from rag_index.core.reports.outcome import IndexOutcome, failed_to_start
from rag_index.errors import TransientError
from rag_index.etl.changed import Applied
from rag_index.orchestration.launch import UNREACHABLE
from rag_index.orchestration.prefect_api import api_environment, is_deployed
from rag_index.watch import PlainRunner
from rag_index.watch.loop import Stop, stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State

    from rag_index.core.settings import Settings

logger = get_logger("rag_index.watch")

PREFECT_AWAY = (httpx.HTTPError, PrefectException, RuntimeError)


class FlowRunner(PlainRunner):
    """The `Runner` of a watch under Prefect. What another run keeps waiting makes no flow run."""

    options = ("--prefect",)

    def __init__(self, settings: Settings, stop: Stop, index_changes: Callable[..., Any]) -> None:
        super().__init__(settings, api_environment())
        self._stop = stop
        self._index_changes = index_changes

    def index_changes(self, name: str, waiting: int) -> Applied:
        """Index a batch in a flow run of its own, or without one if Prefect's server is away."""
        if (locked := self._batches.locked(name)) is not None:
            return Applied(None, locked)
        applied: Applied | None = None

        def run() -> IndexOutcome:
            nonlocal applied
            with stopped_by_signals(self._stop):  # a flow in another has installed Prefect's handler, which raises
                applied = self._batches.index(name)
            return applied.outcome or failed_to_start(name, applied.error or TransientError("the batch did not begin"))

        try:
            state = self._index_changes(name, waiting, run, return_state=True)
        except TerminationSignal:
            self._stop.set()
            return applied or Applied(None, TransientError("the batch was stopped"))
        except PREFECT_AWAY as error:
            if applied is None:
                if isinstance(error, RuntimeError) and UNREACHABLE not in str(error):
                    raise
                away = f"Prefect's server does not answer ({error}); start it again"
                logger.warning("%s: changes are indexed without a flow run: %s", name, away)
                run()
        return applied or Applied(None, TransientError(str(state.message or state.name)))


def watch_state(caught_up: bool, *, stopped: bool) -> State[bool]:
    """Return the final state of a watch. A deployed one that a signal stopped has lost its worker."""
    if stopped and is_deployed():
        return Crashed(message="the watch was stopped with its worker; start it again, and it goes on from there")
    if caught_up:
        return Completed(message="the watch has ended; what changes now is indexed by the next", data=True)
    return Failed(message="not everything that changed could be indexed: `rag-index status` says why", data=False)
