"""Databases to follow: the log of PostgreSQL, and queues in PostgreSQL, MariaDB and SQLite."""

import pytest
from sqlalchemy.engine import URL

from tests.changes.databases import Followed, Session, new_database
from tests.live.mariadb import mariadb

__all__ = ["mariadb"]

WAYS = ["wal", "postgresql", "mariadb", "sqlite"]


@pytest.fixture
def sqlite_file(tmp_path):
    session = Session(url := URL.create("sqlite", database=str(tmp_path / "desk.db")))
    session.run("PRAGMA journal_mode = WAL")
    session.close()
    return url


def opened(request, way):
    """Yield an empty database that is followed in one of the ways."""
    kind, folder = "postgresql" if way == "wal" else way, request.getfixturevalue("tmp_path")
    with new_database(kind, request, folder, "followed") as url:
        database = Followed(url, "wal" if way == "wal" else "queue", folder)
        if kind == "sqlite":
            database.run("PRAGMA journal_mode = WAL")
        if kind == "postgresql":
            database.server, database.name = request.getfixturevalue("postgres"), url.database
        yield database
        database.close()
        if kind == "postgresql":
            with database.server.connect() as connection:
                statement = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
                connection.execute(statement, [url.database])


@pytest.fixture(params=WAYS)
def followed(request):
    yield from opened(request, request.param)


@pytest.fixture
def wal(request):
    yield from opened(request, "wal")


@pytest.fixture
def queue(request):
    yield from opened(request, "postgresql")


@pytest.fixture
def maria(request):
    yield from opened(request, "mariadb")


@pytest.fixture
def sqlite(request):
    yield from opened(request, "sqlite")
