"""The ledger's tables with their version, and the rows that its methods return.

Times are seconds since 1970, UTC; None means never. The names of all tables begin with
`rag_index_`, so that a ledger may share a database with other tables.
"""

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
DAY = 86_400.0
"""Seconds."""
FIRST_RETRY = 60.0
"""Seconds until a watch retries a document that failed once. Chosen; docs/watching.md has it."""
MAX_DOUBLINGS = 20
"""Number of doublings after which the delay stays: 11 reach a day, and 1,024 would overflow."""
RETRY_PERIOD = 4.5 * DAY
"""Seconds from the first failure of a text until no run retries it: after five nightly runs."""


def primary(**kinds: Kind) -> Columns:
    """Return the columns of a primary key, by name."""
    columns = []
    for name, kind in kinds.items():
        columns.append(sa.Column(name, kind, primary_key=True, autoincrement=False))
    return columns


def required(default: str | None = None, /, **kinds: Kind) -> Columns:
    """Return columns that are never NULL, by name, with the same default."""
    columns = []
    for name, kind in kinds.items():
        columns.append(sa.Column(name, kind, nullable=False, server_default=default))
    return columns


def optional(**kinds: Kind) -> Columns:
    """Return columns that may be NULL, by name."""
    return [sa.Column(name, kind) for name, kind in kinds.items()]


def _table(name: str, *columns: Columns, rowid: bool = True) -> sa.Table:
    full_name = f"rag_index_{name}"
    return sa.Table(full_name, metadata, *chain(*columns), sqlite_with_rowid=rowid)


schema_version = _table("schema_version", required(version=Integer))

collections = _table(
    "collections",
    [sa.Column("id", Integer, primary_key=True, autoincrement=True)],
    required(alias=Text),
    [sa.Column("name", Text, nullable=False, unique=True)],
    required(
        store_id=Text,
        embedder_fingerprint=Text,
        embedder=Text,
        chunking=Text,
        dimension=Integer,
        state=Text,
    ),
    required(created_at=Float),
    optional(chars_per_second=Float, held_since=Float),
    required("0", whole_in=Integer, commits=Integer, held=Integer),
    required("", committed_at=Text, written_by=Text, policies=Text),
    required("0", erasable=Integer),
    optional(erased_at=Float),
    required("0", elsewhere=Integer),
)

documents = _table(
    "documents",
    primary(collection_id=Integer, key=Text),
    required(text_hash=LargeBinary, payload_hash=LargeBinary, chunks=Integer, pending=Integer),
    required("0", added_in=Integer),
    optional(bucket=BigInteger),
    required("0", by_words=Integer),
    rowid=False,
)
# Partial indexes, as DDL: sa.Index would import the dialects of both databases for its conditions.
for _name, _condition in (
    ("pending", "pending = 1"),
    ("empty", "chunks = 0 AND pending = 0"),
    ("worded", "by_words = 1"),
):
    _index = f"CREATE INDEX rag_index_{_name}_documents ON rag_index_documents (collection_id)"
    _ddl = sa.DDL(f"{_index} WHERE {_condition}")  # type: ignore[no-untyped-call]
    sa.event.listen(documents, "after_create", _ddl)

sa.Index("rag_index_buckets_of_documents", documents.c.collection_id, documents.c.bucket)

# The conditions of the partial indexes, for queries that they answer
# (`LedgerConnection._is_in_index`). The numbers are literal: a query with bound values would not
# match an index.
_NO: sa.ColumnElement[int] = sa.literal_column("0")
_YES: sa.ColumnElement[int] = sa.literal_column("1")
PENDING = documents.c.pending == _YES
"""Documents whose write has started and is not confirmed."""
EMPTY = (documents.c.chunks == _NO) & (documents.c.pending == _NO)
"""Documents without text, which have no points."""
BY_WORDS = documents.c.by_words == _YES
"""Documents that a search finds by their words only, because they have no vectors yet."""

failed_documents = _table(
    "failed_documents",
    primary(collection_id=Integer, key=Text),
    required(text_hash=LargeBinary, reason=Text, tries=Integer, first_at=Float, last_at=Float),
    required("failed", kind=Text),
    optional(bucket=BigInteger),
    required("", cause=Text),
    required("0", incomplete_since=Float),
)

buckets = _table(
    "buckets",
    primary(collection_id=Integer, bucket=BigInteger),
    required(digest=Text),
    required("0", documents=Integer, points=Integer, added_in=Integer),
    rowid=False,
)
"""Buckets of the source's rows (`ScanState`), each with the digest of what is indexed of it; "" if
the next scan must read it. The other columns describe its documents with points when it was
committed: how many they are, how many points they have, and which commit added the newest one."""

runs = _table(
    "runs",
    primary(id=Text),
    [sa.Column("alias", Text, nullable=False, index=True)],
    required(number=Integer, host=Text, pid=Integer, started_at=Float),
    optional(ended_at=Float),
    required(state=Text, message=Text, report=Text),
)

leases = _table(
    "leases",
    primary(name=Text),
    optional(run_id=Text),
    required(
        host=Text, pid=Integer, process_started=Float, epoch=Integer, since=Float, renewed_at=Float
    ),
)

scan_states = _table(
    "scan_states",
    primary(collection_id=Integer),
    required(watermark=Text, settings=Text, full_at=Float),
)

file_hashes = _table(
    "file_hashes",
    primary(collection_id=Integer, key=Text),
    required(stamp=Text, text_hash=LargeBinary, payload_hash=LargeBinary),
    rowid=False,
)

sizes = _table(
    "sizes",
    primary(collection_id=Integer, part=Text),
    required(size=Integer, at=Float),
)
"""The largest size of a collection within a day (as the part "") and of each part of its source,
with the time when it was counted."""

positions = _table(
    "positions",
    primary(alias=Text),
    required(collection_id=Integer, commits=Integer, at=Float, how=Text),
)

watches = _table(
    "watches",
    primary(alias=Text),
    required(since=Float, state=Text, message=Text),
    optional(applied_at=Float),
)

contexts = _table(
    "contexts",
    primary(document=LargeBinary, chunk=LargeBinary, recipe=Text),
    required(context=Text, made_at=Float),
    rowid=False,
)

scans = _table(
    "scans",
    [sa.Column("number", Integer, primary_key=True, autoincrement=True)],
    required(alias=Text),
)

scan_metadata = sa.MetaData()


def scan_table(name: str, *columns: Columns) -> sa.Table:
    """Return a table for what a scan of the source or the store finds.

    Each row has the number of its scan (`LedgerConnection.new_scan`).
    """
    numbered = chain(primary(scan=Integer), *columns)
    return sa.Table(f"rag_index_{name}", scan_metadata, *numbered, sqlite_with_rowid=False)


intact = scan_table("intact")
"""The scans whose rows are still there. A crash of PostgreSQL empties all tables of scans."""
seen = scan_table("seen", primary(key=Text), optional(page=Integer, bucket=BigInteger))
"""Documents that the source has, with the number of the page that they were read in."""
lost = scan_table(
    "lost", primary(key=Text), optional(text_hash=LargeBinary, payload_hash=LargeBinary)
)
"""Documents whose points must be deleted. Those that the source no longer has are without hashes;
those whose text is now empty have their new hashes. A document whose row the source still has,
with a value that nobody decided on, has an empty payload hash alone."""
texts = scan_table("texts", primary(text_hash=LargeBinary), optional(key=Text))
"""One document for each text of a collection."""
to_read = scan_table("to_read", primary(bucket=BigInteger))
"""The buckets that the scan reads. The documents of all others count as seen."""
tallies = scan_table("tallies", primary(key=Text), required(points=Integer, altered=Integer))
orphans = scan_table("orphans", primary(id=Text), optional(key=Text))
source_keys = scan_table("source_keys", primary(key=Text))
"""These three are of a comparison of store and ledger (`etl.reconcile`): the points of each
document, the points of unknown documents, and the keys of the source."""


def create_tables(connection: Connection, *, redacted_url: str, read_only: bool) -> None:
    """Create the tables of a new ledger.

    Args:
        redacted_url: The ledger's URL for messages.
        read_only: Do not create shared tables of scans. The caller uses temporary ones.

    Raises:
        LedgerError: Another version of this program wrote the ledger.
    """
    version = version_of(connection)
    if version == LEDGER_VERSION:
        return
    if version is None:
        # One process at a time creates the ledger; a second one then finds the tables. On SQLite
        # this also begins the transaction, because Python does not begin one for statements that
        # create tables.
        exclude = {
            "sqlite": "BEGIN IMMEDIATE",
            "postgresql": "SELECT pg_advisory_xact_lock(7041776)",
        }
        connection.exec_driver_sql(exclude[connection.dialect.name])
        version = version_of(connection)
    # Still no tables: this process is the first.
    if version is None:
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=LEDGER_VERSION))
    elif version != LEDGER_VERSION:
        is_file = connection.dialect.name == "sqlite"
        raise LedgerError(_other_version(version, redacted_url, is_file=is_file))
    if connection.dialect.name == "postgresql" and not read_only:
        create_scan_tables(connection, "UNLOGGED")


def _other_version(version: int, redacted_url: str, *, is_file: bool) -> str:
    """Return the message about a ledger that another version of this program wrote."""
    found = (
        f"ledger {redacted_url} has version {version}, and this rag-index reads version"
        f" {LEDGER_VERSION}"
    )
    if version > LEDGER_VERSION:
        return f"{found}: a newer rag-index wrote it, so upgrade this one"
    remedy = "name another database in [ledger] url"
    if is_file:
        remedy = "move the file away, or name another one in [ledger] url"
    return (
        f"{found}: {remedy}, and `rag-index doctor --repair` makes it from the store, without "
        "embedding. Tries of failed documents, the history of runs and cached contexts are lost "
        "then, as the store does not have them"
    )


def create_scan_tables(connection: Connection, kind: Literal["TEMPORARY", "UNLOGGED"]) -> None:
    """Create the tables of scans, unless they exist.

    Args:
        kind: TEMPORARY for this connection alone. UNLOGGED for all connections of PostgreSQL, since
            a pooler may give each transaction another session, with other temporary tables.
    """
    for table in scan_metadata.sorted_tables:
        compiled = CreateTable(table, if_not_exists=True).compile(dialect=connection.dialect)
        create = str(compiled).replace("CREATE", f"CREATE {kind}", 1)
        connection.exec_driver_sql(create)


def version_of(connection: Connection) -> int | None:
    """Return the version of the ledger. None if the database has no ledger."""
    if not sa.inspect(connection).has_table(schema_version.name):
        return None
    newest = sa.select(sa.func.max(schema_version.c.version))
    # A table without a row is taken for the first version, which is refused.
    return int(connection.scalar(newest) or 1)


class RecordedDocument(NamedTuple):
    """The ledger's row of a document.

    A pending document is treated as changed. One that was written by words alone is treated as new,
    because its points have no vectors yet.
    """

    text_hash: bytes
    payload_hash: bytes
    chunks: int
    pending: int
    """1 if its write has started and is not confirmed, else 0."""
    by_words: int = 0
    """1 if it has no vectors yet, else 0."""


class LostDocument(NamedTuple):
    """A document whose points must be deleted. Both hashes are None if the source deleted it."""

    key: str
    text_hash: bytes | None
    payload_hash: bytes | None


class Totals(NamedTuple):
    """Numbers of a collection."""

    documents: int
    """Written documents with points."""
    points: int
    pending: int
    """Documents whose write is not confirmed."""
    by_words: int = 0
    """Written documents without vectors."""

    @property
    def findable(self) -> str:
        """How many documents a search finds, and by what, for messages; "" if none."""
        if not self.by_words:
            return f"{self.documents:,} documents can be found" if self.documents else ""
        with_vectors = self.documents - self.by_words
        return (
            f"{self.documents:,} documents can be found by their words, {with_vectors:,} by meaning"
        )


class IndexedDocuments(NamedTuple):
    """Numbers of documents with points."""

    all: int
    when_complete: int
    """Those that the index had already when it was last complete."""


@dataclass(frozen=True, slots=True)
class UnreadCounts:
    """Numbers of documents in the buckets that a scan leaves unread."""

    empty: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """Numbers of the documents that the ledger has in one bucket."""

    unseen: int = 0
    """Documents that the current scan did not see."""
    unfinished: int = 0
    """Documents that are pending or have no vectors yet."""
    documents: int = 0
    """Documents with points."""
    points: int = 0
    added_in: int = 0
    """The newest commit that added a document with points."""


class ScanRecord(NamedTuple):
    """The state that a complete scan leaves for the next one."""

    watermark: str
    settings: str
    full_at: float
    """When a scan last read every document."""


class Reached(NamedTuple):
    """The time up to which an index is complete.

    A search finds everything that the source had committed by then.
    """

    alias: str
    collection: str
    """The collection that is complete. Other collections of the index may not be."""
    commits: int
    """The number of the commit that a reader of the collection has to see."""
    at: float
    """A watch takes the earlier one of its own clock and that of the database."""
    how: str
    """Who found it: `watch`, or `run` if nothing watches the index."""


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """The ledger's row of the watch of an index."""

    alias: str
    since: float
    state: str
    """`running`, `waiting`, `backing off`, `failing` or `stopped`; `message` gives the reason."""
    message: str
    applied_at: float | None
    """When it last wrote something to the index."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The ledger's row of a collection of the store."""

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
    """The commit at which it was last complete: it had everything that the source had, and nothing
    else. 0 if it never was."""
    held: int
    """Number of documents that the delete guard kept the last run from deleting."""
    held_since: float | None
    commits: int
    committed_at: str
    written_by: str = ""
    """Hash of the settings that the last run wrote it by; "" if unknown."""
    policies: str = ""
    """Digest of the row level security of its reader, at the end of the last run over all
    documents."""
    erasable: int = 0
    """Number of documents deleted or changed since the last erasure; one counts each time."""
    erased_at: float | None = None
    """When the last erasure ended; None if there was none."""
    elsewhere: int = 0
    """1 if it is in another store than the one that the settings named in the last run.

    `rebuild --to` makes it there, or the settings have left its store."""

    @property
    def outdated(self) -> str:
        """Why it must be rebuilt although the settings are the same; "" if it need not be."""
        # "text-1/index-12" -> 12
        made = re.search(r"/index-(\d+)$", self.chunking)
        if made is None or int(made[1]) == INDEX_VERSION:
            return ""
        if int(made[1]) > INDEX_VERSION:
            return f"{self.name} was made by a newer rag-index"
        return f"{self.name} was made by an older rag-index; {INDEX_CHANGES}"

    @property
    def commit_mark(self) -> CommitMark:
        """The commit mark of the last commit.

        The store has the same one, unless one of the two was restored from an older copy.
        """
        return CommitMark(self.commits, self.committed_at)


class Erasable(NamedTuple):
    """The documents of an index that were deleted or changed since the last erasure."""

    documents: int
    """How many they are."""
    since: float
    """Since when they are counted."""
    lately: bool
    """Whether the last erasure was within a day."""


@shows_sizes("tries", "first_at", "last_at", "kind")
@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that could not be indexed, or only incompletely."""

    key: str
    text_hash: bytes
    reason: str
    tries: int
    first_at: float
    """When the present text first failed."""
    last_at: float
    incomplete_since: float
    """Since when the index lacks the document, also because of earlier texts."""
    kind: FailureKind = "failed"
    cause: FailureCause = ""

    @property
    def next_try(self) -> float:
        """When a watch retries the document."""
        # Its text ends the embedding server, so each attempt costs all documents the server.
        if self.cause == "server":
            return self.last_at + DAY
        # After 1, 2, 4, 8 minutes, and so on, up to a day.
        doublings = min(self.tries - 1, MAX_DOUBLINGS)
        delay = FIRST_RETRY * 2.0**doublings
        return self.last_at + min(DAY, delay)

    def is_due(self, now: float, *, watched: bool) -> bool:
        """Return whether a run retries the same text.

        Args:
            watched: Whether a watch started the run. It waits until `next_try`.
        """
        # No run retries it after five nightly runs.
        if now >= self.first_at + RETRY_PERIOD:
            return False
        return not watched or now >= self.next_try


FAILED_FIELDS = [failed_documents.c[field.name] for field in fields(FailedDocument)]
"""The columns of a `FailedDocument`, in the order of its fields."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """The ledger's row of a run of one index."""

    id: str
    alias: str
    number: int
    """Runs are ordered by this number, since a clock may be set back."""
    host: str
    pid: int
    started_at: float
    ended_at: float | None
    state: str
    message: str
    report: dict[str, Any]
