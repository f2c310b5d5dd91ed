"""The steps of a run without Prefect: the same policies around the same calls."""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import attrs

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import identify
from rag_index.components.stores import open_reader
from rag_index.core.machine import Policy, in_thread, with_retries
from rag_index.core.machine.executors import Here, Process
from rag_index.core.machine.resources import memory_per_worker, worker_count
from rag_index.core.reports.progress import ProcessState
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.deletes import count_parts_of, delete_gone
from rag_index.etl.embed import NO_MEMORY, close_process_embedder, embed, process_died, process_state
from rag_index.etl.erase import erase_after
from rag_index.etl.publish import build_search_index, publish
from rag_index.etl.steps import DELETE, EMBED, ERASE, FETCH, PUBLISH, SEARCH_INDEX, UPSERT, Steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import Source, SourcePage
    from rag_index.core.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.core.reports.record import RunRecord
    from rag_index.core.settings import EmbedderSettings, Settings
    from rag_index.etl.commit import Destination
    from rag_index.etl.deletes import Deleted
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan

logger = logging.getLogger("rag_index.indexing")


class Plainly(Steps):
    """Carries out the steps in this process. It embeds the first shard here, and further ones in `workers` child
    processes, one executor each, so that a death costs its own shards alone. With `serial` it embeds all here."""

    def __init__(self, settings: Settings, *, embed_here: Callable[[EmbedJob], EmbeddedShard] = embed) -> None:
        """`embed_here` embeds in this process, by default as in any other."""
        self._embed_here = embed_here
        self.waits = settings.run.wait > 0
        count = 0 if settings.parallel.serial else worker_count(settings)
        self._here = not count
        self.workers = max(1, count)
        self._shards = 0
        self._executors: list[Executor] = [Here()]
        self._under_way: dict[Executor, int] = {}
        self._memory = memory_per_worker(settings.parallel, 0)  # 0: no limit
        self._alone = Process(self._memory, process_state)

    def check_source(self, source: Source, policy: Policy) -> None:
        with_retries(source.check, policy)

    def check_store(self, opened: Opened, policy: Policy) -> None:
        with_retries(partial(_ask_store, opened, waits=self.waits), policy)

    def check_parts(self, opened: Opened, policy: Policy) -> dict[str, int]:
        return with_retries(partial(count_parts_of, opened), policy)

    def check_context(self, opened: Opened, policy: Policy) -> Chunker:
        return with_retries(partial(open_chunker, opened.settings, opened.index), policy)

    def check_embedder(self, embedder: EmbedderSettings, policy: Policy) -> EmbedderIdentity:
        return with_retries(partial(identify, embedder), policy)

    def fetch(self, source: Source, index: str, number: int, cursor: object, rows: int) -> SourcePage:
        return with_retries(partial(source.page, cursor, rows), FETCH)

    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        if self._shards and not (self._here or self.started):
            self._start_children()
        self._shards += 1
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

    def delete_gone(self, opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
        deleted = with_retries(partial(delete_gone, opened, scan, record), DELETE)
        record.log.info("%s: %s", opened.index.name, deleted.sentence)
        return deleted

    def publish(self, opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None, *, all_deleted: bool) -> None:
        said = with_retries(partial(publish, opened, scan, record, hooks, all_deleted=all_deleted), PUBLISH)
        record.log.info("%s: %s", opened.index.name, said)

    def erase(self, opened: Opened, record: RunRecord) -> None:
        said = with_retries(partial(erase_after, opened, record), ERASE)
        record.log.info("%s: %s", opened.index.name, said)

    def build_search_index(self, opened: Opened, name: str, record: RunRecord) -> None:
        said = with_retries(partial(build_search_index, opened, name, record), SEARCH_INDEX)
        record.log.info("%s: %s", opened.index.name, said)

    def warm_up(self, job: EmbedJob) -> None:
        if not self._here:
            self._start_children()
        for started in [self._embed(executor, job) for executor in self._executors]:
            started()

    def states(self) -> dict[str, ProcessState]:
        apart = [one for one in (*self._executors, self._alone) if isinstance(one, Process)]
        return {f"child {number}": one.told or ProcessState() for number, one in enumerate(apart)}

    def close(self) -> None:
        for executor in (*self._executors, self._alone):
            executor.shutdown()
        close_process_embedder()

    def _start_children(self) -> None:
        self._executors = [Process(self._memory, process_state) for _ in range(self.workers)]
        self.started = True

    def _embed(self, executor: Executor, job: EmbedJob) -> Callable[[], EmbeddedShard]:
        """Submit a shard, and return a function that waits for it and submits it again after a transient error."""
        apart = isinstance(executor, Process)
        job = job if apart else attrs.evolve(job, workers=1)  # nothing else embeds meanwhile
        home = self._executors.index(executor) if executor in self._executors else 0  # they spread over hosts
        call = partial(embed, job, home=home, limited=True) if apart else partial(self._embed_here, job)
        submit = partial(executor.submit, call)
        futures = [submit()]
        return partial(with_retries, lambda: answer(futures.pop() if futures else submit(), job), EMBED)


def _ask_store(opened: Opened, *, waits: bool) -> None:
    """Ask the store for its collections. The store of a run waits some seconds for a server by itself."""
    if waits or opened.store.embedded:
        opened.store.collections()
        return
    with closing(open_reader(opened.settings.store, patience=0.0)) as store:
        store.aliases()


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
