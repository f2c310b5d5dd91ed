"""What a Dask worker does with a shard, what it keeps from shard to shard, and what it tells the run."""

from __future__ import annotations

import threading
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from rag_index.indexing.commit import write_shard
from rag_index.indexing.embed import embed, requests_in_flight
from rag_index.outages import Outage, outages
from rag_index.reports.progress import LOGGERS, LogNotes
from rag_index.stores import open_store

if TYPE_CHECKING:
    from distributed import Worker

    from rag_index.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.indexing.embed import EmbedJob
    from rag_index.settings import StoreSettings
    from rag_index.stores.protocol import Store

NAME = "rag-index"
TOPIC, LOG_TOPIC = "rag-index-status", "rag-index"
INTERVAL_SECONDS = 1.0


class RunPlugin(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Keeps a worker's connection to the store, and tells the run what the worker logs and waits for."""

    name = NAME

    def setup(self, worker: Worker) -> None:
        """Begin, in this worker's process."""
        self._store: tuple[StoreSettings, Store] | None = None
        self._ended = threading.Event()
        self._handler = LogNotes(lambda line: worker.log_event(LOG_TOPIC, line))
        for logger in LOGGERS:
            logger.addHandler(self._handler)
        threading.Thread(target=self._send, args=(worker,), daemon=True, name="status").start()

    def teardown(self, worker: Worker) -> None:
        """End it."""
        self._ended.set()
        for logger in LOGGERS:
            logger.removeHandler(self._handler)

    def write(self, to: WorkerDestination, shard: EmbeddedShard) -> WrittenShard:
        """Write a shard by this worker's connection: to open one for each takes a tenth of a second."""
        if self._store is None or self._store[0] != to.settings:
            self._store = to.settings, open_store(to.settings)
        try:
            return write_shard(self._store[1], to.collection, shard, epoch=to.epoch)
        except BaseException:
            self._store = None  # the server may speak another protocol now
            raise

    def _send(self, worker: Worker) -> None:
        last: tuple[int, tuple[Outage, ...]] = (0, ())
        while not self._ended.wait(INTERVAL_SECONDS):
            if (now := (requests_in_flight(), outages())) != last:
                last = now
                found = [list(astuple(outage)) for outage in now[1]]
                worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})


@dataclass(frozen=True, slots=True)
class WorkerDestination:
    """The collection of a server that workers write to, as `indexing.steps.Destination` is for the run's process."""

    settings: StoreSettings
    collection: str
    epoch: int

    def write(self, shard: EmbeddedShard) -> WrittenShard:
        """Upsert a shard. Raises as `write_shard`: IndexLocked, if the collection belongs to a later run."""
        plugin: RunPlugin = get_worker().plugins[NAME]
        return plugin.write(self, shard)


def embed_in_worker(job: EmbedJob) -> EmbeddedShard:
    """Chunk and embed a shard on a worker, or in any other process."""
    name = getattr(_current_worker(), "name", None)  # it differs between the workers, so that they spread over hosts
    home = name if isinstance(name, int) else sum(map(ord, str(name or "")))
    return embed(job, home=home)


def _current_worker() -> Any:
    """Return the Dask worker that this runs in (`distributed.Worker`), or None outside a worker."""
    try:
        return get_worker()
    except ValueError:
        return None
