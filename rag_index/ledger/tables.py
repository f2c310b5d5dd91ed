"""The ledger's tables in their newest version; `migrations` upgrades older ones. Times are seconds since 1970, UTC.

All names begin with `rag_index_`, so that a ledger may share a database with other tables.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()

schema_version = sa.Table("rag_index_schema_version", metadata, sa.Column("version", sa.Integer, nullable=False))

collections = sa.Table(
    "rag_index_collections",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("store_id", sa.Text, nullable=False),
    sa.Column("embedder_fingerprint", sa.Text, nullable=False),
    sa.Column("embedder", sa.Text, nullable=False),
    sa.Column("chunking", sa.Text, nullable=False),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("chars_per_second", sa.Float),
    sa.Column("whole_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("commits", sa.Integer, nullable=False, server_default="0"),
    sa.Column("committed_at", sa.Text, nullable=False, server_default=""),
    sa.Column("channels", sa.Text, nullable=False, server_default=""),
)

documents = sa.Table(
    "rag_index_documents",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("text_hash", sa.LargeBinary, nullable=False),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("pending", sa.Integer, nullable=False),
    sa.Column("added_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("held_at", sa.Float),
    sa.Column("bucket", sa.BigInteger),
    sqlite_with_rowid=False,
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

failed_documents = sa.Table(
    "rag_index_failed_documents",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("text_hash", sa.LargeBinary, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, server_default="failed"),
    sa.Column("bucket", sa.BigInteger),
)

buckets = sa.Table(
    "rag_index_buckets",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

runs = sa.Table(
    "rag_index_runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, nullable=False, index=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("report", sa.Text, nullable=False),
)

leases = sa.Table(
    "rag_index_leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("process_started", sa.Float, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("renewed_at", sa.Float, nullable=False),
)

scan_states = sa.Table(
    "rag_index_scan_states",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("watermark", sa.Text, nullable=False),
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("full_at", sa.Float, nullable=False),
)

file_hashes = sa.Table(
    "rag_index_file_hashes",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("text_hash", sa.LargeBinary, nullable=False),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

sizes = sa.Table(
    "rag_index_sizes",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True, server_default=""),
    sa.Column("documents", sa.Integer, nullable=False),
)

batch_deletions = sa.Table(
    "rag_index_batch_deletions",
    metadata,
    sa.Column("collection_id", sa.Integer, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True),
    sa.Column("documents", sa.Integer, nullable=False),
)

inbox = sa.Table(
    "rag_index_inbox",
    metadata,
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("document_id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("first_number", sa.BigInteger, nullable=False, server_default="0"),
)
sa.Index("rag_index_inbox_numbers", inbox.c.alias, inbox.c.number)
sa.Index("rag_index_inbox_first_numbers", inbox.c.alias, inbox.c.first_number)

look_ups = sa.Table(
    "rag_index_look_ups",
    metadata,
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("column_name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.Column("first_number", sa.BigInteger, nullable=False, server_default="0"),
)


def _position() -> list[sa.Column[Any]]:
    """Return the columns of a `documents.positions.Position`."""
    texts = [sa.Column(name, sa.Text, nullable=False) for name in ("position", "how")]
    return [sa.Column("at", sa.Float, nullable=False), *texts]


milestones = sa.Table(
    "rag_index_milestones",
    metadata,
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    *_position(),
)

positions = sa.Table(
    "rag_index_positions",
    metadata,
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("collection_id", sa.Integer, nullable=False),
    sa.Column("commits", sa.Integer, nullable=False),
    sa.Column("number", sa.BigInteger),
    *_position(),
)

watches = sa.Table(
    "rag_index_watches",
    metadata,
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("full_number", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("caught_up_at", sa.Float),
    sa.Column("applied_at", sa.Float),
    sa.Column("blind", sa.Text, nullable=False, server_default=""),
    sa.Column("compared", sa.Text, nullable=False, server_default=""),
    sa.Column("unkept", sa.Integer, nullable=False, server_default="0"),
    sa.Column("looked_up", sa.BigInteger, nullable=False, server_default="0"),
)

slots = sa.Table(
    "rag_index_slots",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.Text, nullable=False),
)

mended = sa.Table(
    "rag_index_mended",
    metadata,
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("document_id", sa.Text, primary_key=True),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("begun", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("found_at", sa.Float, nullable=False),
    sa.Column("missed_at", sa.Float),
)
