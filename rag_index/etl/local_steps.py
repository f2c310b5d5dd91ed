"""The steps of a run without Prefect: the same functions and the same retries, in this process and
its children.

Each child embeds the shards that it is given, and this process writes them. If a child dies, its
shards raise ProcessDied, and `etl.window` tries their documents alone, in a child of its own
(`write_alone`).

Where a shard is embedded:

    serial, or the first shard of a model in the process    here, before `write` returns
    a model on servers and text, until a child is ready     here, two at a time, in threads
    otherwise                                               in the child with the fewest shards
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import BrokenExecutor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import attrs

from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.core.machine import InlineExecutor, in_thread
from rag_index.core.machine.child import Process
from rag_index.core.machine.resources import memory_per_worker, worker_count
from rag_index.core.recovery import SERVICES, Outage, outages, retry_step
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.embed import NO_MEMORY, close_process_embedder, embed, process_died_error
from rag_index.etl.steps import Steps, sentence_of
from rag_index.quotes import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from typing import Any

    from rag_index.core.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.core.settings import Settings
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.upsert import Destination

P = ParamSpec("P")
T = TypeVar("T")
NO_MEMORY_LIMIT = 0
"""Bytes; 0 means that the settings name no other limit for a worker's memory."""
CALLING_SERVERS = 2
"""Shards that a process embeds at a time if the model is on servers: while one is chunked or its
last texts are confirmed, texts of the other are under way. benchmarks/feeding.py measures it."""
PLACES_OF_A_CHILD = 2
"""Shards that a child has at a time. With a model in the process the second one is for later, so
that the child does not wait for this process."""
logger = logging.getLogger("rag_index.indexing")


class LocalSteps(Steps):
    """Carries out the steps in this process.

    Shards are embedded by `workers` child processes, and by this one until a child is ready. Each
    child has an executor of its own, so that its death costs its own shards alone. With `serial`
    this process embeds all shards.

    Args:
        embed_in_process: Embeds a job in this process, by default as in any other.
        turn: A lock that is held while this process embeds, since its one embedder serves one
            caller at a time. Runs that share a process, as those of a watch do, give the same lock.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        embed_in_process: Callable[[EmbedJob], EmbeddedShard] = embed,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.wait = settings.run.wait
        self.recovery = settings.run.wait_for_recovery
        self._embed_in_process = embed_in_process
        self._turn = turn or nullcontext()
        child_count = 0 if settings.parallel.serial else worker_count(settings)
        self._is_serial = child_count == 0
        self.workers = max(1, child_count)
        self._on_servers = settings.embedder.on_servers
        self._inline = InlineExecutor()
        self._children: list[Process] = []
        self._places = Places()
        self._has_shards = False
        """Whether a shard was submitted."""
        self._memory = memory_per_worker(settings.parallel, NO_MEMORY_LIMIT)
        self._alone = Process(self._memory, outages)
        if self._on_servers and not self._is_serial:
            self._places.add(self._inline, CALLING_SERVERS)
        SERVICES.include(self._sent)

    def call_for(
        self,
        wait: float,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        result = retry_step(partial(step, opened, *args, **kwargs), wait)
        _log(opened, result)
        return result

    def call_once(
        self,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        result = step(opened, *args, **kwargs)
        _log(opened, result)
        return result

    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        is_first = not self._has_shards
        self._has_shards = True
        # A second shard: there is work for children.
        if not is_first:
            self._start_children()
        overlaps = self._may_overlap(job)
        if not overlaps:
            self._places.remove(self._inline)
        if self._is_serial or (is_first and not overlaps):
            wait_for_embedded = self._embed_on(self._inline, job)
        else:
            wait_for_embedded = self._embed_at_a_place(job)

        def embed_and_upsert() -> WrittenShard:
            return self._upsert(wait_for_embedded(), to)

        return in_thread(embed_and_upsert, "upsert")

    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        wait_for_embedded = self._embed_on(self._alone, job)
        return self._upsert(wait_for_embedded(), to)

    def warm_up(self, job: EmbedJob) -> None:
        self._start_children()
        embedding: list[Executor] = [*self._children] or [self._inline]
        under_way = [self._embed_on(executor, job) for executor in embedding]
        for wait_for_embedded in under_way:
            wait_for_embedded()

    def close(self) -> None:
        SERVICES.exclude(self._sent)
        self._places.close()
        with self._turn:
            for child in (*self._children, self._alone):
                child.shutdown()
            close_process_embedder()

    def _sent(self) -> list[Outage]:
        """Return the outages that the children have sent last."""
        sent: list[Outage] = []
        for child in (*self._children, self._alone):
            sent += child.last_state or ()
        return sent

    # Where a shard is embedded

    def _start_children(self) -> None:
        """Start the children, once. Each gets shards as soon as it has imported what it needs."""
        if self._is_serial or self.has_started_workers:
            return
        self.has_started_workers = True
        at_a_time = CALLING_SERVERS if self._on_servers else 1
        self._children = [Process(self._memory, outages, at_a_time) for _ in range(self.workers)]
        for child in self._children:
            # A child that does not start gets places, too: its first shards say why.
            ready = child.submit(get_ready)
            ready.add_done_callback(partial(self._add_places_of, child))

    def _add_places_of(self, child: Process, ready: Future[None]) -> None:
        # From the first child on this process reads, compares and writes only.
        self._places.remove(self._inline)
        self._places.add(child, PLACES_OF_A_CHILD)

    def _may_overlap(self, job: EmbedJob) -> bool:
        """Return whether this process may embed a job while it reads and writes, until a child is
        ready.

        It only sends requests then. A model, or a parser or plug-in that may crash on a text, runs
        in this process for the first shard alone, and nothing else meanwhile.
        """
        return self._on_servers and isinstance(job.chunker, TextChunker)

    def _embed_at_a_place(self, job: EmbedJob) -> Callable[[], EmbeddedShard]:
        """Return a function that embeds a shard where there is room first. After a transient error
        it does so again, perhaps elsewhere."""

        def embed_at_a_place() -> EmbeddedShard:
            with self._places.taken() as executor:
                return embedded_by(self._submit(executor, job), job)

        return partial(retry_step, embed_at_a_place, self.recovery)

    def _embed_on(self, executor: Executor, job: EmbedJob) -> Callable[[], EmbeddedShard]:
        """Submit a shard. Return a function that waits for it, and submits it again after a
        transient error."""
        futures = [self._submit(executor, job)]

        def wait_for_embedded() -> EmbeddedShard:
            # Empty: the shard is submitted again after a transient error.
            future = futures.pop() if futures else self._submit(executor, job)
            return embedded_by(future, job)

        return partial(retry_step, wait_for_embedded, self.recovery)

    def _submit(self, executor: Executor, job: EmbedJob) -> Future[EmbeddedShard]:
        """Embed a job in a child, or in this process, which then returns only once it is done."""
        if isinstance(executor, Process):
            # Each child calls another host of an embedding service first: its home.
            home = self._children.index(executor) if executor in self._children else 0
            return executor.submit(embed, job, home=home, limited=True)
        # The other processes do not embed yet.
        alone = attrs.evolve(job, workers=1)
        return executor.submit(self._embed_in_turn, alone)

    def _embed_in_turn(self, job: EmbedJob) -> EmbeddedShard:
        with self._turn:
            return self._embed_in_process(job)

    def _upsert(self, shard: EmbeddedShard, to: Destination) -> WrittenShard:
        with to.turn():
            return retry_step(partial(to.write, shard), self.recovery)


class Places:
    """The places at which shards are embedded: which executors, and how many shards each takes at a
    time. Thread-safe."""

    def __init__(self) -> None:
        self._free: Counter[Executor] = Counter()
        self._in_use: Counter[Executor] = Counter()
        self._removed: set[Executor] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def add(self, executor: Executor, places: int) -> None:
        """Let an executor take so many shards more at a time."""
        with self._changed:
            self._free[executor] += places
            self._changed.notify_all()

    def remove(self, executor: Executor) -> None:
        """Let an executor take no more shards."""
        with self._changed:
            self._removed.add(executor)
            del self._free[executor]

    def close(self) -> None:
        """End whoever waits for a place, by BrokenExecutor."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @contextmanager
    def taken(self) -> Iterator[Executor]:
        """Wait for a place, at the executor that embeds the fewest shards. It is free again after
        the block."""
        executor = self._take()
        try:
            yield executor
        finally:
            self._give_back(executor)

    def _take(self) -> Executor:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._free.total() > 0)
            if self._is_closed:
                raise BrokenExecutor("the run has ended")
            candidates = [one for one, places in self._free.items() if places > 0]
            executor = min(candidates, key=lambda one: self._in_use[one])
            self._free[executor] -= 1
            self._in_use[executor] += 1
            return executor

    def _give_back(self, executor: Executor) -> None:
        with self._changed:
            self._in_use[executor] -= 1
            if executor not in self._removed:
                self._free[executor] += 1
                self._changed.notify()


def get_ready() -> None:
    """Import what embedding needs, so that the first shard of a child does not wait for it."""
    import rag_index.components.embedders.servers  # noqa: F401


def embedded_by(future: Future[EmbeddedShard], job: EmbedJob) -> EmbeddedShard:
    """Return the shard that an executor embedded. Raises ProcessDied if its process died or had no
    memory left, and otherwise an error of ours."""
    try:
        return future.result()
    except BrokenExecutor as error:
        raise process_died_error(job.shard, "the process that embeds died") from error
    except MemoryError as error:
        raise process_died_error(job.shard, NO_MEMORY) from error
    except RagIndexError:
        raise
    except Exception as error:
        # A fault of a plug-in, such as a TypeError: the run ends with a sentence about it.
        raise TerminalError(f"embedding failed: {described(error)}") from error


def _log(opened: Opened, result: object) -> None:
    sentence = sentence_of(result)
    if sentence:
        logger.info("%s: %s", opened.index.name, sentence)
