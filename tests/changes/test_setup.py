"""What `watch --setup` prints, run as it is printed, and what the doctor says before and after."""

import sqlite3
import time
from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.core.settings import load_settings
from rag_index.errors import SettingsError
from rag_index.watch.changes.opening import feed_health as feed_health_of
from rag_index.watch.changes.opening import open_feeds, setup_script
from tests.changes.databases import removal, through_the_client
from tests.live.postgres import PostgresServer, find_postgres
from tests.waiting import eventually

SETTINGS = """
project = "shop"
[source]
url = "{url}"
changes = "{changes}"
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
text = "body"
access = "SELECT ticket, name FROM acl"
[[indexes]]
name = "views"
query = "SELECT t.id, t.body, c.name FROM ticket t JOIN customer c ON c.id = t.customer"
key = "id"
text = ["body", "name"]
depends_on = [{{table = "customer", key = "id", column = "id"}}, {{table = "ticket", key = "id", column = "id"}}]
"""
TABLES = [
    "CREATE TABLE customer (id integer PRIMARY KEY, name varchar(90))",
    "CREATE TABLE ticket (id integer PRIMARY KEY, customer integer, body varchar(90))",
]
PAIRS = "CREATE TABLE acl (ticket integer, name text); INSERT INTO acl VALUES (1, 'staff'), (2, 'staff');"


def settings_of(folder, url, changes):
    path = folder / "rag-index.toml"
    text = url.render_as_string(hide_password=False)
    path.write_text(SETTINGS.format(url=text, changes=changes))
    return load_settings(path)


def feed_health(settings):
    with closing(Ledger(settings.ledger_url)) as ledger:
        return feed_health_of(settings, ledger)


def test_the_script_for_sqlite_runs_and_its_removal_too(tmp_path, sqlite_file):
    settings = settings_of(tmp_path, sqlite_file, "queue")
    with closing(sqlite3.connect(sqlite_file.database)) as db:
        db.executescript(";".join(TABLES))
        assert "the source has no queue rag_index_shop" in feed_health(settings).broken[0]
        script = setup_script(settings)
        for _ in range(2):
            db.executescript(script)
            assert (feed_health(settings).broken, feed_health(settings).warnings) == ([], [])
        db.execute("UPDATE rag_index_shop SET changed_at = ?", (time.time() - 7200,))
        db.commit()
        [warning] = feed_health(settings).warnings
        assert "the queue of changes has not been read for 2.0 hours: start `rag-index watch`" in warning
        [warning] = feed_health(settings_of(tmp_path, sqlite_file, "poll")).warnings
        assert "queue rag_index_shop is left from" in warning
        db.executescript(removal(script))
        left = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        assert not [name for name in left if name.startswith("rag_index")]
    assert "What it costs:" in script


@pytest.mark.parametrize("changes", ["wal", "queue"])
def test_the_script_for_postgresql_runs_and_its_removal_too(tmp_path, postgres, changes):
    with postgres.database() as name, postgres.connect(name) as connection:
        url = postgres.url(name)
        settings = settings_of(tmp_path, url, changes)
        through_the_client(url, ";".join([*TABLES, PAIRS]))
        assert "rag_index_shop" in " ".join(feed_health(settings).broken)
        script = setup_script(settings)
        for again in (script, script, setup_script(settings)):
            through_the_client(url, again)
            assert feed_health(settings).broken == []
        with (
            closing(Ledger(settings.ledger_url)) as ledger,
            closing(open_feeds(settings, settings.indexes[:1], ledger)) as opened,
        ):
            [(feed, names)] = opened.feeds
            assert (names, feed.check()) == (["tickets", "views"], {})
            feed.acknowledge(feed.receive(100))
            # a pair of access is a change of its document
            through_the_client(url, "DELETE FROM acl WHERE ticket = 1; UPDATE acl SET name = 'board' WHERE ticket = 2;")
            through_the_client(url, "INSERT INTO acl VALUES (3, 'staff');")
            eventually(lambda: {one.id for one in feed.receive(100).changes} == {"1", "2", "3"})
        for other in {"wal", "queue", "poll"} - {changes}:
            found = feed_health(settings_of(tmp_path, url, other)).warnings
            [left] = [one for one in found if "is left from" in one]
            assert f'rag_index_shop is left from changes = "{changes}" and not read' in left
            assert f"RAG_INDEX_SOURCE__CHANGES={changes} rag-index watch --setup" in left
        through_the_client(url, removal(script))
        assert feed_health(settings_of(tmp_path, url, "poll")).warnings == []
        left = connection.execute(
            "SELECT proname FROM pg_proc WHERE proname LIKE 'rag_index%' UNION ALL "
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'rag_index%' UNION ALL "
            "SELECT pubname FROM pg_publication UNION ALL SELECT slot_name FROM pg_replication_slots "
            "WHERE database = current_database()"
        ).fetchall()
        connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        connection.execute("SELECT pg_reload_conf()")
        assert left == []


@pytest.mark.long
def test_a_server_that_has_to_be_restarted_first(tmp_path):
    """`wal_level = replica` is PostgreSQL's default. Each script may be run twice."""
    with PostgresServer(find_postgres()) as server, server.database() as name:
        url = server.url(name, "reader", "x")
        settings = settings_of(tmp_path, url, "wal")
        with server.connect(name) as owner:
            owner.execute("CREATE ROLE reader LOGIN PASSWORD 'x'")
            owner.execute(";".join([*TABLES, PAIRS[:-1], "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"]))
        for _ in range(2):
            said = through_the_client(server.url(name), setup_script(settings))
            assert "Restart PostgreSQL now, run `rag-index watch --setup` again" in said
        assert "rag-index watch --setup" in feed_health(settings).broken[0]
        server.stop()
        server.start()
        script = setup_script(settings)
        for _ in range(2):
            through_the_client(server.url(name), script)
            assert feed_health(settings).broken == []
        with (
            closing(Ledger(settings.ledger_url)) as ledger,
            closing(open_feeds(settings, settings.indexes, ledger)) as opened,
        ):
            [(feed, _)] = opened.feeds  # its role may only read
            feed.acknowledge(feed.receive(100))
            through_the_client(server.url(name), "INSERT INTO ticket VALUES (7, 1, 'x')")
            assert {one.id for one in feed.receive(100).changes} == {"7"}
        through_the_client(server.url(name), removal(script))
        with server.connect(name) as owner:
            assert owner.execute("SELECT rolreplication FROM pg_roles WHERE rolname = 'reader'").fetchone() == (False,)


def test_the_removal_gives_tables_their_replica_identity_back(tmp_path, postgres):
    with postgres.database() as name, postgres.connect(name) as owner:
        for statement in (*TABLES, PAIRS):
            owner.execute(statement.replace(" PRIMARY KEY", " NOT NULL"))
        owner.execute("CREATE UNIQUE INDEX by_name ON customer (id, name)")
        owner.execute("ALTER TABLE customer ALTER name SET NOT NULL, REPLICA IDENTITY USING INDEX by_name")
        settings = settings_of(tmp_path, postgres.url(name), "wal")
        script = setup_script(settings)
        assert 'If nothing else needs it: ALTER TABLE "public"."customer" REPLICA IDENTITY DEFAULT;' in script
        through_the_client(postgres.url(name), script)
        identities = "SELECT relreplident FROM pg_class WHERE relname IN ('customer', 'ticket') ORDER BY relname"
        assert owner.execute(identities).fetchall() == [("i",), ("f",)]
        through_the_client(postgres.url(name), removal(script))
        assert owner.execute(identities).fetchall() == [("i",), ("d",)]


def test_the_doctor_tells_of_a_slot_that_holds_back_the_log(tmp_path, postgres, monkeypatch):
    with postgres.database() as name, postgres.connect(name) as connection:
        connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")  # another test sets it
        connection.execute("SELECT pg_reload_conf()")
        eventually(lambda: connection.execute("SHOW max_slot_wal_keep_size").fetchone() == ("-1",))
        settings = settings_of(tmp_path, postgres.url(name), "wal")
        for statement in (*TABLES, PAIRS):
            connection.execute(statement)
        connection.execute("SELECT pg_create_logical_replication_slot('rag_index_shop', 'pgoutput')")
        try:
            [warning] = feed_health(settings).warnings
            assert warning.startswith("the source has no max_slot_wal_keep_size,")
            monkeypatch.setattr("rag_index.watch.changes.wal.HELD_BYTES", 1 << 20)
            connection.execute("INSERT INTO ticket SELECT i, 1, repeat('x', 80) FROM generate_series(1, 20000) i")
            [held, _] = feed_health(settings).warnings
            assert "slot rag_index_shop holds back" in held
            assert "MB of the source's log: start `rag-index watch`" in held
        finally:
            connection.execute("SELECT pg_drop_replication_slot('rag_index_shop')")
        assert "the source has no slot rag_index_shop" in feed_health(settings).broken[0]


def test_poll_needs_no_setup_and_the_log_needs_postgresql(tmp_path, sqlite_file):
    with pytest.raises(SettingsError, match=r'needs nothing in the source; set \[source\] changes to "queue"'):
        setup_script(settings_of(tmp_path, sqlite_file, "poll"))
    with pytest.raises(SettingsError, match='changes = "wal" does not work with sqlite; set it to "queue"'):
        settings_of(tmp_path, sqlite_file, "wal")
