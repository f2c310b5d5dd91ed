"""Ledgers of earlier versions, brought up to date step by step: what took hours (contexts), what a person has to see
(failures, history) and what is indexed stay. A step is written in plain SQL, since the tables of today are not those of
its time, and is never changed once it was released.

    migrate(connection, 19)  # within a transaction that no other process has
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

KNOWN = (19, 21, 22)
"""The versions that can be brought up to date."""


def migrate(connection: Connection, version: int) -> None:
    """Carry out the steps that a ledger of this version lacks."""
    for number, step in sorted(STEPS.items()):
        if number > version:
            step(connection)
            connection.execute(sa.text("UPDATE rag_index_schema_version SET version = :number"), {"number": number})


def _run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.execute(sa.text(statement), {"now": time.time()} if ":now" in statement else {})


def _to_21(connection: Connection) -> None:
    """The watch is the run, repeated; the delete guard and erasures keep a number for each collection."""
    _columns_of_21(connection)
    _run(
        connection,  # digests are computed in another way: the next run reads everything
        "DELETE FROM rag_index_buckets",
        "DELETE FROM rag_index_scan_states",
        "UPDATE rag_index_documents SET bucket = NULL WHERE bucket IS NOT NULL",
        "UPDATE rag_index_failed_documents SET bucket = NULL WHERE bucket IS NOT NULL",
        "ALTER TABLE rag_index_sizes RENAME TO rag_index_sizes_before",
        """CREATE TABLE rag_index_sizes (collection_id INTEGER NOT NULL, part TEXT NOT NULL, size INTEGER NOT NULL,
            at FLOAT NOT NULL, PRIMARY KEY (collection_id, part))""",
        """INSERT INTO rag_index_sizes SELECT collection_id, part, max(documents), :now FROM rag_index_sizes_before
            GROUP BY collection_id, part""",
        "DROP TABLE rag_index_positions",
        """CREATE TABLE rag_index_positions (alias TEXT NOT NULL PRIMARY KEY, collection_id INTEGER NOT NULL,
            commits INTEGER NOT NULL, at FLOAT NOT NULL, how TEXT NOT NULL)""",
        "DROP TABLE rag_index_watches",
        """CREATE TABLE rag_index_watches (alias TEXT NOT NULL PRIMARY KEY, since FLOAT NOT NULL, state TEXT NOT NULL,
            message TEXT NOT NULL, applied_at FLOAT)""",
    )
    gone = ("sizes_before", "batch_deletions", "inbox", "look_ups", "milestones", "mended", "slots", "erasures")
    scans = ("intact", "seen", "lost", "texts", "unread", "tallies", "rebuilt", "orphans", "source_keys", "not_empty")
    _run(connection, *(f"DROP TABLE IF EXISTS rag_index_{name}" for name in (*gone, *scans)))


def _columns_of_21(connection: Connection) -> None:
    _run(
        connection,
        "ALTER TABLE rag_index_collections ADD COLUMN held INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE rag_index_collections ADD COLUMN held_since FLOAT",
        "ALTER TABLE rag_index_collections ADD COLUMN erasable INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE rag_index_collections ADD COLUMN erased_at FLOAT",
        "ALTER TABLE rag_index_collections ADD COLUMN policies TEXT DEFAULT '' NOT NULL",
        """UPDATE rag_index_collections SET
            held = (SELECT count(*) FROM rag_index_documents AS d WHERE d.collection_id = id AND held_at IS NOT NULL),
            held_since = (SELECT min(held_at) FROM rag_index_documents AS d WHERE d.collection_id = id),
            policies = coalesce((SELECT position FROM rag_index_slots WHERE name = 'policies of ' || alias), ''),
            erasable = CASE WHEN id = (SELECT max(c.id) FROM rag_index_collections AS c
                    WHERE c.alias = rag_index_collections.alias AND c.state = 'ready')
                THEN (SELECT count(*) FROM rag_index_erasures AS e
                    WHERE e.alias = rag_index_collections.alias AND e.pending_since IS NOT NULL)
                ELSE 0 END""",
        "DROP INDEX rag_index_held_documents",
        "ALTER TABLE rag_index_documents DROP COLUMN held_at",
        "CREATE INDEX rag_index_buckets_of_documents ON rag_index_documents (collection_id, bucket)",
        "ALTER TABLE rag_index_buckets ADD COLUMN documents INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE rag_index_buckets ADD COLUMN points INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE rag_index_buckets ADD COLUMN added_in INTEGER DEFAULT 0 NOT NULL",
    )


def _to_22(connection: Connection) -> None:
    """A first run may write documents by their words before they have vectors."""
    _run(
        connection,
        "ALTER TABLE rag_index_documents ADD COLUMN by_words INTEGER DEFAULT 0 NOT NULL",
        "CREATE INDEX rag_index_worded_documents ON rag_index_documents (collection_id) WHERE by_words = 1",
    )


def _to_23(connection: Connection) -> None:
    """A failed document whose text ends the embedding server is told from others. It has two times: since when it is
    incomplete, and when its present text first failed. Until now the first of its texts gave both. A text that was
    tried once failed first when it was tried last."""
    _run(
        connection,
        "ALTER TABLE rag_index_failed_documents ADD COLUMN cause TEXT DEFAULT '' NOT NULL",
        "ALTER TABLE rag_index_failed_documents ADD COLUMN incomplete_since FLOAT DEFAULT 0 NOT NULL",
        "UPDATE rag_index_failed_documents SET incomplete_since = first_at",
        "UPDATE rag_index_failed_documents SET first_at = last_at WHERE tries = 1",
    )


STEPS: dict[int, Callable[[Connection], None]] = {21: _to_21, 22: _to_22, 23: _to_23}
