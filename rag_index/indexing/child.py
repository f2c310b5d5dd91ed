"""The child process that embeds, and how a document that kills it is found.

Documents that may kill the process that embeds them are embedded in a child. These suspects were pending when a run
died, or are listed as failed. The run's own process never embeds them, whatever the settings: the child may die in its
place, and then the quarantine finds the document.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rag_index.documents.batches import EmbeddedShard, Failure, Shard, ShardStats
from rag_index.embedders import Embedder, open_embedder
from rag_index.errors import ProcessDied, RagIndexError, TerminalError
from rag_index.machine import end_process_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

    from rag_index.indexing.embed import EmbedJob

Result = TypeVar("Result")
POISON = "the worker process dies on this document, again and again; look at its text and at the worker's memory"


def quarantine(suspects: Iterable[Shard], run_alone: Callable[[Shard], Result]) -> Iterator[Result | EmbeddedShard]:
    """Run each suspect alone, split one that kills its process again, and yield all results.

    `run_alone` raises ProcessDied if the process of its shard dies. A single document that does it is listed as failed.
    """
    waiting = deque(suspects)
    while waiting:
        suspect = waiting.popleft()
        try:
            yield run_alone(suspect)
        except ProcessDied:
            documents = suspect.documents
            if len(documents) > 1:
                waiting.extendleft(reversed(parts_of(suspect)))
                continue
            failures = [Failure(documents.keys[0], POISON, documents.text_hashes[0], died=True)]
            none, nothing = documents.take([]), np.empty((0, 0), dtype=np.float32)
            yield EmbeddedShard(suspect.index, suspect.number, none, [], nothing, failures, ShardStats())


def parts_of(shard: Shard, count: int = 8) -> list[Shard]:
    """Split a shard into up to `count` parts of its documents, in order."""
    documents = len(shard.documents)
    size = -(-documents // count)
    ranges = [range(first, min(first + size, documents)) for first in range(0, documents, size)]
    batches = [shard.documents.take(list(rows)) for rows in ranges]
    return [Shard(shard.index, shard.number, one, sum(map(len, one.texts)), pages=shard.pages) for one in batches]


class ChildEmbedder:
    """A process that embeds one shard after another, and is started again after a death. It ends with its parent.

    Threads may give it more than one, which then wait in its pipe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def embed(self, job: EmbedJob) -> EmbeddedShard:
        """Embed a shard in the child. Raises ProcessDied if the child died; otherwise as `embed_shard`."""
        with self._lock:
            if self._closed:  # by a run that failed while this thread was on its way here
                raise ProcessDied("the run has ended")
            child = self._child = self._child or _Child()
        try:
            answer = child.ask(job)
        except (EOFError, OSError) as error:
            with self._lock:
                if self._child is child:
                    self._child = None
            child.end()
            raise ProcessDied("the process that embeds died") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """End the process at once, whatever it is doing."""
        with self._lock:
            self._closed, child, self._child = True, self._child, None
        if child is not None:
            child.end()


class _Child:
    """One process, which answers in the order in which it is asked."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="embed", daemon=True)
        self._process.start()
        theirs.close()
        self._sending, self._before = threading.Lock(), threading.Event()
        self._before.set()

    def ask(self, job: EmbedJob) -> EmbeddedShard | BaseException:
        """Send a shard, wait for the answers to those before, and return its own."""
        with self._sending:
            self._connection.send(job)
            before, answered = self._before, threading.Event()
            self._before = answered
        before.wait()
        try:
            answer: EmbeddedShard | BaseException = self._connection.recv()
        finally:
            answered.set()
        return answer

    def end(self) -> None:
        # The connection stays open: another thread may be reading what is its end now.
        self._process.kill()
        self._process.join()


def _serve(connection: Connection) -> None:
    """Embed shards until the parent closes its end: the main function of the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    embedder: Embedder | None = None
    while True:
        try:
            job: EmbedJob = connection.recv()
        except EOFError:
            return
        try:
            embedder = embedder or open_embedder(job.embedder, expected=job.identity)
            with end_process_after(job.timeout):
                answer: EmbeddedShard | RagIndexError = job.embed(embedder)
        except RagIndexError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to hear of it
            answer = TerminalError(f"embedding in a child process failed: {type(error).__name__}: {error}")
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
