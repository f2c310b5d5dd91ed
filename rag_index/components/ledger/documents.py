"""The ledger's collections, and their documents: hashes, number of chunks, whether a write is pending; and failed ones.
Also the contexts of their chunks that a model wrote. Losing these costs time and nothing else."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.ledger.scans import ScanRows
from rag_index.components.ledger.tables import (
    BY_WORDS,
    DAY,
    FAILED_FIELDS,
    PENDING,
    Collection,
    Erasable,
    FailedDocument,
    Known,
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
COLUMNS = ("collection_id", "key", "text_hash", "payload_hash", "chunks", "pending", "added_in", "by_words")
"""What is written of a document; `added_in` only when it is new."""
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
_ROWS = sa.select(d.key, d.text_hash, d.payload_hash, d.chunks, d.pending, d.by_words)


def recipe_in(chunking: str) -> str:
    """Return the fingerprint of the recipe that the fingerprint of a chunker names; "" if no model writes contexts."""
    found = re.search(r"/context-([0-9a-f]{16})(?=/|$)", chunking)
    return found[1] if found else ""


class DocumentRows(ScanRows):
    """The collections, and the documents of each. A row that is not pending is exactly what the store holds."""

    def collection(self, name: str) -> Collection | None:
        """Return the collection of this name."""
        found = self._first(sa.select(collections).where(collections.c.name == name))
        return Collection(**found._mapping) if found else None

    def collections(self, alias: str | None = None) -> list[Collection]:
        """Return all collections of an alias, or of all aliases, oldest first.

        Those in another store are left out.
        """
        statement = sa.select(collections).where(collections.c.elsewhere == 0).order_by(collections.c.id)
        statement = statement if alias is None else statement.where(collections.c.alias == alias)
        return [Collection(**row._mapping) for row in self._select(statement)]

    def collections_elsewhere(self, alias: str) -> list[Collection]:
        """Return the collections of an alias that are in another store, oldest first."""
        statement = sa.select(collections).where(collections.c.elsewhere == 1, collections.c.alias == alias)
        return [Collection(**row._mapping) for row in self._select(statement.order_by(collections.c.id))]

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
        """Add a collection that is about to be created in the store; `values` are columns of `tables.collections`."""
        self._write(collections.insert().values(created_at=self.clock(), **values))
        added = self.collection(values["name"])
        if added is None:
            raise LedgerError(
                f"ledger {self.redacted_url} lost collection {values['name']}: check that its disk has room"
            )
        return added

    def update_collection(self, collection_id: int, **values: Any) -> None:
        """Change columns of a collection."""
        self._write(collections.update().where(collections.c.id == collection_id).values(**values))

    def note_whole(self, collection_id: int) -> None:
        """Record that a collection has everything now that its source has, and nothing else."""
        self.update_collection(collection_id, whole_in=collections.c.commits)

    def hold_back(self, collection: Collection, count: int) -> None:
        """Record how many documents a run would have deleted; 0 if it was allowed to."""
        if count or collection.held:
            since = sa.func.coalesce(collections.c.held_since, self.clock()) if count else None
            self.update_collection(collection.id, held=count, held_since=since)

    def record_commit(self, collection_id: int, mark: CommitMark) -> None:
        """Record the last commit of a collection, with the rows that it commits."""
        self.update_collection(collection_id, commits=mark.number, committed_at=mark.at)

    def drop_collection(self, collection_id: int) -> None:
        """Delete a collection with everything that belongs to it."""
        with self.transaction():
            for table in metadata.sorted_tables:
                if "collection_id" in table.c:
                    self._write(table.delete().where(table.c.collection_id == collection_id))
            self._write(collections.delete().where(collections.c.id == collection_id))

    # Documents

    def known(self, collection_id: int, keys: Sequence[str]) -> dict[str, Known]:
        """Return what the ledger knows about these documents, by key."""
        rows = self._select(_ROWS.where(d.collection_id == collection_id, self._is_in(d.key, keys)))
        return {key: Known(*row) for key, *row in rows}

    def rows(self, collection_id: int, *, after: str = "", limit: int = 5000) -> list[tuple[str, Known]]:
        """Return a page of documents in the order of their keys, for comparing all of them."""
        page = _ROWS.where(d.collection_id == collection_id, d.key > after).order_by(d.key).limit(limit)
        return [(key, Known(*row)) for key, *row in self._select(page)]

    def mark_pending(self, collection_id: int, keys: Sequence[str]) -> None:
        """Mark documents as pending; new ones get a row without hashes. The digests of their buckets are forgotten.
        Those that were written before the scan saw them get their buckets now."""
        if not keys:
            return
        key = self._keys_as_rows(keys).subquery().c[0]
        rows = sa.select(sa.literal(collection_id), key, sa.literal(b""), sa.literal(b""), sa.literal(0), sa.literal(1))
        rows = rows.add_columns(sa.literal(self._next_commit(collection_id)), sa.literal(0))
        rows = rows.add_columns(self._known_bucket(collection_id, key))
        insert = self._insert(documents).from_select([*COLUMNS, "bucket"], rows.where(sa.true()))
        set_ = {"pending": 1, "bucket": sa.func.coalesce(d.bucket, insert.excluded.bucket)}
        with self.transaction():
            self._write(insert.on_conflict_do_update(index_elements=["collection_id", "key"], set_=set_))
            self.forget_digests_of(collection_id, keys)

    def record(
        self,
        collection_id: int,
        rows: Iterable[tuple[str, bytes, bytes, int]],
        *,
        clear_failures: bool = True,
        by_words: bool | None = False,
    ) -> None:
        """Record documents as written: (key, text hash, payload hash, chunks). Clear their failures by default.
        `by_words` says that they have no vectors yet, None that this is as it was."""
        commit, worded = self._next_commit(collection_id), int(by_words or False)
        values = [(collection_id, key, text, payload, chunks, 0, commit, worded) for key, text, payload, chunks in rows]
        if not values:
            return
        kept = () if by_words is None else ("by_words",)
        with self.transaction():
            self._put_rows(documents, values, COLUMNS, ("text_hash", "payload_hash", "chunks", "pending", *kept))
            if clear_failures:
                self.clear_failures(collection_id, [str(row[1]) for row in values])

    def _next_commit(self, collection_id: int) -> int:
        last = self._value(sa.select(collections.c.commits).where(collections.c.id == collection_id))
        return int(last or 0) + 1

    def unmark_pending(self, collection_id: int, *, known: Sequence[str], new: Sequence[str]) -> None:
        """Undo `mark_pending` for documents that were not written: known ones stay as before, new ones are deleted."""
        ours = d.collection_id == collection_id
        with self.transaction():
            self._write(documents.update().where(ours, self._is_in(d.key, known)).values(pending=0))
            self._write(documents.delete().where(ours, self._is_in(d.key, new)))

    def note_erasable(self, collection_id: int, count: int) -> None:
        """Record that the store's files still keep the former content of this many more documents."""
        if count:
            self.update_collection(collection_id, erasable=collections.c.erasable + count)

    def erasable(self, alias: str) -> Erasable:
        """Return what an erasure of an index would erase, in all its collections."""
        ours, now = self.collections(alias), self.clock()
        since = min((one.erased_at or one.created_at for one in ours), default=now)
        lately = any(one.erased_at is not None and now - one.erased_at < DAY for one in ours)
        return Erasable(sum(one.erasable for one in ours), since, lately)

    def end_erasure(self, collection_id: int) -> None:
        """Record that everything is erased that was deleted or changed until now."""
        self.update_collection(collection_id, erasable=0, erased_at=self.clock())

    def forget(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete documents and their failures from the ledger."""
        with self.transaction():
            self.forget_digests_of(collection_id, keys)
            self.note_erasable(collection_id, len(keys))
            self._write(documents.delete().where(d.collection_id == collection_id, self._is_in(d.key, keys)))
            self.clear_failures(collection_id, keys)

    def pending_keys(self, collection_id: int) -> list[str]:
        """Return the documents that are still pending since a run ended early; at most a few windows of shards."""
        return self._column(sa.select(d.key).where(self._is_in_index(collection_id), PENDING))

    def different_commits(self, collection: Collection, mark: CommitMark) -> str:
        """Return how the store, whose `mark` is given, is at another commit than the ledger; "" if it is at the same. A
        run that died while it committed leaves the store one commit ahead, and documents that are pending."""
        ours = collection.commit_mark
        if mark == ours or (mark.number == ours.number + 1 and self.pending_keys(collection.id)):
            return ""
        older, name = "the store" if mark < ours else "the ledger", collection.name
        return f"{name} is at {mark} in the store and at {ours} in the ledger: {older} was put back to an older copy"

    def totals(self, collection_id: int) -> Totals:
        """Count the documents of a collection and their points."""
        done, kept = d.pending == 0, (buckets.c.documents, buckets.c.points, sa.literal(0), sa.literal(0))
        cases = ((done & (d.chunks > 0), 1), (done, d.chunks), (~done, 1), (done & BY_WORDS, 1))
        sums = [sa.func.coalesce(sa.func.sum(sa.case(case, else_=0)), 0) for case in cases]
        return Totals(*self.sum_documents(collection_id, sums, kept, counted=sa.true()))

    def sample(self, collection_id: int, count: int) -> list[str]:
        """Return the keys of `count` random documents that have points."""
        statement = sa.select(d.key).where(d.collection_id == collection_id, d.pending == 0, d.chunks > 0)
        return self._column(statement.order_by(sa.func.random()).limit(count))

    def keys(self, collection_id: int, *, after: str = "", limit: int) -> list[str]:
        """Return the next keys of documents in their order, at most `limit`."""
        later = sa.select(d.key).where(d.collection_id == collection_id, d.key > after)
        return self._column(later.order_by(d.key).limit(limit))

    def keys_under(self, collection_id: int, prefix: str) -> list[str]:
        """Return the documents whose typed key begins with `prefix`."""
        below = sa.func.substr(d.key, 1, len(prefix)) == prefix
        return self._column(sa.select(d.key).where(d.collection_id == collection_id, below))

    def keys_of_texts(self, collection_id: int, text_hashes: Sequence[bytes]) -> list[str]:
        """Return for each of these texts a document that had it when the scan first asked, if there was one. The first
        call reads all documents once, because there is no index on texts."""
        if text_hashes and self._texts_of != collection_id:
            rows = sa.select(sa.literal(self._scan, sa.Integer), d.text_hash, sa.func.min(d.key))
            rows = rows.where(d.collection_id == collection_id, d.chunks > 0, ~BY_WORDS).group_by(d.text_hash)
            with self.transaction():
                self._write(texts.delete().where(self._is_mine(texts)))
                self._write(texts.insert().from_select(["scan", "text_hash", "key"], rows))
            self._texts_of = collection_id
        found: list[str] = []
        for first in range(0, len(text_hashes), QUERY_HASHES):
            batch = text_hashes[first : first + QUERY_HASHES]
            found += self._column(sa.select(texts.c.key).where(self._is_mine(texts), texts.c.text_hash.in_(batch)))
        return found

    # Documents that could not be indexed, or only incompletely

    def failures(self, collection_id: int, keys: Sequence[str] | None = None) -> dict[str, FailedDocument]:
        """Return the failed documents of a collection by key, restricted to `keys` if given."""
        statement = sa.select(*FAILED_FIELDS).where(f.collection_id == collection_id).order_by(f.key)
        if keys is not None:
            statement = statement.where(self._is_in(f.key, keys))
        return {row[0]: FailedDocument(*row) for row in self._select(statement)}

    def next_try(self, collection_id: int, now: float) -> float | None:
        """Return when a watch has to try the next failed document again; None if there is none."""
        failed = (one for one in self.failures(collection_id).values() if one.kind == "failed")
        return min((one.next_try for one in failed if one.is_due(now, watched=False)), default=None)

    def count_failures(self, collection_id: int, kind: FailureKind | None = None) -> int:
        """Count the listed documents of a collection, of one kind or of all kinds."""
        of_kind: Any = sa.true() if kind is None else f.kind == kind
        return self._count(failed_documents, f.collection_id == collection_id, of_kind)

    def fail(self, collection_id: int, failures: Sequence[Failure], *, crashed: Container[str] = ()) -> None:
        """Record failed documents. If one failed before with the same text, its number of tries grows. Another text
        begins its tries and its five nights anew; the document has been incomplete since the first of its texts failed.
        For those that `crashed` an earlier run, that run counts as a try as well."""
        now, new = self.clock(), self._new(failed_documents)
        rows: list[tuple[Any, ...]] = []
        for one in failures:
            tries = 2 if one.key in crashed else 1
            rows.append((collection_id, one.key, one.text_hash, one.reason, tries, now, now, now, one.kind, one.cause))
        # It is listed as "failed" already: the index has lacked it since then. One that was "skipped" lacked nothing.
        same_kind = f.kind == new.kind
        same_text = same_kind & (f.text_hash == new.text_hash)
        self._put_rows(
            failed_documents,
            rows,
            FAILED_COLUMNS,
            update=("text_hash", "reason", "last_at", "kind", "cause"),
            tries=sa.case((same_text, f.tries + new.tries), else_=new.tries),
            first_at=sa.case((same_text, f.first_at), else_=new.first_at),
            incomplete_since=sa.case((same_kind, f.incomplete_since), else_=new.incomplete_since),
        )

    def clear_failures(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete these documents from the list of failures."""
        ours = f.collection_id == collection_id
        with self.transaction():
            if self._value(sa.select(f.key).where(ours).limit(1)) is not None:
                self._write(failed_documents.delete().where(ours, self._is_in(f.key, keys)))

    # Files of a source. A stamp is the text of what can be known about a file without reading it.

    def committed_stamps(self, collection_id: int, keys: Sequence[str]) -> dict[str, str]:
        """Return the stamps, by key, of files whose content under that stamp is committed."""
        h = file_hashes.c
        same = sa.and_(*(d[name] == h[name] for name in ("collection_id", "key", "text_hash", "payload_hash")))
        statement = sa.select(h.key, h.stamp).join_from(file_hashes, documents, same & (d.pending == 0))
        return dict(self._select(statement.where(h.collection_id == collection_id, self._is_in(h.key, keys))))

    def note_files(self, collection_id: int, rows: Iterable[tuple[str, str, bytes, bytes]]) -> None:
        """Record what files hold: rows of (key, stamp, text hash, payload hash)."""
        values = [(collection_id, *row) for row in rows]
        self._put_rows(file_hashes, values, update=("stamp", "text_hash", "payload_hash"))

    def stamps(self, collection_id: int) -> list[tuple[int | None, str]]:
        """Return the bucket of each document with files, and its stamp; "" if that is not committed."""
        h, done = file_hashes.c, d.pending == 0
        same = sa.and_(*(d[name] == h[name] for name in ("text_hash", "payload_hash")), done)
        joined = file_hashes.join(documents, (d.collection_id == h.collection_id) & (d.key == h.key))
        statement = sa.select(d.bucket, sa.case((same, h.stamp), else_="")).select_from(joined)
        return [tuple(row) for row in self._select(statement.where(h.collection_id == collection_id))]

    def forget_unknown_files(self, collection_id: int) -> None:
        """Delete what is known of files whose documents the ledger does not have any more."""
        h = file_hashes.c
        known = sa.exists().where(d.collection_id == h.collection_id, d.key == h.key)
        self._write(file_hashes.delete().where(h.collection_id == collection_id, ~known))

    # Contexts, by the hashes of document and chunk, and by the recipe that decides them. Workers write each at once.

    def contexts(self, recipe: str, document_hashes: Iterable[bytes]) -> dict[bytes, dict[bytes, str]]:
        """Return the contexts of each document's chunks, by the hash of the chunk."""
        rows = sa.select(c.chunk, c.context).where(c.document == sa.bindparam("wanted"), c.recipe == recipe)
        with self.transaction() as connection:
            return {
                one: {bytes(chunk): text for chunk, text in connection.execute(rows, {"wanted": one})}
                for one in document_hashes
            }

    def put_context(self, recipe: str, document: bytes, chunk: bytes, context: str) -> None:
        """Record a context, unless there is one for this chunk already."""
        row = {"document": document, "chunk": chunk, "recipe": recipe, "context": context, "made_at": self.clock()}
        self._write(self._insert(contexts).values(**row).on_conflict_do_nothing())

    def prune_contexts(self, before: float) -> int:
        """Delete contexts that were written before a time and that no document of a collection needs; count them."""
        with self.transaction():
            if self._value(sa.select(c.document).where(c.made_at < before).limit(1)) is None:
                return 0
            known = self._select(sa.select(collections.c.id, collections.c.chunking))
            needed = sa.union(
                *(
                    sa.select(sa.literal(recipe).label("recipe"), table.c.text_hash).where(table.c.collection_id == id_)
                    for id_, chunking in known
                    if (recipe := recipe_in(chunking))
                    for table in (documents, failed_documents)
                ),
                sa.select(sa.literal("").label("recipe"), sa.literal(b"").label("text_hash")),
            ).subquery()
            same = (needed.c.recipe == c.recipe) & (needed.c.text_hash == c.document)
            old = sa.select(*contexts.primary_key).outerjoin_from(contexts, needed, same)
            old = old.where(c.made_at < before, needed.c.recipe.is_(None))
            return self._write(contexts.delete().where(sa.tuple_(*contexts.primary_key).in_(old)))
