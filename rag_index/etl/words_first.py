"""Words first: a first run whose embedder is slow writes all documents by their words, before it
embeds them.

    chunk > weigh words > pending > points without vectors > flush > stale chunks > ledger's rows,
    marked `by_words`

The pass reads the source by itself, beside the run's scan, which embeds these documents afterwards
as if they were new and replaces their points by id. What is pending, listed as failed or embedded
already is left to the scan. Shards that the scan has handed out go on being embedded, and are
committed between the pass's own writes."""

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
from rag_index.core.recovery import with_retries
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
"""The pass may take one part in this many of the time that is left to embed."""
SLOW_SECONDS = 5.0
"""If the first shard takes longer, the rate is known well enough."""
WORTH_SECONDS = 20.0
"""A run that is done in less time needs no pass."""
DOCUMENTS_PER_SECOND, CHARS_PER_SECOND = 2000.0, 1_000_000.0
"""What the pass manages at least on one core: documents, and characters of them."""
MAX_DOCUMENTS, MAX_CHARS = 500, 500_000
"""What is written at a time, and is pending if the run dies then: the next one embeds that
alone."""


@attrs.define(eq=False)
class WordsFirst:
    """The pass of one run, which takes place once, as soon as it pays."""

    opened: Opened
    scan: Scan
    steps: Steps
    record: RunRecord
    pages: Callable[[Opened, Fetch, RunRecord], Iterator[SourcePage]]
    """Those of the run, as it reads them."""
    before_shard: Callable[[], None]
    """Returns at once, or raises RunPaused if the run is to end before the next shard."""
    commit_done: Callable[[], None]
    """Commits the shards that were embedded and written meanwhile. Raises if one of them ends the
    run."""
    to: Destination
    _began: float | None = attrs.field(default=None, init=False)
    """When the first shard was handed out."""
    _is_over: bool = attrs.field(init=False)

    @_is_over.default
    def _never(self) -> bool:
        """Return whether there is no such pass: only a collection with words that was never whole
        has one. Reading the text of files twice may take as long as embedding it."""
        opened, target = self.opened, self.scan.target
        is_first = not (opened.single or target.rebuild)
        return not (is_first and not opened.index.has_files and bm25_model(opened.index))

    def write_if_due(self) -> None:
        """Write all documents by their words, if that takes a twentieth of the time that is left by
        the rate at which documents were embedded until now. Raises as a run that writes."""
        if self._is_over:
            return
        rate = self._rate()
        if rate is None:
            return
        sharder, progress = self.scan.diff.sharder, self.record.progress
        documents = max(0.0, progress.total - progress.done)
        chars = documents * sharder.mean
        left = chars / (rate * (self.steps.workers if self.steps.has_started_workers else 1))
        cost = documents / DOCUMENTS_PER_SECOND + chars / CHARS_PER_SECOND
        if left < max(WORTH_SECONDS, SHARE * cost):
            return
        self._is_over = True
        with progress.aside():
            self.steps.call_once(write_words, self.opened, self)

    def _rate(self) -> float | None:
        """Return how many characters a worker embeds in a second; None as long as that is
        unknown."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        sharder, waited = self.scan.diff.sharder, now - self._began
        if sharder.last is not None:
            return sharder.last
        if waited < SLOW_SECONDS:
            return None
        return measurable_chars(sharder.first) / waited  # at most: no shard is done yet

    def write_all(self) -> str:
        """Write all documents by their words. Return how many, as a sentence."""
        opened, record, waiting = self.opened, self.record, DocumentBatch.empty()
        chunker = open_chunker(opened.settings, opened.index, contexts=False)
        with (
            closing(open_source(opened.settings, opened.index)) as source,
            record.stopwatch.stage("words"),
        ):
            for page in self.pages(attrs.evolve(opened, source=source), self._fetch, record):
                for first in range(0, len(page.documents), MAX_DOCUMENTS):
                    rows = range(first, min(first + MAX_DOCUMENTS, len(page.documents)))
                    waiting = waiting.plus(self._new(page.documents.take([*rows])))
                    if len(waiting) >= MAX_DOCUMENTS or sum(map(len, waiting.texts)) >= MAX_CHARS:
                        self._write_shard(waiting, chunker)
                        waiting = DocumentBatch.empty()
            self._write_shard(waiting, chunker)
        opened.store.hand_over()
        return f"{count_of(record.progress.by_words, 'document')} can be found by their words"

    def _fetch(self, opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
        """Read a page of the source. It is no task of its own: the pass is one."""
        return with_retries(partial(fetch_page, opened, number, cursor, rows), self.steps.recovery)

    def _new(self, documents: DocumentBatch) -> DocumentBatch:
        """Return those that are not in the index yet, or there by their words as they were
        before."""
        ledger, cid = self.opened.ledger, self.scan.target.collection.id
        known, failed = ledger.known(cid, documents.keys), ledger.failures(cid, documents.keys)
        hashes = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        rows: list[int] = []
        for number, (key, *now) in enumerate(hashes):
            row = known.get(key)
            is_new = row is None or (
                row.by_words and not row.pending and [row.text_hash, row.payload_hash] != now
            )
            if is_new and key not in failed and not documents.is_empty(number):
                rows.append(number)
        return documents.take(rows)

    def _write_shard(self, documents: DocumentBatch, chunker: Chunker) -> None:
        self.commit_done()
        self.before_shard()
        progress = self.record.progress
        with self.to.turn():  # no other shard of the run is written meanwhile
            progress.by_words += self._write_new(documents, chunker)
        progress.say("finding documents by their words first")

    def _write_new(self, documents: DocumentBatch, chunker: Chunker) -> int:
        """Write those documents that are still new by their words. Return how many were written."""
        new, bm25 = self._new(documents), bm25_model(self.opened.index)
        if not (len(new) and bm25):
            return 0
        committer = self.scan.committer
        shard = Shard(self.opened.index.name, 0, new, sum(map(len, new.texts)))
        committer.begin(
            shard
        )  # before it is chunked: a document that kills this process is left to the scan
        weighed = weigh(shard, chunker, bm25)
        written = with_retries(
            partial(self.to.write, weighed), self.opened.settings.run.wait_for_recovery
        )
        committer.commit(written, by_words=True)
        return len(written.keys)


def write_words(opened: Opened, words: WordsFirst) -> str:
    """Write all documents of a first run by their words, so that searches find them before they are
    embedded. Return how many, as a sentence.

    This step is never tried again as a whole: each page that it reads and each write is, as long as
    a fetch and an upsert are.
    """
    return words.write_all()
