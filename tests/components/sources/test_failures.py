"""What is said if a database answers and something is wrong: its own cause with its remedy, and
never our limits."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.sources.engine import errors_as_ours, limited, open_read_only
from rag_index.errors import RagIndexError, SourceError, SourceTimedOut, SourceUnavailable
from rag_index.first_run.schema.catalog import read_catalog
from tests.components.sources.conftest import SourceDatabase, read
from tests.waiting import eventually

NOTES = {"1": "note 1", "2": "note 2", "3": "note 3"}
ENDED = (
    "raise idle_in_transaction_session_timeout of this user|server closed the connection"
    " unexpectedly"
)
"""The second, if the operating system drops what the server said last."""
IDLE = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"


def said_of(source, error=RagIndexError):
    """Return what a check says that must fail, and which never asks for what is right."""
    with pytest.raises(error) as caught:
        source.check()
    assert " does not answer: " not in str(caught.value)
    assert "URL is right" not in str(caught.value)
    assert "[source] timeout" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def notes(request):
    """Three notes in a server's database."""
    for name in {"desk", "mariadb_desk"} & {*request.fixturenames}:
        request.getfixturevalue(name).notes(3)


def limit(desk, name, value):
    return desk.run(f"ALTER DATABASE {desk.url.database} SET {name} = '{value}'")


def connect(desk):
    return psycopg.connect(
        desk.url.set(drivername="postgresql").render_as_string(hide_password=False)
    )


def test_the_databases_own_limit_of_a_statement_is_named(desk):
    with closing(connect(desk)) as other:
        other.execute("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        source = limit(desk, "statement_timeout", "200ms").source()
        assert "raise statement_timeout of this user" in said_of(source, SourceTimedOut)
        limit(desk, "lock_timeout", "50ms")
        assert "raise lock_timeout of this user" in said_of(desk.source(), SourceUnavailable)


def test_a_limit_that_ends_the_first_statement_of_a_connection_is_named(desk):
    limit(desk, "statement_timeout", "1ms")

    def said() -> str:
        with suppress(pytest.fail.Exception):  # a machine that has nothing else to do may be faster
            return said_of(desk.source())
        return ""

    assert "raise statement_timeout of this user" in eventually(said, "the limit ends a statement")


def test_a_connection_that_was_ended_for_its_pause_is_told_so(desk):
    engine = open_read_only(desk.url)
    with engine.connect() as connection, closing(connect(desk)) as other:
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 1")
        other.autocommit = True  # a transaction sees the sessions as they were at its first look
        eventually(
            lambda: not other.execute(IDLE).fetchall(), "the server has ended the connection"
        )
        with pytest.raises(SourceUnavailable, match=ENDED), errors_as_ours(desk.url, "x"):
            connection.exec_driver_sql("SELECT 1")
    engine.dispose()


def test_a_view_that_was_never_filled_has_the_databases_own_hint(desk):
    desk.run("CREATE MATERIALIZED VIEW summary AS SELECT * FROM note WITH NO DATA")
    assert "has not been populated; Use the REFRESH MATERIALIZED VIEW command" in said_of(
        desk.source(table="summary")
    )


def test_a_foreign_table_names_the_other_server_and_init_proposes_the_tables_beside_it(desk):
    desk.run(
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1')",
        "CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (user 'x', password 'y')",
        "CREATE FOREIGN TABLE far (id integer, body text) SERVER away",
    )
    with pytest.raises(
        SourceUnavailable, match=r"could not connect to server .*; a foreign table needs a server"
    ):
        desk.source(table="far").check()
    with read_catalog(desk.url) as catalog:
        found = {table.name: table.problem for table in catalog.tables}
    assert not found["note"]
    assert "a foreign table needs a server" in found["far"]


def test_a_database_without_a_free_connection_says_so(desk):
    name = f"few_{desk.url.database}"
    desk.run(f"CREATE ROLE {name} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
    try:
        few = SourceDatabase(desk.url.set(username=name, password="x")).source()
        assert "allow more connections there, or close others" in said_of(few, SourceUnavailable)
        desk.run(f"ALTER ROLE {name} NOLOGIN")
        assert "give this user the right to that" in said_of(few, SourceError)
    finally:
        desk.run(f"DROP ROLE {name}")


def test_a_ledger_that_may_not_be_written_or_waits_for_a_lock_says_so(desk):
    Ledger(desk.url).close()
    with closing(connect(desk)) as other:
        other.execute("LOCK TABLE rag_index_schema_version IN ACCESS EXCLUSIVE MODE")
        limit(desk, "lock_timeout", "50ms")
        with pytest.raises(
            RagIndexError, match=r"cannot be used now: .*raise lock_timeout of this user"
        ):
            Ledger(desk.url)


def test_a_lock_of_mariadb_is_named(mariadb_desk):
    url = mariadb_desk.url
    with closing(
        pymysql.connect(host=url.host, port=url.port, user=url.username, password=url.password)
    ) as other:
        other.cursor().execute(f"LOCK TABLES {url.database}.note WRITE")
        waiting = SourceDatabase(
            url.update_query_dict({"init_command": "SET lock_wait_timeout = 1"})
        )
        assert "another session holds a lock" in said_of(waiting.source(), SourceUnavailable)


def test_mariadbs_own_limit_of_a_statement_is_named(mariadb_desk):
    engine = open_read_only(mariadb_desk.url)
    refused = pytest.raises(SourceTimedOut, match="raise max_statement_time of this user")
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION max_statement_time = 0.1")
        with refused, limited(connection, 600.0, "source x"):
            connection.exec_driver_sql("SELECT SLEEP(300)")
    engine.dispose()


def test_a_table_of_mariadb_that_is_altered_while_it_is_read_is_read_again(mariadb_desk):
    desk = mariadb_desk.run("CREATE TABLE other (id integer)")
    engine = open_read_only(desk.url)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT count(*) FROM other"
        )  # the transaction sees the state of this moment
        desk.run("ALTER TABLE note ADD COLUMN more integer, ALGORITHM = COPY")
        with (
            pytest.raises(SourceUnavailable, match="run again"),
            errors_as_ours(desk.url, "index notes"),
        ):
            connection.exec_driver_sql("SELECT * FROM note").fetchall()
    engine.dispose()


@contextmanager
def mounted(folder, place):
    """Show a folder at another place, where nobody may write, for the time of the block."""
    if subprocess.run(
        ["mount", "--bind", folder, place], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def logged(sqlite):
    """A file with three notes that is in the mode with a write-ahead log, in a folder of its
    own."""
    folder = Path(sqlite.url.database).parent / "mount"
    folder.mkdir()
    moved = SourceDatabase(sqlite.url.set(database=str(folder / "source.db")))
    moved.run("PRAGMA journal_mode = WAL").notes(3)
    yield moved
    moved.close()


def folder_of(database):
    return Path(database.url.database).parent


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_file_that_was_closed_cleanly_is_read_on_a_read_only_mount(logged, mode):
    logged.run(f"PRAGMA journal_mode = {mode}")
    with mounted(folder_of(logged), folder_of(logged)):
        assert [file.name for file in folder_of(logged).iterdir()] == ["source.db"]
        assert read(logged.source(), rows=2) == read(logged.digests(), rows=2) == NOTES


def test_a_writer_that_comes_back_while_such_a_file_is_read_is_noticed(logged):
    folder, shared = folder_of(logged), folder_of(logged).parent / "shared"
    shared.mkdir()
    logged.run("VACUUM")
    (folder / "source.db").rename(shared / "source.db")
    seen = SourceDatabase(logged.url.set(database=str(folder / "source.db")))
    with mounted(shared, folder):
        engine = open_read_only(seen.url)
        noticed = pytest.raises(SourceUnavailable, match="was written while it was read")
        with engine.connect() as connection, noticed, limited(connection, 600.0, "source x"):
            assert connection.scalar(sa.text("SELECT count(*) FROM note")) == 3
            SourceDatabase(logged.url.set(database=str(shared / "source.db"))).run(
                "DELETE FROM note"
            )
        engine.dispose()


def test_a_log_that_was_left_behind_on_a_read_only_mount_says_what_to_do(logged, tmp_path):
    writer = sqlite3.connect(logged.url.database)
    writer.execute("UPDATE note SET body = 'changed'")
    writer.commit()
    for name in ("source.db", "source.db-wal"):
        shutil.copy(folder_of(logged) / name, tmp_path / name)
    writer.close()
    for name in ("source.db", "source.db-wal"):
        shutil.copy(tmp_path / name, folder_of(logged) / name)
    with mounted(folder_of(logged), folder_of(logged)):
        assert "a process that wrote it was killed" in said_of(logged.source())


def test_a_journal_that_a_killed_writer_left_says_what_to_do(sqlite):
    file = sqlite.notes(3).url.database
    script = (
        f"import os, sqlite3; db = sqlite3.connect({file!r},"
        " isolation_level=None);db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN');"
        " db.execute('CREATE TABLE big (x)');db.executemany('INSERT INTO big VALUES (?)', [('x' *"
        " 1000,)] * 3000); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert Path(f"{file}-journal").exists()
    assert "open it once (`sqlite3 FILE .schema`)" in said_of(sqlite.source(), RagIndexError)
    with closing(sqlite3.connect(file)) as opened:
        opened.execute("SELECT * FROM note").fetchall()
    assert read(sqlite.source()) == NOTES


def test_a_collation_of_the_application_names_the_query_that_reads_without_it(sqlite):
    with closing(sqlite3.connect(sqlite.url.database)) as db:
        db.create_collation("german", lambda one, other: (one > other) - (one < other))
        db.execute("CREATE TABLE note (id TEXT COLLATE german PRIMARY KEY, body TEXT)")
        db.executemany("INSERT INTO note VALUES (?, ?)", NOTES.items())
        db.commit()
    for source in (sqlite.source(), sqlite.digests()):
        with pytest.raises(
            SourceError, match=r"no such collation sequence: german; .*COLLATE BINARY AS name"
        ):
            read(source)
    query = "SELECT id COLLATE BINARY AS id, body FROM note NOT INDEXED"
    assert sorted(read(sqlite.source(query=query), rows=2).values()) == [*NOTES.values()]


def test_a_function_or_a_module_of_the_application_is_named(sqlite):
    with closing(sqlite3.connect(sqlite.url.database)) as db:
        db.create_function("own", 1, str, deterministic=True)
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT AS (own(id)))")
        db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute("CREATE VIRTUAL TABLE place USING fts5(body)")
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'spatial') WHERE name = 'place'"
        )
        db.commit()
    said = "only the application's own connections have that"
    assert f"own(); {said}" in said_of(sqlite.source())
    assert f"no such module: spatial; {said}" in said_of(sqlite.source(table="place", key="rowid"))
    with read_catalog(sqlite.url) as catalog:
        found = {table.name: table.problem for table in catalog.tables}
    assert not found["plain"]
    assert "no such module: spatial" in found["place"], "init goes on without it"


def test_a_file_that_is_encrypted_or_cut_off_says_what_to_do(sqlite):
    sqlite.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
    sqlite.run("INSERT INTO note VALUES (?, ?)", rows=[(i, "x" * 900) for i in range(200)])
    file = Path(sqlite.url.database)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "put back a backup" in said_of(sqlite.source())
    file.write_bytes(os.urandom(len(whole)))
    assert "a copy that is not encrypted" in said_of(sqlite.source())


PLANTED = "it's 'the' \"measles\""


@pytest.mark.parametrize(
    "column",
    [
        "CAST(author AS integer)",
        "CAST(author AS date)",
        "CAST(author AS jsonb) ->> 'a'",
        "told(author)",
    ],
)
def test_postgresql_tells_what_is_wrong_with_a_value_and_not_the_value(desk, column):
    desk.run("UPDATE note SET author = '" + PLANTED.replace("'", "''") + "'")
    raised = "BEGIN RAISE EXCEPTION 'no % here', said USING HINT = said; END"
    desk.run(f"CREATE FUNCTION told(said text) RETURNS text LANGUAGE plpgsql AS $$ {raised} $$")
    source = desk.source(query=f"SELECT id, body, {column} AS more FROM note", payload=["more"])
    with pytest.raises(RagIndexError) as caught:
        read(source)
    assert "measles" not in str(caught.value)
    assert any(told in str(caught.value) for told in ("invalid input syntax for type", "(P0001)"))


def test_mariadb_tells_what_is_wrong_with_a_value_and_not_the_value(mariadb_desk):
    mariadb_desk.run("UPDATE note SET author = 'measles here'")
    head = "CREATE FUNCTION told(said TEXT) RETURNS TEXT DETERMINISTIC BEGIN"
    mariadb_desk.run(f"{head} SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = said; RETURN said; END")
    source = mariadb_desk.source(
        query="SELECT id, body, told(author) AS more FROM note", payload=["more"]
    )
    with pytest.raises(RagIndexError) as caught:
        read(source)
    assert "a function of the database raised an error (1644)" in str(caught.value)
    assert "measles" not in str(caught.value)


def test_a_ledger_and_a_source_log_no_parameters_and_no_rows(sqlite, tmp_path, caplog):
    sqlite.notes(3)
    caplog.set_level("DEBUG", "sqlalchemy")
    with closing(Ledger(sa.engine.make_url(f"sqlite:///{tmp_path / 'ledger.db'}"))) as ledger:
        ledger.put_context("recipe", b"1", b"2", "measles in a context")
        with pytest.raises(RagIndexError) as caught, ledger.transaction() as connection:
            connection.execute(sa.text("INSERT INTO nothing VALUES (:text)"), {"text": "measles"})
    assert read(sqlite.source()) == NOTES
    assert "measles" not in f"{caught.value} {caught.value.__cause__}"
    assert "SELECT" in caplog.text
    for value in ("measles", "note 2", "author 2"):
        assert value not in caplog.text
