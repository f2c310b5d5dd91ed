"""What a log may have beside plain changes: identities that were altered, other origins, messages, other databases."""

from __future__ import annotations

import pytest

from rag_index.changes.rows import WatchedTable
from rag_index.errors import SettingsError
from tests.changes.databases import take

TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "body"}))


@pytest.fixture
def desk(wal):
    wal.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text)")
    wal.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(1, 10) i")
    return wal


@pytest.mark.parametrize("statement", ["UPDATE c SET id = 9", "DELETE FROM c"])
def test_old_rows_without_the_watched_columns_mean_that_any_row_may_have_changed(desk, statement):
    desk.run("CREATE TABLE c (id integer PRIMARY KEY, customer integer)", "INSERT INTO c VALUES (1, 5)")
    feed = desk.set_up(WatchedTable("c", None, ("customer", "id"), None))
    desk.run("ALTER TABLE c REPLICA IDENTITY DEFAULT", statement)
    assert take(feed) == ({}, {"c"})


def test_a_log_with_whole_old_rows_gives_old_and_new_keys(desk):
    desk.run("ALTER TABLE ticket REPLICA IDENTITY FULL")
    feed = desk.set_up(TICKET)
    take(feed)
    desk.run("UPDATE ticket SET id = 100 WHERE id = 1")
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 2")
    assert take(feed) == ({"ticket": {(1,), (100,), (2,)}}, set())


def test_a_long_key_that_the_log_leaves_out_means_that_any_row_may_have_changed(desk):
    desk.run("CREATE TABLE long (id integer PRIMARY KEY, k text, n integer)")
    desk.run("ALTER TABLE long ALTER k SET STORAGE EXTERNAL")
    feed = desk.set_up(WatchedTable("long", None, ("k",), None))
    desk.run("INSERT INTO long VALUES (1, repeat('k', 5000), 1)", "ALTER TABLE long REPLICA IDENTITY DEFAULT")
    take(feed)
    desk.run("UPDATE long SET n = 2")
    assert take(feed) == ({}, {"long"})


def test_changes_that_another_server_made_first_are_received(desk):
    feed = desk.set_up(TICKET)
    with desk.session() as session:
        session.run("SELECT pg_replication_origin_create('elsewhere')")
        session.run("SELECT pg_replication_origin_session_setup('elsewhere')")
        session.run("UPDATE ticket SET body = 'y' WHERE id = 1")
        session.run("SELECT pg_replication_origin_session_reset()")
        session.run("SELECT pg_replication_origin_drop('elsewhere')")
    assert take(feed) == ({"ticket": {(1,)}}, set())


def test_a_message_of_somebody_else_means_nothing(desk):
    feed = desk.set_up(TICKET)
    desk.run("SELECT pg_logical_emit_message(true, 'somebody else', 'set up')")
    assert take(feed) == ({}, set())


def test_a_publication_of_inserts_alone_is_refused(desk):
    feed = desk.set_up(TICKET)
    desk.run("ALTER PUBLICATION rag_index_desk SET (publish = 'insert')")
    with pytest.raises(SettingsError, match=r"does not publish all of insert.*watch --setup"):
        feed.check()


def test_a_slot_of_another_database_is_refused(desk):
    """Slots belong to a server, and their names to all of its databases."""
    feed = desk.set_up(TICKET)
    desk.run("SELECT pg_drop_replication_slot('rag_index_desk')")
    with desk.server.database() as other, desk.server.connect(other) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('rag_index_desk', 'pgoutput')")
        try:
            with pytest.raises(SettingsError, match="is of another database or plugin"):
                feed.check()
        finally:
            connection.execute("SELECT pg_drop_replication_slot('rag_index_desk')")


def test_messages_of_applications_outside_of_transactions_stop_nothing(desk):
    """A batch of nothing else has no end of a transaction to move the slot to."""
    feed = desk.set_up(TICKET)
    emit = "SELECT pg_logical_emit_message(false, 'an application', 'x') FROM generate_series(1, 250)"
    with desk.session() as slow:
        slow.run("BEGIN")
        slow.run("UPDATE ticket SET body = 'late' WHERE id = 1")
        desk.run(emit, "UPDATE ticket SET body = 'soon' WHERE id = 2", emit)
        assert take(feed, limit=100) == ({"ticket": {(2,)}}, set())
        slow.run("COMMIT")
        assert take(feed, limit=100) == ({"ticket": {(1,)}}, set())
