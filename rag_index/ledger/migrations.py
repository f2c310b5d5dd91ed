"""Numbered migrations of the ledger: each brings a ledger of version N - 1 to N, in one transaction.

A new ledger is made as it is now and marked with the newest number. Version 1 is the first that was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.errors import LedgerTooNew
from rag_index.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection

__all__ = ["MIGRATIONS", "migrate"]


def _scan_marks(connection: Connection) -> None:
    """2: what the last complete scan of a collection leaves to the next (`changed_since`)."""
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_scan_marks (collection_id INTEGER NOT NULL PRIMARY KEY, mark TEXT NOT NULL, "
        "settings TEXT NOT NULL, full_at DOUBLE PRECISION NOT NULL)"
    )


def _kinds_and_files(connection: Connection) -> None:
    """3: documents that are skipped, or indexed without something; what files of a size and time hold."""
    connection.exec_driver_sql("ALTER TABLE rag_index_failed_documents ADD COLUMN kind TEXT NOT NULL DEFAULT 'failed'")
    binary = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    connection.exec_driver_sql(
        "CREATE TABLE rag_index_file_hashes (collection_id INTEGER NOT NULL, key TEXT NOT NULL, mark TEXT NOT NULL, "
        f"text_hash {binary} NOT NULL, payload_hash {binary} NOT NULL, PRIMARY KEY (collection_id, key))"
        + (" WITHOUT ROWID" if connection.dialect.name == "sqlite" else "")
    )


def _one_vocabulary(connection: Connection) -> None:
    """4: columns and tables have the names that the code uses."""
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


MIGRATIONS: dict[int, Callable[[Connection], None]] = {2: _scan_marks, 3: _kinds_and_files, 4: _one_vocabulary}
"""What leads to each version after the first."""


def migrate(connection: Connection, *, redacted_url: str) -> int:
    """Make the ledger, or bring it to the newest version; `redacted_url` names it in messages. Returns the version.

    Raises:
        LedgerTooNew: a newer rag-index wrote it.
    """
    newest = max(MIGRATIONS, default=1)
    version = _version(connection)
    if version is None or version < newest:
        _wait_for_others(connection)
        version = _version(connection)
    if version is None:
        tables.metadata.create_all(connection)
        connection.execute(tables.schema_version.insert().values(version=newest))
        return newest
    if version > newest:
        raise LedgerTooNew(
            f"ledger {redacted_url} is of version {version}, this rag-index knows {newest}: upgrade rag-index, "
            "or name another ledger in [ledger] url"
        )
    for number in range(version + 1, newest + 1):
        MIGRATIONS[number](connection)
        connection.execute(tables.schema_version.update().values(version=number))
    return newest


def _version(connection: Connection) -> int | None:
    """Of the ledger that is there; None where there is none yet."""
    if not sa.inspect(connection).has_table(tables.schema_version.name):
        return None
    return int(connection.scalar(sa.select(sa.func.max(tables.schema_version.c.version))) or 1)


def _wait_for_others(connection: Connection) -> None:
    """Two runs may open a new ledger, or one of an earlier version, at the same moment: one makes the tables, the
    other finds them. On SQLite this also begins the transaction, which Python does not for what makes tables: without
    it, a migration that is killed would stay there by half."""
    alone = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "SELECT pg_advisory_xact_lock(7041776)"
    connection.exec_driver_sql(alone)
