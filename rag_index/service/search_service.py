"""What the service can do, for whoever asks and however they ask: search, read a document, list the indexes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.errors import StoreError
from rag_index.service.answers import Freshness, SearchAnswer
from rag_index.service.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.retrieve import Document, MetricsSnapshot, Retriever
    from rag_index.service.answers import IndexInfo
    from rag_index.service.requests import Caller, SearchRequest
    from rag_index.settings import Settings

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
