"""Queues of triggers: what each kind of database does in its own way."""

import re
from dataclasses import replace

import pytest
from sqlalchemy import make_url

from rag_index.components.ledger.tables import parse_position
from rag_index.core.settings.sections import WATCH_QUEUES
from rag_index.errors import SettingsError, SourceUnavailable
from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.queues import QueueFeed, open_queue, queue_kind
from rag_index.watch.changes.rows import WatchedTable
from tests.changes.databases import PROJECT, TICKET, Followed, Session, ids, problems, take
from tests.waiting import eventually

TABLE = "CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(90))"


@pytest.mark.parametrize("database", WATCH_QUEUES)
def test_a_database_that_the_settings_allow_has_a_queue(database):
    assert issubclass(queue_kind(make_url(f"{database}://host/name")), QueueFeed)


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


def test_postgresql_rows_that_a_subscription_writes(postgres):
    """Its worker fires row triggers alone, and only those that are enabled for it."""
    with postgres.database() as name, postgres.database() as elsewhere:
        queue, publisher = Followed(postgres.url(name), "queue"), Session(postgres.url(elsewhere))
        text = postgres.url(elsewhere).set(drivername="postgresql").render_as_string(hide_password=False)
        for statement in (TABLE, "CREATE PUBLICATION elsewhere FOR ALL TABLES"):
            publisher.run(statement)
        publisher.run(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        # a server that subscribes to itself would wait for itself if it had to make the slot
        queue.run(
            TABLE, f"CREATE SUBSCRIPTION of_elsewhere CONNECTION '{text}' PUBLICATION elsewhere "
            f"WITH (create_slot = false, slot_name = '{name}')",
        )  # fmt: skip
        try:
            feed, seen = queue.set_up(TICKET), set()

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
            assert len(feed.rows(10).changes) == 1  # by one trigger alone
        finally:
            publisher.close()
            queue.close()
            queue.run("DROP SUBSCRIPTION IF EXISTS of_elsewhere")


def test_postgresql_a_session_sees_nothing_of_ours_and_changes_nothing_of_it(queue):
    """`lastval()` is of the last sequence; a trigger, which has the rights of its owner, uses no operator of others."""
    queue.run("CREATE TABLE ticket (id serial PRIMARY KEY, body numeric)")
    feed = queue.set_up(TICKET)
    queue.run(
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.no(text[], text[]) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "CREATE OPERATOR evil.<> (LEFTARG = text[], RIGHTARG = text[], FUNCTION = evil.no)",
    )
    with queue.session() as session:
        session.run("SET search_path = evil, pg_catalog, public")
        session.run("INSERT INTO ticket (body) VALUES (2.5)")
        assert session.run("SELECT lastval()") == [(1,)]
        session.run("UPDATE ticket SET id = 30")
        assert ids(feed) == {1, 30}
        session.run("UPDATE ticket SET body = 2.5")
        assert ids(feed) == set()
        session.run("UPDATE ticket SET body = 2.50")  # it is equal, and read differently
        assert ids(feed) == {30}
        feed.wait(0.1)
        assert session.run("SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'") == []


def test_postgresql_the_end_of_an_idle_log_is_claimed_while_a_transaction_is_open(queue):
    """Such as one that somebody has left open, or an autovacuum that takes long."""
    queue.run(TABLE, "CREATE TABLE other (id integer)")
    feed = queue.set_up(TICKET)
    with queue.session() as forgotten, queue.session() as application:
        forgotten.run("BEGIN")
        forgotten.run("INSERT INTO other VALUES (1)")
        application.run("INSERT INTO ticket VALUES (1, 'x')")
        [[position]] = application.run(queue.position)
        assert parse_position(feed.rows(10).through.text) >= parse_position(position)


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
    first = feed.rows(2)
    taken = {change.values[0] for change in first.changes}
    feed.acknowledge(first)
    second = feed.rows(2)
    queue.run("VACUUM FULL rag_index.rag_index_desk")
    feed.acknowledge(second)
    feed.acknowledge(second)
    assert set(range(1, 9)) - taken - {change.values[0] for change in second.changes} <= ids(feed)


def test_postgresql_writers_need_no_rights_and_the_reader_few(queue):
    queue.run(TABLE, *(f"CREATE ROLE {role} LOGIN PASSWORD 'x'" for role in ("reader", "writer")))
    try:
        queue.run("GRANT SELECT ON ticket TO reader", "GRANT INSERT, DELETE ON ticket TO writer")
        url = queue.url.set(username="reader", password="x")
        feed = open_queue(url, [TICKET], PROJECT)
        with pytest.raises(SettingsError, match=r"no queue rag_index\.rag_index_desk; run the SQL"):
            feed.problems()
        queue.run(*(step.sql for step in setup_for(url, "queue", [TICKET], PROJECT).steps))
        assert feed.problems() == {}
        take(feed)
        with queue.session() as session:
            session.run("SET ROLE writer")
            session.run("INSERT INTO ticket VALUES (1, 'x')")
        assert ids(feed) == {1}
        queue.run("REVOKE DELETE ON rag_index.rag_index_desk FROM reader")
        with pytest.raises(SettingsError, match=r"rows of the queue cannot be deleted.*watch --setup"):
            feed.problems()
        feed.close()
    finally:
        queue.run(*(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in ("reader", "writer")))


@pytest.mark.parametrize("followed", ["postgresql", "mariadb", "sqlite"], indirect=True)
def test_triggers_that_are_missing_or_do_not_fit_are_named(followed):
    followed.run("CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(90), title varchar(90))")
    feed = followed.set_up(TICKET)
    followed.run("INSERT INTO ticket VALUES (1, 'x', 'x')")
    for other in (
        replace(TICKET, used=frozenset({"id", "title"})),
        WatchedTable("ticket", None, ("id", "title"), None),
    ):
        followed.tables = (other,)
        assert re.search(
            "fit the settings.*`rag-index watch --setup` prints again", problems(followed.feed())["ticket"]
        )
        if other.columns != TICKET.columns:  # what its rows mean is not known
            assert followed.feed().rows(10).overflow == {other}
    removal = [step.sql for step in setup_for(followed.url, "queue", [TICKET], PROJECT).removal]
    if followed.dialect == "postgresql":
        for switched in ("DISABLE", "ENABLE"):  # what happened in between was not seen
            followed.run(f"ALTER TABLE ticket {switched} TRIGGER USER")
            assert "were switched off" in problems(feed)["ticket"]
        followed.set_up(TICKET)
    assert problems(feed) == {}
    followed.run(removal[0])
    assert "table ticket has no triggers" in problems(feed)["ticket"]
    followed.run(*removal[1:])
    with pytest.raises(SettingsError, match="the source has no queue"):
        feed.problems()
    followed.run("INSERT INTO ticket VALUES (2, 'x', 'x')")


def test_mariadb_users_without_the_rights_to_delete_or_to_see_triggers(maria):
    maria.run(TABLE)
    maria.set_up(TICKET)
    maria.run("CREATE OR REPLACE USER reader IDENTIFIED BY 'x'", "GRANT SELECT ON followed.* TO reader")
    feed = open_queue(maria.url.set(username="reader", password="x"), [TICKET], PROJECT)
    other = open_queue(maria.url.set(username="reader", password="x"), [replace(TICKET, used=None)], PROJECT)
    try:
        with pytest.raises(SettingsError, match=r"rows of the queue cannot be deleted.*watch --setup"):
            feed.problems()
        maria.run("GRANT DELETE ON followed.rag_index_desk TO reader")
        assert feed.problems() == {}  # by the comment of the queue
        assert problems(other).keys() == {"ticket"}
    finally:
        feed.close()
        other.close()
        maria.run("DROP USER reader")


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


def test_sqlite_keys_that_differ_in_case_and_values_in_type_alone(sqlite):
    """`test_replace.py` has the rows that REPLACE deletes."""
    sqlite.run("CREATE TABLE ticket (id TEXT COLLATE NOCASE PRIMARY KEY, body)", "INSERT INTO ticket VALUES ('d', 7)")
    feed = sqlite.set_up(TICKET)
    sqlite.run("UPDATE ticket SET id = 'D' WHERE id = 'd'")
    assert ids(feed) == {"d", "D"}
    sqlite.run("UPDATE ticket SET body = 7.0 WHERE id = 'D'")
    assert ids(feed) == {"D"}
    with sqlite.session() as session:
        session.run("CREATE TABLE numbered (id INTEGER PRIMARY KEY)")
        session.run("INSERT INTO numbered VALUES (77)")
        session.run("UPDATE ticket SET body = 'last'")
        assert session.run("SELECT last_insert_rowid()") == [(77,)]


def test_sqlite_a_writer_does_not_disturb(sqlite):
    sqlite.run(TABLE, "INSERT INTO ticket VALUES (1, 'x'), (2, 'x')")
    feed = sqlite.set_up(TICKET)
    with sqlite.session() as session:
        session.run("BEGIN IMMEDIATE")
        session.run("DELETE FROM ticket WHERE id = 1")
        assert ids(feed) == set()
        session.run("COMMIT")
    received = feed.rows(10)
    impatient = open_queue(sqlite.url.update_query_dict({"timeout": "0.1"}), [TICKET], PROJECT)
    with sqlite.session() as session:
        session.run("BEGIN IMMEDIATE")
        with pytest.raises(SourceUnavailable):
            impatient.acknowledge(received)
        session.run("ROLLBACK")
    impatient.close()
    assert ids(feed) == {1}
