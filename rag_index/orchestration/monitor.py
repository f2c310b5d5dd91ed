"""The monitor of a run's workers: what a person sees, and what ends a run that has nobody left to wait for."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from rag_index.orchestration.liveness import Liveness
from rag_index.orchestration.log_forwarding import subscribe_logs
from rag_index.orchestration.worker_status import subscribe_status
from rag_index.reports.log_notes import captured_logs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from rag_index.indexing.run import IndexRun


class Monitor:
    """Progress, liveness and status of workers, and their log lines, for the time of a `with` block."""

    def __init__(self, run: IndexRun) -> None:
        self._run = run
        self._liveness = Liveness()
        self._subscribed = run.settings.parallel.serial
        self._stack = ExitStack()

    def __enter__(self) -> Monitor:
        self._stack.enter_context(captured_logs(self._run.progress.note_later))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def subscribe(self) -> None:
        """Listen to the workers, the first time that it is called. Starts the cluster, and raises NoWorkers."""
        if not self._subscribed:
            with self._run.stopwatch.stage("workers"):
                subscribe_logs(self._run.progress.note_later)
                subscribe_status(self._run.progress)
            self._subscribed = True

    def waiting(self) -> AbstractContextManager[None]:
        """Count the time within the block as waiting for workers."""
        return self._run.stopwatch.stage("wait")

    def tick(self) -> None:
        """Show progress and check for workers, while no result comes. Raises as `Liveness.check`."""
        self._run.progress.tick()
        self._liveness.check()
        if (workers := self._liveness.workers) is not None:
            self._run.progress.keep_workers(workers)

    def in_flight(self, shards: int) -> None:
        """Take note of how many shards are submitted and not done."""
        self._run.progress.under_way(shards, self._run.metrics.workers)
