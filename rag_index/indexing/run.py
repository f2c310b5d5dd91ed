"""One run of one index: the resources that it holds open, and its outcome. What it does is in `indexing.pipeline`."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from rag_index.errors import RagIndexError, SettingsReplaced
from rag_index.evaluation.gate import check_gate
from rag_index.indexing.delete_guard import DeleteGuard, count_parts, hidden_by_policies, policy_digest
from rag_index.indexing.publish import end_bulk
from rag_index.ledger import Collection, Ledger
from rag_index.ledger.runs import BATCH, IndexLease
from rag_index.reports.metrics import RunMetrics, Stopwatch, advice
from rag_index.reports.outcome import IndexOutcome, count_of
from rag_index.reports.progress import Progress
from rag_index.settings import IndexSettings, Settings, load_settings
from rag_index.sources import Source, open_source, scan_settings
from rag_index.stores import location, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.evaluation.golden import GoldenQuery
    from rag_index.indexing.scan import Scan
    from rag_index.stores.protocol import Store

DAY = 86_400.0
logger = logging.getLogger("rag_index.indexing")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one run does differently from the settings: what a person asks for, from the command line to the scan."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    workers: Annotated[int, Field(ge=1)] | None = None
    """Dask worker processes; by default as the settings say."""
    shard_documents: Annotated[int, Field(ge=1)] | None = None
    """Documents per shard; by default as the settings say."""
    serial: bool = False
    """Embed in one process, without Dask workers."""
    wait: Annotated[float, Field(ge=0)] | None = None
    """Seconds to wait for services that are down at the start; by default as the settings say."""
    full: bool = False
    """Rebuild the index beside the live collection."""
    allow_deletes: bool = False
    """Delete and publish whatever `delete_guard` says."""
    allow_loss: bool = False
    """Publish a rebuilt collection without asking the gate."""
    retry_failed: bool = False
    """Try failed documents again, however often they were tried."""

    def in_settings(self) -> dict[str, Any]:
        """Return those that take the place of settings, as `run_settings` and the command line take them."""
        return {name: getattr(self, name) for name in ("workers", "shard_documents", "serial", "wait")}


@dataclass(slots=True, eq=False)
class IndexRun:
    """Everything that a run holds open, and what it reports. Not safe to share between threads."""

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
    golden: Sequence[GoldenQuery] = ()
    """The queries of the gate, if this run rebuilds and asks it."""
    alias: str = field(init=False)
    outcome: IndexOutcome = field(init=False)
    progress: Progress = field(init=False)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    metrics: RunMetrics = field(default_factory=RunMetrics)
    scan: Scan | None = None
    """None until it has begun: the run may end before it has a collection."""
    started: float = field(default_factory=time.monotonic)
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None
    """Where errors and services that do not answer are logged; None if nobody waits for this run."""
    error: RagIndexError | None = None
    part_rows: dict[str, int] = field(default_factory=dict)

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
        stopped = "stopped; the next run continues from there"  # Ctrl-C, SIGTERM
        self.outcome.state, self.outcome.message = "failed", reason if isinstance(error, Exception) else stopped
        self._record()
        return self.outcome

    def _record(self) -> None:
        outcome, metrics = self.outcome, self.metrics
        outcome.seconds = time.monotonic() - self.started
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
) -> Iterator[IndexRun]:
    """Open all that a run needs, in the order in which it is taken: source, ledger, lease, store.

    What the caller wants to `keep` is used, and left open. A rebuild reads the golden queries of its gate first: a
    mistake in them must not wait until all is embedded.

    Raises UnknownIndex, SettingsError, SourceError, LedgerError, LedgerUnavailable, IndexLocked, SettingsReplaced,
    StoreBusy.
    """
    index = settings.index(name)
    golden = check_gate(settings, index) if options.full and not options.allow_loss else ()
    with ExitStack() as stack:
        if keep is None:
            source: Any = stack.enter_context(closing(open_source(settings, index)))
            ledger: Any = stack.enter_context(closing(Ledger(settings.ledger_url)))
        else:
            source, ledger = keep
        lease = stack.enter_context(IndexLease(ledger, settings.alias(name), run_id))
        _require_current(settings, index)
        batch = run_id.startswith(BATCH)
        opened = open_store(settings.store, wait=0.0 if batch else settings.run.wait, writes=batch)
        store: Any = stack.enter_context(closing(opened))
        ledger.start_run(run_id, settings.alias(name), host=socket.gethostname(), pid=os.getpid())
        ledger.note_store(settings.alias(name), location(settings.store))
        run = IndexRun(settings, index, options, run_id, source, ledger, lease, store, single, golden)
        try:
            yield run
        finally:
            if run.scan is not None and run.scan.bulk:
                end_bulk(store, run.scan.collection.name, name)


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
    deleted that a run or a watch still needs.
    """
    before = max(0.0, ledger.clock() - settings.run.keep_days * DAY)
    try:
        ledger.prune(before)
        ledger.prune_contexts(before)
    except RagIndexError as error:
        logger.warning("what is older than [run] keep_days was not deleted: %s", error)
