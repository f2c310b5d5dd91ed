"""The Dask workers of a run as a place of its pool: the shards under way there, and whether the workers live."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed.scheduler import KilledWorker

from rag_index.errors import ProcessDied, RagIndexError, TerminalError, TransientError
from rag_index.indexing.pipeline import embed_step, upsert_step
from rag_index.orchestration.worker import LOG_TOPIC, TOPIC, embed_on_worker, write_on_worker
from rag_index.outages import Outage

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future

    from rag_index.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.indexing.embed import EmbedJob
    from rag_index.indexing.scan import Scan
    from rag_index.indexing.step_retries import Call

CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""


class WorkerPlace:
    """The workers, which have a few shards each: one that each embeds, and one that waits for it.

    If workers write to a server there is a third, which waits for the server to acknowledge its points.
    """

    def __init__(
        self, scan: Scan, client: Client, *, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scan, self._client, self._clock = scan, client, clock
        self._writes, self._progress = not scan.run.store.embedded, scan.run.progress
        self.size = (3 if self._writes else 2) * workers
        self._futures: set[Future] = set()
        self._checked = self._seen = clock()
        client.subscribe_topic(LOG_TOPIC, lambda event: self._progress.note_later(str(event[1])))
        client.subscribe_topic(TOPIC, self._receive)

    def embed(self, job: EmbedJob, call: Call) -> EmbeddedShard | WrittenShard:
        """Have a worker embed a shard, and write it if the store is a server: vectors do not pass through here."""
        shard, scan = job.shard, self._scan
        found: Any = call(embed_step(shard), partial(self._ask, embed_on_worker, job, keep=self._writes))
        if not self._writes:
            return found  # type: ignore[no-any-return]
        written = scan.run.settings.store, scan.collection.name, found, scan.epoch
        step = upsert_step(shard.index, shard.number)
        try:  # before the shard that waits for the worker: writing makes room for it
            return call(step, partial(self._ask, write_on_worker, *written, priority=1))  # type: ignore[no-any-return]
        finally:
            self._release(found)

    def _ask(self, function: Callable[..., Any], *arguments: Any, keep: bool = False, priority: int = 0) -> Any:
        """Call a function on a worker, and return its result, or the future of it that the worker is to `keep`.

        Raises ProcessDied if workers died under it.
        """
        future = self._client.submit(function, *arguments, pure=False, priority=priority)
        self._futures.add(future)
        kept = False
        try:
            error = future.exception()  # which waits for its end, and gets no vectors
            if isinstance(error, KilledWorker):
                raise ProcessDied(f"workers died under a shard ({error})") from error
            if future.status == "error" and not isinstance(error, RagIndexError):
                raise TerminalError(f"a worker failed at a shard: {type(error).__name__}: {error}") from error
            if kept := keep and future.status == "finished":
                return future
            return future.result()
        except RagIndexError:
            raise
        except Exception as error:  # CancelledError, a lost connection: distributed's own
            raise TerminalError(f"the workers are gone ({type(error).__name__}: {error}); run again") from error
        finally:
            if not kept:
                self._release(future)

    def _release(self, future: Future) -> None:
        """Let the workers forget a future. Without that, the traceback of its own error would keep it."""
        future.release()
        self._futures.discard(future)

    def close(self) -> None:
        """Have the workers do no more for this run, which ends the threads that wait for them."""
        for future in tuple(self._futures):
            self._release(future)

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
        except OSError:  # a lost connection cancels what is in flight, which ends the waiting
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
