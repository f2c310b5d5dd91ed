"""The record of one run of one index: what it did, how far it is, and where its time went."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from rag_index.core.documents.batches import kinds_of
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.metrics import RunMetrics, Stopwatch, advice
from rag_index.core.reports.outcome import IndexOutcome, count_of
from rag_index.core.reports.progress import Progress

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from rag_index.core.documents.batches import Failure, WrittenShard
    from rag_index.core.settings import EmbedderSettings
    from rag_index.errors import RagIndexError

    Logger: TypeAlias = logging.Logger | logging.LoggerAdapter[logging.Logger]

MAX_REASONS = 20
"""At most this many kinds of reasons are logged, why documents could not be indexed completely."""
logger = logging.getLogger("rag_index.indexing")


@attrs.define(eq=False)
class RunRecord:
    """What a run writes down as it goes. Its owner reads it at the end."""

    index: str
    logger: Logger | None = None
    """Where errors and services that do not answer are logged; None if no person waits for this run."""
    outcome: IndexOutcome = attrs.field(default=attrs.Factory(lambda self: IndexOutcome(self.index), True), init=False)
    progress: Progress = attrs.field(default=attrs.Factory(lambda self: Progress(self.index), True), init=False)
    stopwatch: Stopwatch = attrs.field(factory=Stopwatch, init=False)
    metrics: RunMetrics = attrs.field(factory=RunMetrics, init=False)
    error: RagIndexError | None = attrs.field(default=None, init=False)
    """The error of ours that ended the run."""
    paused: bool = attrs.field(default=False, init=False)
    """Whether the run has left something to another one, which is to come soon."""
    _started: float = attrs.field(factory=time.monotonic, init=False)
    _reasons: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """The documents of each kind that could not be indexed completely, by what their reasons have in common."""
    _first_reasons: dict[tuple[str, str], str] = attrs.field(factory=dict, init=False)

    @property
    def log(self) -> Logger:
        """Return where to log what a person should see."""
        return self.logger or logger

    def note_first_shard(self) -> None:
        """Record when the first shard was begun."""
        if self.metrics.first_shard_after is None:
            self.metrics.first_shard_after = time.monotonic() - self._started

    def add(self, written: WrittenShard, *, new: int) -> None:
        """Count a shard that was committed, `new` of whose documents are new."""
        failed = sum(failure.kind == "failed" for failure in written.failures)
        for failure in written.failures:
            self._note(failure)
        self.outcome.add(written, new=new)
        self.metrics.add(written)
        self.progress.advance(len(written.keys) + failed, failed=failed)

    def _note(self, failure: Failure) -> None:
        # logs outlive an erasure, so that keys are for debugging alone
        key = document_id(failure.key)
        self.log.debug("%s: document %s %s: %s", self.index, key, failure.kind, failure.reason)
        for like, said in kinds_of(failure.reason, failure.kind).items():
            kind = failure.kind, like
            if kind in self._reasons or len(self._reasons) < MAX_REASONS:
                self._reasons[kind] += 1
                self._first_reasons.setdefault(kind, said)

    def end(self, embedder: EmbedderSettings, *, on_server: bool) -> dict[str, Any]:
        """Log why documents failed, end the clocks, and return the report that the ledger keeps."""
        outcome, metrics = self.outcome, self.metrics
        for (kind, like), count in self._reasons.most_common():  # of 1,230 pictures one line
            said = f"{'the first: ' * (count > 1)}{self._first_reasons[kind, like]}"
            self.log.warning("%s: %s %s: %s", self.index, count_of(count, "document"), kind, said)
        outcome.seconds = time.monotonic() - self._started
        metrics.documents = outcome.documents
        metrics.end(outcome.seconds, self.stopwatch)
        outcome.advice = advice(metrics, embedder, on_server=on_server)
        return {**outcome.to_json(), "metrics": metrics.to_json(), "advice": outcome.advice}
