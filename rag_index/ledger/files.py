"""The ledger's hashes of files by stamp, so that a file with an unchanged stamp need not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.ledger.scan import ScanRows
from rag_index.ledger.tables import documents, file_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

QUERY_HASHES = 500
"""Hashes per SELECT."""


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
