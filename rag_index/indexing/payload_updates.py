"""Payload updates: documents whose payload alone changed get new payloads on their points, and nothing is embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.keys import point_id
from rag_index.indexing.commit import committing
from rag_index.indexing.points import replaced_payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.documents.batches import DocumentBatch
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.stores import Store

AT_A_TIME = 500
"""Documents whose points are read and written together."""


def update_payloads(
    index: str, ledger: Ledger, store: Store, collection: Collection, changed: DocumentBatch, known: Mapping[str, Known]
) -> list[int]:
    """Replace the payloads of `changed`, whose points are as `known` says; the ledger's rows come last.

    Returns the positions of documents whose points are not as the ledger says: they have to be embedded after all.
    Raises as `Store.retrieve` and `Store.update_payloads`.
    """
    damaged: list[int] = []
    for first in range(0, len(changed), AT_A_TIME):
        some = changed.take(list(range(first, min(first + AT_A_TIME, len(changed)))))
        damaged += [first + row for row in _update_some(index, ledger, store, collection, some, known)]
    return damaged


def _update_some(
    index: str, ledger: Ledger, store: Store, collection: Collection, page: DocumentBatch, known: Mapping[str, Known]
) -> list[int]:
    cid, name = collection.id, collection.name
    ids = {key: [point_id(index, key, number) for number in range(known[key].chunks)] for key in page.keys}
    stored = {p.id: p.payload for p in store.retrieve(name, [i for some in ids.values() for i in some])}
    ours = {point for point, payload in stored.items() if RESERVED_KEY in payload}
    whole = [row for row, key in enumerate(page.keys) if all(i in ours for i in ids[key])]
    ledger.mark_pending(cid, [page.keys[row] for row in whole])
    payloads = [
        (point, replaced_payload(stored[point], page.payloads[row], page.payload_hashes[row]))
        for row in whole
        for point in ids[page.keys[row]]
    ]
    store.update_payloads(name, payloads)
    store.flush(name)
    done = page.take(whole)
    counts = [known[key].chunks for key in done.keys]
    if len(done):
        with committing(ledger, store, collection):
            ledger.record(cid, zip(done.keys, done.text_hashes, done.payload_hashes, counts, strict=True))
    return [row for row in range(len(page)) if row not in set(whole)]
