"""A database to read, of each kind, that a test fills."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

from sqlalchemy.engine import URL

from rag_index.settings import IndexSettings
from rag_index.sources.digest import DigestSource
from rag_index.sources.sql import SqlSource
from tests.changes.databases import Session

KINDS = ["sqlite", "postgresql", "mariadb"]


class SourceDatabase:
    """An empty database."""

    def __init__(self, url):
        self.url = url
        self._open = []

    def run(self, *statements, rows=None):
        """Run statements; with `rows`, one statement once for each, whose parameters are marked by `?`."""
        session = Session(self.url)
        cursor = session.connection.cursor()
        for statement in statements:
            if rows is None:
                cursor.execute(statement)
            else:
                sqlite = self.url.get_backend_name() == "sqlite"
                cursor.executemany(statement if sqlite else statement.replace("?", "%s"), rows)
        session.close()

    def source(self, kind=SqlSource, **given):
        self._open.append(kind(self.url, IndexSettings(**given)))
        return self._open[-1]

    def digests(self, **given):
        return self.source(DigestSource, **given)

    def close(self):
        for source in self._open:
            source.close()


@contextmanager
def open_database(kind, request, tmp_path):
    """Yield an empty database of a kind; `request` gives the servers."""
    with ExitStack() as opened:
        if kind == "sqlite":
            url = URL.create("sqlite", database=str(tmp_path / "source.db"))
            Session(url).close()
        elif kind == "postgresql":
            server = request.getfixturevalue("postgres")
            url = server.url(opened.enter_context(server.database()))
        else:
            url = request.getfixturevalue("mariadb").url.set(database="parted")
            admin = Session(request.getfixturevalue("mariadb").url)
            admin.run("DROP DATABASE IF EXISTS parted")
            admin.run("CREATE DATABASE parted CHARACTER SET utf8mb4")
            opened.callback(admin.close)
            opened.callback(admin.run, "DROP DATABASE parted")
        database = SourceDatabase(url)
        opened.callback(database.close)
        yield database
