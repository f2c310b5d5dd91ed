"""Commits: the last two writes, after points are in the store. Both store and ledger keep the mark of the last one.

Payloads are also updated alone, without embedding: what changed beside the text, and who may see a document.
"""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_index.documents.access import access_part, document_payload, groups_in, stored_groups, with_groups
from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import hash_bytes
from rag_index.documents.commits import CommitMark
from rag_index.documents.keys import document_id, point_id
from rag_index.errors import StoreMismatch, StoreRestored
from rag_index.indexing.points import delete_chunks, replaced_payload
from rag_index.indexing.retries import with_retries
from rag_index.ledger import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from rag_index.documents.batches import DocumentBatch, Failure, WrittenShard
    from rag_index.ledger import Collection, Ledger
    from rag_index.sources import SourcePage
    from rag_index.stores import Store

LOGGED_FAILURES = 20
NEW = Known(b"", b"", 0, 1)
"""The row of a document that the ledger does not know."""

logger = logging.getLogger("rag_index.indexing")

AT_A_TIME = 500
"""Documents whose points are read and written together."""


@contextmanager
def committing(ledger: Ledger, store: Store, collection: Collection) -> Iterator[None]:
    """Commit what was written to the store: mark it there, then write the rows of the block and the mark to the ledger.

    What was written must be durable, and its documents pending, because a kill between the two leaves the store one
    commit ahead. Raises StoreRestored if the store is not at the ledger's last commit, before its mark is overwritten.
    """
    mark = _mark_store(ledger, store, collection.name)
    with ledger.transaction():
        yield
        ledger.record_commit(collection.id, mark)


def _mark_store(ledger: Ledger, store: Store, name: str) -> CommitMark:
    """Mark the next commit in the store, and return its mark.

    Each try writes the same one, because a server may carry out a try that timed out after a later one.
    """
    collection = ledger.collection(name)
    if collection is None:
        raise StoreMismatch(f"{name} was dropped from ledger {ledger.redacted_url} while a run wrote it: run again")
    mark = next_mark(ledger, collection.commit_mark)

    def write() -> None:
        now = store.commit_mark(name)
        if now != mark and (difference := ledger.different_commits(collection, now)):
            raise StoreRestored(f"{difference} while a run wrote it; the next run compares every point")
        store.set_commit_mark(name, mark)

    with_retries(write)
    return mark


def next_mark(ledger: Ledger, last: CommitMark) -> CommitMark:
    """Return the mark of the commit after the last one."""
    now = dt.datetime.fromtimestamp(ledger.clock(), tz=dt.UTC)
    return CommitMark(last.number + 1, now.isoformat(timespec="microseconds"))


class Committer:
    """Everything that one run writes to a collection: documents become pending, then their points, then the rows."""

    def __init__(self, index: str, ledger: Ledger, store: Store, collection: Collection) -> None:
        self.index = index
        self.ledger = ledger
        self.store = store
        self.collection = collection
        self._before: dict[str, Known | None] = {}
        self._has_begun = False

    def mark_pending(self, keys: Sequence[str]) -> None:
        """Mark documents in the ledger as about to be written, or deleted.

        The first call commits nothing, which moves the marks on: if the run dies before its first commit, a copy of
        the ledger from before the run is older than the store, and seen to be.
        """
        self.ledger.mark_pending(self.collection.id, keys)
        if keys and not self._has_begun:
            with self.committing():
                pass
            self._has_begun = True

    def committing(self) -> AbstractContextManager[None]:
        """Return the context in which the rows of written documents are recorded: see `committing`."""
        return committing(self.ledger, self.store, self.collection)

    def take(self, keys: Sequence[str], known: Mapping[str, Known]) -> None:
        """Remember the ledger's rows of these documents before they are marked pending."""
        self._before.update((key, known.get(key)) for key in keys)

    def commit(self, written: WrittenShard) -> int:
        """Commit a shard whose points are in the store, and return how many of its documents are new."""
        before = {key: self._before.pop(key, None) for key in written.keys}
        self._delete_stale(written, before)
        failed = {f.key: self._before.pop(f.key, None) for f in written.failures if f.kind == "failed"}
        intact = self._clean_up(failed, written.failures)
        rows = zip(written.keys, written.text_hashes, written.payload_hashes, written.chunk_counts, strict=True)
        with self.committing():
            self.ledger.record(self.collection.id, rows)
            self._record_failures(written.failures, failed, intact)
        return sum(known is None or not known.text_hash for known in before.values())

    def _delete_stale(self, written: WrittenShard, before: dict[str, Known | None]) -> None:
        """Delete chunks at or above the new count, of documents that had more chunks or were pending."""
        name = self.collection.name
        stale = [
            (key, count, known)
            for key, count in zip(written.keys, written.chunk_counts, strict=True)
            if (known := before[key]) is not None and (known.pending or known.chunks > count)
        ]
        if delete_chunks(self.store, name, self.index, stale):
            self.store.flush(name)

    def _record_failures(
        self, failures: list[Failure], before: Mapping[str, Known | None], intact: Container[str]
    ) -> None:
        """List failed and incomplete documents.

        The row of a failed document becomes what it was before it was marked pending; one whose points are not `intact`
        becomes unknown. An incomplete document is indexed all the same.
        """
        if not failures:
            return
        cid = self.collection.id
        known = [key for key, row in before.items() if row is not None and key in intact]
        self.ledger.unmark_pending(cid, known=known, new=[key for key in before if key not in known])
        crashed = {key for key, row in before.items() if row is not None and row.pending}
        self.ledger.fail(cid, failures, crashed=crashed)
        for failure in failures[:LOGGED_FAILURES]:
            details = (self.index, document_id(failure.key), failure.kind, failure.reason)
            logger.warning("%s: document %s %s: %s", *details)

    def _clean_up(self, before: Mapping[str, Known | None], failures: Sequence[Failure]) -> set[str]:
        """Return the failed documents that keep the points they had.

        A document whose process died, in this run or before, may have some new points. If its former points are all
        there, those beyond them are deleted; if not, all are.
        """
        died = {failure.key for failure in failures if failure.died}
        uncertain = {key: row or NEW for key, row in before.items() if key in died or (row and row.pending)}
        certain = set(before) - uncertain.keys()
        if not uncertain:
            return certain
        name = self.collection.name
        ids = {key: [point_id(self.index, key, n) for n in range(row.chunks)] for key, row in uncertain.items()}
        stored = {p.id: p.payload for p in self.store.retrieve(name, [i for some in ids.values() for i in some])}
        intact = {
            key
            for key, row in uncertain.items()
            if row.text_hash and all(_is_of_row(stored.get(i), row) for i in ids[key])
        }
        stale = [(key, row.chunks if key in intact else 0, None) for key, row in uncertain.items()]
        if delete_chunks(self.store, name, self.index, stale):
            self.store.flush(name)
        return certain | intact

    def delete_gone(self, *, note: Callable[[list[str]], None]) -> Iterator[int]:
        """Delete what the scan did not see, and the points of emptied documents; yield the size of each batch.

        `note` is told of each batch of unseen documents before anything of it is deleted. Raises as the store and the
        ledger do; what was deleted by then is committed.
        """
        while keys := self.ledger.gone(self.collection.id):
            note(keys)
            self._delete(keys)
            yield len(keys)
        yield from self._delete_emptied()

    def delete_named(self, keys: Sequence[str]) -> Iterator[int]:
        """Delete these documents, and the points of emptied ones; yield the size of each batch."""
        if keys:
            self._delete(keys)
            yield len(keys)
        yield from self._delete_emptied()

    def _delete_emptied(self) -> Iterator[int]:
        while rows := self.ledger.emptied(self.collection.id):
            keys = [row[0] for row in rows]
            self._delete_points(keys)
            with self.committing():
                self.ledger.record(self.collection.id, [(*row, 0) for row in rows])
            self.ledger.forget_emptied(keys)
            yield len(keys)

    def _delete(self, keys: Sequence[str]) -> None:
        self._delete_points(keys)
        with self.committing():
            self.ledger.forget(self.collection.id, keys)

    def _delete_points(self, keys: Sequence[str]) -> None:
        known = self.ledger.known(self.collection.id, keys)
        self.mark_pending(keys)
        delete_chunks(self.store, self.collection.name, self.index, ((key, 0, known.get(key)) for key in keys))
        self.store.flush(self.collection.name)


def _is_of_row(payload: dict[str, Any] | None, row: Known) -> bool:
    """Return whether a point has the hashes of the ledger's row."""
    ours = (payload or {}).get(RESERVED_KEY, {})
    return (ours.get("text_hash"), ours.get("payload_hash")) == (row.text_hash.hex(), row.payload_hash.hex())


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

    Their text and the rest of their payload stay as they are, in the store and in the ledger. Changes of access do not
    wait for the rest: a document whose text changed too is embedded later, perhaps never if that fails, and one that
    cannot be read keeps the points that it has. Nobody may find it by rights that the source has taken away meanwhile.
    Raises as `Store.retrieve` and `Store.update_payloads`.
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
