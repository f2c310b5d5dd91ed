"""The retriever for LlamaIndex (the extra `llama-index` brings what it needs)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rag_index.search.frameworks import SearchOptions, Service, found_in

if TYPE_CHECKING:
    from rag_index.search import Retriever, SearchResult


class RagIndexRetriever(BaseRetriever):
    """Finds the documents of a project.

    RagIndexRetriever(Retriever.from_settings(), indexes=["comments"], limit=5).retrieve("printer
    offline")

    `Service(url, token)` is a retriever that asks a `rag-index serve`. Raises as
    `Retriever.search`.
    """

    def __init__(self, retriever: Retriever | Service, **options: Unpack[SearchOptions]) -> None:
        super().__init__()
        self._retriever = retriever
        self._options = options

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._retriever.search_sync(query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self._retriever.search(query_bundle.query_str, **self._options))


def _nodes(result: SearchResult | dict[str, Any]) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(id_=name, text=text, metadata=metadata),
            score=metadata.get("rag_index_score", metadata["score"]),
        )
        for name, text, metadata in found_in(result)[0]
    ]
