"""An ETL that keeps a Qdrant index in sync with a database.

`etl` runs an index, `search` answers queries, `components` has sources, embedders, chunkers, stores
and the ledger, and `core` the terms that all share. `first_run` writes settings for a database,
`watch` notices changes, `care` shows and repairs indexes, and `cli` has the commands. Only
`orchestration`, `tasks` and `flows` import Prefect and Dask. `lint-imports` checks these layers,
and `tests/test_imports.py` that a run imports nothing of a search.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` takes as long as Python's own start
if TYPE_CHECKING:
    from typing import Any

    from rag_index.search import Retriever

__all__ = ["Retriever"]


def __getattr__(name: str) -> Any:
    """Load `Retriever` at its first use, so that importing the package stays cheap."""
    if name == "Retriever":
        from rag_index.search import Retriever

        return Retriever
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
