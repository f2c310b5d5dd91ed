"""The steps of a run without Prefect: the same policies around the same calls."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import BrokenExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import attrs

from rag_index.components.chunking import open_chunker
from rag_index.components.stores import open_reader
from rag_index.core.machine import Here, Process, in_thread
from rag_index.core.machine.resources import memory_per_worker, worker_count
from rag_index.core.recovery import SERVICES, Outage, outages, with_retries
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.collection import identify_for
from rag_index.etl.deletes import count_parts_of, delete_gone
from rag_index.etl.embed import NO_MEMORY, close_process_embedder, embed, process_died
from rag_index.etl.erase import erase_after
from rag_index.etl.publish import build_search_index, publish
from rag_index.etl.steps import Steps
from rag_index.quotes import described

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Settings
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
        self.wait, self._recovery = settings.run.wait, settings.run.wait_for_recovery
        count = 0 if settings.parallel.serial else worker_count(settings)
        self._here = not count
        self.workers = max(1, count)
        self._executors: list[Executor] = [Here()]
        self._under_way: Counter[Executor] = Counter()
        self._memory = memory_per_worker(settings.parallel, 0)  # 0: no limit
        self._alone = Process(self._memory, outages)
        SERVICES.include(self._sent)

    def check_source(self, opened: Opened, wait: float) -> None:
        with_retries(opened.source.check, wait)

    def check_store(self, opened: Opened, wait: float) -> None:
        with_retries(partial(ask_store, opened), wait)

    def check_parts(self, opened: Opened, wait: float) -> dict[str, int]:
        return with_retries(partial(count_parts_of, opened), wait)

    def check_context(self, opened: Opened, wait: float) -> Chunker:
        return with_retries(partial(open_chunker, opened.settings, opened.index), wait)

    def check_embedder(self, opened: Opened, wait: float) -> EmbedderIdentity:
        return with_retries(partial(identify_for, opened), wait)

    def fetch(self, opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
        return with_retries(partial(opened.source.page, cursor, rows), self._recovery)

    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        if self._under_way and not (self._here or self.started):  # it is not the first shard
            self._start_children()
        executor = min(self._executors, key=lambda one: self._under_way[one])
        self._under_way[executor] += 1
        embedded = self._embed(executor, job)

        def done() -> WrittenShard:
            try:
                shard = embedded()
            finally:
                self._under_way[executor] -= 1
            return self._upsert(shard, to)

        return in_thread(done, "upsert")

    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        return self._upsert(self._embed(self._alone, job)(), to)

    def write_words(self, opened: Opened, write: Callable[[], str]) -> None:
        logger.info("%s: %s", opened.index.name, write())

    def delete_gone(self, opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
        deleted = with_retries(partial(delete_gone, opened, scan, record), self._recovery)
        record.log.info("%s: %s", opened.index.name, deleted.sentence)
        return deleted

    def publish(self, opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None, *, all_deleted: bool) -> None:
        said = with_retries(partial(publish, opened, scan, record, hooks, all_deleted=all_deleted), self._recovery)
        record.log.info("%s: %s", opened.index.name, said)

    def erase(self, opened: Opened, record: RunRecord) -> None:
        said = with_retries(partial(erase_after, opened, record), self._recovery)
        record.log.info("%s: %s", opened.index.name, said)

    def build_search_index(self, opened: Opened, name: str, record: RunRecord) -> None:
        said = build_search_index(opened, name, record)
        record.log.info("%s: %s", opened.index.name, said)

    def warm_up(self, job: EmbedJob) -> None:
        if not self._here:
            self._start_children()
        for started in [self._embed(executor, job) for executor in self._executors]:
            started()

    def close(self) -> None:
        SERVICES.exclude(self._sent)
        for executor in (*self._executors, self._alone):
            executor.shutdown()
        close_process_embedder()

    def _sent(self) -> list[Outage]:
        """Return the outages that the children have sent last."""
        children = [one for one in (*self._executors, self._alone) if isinstance(one, Process)]
        return [outage for child in children for outage in child.told or ()]

    def _start_children(self) -> None:
        self._executors = [Process(self._memory, outages) for _ in range(self.workers)]
        self.started = True

    def _embed(self, executor: Executor, job: EmbedJob) -> Callable[[], EmbeddedShard]:
        """Submit a shard, and return a function that waits for it and submits it again after a transient error."""
        apart = isinstance(executor, Process)
        job = job if apart else attrs.evolve(job, workers=1)  # nothing else embeds meanwhile
        home = self._executors.index(executor) if executor in self._executors else 0  # they spread over hosts
        call = partial(embed, job, home=home, limited=True) if apart else partial(self._embed_here, job)
        submit = partial(executor.submit, call)
        futures = [submit()]
        return partial(with_retries, lambda: answer(futures.pop() if futures else submit(), job), self._recovery)

    def _upsert(self, shard: EmbeddedShard, to: Destination) -> WrittenShard:
        with to.turn():
            return with_retries(partial(to.write, shard), self._recovery)


def ask_store(opened: Opened) -> None:
    """Ask the store for its collections, once: the step that does it waits for a server that is away."""
    if opened.store.embedded:
        opened.store.collections()
        return
    with closing(open_reader(opened.settings.store, patience=0.0)) as store:
        store.aliases()


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
        raise TerminalError(f"embedding failed: {described(error)}") from error
