"""The log of a real PostgreSQL: when the slot moves, what only the log has, and what surprises there may be in it."""

import re
from unittest import mock

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.tables import parse_position
from rag_index.components.sources.engine import open_read_only
from rag_index.core.database import database_url
from rag_index.errors import SettingsError, SourceError
from rag_index.watch.changes import wal
from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.postgres_catalogue import SlotState
from rag_index.watch.changes.rows import RowRoute, WatchedTable
from rag_index.watch.changes.wal import WalFeed
from tests.changes.databases import PROJECT, TICKET, Clock, ids, problems, take
from tests.waiting import eventually

SLOT = "rag_index_desk"


@pytest.fixture
def desk(wal):
    wal.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text)", "CREATE TABLE other (id serial, body text)")
    wal.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(1, 10) i")
    return wal


def position(desk):
    with desk.session() as session:
        slot = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
        return session.run(slot, SLOT)[0][0]


def test_a_huge_transaction_does_not_fill_the_memory(desk):
    desk.set_up(TICKET)
    feed = desk.feed(max_rows=100)
    desk.run("INSERT INTO ticket SELECT i, 'x' FROM generate_series(101, 201) i")
    received = feed.rows(100)
    assert (received.changes, received.overflow) == ([], {TICKET})
    feed.acknowledge(received)
    desk.run("UPDATE ticket SET body = 'y' WHERE id BETWEEN 101 AND 200")
    assert len(feed.rows(100).changes) == 100


def test_truncate_is_an_overflow_of_that_table_alone(desk):
    customer = WatchedTable("customer", "sales", ("code", "id"), None)
    desk.run("CREATE SCHEMA sales", "CREATE TABLE sales.customer (code text, id integer, PRIMARY KEY (id, code))")
    feed = desk.set_up(TICKET, customer)
    desk.run("TRUNCATE ticket")
    desk.run("INSERT INTO sales.customer VALUES ('a', 1)", "UPDATE sales.customer SET code = 'b'")
    assert take(feed) == ({"sales.customer": {("a", 1), ("b", 1)}}, {"ticket"})


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
        assert take(feed) == ({}, set())
        assert position(desk) != before
    desk.run("INSERT INTO other (body) VALUES ('x')")
    before = position(desk)
    take(feed)
    assert position(desk) == before  # each move reads the log once more, so not all the time
    with open_read_only(desk.url).connect() as connection:
        assert SlotState.read(connection, SLOT).held_bytes < 20_000_000


def test_reading_takes_a_fifth_of_the_time_and_less_where_it_finds_nothing(desk, monkeypatch):
    """The ledger may be what makes the log grow."""
    clock, slow = Clock(monkeypatch), [0.0]

    def waited(statement):
        desk.run(statement)
        seconds = clock.waited(feed)
        feed.acknowledge(feed.rows(100))
        return seconds

    def read(self, *given):
        clock.now += slow[0]
        return real(self, *given)

    desk.set_up(TICKET)
    feed, real = desk.feed(clock=clock), WalFeed._read
    monkeypatch.setattr(WalFeed, "_read", read)
    update, other = "UPDATE ticket SET body = body || 'y' WHERE id = 1", "INSERT INTO other (body) VALUES ('x')"
    assert waited(update) < 0.2
    monkeypatch.setattr(wal, "MAX_QUIET", 1.0)
    pauses = [waited(other) for _ in range(7)]
    assert pauses[0] < 0.3
    assert 0.9 < pauses[-1] < 1.3
    assert waited(update) < 1.3
    slow[0] = 2.0
    assert waited(update) < 0.3
    assert wal.REST * 2 < waited(update) < wal.REST * 2 + 0.5


def test_what_was_acknowledged_is_not_read_again(desk, monkeypatch):
    """The log is read once for each change; until a change is acknowledged it is given again and nothing is claimed."""
    feed = desk.set_up(TICKET)
    take(feed)
    desk.run("UPDATE ticket SET body = 'y' WHERE id = 1")
    readings, read = [], feed._read
    monkeypatch.setattr(feed, "_read", lambda *given: readings.append(given) or read(*given))
    for _ in range(2):
        received = feed.rows(100)
        assert [change.values for change in received.changes] == [(1,)]
    feed.acknowledge(received)
    after = feed.rows(100)
    assert not after.changes
    assert parse_position(after.through.text) >= parse_position(received.position)
    assert len(readings) == 2 or received.position != after.through.text  # the server wrote something of its own


def test_a_table_without_the_key_in_its_identity_gets_another_identity(desk):
    desk.run(
        "CREATE TABLE a (id serial PRIMARY KEY, code text NOT NULL UNIQUE, body text)",
        "CREATE TABLE b (code text, body text)",
        "CREATE TABLE c (id integer PRIMARY KEY, customer integer, body text)",
    )
    tables = [WatchedTable("a", None, ("code",), None), WatchedTable("b", None, ("code",), None)]
    feed = desk.set_up(*tables, WatchedTable("c", None, ("customer", "id"), None))
    with desk.session() as session:
        kinds = dict(session.run("SELECT relname, relreplident FROM pg_class WHERE relname IN ('a', 'b', 'c')"))
        assert kinds == {"a": "f", "b": "f", "c": "f"}
    for table in "ab":
        desk.run(f"INSERT INTO {table} (code, body) VALUES ('x', repeat('long text ', 2000))")
        take(feed)
        desk.run(f"UPDATE {table} SET code = 'y'", f"DELETE FROM {table}")
        assert take(feed)[0] == {table: {("x",), ("y",)}}
    desk.run("INSERT INTO c VALUES (1, 5, 'x')", "UPDATE c SET customer = 6", "UPDATE c SET body = 'y'")
    assert take(feed)[0] == {"c": {(5, 1), (6, 1)}}
    desk.run("ALTER TABLE a REPLICA IDENTITY DEFAULT")
    [(table, problem)] = problems(feed).items()
    assert table == "a"
    assert re.search("no old values of code of table a.*watch --setup", problem)


@pytest.mark.parametrize("statement", ["UPDATE c SET id = 9", "DELETE FROM c"])
def test_old_rows_without_the_watched_columns_mean_that_any_row_may_have_changed(desk, statement):
    desk.run("CREATE TABLE c (id integer PRIMARY KEY, customer integer)", "INSERT INTO c VALUES (1, 5)")
    feed = desk.set_up(WatchedTable("c", None, ("customer", "id"), None))
    desk.run("ALTER TABLE c REPLICA IDENTITY DEFAULT", statement)
    assert take(feed) == ({}, {"c"})


def test_a_long_key_that_did_not_change_is_known_from_the_old_row_or_not_at_all(desk):
    desk.run("CREATE TABLE long (id integer PRIMARY KEY, k text, n integer)")
    desk.run("ALTER TABLE long ALTER k SET STORAGE EXTERNAL")
    feed, key = desk.set_up(WatchedTable("long", None, ("k",), None)), "k" * 5000
    desk.run(f"INSERT INTO long VALUES (1, '{key}', 1)")
    take(feed)
    desk.run("UPDATE long SET n = 2")
    assert take(feed) == ({"long": {(key,)}}, set())
    desk.run("ALTER TABLE long REPLICA IDENTITY DEFAULT", "UPDATE long SET n = 3")
    assert take(feed) == ({}, {"long"})


def test_a_lost_slot_says_so_and_setting_up_again_compares_everything(desk):
    feed = desk.set_up(TICKET)
    desk.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    try:
        for _ in range(3):
            desk.run("INSERT INTO other (body) SELECT repeat('x', 2000) FROM generate_series(1, 9000)")
            desk.run("SELECT pg_switch_wal()", "CHECKPOINT")
        with pytest.raises(SourceError, match=r"slot rag_index_desk is lost.*watch --setup"):
            feed.rows(100)
        with pytest.raises(SettingsError, match="is lost"):
            feed.problems()
        steps = [step.sql for step in setup_for(desk.url, "wal", [TICKET], PROJECT).steps]
        assert any("pg_drop_replication_slot" in step for step in steps)
        desk.run("UPDATE ticket SET body = 'unseen' WHERE id = 1", *steps)
        assert take(feed) == ({}, {"ticket"})
        desk.run("UPDATE ticket SET body = 'seen' WHERE id = 2")
        assert ids(feed) == {2}
    finally:
        desk.run("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")


def test_what_is_missing_is_named(desk):
    desk.tables = (TICKET,)
    feed = desk.feed()
    with pytest.raises(SettingsError, match="the source has no slot rag_index_desk; run the SQL that `rag-index watch"):
        feed.problems()
    with pytest.raises(SourceError, match="no slot"):
        feed.rows(10)
    desk.run("SELECT pg_create_logical_replication_slot('rag_index_desk', 'pgoutput')")
    missing = "publication rag_index_desk is missing, or does not have all changes of table ticket; run the SQL"
    assert missing in problems(feed)["ticket"]
    desk.run("CREATE PUBLICATION rag_index_desk FOR TABLE ticket WITH (publish = 'insert')")
    assert missing in problems(feed)["ticket"]
    desk.run("ALTER PUBLICATION rag_index_desk SET (publish = 'insert, update, delete, truncate')")
    desk.run("CREATE VIEW seen AS SELECT * FROM ticket", "CREATE UNLOGGED TABLE quick (id integer PRIMARY KEY)")
    desk.tables = (TICKET, *(WatchedTable(name, None, ("id",), None) for name in ("missing", "seen", "quick")))
    said = problems(desk.feed())
    assert said.keys() == {"missing", "seen", "quick"}
    assert "there is no table 'missing'" in said["missing"]
    assert re.search("'seen' is a view.*depends_on", said["seen"])
    assert "'quick' is a table that is unlogged or temporary" in said["quick"]


@pytest.mark.parametrize("how", ["made again", "read by somebody else", "with another ledger", "with an older log"])
def test_a_slot_that_is_not_where_it_was_left_means_that_everything_may_have_changed(desk, how, tmp_path):
    feed = desk.set_up(TICKET)
    desk.run("UPDATE ticket SET body = 'seen' WHERE id = 1")
    assert ids(feed) == {1}
    assert take(desk.feed()) == ({}, set())  # a watch that begins again goes on where it was
    desk.run("UPDATE ticket SET body = 'lost' WHERE id = 2")
    if how == "with another ledger":
        take(feed)
        desk.ledger = Ledger(database_url(f"sqlite:///{tmp_path}/other.db", tmp_path))
        feed = desk.feed()
    elif how == "made again":
        desk.run(f"SELECT pg_drop_replication_slot('{SLOT}')")
        desk.run(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    elif how == "with an older log":
        take(feed)
        desk.ledger.remember_slot(SLOT, "FFFF/0")  # a position that the log of the server has not reached
        feed = desk.feed()
    else:
        options = "NULL, NULL, 'proto_version', '1', 'publication_names'"
        desk.run(f"SELECT count(*) FROM pg_logical_slot_get_binary_changes('{SLOT}', {options}, '{SLOT}')")
    assert take(feed) == ({}, {"ticket"})
    desk.run("UPDATE ticket SET body = 'seen again' WHERE id = 3")
    assert take(feed) == ({"ticket": {(3,)}}, set())


def test_a_watch_that_dies_while_it_acknowledges_gets_its_changes_again_and_need_not_compare_everything(desk):
    feed = desk.set_up(TICKET)
    desk.run("UPDATE ticket SET body = 'seen' WHERE id = 1")
    with mock.patch.object(Ledger, "remember_slot", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        take(feed)
    assert take(desk.feed()) == ({"ticket": {(1,)}}, set())


def test_what_others_write_into_the_log_means_nothing_and_stops_nothing(desk):
    """A batch of nothing but messages outside of transactions has no end of a transaction to move the slot to."""
    feed = desk.set_up(TICKET)
    emit = "SELECT pg_logical_emit_message({}, 'an application', 'x') FROM generate_series(1, 250)"
    with desk.session() as slow:
        slow.run("SELECT pg_replication_origin_create('elsewhere')")
        slow.run("SELECT pg_replication_origin_session_setup('elsewhere')")
        slow.run("BEGIN")
        slow.run("UPDATE ticket SET body = 'late' WHERE id = 1")
        desk.run(emit.format("false"), "UPDATE ticket SET body = 'soon' WHERE id = 2", emit.format("true"))
        assert take(feed, limit=100) == ({"ticket": {(2,)}}, set())
        slow.run("SELECT pg_logical_emit_message(false, 'an application', 'x')")
        slow.run("COMMIT")  # right behind a message, which is not skipped with it
        assert take(feed, limit=1) == ({"ticket": {(1,)}}, set())
        slow.run("SELECT pg_replication_origin_session_reset()")
        slow.run("SELECT pg_replication_origin_drop('elsewhere')")


@pytest.mark.parametrize("narrowed", ["ticket WHERE (id < 5)", "ticket (id)", "other"])
def test_a_publication_that_lacks_rows_or_columns_is_noticed(desk, narrowed):
    table = WatchedTable("ticket", None, ("body", "id"), None)
    feed = desk.set_up(table)
    assert problems(feed) == {}
    desk.run(f"ALTER PUBLICATION {SLOT} SET TABLE {narrowed}")
    assert "does not have all changes of table ticket" in problems(feed)["ticket"]
    desk.set_up(table)
    assert problems(feed) == {}


PARTITION = "CREATE TABLE {} PARTITION OF part FOR VALUES FROM ({}) TO ({})"


@pytest.mark.parametrize(
    "statement", ["TRUNCATE low", "DROP TABLE low", "ALTER TABLE part DETACH PARTITION low",
                  "ALTER TABLE part ATTACH PARTITION other FOR VALUES FROM (200) TO (300)"],
)  # fmt: skip
def test_a_partition_that_is_emptied_put_in_or_taken_out_has_all_compared_before_more_is_claimed(wal, statement):
    """The log tells nothing of it that concerns the table that is followed."""
    table = WatchedTable("part", None, ("id",))
    wal.run(
        "CREATE TABLE part (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)",
        PARTITION.format("low", 0, 100), PARTITION.format("high", 100, 200),
        "CREATE TABLE other (id integer PRIMARY KEY, body text)",
        "INSERT INTO part VALUES (1, 'one'), (101, 'two')", "INSERT INTO other VALUES (201, 'three')",
    )  # fmt: skip
    wal.set_up(table)
    feed = WalFeed(wal.url, [table], PROJECT, [RowRoute("notes", "part", ("id",))], ledger=wal.ledger)

    def look():
        received = feed.receive(10)
        feed.acknowledge(received)
        return received

    before = eventually(lambda: look().definitions)
    wal.run("UPDATE part SET body = 'x'")
    eventually(lambda: (found := look()).changes and found.definitions == before)
    wal.run(statement)
    assert eventually(lambda: (found := look()).through and found.definitions)["notes"] != before["notes"]
    feed.close()
