"""The steps of a run without Prefect: the same functions and the same retries, in this process and
its children.

Each child embeds the shards that it is given, and this process writes them. If a child dies, its
shards raise ProcessDied, and `etl.window` tries their documents alone, in a child of its own
(`write_alone`).
"""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import attrs

from rag_index.core.machine import InlineExecutor, in_thread
from rag_index.core.machine.child import Process
from rag_index.core.machine.resources import memory_per_worker, worker_count
from rag_index.core.recovery import SERVICES, Outage, outages, with_retries
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.embed import NO_MEMORY, close_process_embedder, embed, process_died
from rag_index.etl.steps import Steps, sentence_of
from rag_index.quotes import described

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future
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
logger = logging.getLogger("rag_index.indexing")


class LocalSteps(Steps):
    """Carries out the steps in this process.

    This process embeds the first shard itself, and further ones are embedded by `workers` child
    processes. Each has an executor of its own, so that its death costs its own shards alone. With
    `serial` this process embeds all shards.

    Args:
        embed_here: Embeds a job in this process, by default as in any other.
        turn: A lock that is held while this process embeds, since its one embedder serves one
            caller at a time. Runs that share a process, as those of a watch do, give the same lock.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        embed_here: Callable[[EmbedJob], EmbeddedShard] = embed,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.wait = settings.run.wait
        self.recovery = settings.run.wait_for_recovery
        self._embed_here = embed_here
        self._turn = turn or nullcontext()
        child_count = 0 if settings.parallel.serial else worker_count(settings)
        self._is_serial = child_count == 0
        self.workers = max(1, child_count)
        self._executors: list[Executor] = [InlineExecutor()]
        self._under_way: Counter[Executor] = Counter()
        self._memory = memory_per_worker(settings.parallel, NO_MEMORY_LIMIT)
        self._alone = Process(self._memory, outages)
        SERVICES.include(self._sent)

    def call_for(
        self,
        wait: float,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        result = with_retries(partial(step, opened, *args, **kwargs), wait)
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
        # A second shard begins while the first one is under way: there is work for children.
        if self._under_way and not (self._is_serial or self.has_started_workers):
            self._start_children()
        executor = min(self._executors, key=lambda candidate: self._under_way[candidate])
        self._under_way[executor] += 1
        wait_for_embedded = self._embed(executor, job)

        def embed_and_upsert() -> WrittenShard:
            try:
                shard = wait_for_embedded()
            finally:
                self._under_way[executor] -= 1
            return self._upsert(shard, to)

        return in_thread(embed_and_upsert, "upsert")

    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        wait_for_embedded = self._embed(self._alone, job)
        return self._upsert(wait_for_embedded(), to)

    def warm_up(self, job: EmbedJob) -> None:
        if not self._is_serial:
            self._start_children()
        under_way = [self._embed(executor, job) for executor in self._executors]
        for wait_for_embedded in under_way:
            wait_for_embedded()

    def close(self) -> None:
        SERVICES.exclude(self._sent)
        with self._turn:
            for executor in (*self._executors, self._alone):
                executor.shutdown()
            close_process_embedder()

    def _sent(self) -> list[Outage]:
        """Return the outages that the children have sent last."""
        sent: list[Outage] = []
        for executor in (*self._executors, self._alone):
            if isinstance(executor, Process):
                sent += executor.last_state or ()
        return sent

    def _start_children(self) -> None:
        self._executors = [Process(self._memory, outages) for _ in range(self.workers)]
        self.has_started_workers = True

    def _embed(self, executor: Executor, job: EmbedJob) -> Callable[[], EmbeddedShard]:
        """Submit a shard. Return a function that waits for it, and submits it again after a
        transient error."""
        if isinstance(executor, Process):
            # Each child calls another host of an embedding service first: its home.
            home = self._executors.index(executor) if executor in self._executors else 0
            embed_job = partial(embed, job, home=home, limited=True)
        else:
            # This process embeds, and nothing else meanwhile.
            alone = attrs.evolve(job, workers=1)
            embed_job = partial(self._embed_in_turn, alone)
        submit = partial(executor.submit, embed_job)
        futures = [submit()]

        def wait_for_embedded() -> EmbeddedShard:
            # Empty: the shard is submitted again after a transient error.
            future = futures.pop() if futures else submit()
            return embedded_by(future, job)

        return partial(with_retries, wait_for_embedded, self.recovery)

    def _embed_in_turn(self, job: EmbedJob) -> EmbeddedShard:
        with self._turn:
            return self._embed_here(job)

    def _upsert(self, shard: EmbeddedShard, to: Destination) -> WrittenShard:
        with to.turn():
            return with_retries(partial(to.write, shard), self.recovery)


def embedded_by(future: Future[EmbeddedShard], job: EmbedJob) -> EmbeddedShard:
    """Return the shard that an executor embedded. Raises ProcessDied if its process died or had no
    memory left, and otherwise an error of ours."""
    try:
        return future.result()
    except BrokenExecutor as error:
        raise process_died(job.shard, "the process that embeds died") from error
    except MemoryError as error:
        raise process_died(job.shard, NO_MEMORY) from error
    except RagIndexError:
        raise
    except Exception as error:
        # A fault of a plug-in, such as a TypeError: the run ends with a sentence about it.
        raise TerminalError(f"embedding failed: {described(error)}") from error


def _log(opened: Opened, result: object) -> None:
    sentence = sentence_of(result)
    if sentence:
        logger.info("%s: %s", opened.index.name, sentence)
