"""The steps of a run without Prefect: the same policies around the same calls."""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.core.machine import Policy, in_thread, with_retries
from rag_index.core.machine.executors import Beside, Here, Process
from rag_index.core.machine.resources import memory_per_worker, worker_count
from rag_index.core.reports.progress import ProcessState
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.embed import NO_MEMORY, close_process_embedder, embed, process_died, process_state
from rag_index.etl.steps import BUSY, EMBED, ENDINGS, FETCH, UPSERT, Ending, Steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.core.settings import Settings
    from rag_index.etl.commit import Destination
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.run import IndexRun

T = TypeVar("T")
logger = logging.getLogger("rag_index.indexing")
SHARDS_AHEAD = 2
"""Shards that wait for a process, or are written, while it embeds one."""


class Plainly(Steps):
    """Carries out the steps in this process, and embeds in children of it. A model in the process gets `workers`
    children, one executor each, so that a death costs its own shards alone. Servers are asked by threads of this
    process, or by a child if a person asks for a number of them; more children begin once those there are have no time
    left. Little work is embedded in the calling thread, and so is all with `serial`."""

    def __init__(self, settings: Settings, *, embed_here: Callable[[EmbedJob], EmbeddedShard] = embed) -> None:
        """`embed_here` embeds in this process, by default as in any other."""
        self._embed_here = embed_here
        self.waits = settings.run.wait > 0
        self._here = settings.parallel.serial
        self._on_servers = settings.embedder.on_servers
        self._beside = self._on_servers and settings.parallel.workers == "auto"
        self._most = 0 if self._here else worker_count(settings)
        if not self._here:
            self._here = not (self._most or self._beside)
            self.workers = 1 if self._on_servers else max(1, self._most)
        self._executors: list[Executor] = [Here()]
        self._under_way: dict[Executor, int] = {}
        self._memory = memory_per_worker(settings.parallel, 0)  # 0: no limit
        self._alone = Process(self._memory, process_state)

    def check(self, service: str, ask: Callable[[], T], policy: Policy) -> T:
        return with_retries(ask, policy)

    def fetch(self, run: IndexRun, number: int, cursor: object, rows: int) -> SourcePage:
        return with_retries(partial(run.source.page, cursor, rows), FETCH)

    def prepare(self) -> None:
        self.start()
        for executor in self._executors:
            if isinstance(executor, Process):
                executor.submit(_nothing)

    def warm_up(self, job: EmbedJob) -> None:
        self.start()
        for started in [self._embed(executor, job) for executor in self._executors]:
            started()

    def start(self) -> str:
        if not (self.started or self._here):
            self._executors = [Beside()] if self._beside else self._processes(self.workers)
            self._set_size()
        self.started = True
        return ""

    def observe(self, written: WrittenShard) -> None:
        loaded = self.started and written.stats.process_load >= BUSY
        if loaded and self._on_servers and self.workers < self._most:
            self._executors += self._processes(min(self.workers, self._most - self.workers))
            self.workers = len(self._executors)
            self._set_size()

    def states(self) -> dict[str, ProcessState]:
        apart = [one for one in (*self._executors, self._alone) if isinstance(one, Process)]
        return {f"child {number}": one.told or ProcessState() for number, one in enumerate(apart)}

    def _processes(self, count: int) -> list[Executor]:
        return [Process(self._memory, process_state) for _ in range(count)]

    def _set_size(self) -> None:
        self.size = (1 + SHARDS_AHEAD) * len(self._executors) + self._on_servers  # servers embed two shards at a time

    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        executor = min(self._executors, key=lambda one: self._under_way.get(one, 0))
        self._under_way[executor] = self._under_way.get(executor, 0) + 1
        embedded = self._embed(executor, job)

        def done() -> WrittenShard:
            try:
                shard = embedded()
            finally:
                self._under_way[executor] -= 1
            return _upsert(shard, to)

        return in_thread(done, "upsert")

    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        return _upsert(self._embed(self._alone, job)(), to)

    def end(self, ending: Ending, run: IndexRun, do: Callable[[IndexRun], str]) -> None:
        if said := with_retries(partial(do, run), ENDINGS[ending]):
            (run.logger or logger).info("%s: %s", run.index.name, said)

    def close(self) -> None:
        for executor in (*self._executors, self._alone):
            executor.shutdown()
        close_process_embedder()

    def _embed(self, executor: Executor, job: EmbedJob) -> Callable[[], EmbeddedShard]:
        """Submit a shard, and return a function that waits for it and submits it again after a transient error."""
        apart = isinstance(executor, Process)
        job = replace(job, workers=1) if self._on_servers else job  # each of few processes asks all hosts
        home = self._executors.index(executor) if executor in self._executors else 0  # they spread over hosts
        call = partial(embed, job, home=home, limited=True) if apart else partial(self._embed_here, job)
        submit = partial(executor.submit, call)
        futures = [submit()]
        return partial(with_retries, lambda: answer(futures.pop() if futures else submit(), job), EMBED)


def _upsert(shard: EmbeddedShard, to: Destination) -> WrittenShard:
    with to.turn():
        return with_retries(partial(to.write, shard), UPSERT)


def answer(embedded: Future[EmbeddedShard], job: EmbedJob) -> EmbeddedShard:
    """Return what an executor embedded. Raises ProcessDied if its process died, and otherwise an error of ours."""
    try:
        return embedded.result()
    except BrokenExecutor as error:
        raise process_died(job.shard, "the process that embeds died") from error
    except MemoryError as error:
        raise process_died(job.shard, NO_MEMORY) from error
    except RagIndexError:
        raise
    except Exception as error:  # whatever it is, the run has to end with a sentence
        raise TerminalError(f"embedding failed: {type(error).__name__}: {error}") from error


def _nothing(*_: Any) -> None:
    """Let a process start, and import what embeds."""
