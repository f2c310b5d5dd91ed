"""Queues of triggers: what each kind of database does in its own way."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from rag_index.changes.queues import QueueFeed
from rag_index.changes.rows import WatchedTable
from rag_index.changes.setup import setup_for
from rag_index.documents.positions import parse_position
from rag_index.errors import SettingsError, SourceUnavailable
from tests.changes.conftest import open_mariadb, open_sqlite
from tests.changes.databases import PROJECT, Followed, Session, problems, take
from tests.waiting import eventually

TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "body"}))
TABLE = "CREATE TABLE ticket (id integer PRIMARY KEY, body text)"


@pytest.fixture
def sqlite(sqlite_file):
    yield from open_sqlite(sqlite_file)


@pytest.fixture
def maria(request):
    yield from open_mariadb(request)


def ids(feed):
    return {key for (key,) in take(feed)[0].get("ticket", ())}


def test_postgresql_upserts_cascades_and_copies(queue):
    queue.run(
        "CREATE TABLE customer (id integer PRIMARY KEY)",
        "CREATE TABLE ticket (id integer PRIMARY KEY, body text, "
        "customer integer REFERENCES customer ON DELETE CASCADE)",
        "INSERT INTO customer VALUES (1), (2)",
        "INSERT INTO ticket SELECT i, 'x', 1 + i % 2 FROM generate_series(1, 6) i",
    )
    feed = queue.set_up(TICKET)
    queue.run("INSERT INTO ticket VALUES (1, 'y', 1), (7, 'y', 1) ON CONFLICT (id) DO UPDATE SET body = excluded.body")
    assert ids(feed) == {1, 7}
    queue.run("DELETE FROM customer WHERE id = 2")
    assert ids(feed) == {1, 3, 5}
    queue.run("COPY ticket (id) FROM PROGRAM 'echo 9'", "TRUNCATE ticket")
    assert take(feed) == ({"ticket": {(9,)}}, {"ticket"})


@pytest.fixture
def subscriber(logical_postgres):
    """A function that makes an empty database a subscriber of some tables of another, whose session it returns."""
    with logical_postgres.database() as name, logical_postgres.database() as publisher:
        subscribing = Followed(logical_postgres.url(name), "queue")
        publishing = Session(logical_postgres.url(publisher))

        def subscribe(*tables):
            for table in tables:
                subscribing.run(table)
                publishing.run(table)
            publishing.run("CREATE PUBLICATION elsewhere FOR ALL TABLES")
            publishing.run(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
            text = logical_postgres.url(publisher).set(drivername="postgresql").render_as_string(hide_password=False)
            # a server that subscribes to itself would wait for itself if it had to make the slot
            subscribing.run(
                f"CREATE SUBSCRIPTION of_elsewhere CONNECTION '{text}' PUBLICATION elsewhere "
                f"WITH (create_slot = false, slot_name = '{name}')"
            )
            return subscribing, publishing

        try:
            yield subscribe
        finally:
            publishing.close()
            subscribing.close()
            subscribing.run("DROP SUBSCRIPTION IF EXISTS of_elsewhere")


def test_postgresql_rows_that_a_subscription_writes(subscriber):
    """Its worker fires row triggers alone, and only those that are enabled for it."""
    queue, publisher = subscriber(TABLE)
    feed = queue.set_up(TICKET)
    seen = set()

    def sees(*wanted):
        seen.clear()
        eventually(lambda: seen.update(ids(feed)) or seen >= {*wanted})
        assert seen == {*wanted}

    publisher.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(1, 4) i")
    sees(1, 2, 3, 4)
    publisher.run("UPDATE ticket SET body = 'y' WHERE id = 2")
    publisher.run("UPDATE ticket SET id = 30 WHERE id = 3")
    publisher.run("DELETE FROM ticket WHERE id = 4")
    sees(2, 3, 30, 4)
    publisher.run("TRUNCATE ticket")
    eventually(lambda: take(feed) == ({}, {"ticket"}))
    queue.run("INSERT INTO ticket VALUES (7, 'own')")
    assert len(feed.receive(10).changes) == 1  # by one trigger alone


def test_postgresql_an_application_sees_no_number_of_ours(queue):
    """`lastval()` is of the session's last sequence, also of one that a trigger used."""
    queue.run("CREATE TABLE ticket (id serial PRIMARY KEY, body text)")
    queue.set_up(TICKET)
    with queue.session() as session:
        session.run("INSERT INTO ticket (body) VALUES ('x')")
        assert session.run("SELECT lastval()") == [(1,)]


def test_postgresql_values_that_are_equal_and_read_differently_count(queue):
    queue.run("CREATE TABLE ticket (id integer PRIMARY KEY, body numeric)", "INSERT INTO ticket VALUES (1, 2.5)")
    feed = queue.set_up(TICKET)
    queue.run("UPDATE ticket SET body = 2.5")
    assert ids(feed) == set()
    queue.run("UPDATE ticket SET body = 2.50")
    assert ids(feed) == {1}


def test_postgresql_a_session_may_have_operators_of_its_own(queue):
    """The function of a trigger has the rights of its owner, so it must not use what a writer made."""
    queue.run(TABLE, "INSERT INTO ticket VALUES (3, 'x')")
    feed = queue.set_up(TICKET)
    queue.run(
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.no(text[], text[]) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "CREATE OPERATOR evil.<> (LEFTARG = text[], RIGHTARG = text[], FUNCTION = evil.no)",
    )
    with queue.session() as session:
        session.run("SET search_path = evil, pg_catalog, public")
        session.run("UPDATE ticket SET id = 30")
    assert ids(feed) == {3, 30}


def test_postgresql_a_feed_that_waits_holds_no_transaction_open(queue):
    queue.run(TABLE)
    feed = queue.set_up(TICKET)
    feed.wait(0.1)
    with queue.session() as session:
        assert session.run("SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'") == []


def test_postgresql_a_commit_that_readers_do_not_see_yet_is_not_claimed(queue):
    """A server that waits for a standby has the commit in its log, but shows the old rows until the standby answers."""
    queue.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text)", "INSERT INTO ticket VALUES (1, 'x')")
    feed = queue.set_up(TICKET)
    take(feed)
    try:
        queue.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        with queue.session() as session, queue.session() as watcher:
            writer = threading.Thread(target=session.run, args=("UPDATE ticket SET body = 'y' WHERE id = 1",))
            writer.start()
            eventually(lambda: watcher.run("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
            received = feed.receive(100)
            watcher.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            writer.join()
            learned = str(session.run(queue.position)[0][0])
        assert not received.changes
        assert parse_position(received.through.text) < parse_position(learned)
        assert [change.values for change in feed.receive(100).changes] == [{"id": 1}]
    finally:
        with queue.server.connect() as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


def test_postgresql_parts_of_a_table(queue):
    queue.run(
        "CREATE TABLE p (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200)",
    )
    feed = queue.set_up(WatchedTable("p", None, ("id",), None))
    queue.run("INSERT INTO p VALUES (1, 'x'), (2, 'x')", "INSERT INTO p2 VALUES (101, 'x')")
    assert take(feed)[0] == {"p": {(1,), (2,), (101,)}}
    queue.run("UPDATE p SET id = 150 WHERE id = 1", "DELETE FROM p1", "CREATE TABLE p3 PARTITION OF p DEFAULT")
    queue.run("INSERT INTO p VALUES (999, 'x')")
    assert take(feed)[0] == {"p": {(1,), (150,), (2,), (999,)}}


def test_postgresql_rows_that_were_moved_meanwhile_are_not_forgotten(queue):
    """A row is known by its place, and VACUUM FULL gives a place to another row."""
    queue.run(TABLE, "INSERT INTO ticket SELECT i, 'x' FROM generate_series(1, 20) i")
    feed = queue.set_up(TICKET)
    for number in range(1, 9):
        queue.run(f"UPDATE ticket SET body = 'y' WHERE id = {number}")
    first = feed.receive(2)
    taken = {change.values["id"] for change in first.changes}
    feed.acknowledge(first)
    second = feed.receive(2)
    queue.run("VACUUM FULL rag_index.rag_index_desk")
    feed.acknowledge(second)
    feed.acknowledge(second)
    left = set(range(1, 9)) - taken
    assert left - {change.values["id"] for change in second.changes} <= ids(feed)


def test_postgresql_writers_need_no_rights_and_the_reader_few(queue):
    queue.run(TABLE)
    for role in ("reader", "writer"):
        queue.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        queue.run("GRANT SELECT ON ticket TO reader", "GRANT INSERT, DELETE ON ticket TO writer")
        url = queue.url.set(username="reader", password="x")
        feed = QueueFeed(url, [TICKET], PROJECT)
        with pytest.raises(SettingsError, match=r"no queue rag_index\.rag_index_desk; run the SQL"):
            feed.check()
        setup = setup_for(url, "queue", [TICKET], PROJECT)
        queue.run(*(step.sql for step in setup.steps))
        feed.check()
        take(feed)
        with queue.session() as session:
            session.run("SET ROLE writer")
            session.run("INSERT INTO ticket VALUES (1, 'x')")
        assert ids(feed) == {1}
        queue.run("REVOKE DELETE ON rag_index.rag_index_desk FROM reader")
        with pytest.raises(SettingsError, match="may not read and delete"):
            feed.check()
        feed.close()
    finally:
        for role in ("reader", "writer"):
            queue.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("followed", ["postgresql", "mariadb", "sqlite"], indirect=True)
def test_triggers_that_are_missing_or_do_not_fit_are_named(followed):
    followed.run("CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(90), title varchar(90))")
    feed = followed.set_up(TICKET)
    feed.check()
    followed.tables = (WatchedTable("ticket", None, ("id",), frozenset({"id", "body", "title"})),)
    assert re.search("fit the settings.*`rag-index watch --setup` prints again", problems(followed.feed())["ticket"])
    setup = setup_for(followed.url, "queue", [TICKET], PROJECT)
    removal = [step.sql for step in setup.removal]
    followed.run(next(sql for sql in removal if sql.startswith("DROP TRIGGER") or "CASCADE" in sql))
    assert "table ticket has no triggers" in problems(feed)["ticket"]
    followed.run(*removal[1:])
    with pytest.raises(SettingsError, match="the source has no queue"):
        feed.check()
    followed.run("INSERT INTO ticket VALUES (1, 'x', 'x')")


def test_postgresql_triggers_that_are_switched_off_are_named(queue):
    queue.run(TABLE)
    feed = queue.set_up(TICKET)
    for switched in ("DISABLE", "ENABLE"):  # what happened in between was not seen
        queue.run(f"ALTER TABLE ticket {switched} TRIGGER USER")
        assert re.search("table ticket has no triggers, or .* were switched off", problems(feed)["ticket"])


def test_mariadb_a_user_who_may_not_delete_is_named(maria):
    maria.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text)")
    maria.set_up(TICKET)
    maria.run("CREATE OR REPLACE USER only_reader IDENTIFIED BY 'x'", "GRANT SELECT ON followed.* TO only_reader")
    feed = QueueFeed(maria.url.set(username="only_reader", password="x"), [TICKET], PROJECT)
    try:
        with pytest.raises(SettingsError, match=r"rows of the queue cannot be deleted.*watch --setup"):
            feed.check()
    finally:
        feed.close()
        maria.run("DROP USER only_reader")


def test_mariadb_replace_and_keys_that_differ_in_case_alone(maria):
    maria.run("CREATE TABLE ticket (id varchar(20) PRIMARY KEY, code integer UNIQUE, body text)")
    feed = maria.set_up(TICKET)
    maria.run("INSERT INTO ticket VALUES ('a', 1, 'x'), ('b', 2, 'x')")
    take(feed)
    maria.run("REPLACE INTO ticket VALUES ('c', 1, 'x')")
    assert ids(feed) == {"a", "c"}
    maria.run("INSERT INTO ticket VALUES ('b', 2, 'y') ON DUPLICATE KEY UPDATE body = 'z'")
    assert ids(feed) == {"b"}
    maria.run("UPDATE ticket SET id = 'B' WHERE id = 'b'")
    assert ids(feed) == {"b", "B"}
    with maria.session() as session:
        session.run("CREATE TABLE numbered (id integer AUTO_INCREMENT PRIMARY KEY)")
        session.run("INSERT INTO numbered VALUES (NULL)")
        session.run("INSERT INTO ticket VALUES ('d', 9, 'x')")
        assert session.run("SELECT LAST_INSERT_ID()") == ((1,),)


def test_sqlite_replace_without_rowid_and_keys_that_differ_in_case_alone(sqlite):
    sqlite.run("CREATE TABLE ticket (id TEXT COLLATE NOCASE PRIMARY KEY, code UNIQUE, body TEXT) WITHOUT ROWID")
    feed = sqlite.set_up(TICKET)
    sqlite.run("INSERT INTO ticket VALUES ('a', 1, 'x'), ('b', 2, 'x'), ('d', 3, 'x')")
    take(feed)
    sqlite.run("INSERT OR REPLACE INTO ticket VALUES ('c', 1, 'x')")  # deletes a, and no trigger on delete fires
    assert ids(feed) == {"a", "c"}
    sqlite.run("UPDATE OR REPLACE ticket SET code = 2 WHERE id = 'd'")
    assert "b" in ids(feed)
    sqlite.run("UPDATE ticket SET id = 'D' WHERE id = 'd'")
    assert ids(feed) == {"d", "D"}
    sqlite.run("INSERT INTO ticket VALUES ('d', 9, 'x') ON CONFLICT (id) DO UPDATE SET body = 'z'")
    assert "D" in ids(feed)
    with sqlite.session() as session:
        session.run("CREATE TABLE numbered (id INTEGER PRIMARY KEY)")
        session.run("INSERT INTO numbered VALUES (77)")
        session.run("UPDATE ticket SET body = 'last'")
        assert session.run("SELECT last_insert_rowid()") == [(77,)]


def test_sqlite_a_value_of_another_type_is_another_value(sqlite):
    sqlite.run("CREATE TABLE ticket (id INTEGER PRIMARY KEY, body)", "INSERT INTO ticket VALUES (1, 7)")
    feed = sqlite.set_up(TICKET)
    sqlite.run("UPDATE ticket SET body = 7")
    assert ids(feed) == set()
    sqlite.run("UPDATE ticket SET body = 7.0")
    assert ids(feed) == {1}


def test_sqlite_a_writer_does_not_disturb(sqlite):
    sqlite.run(TABLE, "INSERT INTO ticket VALUES (1, 'x'), (2, 'x')")
    feed = sqlite.set_up(TICKET)
    with sqlite.session() as session:
        session.run("BEGIN IMMEDIATE")
        session.run("DELETE FROM ticket WHERE id = 1")
        assert ids(feed) == set()
        session.run("COMMIT")
    received = feed.receive(10)
    url = sqlite.url.update_query_dict({"timeout": "0.1"})
    impatient = QueueFeed(url, [TICKET], PROJECT)
    with sqlite.session() as session:
        session.run("BEGIN IMMEDIATE")
        with pytest.raises(SourceUnavailable):
            impatient.acknowledge(received)
        session.run("ROLLBACK")
    impatient.close()
    assert ids(feed) == {1}


@pytest.mark.not_root
def test_sqlite_a_file_that_may_not_be_written_is_named(sqlite):
    sqlite.run(TABLE)
    feed = sqlite.set_up(TICKET)
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    Path(sqlite.url.database).chmod(0o444)
    with pytest.raises(SettingsError, match="cannot be deleted"):
        feed.check()
