"""Keeps a Qdrant search index true to a relational source. Plain Python: no Prefect and no Dask in here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_index.retrieve import Retriever

__all__ = ["Retriever"]


def __getattr__(name: str) -> Any:
    """`from rag_index import Retriever`, loaded when it is asked for: importing the package stays cheap."""
    if name == "Retriever":
        from rag_index.retrieve import Retriever

        return Retriever
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
