"""What the service can do, for whoever asks and however they ask: search, read a document, list the indexes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.errors import StoreError
from rag_index.service.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.retrieve import Document, MetricsSnapshot, Retriever, SearchResult
    from rag_index.service.models import Caller, SearchRequest
    from rag_index.settings import Settings


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old the content of an index is.

    `complete_at` is when a run last ended with everything in the index that the source had (ISO, UTC), and
    `age_seconds` how long ago that is; both are None if no run did. `last_run` is the state of the newest run:
    running, completed, partial, failed or, if its process died, interrupted; None if there was none.
    """

    complete_at: str | None = None
    age_seconds: int | None = None
    last_run: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that is part of every answer."""
        return {"complete_at": self.complete_at, "age_seconds": self.age_seconds, "last_run": self.last_run}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A payload field that filters may name; `kind` is that of its payload index, None without one."""

    name: str
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index of the settings: what can be asked of it, and what it holds.

    `fields` is None if only the index's own source knows its fields. `documents` and `chunks` are None where counts
    are not told: for an index with access rights.
    """

    name: str
    kind: str
    language: str
    search: str
    fields: tuple[FieldInfo, ...] | None
    documents: int | None
    chunks: int | None
    freshness: Freshness
    live: bool = True
    """Whether the index can be searched; False before its first run."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `GET /indexes` lists."""
        fields = None if self.fields is None else [{"name": one.name, "kind": one.kind} for one in self.fields]
        return {
            "name": self.name,
            "kind": self.kind,
            "language": self.language,
            "search": self.search,
            "fields": fields,
            "live": self.live,
            "documents": self.documents,
            "chunks": self.chunks,
            "freshness": self.freshness.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search, with the freshness of each index that was searched."""

    result: SearchResult
    freshness: Mapping[str, Freshness] = field(default_factory=dict)

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the object that `POST /search` answers."""
        fresh = {index: one.to_json() for index, one in self.freshness.items()}
        return {**self.result.to_json(explain=explain), "freshness": fresh}


logger = logging.getLogger(__name__)


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

    async def search(self, request: SearchRequest, caller: Caller) -> SearchAnswer:
        """Return the documents that fit a query best, of those that the caller may see.

        Raises what `Retriever.search` raises: SettingsError for what the caller got wrong.
        """
        if self._settings.serve.log_queries:
            logger.info("%s searches for %r", caller.name or "somebody", request.query)
        result = await self._retriever.search(
            request.query,
            indexes=request.indexes,
            limit=request.limit,
            filter=request.filter,
            groups=caller.groups,
            timeout=request.timeout,
            fusion=request.fusion,
            dense_weight=request.dense_weight,
            rerank=request.rerank,
        )
        return SearchAnswer(result, await self.freshness(result.collections))

    async def document(self, index: str, document_id: str, caller: Caller) -> Document:
        """Return a document that the caller may see.

        Raises UnknownIndex, DocumentNotFound (also for a document that is not for the caller), and other RagIndexError.
        """
        return await self._retriever.document(index, document_id, groups=caller.groups)

    async def indexes(self, caller: Caller) -> list[IndexInfo]:
        """Return the indexes of the settings. Raises what ledger and store raise."""
        return await self._catalog.indexes()

    async def freshness(self, indexes: Iterable[str]) -> Mapping[str, Freshness]:
        """Return the freshness of these indexes; unknown (None) where the ledger does not answer."""
        known = await self._catalog.freshness()
        return {index: known.get(index, Freshness()) for index in indexes}

    async def check_ready(self) -> None:
        """Raise StoreError if no index can be searched, and what ledger and store raise if they do not answer."""
        if not await self._catalog.live():
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")

    def metrics(self) -> MetricsSnapshot:
        """Return the measurements of all searches so far."""
        return self._retriever.metrics()
