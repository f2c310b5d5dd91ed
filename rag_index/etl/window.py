"""The window of a run: its shards from pending to committed, and how many are embedded and written
at a time.

    push: pending > embed and upsert, of several shards at a time > commit
    finish: shards under way > suspects, each alone in a child > their eighths > failed documents

How a document is found at which its process crashes:

1. The process dies under a shard (ProcessDied). The shard waits until all others are done.
2. The shard is embedded alone, in a child process, so that nothing else is lost if it crashes again.
3. If it does, it is divided into eight parts, each of which is embedded alone, and so on
   (`in_parts`). Parts without the document are written and committed.
4. A part of one document that crashes is the document. It is listed as failed, with the reason
   `POISON`.

If the run's own process is killed instead, the documents of its shards stay pending. The next run
takes pending documents, and those that are listed as failed, for suspects: a shard with one of them
begins at step 2. The run's own process never embeds suspects, whatever the settings.

Documents that are listed because a text of them ends the embedding server come last of all, each as
a shard of its own, and are tried once.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.components.stores import find_live
from rag_index.core.documents.batches import (
    RESERVED_KEY,
    Failure,
    Shard,
    WrittenShard,
    text_to_embed,
)
from rag_index.core.documents.keys import point_id
from rag_index.core.documents.work import Work
from rag_index.core.settings.index import CODE
from rag_index.errors import (
    IndexLocked,
    LedgerError,
    LedgerUnavailable,
    ProcessDied,
    RagIndexError,
    ShardHalved,
    StoreError,
    StoreUnavailable,
)
from rag_index.etl.collection import same_vectors
from rag_index.etl.embed import EmbedJob
from rag_index.etl.interruption import stop_in
from rag_index.etl.upsert import CHUNK_HASH, Destination, chunk_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from rag_index.components.ledger import Collection, Ledger, RecordedDocument
    from rag_index.components.stores.protocol import StoreReader
    from rag_index.core.documents.batches import StoredPoint
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan
    from rag_index.etl.steps import Steps

TICK_SECONDS = 1.0
"""Seconds after which a run that waits for a shard shows its progress. Chosen; nothing depends on
it."""
SPLIT_PARTS = 8
"""Parts of a shard that kills its process: one document of 4,096 is found in four rounds. Chosen;
nothing depends on it."""
POINTS_AT_ONCE = 1000
"""Points that are read at a time for their vectors. Chosen; nothing depends on it."""
POISON = (
    "the worker process dies on this document, again and again; look at its text and at the"
    " worker's memory"
)
NOT_WRITABLE = (StoreError, StoreUnavailable, LedgerError, LedgerUnavailable, IndexLocked)
"""Errors after which nothing more is written. After all others, the shards under way are
committed."""
HAND_OVER_SECONDS, MIN_HAND_OVER_SECONDS, HAND_OVER_SHARE = 60.0, 10.0, 0.05
"""How often readers of the embedded store get what a run has written: every minute, and at this
share of new points, but not more often than every ten seconds. If somebody searches meanwhile, it
costs a copy of the collection. Chosen; nothing depends on them."""
logger = logging.getLogger("rag_index.indexing")


class Window:
    """The shards of a run that are embedded and written at a time: `Steps.shards_per_worker` for
    each that embeds."""

    def __init__(self, opened: Opened, scan: Scan, steps: Steps, record: RunRecord) -> None:
        self._opened, self._scan, self._steps, self._record = opened, scan, steps, record
        self._reuse, self._bm25 = reusable(opened, scan), bm25_model(opened.index)
        target = scan.target
        is_first = not (target.rebuild or target.collection.whole_in)
        self._fills = opened.store.embedded and is_first
        """Whether readers get what is committed while the run goes on."""
        self._points = 0
        """The points that were committed since readers got some."""
        self._shown = 0
        """The points that readers have."""
        self._handed_over = time.monotonic()
        self.to = Destination(opened.store, target.collection.name, target.epoch)
        self._under_way: dict[Future[WrittenShard], Shard] = {}
        self._done: SimpleQueue[Future[WrittenShard]] = SimpleQueue()
        """The futures under way that are done and not committed yet."""
        self._alone: list[Shard] = []
        """Suspects, and shards whose process died: `finish` tries them."""
        self._error: RagIndexError | None = None
        """The first error of a shard. It is raised once the other shards are committed."""
        self.meanwhile: Callable[[], None] | None = None
        """Called after each shard that is pushed, and each second in which none is done, until all
        are pushed."""

    def push(self, shard: Shard) -> None:
        """Begin to embed and write a shard, and commit shards that are done until there is room for
        the next one. Suspects wait for the others.

        If there is room, at most one shard is committed: a commit takes time, and workers must not
        run out of work.

        Raises:
            NOT_WRITABLE: At once, since nothing more can be written.
            RagIndexError: A shard failed. The others under way are committed before.
        """
        self._record.note_first_shard()
        # Pending, before anything may write it.
        self._scan.committer.begin_shard(shard)
        if shard.suspect:
            self._alone.append(shard)
            return
        self._submit(shard)
        most_under_way = self._steps.shards_per_worker * self._steps.workers
        self._down_to(most_under_way - 1)
        if not self._done.empty():
            self._next()
        if self.meanwhile:
            self.meanwhile()

    @contextmanager
    def committed_at_the_end(self) -> Iterator[None]:
        """Commit the shards that the block pushes, also if the block raises. Raises as the block,
        and as `push`."""
        try:
            yield
        except NOT_WRITABLE:
            raise
        except Exception as error:
            # Such as a page that cannot be read: what is embedded already is still committed. After
            # a Ctrl-C nobody wants to wait for that.
            if stop_in(error) is None:
                self.drain()
            raise
        self.finish()

    def drain(self) -> None:
        """Wait for all shards under way, and commit them. Raises as `push`."""
        self.meanwhile = None
        self._down_to(0)

    def commit_done(self) -> None:
        """Commit the shards that are done by now, without waiting for others. Raises as `push`."""
        self._steps.tick()
        while not self._done.empty():
            self._next()
        if self._error is not None:
            self._down_to(0)

    def finish(self) -> None:
        """Drain the window; then try suspects, and shards whose process died.

        A run that ends early leaves these pending. Raises as `push`.
        """
        self.drain()
        # Documents that end the embedding server come last.
        suspects = sorted(self._alone, key=lambda shard: shard.ends_server)
        self._alone = []
        with self._record.stopwatch.stage("embed"):
            for suspect in suspects:
                for written in in_parts(suspect, self._write_alone):
                    self._commit(written)

    def _write_alone(self, shard: Shard) -> WrittenShard:
        job = self._job(shard, workers=1)
        return self._steps.write_alone(job, self.to)

    def _submit(self, shard: Shard) -> None:
        record, steps = self._record, self._steps
        # Until workers have started, this process may embed the shard within the call.
        stage = "submit" if steps.has_started_workers else "embed"
        with record.stopwatch.stage(stage):
            job = self._job(shard, steps.workers)
            future = steps.write(job, self.to)
        record.outcome.workers = steps.workers if steps.has_started_workers else 1
        self._under_way[future] = shard
        future.add_done_callback(self._done.put)

    def _job(self, shard: Shard, workers: int) -> EmbedJob:
        """Return the job of a shard, one of whose `workers` will embed it, with the vectors that
        are known already."""
        settings, target = self._opened.settings, self._scan.target
        known: dict[str, NDArray[np.float32]] = {}
        if self._reuse is not None:
            known = self._reuse.vectors(shard.documents.keys, shard.documents.text_hashes)
        return EmbedJob(
            shard,
            target.chunker,
            settings.embedder,
            target.identity,
            self._bm25,
            workers,
            settings.run.wait_for_recovery,
            known,
        )

    def _down_to(self, most: int) -> None:
        """Commit shards until at most so many are under way, or none after an error of a shard,
        which is raised then."""
        while True:
            limit = max(0, most) if self._error is None else 0
            if len(self._under_way) <= limit:
                break
            self._next()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _next(self) -> None:
        """Wait for a shard, for a second at most, and commit it or decide what becomes of it."""
        future = self._wait()
        if future is None:
            return
        shard = self._under_way.pop(future)
        try:
            written = future.result()
        except ProcessDied as error:
            # A worker ran out of memory, or crashed: the shard is tried alone.
            self._record.log.warning("%s", error)
            self._alone.append(shard)
        except ShardHalved as error:
            # The embedding server became unavailable under it twice: its halves are next.
            self._record.log.warning("%s", error)
            for half in parts(shard, 2):
                self._submit(half)
        except NOT_WRITABLE:
            raise
        except RagIndexError as error:
            # Such as ModelMissing: the other shards are committed, then it is raised.
            self._error = self._error or error
        else:
            self._steps.tick()
            self._commit(written)

    def _wait(self) -> Future[WrittenShard] | None:
        """Return a future that is done. None if none is for a second."""
        try:
            with self._record.stopwatch.stage("wait"):
                return self._done.get(timeout=TICK_SECONDS)
        except Empty:
            self._record.progress.tick()
            self._steps.tick()
        if self.meanwhile:
            self.meanwhile()
        return None

    def _commit(self, written: WrittenShard) -> None:
        """Delete the stale chunks of a shard whose points are in the store, then write the ledger's
        rows."""
        scan = self._scan
        with self._record.stopwatch.stage("commit"):
            new = scan.committer.commit(written)
        self._record.add(written, new=new)
        scan.diff.note_written(written)
        self._points += sum(written.chunk_counts)
        self._hand_over_if_due()

    def _hand_over_if_due(self) -> None:
        """Let readers of the embedded store see what is committed, while an index is filled for the
        first time."""
        waited = time.monotonic() - self._handed_over
        if not self._fills or waited < MIN_HAND_OVER_SECONDS:
            return
        # A minute has passed, or readers have 1,000 points and there are 50 more.
        if waited >= HAND_OVER_SECONDS or self._points >= HAND_OVER_SHARE * self._shown:
            store, name = self._opened.store, self._scan.target.collection.name
            self._shown = store.points(name).count()
            store.hand_over()
            self._points, self._handed_over = 0, time.monotonic()


def in_parts(
    suspect: Shard, write_alone: Callable[[Shard], WrittenShard]
) -> Iterator[WrittenShard]:
    """Write a suspect alone, and in parts if it kills its process. Yield what is written.

    A single document that kills its process is yielded as a failure.

    Args:
        write_alone: Embeds and writes a shard in a child. Raises ProcessDied if the child dies.
    """
    documents = suspect.documents
    try:
        yield write_alone(suspect)
    except (ProcessDied, ShardHalved):
        # The document at fault is found.
        if len(documents) == 1:
            failure = Failure(
                documents.keys[0],
                POISON,
                documents.text_hashes[0],
                process_died=True,
                cause="server" if suspect.ends_server else "",
            )
            yield WrittenShard(suspect.number, [], [], [], [], [failure], Work())
            return
        for part in parts(suspect, SPLIT_PARTS):
            yield from in_parts(part, write_alone)


def parts(shard: Shard, most: int) -> Iterator[Shard]:
    """Yield a shard as at most so many, of about equally many documents."""
    documents = shard.documents
    count = len(documents)
    size = -(-count // most)  # rounded up: 9 documents in 8 parts are 2 each
    for first in range(0, count, size):
        end = min(first + size, count)
        part = documents.take(list(range(first, end)))
        chars = sum(map(len, part.texts))
        yield replace(shard, documents=part, chars=chars)


class VectorReuse(Protocol):
    """Vectors that need not be embedded again, since the embedder of this run has made them.

    A vector is reused if the chunk's text, with its context, and the embedder's fingerprint are the
    same, whatever became of payloads, chunk sizes or chunk numbers. The copy is equal bit by bit.
    """

    def vectors(
        self, keys: Sequence[str], text_hashes: Sequence[bytes]
    ) -> dict[str, NDArray[np.float32]]:
        """Return vectors by embedded text: those of all chunks that the collection has of documents
        with these keys or texts."""


@dataclass(frozen=True, slots=True)
class OwnVectors:
    """The vectors of the collection that a run writes to.

    Of a changed document only the chunks whose text changed are embedded, and of a renamed file of
    source code none. Vectors are read only of documents that had several chunks, since the one
    chunk of a changed text has changed too. Pending documents still have points with their texts.

    With `moved`, the vectors of other documents with the same text are found as well.
    """

    opened: Opened
    collection: Collection
    moved: bool

    def vectors(
        self, keys: Sequence[str], text_hashes: Sequence[bytes]
    ) -> dict[str, NDArray[np.float32]]:
        """Return vectors by embedded text, as `VectorReuse` does."""
        cid, ledger, index = self.collection.id, self.opened.ledger, self.opened.index.name
        found = ledger.known(cid, keys)
        known: dict[str, RecordedDocument] = {}
        for key, row in found.items():
            # A pending document may have vectors, whatever its former row says.
            if row.chunks > 1 and (row.pending or not row.by_words):
                known[key] = row
        if self.moved:
            known |= _with_same_texts(ledger, cid, keys, text_hashes, found)
        ids: list[str] = []
        for key, row in known.items():
            ids += [point_id(index, key, number) for number in range(row.chunks)]
        return _vectors_of(_points(self.opened.store, self.collection.name, ids))


@dataclass(frozen=True, slots=True)
class LiveVectors:
    """The vectors of the live collection, for a rebuild.

    Points are looked up by their ids, and their payloads count the chunks of a document. If the
    ledger knows the collection (`row`), documents that have another key there are found as well,
    and documents that an earlier run left pending are not.
    """

    opened: Opened
    name: str
    row: Collection | None

    def vectors(
        self, keys: Sequence[str], text_hashes: Sequence[bytes]
    ) -> dict[str, NDArray[np.float32]]:
        """Return vectors by embedded text, as `VectorReuse` does."""
        store, index = self.opened.live_store, self.opened.index.name
        ids = [point_id(index, key, 0) for key in self._keys(keys, text_hashes)]
        first = _points(store, self.name, ids)
        # A document of 3 chunks has the ids of its chunks 1 and 2 left.
        ids = []
        for point in first:
            ours = point.payload[RESERVED_KEY]
            ids += [point_id(index, ours["key"], number) for number in range(1, ours["chunks"])]
        return _vectors_of([*first, *_points(store, self.name, ids)])

    def _keys(self, keys: Sequence[str], text_hashes: Sequence[bytes]) -> list[str]:
        """Return the keys of documents there whose chunks may have the texts of these documents."""
        if self.row is None:
            return list(keys)
        ledger = self.opened.ledger
        found = ledger.known(self.row.id, keys)
        others = _with_same_texts(ledger, self.row.id, keys, text_hashes, found)
        known = {**found, **others}
        return [key for key, row in known.items() if not (row.pending or row.by_words)]


def _with_same_texts(
    ledger: Ledger,
    collection_id: int,
    keys: Sequence[str],
    text_hashes: Sequence[bytes],
    found: Mapping[str, RecordedDocument],
) -> dict[str, RecordedDocument]:
    """Return documents of a collection with the texts of new ones, under other keys.

    `found` are its rows of `keys`.
    """
    new: set[bytes] = set()
    for key, text in zip(keys, text_hashes, strict=True):
        if key not in found or not found[key].chunks:
            new.add(text)
    return ledger.known(collection_id, ledger.keys_of_texts(collection_id, sorted(new)))


def _points(store: StoreReader, name: str, ids: Sequence[str]) -> list[StoredPoint]:
    """Return the points with these ids that can be read, with their vectors."""
    stored = store.points(name)
    points: list[StoredPoint] = []
    for first in range(0, len(ids), POINTS_AT_ONCE):
        try:
            points += stored.retrieve(ids[first : first + POINTS_AT_ONCE], vectors=True)
        except StoreError as error:
            # A rebuild may replace a collection that cannot be read: every text is embedded.
            logger.warning("vectors of %s cannot be reused: %s", name, error)
            break
    return points


def _vectors_of(points: Iterable[StoredPoint]) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of points by embedded text.

    Points whose payload another program changed are left out: their vectors are of other texts.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    for point in points:
        ours = point.payload[RESERVED_KEY]
        if point.vector is not None and ours.get(CHUNK_HASH) == chunk_hash(point.payload):
            text = text_to_embed(ours.get("context", ""), ours["text"])
            vectors[text] = np.asarray(point.vector, dtype=np.float32)
    return vectors


def reusable(opened: Opened, scan: Scan) -> VectorReuse | None:
    """Return the vectors that a run may reuse, None if its texts can have none yet.

    A rebuild takes those of the live collection, if the same embedder made it; all others take
    those of their own. Source code, parts and files are found under another key, too: files are
    renamed, and parts move.
    """
    index, target = opened.index, scan.target
    # The ledger may not know the live collection: then `opened.live` is None.
    if target.rebuild:
        live = find_live(opened.live_store, opened.alias)
        made_by = None if live is None else live.metadata.get("embedder_identity")
        if live is not None and same_vectors(
            EmbedderIdentity.from_metadata(made_by), target.identity
        ):
            return LiveVectors(opened, live.name, opened.live)
    if not scan.before.all:
        return None
    moved = index.kind == CODE or bool(index.parts) or index.has_files
    return OwnVectors(opened, target.collection, moved)
