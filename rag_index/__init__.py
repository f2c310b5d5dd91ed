"""An ETL that keeps a Qdrant index in sync with a database. Only `orchestration` imports Prefect
and Dask."""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` takes as long as Python's own start
if TYPE_CHECKING:
    from typing import Any

    from rag_index.search import Retriever

__all__ = ["Retriever"]


def __getattr__(name: str) -> Any:
    """Load `Retriever` when it is first asked for, so that importing the package stays cheap."""
    if name == "Retriever":
        from rag_index.search import Retriever

        return Retriever
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
