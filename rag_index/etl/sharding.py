"""Shards: changed documents, collected until they are worth some seconds of a worker's time.

A mapped task costs about 0.1 s, so a shard must be worth several seconds. Near the end shards get
smaller, so that no worker idles while another finishes (guided self-scheduling, Polychronopoulos
and Kuck 1987). The size of the next shard is decided in `Sharder._target`, and how many are under
way at a time in `window`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from rag_index.core.documents.batches import DocumentBatch, Shard
from rag_index.core.machine.resources import weights_of
from rag_index.core.recovery import PATIENCE
from rag_index.core.settings.index import CODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.components.ledger import Collection
    from rag_index.core.settings import IndexSettings, Settings

MAX_SHARD_CHARS = 4_000_000
"""The number of characters for which the local embedder takes two seconds. The tasks of a shard
cost some tenths of a second of processor time in flow, worker and Prefect's server."""
MAX_CHARS_OF_CODE = 700_000
"""Source code has many small chunks, and parsing takes memory as well: with this a worker takes
less than 100 MB."""
SHARD_SECONDS = 5.0
"""How long a shard should take: fifty times what its tasks cost."""
MIN_SHARD_SECONDS = 1.0
"""How long the last shards should take at least: ten times what their tasks cost."""
FIRST_SECONDS = 0.25
"""How long the first shard of each worker should take where much is to come, so that what writes
has something to write soon; each that follows takes twice as long, up to `SHARD_SECONDS`. For
servers it is a full request at least."""
DOUBLINGS = 20
"""After this many doublings a shard is full at any measured rate."""
MAX_DOCUMENTS = 12_000
"""Documents of a shard: even short ones take memory in flow and worker."""
WINDOW_BYTES = 256_000_000
"""Bytes that the vectors of all shards under way may take. Chosen: a part of the memory that a
small machine has."""
UNDER_WAY_PER_WORKER = 4
"""Shards that are under way for each worker, about."""
BYTES_PER_NUMBER = 4
"""Bytes of one number of a vector: float32."""
SMOOTHING = 0.5
"""The weight of the last shard in the measured rate. Chosen; nothing depends on it."""
MEASURABLE_CHARS = 10_000
"""A shard with fewer characters shows what a shard costs besides, and perhaps the loading of a
model; it may be faster than was assumed, but cannot show that the embedder is slower."""
SMALL_PER_WORKER = 2
"""So many small shards of each worker may take most of their time for the loading of a model."""
MEAN_CHARS = 400.0
"""Characters that a document is assumed to have before a page was read. Chosen; nothing depends on
it."""
FIRST_RATE = {"local": 2_000_000.0, "ollama": 4_000.0}
"""Characters per second that a worker is assumed to embed before anything was measured; others are
like `ollama`."""
CHARS_OF_WEIGHTS, MAX_FIRST_RATE = 1.8e12, 50_000.0
"""Characters per second times bytes of weights of a model in the process, and the most that is
assumed: MiniLM with 90 MB embeds 20,000 (benchmarks/models.py); those with 8-bit weights are about
as fast as their size says."""
FIRST_RATE_OF_CONTEXTS = 1_000.0
"""Characters per second if a model writes a context for each chunk. Chosen: a low guess makes the
first shards small."""
MAX_CHARS_WITH_CONTEXTS = 100_000
"""Characters of a shard with contexts, however fast the last one was: its contexts may have been in
the cache."""
SPARE_SECONDS = 600.0
"""Seconds that any shard may take, such as for loading a model. Chosen; nothing depends on it."""
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


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """What a shard has at most, however fast earlier shards were."""

    chars: int
    documents: int


def shard_limits(index: IndexSettings, dimension: int, workers: int) -> ShardLimits:
    """Return the limits of a shard of an index, whose vectors have this dimension.

    A document has a vector for each chunk, and at least one. Half of the vectors that memory has
    room for are allowed by the number of characters, and half by the number of documents.
    """
    bytes_per_vector = BYTES_PER_NUMBER * max(1, dimension)
    vectors = WINDOW_BYTES // (UNDER_WAY_PER_WORKER * workers * bytes_per_vector) // 2
    if index.context is not None:
        max_chars = MAX_CHARS_WITH_CONTEXTS
    elif index.kind == CODE:
        max_chars = MAX_CHARS_OF_CODE
    else:
        max_chars = MAX_SHARD_CHARS
    new_chars_per_chunk = index.chunk_chars - index.chunk_overlap
    return ShardLimits(
        chars=min(max_chars, vectors * new_chars_per_chunk),
        documents=max(1, min(MAX_DOCUMENTS, vectors)),
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


DEFAULT_LIMITS = ShardLimits(MAX_SHARD_CHARS, MAX_DOCUMENTS)


class Sharder:
    """Collects documents into shards.

    Args:
        documents: The size of a shard (`[parallel] shard_documents`). If it is `auto`, a shard aims
            at five seconds by the measured rate, as far as there are documents and memory allows.
        limits: What a shard has at most.
        limit: Returns the seconds that so many characters may take at a rate, or None.
    """

    def __init__(
        self,
        index: str,
        documents: int | Literal["auto"],
        *,
        chars_per_second: float,
        workers: int,
        limits: ShardLimits = DEFAULT_LIMITS,
        limit: Callable[[int, float], float | None] = lambda chars, chars_per_second: None,
    ) -> None:
        self._index, self._workers = index, workers
        self._limits, self._limit = limits, limit
        self._fixed_documents = None if documents == "auto" else documents
        self.suspects: set[str] = set()
        """Keys of documents that may kill the process that embeds them."""
        self.ends_server: set[str] = set()
        """Keys of documents that are listed because a text of them ends the embedding server."""
        self.chars_per_second = chars_per_second
        self.measured: float | None = None
        """The characters per second that shards of this run showed. None if no shard was large
        enough to show it."""
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
        """The characters that later pages may have, about. None if that is unknown."""
        self._least: int | None = None
        """The characters that the first, small shards have at least. None if they are not small."""
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
        if index.context is not None:
            # The rate may have been measured without contexts, or with those of the cache.
            rate = min(rate, FIRST_RATE_OF_CONTEXTS)
        return cls(
            index.name,
            settings.parallel.shard_documents,
            chars_per_second=rate,
            workers=workers,
            limits=shard_limits(index, collection.dimension, workers),
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
        is_small = chars < MEASURABLE_CHARS
        self._small += is_small
        loads_models = self._small <= SMALL_PER_WORKER * self._workers
        self.last = measurable_chars(chars) / seconds if loads_models else rate
        # 1,600 characters in 0.4 s: most of that was no embedding.
        if is_small and rate < self.chars_per_second:
            return
        # The last shard counts for half of the measured rate.
        if self.measured:
            rate = self.chars_per_second * (1 - SMOOTHING) + rate * SMOOTHING
        self.chars_per_second = self.measured = rate

    def add(self, batch: DocumentBatch, page: int = 1) -> Iterator[Shard]:
        """Add documents of the page of this number, and yield the shards that are full.

        A document that ends the embedding server is a shard of its own.
        """
        alone: list[int] = []
        others: list[int] = []
        for row, key in enumerate(batch.keys):
            rows = alone if key in self.ends_server else others
            rows.append(row)
        for row in alone:
            yield self._shard_alone(batch.take([row]), page)
        if alone:
            batch = batch.take(others)
        self._pages += [page] * len(batch)
        yield from self._divide(batch)

    def _divide(self, batch: DocumentBatch) -> Iterator[Shard]:
        """Add documents to those that wait, and yield the shards that are full."""
        chars_left = float(sum(map(len, batch.texts)))
        if len(batch):
            self.mean = chars_left / len(batch)
        target = self._target(chars_left)
        first = 0
        for row, text in enumerate(batch.texts):
            self._chars += len(text)
            chars_left -= len(text)
            end = row + 1
            if self._is_full(len(self._waiting) + end - first, target):
                yield self._next_shard(batch.take(list(range(first, end))))
                target, first = self._target(chars_left), end
        rest = batch.take(list(range(first, len(batch))))
        self._waiting = self._waiting.plus(rest)

    def rest(self) -> list[Shard]:
        """Return what is left, divided among all workers if that is worth it, the smallest shards
        last."""
        self.expect(0)
        waiting, self._waiting, self._chars = self._waiting, DocumentBatch.empty(), 0
        shards = list(self._divide(waiting))
        if len(self._waiting):
            shards.append(self._next_shard(DocumentBatch.empty()))
        return shards

    def _target(self, chars_left: float) -> float:
        """Return how many characters make the next shard full; `chars_left` of the page are not in
        a shard yet."""
        target = min(self.chars_per_second * SHARD_SECONDS, self._limits.chars)
        # The first shards of a long run are small. With 2 workers, the first two take 0.25 s, the
        # next two 0.5 s, and so on.
        if self._least is not None:
            first = max(self._least, self.chars_per_second * FIRST_SECONDS)
            doublings = min(DOUBLINGS, self._number // self._workers)
            target = min(target, first * 2.0**doublings)
        # Near the end a shard is half of its worker's share of what is to come, but takes at least
        # a second.
        if self._coming is not None:
            to_come = self._chars + chars_left + self._coming
            half_share = to_come / (2 * self._workers)
            least = self.chars_per_second * MIN_SHARD_SECONDS
            target = min(target, max(half_share, least))
        return target

    def _is_full(self, documents: int, target: float) -> bool:
        if self._fixed_documents is not None:
            return documents >= self._fixed_documents
        return self._chars >= target or documents >= self._limits.documents

    def _next_shard(self, last: DocumentBatch) -> Shard:
        """Return the shard of the documents that wait, and these last ones."""
        self.first = self.first or self._chars
        documents = self._waiting.plus(last)
        count = len(documents)
        pages, self._pages = self._pages[:count], self._pages[count:]
        shard = self._make(documents, self._chars, pages, suspect=self._is_suspect(documents))
        self._waiting, self._chars = DocumentBatch.empty(), 0
        return shard

    def _shard_alone(self, document: DocumentBatch, page: int) -> Shard:
        """Return the shard of a document that ends the embedding server."""
        chars = len(document.texts[0])
        return self._make(document, chars, [page], suspect=True, ends_server=True)

    def _make(
        self,
        documents: DocumentBatch,
        chars: int,
        pages: Iterable[int],
        *,
        suspect: bool,
        ends_server: bool = False,
    ) -> Shard:
        self._number += 1
        return Shard(
            self._index,
            self._number,
            documents,
            chars,
            pages=tuple(sorted(set(pages))),
            suspect=suspect,
            ends_server=ends_server,
            limit=self._limit(chars, self.chars_per_second),
        )

    def _is_suspect(self, documents: DocumentBatch) -> bool:
        return not self.suspects.isdisjoint(documents.keys)
