"""The retriever for Haystack (`pip install 'rag-index[haystack]'`)."""

from __future__ import annotations

from typing import Any, Unpack

from haystack import Document, component, default_from_dict, default_to_dict

from rag_index.frameworks import SearchOptions, parts_of
from rag_index.retrieve import Retriever, SearchResult


@component
class RagIndexRetriever:
    """Finds the documents of a project, as a component of a pipeline.

    RagIndexRetriever("rag-index.toml", indexes=["comments"], limit=5)

    The settings file (by default RAG_INDEX_CONFIG, or rag-index.toml here or above) is read by the first run, so that a
    pipeline can be saved. Raises as `Retriever.search`.
    """

    def __init__(self, config: str | None = None, **options: Unpack[SearchOptions]) -> None:
        self._config = config
        self._options = options
        self._retriever: Retriever | None = None

    def warm_up(self) -> None:
        """Read the settings. A pipeline calls it before its first run."""
        self._open()

    def close(self) -> None:
        """Close store and models. The next run opens them again."""
        retriever, self._retriever = self._retriever, None
        if retriever is not None:
            retriever.close()

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, list[Document]]:
        """Return `documents`. What is given here comes before the options; `filters` are those of rag-index."""
        return _found(self._open().search_sync(query, **self._arguments(filters, top_k, groups)))

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, list[Document]]:
        """Return what `run` returns."""
        return _found(await self._open().search(query, **self._arguments(filters, top_k, groups)))

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a pipeline saves it."""
        saved: dict[str, Any] = default_to_dict(self, config=self._config, **self._options)
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagIndexRetriever:
        """Return a component that was saved."""
        made: RagIndexRetriever = default_from_dict(cls, data)
        return made

    def _open(self) -> Retriever:
        self._retriever = self._retriever or Retriever.from_settings(self._config)
        return self._retriever

    def _arguments(self, filters: dict[str, Any] | None, top_k: int | None, groups: list[str] | None) -> dict[str, Any]:
        given = {"filter": filters, "limit": top_k, "groups": groups}
        return {**self._options, **{name: value for name, value in given.items() if value is not None}}


def _found(result: SearchResult) -> dict[str, list[Document]]:
    documents = [
        Document(id=name, content=text, meta=metadata, score=metadata["score"])
        for name, text, metadata in map(parts_of, result.hits)
    ]
    return {"documents": documents}
