"""Pragmas wait for another process that is creating the same database file."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from rag_index.database import drivers
from rag_index.database.drivers import set_pragmas


@pytest.fixture
def other(tmp_path):
    """A connection with an open write transaction on a file that has no write-ahead log yet."""
    connection = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE made (a)")
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def test_the_switch_to_a_write_ahead_log_waits_for_the_writer(tmp_path, other):
    connection = sqlite3.connect(tmp_path / "new.db")
    with pytest.raises(sqlite3.OperationalError, match="locked"):  # what SQLite does by itself, at once
        connection.execute("PRAGMA busy_timeout=30000").execute("PRAGMA journal_mode=WAL")
    threading.Timer(0.5, other.execute, ["COMMIT"]).start()
    set_pragmas(connection, ("journal_mode=WAL",))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_the_wait_ends_after_a_time_limit(tmp_path, other, monkeypatch):
    monkeypatch.setattr(drivers, "LOCKED_SECONDS", 0.2)
    connection = sqlite3.connect(tmp_path / "new.db")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        set_pragmas(connection, ("journal_mode=WAL",))
    connection.close()
