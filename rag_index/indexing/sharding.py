"""Shards: changed documents collected into pieces worth some seconds of a worker's time.

A mapped task costs about 0.1 s, so that a shard must be worth several; near the end shards get smaller, so that no
worker idles while another finishes (guided self-scheduling, Polychronopoulos and Kuck 1987).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import DocumentBatch, EmbeddedShard, Failure, Shard, ShardStats
from rag_index.settings.index import CODE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.settings import IndexSettings

__all__ = ["Sharder", "first_rate", "given_up", "max_chars", "parts_of"]

MAX_CHARS = 2_000_000
MAX_CHARS_OF_CODE = 700_000
"""Source code is cut into many small chunks, and parsing takes memory as well: so a worker takes less than 100 MB."""
MIN_SECONDS = 1.0
SMOOTHING = 0.5
MEAN_CHARS = 400.0
"""Of a document, before any was seen."""
FIRST_RATE = {"local": 2_000_000.0, "ollama": 4_000.0, "sentence-transformers": 10_000.0}
"""Characters a second that a worker is taken to embed before anything was measured."""

FIRST_RATE_OF_CONTEXTS = 1_000.0
"""The same where a model writes contexts."""
MAX_CHARS_WITH_CONTEXTS = 100_000


def first_rate(kind: str, index: IndexSettings, measured: float | None) -> float:
    """Characters a second that a worker is taken to be through with, for this kind of embedder; as measured before,
    unless contexts may not have been asked for then."""
    rate = measured or FIRST_RATE[kind]
    return rate if index.context is None else min(rate, FIRST_RATE_OF_CONTEXTS)


def max_chars(index: IndexSettings) -> int:
    """Of a shard, however fast the shards before it were: with contexts these may all have been there already."""
    if index.context is not None:
        return MAX_CHARS_WITH_CONTEXTS
    return MAX_CHARS_OF_CODE if index.kind == CODE else MAX_CHARS


def parts_of(shard: Shard, most: int = 8) -> list[Shard]:
    """The shard in up to `most` parts of its documents, in order; itself alone where it has one document."""
    count = len(shard.documents)
    size = -(-count // most)
    ranges = [range(first, min(first + size, count)) for first in range(0, count, size)]
    documents = [shard.documents.take(list(rows)) for rows in ranges]
    return [Shard(shard.index, shard.number, page, sum(map(len, page.texts))) for page in documents]


def given_up(shard: Shard) -> EmbeddedShard:
    """A shard of which nothing could be embedded, since it kills the process that tries."""
    reason = "the worker process dies on this document, again and again; look at its text and at the worker's memory"
    documents = shard.documents
    failures = [Failure(k, reason, h) for k, h in zip(documents.keys, documents.text_hashes, strict=True)]
    nothing = np.empty((0, 0), dtype=np.float32)
    return EmbeddedShard(shard.index, shard.number, documents.take([]), [], nothing, failures, ShardStats())


class Sharder:
    """Collects documents; `documents` fixes a shard's size, otherwise it aims at `seconds` by the measured rate.

    Then it has at least `least` documents, where there are so many and memory allows it, and at most `most`.
    """

    def __init__(
        self,
        index: str,
        *,
        documents: int | None,
        seconds: float,
        chars_per_second: float,
        workers: int,
        most: int,
        min_documents: int = 1,
        max_chars: int = MAX_CHARS,
    ) -> None:
        self._min_documents = min_documents
        self._most = most
        self._max_chars = max_chars
        self._index = index
        self._documents = documents
        self._seconds = seconds
        self.chars_per_second = chars_per_second
        self._workers = workers
        self._waiting = DocumentBatch([], [], [], [], [])
        self._chars = 0
        self._number = 0
        self._measured = False
        self._coming: float | None = None
        self._mean = MEAN_CHARS

    def expect(self, documents: int) -> None:
        """At most so many documents are to come after those given here and to the next `add`."""
        self._coming = documents * self._mean

    def observe(self, chars: int, seconds: float) -> None:
        """A worker embedded so many characters in so many seconds."""
        if seconds <= 0 or not chars:
            return
        rate = chars / seconds
        self.chars_per_second = self.chars_per_second * (1 - SMOOTHING) + rate * SMOOTHING if self._measured else rate
        self._measured = True

    def add(self, page: DocumentBatch) -> Iterator[Shard]:
        """Take documents in, give the shards that are full."""
        given = float(sum(map(len, page.texts)))
        if len(page):
            self._mean = given / len(page)
        target = self._target(given)
        waiting = self._waiting
        for row, text in enumerate(page.texts):
            waiting.keys.append(page.keys[row])
            waiting.texts.append(text)
            waiting.payloads.append(page.payloads[row])
            waiting.text_hashes.append(page.text_hashes[row])
            waiting.payload_hashes.append(page.payload_hashes[row])
            self._chars += len(text)
            given -= len(text)
            if self._full(target):
                yield self._chunk()
                waiting, target = self._waiting, self._target(given)

    def rest(self) -> Iterator[Shard]:
        """What is left, in parts for all workers where each is worth it, smaller ones last."""
        self._coming = 0.0
        waiting, self._waiting, self._chars = self._waiting, DocumentBatch([], [], [], [], []), 0
        yield from self.add(waiting)
        if len(self._waiting):
            yield self._chunk()

    def _target(self, given: float) -> float:
        """Characters that make a shard full, where so many more were given beside those that wait."""
        most = self.chars_per_second * self._seconds
        if self._coming is not None:
            left = self._chars + given + self._coming
            most = min(most, max(left / (2 * self._workers), self.chars_per_second * MIN_SECONDS))
        return min(most, self._max_chars)

    def _full(self, target: float) -> bool:
        if self._documents is not None:
            return len(self._waiting) >= self._documents
        if len(self._waiting) < self._min_documents and self._chars < self._max_chars:
            return False
        return self._chars >= target or len(self._waiting) >= self._most

    def _chunk(self) -> Shard:
        self._number += 1
        shard = Shard(self._index, self._number, self._waiting, self._chars)
        self._waiting, self._chars = DocumentBatch([], [], [], [], []), 0
        return shard
