"""Databases to read, of each kind, that a test fills; and a scan state in memory. What a source
with digests leaves unread has not changed. The oracle is a source that reads everything: whatever a
full scan finds must be what the earlier states and the rows that a scan with digests read add up
to."""

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from rag_index.components.sources import digest
from rag_index.components.sources.attachments import FileReader
from rag_index.components.sources.buckets import BucketDigests, BucketLayout
from rag_index.components.sources.digest import DigestSource
from rag_index.components.sources.sql import SqlSource
from rag_index.components.sources.text import NotText
from rag_index.core.documents.keys import document_id
from rag_index.core.settings import IndexSettings
from tests.live.mariadb import mariadb
from tests.live.sessions import Session, new_database

__all__ = ["mariadb"]

KINDS = ["sqlite", "postgresql", "mariadb"]


class SourceDatabase:
    """An empty database. `source` opens an index of its table `note`, unless the test names
    another."""

    def __init__(self, url):
        self.url = url
        self.kind = url.get_backend_name()
        self._open = []

    def run(self, *statements, rows=None):
        """Run statements; with `rows`, one statement once for each, whose parameters are marked by
        `?`."""
        cursor = self._session.connection.cursor()
        for statement in statements:
            if rows is None:
                cursor.execute(statement)
            else:
                cursor.executemany(
                    statement if self.kind == "sqlite" else statement.replace("?", "%s"), rows
                )
        cursor.close()
        if (
            self.kind == "sqlite"
        ):  # a file may be moved, and a connection that stays open keeps its log
            vars(self).pop("_session").close()
        return self

    @cached_property
    def _session(self):
        return Session(self.url)

    def notes(self, count, first=1):
        columns = "id INTEGER PRIMARY KEY, body VARCHAR(50), author VARCHAR(50)"
        rows = [(i, f"note {i}", f"author {i}") for i in range(first, first + count)]
        self.run(f"CREATE TABLE IF NOT EXISTS note ({columns})")
        return self.run("INSERT INTO note VALUES (?, ?, ?)", rows=rows)

    def source(self, kind=SqlSource, *, url=None, timeout=60.0, folder=None, first=None, **given):
        values = {"name": "notes", "key": "id", **given}
        if "parts" not in given and "title" not in given:
            values.setdefault("text", "body")
        if "query" not in given:
            values.setdefault("table", "note")
        index, how = IndexSettings(**values), {"timeout": timeout, "folder": folder, "first": first}
        self._open.append(kind(url or self.url, index, **how))
        return self._open[-1]

    def digests(self, **given):
        return self.source(DigestSource, **given)

    def close(self):
        for source in self._open:
            source.close()
        if "_session" in vars(self):
            vars(self).pop("_session").close()


def pages(source, rows=1000):
    """Yield all pages of a source; between two of them a test may change something."""
    page = source.page(None, rows)
    while page.cursor is not None:
        yield page
        page = source.page(page.cursor, rows)
    yield page


def read(source, rows=1000, between=lambda page: None):
    """Return all texts by key, read page by page; `between` is called after each page."""
    source.check()
    documents = {}
    for page in pages(source, rows):
        assert len(page.documents) + len(page.unreadable) <= rows
        for key, text in zip(page.documents.keys, page.documents.texts, strict=True):
            assert key not in documents
            documents[key] = text
        between(page)
    return documents


@dataclass
class KnownStamps:
    """A scan state, as the ledger has it: the watermark, and the stamp of each committed document
    by key."""

    watermark: str | None = None
    stamps: dict[str, str] = field(default_factory=dict)
    following: str = ""
    layout = None

    def begin(self, layout, to_read, *, left=0):
        """Do nothing: the scan is the only one."""

    def set_watermark(self, watermark):
        self.following = watermark

    def unchanged(self, stamps):
        return {key for key, stamp in stamps.items() if self.stamps.get(key) == stamp}

    def keys_under(self, prefix):
        return [key for key in self.stamps if key.startswith(prefix)]


@contextmanager
def open_database(kind, request, tmp_path):
    """Yield an empty database of a kind; `request` gives the servers. PostgreSQL takes ten times as
    long to make one as to empty it."""
    if kind == "postgresql":
        server, name = request.getfixturevalue("kept_database")
        empty(server, name)
        with closing(SourceDatabase(server.url(name))) as database:
            yield database
    else:
        with (
            new_database(kind, request, tmp_path, "parted") as url,
            closing(SourceDatabase(url)) as database,
        ):
            yield database


def empty(server, name):
    """Drop all that a test has left in a database of PostgreSQL, and end the sessions that it has
    left."""
    with server.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} RESET ALL")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
    with server.connect(name) as connection:
        schemas = (
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <>"
            " 'information_schema'"
        )
        for (schema,) in connection.execute(schemas).fetchall():
            connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
        connection.execute("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")


class State:
    """What scans leave to the next one, as the ledger keeps it: a `ScanState` without documents
    that failed."""

    def __init__(self) -> None:
        self.layout: BucketLayout | None = None
        self.known: dict[int, str] = {}
        self.documents: dict[str, tuple[int, bytes, bytes]] = {}
        """The bucket and the hashes of each document, by key."""
        self.stamps: dict[str, str] = {}
        self.read: set[str] = set()
        """The ids that the last scan read."""

    @property
    def watermark(self):
        return None if self.layout is None else self.layout.encode()

    def begin(self, layout, to_read, *, left=0) -> None:
        self.following, self.to_read = layout, to_read

    def digests(self, is_current=None):
        stale = [
            self.documents[key][0] for key, stamp in self.stamps.items() if not is_current(stamp)
        ]
        return self.known | dict.fromkeys(stale, "")


def scan(source, state: State, *, rows: int = 50) -> None:
    """Scan the source and bring the state up to date, as a run does that comes to its end."""
    source.use_scan_state(state)
    total = source.count()
    found = BucketDigests()
    seen: dict[str, tuple[int, bytes, bytes]] = {}
    complete: set[int] = set()
    unread = 0
    for page in pages(source, rows):
        unread += page.buckets.unread
        documents = page.documents
        for key, *hashes in zip(
            documents.keys, documents.text_hashes, documents.payload_hashes, strict=True
        ):
            assert key not in seen
            seen[key] = (page.buckets.of[key], *hashes)
        for failure in page.unreadable:
            seen[failure.key] = (page.buckets.of[failure.key], b"", failure.reason.encode())
        assert page.buckets.of.keys() == {
            *documents.keys,
            *(failure.key for failure in page.unreadable),
        }
        assert complete.isdisjoint(page.buckets.sums), (
            "no row of a bucket comes after it was complete"
        )
        complete |= {*page.buckets.complete}
        state.stamps |= page.stamps
        for bucket, sums in page.buckets.sums.items():
            found.add(bucket, *sums)
    assert complete == found.keys()
    state.read = set(map(document_id, seen))
    read = found.keys() | state.known.keys() if state.to_read is None else state.to_read
    kept = {key: row for key, row in state.documents.items() if row[0] not in read}
    assert len(kept) == unread, (
        "the rows of a bucket that is the same are those that were read once"
    )
    assert total == len(kept) + len(seen)
    state.documents = {**kept, **seen}
    state.known = {
        bucket: digest for bucket, digest in state.known.items() if bucket not in read
    } | found.encoded()
    state.layout = state.following


def rescan(database, state: State, *, rows: int = 50, **index: Any) -> set[str]:
    """Scan with digests; return the ids that were read."""
    with patch.object(digest, "MIN_ROWS", 0), closing(database.digests(**index)) as source:
        scan(source, state, rows=rows)
    return state.read


def is_current(state: State, database, **index: Any) -> bool:
    """Return whether the state has the hashes of all documents as a scan reads them that leaves
    nothing unread."""
    rescan(database, full := State(), **index)
    found, expected = (
        {key: row[1:] for key, row in one.documents.items()} for one in (state, full)
    )
    return found == expected


@pytest.fixture(scope="session")
def kept_database(postgres):
    """The server, and the name of a database that each test empties which asks for one."""
    with postgres.database() as name:
        yield postgres, name


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    """An empty database of each kind."""
    with open_database(request.param, request, tmp_path) as opened:
        yield opened


def empty_database(kind):
    """Return a fixture that is an empty database of one kind."""

    def opened(request, tmp_path):
        with open_database(kind, request, tmp_path) as database:
            yield database

    return pytest.fixture(opened)


sqlite, desk, mariadb_desk = map(empty_database, KINDS)


@pytest.fixture(scope="module", name="read")
def read_files():
    """Return a function that returns the pages of a file, and the reason if something could not be
    read."""
    reader = FileReader(SimpleNamespace(files=None))

    def pages(data):
        found = []
        try:
            found.extend(reader.take(data, "file", None).read())
        except NotText as error:
            return found, str(error)
        return found, ""

    yield pages
    reader.close()
