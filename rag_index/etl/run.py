"""One run of one index: what it does, told once, and the resources that it holds open.

    read > compare > embed > upsert > commit, page by page;  then delete > verify > publish

`execute` is the run, and `index` its steps in the order in which anything is written. Any death is harmless by that
order: documents are marked pending in the ledger, points are upserted and made durable, stale chunks are deleted, and
the ledger's rows come last. Where the steps are carried out (here, in children, as tasks of Prefect on Dask workers) is
given to it: see `etl.steps`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import identify, prefix_warning
from rag_index.components.ledger import Collection, Ledger
from rag_index.components.ledger.runs import BATCH, IndexLease
from rag_index.components.sources import Source, open_source, scan_settings
from rag_index.components.sources.pages import PAGE_CHARS
from rag_index.components.stores import location, open_reader, open_store
from rag_index.core.documents.batches import kinds_of
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.metrics import RunMetrics, Stopwatch, advice
from rag_index.core.reports.outcome import IndexOutcome, count_of
from rag_index.core.reports.progress import FLOW, Progress, watched_processes
from rag_index.core.settings import IndexSettings, Settings, load_settings
from rag_index.core.settings.index import SQL
from rag_index.errors import RagIndexError, SettingsReplaced, SourceUnavailable, TerminalError
from rag_index.etl.checks import Question, ServiceChecks, patience
from rag_index.etl.collection import choose
from rag_index.etl.commit import Committer
from rag_index.etl.delete_guard import DeleteGuard, count_parts, delete_gone, hidden_by_policies, policy_digest
from rag_index.etl.diff import Diff
from rag_index.etl.embed import process_state
from rag_index.etl.erase import erase_after, erasure_due
from rag_index.etl.publish import begin_bulk, build_search_index, end_bulk, publish
from rag_index.etl.sharding import MEAN_CHARS
from rag_index.etl.shards_under_way import NOT_WRITABLE, ShardsUnderWay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import Store
    from rag_index.core.documents.batches import Shard, WrittenShard
    from rag_index.core.reports.progress import ProcessState
    from rag_index.etl.steps import Hooks, HooksOf, Steps

FIRST_PAGE_ROWS = 2000
ROW_CHARS = 500
MAX_REASONS = 20
"""At most this many kinds of reasons are logged, why documents could not be indexed completely."""
AUTO_MB = 256
"""Megabytes of embedded vectors that searches may scan: about 15 ms a search, where an index takes minutes to build."""
MUCH_SECONDS = 10.0
"""What is much work for one process: some 50,000 texts of a few sentences for the local embedder."""
DAY = 86_400.0
logger = logging.getLogger("rag_index.indexing")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to do differently from the settings in this run."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    workers: Annotated[int, Field(ge=1)] | None = None
    """How many Dask workers to use; by default as the settings say."""
    shard_documents: Annotated[int, Field(ge=1)] | None = None
    """How many documents a worker is given at a time; by default as the settings say."""
    serial: bool = False
    """Whether to embed in one process, without Dask workers."""
    wait: Annotated[float, Field(ge=0)] | None = None
    """How long to wait for services that are down at the start, in seconds; by default as the settings say."""
    full: bool = False
    """Whether to rebuild the index beside the live collection."""
    allow_deletes: bool = False
    """Whether to delete documents that the delete guard held back, whatever their number."""
    allow_loss: bool = False
    """Whether to publish a rebuilt collection without asking its gate."""
    retry_failed: bool = False
    """Whether to try failed documents again, however often they were tried."""

    def in_settings(self) -> dict[str, Any]:
        """Return those that take the place of settings, as `run_settings` and the command line take them."""
        return {name: getattr(self, name) for name in ("workers", "shard_documents", "serial", "wait")}


@dataclass(slots=True, eq=False)
class IndexRun:
    """Everything that a run holds open, and reports; `begin` sets what has no value at first. For one thread."""

    settings: Settings
    index: IndexSettings
    options: RunOptions
    run_id: str
    source: Source
    ledger: Ledger
    lease: IndexLease
    store: Store
    single: bool = False
    """Look at single documents alone: nothing is known of the others, so the run never completes the collection."""
    hooks: Hooks | None = None
    checks: ServiceChecks = field(default_factory=ServiceChecks)
    """The services that the run asks, which runs of several indexes share."""
    alias: str = field(init=False)
    outcome: IndexOutcome = field(init=False)
    progress: Progress = field(init=False)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    metrics: RunMetrics = field(default_factory=RunMetrics)
    begun: bool = False
    """Whether it has a collection, and what follows here: it may end before."""
    collection: Collection = field(init=False)
    """What it writes to."""
    identity: EmbedderIdentity = field(init=False)
    """The embedder, as the collection records it."""
    chunker: Chunker = field(init=False)
    rebuild: bool = field(init=False)
    """Whether the collection is a new one, which is published at the end: beside the live one, or the first."""
    first: bool = field(init=False)
    """Whether no collection is live yet, and this one is filled before it is."""
    bulk: bool = False
    """Whether it is published once a server has built its search index, which is off until then."""
    guard: DeleteGuard = field(init=False)
    had_documents: bool = field(init=False)
    policies: str = field(init=False)
    """The digest of the policies by which the database showed rows when the run began."""
    committer: Committer = field(init=False)
    diff: Diff = field(init=False)
    has_much: bool = False
    """Whether there is certainly work for another process: the index is new, and large."""
    started: float = field(default_factory=time.monotonic)
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None
    """Where errors and services that do not answer are logged; None if no person waits for this run."""
    error: RagIndexError | None = None
    part_rows: dict[str, int] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The documents of each kind that could not be indexed completely, by what their reasons have in common."""
    first_reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outcome, self.progress = IndexOutcome(self.index.name), Progress(self.index.name)
        self.alias = self.settings.alias(self.index.name)

    @property
    def live(self) -> Collection | None:
        """The live collection, as far as the ledger knows it."""
        return self.ledger.collection(self.store.aliases().get(self.alias, ""))

    def count_parts(self) -> None:
        """Count the rows of each part. Raises SourceError if too many are lost, unless a person allowed it."""
        live = None if self.options.allow_deletes else self.live
        hidden = hidden_by_policies(self.ledger, self.alias, policy_digest(self.source)) if live else ""
        guard = DeleteGuard(self.ledger, live, self.settings.run.delete_guard, hidden=hidden) if live else None
        self.part_rows = count_parts(self.source, self.index, guard)

    def begin(
        self, identity: EmbedderIdentity, chunker: Chunker, *, workers: int = 1, documents: int | None = None
    ) -> None:
        """Choose the collection, bring it and the ledger together, and begin to compare. Raises as `collection.choose`.
        `workers` is how many shards will be embedded at a time; `documents` the expected total, if the caller knows
        it."""
        self.metrics.workers = max(1, workers)
        if documents is None:
            documents = 0
            with suppress(SourceUnavailable):  # the run retries for longer
                documents = self.source.count()
        self.chunker, epoch = chunker, choose(self, identity, chunker)
        self.guard = DeleteGuard(self.ledger, self.collection, self.settings.run.delete_guard)
        self.had_documents, self.policies = self.guard.any_documents, policy_digest(self.source)
        if not self.single:
            self.guard.note_size()
        to = self.index.name, self.ledger, self.store, self.collection
        self.committer = Committer(*to, lease=self.lease, epoch=epoch)
        self.diff = Diff(self)
        self.begun = True
        if not self.store.embedded:  # last: from here on, the end of the run undoes it
            others = [one.name for one in self.ledger.collections(self.alias) if one.id != self.collection.id]
            loaded = self.rebuild and self.settings.store.server.bulk
            self.bulk = begin_bulk(self.store, others, self.collection.name, loaded=loaded)
        self.progress.start(documents)
        if self.seconds_left >= MUCH_SECONDS:
            self.has_much = True
            embedder = self.settings.embedder
            self.diff.sharder.begin_small(embedder.usual_request[1] if embedder.on_servers else 0)
        self.stopwatch.count_rest("start")

    @property
    def seconds_left(self) -> float:
        """Estimate how many seconds one process needs for what is left to embed. What was not read yet is assumed to
        have changed as much as what was; before the first page, all of it if the collection is new, and else
        nothing."""
        seen, diff = self.outcome.documents, self.diff
        unread = max(0, self.progress.total - seen)
        new = self.rebuild or not self.had_documents
        chars = diff.chars * (1 + unread / seen) if seen else unread * MEAN_CHARS * new
        return max(0.0, chars - self.metrics.work.chars) / diff.sharder.chars_per_second

    def commit(self, written: WrittenShard) -> None:
        """Commit a shard whose points are in the store: delete its stale chunks, then write the ledger's rows. Raises
        IndexLocked where another run has taken the index over, and what store and ledger raise."""
        stats, failed = written.stats, sum(failure.kind == "failed" for failure in written.failures)
        with self.stopwatch.stage("commit"):
            new = self.committer.commit(written)
        log, name = self.logger or logger, self.index.name
        for failure in written.failures:  # logs outlive an erasure, so that keys are for debugging alone
            log.debug("%s: document %s %s: %s", name, document_id(failure.key), failure.kind, failure.reason)
            for like, said in kinds_of(failure.reason).items():
                if (failure.kind, like) in self.reasons or len(self.reasons) < MAX_REASONS:
                    self.reasons[failure.kind, like] += 1
                    self.first_reasons.setdefault((failure.kind, like), said)
        self.outcome.add(written, new=new)
        documents = len(written.keys) + failed
        self.metrics.add(written, documents=documents, dimension=self.collection.dimension)
        self.diff.sharder.observe(stats.chars, stats.seconds)
        self.progress.advance(documents, failed=failed, shard=written.number)

    def finish(self) -> IndexOutcome:
        """End a run that did all its steps, and return the outcome."""
        outcome = self.outcome
        share = outcome.failed / max(1, outcome.documents)
        if outcome.failed and share > self.settings.run.tolerate_failed:
            failed = count_of(outcome.failed, "document")
            outcome.hold(f"{failed} failed: `rag-index failed {self.index.name}` lists them")
        outcome.say(outcome.missing_contexts)
        self._record()
        if not self.run_id.startswith(BATCH):  # batches are too many and too small for it
            prune(self.settings, self.ledger)
        return outcome

    def fail(self, error: BaseException) -> IndexOutcome:
        """End the run with an error, and return the outcome. What was committed is kept."""
        self.outcome.error_class = name = type(error).__name__
        reason = str(error) if isinstance(error, RagIndexError) else f"{name}: {error}"
        if not isinstance(error, Exception):  # Ctrl-C, SIGTERM
            kept, self.progress.stopped = self.progress.kept(), True
            reason = f"stopped; {kept}, and the next run continues from there"
            self.progress.finish(f"{self.index.name}: {reason}")
        self.outcome.state, self.outcome.message = "failed", reason
        self._record()
        return self.outcome

    def _record(self) -> None:
        outcome, metrics = self.outcome, self.metrics
        for (kind, like), count in self.reasons.most_common():  # of 1,230 pictures one line
            said = f"{'the first: ' * (count > 1)}{self.first_reasons[kind, like]}"
            (self.logger or logger).warning("%s: %s %s: %s", outcome.index, count_of(count, "document"), kind, said)
        outcome.seconds = time.monotonic() - self.started
        if self.settings.run.max_cost is not None:  # that of all indexes together
            self.checks.sent_chars += metrics.work.sent_chars
        metrics.documents = outcome.documents
        metrics.end(outcome.seconds, self.stopwatch)
        outcome.advice = advice(metrics, self.settings.embedder, on_server=not self.store.embedded)
        report = {**outcome.to_json(), "metrics": metrics.to_json(), "advice": outcome.advice}
        self.ledger.finish_run(self.run_id, state=outcome.state, message=outcome.message, report=report)


@contextmanager
def open_run(
    settings: Settings,
    name: str,
    options: RunOptions,
    *,
    run_id: str,
    single: bool = False,
    keep: tuple[Source, Ledger] | None = None,
    hooks: HooksOf | None = None,
    checks: ServiceChecks | None = None,
) -> Iterator[IndexRun]:
    """Open all that a run needs, in the order in which it is taken: source, ledger, lease, store. What the caller wants
    to `keep` is used, and left open. `hooks` is asked first: a mistake in golden queries must not wait until all is
    embedded. `checks` are those of all indexes that are run together. Raises UnknownIndex, SettingsError, SourceError,
    LedgerError, LedgerUnavailable, IndexLocked, SettingsReplaced, StoreBusy."""
    index = settings.index(name)
    asked = hooks and hooks(settings, index, options.full and not options.allow_loss)
    with ExitStack() as stack:
        if keep is None:
            source: Any = stack.enter_context(closing(open_source(settings, index)))
            ledger: Any = stack.enter_context(closing(Ledger(settings.ledger_url)))
        else:
            source, ledger = keep
        lease = stack.enter_context(IndexLease(ledger, settings.alias(name), run_id))
        _require_current(settings, index)
        batch = run_id.startswith(BATCH)
        wait = 0.0 if batch else settings.run.wait
        store: Any = stack.enter_context(closing(open_store(settings.store, wait=wait, writes=batch)))
        ledger.start_run(run_id, settings.alias(name), host=socket.gethostname(), pid=os.getpid())
        ledger.note_store(settings.alias(name), location(settings.store))
        opened = (source, ledger, lease, store)
        run = IndexRun(settings, index, options, run_id, *opened, single, asked, checks or ServiceChecks())
        try:
            yield run
        finally:
            if run.bulk:
                end_bulk(store, run.collection.name, name)


def _require_current(settings: Settings, index: IndexSettings) -> None:
    """Raise SettingsReplaced if the settings file says something else of an index since this process has read it."""
    if settings.is_outdated:
        now = load_settings(settings.path)
        if scan_settings(now, now.index(index.name)) != scan_settings(settings, index):
            raise SettingsReplaced(
                f"index {index.name}: {settings.path.name} has changed since this run read it, so nothing was written "
                "by the settings before; start it again"
            )


def prune(settings: Settings, ledger: Ledger) -> None:
    """Delete rows of the ledger that are older than `[run] keep_days`, and contexts. A fault is left to the next run.
    Each deletion is a transaction of its own, so a death in the middle leaves the rest to the next run, too. Nothing is
    deleted that a run or a watch still needs."""
    before = max(0.0, ledger.clock() - settings.run.keep_days * DAY)
    try:
        ledger.prune(before)
        ledger.prune_contexts(before)
    except RagIndexError as error:
        logger.warning("what is older than [run] keep_days was not deleted: %s", error)


def execute(run: IndexRun, steps: Steps, documents: AllDocuments | None = None) -> IndexOutcome:
    """Bring documents of an index up to date, all by default, and return the outcome, which is recorded. An error of
    ours ends in the outcome. Every other is raised after it was recorded, such as KeyboardInterrupt or one of
    Prefect's."""
    documents = documents or AllDocuments()

    def states() -> dict[str, ProcessState]:
        return {FLOW: process_state(), **steps.states()}

    try:
        with watched_processes(run.progress, run.logger, states) if run.logger else nullcontext():
            if documents.begin(run, steps):
                index(run, steps, documents)
    except RagIndexError as error:
        if run.logger:
            run.logger.error("%s: %s", type(error).__name__, error, exc_info=error.__cause__)
        run.checks.index_failed(error, embedder_only=run.index.context is None)
        run.error = error
        return run.fail(error)
    except BaseException as error:
        run.fail(error)
        raise
    outcome = run.finish()
    if (
        run.begun and not run.single and search_index_due(run.store, run.collection.name, run.collection.dimension)
    ):  # the run is complete: searches scan meanwhile
        steps.end("build search index", run, build_search_index)
    return outcome


def index(run: IndexRun, steps: Steps, documents: AllDocuments) -> None:
    """Read > compare > embed > upsert > commit, page by page; then delete > verify > publish."""
    index_pages(run, steps, documents)
    steps.end("delete gone", run, documents.delete)
    steps.end("verify and publish", run, documents.publish)
    # once a night, not with each batch of a watch
    if run.settings.store.erase and not run.run_id.startswith(BATCH) and erasure_due(run):
        steps.end("erase", run, erase_after)


def index_pages(run: IndexRun, steps: Steps, documents: AllDocuments) -> None:
    """Embed, upsert and commit everything in the pages of a run that changed. While shards are embedded and written,
    the next pages are read. What is under way when the pages or a shard raise is committed before. Raises as these, and
    as `commit`."""
    window = ShardsUnderWay(run, steps)
    budget = Budget(run) if run.settings.run.max_cost is not None else None
    try:
        for page in documents.pages(run, steps):
            for shard in run.diff.shards(page):
                _push(run, window, budget, shard)
        for shard in run.diff.sharder.rest():
            _push(run, window, budget, shard)
    except NOT_WRITABLE:
        raise
    except Exception:
        commit_all(run, window.rest())
        raise
    for written in window.rest():
        run.commit(written)


def _push(run: IndexRun, window: ShardsUnderWay, budget: Budget | None, shard: Shard) -> None:
    if budget is not None:
        budget.check(shard, partial(commit_all, run, window.rest()))
    if run.metrics.first_shard_after is None:
        run.metrics.first_shard_after = time.monotonic() - run.started
    run.committer.begin(shard)  # pending, before anything may write it
    for written in window.push(shard):  # waits while the window is full
        run.commit(written)  # stale chunks, then the ledger's rows


def commit_all(run: IndexRun, written: Iterable[WrittenShard]) -> None:
    """Commit these shards."""
    for one in written:
        run.commit(one)


class Budget:
    """Compares the cost of embedding, of all indexes of the run together, with `[run] max_cost`."""

    def __init__(self, run: IndexRun) -> None:
        self._run, self._given, self._earlier = run, 0, run.checks.sent_chars

    def check(self, shard: Shard, drain: Callable[[], None]) -> None:
        """Raise TerminalError if the run may not embed this shard too; `drain` commits what is under way."""
        limit = self._run.settings.run.max_cost
        if limit is not None and self._cost(shard) > limit:
            drain()  # known vectors cost nothing, so it may have cost less
            if (cost := self._cost(shard)) > limit:
                raise TerminalError(
                    f"to embed the next texts too, this run would cost {cost:.2f}, more than [run] max_cost = "
                    f"{limit:g}: what was embedded is kept, and the next run goes on there"
                )
        self._given += shard.chars

    def _cost(self, shard: Shard) -> float:
        """Return what the run costs with this shard, if no vector of it or of those under way is known."""
        work = self._run.metrics.work
        repeated = max(1.0, work.sent_chars / max(1, work.chars))  # chunks overlap
        left = self._given - work.chars + shard.chars
        return self._run.settings.embedder.cost(self._earlier + work.sent_chars + left * repeated)


def search_index_due(store: Store, collection: str, dimension: int) -> bool:
    """Return whether a run should build the search index. Only an embedded collection with more than 256 MB of vectors
    needs it: smaller ones are scanned in milliseconds, and a server builds by itself."""
    if not store.embedded or store.indexed(collection):
        return False
    return store.count(collection) * dimension * 4 > AUTO_MB * 1024 * 1024


def questions(run: IndexRun, steps: Steps) -> list[Question]:
    """Return what a run asks its services, each with the policy of a run that may wait `[run] wait` seconds."""
    settings, index, wait = run.settings, run.index, patience(run.settings.run.wait)
    servers = wait if steps.waits else patience(settings.run.wait, 0)  # a locked source may be free in a moment
    asked = [
        Question("source", run.source.check, wait, key="" if index.kind == SQL else ("source", index.name)),
        Question("store", partial(_ask_store, run, steps), patience(settings.run.wait, 0)),
    ]
    if index.parts:
        asked.append(Question("parts", run.count_parts, wait, key=("parts", index.name)))
    if steps.count_workers is not None:
        asked.append(Question("workers", steps.count_workers, wait))
    if index.context is not None:
        service = ("context", index.context.model, *(index.context.hosts or []))
        asked.append(Question("context", partial(open_chunker, settings, index), servers, key=service))
    return [*asked, Question("embedder", partial(identify, settings.embedder), servers, kept=True)]


def _ask_store(run: IndexRun, steps: Steps) -> object:
    """Ask for the collections. The store of a run waits some seconds for a server by itself."""
    if steps.waits or run.store.embedded:
        return run.store.collections()
    with closing(open_reader(run.settings.store, patience=0.0)) as store:
        return store.aliases()


class AllDocuments:
    """All documents of an index. Runs over some documents override every step."""

    def begin(self, run: IndexRun, steps: Steps) -> bool:
        """Check the services, wait `[run] wait` seconds for those that are down, and begin the run. Returns False if
        there is nothing to do."""
        answers = run.checks.ask(questions(run, steps), steps.check)
        identity: EmbedderIdentity = answers["embedder"]
        run.begin(identity, answers.get("context") or open_chunker(run.settings, run.index), workers=steps.workers)
        if run.has_much:  # what embeds starts while the first page is read
            steps.prepare()
        if not run.collection.commits and (warning := prefix_warning(run.settings.embedder, identity)):
            if warning not in run.checks.said:
                run.outcome.say(warning)
            run.checks.said.add(warning)
        return True

    def pages(self, run: IndexRun, steps: Steps) -> Iterator[SourcePage]:
        """Yield the pages of the source, which grow from a small first one, so that work begins soon. They grow to
        about `PAGE_CHARS`, so that short texts do not mean many small queries."""
        cursor, rows, max_rows, number = None, FIRST_PAGE_ROWS, run.settings.source.page_rows, 0
        while True:
            number += 1
            with run.stopwatch.stage("fetch"):
                page = steps.fetch(run, number, cursor, min(rows, max_rows))
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
            rows = max(1, min(rows * 4, max_rows, int(PAGE_CHARS / mean)))

    delete: Callable[[IndexRun], str] = staticmethod(delete_gone)
    publish: Callable[[IndexRun], str] = staticmethod(publish)
