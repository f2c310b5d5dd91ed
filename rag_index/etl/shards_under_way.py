"""The shards under way in a run, and the limit of how many are embedded and written at a time: its window.

Documents that may kill the process that embeds them are embedded alone, in a child: shards whose process died, once the
others are done, and suspects at once. Suspects were pending when a run died, or are listed as failed. The run's own
process never embeds them, whatever the settings. A shard that kills its child is tried in parts until the document is
found, which is then listed as failed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.core.documents.batches import RESERVED_KEY, Failure, Shard, ShardStats, WrittenShard, text_to_embed
from rag_index.core.documents.keys import point_id
from rag_index.core.settings.index import CODE
from rag_index.errors import (
    IndexLocked,
    LedgerError,
    LedgerUnavailable,
    ProcessDied,
    RagIndexError,
    StoreError,
    StoreUnavailable,
)
from rag_index.etl.commit import CHUNK_HASH, chunk_hash
from rag_index.etl.embed import EmbedJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.etl.run import IndexRun
    from rag_index.etl.steps import Steps

WORTH_WORKERS = 2.0
"""Full shards for which workers are started. It takes them some seconds, in which this process embeds about as much."""
TICK_SECONDS = 1.0
SPLIT_PARTS = 8
POISON = "the worker process dies on this document, again and again; look at its text and at the worker's memory"
NOT_WRITABLE = (StoreError, StoreUnavailable, LedgerError, LedgerUnavailable, IndexLocked)
"""Errors after which nothing more is written. After all others, what is embedded already is still worth committing."""
logger = logging.getLogger("rag_index.indexing")


@dataclass(eq=False)
class ShardsUnderWay:
    """The shards of a run that are under way. The first are kept until they make two full ones: then workers start."""

    _run: IndexRun
    _steps: Steps
    _kept: list[Shard] = field(default_factory=list)
    _under_way: dict[Future[WrittenShard], Shard] = field(default_factory=dict)
    _done: SimpleQueue[Future[WrittenShard]] = field(default_factory=SimpleQueue)
    _died: list[Shard] = field(default_factory=list)
    _error: RagIndexError | None = None

    def push(self, shard: Shard) -> Iterator[WrittenShard]:
        """Begin to embed and write a shard, and yield shards that are done until there is room for the next one. If
        there was room, it is one shard at most: the caller needs time for each, and workers must not run out of work.
        When a shard fails, the others under way are still yielded; then the first error is raised. What a store raises
        is raised at once."""
        if shard.suspect:
            with self._run.stopwatch.stage("embed"):
                yield from in_parts(shard, self._write_alone)
            return
        self._kept.append(shard)
        full = sum(kept.fill for kept in self._kept)
        if not (self._steps.started or self._run.has_much or full >= WORTH_WORKERS):
            return
        self._start()
        yield from self._submit_kept()
        if not self._done.empty():
            yield from self._next()

    def rest(self) -> Iterator[WrittenShard]:
        """Wait for all shards under way, and yield them; then try those whose process died. Raises as `push`."""
        yield from self._submit_kept()
        yield from self._down_to(0)
        died, self._died = self._died, []
        for shard in died:
            yield from in_parts(shard, self._write_alone)

    def _start(self) -> None:
        run, steps = self._run, self._steps
        if steps.started:
            return
        with run.stopwatch.stage("workers"):
            why = steps.start()
        if why:  # late is better than not at all
            run.outcome.say(f"it was indexed in one process: {why}")
            run.progress.say("no workers, continuing in one process")

    def _submit_kept(self) -> Iterator[WrittenShard]:
        kept, self._kept = self._kept, []  # an error leaves the rest of them to the next run
        for shard in kept:
            self._submit(shard)
            yield from self._down_to(self._steps.size - 1)

    def _submit(self, shard: Shard) -> None:
        run, steps = self._run, self._steps
        run.metrics.workers = steps.workers if steps.started else 1
        run.progress.begin_shard(shard.number)
        with run.stopwatch.stage("submit" if steps.started and not run.settings.parallel.serial else "embed"):
            future = steps.write(self._job(shard), self._run.committer.destination)
        self._under_way[future] = shard
        future.add_done_callback(self._done.put)
        self._note_under_way()

    def _down_to(self, most: int) -> Iterator[WrittenShard]:
        while len(self._under_way) > (0 if self._error else max(0, most)):
            yield from self._next()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _next(self) -> Iterator[WrittenShard]:
        if (future := self._wait()) is None:
            return
        shard = self._under_way.pop(future)
        self._note_under_way()
        try:
            written = future.result()
        except ProcessDied as error:
            (self._run.logger or logger).warning("%s", error)
            self._died.append(shard)
            self._run.progress.begin_shard(shard.number)
        except NOT_WRITABLE:
            raise
        except RagIndexError as error:
            self._error = self._error or error
        else:
            self._steps.observe(written)
            yield written

    def _wait(self) -> Future[WrittenShard] | None:
        run = self._run
        try:
            with run.stopwatch.stage("wait"):
                return self._done.get(timeout=TICK_SECONDS)
        except Empty:
            run.progress.tick()
            self._steps.tick()
            return None

    @cached_property
    def _reuse(self) -> VectorReuse | None:
        return reusable(self._run)

    def _job(self, shard: Shard) -> EmbedJob:
        run, documents = self._run, shard.documents
        known = self._reuse.vectors(documents.keys, documents.text_hashes) if self._reuse else {}
        bm25, embedder = bm25_model(run.index), run.settings.embedder
        return EmbedJob(shard, run.chunker, embedder, run.identity, bm25, run.metrics.workers, known)

    def _write_alone(self, shard: Shard) -> WrittenShard:
        self._run.progress.begin_shard(shard.number)
        return self._steps.write_alone(self._job(shard), self._run.committer.destination)

    def _note_under_way(self) -> None:
        run = self._run
        run.progress.under_way(len(self._under_way), run.metrics.workers)


def in_parts(suspect: Shard, write_alone: Callable[[Shard], WrittenShard]) -> Iterator[WrittenShard]:
    """Write a suspect alone, split it if it kills its process again, and yield what is written. `write_alone` raises
    ProcessDied if the process of its shard dies. A single document that does that is listed as failed."""
    documents, count = suspect.documents, len(suspect.documents)
    try:
        yield write_alone(suspect)
    except ProcessDied:
        if count == 1:
            failures = [Failure(documents.keys[0], POISON, documents.text_hashes[0], died=True)]
            yield WrittenShard(suspect.number, [], [], [], [], failures, ShardStats())
            return
        size = -(-count // SPLIT_PARTS)
        for first in range(0, count, size):
            part = documents.take(list(range(first, min(first + size, count))))
            shard = replace(suspect, documents=part, chars=sum(map(len, part.texts)))
            yield from in_parts(shard, write_alone)


@dataclass(frozen=True, slots=True)
class VectorReuse:
    """A lookup of vectors in `collection`, which holds `index` and was made by the embedder that is used now.

    A rebuild reuses vectors of the live collection, also for documents that have another key there. A run over source
    code reuses those of its own collection: of a changed file only the symbols whose text changed are embedded, and of
    a renamed file none. A vector is reused if the chunk's text and the embedder's fingerprint are the same, whatever
    became of payloads, chunk sizes or chunk numbers. The copy is equal bit by bit.

    The vectors of other documents with the same text are found as well. With `own`, `collection` is the one that the
    run writes to, where pending documents still have points with their texts.
    """

    index: str
    ledger: Ledger
    store: Store
    collection: Collection
    own: bool = False

    def vectors(self, keys: Sequence[str], text_hashes: Sequence[bytes] = ()) -> dict[str, NDArray[np.float32]]:
        """Return vectors by embedded text, of all chunks that these documents (with these texts) have there."""
        cid = self.collection.id
        known = self.ledger.known(cid, keys)
        if text_hashes:  # documents with the text of a new one, under another key
            texts = zip(keys, text_hashes, strict=True)
            new = {text for key, text in texts if key not in known or not known[key].chunks}
            known |= self.ledger.known(cid, self.ledger.keys_of_texts(cid, sorted(new)))
        ids = [
            point_id(self.index, key, number)
            for key, row in known.items()
            if self.own or not row.pending
            for number in range(row.chunks)
        ]
        found: dict[str, NDArray[np.float32]] = {}
        for first in range(0, len(ids), 1000):
            try:
                stored = self.store.retrieve(self.collection.name, ids[first : first + 1000], vectors=True)
            except StoreError as error:  # an unreadable collection is what a rebuild is for
                logger.warning("vectors of %s cannot be reused: %s", self.collection.name, error)
                return found
            for point in stored:
                ours = point.payload[RESERVED_KEY]
                if point.vector is not None and ours.get(CHUNK_HASH) == chunk_hash(point.payload):
                    text = text_to_embed(ours.get("context", ""), ours["text"])
                    found[text] = np.asarray(point.vector, dtype=np.float32)
        return found


def reusable(run: IndexRun) -> VectorReuse | None:
    """Return the lookup for a run, None if its texts can have no vector yet. A rebuild takes those of the live
    collection, if the same embedder made it. Runs over source code, parts and files take those of their own."""
    ledger, store, index, identity = run.ledger, run.store, run.index, run.identity
    if run.rebuild and (live := ledger.collection(store.aliases().get(run.alias, ""))) is not None:
        made_by = EmbedderIdentity.from_metadata(store.metadata(live.name).get("embedder_identity"))
        if made_by and made_by.same_model(replace(identity, query_prefix=made_by.query_prefix)):  # in no vector
            return VectorReuse(index.name, ledger, store, live)
    if run.had_documents and (index.kind == CODE or index.parts or index.has_files):
        return VectorReuse(index.name, ledger, store, run.collection, own=True)
    return None
