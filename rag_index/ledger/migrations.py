"""Numbered migrations of the ledger. Migration N upgrades a ledger from version N - 1, all in one transaction.

A new ledger is created in the newest version. Version 1 is the first that was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.errors import LedgerTooNew
from rag_index.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection


def _add_scan_marks(connection: Connection) -> None:
    """Version 2: keep what a complete scan leaves for the next one (`changed_since`)."""
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_scan_marks (collection_id INTEGER NOT NULL PRIMARY KEY, mark TEXT NOT NULL, "
        "settings TEXT NOT NULL, full_at DOUBLE PRECISION NOT NULL)"
    )


def _add_kinds_and_file_hashes(connection: Connection) -> None:
    """Version 3: list documents that are skipped or incomplete; keep hashes of files by size and time."""
    connection.exec_driver_sql("ALTER TABLE rag_index_failed_documents ADD COLUMN kind TEXT NOT NULL DEFAULT 'failed'")
    binary = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_file_hashes (collection_id INTEGER NOT NULL, key TEXT NOT NULL, mark TEXT NOT NULL, "
        f"text_hash {binary} NOT NULL, payload_hash {binary} NOT NULL, PRIMARY KEY (collection_id, key))"
        + (" WITHOUT ROWID" if connection.dialect.name == "sqlite" else "")
    )


def _rename_to_one_vocabulary(connection: Connection) -> None:
    """Version 4: give columns and tables the names that the code uses."""
    for table, old, new in (
        ("rag_index_collections", "cutting", "chunking"),
        ("rag_index_documents", "open", "pending"),
        ("rag_index_scan_marks", "mark", "watermark"),
        ("rag_index_file_hashes", "mark", "stamp"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for old, new in (("rag_index_scan_marks", "rag_index_scan_states"), ("rag_index_locks", "rag_index_leases")):
        connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
    connection.exec_driver_sql("DROP INDEX rag_index_open_documents")
    connection.exec_driver_sql(
        "CREATE INDEX rag_index_pending_documents ON rag_index_documents (collection_id) WHERE pending = 1"
    )


def _remember_what_is_held_back(connection: Connection) -> None:
    """Version 5: keep what the delete guard needs from run to run (see `ledger.deletions`)."""
    number = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "FLOAT"
    for column in (
        f"rag_index_collections ADD COLUMN whole_at {number} NOT NULL DEFAULT 0",
        f"rag_index_documents ADD COLUMN added_at {number} NOT NULL DEFAULT 0",
        f"rag_index_documents ADD COLUMN held_at {number}",
    ):
        connection.exec_driver_sql(f"ALTER TABLE {column}")
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_sizes (collection_id INTEGER NOT NULL, day INTEGER NOT NULL, "
        "documents INTEGER NOT NULL, PRIMARY KEY (collection_id, day))"
    )


def _add_inbox(connection: Connection) -> None:
    """Version 6: keep changes that a watch has received until they are indexed (see `ledger.inbox`)."""
    number = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "FLOAT"
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_inbox (alias TEXT NOT NULL, document_id TEXT NOT NULL, number BIGINT NOT NULL, "
        f"changed_at {number} NOT NULL, received_at {number} NOT NULL, PRIMARY KEY (alias, document_id))"
    )
    connection.exec_driver_sql("CREATE INDEX rag_index_inbox_numbers ON rag_index_inbox (alias, number)")
    connection.exec_driver_sql(
        f"CREATE TABLE rag_index_watches (alias TEXT NOT NULL PRIMARY KEY, since {number} NOT NULL, "
        "last_number BIGINT NOT NULL, full_number BIGINT, "
        f"state TEXT NOT NULL, message TEXT NOT NULL, caught_up_at {number}, applied_at {number})"
    )
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_batch_deletions (collection_id INTEGER NOT NULL, hour INTEGER NOT NULL, "
        "documents INTEGER NOT NULL, PRIMARY KEY (collection_id, hour))"
    )


def _remember_digests(connection: Connection) -> None:
    """Version 7: keep the digests of the source's buckets, and in which bucket each document is (`[source] digest`)."""
    for table in ("rag_index_documents", "rag_index_failed_documents"):
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN bucket BIGINT")
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_buckets (collection_id INTEGER NOT NULL, bucket BIGINT NOT NULL, digest TEXT NOT NULL, "
        "PRIMARY KEY (collection_id, bucket))" + (" WITHOUT ROWID" if connection.dialect.name == "sqlite" else "")
    )
    for name, rows in (("held", "held_at IS NOT NULL"), ("empty", "chunks = 0 AND pending = 0")):
        connection.exec_driver_sql(
            f"CREATE INDEX rag_index_{name}_documents ON rag_index_documents (collection_id) WHERE {rows}"
        )


def _add_look_ups(connection: Connection) -> None:
    """Version 8: keep what documents have to be looked up by until that can be done (see `ledger.inbox`)."""
    number = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "FLOAT"
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_look_ups (alias TEXT NOT NULL, column_name TEXT NOT NULL, value TEXT NOT NULL, "
        f"number BIGINT NOT NULL, changed_at {number} NOT NULL, PRIMARY KEY (alias, column_name, value))"
    )


def _remember_what_runs_mended(connection: Connection) -> None:
    """Version 9: keep what a run found changed until the watch has given it, too (see `ledger.mended`)."""
    number = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "FLOAT"
    for column in (
        "blind TEXT NOT NULL DEFAULT ''",
        "compared TEXT NOT NULL DEFAULT ''",
        "unkept INTEGER NOT NULL DEFAULT 0",
        "looked_up BIGINT NOT NULL DEFAULT 0",
    ):
        connection.exec_driver_sql(f"ALTER TABLE rag_index_watches ADD COLUMN {column}")
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_mended (alias TEXT NOT NULL, document_id TEXT NOT NULL, change TEXT NOT NULL, "
        f"run_id TEXT NOT NULL, begun BIGINT NOT NULL, number BIGINT NOT NULL, found_at {number} NOT NULL, "
        f"missed_at {number}, PRIMARY KEY (alias, document_id))"
    )


def _number_commits(connection: Connection) -> None:
    """Version 10: keep the number of each collection's last commit, and how far a watch has read each slot.

    The store keeps the number too. Slots are PostgreSQL's (see `changes.wal`).
    """
    for column in ("commits INTEGER NOT NULL DEFAULT 0", "committed_at TEXT NOT NULL DEFAULT ''"):
        connection.exec_driver_sql(f"ALTER TABLE rag_index_collections ADD COLUMN {column}")
    connection.exec_driver_sql("CREATE TABLE rag_index_slots (name TEXT NOT NULL PRIMARY KEY, position TEXT NOT NULL)")


MIGRATIONS: dict[int, Callable[[Connection], None]] = {
    2: _add_scan_marks,
    3: _add_kinds_and_file_hashes,
    4: _rename_to_one_vocabulary,
    5: _remember_what_is_held_back,
    6: _add_inbox,
    7: _remember_digests,
    8: _add_look_ups,
    9: _remember_what_runs_mended,
    10: _number_commits,
}
"""The migration to each version after the first."""


def migrate(connection: Connection, *, redacted_url: str) -> int:
    """Create the ledger or upgrade it to the newest version, which is returned. `redacted_url` is for messages.

    Raises:
        LedgerTooNew: a newer rag-index wrote the ledger.
    """
    newest = max(MIGRATIONS, default=1)
    version = _version(connection)
    if version is None or version < newest:
        _exclude_others(connection)
        version = _version(connection)
    if version is None:
        tables.metadata.create_all(connection)
        connection.execute(tables.schema_version.insert().values(version=newest))
        return newest
    if version > newest:
        raise LedgerTooNew(
            f"ledger {redacted_url} has version {version}, but this rag-index knows versions up to {newest}. "
            "Upgrade rag-index, or name another ledger in [ledger] url"
        )
    for number in range(version + 1, newest + 1):
        MIGRATIONS[number](connection)
        connection.execute(tables.schema_version.update().values(version=number))
    return newest


def _version(connection: Connection) -> int | None:
    """Return the version of the ledger, or None if there is no ledger yet."""
    if not sa.inspect(connection).has_table(tables.schema_version.name):
        return None
    return int(connection.scalar(sa.select(sa.func.max(tables.schema_version.c.version))) or 1)


def _exclude_others(connection: Connection) -> None:
    """Let one run at a time create or upgrade the ledger; a second one then finds the tables.

    On SQLite this also begins the transaction, because Python does not begin one for statements that create tables.
    Without it, a migration that is killed would leave half of its changes.
    """
    statement = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "SELECT pg_advisory_xact_lock(7041776)"
    connection.exec_driver_sql(statement)
