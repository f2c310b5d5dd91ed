"""The Dask workers of a run as a place of its pool: what they have, what they tell, and whether they live."""

from __future__ import annotations

import threading
import time
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from distributed.core import Status
from distributed.scheduler import KilledWorker

from rag_index.errors import ProcessDied, RagIndexError, TerminalError, TransientError
from rag_index.orchestration.cluster import current_worker
from rag_index.outages import Outage, outages
from rag_index.reports.progress import LOGGERS, LogNotes

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from rag_index.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.indexing.scan import Scan

CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""
TOPIC, LOG_TOPIC = "rag-index-status", "rag-index"
INTERVAL_SECONDS = 1.0


def forward(in_flight: Callable[[], int]) -> None:
    """Send this worker's status and log lines to the run from now on. Call it once; it does nothing elsewhere."""
    if (worker := current_worker()) is None:
        return
    handler = LogNotes(lambda line: worker.log_event(LOG_TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)

    def send_status() -> None:
        last: tuple[int, tuple[Outage, ...]] = (0, ())
        while worker.status not in (Status.closing, Status.closed):
            time.sleep(INTERVAL_SECONDS)
            if (now := (in_flight(), outages())) != last:
                last = now
                found = [list(astuple(outage)) for outage in now[1]]
                worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})

    threading.Thread(target=send_status, daemon=True, name="status").start()


class WorkerPlace:
    """The workers, which have a few shards each: one that each embeds, and one that waits for it.

    If workers write to a server there is a third, which waits for the server to acknowledge its points. `submit` gives
    the future of a shard, and `result` what is in it.
    """

    def __init__(
        self,
        scan: Scan,
        client: Client,
        submit: Callable[[Shard], Any],
        result: Callable[[Any], Any],
        *,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = (2 if scan.run.store.embedded else 3) * workers
        self._progress, self._client, self._submit, self._result = scan.run.progress, client, submit, result
        self._clock = clock
        self._checked = self._seen = clock()
        client.subscribe_topic(LOG_TOPIC, lambda event: self._progress.note_later(str(event[1])))
        client.subscribe_topic(TOPIC, self._receive)

    def submit(self, shard: Shard) -> Any:
        """Give the workers a shard, and return its future."""
        return self._submit(shard)

    def result(self, future: Any) -> EmbeddedShard | WrittenShard:
        """Return what the workers made of a shard. Raises ProcessDied if they died under it."""
        try:
            found: EmbeddedShard | WrittenShard = self._result(future)
        except KilledWorker as error:
            raise ProcessDied(f"workers died under a shard ({error})") from error
        except RagIndexError:
            raise
        except Exception as error:  # CancelledError, a lost connection: distributed's own
            raise TerminalError(f"the workers are gone ({type(error).__name__}: {error}); run again") from error
        finally:
            future.release()
        return found

    def _receive(self, event: Any) -> None:
        status = event[1]
        found = tuple(Outage(*fields) for fields in status["outages"])
        self._progress.set_process(status["worker"], requests=status["requests"], outages=found)

    def tick(self) -> None:
        """Check for workers if the last check is old enough.

        Raises:
            TransientError: there has been no worker for three minutes.
        """
        now = self._clock()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > GONE_SECONDS / 2:  # nobody checked in between, so nothing is known of that time
            self._seen = now
        self._checked = now
        try:
            workers = frozenset(self._client.nthreads())
        except (OSError, TimeoutError):  # a lost connection cancels what is in flight, which ends the waiting
            self._seen = now
            return
        self._progress.keep_workers(workers)
        if workers:
            self._seen = now
        elif now - self._seen >= GONE_SECONDS:
            raise TransientError(
                f"there has been no worker process for {now - self._seen:.0f} s, and none is starting; what is "
                "committed is kept: check that there is memory for workers, or that those of [parallel] address run, "
                "then run again"
            )
