"""Deleting documents: they are marked pending, deleted in the store, flushed, and only then deleted in the ledger.

What a run must not delete is held back by the `delete_guard`, which `Scan.delete_gone` asks first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.indexing.commit import committing
from rag_index.indexing.points import delete_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store


def delete_gone(
    ledger: Ledger, store: Store, collection: Collection, index: str, *, note: Callable[[list[str]], None]
) -> Iterator[int]:
    """Delete what the scan did not see, and the points of emptied documents; yield the size of each batch.

    `note` is told of each batch of unseen documents before anything of it is deleted. Raises as the store and the
    ledger do; what was deleted by then is committed.
    """
    while keys := ledger.gone(collection.id):
        note(keys)
        _delete(ledger, store, collection, index, keys)
        yield len(keys)
    yield from _delete_emptied(ledger, store, collection, index)


def delete_named(
    ledger: Ledger, store: Store, collection: Collection, index: str, keys: Sequence[str]
) -> Iterator[int]:
    """Delete these documents, and the points of emptied ones; yield the size of each batch."""
    if keys:
        _delete(ledger, store, collection, index, keys)
        yield len(keys)
    yield from _delete_emptied(ledger, store, collection, index)


def _delete_emptied(ledger: Ledger, store: Store, collection: Collection, index: str) -> Iterator[int]:
    while rows := ledger.emptied(collection.id):
        keys = [row[0] for row in rows]
        _delete_points(ledger, store, collection, index, keys)
        with committing(ledger, store, collection):
            ledger.record(collection.id, [(*row, 0) for row in rows])
        ledger.forget_emptied(keys)
        yield len(keys)


def _delete(ledger: Ledger, store: Store, collection: Collection, index: str, keys: Sequence[str]) -> None:
    _delete_points(ledger, store, collection, index, keys)
    with committing(ledger, store, collection):
        ledger.forget(collection.id, keys)


def _delete_points(ledger: Ledger, store: Store, collection: Collection, index: str, keys: Sequence[str]) -> None:
    known = ledger.known(collection.id, keys)
    ledger.mark_pending(collection.id, keys)
    delete_chunks(store, collection.name, index, ((key, 0, known.get(key)) for key in keys))
    store.flush(collection.name)
