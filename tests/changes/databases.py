"""Databases whose changes are followed, each with one way to follow them."""

import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import URL

from rag_index.components.ledger import Ledger
from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.queues import open_queue
from rag_index.watch.changes.rows import WatchedTable
from rag_index.watch.changes.wal import WalFeed
from tests.live.postgres import find_postgres
from tests.waiting import eventually

PROJECT = "desk"
TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "body"}))


class Followed:
    """A database that a test writes, and a feed of its changes. `changes` is "wal" or "queue".

    A feed of the log keeps its position in a ledger, which is in the folder.
    """

    def __init__(self, url: URL, changes: str, folder: Path | None = None):
        self.url, self.changes, self._folder = url, changes, folder
        self.dialect = url.get_backend_name()
        self._open = []

    def run(self, *statements):
        with self.session() as session:
            for statement in statements:
                session.run(statement)
        return self

    @contextmanager
    def session(self):
        """Yield a session; each statement is a transaction of its own until `begin`."""
        session = Session(self.url)
        try:
            yield session
        finally:
            session.close()

    def set_up(self, *tables):
        """Run what `--setup` prints, and take the first overflow, which it causes."""
        self.tables = tables
        setup = setup_for(self.url, self.changes, tables, PROJECT)
        self.position = setup.position
        try:
            self.run(*(step.sql for step in setup.steps))
        except psycopg.errors.LockNotAvailable:  # a subscription's first copy may wait for this transaction
            self.run(*(step.sql for step in setup.steps))
        feed = self.feed()
        feed.problems()
        first = feed.rows(100)
        assert sorted(map(str, first.overflow)) == sorted(map(str, tables))
        feed.acknowledge(first)
        return feed

    def feed(self, **given):
        if self.changes == "wal":
            self._open.append(WalFeed(self.url, self.tables, PROJECT, ledger=self.ledger, **given))
        else:
            given["ledger"] = self.ledger if self._folder else None
            self._open.append(open_queue(self.url, self.tables, PROJECT, **given))
        return self._open[-1]

    @cached_property
    def ledger(self):
        self._open.append(Ledger(URL.create("sqlite", database=str(self._folder / "ledger.db"))))
        return self._open[-1]

    def close(self):
        for feed in self._open:
            feed.close()


class Session:
    """A connection that may write."""

    def __init__(self, url):
        self._url = url
        backend = url.get_backend_name()
        if backend == "sqlite":
            self.connection = sqlite3.connect(url.database, timeout=30, isolation_level=None, check_same_thread=False)
        elif backend == "postgresql":
            text = url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.connection = psycopg.connect(text, autocommit=True, prepare_threshold=None)  # tables are made anew
        else:
            import pymysql

            self.connection = pymysql.connect(
                host=url.host, port=url.port, user=url.username, password=url.password, database=url.database,
                autocommit=True, ssl_disabled=True,  # each connection would read all certificates
            )  # fmt: skip

    def run(self, statement, *values):
        cursor = self.connection.cursor()
        cursor.execute(statement, values or None) if values else cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        cursor.close()
        return rows

    def close(self):
        self.connection.close()


@contextmanager
def new_database(kind, request, folder, name):
    """Yield the URL of an empty database of a kind; `request` gives the servers."""
    if kind == "sqlite":
        Session(url := URL.create("sqlite", database=str(folder / f"{name}.db"))).close()
        yield url
    elif kind == "postgresql":
        server = request.getfixturevalue("postgres")
        with server.database() as made:
            yield server.url(made)
    else:
        admin = Session(url := request.getfixturevalue("mariadb").url)
        admin.run(f"DROP DATABASE IF EXISTS {name}")
        admin.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield url.set(database=name)
        admin.run(f"DROP DATABASE {name}")
        admin.close()


@contextmanager
def waiting_for_a_standby(database, session, statement):
    """Run a statement whose commit is in the log, and which readers do not see before the end of the block."""
    try:
        database.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        with database.session() as watcher:
            eventually(lambda: watcher.run("SHOW synchronous_standby_names") == [("nobody",)])
            watcher.run("CHECKPOINT")  # whoever makes it has then told all processes of the standby
            writer = threading.Thread(target=session.run, args=(statement,))
            writer.start()
            waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            eventually(lambda: watcher.run(f"SELECT 1 {waits}"))
            yield
            watcher.run(f"SELECT pg_cancel_backend(pid) {waits}")
            writer.join()
    finally:
        with database.server.connect() as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


class Clock:
    """A clock that goes on by 10 ms with each look at it, which is all that a wait of a feed costs then."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("rag_index.watch.changes.rows.CHANGES_PROBE_SECONDS", 0.001)

    def __call__(self):
        self.now += 0.01
        return self.now

    def waited(self, feed):
        """Let a feed wait, and return for how long it has."""
        before = self.now
        feed.wait(600)
        return self.now - before


def removal(script):
    return script.partition("-- To remove all of it:\n")[2].replace("--   ", "")


def through_the_client(url, script):
    """Run a script as docs/watching.md says, with the program of the database; return what is printed."""
    env = dict(os.environ)
    if url.get_backend_name() == "postgresql":
        text = url.set(drivername="postgresql").render_as_string(hide_password=False)
        command = [find_postgres() / "psql", "-v", "ON_ERROR_STOP=1", "-q", text]
    elif url.get_backend_name() == "sqlite":
        command = ["sqlite3", "-bail", url.database]
    else:
        env["MYSQL_PWD"] = url.password
        command = ["mariadb", "--no-defaults", "-h", url.host, "-P", str(url.port), "-u", url.username, url.database]
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"there is no {command[0]}")
    ended = subprocess.run(command, input=script.encode(), capture_output=True, check=False, env=env)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


def problems(feed):
    """Return what a feed says of tables whose changes are not seen, by the name of the table."""
    return {str(table): str(error) for table, error in feed.problems().items()}


def ids(feed):
    """Receive and acknowledge everything, without an overflow, and return the keys of the tickets that changed."""
    found, overflow = take(feed)
    assert (found.keys() - {"ticket"}, overflow) == (set(), set())
    return {key for (key,) in found.get("ticket", ())}


def take(feed, limit=1000):
    """Receive and acknowledge everything, and return the values of the changed rows by table, and the overflow."""
    found, overflow = {}, set()
    while True:
        received = feed.rows(limit)
        for change in received.changes:
            found.setdefault(str(change.table), set()).add(change.values)
        overflow |= set(map(str, received.overflow))
        feed.acknowledge(received)
        if not received.more:
            return found, overflow
