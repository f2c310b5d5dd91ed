"""Updates of payloads alone, without embedding: what changed beside the text, and who may see a document.

Changes of access do not wait for the rest. A document whose text changed too is embedded later, perhaps never if that
fails, and one that cannot be read keeps the points that it has. Nobody may find it by rights that the source has taken
away meanwhile, so its points get the groups of the source first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.documents.access import access_part, document_payload, groups_in, stored_groups, with_groups
from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import hash_bytes
from rag_index.documents.keys import point_id
from rag_index.errors import StoreRestored
from rag_index.indexing.commit import Committer
from rag_index.indexing.points import replaced_payload

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from rag_index.documents.batches import DocumentBatch
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.sources import SourcePage
    from rag_index.stores import Store

AT_A_TIME = 500
"""Documents whose points are read and written together."""


def outdated_groups(page: SourcePage, known: Mapping[str, Known], settled: Container[str]) -> dict[str, Sequence[str]]:
    """Return the groups of those documents of a page, by key, whose points may have others until they are written.

    `settled` are documents whose payload is updated in any case.
    """
    documents = page.documents
    found = {
        key: groups_in(payload) or ()
        for key, payload, payload_hash in zip(documents.keys, documents.payloads, documents.payload_hashes, strict=True)
        if key not in settled and (row := known.get(key)) and (row.pending or row.payload_hash != payload_hash)
    }
    return {key: groups for key, groups in {**found, **page.groups}.items() if key in known and known[key].chunks}


def update_access(committer: Committer, groups: Mapping[str, Sequence[str]], known: Mapping[str, Known]) -> set[str]:
    """Give the points of these documents these groups, if they have others, and return the documents that had.

    Their text and the rest of their payload stay as they are, in the store and in the ledger. Raises as
    `Store.retrieve` and `Store.update_payloads`.
    """
    updated: set[str] = set()
    keys = list(groups)
    for first in range(0, len(keys), AT_A_TIME):
        some = {key: groups[key] for key in keys[first : first + AT_A_TIME]}
        updated |= _update_some(committer, some, known)
    return updated


def carry_access(index: str, ledger: Ledger, store: Store, live: Collection, other: Collection) -> None:
    """Give the documents of another collection of the index the groups that they have in the live one, or none.

    Whoever cannot see a document in the live one will not see it in the other. Chunks of a dead run that the ledger
    does not explain are deleted, because they may have any groups. Raises StoreRestored, and what the store raises.
    """
    if difference := ledger.different_commits(other, store.commit_mark(other.name)):
        raise StoreRestored(
            f"{difference}, so it may show what nobody may see: `rag-index rebuild {index}` replaces it"
        )
    after, committer = "", Committer(index, ledger, store, other)
    while rows := ledger.rows(other.id, after=after, limit=AT_A_TIME):
        after, known = rows[-1][0], dict(rows)
        store.delete_chunks(other.name, {key: row.chunks for key, row in rows if row.pending})
        shown = {point_id(index, key, 0): key for key in ledger.known(live.id, list(known))}
        groups: dict[str, Sequence[str]] = {key: () for key, row in rows if row.chunks}
        for point in store.retrieve(live.name, list(shown)):
            if shown[point.id] in groups:
                groups[shown[point.id]] = stored_groups(point.payload) or ()
        update_access(committer, groups, known)


def _update_some(committer: Committer, groups: Mapping[str, Sequence[str]], known: Mapping[str, Known]) -> set[str]:
    store, name = committer.store, committer.collection.name
    ids = {key: [point_id(committer.index, key, number) for number in range(known[key].chunks)] for key in groups}
    stored = {p.id: p.payload for p in store.retrieve(name, [i for some in ids.values() for i in some])}
    changed: list[tuple[str, dict[str, Any]]] = []
    rows: list[tuple[str, bytes, bytes, int]] = []
    for key, some in groups.items():
        points = {i: stored[i] for i in ids[key] if RESERVED_KEY in stored.get(i, {})}
        if all(stored_groups(payload) == list(some) for payload in points.values()):
            continue
        row = known[key]
        if row.pending or len(points) < row.chunks:  # what a dead run left: its documents stay as they are otherwise
            access = access_part(some)
            changed += [(i, {**old, RESERVED_KEY: {**old[RESERVED_KEY], **access}}) for i, old in points.items()]
            continue
        payload = with_groups(document_payload(points[ids[key][0]]), some)
        payload_hash = hash_bytes(payload)
        changed += [(i, replaced_payload(old, payload, payload_hash)) for i, old in points.items()]
        rows.append((key, row.text_hash, payload_hash, row.chunks))
    committer.mark_pending([row[0] for row in rows])
    store.update_payloads(name, changed)
    store.flush(name)
    if rows:
        with committer.committing():
            committer.ledger.record(committer.collection.id, rows, clear_failures=False)
    return {row[0] for row in rows}


def update_payloads(committer: Committer, changed: DocumentBatch, known: Mapping[str, Known]) -> list[int]:
    """Replace the payloads of `changed`, whose points are as `known` says; the ledger's rows come last.

    Returns the positions of documents whose points are not as the ledger says: they have to be embedded after all.
    Raises as `Store.retrieve` and `Store.update_payloads`.
    """
    damaged: list[int] = []
    for first in range(0, len(changed), AT_A_TIME):
        some = changed.take(list(range(first, min(first + AT_A_TIME, len(changed)))))
        damaged += [first + row for row in _replace_some(committer, some, known)]
    return damaged


def _replace_some(committer: Committer, page: DocumentBatch, known: Mapping[str, Known]) -> list[int]:
    store, name = committer.store, committer.collection.name
    ids = {key: [point_id(committer.index, key, number) for number in range(known[key].chunks)] for key in page.keys}
    stored = {p.id: p.payload for p in store.retrieve(name, [i for some in ids.values() for i in some])}
    ours = {point for point, payload in stored.items() if RESERVED_KEY in payload}
    whole = [row for row, key in enumerate(page.keys) if all(i in ours for i in ids[key])]
    committer.mark_pending([page.keys[row] for row in whole])
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
        with committer.committing():
            rows = zip(done.keys, done.text_hashes, done.payload_hashes, counts, strict=True)
            committer.ledger.record(committer.collection.id, rows)
    return [row for row in range(len(page)) if row not in set(whole)]
