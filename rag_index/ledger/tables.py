"""The ledger's tables in their newest version; `migrations` upgrades older ones. Times are seconds since 1970, UTC.

All names begin with `rag_index_`, so that a ledger may share a database with other tables.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Float, Integer, LargeBinary, Text

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
