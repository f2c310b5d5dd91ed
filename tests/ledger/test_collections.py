"""The ledger's collections."""

from __future__ import annotations

from contextlib import closing

import sqlalchemy as sa

from rag_index.database.urls import database_url
from rag_index.documents.batches import Failure
from rag_index.ledger import Ledger
from rag_index.ledger.tables import metadata


def test_a_collection_that_is_dropped_leaves_nothing_behind(tmp_path):
    """SQLite may give its id to another collection."""
    tables = [table for table in metadata.tables.values() if "collection_id" in table.c]
    with closing(Ledger(database_url(f"sqlite:///{tmp_path}/ledger.db", tmp_path))) as ledger:
        for number in (1, 2):
            made = ledger.add_collection(
                alias=f"a{number}", name=f"a__{number}", store_id="s", embedder_fingerprint="e", embedder="e",
                chunking="c", dimension=2, state="ready",
            )  # fmt: skip
            ledger.record(made.id, [("1", b"t", b"p", 1)])
            ledger.record_scan(made.id, "w", settings="s", full_at=1.0)
            ledger.note_files(made.id, [("1", "stamp", b"t", b"p")])
            ledger.note_size(made.id, 1)
            ledger.note_batch_deletions(made.id, 1)
            ledger.begin_scan()
            ledger.complete_scan(made.alias, made.id, number=0, began=1.0, read_all=True)
            ledger.fail(made.id, [Failure("2", "why", b"t")])
            ledger.record_digests(made.id, {1: "1:00"}, unread=())

        def rows() -> dict[str, int]:
            with ledger.transaction() as connection:
                return {t.name: connection.scalar(sa.select(sa.func.count()).select_from(t)) for t in tables}

        assert set(rows().values()) == {2}
        ledger.drop_collection(made.id)
        assert set(rows().values()) == {1}
