"""Databases to follow: the log of PostgreSQL, and queues in PostgreSQL, MariaDB and SQLite."""

import pytest
from sqlalchemy.engine import URL

from tests.changes.databases import Followed, Session
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
    if way == "sqlite":
        database = Followed(request.getfixturevalue("sqlite_file"), "queue", request.getfixturevalue("tmp_path"))
        yield database
        database.close()
    elif way == "mariadb":
        admin = Session(request.getfixturevalue("mariadb").url)
        admin.run("DROP DATABASE IF EXISTS followed")
        admin.run("CREATE DATABASE followed CHARACTER SET utf8mb4")
        url = request.getfixturevalue("mariadb").url.set(database="followed")
        database = Followed(url, "queue", request.getfixturevalue("tmp_path"))
        yield database
        database.close()
        admin.close()
    else:
        server = request.getfixturevalue("postgres")
        with server.database() as name:
            changes = "wal" if way == "wal" else "queue"
            database = Followed(server.url(name), changes, request.getfixturevalue("tmp_path"))
            database.server, database.name = server, name
            yield database
            database.close()
            with server.connect() as connection:
                connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [name]
                )


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
