"""Databases to follow: the log of PostgreSQL, and queues in PostgreSQL, MariaDB and SQLite."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import URL

from tests.changes.databases import Followed, Session
from tests.live.mariadb import mariadb

__all__ = ["mariadb"]

WAYS = ["wal", "postgresql", "mariadb", "sqlite"]


@pytest.fixture
def sqlite_file(tmp_path):
    path = tmp_path / "desk.db"
    session = Session(url := URL.create("sqlite", database=str(path)))
    session.run("PRAGMA journal_mode = WAL")
    session.close()
    return url


@pytest.fixture(params=WAYS)
def followed(request):
    """An empty database that is followed in each of the ways."""
    way = request.param
    if way == "sqlite":
        yield from open_sqlite(request.getfixturevalue("sqlite_file"))
    elif way == "mariadb":
        yield from open_mariadb(request)
    else:
        yield from _followed_postgres(request, "wal" if way == "wal" else "queue")


def open_sqlite(url):
    database = Followed(url, "queue")
    yield database
    database.close()


def open_mariadb(request):
    server = request.getfixturevalue("mariadb")
    admin = Session(server.url)
    admin.run("DROP DATABASE IF EXISTS followed")
    admin.run("CREATE DATABASE followed CHARACTER SET utf8mb4")
    database = Followed(server.url.set(database="followed"), "queue")
    yield database
    database.close()
    admin.run("DROP DATABASE followed")
    admin.close()


@pytest.fixture
def wal(request):
    """An empty database that is followed by its log."""
    yield from _followed_postgres(request, "wal")


@pytest.fixture
def queue(request):
    """An empty database of PostgreSQL that is followed by triggers."""
    yield from _followed_postgres(request, "queue")


def _followed_postgres(request, changes):
    server = request.getfixturevalue("logical_postgres" if changes == "wal" else "postgres")
    with server.database() as name:
        database = Followed(server.url(name), changes, request.getfixturevalue("tmp_path"))
        database.server, database.name = server, name
        yield database
        database.close()
        if changes == "wal":
            with server.connect() as connection:
                connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [name]
                )
