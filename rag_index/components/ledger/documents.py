"""The ledger's collections and their documents.

A document has its hashes, its number of chunks, and whether it is pending. The module also has the
failed documents, the stamps of files, and the contexts that a model wrote for chunks. Losing the
contexts costs the time to write them again, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.ledger.scans import ScanRows, sum_if
from rag_index.components.ledger.tables import (
    BY_WORDS,
    DAY,
    FAILED_FIELDS,
    PENDING,
    Collection,
    Erasable,
    FailedDocument,
    RecordedDocument,
    Totals,
    buckets,
    collections,
    contexts,
    documents,
    failed_documents,
    file_hashes,
    metadata,
    texts,
)
from rag_index.errors import LedgerError

if TYPE_CHECKING:
    from rag_index.core.documents.batches import CommitMark, Failure, FailureKind

c, d, f = contexts.c, documents.c, failed_documents.c
COLUMNS = (
    "collection_id",
    "key",
    "text_hash",
    "payload_hash",
    "chunks",
    "pending",
    "added_in",
    "by_words",
)
"""The columns that are written of a document; `added_in` only when the document is new."""
FAILED_COLUMNS = (
    "collection_id",
    "key",
    "text_hash",
    "reason",
    "tries",
    "first_at",
    "last_at",
    "incomplete_since",
    "kind",
    "cause",
)
QUERY_HASHES = 500
"""Number of hashes that one query looks up. Chosen; nothing depends on it."""
_ROWS = sa.select(d.key, d.text_hash, d.payload_hash, d.chunks, d.pending, d.by_words)


def recipe_in(chunking: str) -> str:
    """Return the fingerprint of the recipe for contexts in the fingerprint of a chunker.

    Example:
        "text-1/context-0123456789abcdef/index-12" -> "0123456789abcdef"
        "text-1/index-12" -> "", since no model writes contexts
    """
    found = re.search(r"/context-([0-9a-f]{16})(?=/|$)", chunking)
    return found[1] if found else ""


class DocumentRows(ScanRows):
    """The collections, and the documents of each.

    A document that is not pending is exactly what the store holds.
    """

    def collection(self, name: str) -> Collection | None:
        """Return the collection of this name. None if the ledger does not have it."""
        found = self._first(sa.select(collections).where(collections.c.name == name))
        return Collection(**found._mapping) if found else None

    def collections(self, alias: str | None = None) -> list[Collection]:
        """Return the collections of an alias, or of all aliases, oldest first.

        Those in another store are left out.
        """
        statement = (
            sa.select(collections).where(collections.c.elsewhere == 0).order_by(collections.c.id)
        )
        if alias is not None:
            statement = statement.where(collections.c.alias == alias)
        return [Collection(**row._mapping) for row in self._select(statement)]

    def collections_elsewhere(self, alias: str) -> list[Collection]:
        """Return the collections of an alias that are in another store, oldest first."""
        statement = sa.select(collections).where(
            collections.c.elsewhere == 1, collections.c.alias == alias
        )
        return [
            Collection(**row._mapping) for row in self._select(statement.order_by(collections.c.id))
        ]

    def follow_store(self, alias: str, store_ids: Iterable[str]) -> None:
        """Record that the settings name another store now.

        It has the collections of an alias with these ids. All others are elsewhere.
        """
        ids = list(store_ids)
        of_alias = collections.update().where(collections.c.alias == alias)
        with self.transaction():
            self._write(of_alias.where(collections.c.store_id.in_(ids)).values(elsewhere=0))
            self._write(of_alias.where(collections.c.store_id.not_in(ids)).values(elsewhere=1))

    def add_collection(self, **values: Any) -> Collection:
        """Add a collection that is about to be created in the store.

        Args:
            values: The columns of `tables.collections` that have no default.
        """
        self._write(collections.insert().values(created_at=self.clock(), **values))
        name = values["name"]
        added = self.collection(name)
        if added is None:
            raise LedgerError(
                f"ledger {self.redacted_url} lost collection {name}: check that its disk has room"
            )
        return added

    def update_collection(self, collection_id: int, **values: Any) -> None:
        """Change columns of a collection."""
        update = collections.update().where(collections.c.id == collection_id)
        self._write(update.values(**values))

    def record_complete(self, collection_id: int) -> None:
        """Record that a collection is complete: it has what its source has, and nothing else."""
        self.update_collection(collection_id, whole_in=collections.c.commits)

    def hold_back(self, collection: Collection, count: int) -> None:
        """Record how many documents the delete guard kept a run from deleting; 0 if it agreed."""
        # The time of the first refusal stays.
        if count:
            since = sa.func.coalesce(collections.c.held_since, self.clock())
            self.update_collection(collection.id, held=count, held_since=since)
        # It agreed again.
        elif collection.held:
            self.update_collection(collection.id, held=0, held_since=None)

    def record_commit(self, collection_id: int, commit_mark: CommitMark) -> None:
        """Record the last commit of a collection, with the rows that it commits."""
        self.update_collection(
            collection_id, commits=commit_mark.number, committed_at=commit_mark.at
        )

    def drop_collection(self, collection_id: int) -> None:
        """Delete a collection with everything that belongs to it."""
        with self.transaction():
            for table in metadata.sorted_tables:
                if "collection_id" in table.c:
                    is_ours = table.c.collection_id == collection_id
                    self._write(table.delete().where(is_ours))
            self._write(collections.delete().where(collections.c.id == collection_id))

    # Documents

    def known(self, collection_id: int, keys: Sequence[str]) -> dict[str, RecordedDocument]:
        """Return the rows of these documents by key. Documents without a row are missing."""
        is_ours = d.collection_id == collection_id
        rows = self._select(_ROWS.where(is_ours, self._is_in(d.key, keys)))
        return {key: RecordedDocument(*row) for key, *row in rows}

    def rows(
        self, collection_id: int, *, after: str = "", limit: int = 5000
    ) -> list[tuple[str, RecordedDocument]]:
        """Return a page of documents as pairs of key and row, in the order of their keys.

        Args:
            after: The last key of the page before.
        """
        later = _ROWS.where(d.collection_id == collection_id, d.key > after)
        page = later.order_by(d.key).limit(limit)
        return [(key, RecordedDocument(*row)) for key, *row in self._select(page)]

    def mark_pending(self, collection_id: int, keys: Sequence[str]) -> None:
        """Make documents pending, before they are written or deleted in the store.

        New documents get a row without hashes. The digests of the documents' buckets are deleted,
        so the next scan reads these buckets. Documents without a bucket get the one in which the
        scan saw them.
        """
        if not keys:
            return
        key = self._keys_as_rows(keys).subquery().c[0]
        new = {
            "text_hash": b"",
            "payload_hash": b"",
            "chunks": 0,
            "pending": 1,
            "added_in": self._next_commit(collection_id),
            "by_words": 0,
        }
        values = [sa.literal(value) for value in new.values()]
        bucket = self._known_bucket(collection_id, key)
        rows = sa.select(sa.literal(collection_id), key, *values, bucket)
        # Without a WHERE, SQLite takes the ON of ON CONFLICT for that of a join.
        rows = rows.where(sa.true())
        insert = self._insert(documents).from_select(["collection_id", "key", *new, "bucket"], rows)
        # A document that has a row keeps its hashes: they tell what the store held before.
        update = {"pending": 1, "bucket": sa.func.coalesce(d.bucket, insert.excluded.bucket)}
        statement = insert.on_conflict_do_update(
            index_elements=["collection_id", "key"], set_=update
        )
        with self.transaction():
            self._write(statement)
            self.forget_digests_of(collection_id, keys)

    def record(
        self,
        collection_id: int,
        rows: Iterable[tuple[str, bytes, bytes, int]],
        *,
        clear_failures: bool = True,
        by_words: bool | None = False,
    ) -> None:
        """Record documents as written. They are not pending any more.

        Args:
            rows: The key, text hash, payload hash and number of chunks of each document.
            clear_failures: Whether the documents are no longer listed as failed.
            by_words: Whether the documents have no vectors yet. None if this stays as it was.
        """
        commit = self._next_commit(collection_id)
        is_by_words = int(by_words or False)
        values: list[tuple[Any, ...]] = []
        for key, text_hash, payload_hash, chunks in rows:
            values.append(
                (collection_id, key, text_hash, payload_hash, chunks, 0, commit, is_by_words)
            )
        if not values:
            return
        update = ["text_hash", "payload_hash", "chunks", "pending"]
        if by_words is not None:
            update.append("by_words")
        with self.transaction():
            self._put_rows(documents, values, COLUMNS, update)
            if clear_failures:
                self.clear_failures(collection_id, [str(row[1]) for row in values])

    def _next_commit(self, collection_id: int) -> int:
        """Return the number of the commit that a write now belongs to."""
        last = sa.select(collections.c.commits).where(collections.c.id == collection_id)
        return int(self._value(last) or 0) + 1

    def unmark_pending(
        self, collection_id: int, *, known: Sequence[str], new: Sequence[str]
    ) -> None:
        """Undo `mark_pending` for documents that were not written.

        Args:
            known: Documents that had a row: it becomes what it was before.
            new: Documents that had none: their rows are deleted.
        """
        is_ours = d.collection_id == collection_id
        with self.transaction():
            restored = documents.update().where(is_ours, self._is_in(d.key, known))
            self._write(restored.values(pending=0))
            self._write(documents.delete().where(is_ours, self._is_in(d.key, new)))

    def add_erasable(self, collection_id: int, count: int) -> None:
        """Add to the number of documents whose former content the store's files still have."""
        if count:
            self.update_collection(collection_id, erasable=collections.c.erasable + count)

    def erasable(self, alias: str) -> Erasable:
        """Return what an erasure of an index would erase, in all its collections."""
        ours = self.collections(alias)
        now = self.clock()
        count = sum(collection.erasable for collection in ours)
        # A collection that was never erased counts since it was created.
        since = min(
            (collection.erased_at or collection.created_at for collection in ours), default=now
        )
        erased_at = [
            collection.erased_at for collection in ours if collection.erased_at is not None
        ]
        lately = any(now - at < DAY for at in erased_at)
        return Erasable(count, since, lately)

    def end_erasure(self, collection_id: int) -> None:
        """Record that everything is erased that was deleted or changed until now."""
        self.update_collection(collection_id, erasable=0, erased_at=self.clock())

    def forget(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete documents and their failures from the ledger."""
        is_ours = d.collection_id == collection_id
        with self.transaction():
            self.forget_digests_of(collection_id, keys)
            self.add_erasable(collection_id, len(keys))
            self._write(documents.delete().where(is_ours, self._is_in(d.key, keys)))
            self.clear_failures(collection_id, keys)

    def pending_keys(self, collection_id: int) -> list[str]:
        """Return the documents that are pending because a run was interrupted.

        They are at most a few windows of shards.
        """
        is_ours = self._is_in_index(collection_id)
        return self._column(sa.select(d.key).where(is_ours, PENDING))

    def different_commits(self, collection: Collection, store_commit_mark: CommitMark) -> str:
        """Return a message if store and ledger are at different commits; "" if they are not.

        Args:
            store_commit_mark: The commit mark of the collection in the store.
        """
        ours = collection.commit_mark
        if store_commit_mark == ours:
            return ""
        # A run was interrupted within a commit, after the store and before the ledger: the store is
        # one commit ahead, and the documents of that commit are pending.
        is_one_ahead = store_commit_mark.number == ours.number + 1
        if is_one_ahead and self.pending_keys(collection.id):
            return ""
        older = "the store" if store_commit_mark < ours else "the ledger"
        return (
            f"{collection.name} is at {store_commit_mark} in the store"
            f" and at {ours} in the ledger: "
            f"{older} was put back to an older copy"
        )

    def totals(self, collection_id: int) -> Totals:
        """Count the documents of a collection and their points."""
        is_written = d.pending == 0
        has_points = is_written & (d.chunks > 0)
        lacks_vectors = is_written & BY_WORDS
        # In the order of `Totals`.
        sums = [
            sum_if(has_points, 1),
            sum_if(is_written, d.chunks),
            sum_if(~is_written, 1),
            sum_if(lacks_vectors, 1),
        ]
        columns = [sa.func.coalesce(total, 0) for total in sums]
        # A committed bucket has no pending documents and none without vectors.
        of_buckets = (buckets.c.documents, buckets.c.points, sa.literal(0), sa.literal(0))
        return Totals(*self.sum_documents(collection_id, columns, of_buckets, counted=sa.true()))

    def sample(self, collection_id: int, count: int) -> list[str]:
        """Return the keys of `count` random documents that have points."""
        statement = sa.select(d.key)
        statement = statement.where(d.collection_id == collection_id, d.pending == 0, d.chunks > 0)
        return self._column(statement.order_by(sa.func.random()).limit(count))

    def keys(self, collection_id: int, *, after: str = "", limit: int) -> list[str]:
        """Return a page of keys in their order.

        Args:
            after: The last key of the page before.
        """
        later = sa.select(d.key).where(d.collection_id == collection_id, d.key > after)
        return self._column(later.order_by(d.key).limit(limit))

    def keys_under(self, collection_id: int, prefix: str) -> list[str]:
        """Return the documents whose typed key begins with `prefix`."""
        is_under = sa.func.substr(d.key, 1, len(prefix)) == prefix
        statement = sa.select(d.key)
        return self._column(statement.where(d.collection_id == collection_id, is_under))

    def keys_of_texts(self, collection_id: int, text_hashes: Sequence[bytes]) -> list[str]:
        """Return one document for each of these texts, if there is any.

        The documents are those of the first call in this scan, which reads all documents of the
        collection once, because there is no index on texts.
        """
        if text_hashes and self._texts_of != collection_id:
            self._record_texts(collection_id)
            self._texts_of = collection_id
        keys: list[str] = []
        for first in range(0, len(text_hashes), QUERY_HASHES):
            batch = text_hashes[first : first + QUERY_HASHES]
            found = sa.select(texts.c.key).where(self._is_mine(texts), texts.c.text_hash.in_(batch))
            keys += self._column(found)
        return keys

    def _record_texts(self, collection_id: int) -> None:
        """Record one document for each text of a collection; those without vectors have none."""
        scan = sa.literal(self._scan, sa.Integer)
        rows = sa.select(scan, d.text_hash, sa.func.min(d.key))
        rows = rows.where(d.collection_id == collection_id, d.chunks > 0, ~BY_WORDS)
        rows = rows.group_by(d.text_hash)
        with self.transaction():
            self._write(texts.delete().where(self._is_mine(texts)))
            self._write(texts.insert().from_select(["scan", "text_hash", "key"], rows))

    # Documents that could not be indexed, or only incompletely

    def failures(
        self, collection_id: int, keys: Sequence[str] | None = None
    ) -> dict[str, FailedDocument]:
        """Return the listed documents of a collection by key, restricted to `keys` if given."""
        statement = (
            sa.select(*FAILED_FIELDS).where(f.collection_id == collection_id).order_by(f.key)
        )
        if keys is not None:
            statement = statement.where(self._is_in(f.key, keys))
        return {row[0]: FailedDocument(*row) for row in self._select(statement)}

    def next_try(self, collection_id: int, now: float) -> float | None:
        """Return when a watch retries the next failed document. None if no document is due."""
        times: list[float] = []
        for document in self.failures(collection_id).values():
            if document.kind == "failed" and document.is_due(now, watched=False):
                times.append(document.next_try)
        return min(times, default=None)

    def count_failures(self, collection_id: int, kind: FailureKind | None = None) -> int:
        """Count the listed documents of a collection, of one kind or of all kinds."""
        is_kind: sa.ColumnElement[bool] = sa.true()
        if kind is not None:
            is_kind = f.kind == kind
        return self._count(failed_documents, f.collection_id == collection_id, is_kind)

    def fail(
        self, collection_id: int, failures: Sequence[Failure], *, crashed: Container[str] = ()
    ) -> None:
        """Record documents that could not be indexed, or only incompletely.

        Args:
            crashed: Keys of documents that were pending since an earlier run, which counts as an
                attempt as well.
        """
        now = self.clock()
        rows: list[tuple[Any, ...]] = []
        for failure in failures:
            tries = 2 if failure.key in crashed else 1
            described = (failure.key, failure.text_hash, failure.reason)
            rows.append(
                (collection_id, *described, tries, now, now, now, failure.kind, failure.cause)
            )

        new = self._new(failed_documents)
        # Listed with the same kind: the index has lacked the document since then. A document that
        # was "skipped" and is now "failed" lacked nothing before.
        is_same_kind = f.kind == new.kind
        # The same text failed again. Another text begins a new `RETRY_PERIOD`, without attempts.
        is_same_text = is_same_kind & (f.text_hash == new.text_hash)
        tries_so_far = sa.case((is_same_text, f.tries + new.tries), else_=new.tries)
        first_at = sa.case((is_same_text, f.first_at), else_=new.first_at)
        incomplete_since = sa.case((is_same_kind, f.incomplete_since), else_=new.incomplete_since)
        self._put_rows(
            failed_documents,
            rows,
            FAILED_COLUMNS,
            update=("text_hash", "reason", "last_at", "kind", "cause"),
            tries=tries_so_far,
            first_at=first_at,
            incomplete_since=incomplete_since,
        )

    def clear_failures(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete these documents from the list of failures."""
        is_ours = f.collection_id == collection_id
        with self.transaction():
            # Usually no document of the collection is listed.
            if self._value(sa.select(f.key).where(is_ours).limit(1)) is not None:
                self._write(failed_documents.delete().where(is_ours, self._is_in(f.key, keys)))

    # Files of a source. The stamp of a file is what can be known of it without reading it, as text.

    def committed_stamps(self, collection_id: int, keys: Sequence[str]) -> dict[str, str]:
        """Return the stamps, by key, of files whose content under that stamp is committed."""
        h = file_hashes.c
        columns = ("collection_id", "key", "text_hash", "payload_hash")
        is_same = sa.and_(*(d[name] == h[name] for name in columns))
        is_committed = is_same & (d.pending == 0)
        statement = sa.select(h.key, h.stamp).join_from(file_hashes, documents, is_committed)
        is_ours = h.collection_id == collection_id
        return dict(self._select(statement.where(is_ours, self._is_in(h.key, keys))))

    def record_files(
        self, collection_id: int, rows: Iterable[tuple[str, str, bytes, bytes]]
    ) -> None:
        """Record what files hold.

        Args:
            rows: The key, stamp, text hash and payload hash of each file.
        """
        values = [(collection_id, *row) for row in rows]
        self._put_rows(file_hashes, values, update=("stamp", "text_hash", "payload_hash"))

    def stamps(self, collection_id: int) -> list[tuple[int | None, str]]:
        """Return pairs of bucket and stamp for documents with files.

        The stamp is "" if the content under that stamp is not committed.
        """
        h = file_hashes.c
        has_content = [d[name] == h[name] for name in ("text_hash", "payload_hash")]
        is_committed = sa.and_(*has_content, d.pending == 0)
        is_same = (d.collection_id == h.collection_id) & (d.key == h.key)
        stamp = sa.case((is_committed, h.stamp), else_="")
        statement = sa.select(d.bucket, stamp).select_from(file_hashes.join(documents, is_same))
        rows = self._select(statement.where(h.collection_id == collection_id))
        return [tuple(row) for row in rows]

    def forget_unknown_files(self, collection_id: int) -> None:
        """Delete the stamps of files whose documents the ledger no longer has."""
        h = file_hashes.c
        is_known = sa.exists().where(d.collection_id == h.collection_id, d.key == h.key)
        self._write(file_hashes.delete().where(h.collection_id == collection_id, ~is_known))

    # Contexts, by the hashes of document and chunk, and by the recipe that decides them. Workers
    # write each context as soon as they have it.

    def contexts(
        self, recipe: str, document_hashes: Iterable[bytes]
    ) -> dict[bytes, dict[bytes, str]]:
        """Return the contexts of each document's chunks, by the hash of the chunk."""
        statement = sa.select(c.chunk, c.context)
        statement = statement.where(c.document == sa.bindparam("wanted"), c.recipe == recipe)
        contexts_of: dict[bytes, dict[bytes, str]] = {}
        with self.transaction() as connection:
            for document in document_hashes:
                rows = connection.execute(statement, {"wanted": document})
                contexts_of[document] = {bytes(chunk): context for chunk, context in rows}
        return contexts_of

    def put_context(self, recipe: str, document: bytes, chunk: bytes, context: str) -> None:
        """Record a context, unless the chunk already has one."""
        row = {
            "document": document,
            "chunk": chunk,
            "recipe": recipe,
            "context": context,
            "made_at": self.clock(),
        }
        insert = self._insert(contexts).values(**row)
        self._write(insert.on_conflict_do_nothing())

    def prune_contexts(self, before: float) -> int:
        """Delete contexts that are older than `before` and that no document needs. Count them."""
        is_old = c.made_at < before
        with self.transaction():
            if self._value(sa.select(c.document).where(is_old).limit(1)) is None:
                return 0
            needed = self._needed_texts()
            is_needed = (needed.c.recipe == c.recipe) & (needed.c.text_hash == c.document)
            keys = list(contexts.primary_key)
            unneeded = sa.select(*keys).outerjoin_from(contexts, needed, is_needed)
            unneeded = unneeded.where(is_old, needed.c.recipe.is_(None))
            return self._write(contexts.delete().where(sa.tuple_(*keys).in_(unneeded)))

    def _needed_texts(self) -> sa.Subquery:
        """Return a subquery for the recipes and texts of all collections with contexts."""
        queries: list[sa.Select[Any]] = []
        for id_, chunking in self._select(sa.select(collections.c.id, collections.c.chunking)):
            recipe = recipe_in(chunking)
            if not recipe:
                continue
            for table in (documents, failed_documents):
                query = sa.select(sa.literal(recipe).label("recipe"), table.c.text_hash)
                queries.append(query.where(table.c.collection_id == id_))
        # A union needs at least one query. No context has an empty recipe.
        queries.append(
            sa.select(sa.literal("").label("recipe"), sa.literal(b"").label("text_hash"))
        )
        return sa.union(*queries).subquery()
