"""A run of one index, as the diagram of the README draws it. What is written, is written in this order.

    read > compare > shard > embed > upsert > commit, page by page;  then delete > verify > publish

`execute` is the run, and `index_pages` its first line. They push: each step is given what the one before made. How a
step is called (plainly, or as a task of Prefect) is given to them, and what gives the `Pool` its workers.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import ExitStack, nullcontext
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.chunking import open_chunker
from rag_index.documents.batches import EmbeddedShard, Shard, ShardStats, WrittenShard
from rag_index.embedders import Embedder, identify, open_embedder, prefix_warning
from rag_index.errors import (
    IndexLocked,
    LedgerError,
    LedgerUnavailable,
    NoWorkers,
    ProcessDied,
    RagIndexError,
    StoreError,
    StoreUnavailable,
    TerminalError,
)
from rag_index.indexing.commit import write_shard
from rag_index.indexing.embed import ChildEmbedder, EmbedJob, quarantine
from rag_index.indexing.scan import Scan
from rag_index.indexing.step_retries import Call, Step, call_plainly, current_checks, patience, with_retries
from rag_index.ledger.runs import BATCH
from rag_index.machine import in_thread
from rag_index.machine.resources import worker_count
from rag_index.reports.progress import watched_outages
from rag_index.settings.index import SQL
from rag_index.sources.pages import PAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from rag_index.indexing.run import IndexRun
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.sources import SourcePage

FIRST_ROWS = 2000
ROW_CHARS = 500
TICK_SECONDS = 1.0
AHEAD = 2
"""Shards that wait in the pipe of the child that embeds, so that it has the next one at once."""
NOT_WRITABLE = (StoreError, StoreUnavailable, LedgerError, LedgerUnavailable, IndexLocked)
"""Errors after which nothing more is written. After all others, what is embedded already is still worth committing."""
logger = logging.getLogger("rag_index.indexing")


def execute(
    run: IndexRun,
    documents: AllDocuments | None = None,
    *,
    call: Call = call_plainly,
    grow: Callable[[Scan], Place | None] | None = None,
) -> IndexOutcome:
    """Bring documents of an index up to date, all by default, and return the outcome, which is recorded.

    An error of ours ends in the outcome. Every other is raised after it was recorded, such as KeyboardInterrupt or one
    of Prefect's. `grow` is asked for workers: see `Pool`.
    """
    documents = documents or AllDocuments()
    try:
        with watched_outages(run.progress, run.logger) if run.logger else nullcontext():
            scan = documents.begin(run, call)
            if scan is not None:
                with Pool(scan, call, embedder=documents.embedder, grow=grow) as pool:
                    written = index_pages(scan, documents.pages(run, call), pool, call)
                call(Step("delete gone", after=written), partial(documents.delete, scan))
                call(Step("verify and publish", after=("delete gone",)), partial(documents.publish, scan))
                # once a night, not with each batch of a watch
                if not run.run_id.startswith(BATCH) and scan.erasure_due:
                    call(Step("erase", after=("verify and publish",)), scan.erase)
    except RagIndexError as error:
        if run.logger:
            run.logger.error("%s: %s", type(error).__name__, error, exc_info=error.__cause__)
        current_checks().index_failed(error, embedder_only=run.index.context is None)
        run.error = error
        return run.fail(error)
    except BaseException as error:
        run.fail(error)
        raise
    outcome = run.finish()
    if scan is not None and scan.search_index_due:  # the run is complete: searches scan meanwhile
        call(Step("build search index"), partial(scan.build_search_index, run.logger or logger))
    return outcome


def index_pages(scan: Scan, pages: Iterable[SourcePage], pool: Pool, call: Call = call_plainly) -> tuple[str, ...]:
    """Embed, upsert and commit everything in these pages that changed. Return the names of the steps that wrote it.

    While a shard is embedded, the next pages are read and the one before is written. What is embedded when the pages
    or the pool raise is committed before. Raises as these, and as `commit`.
    """
    writer, budget = Writer(scan, call), Budget(scan)

    def push(shard: Shard) -> None:
        budget.check(shard, drain)
        budget.under_way += shard.chars
        scan.mark_pending(shard)
        pool.submit(shard)
        pass_on(pool.ready())

    def pass_on(shards: Iterable[EmbeddedShard | WrittenShard]) -> None:
        for embedded in shards:
            writer.finish()
            commit()
            writer.upsert(embedded)
            commit()

    def commit() -> None:
        for written in writer.ready():
            scan.commit(written)  # deletes stale chunks, then writes the ledger
            budget.note(written.stats)

    def drain() -> None:
        pass_on(pool.rest())
        writer.finish()
        commit()

    try:
        for page in pages:
            for shard in scan.compare(page):
                push(shard)
        for shard in scan.rest():
            push(shard)
    except NOT_WRITABLE:
        raise
    except Exception:
        drain()
        raise
    drain()
    return tuple(writer.steps)


class Writer:
    """Upserts shards, one at a time: into an embedded store in this thread, and to a server in another one.

    An embedded store makes a shard's points durable in another thread, while this one reads the next pages.
    """

    def __init__(self, scan: Scan, call: Call) -> None:
        self._scan, self._call = scan, call
        self._under_way: Future[WrittenShard] | None = None
        self._written: list[WrittenShard] = []
        self.steps: list[str] = []

    def upsert(self, shard: EmbeddedShard | WrittenShard) -> None:
        """Write a shard, unless the worker that embedded it did. The one before is finished."""
        store, scan = self._scan.run.store, self._scan
        name, step = scan.collection.name, upsert_step(scan.run.index.name, shard.number)
        self.steps.append(step.name)
        if isinstance(shard, WrittenShard):
            self._written.append(shard)
            return
        epoch = None if store.embedded else scan.epoch
        write = partial(self._call, step, partial(write_shard, store, name, shard, epoch=epoch))
        if not store.embedded:
            self._under_way = in_thread(write, "upsert")
            return
        with scan.run.stopwatch.stage("upsert"):
            written = write()

        def flush() -> WrittenShard:
            with_retries(partial(store.flush, name), step.policy)
            return written

        self._under_way = in_thread(flush, "flush")

    def ready(self) -> Iterator[WrittenShard]:
        """Yield what is written since the last call, whose points are durable."""
        if self._under_way is not None and self._under_way.done():
            self.finish()
        while self._written:
            yield self._written.pop(0)

    def finish(self) -> None:
        """Wait for what is being written, and raise what that raises."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            with self._scan.run.stopwatch.stage("upsert"):
                self._written.append(under_way.result())


class Budget:
    """What embedding has cost in this run, all its indexes together, against `[run] max_cost`."""

    def __init__(self, scan: Scan) -> None:
        self._scan, self._settings, self._checks = scan, scan.run.settings, current_checks()
        self.under_way = 0
        """Characters of the shards that the pool was given and that are not committed."""

    def _cost(self, shard: Shard) -> float:
        """Return what the run costs with this shard, if no vector of it or of those under way is known."""
        work = self._scan.run.metrics.work
        repeated = max(1.0, work.sent_chars / max(1, work.chars))  # chunks overlap
        return self._settings.embedder.cost(self._checks.sent_chars + (self.under_way + shard.chars) * repeated)

    def check(self, shard: Shard, drain: Callable[[], None]) -> None:
        """Raise TerminalError if the run may not embed this shard too; `drain` commits what is under way."""
        limit = self._settings.run.max_cost
        if limit is None or self._cost(shard) <= limit:
            return
        drain()  # known vectors cost nothing, so it may have cost less
        if (cost := self._cost(shard)) > limit:
            raise TerminalError(
                f"to embed the next texts too, this run would cost {cost:.2f}, more than [run] max_cost = {limit:g}: "
                "what was embedded is kept, and the next run goes on there"
            )

    def note(self, stats: ShardStats) -> None:
        """Take note of a shard that is committed."""
        self.under_way -= stats.chars
        self._checks.sent_chars += stats.sent_chars


class AllDocuments:
    """All documents of an index. `workers` returns how many workers embed; by default as the settings say.

    Runs over some documents override every step. An `embedder` that is open already is the one of the scan.
    """

    def __init__(self, *, embedder: Embedder | None = None, workers: Callable[[], int] | None = None) -> None:
        self.embedder, self._workers = embedder, workers

    def begin(self, run: IndexRun, call: Call) -> Scan | None:
        """Check the services, wait `[run] wait` seconds for those that are down, and begin the scan.

        Returns None if there is nothing to do.
        """
        index, checks = run.index, current_checks()

        def ask(service: str, question: Callable[[], Any], min_retries: int = 1) -> Any:
            return call(Step("check", service, patience=patience(run.settings.run.wait, min_retries)), question)

        source = "source" if index.kind == SQL else ("source", index.name)
        checks.check(source, partial(ask, "source", run.source.check))
        checks.check("store", partial(ask, "store", run.store.collections, 0))  # it waits some seconds by itself
        if index.parts:
            ask("parts", run.count_parts)
        count = ask("workers", self._workers) if self._workers else None
        if index.context is None:
            chunker = open_chunker(run.settings, index)
        else:
            service = ("context", index.context.model, *(index.context.hosts or []))
            chunker = checks.check(service, partial(ask, "context", partial(open_chunker, run.settings, index)))
        identity = checks.remember("embedder", partial(ask, "embedder", partial(identify, run.settings.embedder)))
        scan = Scan.begin(run, identity, chunker, workers=count)
        if not scan.collection.commits and (warning := prefix_warning(run.settings.embedder, identity)):
            checks.remember("prefixes", partial(run.outcome.say, warning))  # once, for all indexes
        return scan

    def pages(self, run: IndexRun, call: Call) -> Iterator[SourcePage]:
        """Yield the pages of the source, which grow from a small first one, so that work begins soon.

        They grow to about `PAGE_CHARS`, so that short texts do not mean many small queries.
        """
        cursor, rows, max_rows, number = None, FIRST_ROWS, run.settings.source.page_rows, 0
        while True:
            number += 1
            step = Step("fetch", f"{run.index.name} {number}")
            with run.stopwatch.stage("fetch"):
                page = call(step, partial(self.fetch, run, cursor, min(rows, max_rows)))
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
            rows = max(1, min(rows * 4, max_rows, int(PAGE_CHARS / mean)))

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the page of the source after the cursor. A retry reads the same rows again, which is harmless."""
        return run.source.page(cursor, rows)

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has, unless `delete_guard` refuses."""
        scan.delete_gone()

    def publish(self, scan: Scan) -> None:
        """Verify the counts; of a rebuild also a sample and the guards, then move the alias."""
        scan.publish()


class Place(Protocol):
    """Where shards are embedded while this thread does something else. At most `size` of them are there at a time."""

    size: int

    def embed(self, job: EmbedJob, call: Call) -> EmbeddedShard | WrittenShard:
        """Embed a shard, and write it if whoever embeds can. Each is a step. This runs in a thread of its own.

        Raises ProcessDied if the process of the shard died, and otherwise as `EmbedJob.embed`.
        """

    def tick(self) -> None:
        """Take note that a second has passed without a result. What this raises ends the run."""

    def close(self) -> None:
        """End what is under way. Threads that wait for it get an error."""


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
        parallel = scan.run.settings.parallel
        self._alone = (
            embedder is not None or parallel.serial or not (parallel.address or worker_count(scan.run.settings))
        )
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
        if self._scan.has_much and not self._alone:  # what embeds starts while the first page is read
            self._grow_if_it_pays()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def submit(self, shard: Shard) -> None:
        """Have a shard embedded. Call `ready` after each, which makes room for the next."""
        if shard.suspect:
            with self._scan.run.stopwatch.stage("embed"):
                self._results.extend(quarantine(shard, self._embed_apart))
        elif self._alone or shard.in_process:
            with self._scan.run.stopwatch.stage("embed"):
                embed = partial(self._scan.job(shard).embed, self._own_embedder())
                self._results.append(self._call(embed_step(shard), embed))
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
            yield from quarantine(shard, partial(self._run_alone, place))

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
            self._stack.callback(more.close)
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
        child.start()
        return _Beside(child.embed)

    def _own_embedder(self) -> Embedder:
        if self._embedder is None:
            scan = self._scan
            self._embedder = open_embedder(scan.run.settings.embedder, expected=scan.identity)
            self._stack.callback(self._embedder.close)
        return self._embedder

    def _embed_apart(self, shard: Shard) -> EmbeddedShard:
        """Embed a shard in a child that does nothing else."""
        return self._call(embed_step(shard), partial(self._suspects.embed, self._scan.job(shard)))


def embed_step(shard: Shard) -> Step:
    """Return the step that embeds a shard: it comes after the pages of its documents."""
    pages = tuple(f"fetch {shard.index} {page}" for page in shard.pages)
    return Step("embed", f"{shard.index} {shard.number}", after=pages)


def upsert_step(index: str, number: int) -> Step:
    """Return the step that writes the shard of this number."""
    label = f"{index} {number}"
    return Step("upsert", label, after=(f"embed {label}",))


class _Beside:
    """What embeds beside this thread, and is not watched: what dies ends the waiting for it. The pool ends it."""

    size = 1 + AHEAD

    def __init__(self, embed: Callable[[EmbedJob], EmbeddedShard]) -> None:
        self._embed = embed

    def embed(self, job: EmbedJob, call: Call) -> EmbeddedShard:
        return call(embed_step(job.shard), partial(self._embed, job))

    def tick(self) -> None: ...

    def close(self) -> None: ...
