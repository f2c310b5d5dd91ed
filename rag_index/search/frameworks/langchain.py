"""The retriever for LangChain (the extra `langchain` brings what it needs)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from rag_index.search import Retriever  # noqa: TC001 - pydantic reads the annotation
from rag_index.search.frameworks import Service, found_in

if TYPE_CHECKING:
    from rag_index.search import SearchResult


class RagIndexRetriever(BaseRetriever):
    """Finds the documents of a project. Raises as `Retriever.search`.

    Arguments of a call, such as `retriever.invoke("printer offline", groups=["staff"])`, override
    the options. `Service(url, token)` is a retriever that sends its searches to a `rag-index serve`.

    Example:
        RagIndexRetriever(retriever=Retriever.from_settings(), options={"indexes": ["comments"]})
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Retriever | Service
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `Retriever.search`: see `SearchOptions`."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: Any, **given: Any
    ) -> list[Document]:
        options = {**self.options, **given}
        return _documents(self.retriever.search_sync(query, **options))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, **given: Any
    ) -> list[Document]:
        options = {**self.options, **given}
        return _documents(await self.retriever.search(query, **options))


def _documents(result: SearchResult | dict[str, Any]) -> list[Document]:
    found, _ = found_in(result)
    return [Document(hit.text, id=hit.name, metadata=hit.metadata) for hit in found]
