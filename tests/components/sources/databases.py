"""A database to read, of each kind, that a test fills."""

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from rag_index.components.sources.digest import DigestSource
from rag_index.components.sources.sql import SqlSource
from rag_index.core.settings import IndexSettings
from tests.live.sessions import Session, new_database

KINDS = ["sqlite", "postgresql", "mariadb"]


class SourceDatabase:
    """An empty database. `source` opens an index of its table `note`, unless the test names another."""

    def __init__(self, url):
        self.url = url
        self.kind = url.get_backend_name()
        self._open = []

    def run(self, *statements, rows=None):
        """Run statements; with `rows`, one statement once for each, whose parameters are marked by `?`."""
        cursor = self._session.connection.cursor()
        for statement in statements:
            if rows is None:
                cursor.execute(statement)
            else:
                cursor.executemany(statement if self.kind == "sqlite" else statement.replace("?", "%s"), rows)
        cursor.close()
        if self.kind == "sqlite":  # a file may be moved, and a connection that stays open keeps its log
            vars(self).pop("_session").close()
        return self

    @cached_property
    def _session(self):
        return Session(self.url)

    def notes(self, count, first=1):
        columns = "id INTEGER PRIMARY KEY, body VARCHAR(50), author VARCHAR(50)"
        rows = [(i, f"note {i}", f"author {i}") for i in range(first, first + count)]
        return self.run(f"CREATE TABLE IF NOT EXISTS note ({columns})").run(
            "INSERT INTO note VALUES (?, ?, ?)", rows=rows
        )

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
    """A scan state, as the ledger has it: the watermark, and the stamp of each committed document by key."""

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
    """Yield an empty database of a kind; `request` gives the servers. PostgreSQL takes ten times as long to make one as
    to empty it."""
    if kind == "postgresql":
        server, name = request.getfixturevalue("kept_database")
        empty(server, name)
        with closing(SourceDatabase(server.url(name))) as database:
            yield database
    else:
        with new_database(kind, request, tmp_path, "parted") as url, closing(SourceDatabase(url)) as database:
            yield database


def empty(server, name):
    """Drop all that a test has left in a database of PostgreSQL, and end the sessions that it has left."""
    with server.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} RESET ALL")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    with server.connect(name) as connection:
        for (schema,) in connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall():
            connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
        connection.execute("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
