"""The retriever for LlamaIndex (the extra `llama-index` brings what it needs)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rag_index.search.frameworks import SearchOptions, Service, found_in

if TYPE_CHECKING:
    from rag_index.search import Retriever, SearchResult


class RagIndexRetriever(BaseRetriever):
    """Finds the documents of a project. Raises as `Retriever.search`.

    `Service(url, token)` is a retriever that sends its searches to a `rag-index serve`.

    Example:
        RagIndexRetriever(Retriever.from_settings(), indexes=["comments"]).retrieve("printer")
    """

    def __init__(self, retriever: Retriever | Service, **options: Unpack[SearchOptions]) -> None:
        super().__init__()
        self._retriever = retriever
        self._options = options

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = query_bundle.query_str
        return _nodes(self._retriever.search_sync(query, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = query_bundle.query_str
        return _nodes(await self._retriever.search(query, **self._options))


def _nodes(result: SearchResult | dict[str, Any]) -> list[NodeWithScore]:
    nodes = list[NodeWithScore]()
    found, _ = found_in(result)
    for hit in found:
        # If the payload has a field `score`, ours has another name.
        score = hit.metadata.get("rag_index_score", hit.metadata["score"])
        node = TextNode(id_=hit.name, text=hit.text, metadata=hit.metadata)
        nodes.append(NodeWithScore(node=node, score=score))
    return nodes
