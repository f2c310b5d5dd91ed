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
    """Finds the documents of a project.

    RagIndexRetriever(retriever=Retriever.from_settings(), options={"indexes": ["comments"],
    "limit": 5})

    `Service(url, token)` is a retriever that asks a `rag-index serve`. Arguments of a call, such as
    `retriever.invoke("printer offline", groups=["staff"])`, come before the options. Raises as
    `Retriever.search`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Retriever | Service
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `Retriever.search`: see `SearchOptions`."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: Any, **given: Any
    ) -> list[Document]:
        return _documents(self.retriever.search_sync(query, **{**self.options, **given}))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, **given: Any
    ) -> list[Document]:
        return _documents(await self.retriever.search(query, **{**self.options, **given}))


def _documents(result: SearchResult | dict[str, Any]) -> list[Document]:
    return [
        Document(text, id=name, metadata=metadata) for name, text, metadata in found_in(result)[0]
    ]
