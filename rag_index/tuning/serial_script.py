"""What the usual script does: one document at a time, one request for each chunk, points in batches of 100."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.documents.batches import PointBatch, Shard
from rag_index.embedders import open_embedder
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.points import batches
from rag_index.machine.memory import MemoryWatch
from rag_index.stores import open_store
from rag_index.tuning.parity import Vectors, stored_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import DocumentBatch, EmbeddedShard
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.settings import EmbedderSettings, Settings
    from rag_index.stores import Store

__all__ = ["OneByOne", "SerialRun", "run_serial_script", "serial_settings"]

UPSERT_POINTS = 100
"""Points that the script writes at a time."""
COLLECTION = "serial"


class OneByOne:
    """An embedder that is asked for one text at a time."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.stats = embedder.stats

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """As `Embedder.embed_documents`, with a request for each text."""
        return [self._embedder.embed_documents([text])[0] for text in texts]

    def identity(self) -> EmbedderIdentity:
        """As `Embedder.identity`."""
        return self._embedder.identity()

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """As `Embedder.embed_query`."""
        return self._embedder.embed_query(text)

    def close(self) -> None:
        """As `Embedder.close`."""
        self._embedder.close()


def serial_settings(embedder: EmbedderSettings) -> EmbedderSettings:
    """Return the script's settings: one server, one request at a time, the server's own choice of threads."""
    changed = {"hosts": embedder.hosts[:1], "batch_texts": 1, "requests_in_flight": 1, "num_thread": None}
    return embedder.model_copy(update=changed)


@dataclass(frozen=True, slots=True)
class SerialRun:
    """What the script made, and what it took."""

    points: Vectors
    seconds: float
    stages: dict[str, float]
    """Busy seconds of chunk, embed and upsert."""
    memory: dict[str, int]
    """Highest own memory of each process, in bytes."""


class _Writer:
    """Writes points as a script does: as they come, `UPSERT_POINTS` at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[PointBatch] = []
        self.seconds = 0.0

    def add(self, embedded: EmbeddedShard) -> None:
        """Add a document's points, and write if enough are waiting."""
        self._waiting += batches(embedded)
        if sum(map(len, self._waiting)) >= UPSERT_POINTS:
            self._write()

    def finish(self) -> None:
        """Write what is left, and make all of it durable."""
        self._write()
        started = time.perf_counter()
        self._store.flush(COLLECTION)
        self.seconds += time.perf_counter() - started

    def _write(self) -> None:
        started = time.perf_counter()
        if self._waiting:
            ids = [point for batch in self._waiting for point in batch.ids]
            payloads = [payload for batch in self._waiting for payload in batch.payloads]
            vectors = np.concatenate([batch.vectors for batch in self._waiting])
            self._store.upsert(COLLECTION, PointBatch(ids, vectors, payloads))
            self._waiting = []
        self.seconds += time.perf_counter() - started


def run_serial_script(
    settings: Settings, index: str, documents: DocumentBatch, chunker: Chunker, identity: EmbedderIdentity
) -> SerialRun:
    """Embed and write the documents as the script does, into the (temporary) store of `settings`."""
    stages = {"chunk": 0.0, "embed": 0.0}
    opened: Any = OneByOne(open_embedder(serial_settings(settings.embedder), expected=identity))
    with closing(opened) as embedder, closing(open_store(settings.store)) as store:
        store.create(COLLECTION, identity.dimension, {})
        writer = _Writer(store)
        embedder.embed_documents(["start up"])
        with MemoryWatch({}) as watch:
            started = time.perf_counter()
            for row in range(len(documents)):
                batch = documents.take([row])
                embedded = embed_shard(Shard(index, row, batch, len(batch.texts[0])), chunker, embedder)
                stages["embed"] += embedded.stats.embed_seconds
                stages["chunk"] += max(0.0, embedded.stats.seconds - embedded.stats.embed_seconds)
                writer.add(embedded)
            writer.finish()
            seconds = time.perf_counter() - started
        points = stored_vectors(store, COLLECTION)
    return SerialRun(points, seconds, {**stages, "upsert": writer.seconds}, watch.peaks)
