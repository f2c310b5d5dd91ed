"""The pool that embeds the shards of a run: in this process, beside it, or on workers; and what becomes of killers.

Documents that may kill the process that embeds them are embedded in a child. These suspects were pending when a run
died, or are listed as failed. The run's own process never embeds them, whatever the settings: the child may die in its
place, and then the quarantine finds the document.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from contextlib import ExitStack
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from rag_index.documents.batches import EmbeddedShard, Failure, Shard, ShardStats, WrittenShard
from rag_index.embedders import Embedder, open_embedder
from rag_index.errors import NoWorkers, ProcessDied, RagIndexError, TerminalError
from rag_index.indexing.step_retries import Step
from rag_index.machine import end_process_after, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

    from rag_index.indexing.embed import EmbedJob
    from rag_index.indexing.scan import Scan
    from rag_index.indexing.step_retries import Call

Result = TypeVar("Result")
TICK_SECONDS = 1.0
AHEAD = 2
"""Shards that wait in the pipe of the child that embeds, so that it has the next one at once."""

POISON = "the worker process dies on this document, again and again; look at its text and at the worker's memory"
logger = logging.getLogger("rag_index.indexing.embed")


class Place(Protocol):
    """Where shards are embedded while this thread does something else. At most `size` of them are there at a time."""

    size: int

    def embed(self, job: EmbedJob, call: Call) -> EmbeddedShard | WrittenShard:
        """Embed a shard, and write it if whoever embeds can. Each is a step. This runs in a thread of its own.

        Raises ProcessDied if the process of the shard died, and otherwise as `embed_shard`.
        """

    def tick(self) -> None:
        """Take note that a second has passed without a result. What this raises ends the run."""


class Pool:
    """The places where the shards of a scan are embedded. Leaving a `with` block ends them, whatever they are doing.

    With an `embedder`, or if the whole run is little work, this thread embeds. Else the first place is beside this
    process, unless `grow` gives one at once. Later it may give one more, of workers, once they are worth their start.
    """

    def __init__(
        self,
        scan: Scan,
        call: Call,
        *,
        embedder: Embedder | None = None,
        grow: Callable[[Scan], Place | None] | None = None,
    ) -> None:
        self._scan, self._call, self._embedder, self._grow = scan, call, embedder, grow
        self._alone = embedder is not None or scan.run.settings.parallel.serial or not scan.run.any_workers
        self._places: list[Place] = []
        self._in_flight: dict[Future[EmbeddedShard | WrittenShard], tuple[Place, Shard]] = {}
        self._done: SimpleQueue[Future[EmbeddedShard | WrittenShard]] = SimpleQueue()
        self._died: list[tuple[Place, Shard]] = []
        self._results: deque[EmbeddedShard | WrittenShard] = deque()
        self._error: RagIndexError | None = None
        self._stack = ExitStack()
        self._suspects = ChildEmbedder()
        self._stack.callback(self._suspects.close)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def submit(self, shard: Shard) -> None:
        """Have a shard embedded. Call `ready` after each, which makes room for the next."""
        if self._scan.is_suspect(shard):
            with self._scan.run.stopwatch.stage("embed"):
                self._results.extend(self._embed_apart(shard))
        elif self._alone or shard.in_process:
            with self._scan.run.stopwatch.stage("embed"):
                self._results.append(self._embed_here(shard))
        else:
            self._grow_if_it_pays()
            place = max(self._places, key=lambda one: one.size - sum(at is one for at, _ in self._in_flight.values()))
            with self._scan.run.stopwatch.stage("submit"):
                self._in_flight[self._begin(place, shard)] = place, shard
            self._note_in_flight()

    def ready(self) -> Iterator[EmbeddedShard | WrittenShard]:
        """Yield what is embedded, in any order; wait for it while there is no room for another shard.

        If there is room, it is one shard at most: the caller needs time for each, and workers must not run out of work.
        When a shard fails, the others in flight are still yielded. Then the first error is raised.
        """
        yield from self._down_to(sum(place.size for place in self._places) - 1)
        if not self._done.empty():
            yield from self._next()

    def rest(self) -> Iterator[EmbeddedShard | WrittenShard]:
        """Wait for all that is in flight, and yield it. Raises as `ready`.

        Then shards whose process died are embedded again where they were, alone, in parts until the killer is found.
        """
        yield from self._down_to(0)
        died, self._died = self._died, []
        for place, shard in died:
            yield from quarantine([shard], partial(self._run_alone, place))

    def _down_to(self, most: int) -> Iterator[EmbeddedShard | WrittenShard]:
        while self._results:
            yield self._results.popleft()
        while len(self._in_flight) > (0 if self._error else max(0, most)):
            yield from self._next()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _next(self) -> Iterator[EmbeddedShard | WrittenShard]:
        """Yield the next result: nothing after a second, for an error, or for a shard whose process died."""
        if (future := self._wait()) is None:
            return
        place, shard = self._in_flight.pop(future)
        self._note_in_flight()
        try:
            found = future.result()
        except ProcessDied as error:
            (self._scan.run.logger or logger).warning("%s, and its documents are tried apart", error)
            self._died.append((place, shard))
        except RagIndexError as error:
            self._error = self._error or error
        else:
            yield found

    def _wait(self) -> Future[EmbeddedShard | WrittenShard] | None:
        """Return the next future that is done, or None after a second."""
        run = self._scan.run
        try:
            with run.stopwatch.stage("wait"):
                return self._done.get(timeout=TICK_SECONDS)
        except Empty:
            run.progress.tick()
            for place in self._places:
                place.tick()
            return None

    def _begin(self, place: Place, shard: Shard) -> Future[EmbeddedShard | WrittenShard]:
        """Embed a shard at a place, in a thread that waits for it. Its future also comes out of `_wait`."""
        future = in_thread(partial(place.embed, self._scan.job(shard), self._call), "embed")
        future.add_done_callback(self._done.put)
        return future

    def _run_alone(self, place: Place, shard: Shard) -> EmbeddedShard | WrittenShard:
        self._begin(place, shard)
        while (future := self._wait()) is None:
            pass
        return future.result()

    def _note_in_flight(self) -> None:
        run = self._scan.run
        run.progress.under_way(len(self._in_flight), run.metrics.workers)

    def _grow_if_it_pays(self) -> None:
        run = self._scan.run
        try:
            more = self._grow(self._scan) if self._grow else None
        except NoWorkers as error:  # late is better than not at all
            self._grow, more = None, None
            run.outcome.say(f"it was indexed in one process: {error}")
            run.progress.say("no workers, continuing in one process")
        if more is not None:
            self._grow = None
            self._places.append(more)
        elif not self._places:
            self._places.append(self._beside())

    def _beside(self) -> Place:
        """Return the place beside this thread: a child, or threads where servers embed and nothing here is busy."""
        self._scan.run.metrics.workers = 1
        if self._scan.run.settings.embedder.on_servers:
            turn, embedder = threading.Lock(), self._own_embedder()

            def embed(job: EmbedJob) -> EmbeddedShard:
                with turn:
                    return job.embed(embedder)

            return _Beside(embed)
        child = ChildEmbedder()
        self._stack.callback(child.close)
        return _Beside(child.embed)

    def _own_embedder(self) -> Embedder:
        if self._embedder is None:
            scan = self._scan
            self._embedder = open_embedder(scan.run.settings.embedder, expected=scan.identity)
            self._stack.callback(self._embedder.close)
        return self._embedder

    def _embed_here(self, shard: Shard) -> EmbeddedShard:
        embed = partial(self._scan.job(shard).embed, self._own_embedder())
        return self._call(embed_step(shard), embed)

    def _embed_apart(self, shard: Shard) -> Iterator[EmbeddedShard]:
        """Embed a shard in a child that does nothing else; yield it, or its parts if the child died."""
        scan = self._scan

        def run_alone(part: Shard) -> EmbeddedShard:
            return self._call(embed_step(part), partial(self._suspects.embed, scan.job(part)))

        return quarantine([shard], run_alone)


def embed_step(shard: Shard) -> Step:
    """Return the step that embeds a shard: it comes after the pages of its documents."""
    pages = tuple(f"fetch {shard.index} {page}" for page in shard.pages)
    return Step("embed", f"{shard.index} {shard.number}", after=pages)


def upsert_step(index: str, number: int) -> Step:
    """Return the step that writes the shard of this number."""
    label = f"{index} {number}"
    return Step("upsert", label, after=(f"embed {label}",))


class _Beside:
    """What embeds beside this thread, and is not watched: what dies ends the waiting for it."""

    size = 1 + AHEAD

    def __init__(self, embed: Callable[[EmbedJob], EmbeddedShard]) -> None:
        self._embed = embed

    def embed(self, job: EmbedJob, call: Call) -> EmbeddedShard:
        return call(embed_step(job.shard), partial(self._embed, job))

    def tick(self) -> None: ...


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

    def embed(self, job: EmbedJob) -> EmbeddedShard:
        """Embed a shard in the child. Raises ProcessDied if the child died; otherwise as `embed_shard`."""
        with self._lock:
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
            child, self._child = self._child, None
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
