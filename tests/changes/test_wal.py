"""The log of a real PostgreSQL: when the slot moves, what only the log has, and what surprises there may be in it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from rag_index.changes import wal
from rag_index.changes.postgres import SlotState
from rag_index.changes.rows import WatchedTable
from rag_index.changes.setup import setup_for
from rag_index.changes.wal import WalFeed
from rag_index.database.urls import database_url
from rag_index.documents.positions import parse_position
from rag_index.errors import SettingsError, SourceError
from rag_index.ledger import Ledger
from rag_index.sources.engine import open_read_only
from tests.changes.databases import PROJECT, problems, take

TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "body"}))
CUSTOMER = WatchedTable("customer", "sales", ("code", "id"), None)
SLOT = "rag_index_desk"


@pytest.fixture
def desk(wal):
    wal.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text)", "CREATE TABLE other (id serial, body text)")
    wal.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(1, 10) i")
    return wal


def ids(feed, limit=1000):
    return {key for (key,) in take(feed, limit)[0].get("ticket", ())}


def position(desk):
    with desk.session() as session:
        return session.run("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", SLOT)[0][
            0
        ]


def test_the_slot_moves_only_after_acknowledge(desk):
    feed = desk.set_up(TICKET)
    take(feed)
    before = position(desk)
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 1", "INSERT INTO other (body) VALUES ('x')")
    received = feed.receive(100)
    assert [change.values for change in received.changes] == [{"id": 1}]
    assert position(desk) == before
    feed.receive(100)
    feed.wait(0.6)
    assert position(desk) == before
    feed.acknowledge(received)
    assert position(desk) != before
    assert not feed.receive(100).changes


def test_a_receiver_that_is_killed_before_acknowledge_loses_nothing(desk):
    desk.set_up(TICKET)
    desk.run("DELETE FROM ticket WHERE id IN (3, 4)")
    program = (
        "from rag_index.changes.rows import WatchedTable; from rag_index.changes.wal import WalFeed\n"
        "from rag_index.ledger import Ledger\n"
        "from sqlalchemy.engine import make_url; import sys, time\n"
        "table = WatchedTable('ticket', None, ('id',), None)\n"
        f"feed = WalFeed(make_url(sys.argv[1]), [table], {PROJECT!r}, Ledger(make_url(sys.argv[2])))\n"
        "print(len(feed.receive(100).changes), flush=True); time.sleep(600)\n"
    )
    urls = [url.render_as_string(hide_password=False) for url in (desk.url, desk.ledger.engine.url)]
    with subprocess.Popen([sys.executable, "-c", program, *urls], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "2\n"
        process.send_signal(signal.SIGKILL)
    assert ids(desk.feed()) == {3, 4}


def test_a_transaction_is_given_whole_and_the_next_afterwards(desk):
    feed = desk.set_up(TICKET)
    desk.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(101, 400) i")
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 1")
    first = feed.receive(10)
    assert {change.values["id"] for change in first.changes} == set(range(101, 401))
    assert first.more
    feed.acknowledge(first)
    assert ids(feed) == {1}


def test_a_huge_transaction_does_not_fill_the_memory(desk):
    desk.set_up(TICKET)
    feed = desk.feed(max_rows=5000)
    desk.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(101, 20000) i")
    received = feed.receive(100)
    assert (received.changes, received.overflow) == ([], [TICKET])
    feed.acknowledge(received)
    desk.run("UPDATE ticket SET body = 'y' WHERE id < 5001")
    assert len(feed.receive(100).changes) == 4910


def test_truncate_is_an_overflow(desk):
    desk.run("CREATE SCHEMA sales", "CREATE TABLE sales.customer (code text, id integer, PRIMARY KEY (id, code))")
    feed = desk.set_up(TICKET, CUSTOMER)
    desk.run("TRUNCATE ticket")
    assert take(feed) == ({}, {"ticket"})
    desk.run("INSERT INTO sales.customer VALUES ('a', 1)", "UPDATE sales.customer SET code = 'b'")
    assert take(feed) == ({"sales.customer": {("a", 1), ("b", 1)}}, set())


def test_the_slot_passes_over_transactions_of_other_tables(desk):
    """An idle slot would hold back the log of a database that is busy with other tables."""
    desk.set_up(TICKET)
    now = [0.0]
    feed = desk.feed(clock=lambda: now[0])
    take(feed)
    for _ in range(3):
        before = position(desk)
        desk.run("INSERT INTO other (body) SELECT repeat('x', 2000) FROM generate_series(1, 500)")
        now[0] += 100
        received = feed.receive(100)
        assert received.changes == []
        feed.acknowledge(received)
        assert position(desk) != before
    desk.run("INSERT INTO other (body) VALUES ('x')")
    before = position(desk)
    feed.acknowledge(feed.receive(100))
    assert position(desk) == before  # each move reads the log once more, so not all the time
    with open_read_only(desk.url).connect() as connection:
        assert SlotState.read(connection, SLOT).held_bytes < 20_000_000


def test_reading_takes_a_fifth_of_the_time_and_a_change_now_and_then_waits_for_nothing(desk, monkeypatch):
    """By a clock that goes on by 0.1 s with each look at it, and by 0.3 s with each reading of the log."""
    now = [1000.0]

    def clock():
        now[0] += 0.1
        return now[0]

    def slow(*given):
        now[0] += 0.3
        return read(*given)

    def waited():
        desk.run("INSERT INTO other (body) VALUES ('x')")
        before = now[0]
        feed.wait(600)
        return now[0] - before

    desk.set_up(TICKET)
    feed = desk.feed(clock=clock)
    read = feed._read
    monkeypatch.setattr(feed, "_read", slow)
    monkeypatch.setattr(wal, "PROBE_SECONDS", 0.001)
    feed.receive(100)
    assert waited() < 1
    for number in range(6):
        desk.run(f"UPDATE ticket SET body = '{number}' WHERE id = 1")
        feed.acknowledge(feed.receive(100))
    assert waited() > 6 * 0.4 * wal.REST - wal.SAVED_SECONDS - 3


def test_a_log_that_grows_without_changes_is_read_less_and_less_often(desk, monkeypatch):
    """By a clock that goes on by 10 ms with each look at it. The ledger may be what makes the log grow."""
    now = [1000.0]

    def clock():
        now[0] += 0.01
        return now[0]

    def waited(statement):
        desk.run(statement)
        before = now[0]
        feed.wait(600)
        feed.acknowledge(feed.receive(100))
        return now[0] - before

    desk.set_up(TICKET)
    feed = desk.feed(clock=clock)
    monkeypatch.setattr(wal, "PROBE_SECONDS", 0.001)
    assert waited("UPDATE ticket SET body = 'y' WHERE id = 1") < 0.2
    monkeypatch.setattr(wal, "MAX_QUIET", 1.0)
    pauses = [waited("INSERT INTO other (body) VALUES ('x')") for _ in range(13)]
    assert pauses[0] < 0.2
    assert 0.9 < pauses[-1] < 1.3
    assert waited("UPDATE ticket SET body = 'z' WHERE id = 1") < 1.3
    assert waited("UPDATE ticket SET body = 'z' WHERE id = 2") < 0.2


def test_what_was_acknowledged_is_not_read_again(desk, monkeypatch):
    """The log is read once for each change; until a change is acknowledged it is given again and nothing is claimed."""
    feed = desk.set_up(TICKET)
    take(feed)
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 1")
    readings, read = [], feed._read
    monkeypatch.setattr(feed, "_read", lambda *given: readings.append(given) or read(*given))
    for _ in range(2):
        received = feed.receive(100)
        assert [change.values for change in received.changes] == [{"id": 1}]
    feed.acknowledge(received)
    after = feed.receive(100)
    assert not after.changes
    assert parse_position(after.through.text) >= parse_position(received.position)
    assert len(readings) == 2 or received.position != after.through.text  # the server wrote something of its own


def test_a_commit_that_readers_do_not_see_yet_is_held_back(desk):
    """A server that waits for a standby has the commit in its log, but shows the old rows until the standby answers."""
    feed = desk.set_up(TICKET)
    server = desk.server
    try:
        desk.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        with desk.session() as session, desk.session() as watcher:
            writer = threading.Thread(target=session.run, args=("UPDATE ticket SET body = 'y' WHERE id = 1",))
            writer.start()
            while not watcher.run("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
                pass
            received = feed.receive(100)
            assert (received.changes, received.position, received.behind) == ([], None, True)
            assert received.through is None
            watcher.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            writer.join()
            received = feed.receive(100)
            assert ([change.values for change in received.changes], received.behind) == ([{"id": 1}], False)
    finally:
        with server.connect() as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


def test_a_table_without_the_key_in_its_identity_gets_another_identity(desk):
    desk.run(
        "CREATE TABLE a (id serial PRIMARY KEY, code text NOT NULL UNIQUE, body text)",
        "CREATE TABLE b (code text, body text)",
        "CREATE TABLE c (id integer PRIMARY KEY, customer integer, body text)",
    )
    tables = [WatchedTable("a", None, ("code",), None), WatchedTable("b", None, ("code",), None)]
    tables.append(WatchedTable("c", None, ("customer", "id"), None))
    feed = desk.set_up(*tables)
    with desk.session() as session:
        kinds = dict(session.run("SELECT relname, relreplident FROM pg_class WHERE relname IN ('a', 'b', 'c')"))
        assert kinds == {"a": "i", "b": "f", "c": "f"}
    for table in "ab":
        desk.run(f"INSERT INTO {table} (code, body) VALUES ('x', repeat('long text ', 2000))")
        take(feed)
        desk.run(f"UPDATE {table} SET code = 'y'", f"DELETE FROM {table}")
        assert take(feed)[0] == {table: {("x",), ("y",)}}
    desk.run("INSERT INTO c VALUES (1, 5, 'x')", "UPDATE c SET customer = 6", "DELETE FROM c")
    assert take(feed)[0] == {"c": {(5, 1), (6, 1)}}
    desk.run("ALTER TABLE a REPLICA IDENTITY DEFAULT")
    [(table, problem)] = problems(feed).items()
    assert table == "a"
    assert re.search("no old values of code of table a.*watch --setup", problem)


def test_a_long_value_that_did_not_change_is_known_from_the_old_row(desk):
    desk.run("CREATE TABLE long (k text, n integer)", "ALTER TABLE long ALTER k SET STORAGE EXTERNAL")
    feed = desk.set_up(WatchedTable("long", None, ("k",), None))
    key = "k" * 5000
    desk.run(f"INSERT INTO long VALUES ('{key}', 1)")
    take(feed)
    desk.run("UPDATE long SET n = 2")
    assert take(feed)[0] == {"long": {(key,)}}


def test_columns_that_come_and_go(desk):
    feed = desk.set_up(TICKET)
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 1", "ALTER TABLE ticket ADD more text, DROP COLUMN body")
    desk.run("UPDATE ticket SET more = 'y' WHERE id = 2", "ALTER TABLE ticket ADD body text")
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 3")
    assert ids(feed) == {1, 2, 3}


def test_a_lost_slot_says_so_and_setting_up_again_compares_everything(desk):
    feed = desk.set_up(TICKET)
    with desk.server.connect() as connection:
        connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        connection.execute("SELECT pg_reload_conf()")
    try:
        for _ in range(3):
            desk.run("INSERT INTO other (body) SELECT repeat('x', 2000) FROM generate_series(1, 9000)")
            desk.run("SELECT pg_switch_wal()", "CHECKPOINT")
        with pytest.raises(SourceError, match=r"slot rag_index_desk is lost.*watch --setup"):
            feed.receive(100)
        with pytest.raises(SettingsError, match="is lost"):
            feed.check()
        steps = [step.sql for step in setup_for(desk.url, "wal", [TICKET], PROJECT).steps]
        assert any("pg_drop_replication_slot" in step for step in steps)
        desk.run("UPDATE ticket SET body = 'unseen' WHERE id = 1", *steps)
        assert take(feed) == ({}, {"ticket"})
        desk.run("UPDATE ticket SET body = 'seen' WHERE id = 2")
        assert ids(feed) == {2}
    finally:
        with desk.server.connect() as connection:
            connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            connection.execute("SELECT pg_reload_conf()")


def test_a_role_that_may_only_read_can_follow_after_the_setup(desk):
    desk.run("CREATE ROLE reader LOGIN PASSWORD 'reads'", "GRANT SELECT ON ticket TO reader")
    try:
        url = desk.url.set(username="reader", password="reads")
        setup = setup_for(url, "wal", [TICKET], PROJECT)
        desk.run(*(step.sql for step in setup.steps))
        feed = WalFeed(url, [TICKET], PROJECT, desk.ledger)
        feed.check()
        take(feed)
        desk.run("DELETE FROM ticket WHERE id = 5")
        assert ids(feed) == {5}
        feed.close()
        desk.run(*(step.sql for step in setup.removal))
    finally:
        desk.run("DROP OWNED BY reader", "DROP ROLE reader")


def test_what_is_missing_is_named(desk, postgres):
    desk.tables = (TICKET,)
    feed = desk.feed()
    for setup in ["no slot rag_index_desk", "no publication rag_index_desk"]:
        with pytest.raises(SettingsError, match=f"the source has {setup}; run the SQL that `rag-index watch --setup`"):
            feed.check()
        if "slot" in setup:
            with pytest.raises(SourceError, match="no slot"):
                feed.receive(10)
            desk.run("SELECT pg_create_logical_replication_slot('rag_index_desk', 'pgoutput')")
    desk.run("CREATE PUBLICATION rag_index_desk FOR TABLE ticket", "CREATE VIEW seen AS SELECT * FROM ticket")
    desk.tables = (TICKET, *(WatchedTable(name, None, ("id",), None) for name in ("missing", "seen")))
    said = problems(desk.feed())
    assert said.keys() == {"missing", "seen"}
    assert "there is no table 'missing'" in said["missing"]
    assert re.search("'seen' is a view.*depends_on", said["seen"])
    with postgres.database() as name:
        feed = WalFeed(postgres.url(name), [TICKET], PROJECT, desk.ledger)
        with pytest.raises(SettingsError, match="wal_level = logical"):
            feed.check()
        feed.close()


@pytest.mark.parametrize("how", ["made again", "read by somebody else", "with another ledger"])
def test_a_slot_that_is_not_where_it_was_left_means_that_everything_may_have_changed(desk, how, tmp_path):
    feed = desk.set_up(TICKET)
    desk.run("UPDATE ticket SET body = 'seen' WHERE id = 1")
    assert ids(feed) == {1}
    assert take(desk.feed()) == ({}, set())  # a watch that begins again goes on where it was
    if how == "with another ledger":
        desk.run("UPDATE ticket SET body = 'in the inbox of the other' WHERE id = 2")
        take(feed)
        with closing(Ledger(database_url(f"sqlite:///{tmp_path}/other.db", tmp_path))) as other:
            feed = WalFeed(desk.url, [TICKET], PROJECT, other)
            assert take(feed) == ({}, {"ticket"})
            assert take(feed) == ({}, set())
            feed.close()
        return
    desk.run("UPDATE ticket SET body = 'lost' WHERE id = 2")
    if how == "made again":
        desk.run(f"SELECT pg_drop_replication_slot('{SLOT}')")
        desk.run(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    else:
        desk.run(
            "SELECT count(*) FROM pg_logical_slot_get_binary_changes("
            f"'{SLOT}', NULL, NULL, 'proto_version', '1', 'publication_names', '{SLOT}')"
        )
    assert take(feed) == ({}, {"ticket"})
    desk.run("UPDATE ticket SET body = 'seen again' WHERE id = 3")
    assert ids(feed) == {3}


def test_a_server_that_was_put_back_to_an_earlier_state_is_noticed(desk):
    feed = desk.set_up(TICKET)
    desk.ledger.remember_slot(SLOT, "FFFF/0")  # a position that its log has not reached
    assert take(desk.feed()) == ({}, {"ticket"})
    assert take(feed) == ({}, set())


# What a log may have besides


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


def test_a_commit_right_behind_such_a_message_is_not_skipped_with_it(desk):
    feed = desk.set_up(TICKET)
    with desk.session() as slow:
        slow.run("BEGIN")
        slow.run("UPDATE ticket SET body = 'late' WHERE id = 1")
        slow.run("SELECT pg_logical_emit_message(false, 'an application', 'x')")
        slow.run("COMMIT")
    assert take(feed, limit=1) == ({"ticket": {(1,)}}, set())
