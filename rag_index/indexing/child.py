"""A child process that embeds documents which may kill the process that embeds them.

Suspects are documents that were pending when a run died, or that are listed as failed. The flow's own process never
embeds them, whatever the settings: the child may die in its place, and then the quarantine finds the document.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from rag_index.embedders import open_embedder
from rag_index.errors import ProcessDied, RagIndexError, TerminalError
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.sharding import parts_of, poison
from rag_index.machine.watchdog import end_process_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from types import TracebackType

    from rag_index.documents.batches import EmbeddedShard, Shard
    from rag_index.embedders import Embedder
    from rag_index.indexing.embed import EmbedJob
    from rag_index.indexing.scan import Scan
    from rag_index.reports.metrics import Stopwatch

Item = TypeVar("Item")
Result = TypeVar("Result")


def quarantine(
    suspects: Iterable[Item],
    run_alone: Callable[[Item], Result],
    *,
    split: Callable[[Item], list[Item]],
    poison: Callable[[Item], Result],
) -> Iterator[Result]:
    """Run each suspect alone, split one that kills its process again, and yield all results.

    Args:
        suspects: Items whose process died, perhaps because of another item.
        run_alone: Runs an item with nothing beside it; raises ProcessDied if its process dies.
        split: Returns the parts of an item, or the item itself if it cannot be split.
        poison: Returns the result of an item that kills its process and cannot be split.
    """
    waiting = deque(suspects)
    while waiting:
        suspect = waiting.popleft()
        try:
            result = run_alone(suspect)
        except ProcessDied:
            parts = split(suspect)
            if len(parts) > 1:
                waiting.extendleft(reversed(parts))
                continue
            result = poison(suspect)
        yield result


def embed_in_child(scan: Scan, shard: Shard, child: ChildEmbedder) -> Iterator[EmbeddedShard]:
    """Embed a shard of suspects in the child; a document that kills it is found and listed as failed.

    Yields the shard, or its parts if the child died.
    """
    yield from quarantine([shard], lambda part: child.embed(scan.job(part)), split=parts_of, poison=poison)


class ChildEmbedder:
    """A process that embeds one shard at a time, and is started again after a death. A context manager.

    Leaving the block ends the process at once, whatever it is doing; it also ends when its parent dies.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._child: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> ChildEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def embed(self, job: EmbedJob) -> EmbeddedShard:
        """Embed a shard in the child.

        Raises:
            ProcessDied: the child died.
            RagIndexError: as `embed_shard` raises it.
        """
        if self._child is None:
            self._child = _start()
        _, connection = self._child
        try:
            with self._stopwatch.stage("embed"):
                connection.send(job)
                answer: EmbeddedShard | BaseException = connection.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise ProcessDied("the process that embeds died") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _end(self) -> None:
        if self._child is not None:
            process, connection = self._child
            self._child = None
            connection.close()
            process.kill()
            process.join()


def _start() -> tuple[BaseProcess, Connection]:
    """Start a child, and return it with our end of the pipe."""
    context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), name="suspects", daemon=True)
    process.start()
    theirs.close()
    return process, ours


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
                answer: EmbeddedShard | RagIndexError = embed_shard(
                    job.shard, job.chunker, embedder, bm25=job.bm25, known=job.known
                )
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
