"""The ledger's tables in their newest version, and the migrations that upgrade older ledgers to it.

Times are seconds since 1970, UTC. All names begin with `rag_index_`, so that a ledger may share a database with other
tables.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Float, Integer, LargeBinary, Text

from rag_index.errors import LedgerTooNew

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

metadata = sa.MetaData()
Columns = list[sa.Column[Any]]
Kind = type[sa.types.TypeEngine[Any]]


def primary(**kinds: Kind) -> Columns:
    """Return the columns of a primary key, by their names."""
    return [sa.Column(name, kind, primary_key=True, autoincrement=False) for name, kind in kinds.items()]


def filled(default: str | None = None, /, **kinds: Kind) -> Columns:
    """Return columns that are never NULL."""
    return [sa.Column(name, kind, nullable=False, server_default=default) for name, kind in kinds.items()]


def optional(**kinds: Kind) -> Columns:
    """Return columns that may be NULL."""
    return [sa.Column(name, kind) for name, kind in kinds.items()]


def temporary(metadata: sa.MetaData, name: str, *columns: Columns) -> sa.Table:
    """Return a table that ends with the connection; `metadata` creates it."""
    return sa.Table(f"rag_index_{name}", metadata, *chain(*columns), prefixes=["TEMPORARY"], sqlite_with_rowid=False)


def _table(name: str, *columns: Columns, rowid: bool = True) -> sa.Table:
    return sa.Table(f"rag_index_{name}", metadata, *chain(*columns), sqlite_with_rowid=rowid)


schema_version = _table("schema_version", filled(version=Integer))

collections = _table(
    "collections",
    [sa.Column("id", Integer, primary_key=True, autoincrement=True)],
    filled(alias=Text),
    [sa.Column("name", Text, nullable=False, unique=True)],
    filled(store_id=Text, embedder_fingerprint=Text, embedder=Text, chunking=Text, dimension=Integer, state=Text),
    filled(created_at=Float),
    optional(chars_per_second=Float),
    filled("0", whole_at=Float, commits=Integer),
    filled("", committed_at=Text, channels=Text),
)

documents = _table(
    "documents",
    primary(collection_id=Integer, key=Text),
    filled(text_hash=LargeBinary, payload_hash=LargeBinary, chunks=Integer, pending=Integer),
    filled("0", added_at=Float),
    optional(held_at=Float, bucket=BigInteger),
    rowid=False,
)
for _name, _rows in (
    ("pending", "pending = 1"),
    ("held", "held_at IS NOT NULL"),
    ("empty", "chunks = 0 AND pending = 0"),
):  # not as sa.Index, which imports the dialects of both databases for its conditions
    _index = f"CREATE INDEX rag_index_{_name}_documents ON rag_index_documents (collection_id) WHERE {_rows}"
    sa.event.listen(documents, "after_create", sa.DDL(_index))  # type: ignore[no-untyped-call]

_NO: sa.ColumnElement[int] = sa.literal_column("0")  # with bound values a query would not match an index
_YES: sa.ColumnElement[int] = sa.literal_column("1")
PENDING = documents.c.pending == _YES
HELD = documents.c.held_at.is_not(None)
EMPTY = (documents.c.chunks == _NO) & (documents.c.pending == _NO)
"""The conditions of these indexes, for queries that they answer (`LedgerConnection._is_in_index`)."""

failed_documents = _table(
    "failed_documents",
    primary(collection_id=Integer, key=Text),
    filled(text_hash=LargeBinary, reason=Text, tries=Integer, first_at=Float, last_at=Float),
    filled("failed", kind=Text),
    optional(bucket=BigInteger),
)

buckets = _table("buckets", primary(collection_id=Integer, bucket=BigInteger), filled(digest=Text), rowid=False)

runs = _table(
    "runs",
    primary(id=Text),
    [sa.Column("alias", Text, nullable=False, index=True)],
    filled(host=Text, pid=Integer, started_at=Float),
    optional(ended_at=Float),
    filled(state=Text, message=Text, report=Text),
)

leases = _table(
    "leases",
    primary(name=Text),
    optional(run_id=Text),
    filled(host=Text, pid=Integer, process_started=Float, epoch=Integer, since=Float, renewed_at=Float),
)

scan_states = _table(
    "scan_states", primary(collection_id=Integer), filled(watermark=Text, settings=Text, full_at=Float)
)

file_hashes = _table(
    "file_hashes",
    primary(collection_id=Integer, key=Text),
    filled(stamp=Text, text_hash=LargeBinary, payload_hash=LargeBinary),
    rowid=False,
)

sizes = _table(
    "sizes",
    primary(collection_id=Integer, day=Integer),
    [sa.Column("part", Text, primary_key=True, server_default="")],
    filled(documents=Integer),
)

batch_deletions = _table("batch_deletions", primary(collection_id=Integer, hour=Integer), filled(documents=Integer))

inbox = _table(
    "inbox",
    primary(alias=Text, document_id=Text),
    filled(number=BigInteger, changed_at=Float, received_at=Float),
    filled("0", first_number=BigInteger),
)
sa.Index("rag_index_inbox_numbers", inbox.c.alias, inbox.c.number)
sa.Index("rag_index_inbox_first_numbers", inbox.c.alias, inbox.c.first_number)

look_ups = _table(
    "look_ups",
    primary(alias=Text, column_name=Text, value=Text),
    filled(number=BigInteger, changed_at=Float),
    filled("0", first_number=BigInteger),
)

milestones = _table("milestones", primary(alias=Text, number=BigInteger), filled(at=Float, position=Text, how=Text))

positions = _table(
    "positions",
    primary(alias=Text),
    filled(collection_id=Integer, commits=Integer),
    optional(number=BigInteger),
    filled(at=Float, position=Text, how=Text),
)

watches = _table(
    "watches",
    primary(alias=Text),
    filled(since=Float, last_number=BigInteger),
    optional(full_number=BigInteger),
    filled(state=Text, message=Text),
    optional(caught_up_at=Float, applied_at=Float),
    filled("", blind=Text, compared=Text),
    filled("0", unkept=Integer, looked_up=BigInteger),
)

slots = _table("slots", primary(name=Text), filled(position=Text))

mended = _table(
    "mended",
    primary(alias=Text, document_id=Text),
    filled(change=Text, run_id=Text, begun=BigInteger, number=BigInteger, found_at=Float),
    optional(missed_at=Float),
)


MIGRATIONS = {
    2: """-- what a complete scan leaves for the next one (`changed_since`)
        CREATE TABLE rag_index_scan_marks (collection_id INTEGER NOT NULL PRIMARY KEY, mark TEXT NOT NULL,
            settings TEXT NOT NULL, full_at DOUBLE PRECISION NOT NULL)""",
    3: """-- documents that are skipped or incomplete, and hashes of files by size and time
        ALTER TABLE rag_index_failed_documents ADD COLUMN kind TEXT NOT NULL DEFAULT 'failed';
        CREATE TABLE rag_index_file_hashes (collection_id INTEGER NOT NULL, key TEXT NOT NULL, mark TEXT NOT NULL,
            text_hash {binary} NOT NULL, payload_hash {binary} NOT NULL,
            PRIMARY KEY (collection_id, key)) {without_rowid}""",
    4: """-- the names that the code uses
        ALTER TABLE rag_index_collections RENAME COLUMN cutting TO chunking;
        ALTER TABLE rag_index_documents RENAME COLUMN open TO pending;
        ALTER TABLE rag_index_scan_marks RENAME COLUMN mark TO watermark;
        ALTER TABLE rag_index_file_hashes RENAME COLUMN mark TO stamp;
        ALTER TABLE rag_index_scan_marks RENAME TO rag_index_scan_states;
        ALTER TABLE rag_index_locks RENAME TO rag_index_leases;
        DROP INDEX rag_index_open_documents;
        CREATE INDEX rag_index_pending_documents ON rag_index_documents (collection_id) WHERE pending = 1""",
    5: """-- what the delete guard needs from run to run (see `ledger.deletions`)
        ALTER TABLE rag_index_collections ADD COLUMN whole_at {number} NOT NULL DEFAULT 0;
        ALTER TABLE rag_index_documents ADD COLUMN added_at {number} NOT NULL DEFAULT 0;
        ALTER TABLE rag_index_documents ADD COLUMN held_at {number};
        CREATE TABLE rag_index_sizes (collection_id INTEGER NOT NULL, day INTEGER NOT NULL, documents INTEGER NOT NULL,
            PRIMARY KEY (collection_id, day))""",
    6: """-- changes that a watch has received, until they are indexed (see `ledger.inbox`)
        CREATE TABLE rag_index_inbox (alias TEXT NOT NULL, document_id TEXT NOT NULL, number BIGINT NOT NULL,
            changed_at {number} NOT NULL, received_at {number} NOT NULL, PRIMARY KEY (alias, document_id));
        CREATE INDEX rag_index_inbox_numbers ON rag_index_inbox (alias, number);
        CREATE TABLE rag_index_watches (alias TEXT NOT NULL PRIMARY KEY, since {number} NOT NULL,
            last_number BIGINT NOT NULL, full_number BIGINT, state TEXT NOT NULL, message TEXT NOT NULL,
            caught_up_at {number}, applied_at {number});
        CREATE TABLE rag_index_batch_deletions (collection_id INTEGER NOT NULL, hour INTEGER NOT NULL,
            documents INTEGER NOT NULL, PRIMARY KEY (collection_id, hour))""",
    7: """-- the digests of the source's buckets, and in which bucket each document is (`[source] digest`)
        ALTER TABLE rag_index_documents ADD COLUMN bucket BIGINT;
        ALTER TABLE rag_index_failed_documents ADD COLUMN bucket BIGINT;
        CREATE INDEX rag_index_held_documents ON rag_index_documents (collection_id) WHERE held_at IS NOT NULL;
        CREATE INDEX rag_index_empty_documents ON rag_index_documents (collection_id) WHERE chunks = 0 AND pending = 0;
        CREATE TABLE rag_index_buckets (collection_id INTEGER NOT NULL, bucket BIGINT NOT NULL, digest TEXT NOT NULL,
            PRIMARY KEY (collection_id, bucket)) {without_rowid}""",
    8: """-- what documents have to be looked up by, until that can be done (see `ledger.inbox`)
        CREATE TABLE rag_index_look_ups (alias TEXT NOT NULL, column_name TEXT NOT NULL, value TEXT NOT NULL,
            number BIGINT NOT NULL, changed_at {number} NOT NULL, PRIMARY KEY (alias, column_name, value))""",
    9: """-- what a run found changed, until the watch has given it too (see `ledger.inbox`)
        ALTER TABLE rag_index_watches ADD COLUMN blind TEXT NOT NULL DEFAULT '';
        ALTER TABLE rag_index_watches ADD COLUMN compared TEXT NOT NULL DEFAULT '';
        ALTER TABLE rag_index_watches ADD COLUMN unkept INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE rag_index_watches ADD COLUMN looked_up BIGINT NOT NULL DEFAULT 0;
        CREATE TABLE rag_index_mended (alias TEXT NOT NULL, document_id TEXT NOT NULL, change TEXT NOT NULL,
            run_id TEXT NOT NULL, begun BIGINT NOT NULL, number BIGINT NOT NULL, found_at {number} NOT NULL,
            missed_at {number}, PRIMARY KEY (alias, document_id))""",
    10: """-- the last commit of each collection, which the store keeps too, and how far a watch has read each slot
        ALTER TABLE rag_index_collections ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE rag_index_collections ADD COLUMN committed_at TEXT NOT NULL DEFAULT '';
        CREATE TABLE rag_index_slots (name TEXT NOT NULL PRIMARY KEY, position TEXT NOT NULL)""",
    11: """-- up to which position of its source each index is complete (see `ledger.positions`)
        ALTER TABLE rag_index_inbox ADD COLUMN first_number BIGINT NOT NULL DEFAULT 0;
        ALTER TABLE rag_index_look_ups ADD COLUMN first_number BIGINT NOT NULL DEFAULT 0;
        CREATE INDEX rag_index_inbox_first_numbers ON rag_index_inbox (alias, first_number);
        CREATE TABLE rag_index_milestones (alias TEXT NOT NULL, number BIGINT NOT NULL, at {number} NOT NULL,
            position TEXT NOT NULL, how TEXT NOT NULL, PRIMARY KEY (alias, number));
        CREATE TABLE rag_index_positions (alias TEXT NOT NULL PRIMARY KEY, collection_id INTEGER NOT NULL,
            commits INTEGER NOT NULL, number BIGINT, at {number} NOT NULL, position TEXT NOT NULL,
            how TEXT NOT NULL)""",
    12: """-- how many rows the parts of documents had, for the delete guard, and what each channel of a search finds
        ALTER TABLE rag_index_collections ADD COLUMN channels TEXT NOT NULL DEFAULT '';
        ALTER TABLE rag_index_sizes RENAME TO rag_index_sizes_11;
        CREATE TABLE rag_index_sizes (collection_id INTEGER NOT NULL, day INTEGER NOT NULL,
            part TEXT NOT NULL DEFAULT '', documents INTEGER NOT NULL, PRIMARY KEY (collection_id, day, part));
        INSERT INTO rag_index_sizes SELECT collection_id, day, '', documents FROM rag_index_sizes_11;
        DROP TABLE rag_index_sizes_11""",
}
"""Migration N upgrades a ledger from version N - 1, all in one transaction. A new ledger gets the newest version.

Version 1 is the first that was published.
"""
WORDS = {
    "sqlite": {"number": "FLOAT", "binary": "BLOB", "without_rowid": "WITHOUT ROWID"},
    "postgresql": {"number": "DOUBLE PRECISION", "binary": "BYTEA", "without_rowid": ""},
}


def migrate(connection: Connection, *, redacted_url: str) -> None:
    """Create the ledger or upgrade it to the newest version. Raises LedgerTooNew if a newer rag-index wrote it.

    `redacted_url` is for messages.
    """
    newest = max(MIGRATIONS)
    version = version_of(connection)
    if version is None or version < newest:
        # One run at a time creates or upgrades the ledger; a second one then finds the tables. On SQLite this also
        # begins the transaction, because Python does not begin one for statements that create tables. Without it, a
        # migration that is killed would leave half of its changes.
        exclude = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7041776)"}
        connection.exec_driver_sql(exclude[connection.dialect.name])
        version = version_of(connection)
    if version is None:
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=newest))
        return
    if version > newest:
        raise LedgerTooNew(
            f"ledger {redacted_url} has version {version}, but this rag-index knows versions up to {newest}. "
            "Upgrade rag-index, or name another ledger in [ledger] url"
        )
    for number in range(version + 1, newest + 1):
        for statement in MIGRATIONS[number].split(";"):
            connection.exec_driver_sql(statement.format_map(WORDS[connection.dialect.name]))
        connection.execute(schema_version.update().values(version=number))


def version_of(connection: Connection) -> int | None:
    """Return the version of the ledger; None if there is none."""
    if not sa.inspect(connection).has_table(schema_version.name):
        return None
    return int(connection.scalar(sa.select(sa.func.max(schema_version.c.version))) or 1)
