"""Commits: the last two writes, after points are in the store. Both store and ledger keep the mark of the last one."""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.commits import CommitMark
from rag_index.documents.keys import document_id, point_id
from rag_index.errors import StoreMismatch, StoreRestored
from rag_index.indexing.points import delete_chunks
from rag_index.indexing.retries import with_retries
from rag_index.ledger import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from rag_index.documents.batches import Failure, WrittenShard
    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

LOGGED_FAILURES = 20
NEW = Known(b"", b"", 0, 1)
"""The row of a document that the ledger does not know."""

logger = logging.getLogger("rag_index.indexing")


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
