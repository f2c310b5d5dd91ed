"""The steps of a run, of which `IndexRun.execute` knows the order alone: in this process, or wherever else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rag_index.embedders import Embedder, identify, open_embedder
from rag_index.indexing.commit import write_shard
from rag_index.indexing.embed import ChildEmbedder, embed_in_child
from rag_index.indexing.step_retries import RETRY_SECONDS, current_checks, patience, with_retries
from rag_index.settings.index import SQL
from rag_index.sources.pages import PAGE_CHARS

if TYPE_CHECKING:
    from rag_index.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.scan import Scan
    from rag_index.sources import SourcePage

T = TypeVar("T")
Ask = Callable[[str, Callable[[], Any], int], Any]
"""Asks a service, given its name, the question, and how often it is asked again at least; returns the answer."""
FIRST_ROWS = 2000
ROW_CHARS = 500
logger = logging.getLogger("rag_index.indexing")


class Steps(Protocol):
    """How the steps of a run are carried out. Each raises what it does, after retries."""

    def begin(self, run: IndexRun) -> Scan | None:
        """Check the services that the run needs, wait for those that are down, and begin the scan.

        Returns None if there is nothing to do.
        """

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the page of the source after the cursor."""

    def write(self, scan: Scan, shards: Iterable[Shard]) -> Iterator[WrittenShard]:
        """Embed and upsert the shards, and yield them in any order once their points are durable.

        What is under way when the shards raise is yielded before.
        """

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has."""

    def publish(self, scan: Scan) -> None:
        """Verify the collection, let readers see a rebuilt one, and build its search index if that pays."""


def read_pages(run: IndexRun, steps: Steps) -> Iterator[SourcePage]:
    """Yield the pages of a run's source.

    They grow from a small first one, so that work begins soon, to about `PAGE_CHARS`, so that short texts do not mean
    many small queries.
    """
    cursor, rows, max_rows = None, FIRST_ROWS, run.settings.source.page_rows
    while True:
        with run.stopwatch.stage("fetch"):
            page = steps.fetch(run, cursor, min(rows, max_rows))
        yield page
        cursor = page.cursor
        if cursor is None:
            return
        mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
        rows = max(1, min(rows * 4, max_rows, int(PAGE_CHARS / mean)))


def begin_run(run: IndexRun, ask: Ask, *, workers: Callable[[], int] | None = None) -> Scan:
    """Check the services of a run by asking each of them, as `Steps.begin`, and begin its scan.

    `workers` returns how many workers embed; by default as `IndexRun.own_workers`.
    """
    index, checks = run.index, current_checks()
    checks.check("source" if index.kind == SQL else ("source", index.name), partial(ask, "source", run.source.check, 1))
    checks.check("store", partial(ask, "store", run.store.collections, 0))  # a store waits some seconds by itself
    if index.parts:
        ask("source", run.count_parts, 1)
    count = run.own_workers() if workers is None else workers()
    if index.context is None:
        chunker = run.open_chunker()
    else:
        service = ("context", index.context.model, *(index.context.hosts or []))
        chunker = checks.check(service, partial(ask, "context", run.open_chunker, 1))
    embedder = run.choose_embedder()
    asked: Hashable = ("embedder", embedder.model) if embedder.kind == "local" else "embedder"
    identity = checks.remember(asked, partial(ask, "embedder", partial(identify, embedder), 1))
    return run.begin(identity, chunker, workers=count)


class Here:
    """Steps in this process. An embedder that is given must be of the identity of the scan; else one is opened.

    Shards with suspects are embedded in a child process, which may die. If the store is a server, the next shard is
    embedded while it writes the last one.
    """

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._given = embedder

    def begin(self, run: IndexRun) -> Scan | None:
        """Check the services, wait `[run] wait` seconds for those that are down, and begin the scan."""

        def ask(_service: str, call: Callable[[], T], min_retries: int) -> T:
            retries, seconds = patience(run.settings.run.wait, min_retries=min_retries)
            return with_retries(call, retries=retries, delay=RETRY_SECONDS, within=seconds)

        return begin_run(run, ask)

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the page of the source after the cursor."""
        return with_retries(partial(run.source.page, cursor, rows))

    def write(self, scan: Scan, shards: Iterable[Shard]) -> Iterator[WrittenShard]:
        """Embed and upsert the shards, one after another, and yield each once its points are durable."""
        with ExitStack() as stack:
            writer = _Writer(scan)
            child = stack.enter_context(closing(ChildEmbedder(scan.run.stopwatch)))
            embedder = self._given
            try:
                for shard in shards:
                    scan.mark_pending(shard)
                    if self.may_end_this_process(scan, shard):
                        parts: Iterable[EmbeddedShard] = embed_in_child(scan, shard, child)
                    else:
                        if embedder is None:
                            embedder = open_embedder(scan.run.settings.embedder, expected=scan.identity)
                            stack.callback(embedder.close)
                        job = scan.job(shard)
                        with scan.run.stopwatch.stage("embed"):  # the embedder itself waits for servers
                            parts = [with_retries(partial(job.embed, embedder), retries=1)]
                    for part in parts:
                        yield from writer.put(part)
            except Exception:  # for example from the source: what is under way is still worth committing
                yield from writer.finish()
                raise
            yield from writer.finish()

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has."""
        with_retries(scan.delete_gone)

    def publish(self, scan: Scan) -> None:
        """Verify the collection, let readers see a rebuilt one, and build its search index if that pays."""
        with_retries(scan.publish)
        if scan.search_index_due:
            scan.build_search_index(logger)

    def may_end_this_process(self, scan: Scan, shard: Shard) -> bool:
        """Return whether a child process has to embed a shard, because embedding it may end the process."""
        return scan.is_suspect(shard)


class _Writer:
    """Writes embedded shards to the store of a scan: to a server in a thread, one at a time."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._under_way: Future[WrittenShard] | None = None

    def put(self, shard: EmbeddedShard) -> Iterator[WrittenShard]:
        """Write a shard, and yield what is written since the last call."""
        run = self._scan.run
        epoch = None if run.store.embedded else self._scan.epoch
        write = partial(with_retries, partial(write_shard, run.store, self._scan.collection.name, shard, epoch=epoch))
        if run.store.embedded:
            with run.stopwatch.stage("upsert"):
                written = write()
            yield written
            return
        yield from self.finish()
        future: Future[WrittenShard] = Future()
        self._under_way = future

        def settle() -> None:
            try:
                future.set_result(write())
            except BaseException as error:  # noqa: BLE001 - whoever asks the future raises it
                future.set_exception(error)

        # a daemon: a run that ends in between, by Ctrl-C for example, waits for no server
        threading.Thread(target=settle, name="upsert", daemon=True).start()

    def finish(self) -> Iterator[WrittenShard]:
        """Yield what is under way, if anything is, once it is written."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            with self._scan.run.stopwatch.stage("upsert"):
                written = under_way.result()
            yield written
