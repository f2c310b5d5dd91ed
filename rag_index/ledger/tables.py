"""The ledger's tables, and their version.

Times are seconds since 1970, UTC. All names begin with `rag_index_`, so that a ledger may share a database with other
tables.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Float, Integer, LargeBinary, Text

from rag_index.errors import LedgerError

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
    filled("0", whole_in=Integer, commits=Integer),
    filled("", committed_at=Text, written_by=Text),
)

documents = _table(
    "documents",
    primary(collection_id=Integer, key=Text),
    filled(text_hash=LargeBinary, payload_hash=LargeBinary, chunks=Integer, pending=Integer),
    filled("0", added_in=Integer),
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
    filled(number=Integer, host=Text, pid=Integer, started_at=Float),
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

erasures = _table("erasures", primary(alias=Text, hash=Text), optional(pending_since=Float, kept_out_since=Float))
"""Documents by the hash of their key: those whose former texts the store's files may keep, and those that a person had
erased, which stay away although the source may have them."""

contexts = _table(
    "contexts",
    primary(document=LargeBinary, chunk=LargeBinary, recipe=Text),
    filled(context=Text, made_at=Float),
    rowid=False,
)

slots = _table("slots", primary(name=Text), filled(position=Text))

mended = _table(
    "mended",
    primary(alias=Text, document_id=Text),
    filled(change=Text, run_id=Text, begun=BigInteger, number=BigInteger, found_at=Float),
    optional(missed_at=Float),
)


VERSION = 17
"""Raise it with each change of a table: a ledger of another version is refused."""


def create_tables(connection: Connection, *, redacted_url: str) -> None:
    """Create the tables of a new ledger. Raises LedgerError if there are tables of another version.

    `redacted_url` is for messages.
    """
    if (version := version_of(connection)) is None:
        # One run at a time creates the ledger; a second one then finds the tables. On SQLite this also begins the
        # transaction, because Python does not begin one for statements that create tables.
        exclude = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7041776)"}
        connection.exec_driver_sql(exclude[connection.dialect.name])
        if (version := version_of(connection)) is None:
            metadata.create_all(connection)
            connection.execute(schema_version.insert().values(version=VERSION))
            return
    if version != VERSION:
        raise LedgerError(
            f"ledger {redacted_url} has version {version}, and this rag-index reads version {VERSION}: move the file "
            "away, or name another one in [ledger] url, and `rag-index doctor --repair` makes it from the store"
        )


def version_of(connection: Connection) -> int | None:
    """Return the version of the ledger; None if there is none."""
    if not sa.inspect(connection).has_table(schema_version.name):
        return None
    return int(connection.scalar(sa.select(sa.func.max(schema_version.c.version))) or 1)
