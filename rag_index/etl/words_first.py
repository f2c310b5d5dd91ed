"""Words first: a first run with a slow embedder writes all documents by their words, and then embeds
them.

    pending > chunk > weigh words > points without vectors > flush > stale chunks > ledger's rows,
    marked `by_words`

Searches find the documents by their words from then on. The pass reads the source by itself, beside
the run's scan, which embeds these documents afterwards as if they were new and replaces their
points by id. Documents that are pending, listed as failed or embedded already are left to the scan.
Shards that the scan has handed out go on being embedded, and are committed between the pass's own
writes.

A kill during the pass leaves what was written by its words, and at most `MAX_DOCUMENTS` pending
documents. The next run embeds all of them.
"""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import attrs

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.components.sources import open_source
from rag_index.core.documents.batches import DocumentBatch, Shard
from rag_index.core.recovery import retry_step
from rag_index.core.reports.outcome import count_of
from rag_index.etl.embed import weigh
from rag_index.etl.fetch import fetch_page
from rag_index.etl.sharding import measurable_chars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.components.chunking import Chunker
    from rag_index.components.sources import SourcePage
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.fetch import Fetch
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan
    from rag_index.etl.steps import Steps
    from rag_index.etl.upsert import Destination

SHARE = 20
"""The pass may take a twentieth of the time that is left to embed. Chosen; nothing depends on it."""
SLOW_SECONDS = 5.0
"""Seconds after which the first shard shows that the embedder is slow, before it is done. Chosen;
nothing depends on it."""
WORTH_SECONDS = 20.0
"""Seconds: a run that is done in less time needs no pass. Chosen; nothing depends on it."""
DOCUMENTS_PER_SECOND, CHARS_PER_SECOND = 2000.0, 1_000_000.0
"""What the pass manages at least on one core: documents, and characters of them."""
MAX_DOCUMENTS, MAX_CHARS = 500, 500_000
"""Documents and characters that are written at a time, and are pending if the run is killed then:
the next one embeds these alone. Chosen; nothing depends on them."""


@attrs.define(eq=False)
class WordsFirst:
    """The pass of one run, which takes place once, as soon as it pays."""

    opened: Opened
    scan: Scan
    steps: Steps
    record: RunRecord
    pages: Callable[[Opened, Fetch, RunRecord], Iterator[SourcePage]]
    """Yields the pages of the run (`AllDocuments.pages`)."""
    before_shard: Callable[[], None]
    """Raises RunPaused if the run is to end before the next shard."""
    commit_done: Callable[[], None]
    """Commits the shards that were embedded and written meanwhile. Raises if one of them ends the
    run."""
    to: Destination
    _began: float | None = attrs.field(default=None, init=False)
    """When the first shard was handed out."""
    _is_over: bool = attrs.field(init=False)

    @_is_over.default
    def _never(self) -> bool:
        """Return whether this run has no such pass."""
        opened = self.opened
        # A rebuild is not read yet, and a run of single documents is short.
        if opened.single or self.scan.target.rebuild:
            return True
        # Reading the text of files twice may take as long as embedding it.
        if opened.index.has_files:
            return True
        # `search = "dense"`: the index has no words.
        return bm25_model(opened.index) is None

    def write_if_due(self) -> None:
        """Write all documents by their words, if that pays.

        It pays if it takes at most a twentieth of the time that is left, by the rate at which
        documents were embedded until now. Raises as a run that writes.
        """
        if self._is_over:
            return
        rate = self._rate()
        if rate is None:
            return
        sharder, progress = self.scan.diff.sharder, self.record.progress
        workers = self.steps.workers if self.steps.has_started_workers else 1
        documents = max(0.0, progress.total - progress.done)
        chars = documents * sharder.mean
        seconds_left = chars / (rate * workers)
        cost = documents / DOCUMENTS_PER_SECOND + chars / CHARS_PER_SECOND
        if seconds_left < max(WORTH_SECONDS, SHARE * cost):
            return
        self._is_over = True
        with progress.aside():
            self.steps.call_once(write_words, self.opened, self)

    def _rate(self) -> float | None:
        """Return how many characters a worker embeds in a second, at most; None as long as that is
        unknown."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        sharder = self.scan.diff.sharder
        if sharder.last is not None:
            return sharder.last
        # No shard is done yet. After 5 s the first one shows that the embedder is slow.
        waited = now - self._began
        if waited < SLOW_SECONDS:
            return None
        return measurable_chars(sharder.first) / waited

    def write_all(self) -> str:
        """Write all documents by their words. Return how many, as a sentence."""
        opened, record = self.opened, self.record
        chunker = open_chunker(opened.settings, opened.index, contexts=False)
        waiting = DocumentBatch.empty()
        with (
            closing(open_source(opened.settings, opened.index)) as source,
            record.stopwatch.stage("words"),
        ):
            beside = attrs.evolve(opened, source=source)
            for page in self.pages(beside, self._fetch, record):
                for documents in _batches_of(page.documents):
                    waiting = waiting.plus(self._new(documents))
                    chars = sum(map(len, waiting.texts))
                    if len(waiting) >= MAX_DOCUMENTS or chars >= MAX_CHARS:
                        self._write_shard(waiting, chunker)
                        waiting = DocumentBatch.empty()
            self._write_shard(waiting, chunker)
        opened.store.hand_over()
        written = count_of(record.progress.by_words, "document")
        return f"{written} can be found by their words"

    def _fetch(self, opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
        """Read a page of the source. It is no task of its own: the pass is one."""
        read = partial(fetch_page, opened, number, cursor, rows)
        return retry_step(read, self.steps.recovery)

    def _new(self, documents: DocumentBatch) -> DocumentBatch:
        """Return the documents that the pass writes."""
        ledger, cid = self.opened.ledger, self.scan.target.collection.id
        known = ledger.known(cid, documents.keys)
        failed = ledger.failures(cid, documents.keys)
        columns = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        rows: list[int] = []
        for position, (key, text_hash, payload_hash) in enumerate(columns):
            if key in failed or documents.is_empty(position):
                continue
            row = known.get(key)
            # Not in the index yet.
            if row is None:
                rows.append(position)
                continue
            # Written by its words by an earlier run, with another text or payload.
            has_changed = row.text_hash != text_hash or row.payload_hash != payload_hash
            if row.by_words and not row.pending and has_changed:
                rows.append(position)
        return documents.take(rows)

    def _write_shard(self, documents: DocumentBatch, chunker: Chunker) -> None:
        self.commit_done()
        self.before_shard()
        progress = self.record.progress
        # No other shard of the run is written meanwhile.
        with self.to.turn():
            progress.by_words += self._write_new(documents, chunker)
        progress.say("finding documents by their words first")

    def _write_new(self, documents: DocumentBatch, chunker: Chunker) -> int:
        """Write those documents that are still new by their words. Return how many were written."""
        # Since the page was read, the run may have embedded some of them.
        new, bm25 = self._new(documents), bm25_model(self.opened.index)
        if bm25 is None or not len(new):
            return 0
        committer = self.scan.committer
        chars = sum(map(len, new.texts))
        shard = Shard(self.opened.index.name, 0, new, chars)
        # Pending before they are chunked: a document that kills this process is left to the scan.
        committer.begin_shard(shard)
        weighed = weigh(shard, chunker, bm25)
        wait = self.opened.settings.run.wait_for_recovery
        written = retry_step(partial(self.to.write, weighed), wait)
        committer.commit(written, by_words=True)
        return len(written.keys)


def _batches_of(documents: DocumentBatch) -> Iterator[DocumentBatch]:
    """Yield the documents of a page, at most `MAX_DOCUMENTS` at a time."""
    for first in range(0, len(documents), MAX_DOCUMENTS):
        end = min(first + MAX_DOCUMENTS, len(documents))
        yield documents.take(list(range(first, end)))


def write_words(opened: Opened, words: WordsFirst) -> str:
    """Write all documents of a first run by their words, so that searches find them before they are
    embedded. Return how many, as a sentence.

    This step is not retried. Each page that it reads and each write is, for as long as a fetch and
    an upsert.
    """
    return words.write_all()
