"""The ledger's documents: their hashes, their number of chunks, and whether their write is pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import FailedDocument, Known, Totals
from rag_index.ledger.scan import BucketRows, ScanRows
from rag_index.ledger.tables import EMPTY, PENDING, collections, documents, failed_documents, file_hashes

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from rag_index.documents.batches import Failure, FailureKind
    from rag_index.documents.commits import CommitMark
    from rag_index.ledger.records import Collection

QUERY_HASHES = 500
"""Hashes per SELECT."""


class FailureRows(LedgerConnection):
    """Documents that could not be indexed, or only incompletely."""

    def failures(self, collection_id: int, keys: Sequence[str] | None = None) -> dict[str, FailedDocument]:
        """Return the failed documents of a collection by key, restricted to `keys` if given."""
        f = failed_documents.c
        statement = sa.select(f.key, f.text_hash, f.reason, f.tries, f.first_at, f.last_at, f.kind)
        statement = statement.where(f.collection_id == collection_id).order_by(f.key)
        bound = {}
        if keys is not None:
            statement, bound = statement.where(self._is_in_keys(f.key)), {"keys": self._bind_keys(keys)}
        with self.transaction() as connection:
            return {row[0]: FailedDocument(*row) for row in connection.execute(statement, bound)}

    def count_failures(self, collection_id: int, kind: FailureKind | None = None) -> int:
        """Count the listed documents of a collection, of one kind or of all kinds."""
        f = failed_documents.c
        statement = sa.select(sa.func.count()).select_from(failed_documents).where(f.collection_id == collection_id)
        with self.transaction() as connection:
            return int(connection.scalar(statement if kind is None else statement.where(f.kind == kind)) or 0)

    def fail(self, collection_id: int, failures: Sequence[Failure], *, crashed: Container[str] = ()) -> None:
        """Record failed documents. If one failed before with the same text, its number of tries grows.

        For those that `crashed` an earlier run, that run counts as a try as well.
        """
        if not failures:
            return
        now = self.clock()
        rows = [
            {"collection_id": collection_id, "key": f.key, "text_hash": f.text_hash, "reason": f.reason,
             "tries": 2 if f.key in crashed else 1,
             "first_at": now, "last_at": now, "kind": f.kind}
            for f in failures
        ]  # fmt: skip
        insert = self._insert(failed_documents)
        new, old = insert.excluded, failed_documents.c
        statement = insert.on_conflict_do_update(
            index_elements=["collection_id", "key"],
            set_={
                "text_hash": new.text_hash,
                "reason": new.reason,
                "tries": sa.case((old.text_hash == new.text_hash, old.tries + new.tries), else_=new.tries),
                "last_at": new.last_at,
                "kind": new.kind,
            },
        )
        with self.transaction() as connection:
            connection.execute(statement, rows)

    def clear_failures(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete these documents from the list of failures."""
        f = failed_documents.c
        with self.transaction() as connection:
            any_failure = connection.scalar(sa.select(f.key).where(f.collection_id == collection_id).limit(1))
            if any_failure is not None:
                statement = failed_documents.delete().where(f.collection_id == collection_id, self._is_in_keys(f.key))
                connection.execute(statement, {"keys": self._bind_keys(keys)})


d = documents.c
COLUMNS = (d.collection_id, d.key, d.text_hash, d.payload_hash, d.chunks, d.pending, d.added_at)
"""What is written of a document; `added_at` only when it is new."""


class DocumentRows(FailureRows, BucketRows):
    """The documents of each collection. A row that is not pending is exactly what the store holds."""

    def known(self, collection_id: int, keys: Sequence[str]) -> dict[str, Known]:
        """Return what the ledger knows about these documents, by key."""
        d = documents.c
        statement = sa.select(d.key, d.text_hash, d.payload_hash, d.chunks, d.pending).where(
            d.collection_id == collection_id, self._is_in_keys(d.key)
        )
        with self.transaction() as connection:
            rows = connection.execute(statement, {"keys": self._bind_keys(keys)}).fetchall()
        return {
            key: Known(bytes(text), bytes(payload), chunks, pending) for key, text, payload, chunks, pending in rows
        }

    def mark_pending(self, collection_id: int, keys: Sequence[str]) -> None:
        """Mark documents as pending; new ones get a row without hashes. The digests of their buckets are forgotten."""
        if not keys:
            return
        key = self._keys_as_rows().subquery().c[0]
        rows = sa.select(sa.literal(collection_id), key, sa.literal(b""), sa.literal(b""), sa.literal(0), sa.literal(1))
        rows = rows.add_columns(sa.literal(self.clock()), self._known_bucket(collection_id, key))
        names = [*[column.name for column in COLUMNS], "bucket"]
        insert = self._insert(documents).from_select(names, rows.where(sa.true()))
        statement = insert.on_conflict_do_update(index_elements=["collection_id", "key"], set_={"pending": 1})
        with self.transaction() as connection:
            connection.execute(statement, {"keys": self._bind_keys(keys)})
            self.forget_digests_of(collection_id, keys)

    def record(
        self, collection_id: int, rows: Iterable[tuple[str, bytes, bytes, int]], *, clear_failures: bool = True
    ) -> None:
        """Record documents as written: (key, text hash, payload hash, chunks). Clear their failures by default."""
        now = self.clock()
        values = [(collection_id, key, text, payload, chunks, 0, now) for key, text, payload, chunks in rows]
        if not values:
            return
        names = [column.name for column in COLUMNS]
        insert = self._insert(documents).values({name: sa.bindparam(name) for name in names})
        new = insert.excluded
        statement = insert.on_conflict_do_update(
            index_elements=["collection_id", "key"],
            set_={
                "text_hash": new.text_hash,
                "payload_hash": new.payload_hash,
                "chunks": new.chunks,
                "pending": new.pending,
            },
        )
        with self.transaction() as connection:
            self._execute_many(connection, statement, names, values)
            if clear_failures:
                self.clear_failures(collection_id, [str(row[1]) for row in values])

    def unmark_pending(self, collection_id: int, *, known: Sequence[str], new: Sequence[str]) -> None:
        """Undo `mark_pending` for documents that were not written: known ones stay as before, new ones are deleted."""
        d = documents.c
        with self.transaction() as connection:
            known_rows = (
                documents.update().where(d.collection_id == collection_id, self._is_in_keys(d.key)).values(pending=0)
            )
            connection.execute(known_rows, {"keys": self._bind_keys(known)})
            new_rows = documents.delete().where(d.collection_id == collection_id, self._is_in_keys(d.key))
            connection.execute(new_rows, {"keys": self._bind_keys(new)})

    def forget(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete documents and their failures from the ledger."""
        with self.transaction() as connection:
            self.forget_digests_of(collection_id, keys)
            statement = documents.delete().where(
                documents.c.collection_id == collection_id, self._is_in_keys(documents.c.key)
            )
            connection.execute(statement, {"keys": self._bind_keys(keys)})
            self.clear_failures(collection_id, keys)

    def pending_keys(self, collection_id: int) -> list[str]:
        """Return the documents that are still pending since a run ended early; at most a few windows of shards."""
        d = documents.c
        with self.transaction() as connection:
            return list(connection.scalars(sa.select(d.key).where(self._is_in_index(collection_id), PENDING)))

    def record_commit(self, collection_id: int, mark: CommitMark) -> None:
        """Record the last commit of a collection, with the rows that it commits."""
        statement = collections.update().where(collections.c.id == collection_id)
        with self.transaction() as connection:
            connection.execute(statement.values(commits=mark.number, committed_at=mark.at))

    def different_commits(self, collection: Collection, mark: CommitMark) -> str:
        """Return how the store, whose `mark` is given, is at another commit than the ledger; "" if it is at the same.

        A run that died while it committed leaves the store one commit ahead, and documents that are pending.
        """
        ours = collection.commit_mark
        if mark == ours or (mark.number == ours.number + 1 and self.pending_keys(collection.id)):
            return ""
        older, name = "the store" if mark < ours else "the ledger", collection.name
        return f"{name} is at {mark} in the store and at {ours} in the ledger: {older} was put back to an older copy"

    def totals(self, collection_id: int) -> Totals:
        """Count the documents of a collection and their points."""
        d = documents.c
        indexed = sa.case((sa.and_(d.pending == 0, d.chunks > 0), 1), else_=0)
        statement = sa.select(
            sa.func.coalesce(sa.func.sum(indexed), 0),
            sa.func.coalesce(sa.func.sum(sa.case((d.pending == 0, d.chunks), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(d.pending), 0),
        ).where(d.collection_id == collection_id)
        with self.transaction() as connection:
            row = connection.execute(statement).one()
        return Totals(int(row[0]), int(row[1]), int(row[2]))

    def count_empty(self, collection_id: int) -> int:
        """Count the documents of a collection that have no text, and so no points."""
        statement = sa.select(sa.func.count()).select_from(documents)
        statement = statement.where(self._is_in_index(collection_id), EMPTY)
        with self.transaction() as connection:
            return int(connection.scalar(statement) or 0)

    def sample(self, collection_id: int, count: int) -> list[str]:
        """Return the keys of `count` random documents that have points."""
        d = documents.c
        statement = sa.select(d.key).where(d.collection_id == collection_id, d.pending == 0, d.chunks > 0)
        with self.transaction() as connection:
            return [str(key) for key in connection.scalars(statement.order_by(sa.func.random()).limit(count))]

    def rows(self, collection_id: int, *, after: str = "", limit: int = 5000) -> list[tuple[str, Known]]:
        """Return a page of documents in the order of their keys, for comparing all of them."""
        d = documents.c
        statement = (
            sa.select(d.key, d.text_hash, d.payload_hash, d.chunks, d.pending)
            .where(d.collection_id == collection_id, d.key > after)
            .order_by(d.key)
            .limit(limit)
        )
        with self.transaction() as connection:
            return [(r[0], Known(bytes(r[1]), bytes(r[2]), r[3], r[4])) for r in connection.execute(statement)]


class FileRows(ScanRows):
    """Files of a source. A stamp is the text of what can be known about a file without reading it."""

    def committed_stamps(self, collection_id: int, keys: Sequence[str]) -> dict[str, str]:
        """Return the stamps, by key, of files whose content under that stamp is committed."""
        f, d = file_hashes.c, documents.c
        same = sa.and_(
            d.collection_id == f.collection_id, d.key == f.key, d.text_hash == f.text_hash,
            d.payload_hash == f.payload_hash, d.pending == 0,
        )  # fmt: skip
        statement = (
            sa.select(f.key, f.stamp)
            .join_from(file_hashes, documents, same)
            .where(f.collection_id == collection_id, self._is_in_keys(f.key))
        )
        with self.transaction() as connection:
            return {row[0]: row[1] for row in connection.execute(statement, {"keys": self._bind_keys(keys)})}

    def note_files(self, collection_id: int, rows: Iterable[tuple[str, str, bytes, bytes]]) -> None:
        """Record what files hold: rows of (key, stamp, text hash, payload hash)."""
        values = [(collection_id, *row) for row in rows]
        if not values:
            return
        insert = self._insert(file_hashes).values({name: sa.bindparam(name) for name in file_hashes.c.keys()})  # noqa: SIM118
        new = insert.excluded
        statement = insert.on_conflict_do_update(
            index_elements=["collection_id", "key"],
            set_={"stamp": new.stamp, "text_hash": new.text_hash, "payload_hash": new.payload_hash},
        )
        with self.transaction() as connection:
            self._execute_many(connection, statement, file_hashes.c.keys(), values)

    def forget_unseen_files(self, collection_id: int) -> None:
        """Delete the hashes of files that the scan did not see."""
        seen, f = self._scanned.seen, file_hashes.c
        unseen = ~sa.exists().where(seen.c.key == f.key)
        with self.transaction() as connection:
            connection.execute(file_hashes.delete().where(f.collection_id == collection_id, unseen))

    def keys_under(self, collection_id: int, prefix: str) -> list[str]:
        """Return the documents whose typed key begins with `prefix`."""
        d = documents.c
        below = sa.func.substr(d.key, 1, len(prefix)) == prefix
        with self.transaction() as connection:
            return list(connection.scalars(sa.select(d.key).where(d.collection_id == collection_id, below)))

    def keys_of_texts(self, collection_id: int, text_hashes: Sequence[bytes]) -> list[str]:
        """Return for each of these texts a document that had it when the scan first asked, if there was one.

        The first call reads all documents once, because there is no index on texts.
        """
        texts, d = self._scanned.texts, documents.c
        if text_hashes and self._texts_of != collection_id:
            rows = sa.select(d.text_hash, sa.func.min(d.key)).where(d.collection_id == collection_id, d.chunks > 0)
            with self.transaction() as connection:
                connection.execute(texts.delete())
                connection.execute(texts.insert().from_select(["text_hash", "key"], rows.group_by(d.text_hash)))
            self._texts_of = collection_id
        found: list[str] = []
        for first in range(0, len(text_hashes), QUERY_HASHES):
            batch = list(text_hashes[first : first + QUERY_HASHES])
            with self.transaction() as connection:
                found += connection.scalars(sa.select(texts.c.key).where(texts.c.text_hash.in_(batch)))
        return found
