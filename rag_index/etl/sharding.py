"""Shards: changed documents, collected until they are worth some seconds of a worker's time. A
mapped task costs about 0.1 s, so a shard must be worth several seconds. Near the end shards get
smaller, so that no worker idles while another finishes (guided self-scheduling, Polychronopoulos
and Kuck 1987). How many are under way at a time is decided in `window`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from rag_index.core.documents.batches import DocumentBatch, Shard
from rag_index.core.machine.resources import weights_of
from rag_index.core.recovery import PATIENCE
from rag_index.core.settings.index import CODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.components.ledger import Collection
    from rag_index.core.settings import IndexSettings, Settings

MAX_SHARD_CHARS = 4_000_000
"""The number of characters for which the local embedder takes two seconds. The tasks of a shard
cost some tenths of a second of processor time in flow, worker and Prefect's server."""
MAX_CHARS_OF_CODE = 700_000
"""Source code has many small chunks, and parsing takes memory as well: with this a worker takes
less than 100 MB."""
SHARD_SECONDS = 5.0
"""How long a shard should take."""
MIN_SHARD_SECONDS = 1.0
FIRST_SECONDS = 0.25
"""How long the first shard of each worker should take where much is to come, so that what writes
has something to write soon; each that follows takes twice as long, up to `SHARD_SECONDS`. For
servers it is a full request at least."""
DOUBLINGS = 20
"""After this many doublings a shard is full at any measured rate."""
MAX_DOCUMENTS = 12_000
"""Even short documents take memory in flow and worker."""
WINDOW_BYTES = 256_000_000
"""What the vectors of all shards under way may take, about four for each worker."""
SMOOTHING = 0.5
MEASURABLE_CHARS = 10_000
"""A shard with fewer characters shows what a shard costs besides, and perhaps the loading of a
model; it may be faster than was assumed, but cannot show that the embedder is slower."""
SMALL_PER_WORKER = 2
"""So many small shards of each worker may take most of their time for the loading of a model."""
MEAN_CHARS = 400.0
FIRST_RATE = {"local": 2_000_000.0, "ollama": 4_000.0}
"""Characters per second that a worker is assumed to embed before anything was measured; others are
like `ollama`."""
CHARS_OF_WEIGHTS, MAX_FIRST_RATE = 1.8e12, 50_000.0
"""Characters per second times bytes of weights of a model in the process, and the most that is
assumed: MiniLM with 90 MB embeds 20,000 (benchmarks/models.py); those with 8-bit weights are about
as fast as their size says."""

FIRST_RATE_OF_CONTEXTS = 1_000.0
MAX_CHARS_WITH_CONTEXTS = 100_000
SPARE_SECONDS = 600.0
TIMES_SLOWER = 30.0
"""How many times slower than measured, or than assumed before that, a shard may be: machines get
busy."""
REQUESTS_IN_A_ROW = 4
"""Requests that may use up their time limit before the wait for recovery begins: one, and three
probes."""


def first_rate(kind: str, model: str) -> float:
    """Return how many characters per second a worker is assumed to embed before anything was
    measured."""
    if kind == "fastembed":
        return min(MAX_FIRST_RATE, CHARS_OF_WEIGHTS / weights_of(model))
    return FIRST_RATE.get(kind, FIRST_RATE["ollama"])


def most(index: IndexSettings, dimension: int, workers: int) -> tuple[int, int]:
    """Return the maximum of characters and documents in a shard, however fast earlier shards were.
    With contexts an earlier shard may have been fast because all its contexts were in the cache. A
    document has a vector for each chunk, and at least one: half of those that memory has room for
    are allowed for either."""
    vectors = WINDOW_BYTES // (4 * workers * 4 * max(1, dimension)) // 2
    chars = MAX_CHARS_OF_CODE if index.kind == CODE else MAX_SHARD_CHARS
    if index.context is not None:
        chars = MAX_CHARS_WITH_CONTEXTS
    return min(chars, vectors * (index.chunk_chars - index.chunk_overlap)), max(
        1, min(MAX_DOCUMENTS, vectors)
    )


def hang_limit(
    settings: Settings, index: IndexSettings, chars: int, chars_per_second: float
) -> float:
    """Return the seconds that a shard may take, after which its process ends itself: it hangs. A
    process that does not hang and is ended costs little: its shard is run again in parts, which
    have a limit each."""
    embedder = settings.embedder
    seconds = SPARE_SECONDS + TIMES_SLOWER * chars / max(1.0, chars_per_second)
    if embedder.on_servers:
        seconds += REQUESTS_IN_A_ROW * embedder.timeout + PATIENCE
    if index.context is not None:
        seconds += REQUESTS_IN_A_ROW * index.context.timeout + PATIENCE
    return seconds


def measurable_chars(chars: int) -> int:
    """Return the characters to divide by the seconds of a shard for the greatest rate that these
    allow for.

    Most of the seconds of a small shard may be what it costs besides: 1,600 characters in 0.4 s, in
    which the model was loaded, are 25,000 a second, not 4,000.
    """
    return max(chars, MEASURABLE_CHARS)


class Sharder:
    """Collects documents into shards. `documents` (`[parallel] shard_documents`) fixes the size of
    a shard. If it is `auto`, a shard aims at five seconds by the measured rate, as far as there are
    documents and memory allows."""

    def __init__(
        self,
        index: str,
        documents: int | Literal["auto"],
        *,
        chars_per_second: float,
        workers: int,
        most: tuple[int, int] = (MAX_SHARD_CHARS, MAX_DOCUMENTS),
        limit: Callable[[int, float], float | None] = lambda chars, chars_per_second: None,
    ) -> None:
        """`most` is the maximum of characters and documents. `limit` returns how long characters
        may take."""
        self._index, self._workers = index, workers
        self._max_chars, self._max_documents = most
        self._documents, self._limit = None if documents == "auto" else documents, limit
        self.suspects: set[str] = set()
        """Keys of documents that may kill the process that embeds them."""
        self.ends_server: set[str] = set()
        """Keys of documents that are listed because a text of them ends the embedding server."""
        self.chars_per_second = chars_per_second
        self.measured: float | None = None
        """The characters per second that shards of this run showed; None if no shard said
        anything."""
        self.first = 0
        """The characters of the first shard."""
        self.last: float | None = None
        """The same of the last shard, however small it was. The first small ones may have loaded a
        model: theirs is at most this."""
        self._small = 0
        """How many shards had fewer than `MEASURABLE_CHARS`."""
        self._waiting = DocumentBatch.empty()
        self._pages: list[int] = []
        """The page of each document that waits."""
        self._chars = 0
        self._number = 0
        self._coming: float | None = None
        self._least: int | None = None
        self.mean: float = MEAN_CHARS
        """How many characters the documents of the last page had in the mean."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        index: IndexSettings,
        kind: str,
        collection: Collection,
        *,
        workers: int,
    ) -> Sharder:
        """Return the sharder of a run whose embedder is of this kind, and embeds `workers` shards
        at a time."""
        rate = collection.chars_per_second or first_rate(kind, settings.embedder.model)
        if index.context is not None:  # they may not have been written when it was measured
            rate = min(rate, FIRST_RATE_OF_CONTEXTS)
        return cls(
            index.name,
            settings.parallel.shard_documents,
            chars_per_second=rate,
            workers=workers,
            most=most(index, collection.dimension, workers),
            limit=partial(hang_limit, settings, index),
        )

    def begin_small(self, least: int = 0) -> None:
        """Make the first shards small, of `least` characters at least, so that writing can begin
        soon."""
        self._least = least

    def expect(self, documents: int) -> None:
        """Take note that at most `documents` will follow those of the next `add`."""
        self._coming = documents * self.mean

    def observe(self, chars: int, seconds: float) -> None:
        """Take note that a worker embedded `chars` characters in `seconds`."""
        if seconds <= 0 or not chars:
            return
        rate = chars / seconds
        self._small += chars < MEASURABLE_CHARS
        loads_models = self._small <= SMALL_PER_WORKER * self._workers
        self.last = measurable_chars(chars) / seconds if loads_models else rate
        if chars < MEASURABLE_CHARS and rate < self.chars_per_second:
            return
        self.chars_per_second = (
            self.chars_per_second * (1 - SMOOTHING) + rate * SMOOTHING if self.measured else rate
        )
        self.measured = self.chars_per_second

    def add(self, batch: DocumentBatch, page: int = 1) -> Iterator[Shard]:
        """Add documents of the page of this number, and yield the shards that are full. One that
        ends the embedding server is a shard of its own."""
        alone = [row for row, key in enumerate(batch.keys) if key in self.ends_server]
        for row in alone:
            yield self._shard_alone(batch.take([row]), page)
        if alone:
            batch = batch.take(
                [row for row, key in enumerate(batch.keys) if key not in self.ends_server]
            )
        self._pages += [page] * len(batch)
        yield from self._divide(batch)

    def _divide(self, batch: DocumentBatch) -> Iterator[Shard]:
        given = float(sum(map(len, batch.texts)))
        if len(batch):
            self.mean = given / len(batch)
        target, first = self._target(given), 0
        for row, text in enumerate(batch.texts):
            self._chars += len(text)
            given -= len(text)
            if self._is_full(len(self._waiting) + row + 1 - first, target):
                yield self._next_shard(batch.take(list(range(first, row + 1))))
                target, first = self._target(given), row + 1
        self._waiting = self._waiting.plus(batch.take(list(range(first, len(batch)))))

    def rest(self) -> list[Shard]:
        """Return what is left, divided among all workers if that is worth it, the smallest shards
        last."""
        self.expect(0)
        waiting, self._waiting, self._chars = self._waiting, DocumentBatch.empty(), 0
        shards = list(self._divide(waiting))
        return [*shards, self._next_shard(DocumentBatch.empty())] if len(self._waiting) else shards

    def _target(self, given: float) -> float:
        target = min(self.chars_per_second * SHARD_SECONDS, self._max_chars)
        if self._least is not None:
            first = max(self._least, self.chars_per_second * FIRST_SECONDS)
            target = min(target, first * 2.0 ** min(DOUBLINGS, self._number // self._workers))
        if self._coming is not None:
            left = self._chars + given + self._coming
            target = min(
                target, max(left / (2 * self._workers), self.chars_per_second * MIN_SHARD_SECONDS)
            )
        return target

    def _is_full(self, documents: int, target: float) -> bool:
        if self._documents is not None:
            return documents >= self._documents
        return self._chars >= target or documents >= self._max_documents

    def _next_shard(self, last: DocumentBatch) -> Shard:
        self._number += 1
        self.first = self.first or self._chars
        documents = self._waiting.plus(last)
        pages, self._pages = self._pages[: len(documents)], self._pages[len(documents) :]
        shard = Shard(
            self._index,
            self._number,
            documents,
            self._chars,
            pages=tuple(sorted(set(pages))),
            suspect=self._is_suspect(documents),
            limit=self._limit(self._chars, self.chars_per_second),
        )
        self._waiting, self._chars = DocumentBatch.empty(), 0
        return shard

    def _shard_alone(self, document: DocumentBatch, page: int) -> Shard:
        self._number += 1
        chars = len(document.texts[0])
        limit = self._limit(chars, self.chars_per_second)
        return Shard(
            self._index,
            self._number,
            document,
            chars,
            pages=(page,),
            suspect=True,
            ends_server=True,
            limit=limit,
        )

    def _is_suspect(self, documents: DocumentBatch) -> bool:
        return not self.suspects.isdisjoint(documents.keys)
