"""What the service can do, for whoever asks and however they ask: search, read a document, list the indexes."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rag_index.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.errors import RagIndexError, SettingsError, StoreError
from rag_index.ledger import Ledger
from rag_index.ledger.lease import run_state
from rag_index.service.models import UNKNOWN, FieldInfo, Freshness, IndexInfo
from rag_index.settings.index import CODE
from rag_index.status.reports import iso_time
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.retrieve import Document, MetricsSnapshot, Retriever, SearchResult
    from rag_index.retrieve.results import DocumentChunk
    from rag_index.service.models import Caller, DocumentQuery
    from rag_index.settings import IndexSettings, Settings

SECONDS = 5.0
"""How long what was read is told again."""

OLD_SECONDS = 3 * SECONDS
"""How long searches are told what was read while it is read again. Waiting for that would make one search in thirty
slow in a service that is asked six times a second."""

PATIENCE = 0.5
"""How long a search waits for the ledger, in seconds. Its hits do not depend on it."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What ledger and store say of one index. A collection that the ledger does not know has no counts."""

    live: bool = False
    documents: int | None = None
    points: int | None = None
    complete_at: float = 0.0
    last_run: str | None = None


class Catalog:
    """The indexes of a project, for the coroutines of one event loop. However many ask, one reads."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._entries: Mapping[str, _Entry] = {}
        self._read_at = self._started_at = -float("inf")
        self._reading: asyncio.Task[Mapping[str, _Entry]] | None = None

    async def indexes(self) -> list[IndexInfo]:
        """Return all indexes of the settings, in their order. Raises what ledger and store raise."""
        entries = await self._current()
        return [self._info(index, entries[index.name]) for index in self._settings.indexes]

    async def live(self) -> list[str]:
        """Return the indexes that can be searched. Raises what ledger and store raise."""
        return [name for name, entry in (await self._current()).items() if entry.live]

    async def freshness(self) -> dict[str, Freshness]:
        """Return the freshness of each index, as last known if ledger or store do not answer at once; raises nothing.

        What is known and not old is told at once, and read again behind the search. Else searches of the first moments
        of a reading wait for it, and no others: one that hangs must not slow down all of them.
        """
        if self._clock() - self._read_at < OLD_SECONDS:
            self._read_behind()
            return {name: self._freshness(entry) for name, entry in self._entries.items()}
        left = self._started_at + PATIENCE - self._clock()
        if self._reading is None or left > 0 or self._reading.done():
            with suppress(RagIndexError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._current(retry=False)
        return {name: self._freshness(entry) for name, entry in self._entries.items()}

    def _read_behind(self) -> None:
        """Start a reading for whoever asks next, if it is time for one."""
        if self._clock() - self._started_at >= SECONDS and (self._reading is None or self._reading.done()):
            self._start_reading()

    async def _current(self, *, retry: bool = True) -> Mapping[str, _Entry]:
        """Return what is known, read again if that was long ago; after an error only if `retry`."""
        read_at = self._read_at if retry else self._started_at
        if self._clock() - read_at < SECONDS and (self._reading is None or self._reading.done()):
            return self._entries
        reading = self._reading
        if reading is None or reading.done():
            reading = self._start_reading()
        return await asyncio.shield(reading)

    def _start_reading(self) -> asyncio.Task[Mapping[str, _Entry]]:
        self._started_at = self._clock()
        self._reading = asyncio.create_task(self._refresh())
        self._reading.add_done_callback(_retrieve_error)
        return self._reading

    async def _refresh(self) -> Mapping[str, _Entry]:
        self._entries = await asyncio.to_thread(self._read)
        self._read_at = self._clock()
        return self._entries

    def _read(self) -> dict[str, _Entry]:
        settings = self._settings
        live = live_aliases(settings.store, settings.aliases)
        with closing(Ledger(settings.ledger_url)) as ledger:
            return {
                index.name: _entry(ledger, settings.alias(index.name), live.get(settings.alias(index.name)))
                for index in settings.indexes
            }

    def _freshness(self, entry: _Entry) -> Freshness:
        if not entry.complete_at:
            return Freshness(None, None, entry.last_run)
        age = max(0, round(self._clock() - entry.complete_at))
        return Freshness(iso_time(entry.complete_at), age, entry.last_run)

    def _info(self, index: IndexSettings, entry: _Entry) -> IndexInfo:
        told = index.access is None
        kinds = index.indexed_fields
        fields = None if index.fields is None else tuple(FieldInfo(name, kinds.get(name)) for name in index.fields)
        return IndexInfo(
            index.name,
            index.kind,
            index.language,
            index.search,
            fields,
            entry.live,
            entry.documents if told else None,
            entry.points if told else None,
            self._freshness(entry),
        )


def _entry(ledger: Ledger, alias: str, name: str | None) -> _Entry:
    run = ledger.last_run(alias)
    state = run_state(ledger, run) if run else None
    collection = ledger.collection(name) if name else None
    if collection is None:
        return _Entry(live=True, last_run=state) if name else _Entry(documents=0, points=0, last_run=state)
    totals = ledger.totals(collection.id)
    return _Entry(True, totals.documents, totals.points, collection.whole_at, state)


def _retrieve_error(reading: asyncio.Task[Mapping[str, _Entry]]) -> None:
    """Look at the error of a reading that nobody waits for any more: asyncio would log it otherwise."""
    if not reading.cancelled():
        reading.exception()


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search, with the freshness of each index that was searched."""

    result: SearchResult
    freshness: Mapping[str, Freshness] = field(default_factory=dict)

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the object that `POST /search` answers."""
        fresh = {index: one.to_json() for index, one in self.freshness.items()}
        return {**self.result.to_json(explain=explain), "freshness": fresh}


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """Some chunks of a document, in order, and how to go on.

    `next_chunk` is the chunk after them, None after the last. If words were looked for, `matched` has those of each
    chunk by its number, also of chunks that are left out because others have more.
    """

    document: Document
    total_chunks: int
    next_chunk: int | None
    matched: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `GET /documents/{index}/{id}` answers, without the freshness."""
        plain = self.document.to_json()
        for chunk in plain["chunks"] if self.matched else []:
            chunk["matched"] = list(self.matched[chunk["chunk"]])
        return {**plain, "total_chunks": self.total_chunks, "next_chunk": self.next_chunk}


def _part(document: Document, wanted: DocumentQuery, index: IndexSettings) -> DocumentPart:
    """Return the chunks that are wanted; the most wanted first, as many whole ones as fit, and one at least."""
    chunks = {chunk.chunk: chunk for chunk in document.chunks}
    last = max(chunks)
    matched: dict[int, Sequence[str]] = {}
    for name, first in (("first_chunk", wanted.first_chunk), ("around", wanted.around or 0)):
        if first > last:
            raise SettingsError(f"{name} is {first}, but the chunks of the document are 0 to {last}")
    if wanted.find is not None:
        matched = _find(chunks, wanted.find, index)
        order = sorted(matched, key=lambda number: (-len(matched[number]), number))
    elif wanted.around is not None:
        at = wanted.around
        order = sorted(chunks, key=lambda number: (abs(number - at), number < at))
    else:
        order = [number for number in chunks if number >= wanted.first_chunk]
    sizes = accumulate(len(chunks[number].text) for number in order)
    fitting = sum(wanted.max_chars is None or size <= wanted.max_chars for size in sizes)
    numbers = sorted(order[: max(1, fitting)])
    after = [] if wanted.find is not None else [number for number in chunks if number > numbers[-1]]
    part = replace(document, chunks=tuple(chunks[number] for number in numbers))
    return DocumentPart(part, len(chunks), min(after, default=None), matched)


def _find(chunks: Mapping[int, DocumentChunk], words: str, index: IndexSettings) -> dict[int, Sequence[str]]:
    """Return the words that each chunk has, by its number; without chunks that have none.

    Raises SettingsError if there is no word that could be looked for.
    """
    encoder = Bm25Encoder(Bm25Model(index.language, identifiers=index.kind == CODE))
    wanted = encoder.words(words)
    if not wanted:
        raise SettingsError(f"find has no word that could be looked for: {words!r}")
    found = {number: encoder.matched(wanted, chunk.text) for number, chunk in chunks.items()}
    return {number: matched for number, matched in found.items() if matched}


class SearchService:
    """One retriever for all callers. Each call says who asks, and nobody sees more than they may.

    It belongs to one event loop.
    """

    def __init__(self, settings: Settings, retriever: Retriever) -> None:
        self._settings, self._retriever = settings, retriever
        self._catalog = Catalog(settings)

    @property
    def settings(self) -> Settings:
        """Return the settings, whose indexes can be asked."""
        return self._settings

    @property
    def reranks(self) -> bool:
        """Return whether there is a reranker."""
        return self._retriever.reranks

    async def search(self, query: str, caller: Caller, **options: Any) -> SearchAnswer:
        """Return the documents that fit a query best, of those that the caller may see.

        `options` are those of `Retriever.search`, without the groups. Raises what that raises: SettingsError for what
        the caller got wrong.
        """
        if self._settings.serve.log_queries:
            logger.info("%s searches for %r", caller.name or "somebody", query)
        result = await self._retriever.search(query, groups=caller.groups, **options)
        return SearchAnswer(result, await self.freshness(result.collections))

    async def document(self, index: str, document_id: str, caller: Caller, wanted: DocumentQuery) -> DocumentPart:
        """Return the chunks that are wanted of a document that the caller may see.

        Raises UnknownIndex, DocumentNotFound (also for a document that is not for the caller), SettingsError if the
        document has no such chunk or `find` no word, and other RagIndexError.
        """
        found = await self._retriever.document(index, document_id, groups=caller.groups)
        return _part(found, wanted, self._settings.index(index))

    async def indexes(self, caller: Caller) -> list[IndexInfo]:
        """Return the indexes of the settings. Raises what ledger and store raise."""
        closed = self.closed(caller)
        return [replace(one, closed=one.name in closed) for one in await self._catalog.indexes()]

    def closed(self, caller: Caller) -> list[str]:
        """Return the indexes that answer nothing to a caller, who has no groups."""
        return [] if caller.groups else [one.name for one in self._settings.indexes if one.access is not None]

    async def freshness(self, indexes: Iterable[str]) -> Mapping[str, Freshness]:
        """Return the freshness of these indexes; unknown (None) where the ledger does not answer."""
        known = await self._catalog.freshness()
        return {index: known.get(index, UNKNOWN) for index in indexes}

    async def check_ready(self) -> None:
        """Raise StoreError if no index can be searched, and what ledger and store raise if they do not answer."""
        if not await self._catalog.live():
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")

    def metrics(self) -> MetricsSnapshot:
        """Return the measurements of all searches so far."""
        return self._retriever.metrics()
