"""The ledger's failed documents, and how often each was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import FailedDocument
from rag_index.ledger.tables import failed_documents

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rag_index.documents.batches import Failure, FailureKind


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

    def fail(self, collection_id: int, failures: Sequence[Failure], *, crashed: Collection[str] = ()) -> None:
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
