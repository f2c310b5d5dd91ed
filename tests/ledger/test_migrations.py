"""A ledger of an earlier version, with data, is upgraded to this one and loses nothing."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from rag_index.database.drivers import database_url
from rag_index.errors import LedgerError
from rag_index.ledger import Ledger
from rag_index.ledger.tables import MIGRATIONS, WORDS
from tests.ledger.conftest import open_at_once

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

NEWEST = max(MIGRATIONS)

VERSION_1 = """
CREATE TABLE rag_index_schema_version (version INTEGER NOT NULL);
CREATE TABLE rag_index_collections (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, alias TEXT NOT NULL,
  name TEXT NOT NULL UNIQUE, store_id TEXT NOT NULL, embedder_fingerprint TEXT NOT NULL, embedder TEXT NOT NULL,
  cutting TEXT NOT NULL, dimension INTEGER NOT NULL, state TEXT NOT NULL, created_at FLOAT NOT NULL,
  chars_per_second FLOAT);
CREATE TABLE rag_index_documents (collection_id INTEGER NOT NULL, key TEXT NOT NULL, text_hash BLOB NOT NULL,
  payload_hash BLOB NOT NULL, chunks INTEGER NOT NULL, open INTEGER NOT NULL, PRIMARY KEY (collection_id, key))
  WITHOUT ROWID;
CREATE INDEX rag_index_open_documents ON rag_index_documents (collection_id) WHERE open = 1;
CREATE TABLE rag_index_failed_documents (collection_id INTEGER NOT NULL, key TEXT NOT NULL, text_hash BLOB NOT NULL,
  reason TEXT NOT NULL, tries INTEGER NOT NULL, first_at FLOAT NOT NULL, last_at FLOAT NOT NULL,
  PRIMARY KEY (collection_id, key));
CREATE TABLE rag_index_runs (id TEXT NOT NULL PRIMARY KEY, alias TEXT NOT NULL, host TEXT NOT NULL,
  pid INTEGER NOT NULL, started_at FLOAT NOT NULL, ended_at FLOAT, state TEXT NOT NULL, message TEXT NOT NULL,
  report TEXT NOT NULL);
CREATE INDEX ix_rag_index_runs_alias ON rag_index_runs (alias);
CREATE TABLE rag_index_locks (name TEXT NOT NULL PRIMARY KEY, run_id TEXT, host TEXT NOT NULL, pid INTEGER NOT NULL,
  process_started FLOAT NOT NULL, epoch INTEGER NOT NULL, since FLOAT NOT NULL, renewed_at FLOAT NOT NULL);
INSERT INTO rag_index_schema_version VALUES (1);
INSERT INTO rag_index_collections VALUES (1, 'p_notes', 'p_notes__1', 's', 'e', 'e', 'c', 8, 'ready', 1.0, NULL);
INSERT INTO rag_index_documents VALUES (1, '1', x'74', x'70', 2, 0), (1, '2', x'74', x'70', 2, 0);
INSERT INTO rag_index_failed_documents VALUES (1, '3', x'74', 'r', 2, 1.0, 2.0);
"""
"""The ledger of the first published version, with a collection, two documents and a failure."""
PUBLISHED = {
    2: "e261a3db", 3: "c67860b5", 4: "37decfce", 5: "8d2398e0", 6: "544030a5",
    7: "367059ab", 8: "61ae8e8f", 9: "0eb7dea8", 10: "47bf85ab", 11: "a864b71e",
    12: "e81ce2e7",
}  # fmt: skip
"""The first digits of the hash of each migration: ledgers of users were made by them, so none ever changes."""


def script(version: int) -> str:
    """Return what made a ledger of an earlier version, with data."""
    statements = VERSION_1
    for number in range(2, version + 1):
        statements += f"{MIGRATIONS[number].format_map(WORDS['sqlite'])};\n"
        if number == 2:
            statements += "INSERT INTO rag_index_scan_marks VALUES (1, 'm', 's', 4.0);\n"
        statements += f"UPDATE rag_index_schema_version SET version = {number};\n"
    return statements


def earlier(folder: Path, version: int) -> URL:
    """Make a ledger of an earlier version, with data."""
    url = database_url(f"sqlite:///{folder}/ledger.db", folder)
    with closing(sqlite3.connect(url.database)) as db:
        db.executescript(script(version))
    return url


def shape(url: URL) -> dict[str, object]:
    """Return the columns of each table, and the small indexes."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    names = inspector.get_table_names()
    found: dict[str, object] = {t: {c["name"]: c["nullable"] for c in inspector.get_columns(t)} for t in names}
    engine.dispose()
    with closing(sqlite3.connect(url.database)) as db:
        return found | dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))


def check_data(url: URL, version: int) -> None:
    """Check that nothing is lost, twice: an upgraded ledger is opened like any other."""
    for _ in range(2):
        with closing(Ledger(url)) as ledger:
            assert ledger.totals(1) == (2, 4, 0)
            assert (ledger.failures(1)["3"].tries, ledger.failures(1)["3"].kind) == (2, "failed")
            assert ledger.scan_state(1) == (None if version == 1 else ("m", "s", 4.0))
            # a run that died before the upgrade must not leave documents that the delete guard does not know
            assert ledger.count_documents(ledger.collections("p_notes")[0]) == (2, 2, 0)


def test_no_published_migration_was_changed():
    found = {n: hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8] for n, text in MIGRATIONS.items()}
    assert found == PUBLISHED


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_an_earlier_ledger_with_data_becomes_like_a_new_one(tmp_path, version):
    url, new = earlier(tmp_path, version), database_url(f"sqlite:///{tmp_path}/new.db", tmp_path)
    check_data(url, version)
    Ledger(new).close()
    assert shape(url) == shape(new)
    assert "rag_index_pending_documents" in shape(new)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path):
    url = earlier(tmp_path, 1)
    with closing(sqlite3.connect(url.database, isolation_level=None)) as db:
        db.execute("UPDATE rag_index_schema_version SET version = 99")
    with pytest.raises(LedgerError, match=r"version 99.*Upgrade rag-index"):
        Ledger(url)
    assert "rag_index_watches" not in shape(url)


def test_a_killed_migration_is_repeated_by_the_next_run(tmp_path, monkeypatch):
    url = earlier(tmp_path, 1)
    for number in range(2, NEWEST + 1):
        with monkeypatch.context() as patch:
            patch.setitem(MIGRATIONS, number, MIGRATIONS[number] + "; DELETE FROM no_table")
            with pytest.raises(LedgerError):
                Ledger(url)
        with closing(sqlite3.connect(url.database)) as db:
            assert db.execute("SELECT version FROM rag_index_schema_version").fetchall() == [(1,)]
    check_data(url, 1)


def test_one_of_several_simultaneous_runs_migrates_the_ledger(tmp_path):
    url = earlier(tmp_path, 1)
    assert open_at_once(url) == []
    check_data(url, 1)


@pytest.mark.parametrize("version", [1, 2, NEWEST - 1])
def test_an_earlier_ledger_on_postgresql_is_upgraded(postgres, version):
    statements = script(version)
    for sqlite_sql, postgresql_sql in (
        ("INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "INTEGER NOT NULL GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
        ("BLOB", "BYTEA"), ("FLOAT", "DOUBLE PRECISION"), ("WITHOUT ROWID", ""),
    ):  # fmt: skip
        statements = statements.replace(sqlite_sql, postgresql_sql)
    statements = re.sub(r"x'(\w+)'", r"'\\x\1'", statements)
    with postgres.database() as name:
        with postgres.connect(name) as connection:
            connection.execute(statements)
        check_data(postgres.url(name), version)
