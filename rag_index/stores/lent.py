"""A store that is lent: whoever gets it may close it, and it stays open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rag_index.stores import Store


class _Lent:
    """A store without its `close`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        """Do nothing: the owner closes the store."""


def lend(store: Store) -> Store:
    """Return the store for somebody who closes what they use, such as a Retriever; it is the owner's to close."""
    return cast("Store", _Lent(store))
