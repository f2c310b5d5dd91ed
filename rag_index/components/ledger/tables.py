"""The ledger's tables with their version, and the rows that its methods return. Times are seconds since 1970, UTC, and
None is never. All names of tables begin with `rag_index_`, so that a ledger may share a database with other tables."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import BigInteger, Float, Integer, LargeBinary, Text
from sqlalchemy.schema import CreateTable

from rag_index.core.documents import INDEX_CHANGES, INDEX_VERSION
from rag_index.core.documents.batches import CommitMark, FailureCause, FailureKind
from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

metadata = sa.MetaData()
Columns = list[sa.Column[Any]]
Kind = type[sa.types.TypeEngine[Any]]
LEDGER_VERSION = 25
"""Raise it with each change of a table: a ledger of another version is refused."""
FIRST_RETRY, DAY = 60.0, 86_400.0
FIVE_NIGHTS = 4.5 * DAY
"""From the first night in which a text failed until after the fifth."""


def primary(**kinds: Kind) -> Columns:
    """Return the columns of a primary key, by their names."""
    return [sa.Column(name, kind, primary_key=True, autoincrement=False) for name, kind in kinds.items()]


def filled(default: str | None = None, /, **kinds: Kind) -> Columns:
    """Return columns that are never NULL."""
    return [sa.Column(name, kind, nullable=False, server_default=default) for name, kind in kinds.items()]


def optional(**kinds: Kind) -> Columns:
    """Return columns that may be NULL."""
    return [sa.Column(name, kind) for name, kind in kinds.items()]


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
    optional(chars_per_second=Float, held_since=Float),
    filled("0", whole_in=Integer, commits=Integer, held=Integer),
    filled("", committed_at=Text, written_by=Text, policies=Text),
    filled("0", erasable=Integer),
    optional(erased_at=Float),
    filled("0", elsewhere=Integer),
)

documents = _table(
    "documents",
    primary(collection_id=Integer, key=Text),
    filled(text_hash=LargeBinary, payload_hash=LargeBinary, chunks=Integer, pending=Integer),
    filled("0", added_in=Integer),
    optional(bucket=BigInteger),
    filled("0", by_words=Integer),
    rowid=False,
)
for _name, _rows in (
    ("pending", "pending = 1"),
    ("empty", "chunks = 0 AND pending = 0"),
    ("worded", "by_words = 1"),
):  # not as sa.Index, which imports the dialects of both databases for its conditions
    _index = f"CREATE INDEX rag_index_{_name}_documents ON rag_index_documents (collection_id) WHERE {_rows}"
    sa.event.listen(documents, "after_create", sa.DDL(_index))  # type: ignore[no-untyped-call]

sa.Index("rag_index_buckets_of_documents", documents.c.collection_id, documents.c.bucket)

_NO: sa.ColumnElement[int] = sa.literal_column("0")  # with bound values a query would not match an index
_YES: sa.ColumnElement[int] = sa.literal_column("1")
PENDING = documents.c.pending == _YES
EMPTY = (documents.c.chunks == _NO) & (documents.c.pending == _NO)
BY_WORDS = documents.c.by_words == _YES
"""The conditions of these indexes, for queries that they answer (`LedgerConnection._is_in_index`)."""

failed_documents = _table(
    "failed_documents",
    primary(collection_id=Integer, key=Text),
    filled(text_hash=LargeBinary, reason=Text, tries=Integer, first_at=Float, last_at=Float),
    filled("failed", kind=Text),
    optional(bucket=BigInteger),
    filled("", cause=Text),
    filled("0", incomplete_since=Float),
)

buckets = _table(
    "buckets",
    primary(collection_id=Integer, bucket=BigInteger),
    filled(digest=Text),
    filled("0", documents=Integer, points=Integer, added_in=Integer),
    rowid=False,
)
"""Buckets of rows with the digest of what is indexed of them; "" for those that have to be read (`ScanState`). The
numbers are those of their documents when they were committed: how many, with how many points, and the newest."""

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
    primary(collection_id=Integer, part=Text),
    filled(size=Integer, at=Float),
)
"""The largest size of a collection in a day, and when it was counted, as the part "", and that of each part."""

positions = _table("positions", primary(alias=Text), filled(collection_id=Integer, commits=Integer, at=Float, how=Text))

watches = _table(
    "watches", primary(alias=Text), filled(since=Float, state=Text, message=Text), optional(applied_at=Float)
)

contexts = _table(
    "contexts",
    primary(document=LargeBinary, chunk=LargeBinary, recipe=Text),
    filled(context=Text, made_at=Float),
    rowid=False,
)

scans = _table("scans", [sa.Column("number", Integer, primary_key=True, autoincrement=True)], filled(alias=Text))

scan_metadata = sa.MetaData()


def scan_table(name: str, *columns: Columns) -> sa.Table:
    """Return a table of what scans of source and store find; `LedgerConnection.new_scan` gives the number of a scan."""
    numbered = chain(primary(scan=Integer), *columns)
    return sa.Table(f"rag_index_{name}", scan_metadata, *numbered, sqlite_with_rowid=False)


intact = scan_table("intact")
"""The scans whose rows these tables still have: a crash empties them."""
seen = scan_table("seen", primary(key=Text), optional(page=Integer, bucket=BigInteger))
lost = scan_table("lost", primary(key=Text), optional(text_hash=LargeBinary, payload_hash=LargeBinary))
"""Documents that the source no longer has, without hashes, and those whose text is empty now, with their new ones."""
texts = scan_table("texts", primary(text_hash=LargeBinary), optional(key=Text))
"""A document of each text of one collection."""
to_read = scan_table("to_read", primary(bucket=BigInteger))
"""The buckets that the scan reads. The documents of all others count as seen."""
tallies = scan_table("tallies", primary(key=Text), filled(points=Integer, altered=Integer))
orphans = scan_table("orphans", primary(id=Text), optional(key=Text))
source_keys = scan_table("source_keys", primary(key=Text))
"""What every point was compared with, and found to be (`etl.reconcile`)."""


def create_tables(connection: Connection, *, redacted_url: str, read_only: bool) -> None:
    """Create the tables of a new ledger. Raises LedgerError if the ledger is of another version than this program's."""
    version = version_of(connection)
    if version == LEDGER_VERSION:
        return
    if version is None:
        # One process at a time creates the ledger; a second one then finds the tables. On SQLite this also begins the
        # transaction, because Python does not begin one for statements that create tables.
        exclude = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7041776)"}
        connection.exec_driver_sql(exclude[connection.dialect.name])
        version = version_of(connection)
    if version is None:
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=LEDGER_VERSION))
    elif version != LEDGER_VERSION:
        raise LedgerError(_other_version(version, redacted_url, is_file=connection.dialect.name == "sqlite"))
    if connection.dialect.name == "postgresql" and not read_only:
        create_scan_tables(connection, "UNLOGGED")


def _other_version(version: int, redacted_url: str, *, is_file: bool) -> str:
    """Return the message about a ledger that another version of this program wrote."""
    found = f"ledger {redacted_url} has version {version}, and this rag-index reads version {LEDGER_VERSION}"
    if version > LEDGER_VERSION:
        return f"{found}: a newer rag-index wrote it, so upgrade this one"
    way = "name another database in [ledger] url"
    if is_file:
        way = "move the file away, or name another one in [ledger] url"
    return (
        f"{found}: {way}, and `rag-index doctor --repair` makes it from the store, without embedding. Tries of failed "
        "documents, the history of runs and cached contexts are lost then, as the store does not have them"
    )


def create_scan_tables(connection: Connection, kind: Literal["TEMPORARY", "UNLOGGED"]) -> None:
    """Create the tables of scans: for this connection alone, or in PostgreSQL for all, without a log. A pooler may give
    each transaction another session, and with it other temporary tables."""
    for table in scan_metadata.sorted_tables:
        create = str(CreateTable(table, if_not_exists=True).compile(dialect=connection.dialect))
        connection.exec_driver_sql(create.replace("CREATE", f"CREATE {kind}", 1))


def version_of(connection: Connection) -> int | None:
    """Return the version of the ledger; None if there is none."""
    if not sa.inspect(connection).has_table(schema_version.name):
        return None
    return int(connection.scalar(sa.select(sa.func.max(schema_version.c.version))) or 1)


class Known(NamedTuple):
    """The ledger's row of a document. A pending document is treated as changed, and one that was written `by_words`
    alone as new: its points have no vectors yet."""

    text_hash: bytes
    payload_hash: bytes
    chunks: int
    pending: int
    by_words: int = 0


class Totals(NamedTuple):
    """Numbers of a collection: documents and points that are written, documents that are pending, and those of the
    written ones that have no vectors yet."""

    documents: int
    points: int
    pending: int
    by_words: int = 0

    @property
    def findable(self) -> str:
        """Say how many documents a search finds, and by what; "" if there are none."""
        if not self.by_words:
            return f"{self.documents:,} documents can be found" if self.documents else ""
        meant = self.documents - self.by_words
        return f"{self.documents:,} documents can be found by their words, {meant:,} by meaning"


class IndexedDocuments(NamedTuple):
    """Numbers of documents with points: all, and those that were there when the index was last whole."""

    all: int
    whole: int


class ScanRecord(NamedTuple):
    """The state that a complete scan leaves for the next one; `full_at` is when one last read every document."""

    watermark: str
    settings: str
    full_at: float


class Reached(NamedTuple):
    """By when an index was complete: everything that its source had committed by then is found by a search."""

    alias: str
    collection: str
    """The name of the collection that this is true of, and of no other of the index."""
    commits: int
    """The number of the commit that a reader of this collection has to see."""
    at: float
    """Seconds since 1970. A watch takes the earlier one of its clock and that of the database."""
    how: str
    """Who knows it: `watch`, or `run` where nothing watches."""


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """What the ledger keeps about the watch of an index."""

    alias: str
    since: float
    state: str
    """`running`, `waiting`, `backing off`, `failing` or `stopped`; `message` says why."""
    message: str
    applied_at: float | None
    """When it last wrote something to the index."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of the store, as the ledger knows it."""

    id: int
    alias: str
    name: str
    store_id: str
    embedder_fingerprint: str
    embedder: str
    """A description of the embedder for messages."""
    chunking: str
    dimension: int
    state: str
    """`ready`, or `building` while another collection is live."""
    created_at: float
    chars_per_second: float | None
    whole_in: int
    """The commit by which it last had everything that the source had, and nothing else; 0 if it never had."""
    held: int
    """How many documents the last run would have deleted, if the delete guard had allowed it."""
    held_since: float | None
    commits: int
    committed_at: str
    written_by: str = ""
    """A hash of the settings by which it was last written, or a run began to; "" if that is unknown."""
    policies: str = ""
    """The digest of the row level security that its reader had when the last run over all documents came to its end."""
    erasable: int = 0
    """How many documents were deleted or changed since the last erasure; a document counts each time."""
    erased_at: float | None = None
    """When the last erasure ended; None if there was none."""
    elsewhere: int = 0
    """Whether it is in another store than the one that the settings named in the last run.

    `rebuild --to` makes it there, or the settings have left its store."""

    @property
    def outdated(self) -> str:
        """Why the collection must be rebuilt although the settings are the same; "" if it needs not."""
        made = re.search(r"/index-(\d+)$", self.chunking)
        if made is None or int(made[1]) == INDEX_VERSION:
            return ""
        if int(made[1]) > INDEX_VERSION:
            return f"{self.name} was made by a newer rag-index"
        return f"{self.name} was made by an older rag-index; {INDEX_CHANGES}"

    @property
    def commit_mark(self) -> CommitMark:
        """The last commit. The store has the same one, unless one of the two was restored from an older copy."""
        return CommitMark(self.commits, self.committed_at)


class Erasable(NamedTuple):
    """How many documents of an index were deleted or changed since the last erasure, and since when that counts."""

    documents: int
    since: float
    lately: bool
    """Whether the last erasure was within a day."""


@shows_sizes("tries", "first_at", "last_at", "kind")
@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that could not be indexed, with its reason and number of tries."""

    key: str
    text_hash: bytes
    reason: str
    tries: int
    first_at: float
    """When the present text first failed."""
    last_at: float
    incomplete_since: float
    """Since when the document has been listed, also with earlier texts: the index lacks it since then."""
    kind: FailureKind = "failed"
    cause: FailureCause = ""

    @property
    def next_try(self) -> float:
        """When a watch tries it again: after a minute, then after twice as long, up to a day. If a text of it ends the
        embedding server, a try costs all others the server: after a day."""
        if self.cause == "server":
            return self.last_at + DAY
        return self.last_at + min(DAY, FIRST_RETRY * 2.0 ** min(self.tries - 1, 20))

    def is_due(self, now: float, *, watched: bool) -> bool:
        """Return whether a run by itself tries the same text again. After five nights none does."""
        return now < self.first_at + FIVE_NIGHTS and (not watched or now >= self.next_try)


FAILED_FIELDS = [failed_documents.c[field.name] for field in fields(FailedDocument)]
"""The columns of a `FailedDocument`, in the order of its fields."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run of one index. Runs are ordered by their `number`, whatever the clock said."""

    id: str
    alias: str
    number: int
    host: str
    pid: int
    started_at: float
    ended_at: float | None
    state: str
    message: str
    report: dict[str, Any]
