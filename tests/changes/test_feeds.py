"""Feeds of the log and of queues, all on real databases: what changed is received, and nothing is lost."""

import time

import pytest

from rag_index.components.ledger.tables import Position, parse_position
from rag_index.errors import SourceUnavailable
from rag_index.watch.changes.rows import WatchedTable, connected, definition
from tests.changes.databases import TICKET, Clock, ids, problems, take, waiting_for_a_standby
from tests.waiting import eventually

CUSTOMER = WatchedTable("customer", None, ("id",), None)
TABLE = "CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(2000), seen integer)"
NOW = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mariadb": "SELECT UNIX_TIMESTAMP(NOW(6))",
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
}


@pytest.fixture
def tickets(followed):
    """A table of three tickets that is followed."""
    followed.run(TABLE, "INSERT INTO ticket VALUES (1, 'one', 0), (2, 'two', 0), (3, 'three', 0)")
    followed.feed_ = followed.set_up(TICKET)
    return followed


def test_inserts_updates_deletes_and_changes_of_key(tickets):
    feed = tickets.feed_
    assert ids(feed) == set()
    with tickets.session() as session:
        [[before]] = session.run(NOW[tickets.dialect])
        session.run("UPDATE ticket SET body = 'x' WHERE id = 1")
        [[after]] = session.run(NOW[tickets.dialect])
        [change] = feed.rows(10).changes
        assert float(before) - 0.01 <= change.changed_at <= float(after) + 0.01
        session.run("INSERT INTO ticket VALUES (4, 'four', 0), (5, 'five', 0)")
        assert ids(feed) == {1, 4, 5}
        session.run("DELETE FROM ticket WHERE id IN (2, 5)")
        assert ids(feed) == {2, 5}
        session.run("UPDATE ticket SET id = 30 WHERE id = 3")
        assert ids(feed) == {3, 30}
        for statement in (
            "BEGIN", "UPDATE ticket SET body = 'y' WHERE id = 1", "SAVEPOINT s", "DELETE FROM ticket",
            "ROLLBACK TO SAVEPOINT s", "COMMIT", "BEGIN", "DELETE FROM ticket", "ROLLBACK",
        ):  # fmt: skip
            session.run(statement)
        assert ids(feed) == {1}
    if tickets.changes == "queue":
        tickets.run("UPDATE ticket SET seen = seen + 1", "UPDATE ticket SET body = body")
        assert ids(tickets.feed_) == set()  # no document shows these
        tickets.run("UPDATE ticket SET seen = 7, body = 'Y' WHERE id = 1")  # "y" for a collation that ignores case
        assert ids(tickets.feed_) == {1}


def test_waiting_ends_when_something_changes(tickets):
    feed = tickets.feed_
    assert ids(feed) == set()
    feed.wait(0.3)
    tickets.run("UPDATE ticket SET body = 'x' WHERE id = 1")
    feed.wait(600)  # would exceed the time limit of the test
    assert ids(feed) == {1}


@pytest.mark.parametrize("followed", ["sqlite"], indirect=True)
def test_a_queue_rests_after_a_reading_that_found_something(tickets, monkeypatch):
    """What changes all the time is read together."""
    feed = tickets.feed(clock=(clock := Clock(monkeypatch)))
    for number in range(2):
        tickets.run(f"UPDATE ticket SET body = 'x{number}' WHERE id = 1")
        feed.acknowledge(feed.rows(100))
        tickets.run(f"UPDATE ticket SET body = 'y{number}' WHERE id = 2")
        assert 0.15 < clock.waited(feed) < 1
    assert (ids(feed), ids(feed)) == ({2}, set())
    tickets.run("UPDATE ticket SET body = 'z' WHERE id = 3")
    assert clock.waited(feed) < 0.1  # nothing was found before: it waits for nothing


def test_names_are_quoted_and_keys_have_several_columns(followed):
    quote = "`" if followed.dialect == "mariadb" else '"'
    name, a, b = (f"{quote}{one}{quote}" for one in ("Odd 'table'", "Key A", "order"))
    followed.run(
        f"CREATE TABLE {name} ({a} varchar(40) NOT NULL, {b} integer NOT NULL, body text, PRIMARY KEY ({a}, {b}))",
        f"INSERT INTO {name} VALUES ('it''s; \\\\ x', 1, 'x')",
    )
    feed = followed.set_up(WatchedTable("Odd 'table'", None, ("Key A", "order"), None))
    followed.run(f"UPDATE {name} SET {b} = 2", f"INSERT INTO {name} VALUES ('ü🖨', 7, 'x')")
    with followed.session() as session:
        [[kept]] = session.run(f"SELECT {a} FROM {name} WHERE {b} = 2")
    assert take(feed)[0] == {"Odd 'table'": {(kept, 1), (kept, 2), ("ü🖨", 7)}}


TYPES = {
    "postgresql": {
        "integer": "7", "bigint": "-9000000000", "text": "'a:b'", "uuid": "'0e37df36-f698-11e6-8dd4-cb9ced3df976'",
        "numeric(12, 3)": "12.500", "timestamp": "'2026-03-04 05:06:07.089'", "date": "'2026-03-04'",
        "timestamptz": "'2026-03-04 05:06:07+03'", "bytea": "'\\x00ff61'", "boolean": "true", "char(5)": "'ab'",
        "double precision": "0.1", "color": "'red'", "small": "5",
    },
    "mariadb": {
        "int": "7", "bigint unsigned": "18000000000000000000", "varchar(20)": "'a:b'", "decimal(12, 3)": "12.500",
        "datetime(6)": "'2026-03-04 05:06:07.089000'", "datetime": "'2026-03-04 05:06:07'", "date": "'2026-03-04'",
        "timestamp(6)": "'2026-03-04 05:06:07.089'", "timestamp": "'2026-03-04 05:06:07'",
        "binary(4)": "X'00ff6100'", "varbinary(9)": "X'0aff'", "char(5)": "'ab'", "enum('red', 'blue')": "'red'",
        "double": "0.1", "varchar(9) CHARACTER SET latin1": "'ü'",
    },
    "sqlite": {
        "integer": "7", "text": "'a:b'", "blob": "X'00ff61'", "real": "0.1", "numeric": "12.5", "anything": "'7'",
        "datetime": "'2026-03-04 05:06:07'",
    },
}  # fmt: skip


def test_keys_have_the_value_that_reading_the_row_gives(followed):
    kinds = TYPES[followed.dialect]
    if followed.dialect == "postgresql":
        followed.run("CREATE TYPE color AS ENUM ('red', 'blue')", "CREATE DOMAIN small AS integer CHECK (VALUE < 10)")
    tables = []
    for number, kind in enumerate(kinds):
        followed.run(f"CREATE TABLE t{number} (k {kind} NOT NULL PRIMARY KEY, body varchar(9))")
        tables.append(WatchedTable(f"t{number}", None, ("k",), frozenset({"k", "body"})))
    feed = followed.set_up(*tables)
    expected = {}
    with followed.session() as session:
        if followed.dialect == "postgresql":
            for setting in ("TimeZone = 'Asia/Kolkata'", "DateStyle = 'German'", "bytea_output = 'escape'"):
                session.run(f"SET {setting}")
        if followed.dialect == "mariadb":
            session.run("SET time_zone = '+05:30'")
        for number, value in enumerate(kinds.values()):
            session.run(f"INSERT INTO t{number} VALUES ({value}, 'x')")
    with feed._engine.connect() as connection:
        for number in range(len(kinds)):
            [key] = connection.exec_driver_sql(f"SELECT k FROM t{number}").fetchone()
            expected[f"t{number}"] = {(key,)}
    found, overflow = take(feed)
    assert found == expected
    assert not overflow
    types = {name: type(next(iter(keys))[0]) for name, keys in found.items()}
    assert types == {name: type(next(iter(keys))[0]) for name, keys in expected.items()}


@pytest.mark.parametrize("followed", ["wal", "postgresql"], indirect=True)  # a server that a test can stop
def test_a_database_that_goes_down_and_comes_back_loses_nothing(tickets):
    feed = tickets.feed_
    assert ids(feed) == set()
    feed.wait(0.1)
    tickets.run("UPDATE ticket SET body = 'x' WHERE id = 1")
    received = feed.rows(100)
    tickets.server.stop()
    try:
        with pytest.raises(SourceUnavailable):
            feed.acknowledge(received)
        feed.wait(0.3)  # raises nothing
        with pytest.raises(SourceUnavailable):
            feed.rows(100)
    finally:
        tickets.server.start()
    tickets.run("DELETE FROM ticket WHERE id = 2")
    assert ids(feed) == {1, 2}


@pytest.mark.parametrize("followed", ["wal", "postgresql"], indirect=True)
def test_a_commit_that_readers_do_not_see_yet_is_neither_given_nor_claimed(tickets):
    with tickets.session() as session:
        with waiting_for_a_standby(tickets, session, "UPDATE ticket SET body = 'y' WHERE id = 1"):
            received = tickets.feed_.rows(100)
        [[learned]] = session.run(tickets.position)
    assert (received.changes, received.position) == ([], None)
    if tickets.changes == "wal":
        assert received.through is None
    else:
        assert parse_position(received.through.text) < parse_position(str(learned))
    assert ids(tickets.feed_) == {1}


@pytest.mark.parametrize("kept", ["gone for good", "made again"])
def test_a_table_that_is_gone_is_named_and_the_others_go_on(followed, kept):
    """One that is swapped by a rename keeps its name, and the old one keeps publication and triggers."""
    followed.run(TABLE, "CREATE TABLE customer (id integer PRIMARY KEY)", "INSERT INTO ticket VALUES (1, 'one', 0)")
    feed = followed.set_up(TICKET, CUSTOMER)
    assert problems(feed) == {}
    followed.run("UPDATE ticket SET body = 'not received yet' WHERE id = 1")
    if kept == "made again":
        followed.run("ALTER TABLE ticket RENAME TO gone", TABLE)
    else:
        followed.run("DROP TABLE ticket")
    followed.run("INSERT INTO customer VALUES (7)")
    for received_from in (feed, followed.feed()):
        [(table, problem)] = problems(received_from).items()
        assert table == "ticket"
        assert "setup" in problem or "ticket" in problem
        assert received_from.rows(100).changes
    changed, overflow = take(feed)
    assert changed["customer"] == {(7,)}
    assert overflow <= {"ticket"}  # which of its rows changed cannot be read any more
    if kept == "made again":
        followed.set_up(TICKET, CUSTOMER)
        assert problems(feed) == {}
        followed.run("INSERT INTO ticket VALUES (2, 'two', 0)")
        assert take(feed)[0] == {"ticket": {(2,)}}


def test_a_feed_claims_all_that_was_committed_and_nothing_that_is_committed_later(tickets, monkeypatch):
    """Also nothing that is committed while it looks, after it has read what there is."""
    feed = tickets.feed_
    read, committed, received = feed._read, [], set()

    def commit(key):
        began = time.time()
        tickets.run(f"UPDATE ticket SET body = '{began}' WHERE id = {key}")
        with tickets.session() as application:
            committed.append((parse_position(str(application.run(tickets.position)[0][0])), key, began))

    def claim(limit=100):
        got = feed.rows(limit)
        received.update(change.values[0] for change in got.changes)
        feed.acknowledge(got)
        through = got.through or Position(0.0)
        claimed = parse_position(through.text) if through.text else ("", 0)
        assert {key for at, key, began in committed if claimed >= at or through.at >= began} <= received
        return claimed

    commit(1)
    eventually(lambda: claim() >= committed[0][0])
    before = claim()
    commit(2)
    assert before < committed[1][0]
    monkeypatch.setattr(
        feed, "_read", lambda *given, **more: (read(*given, **more), len(committed) < 3 and commit(3))[0]
    )
    assert claim() < committed[2][0]
    eventually(lambda: claim() >= committed[2][0])
    assert received == {1, 2, 3}
    received.clear()
    committed.clear()
    for key in (1, 2, 3):
        commit(key)
    eventually(lambda: claim(1) >= committed[2][0])  # it claims nothing while it has more to give


RESET = {
    "mariadb": "ALTER TABLE {} AUTO_INCREMENT = 1",
    "sqlite": "UPDATE sqlite_sequence SET seq = 0 WHERE name = '{}'",
}


@pytest.mark.parametrize("followed", ["postgresql", "mariadb", "sqlite"], indirect=True)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_queue_that_was_put_back_to_an_older_copy_has_all_compared_once(tickets, restarted):
    """Also if the change after that gets the number of one that was read and is gone."""
    feed, queue = tickets.feed_, tickets.feed_.named
    tickets.run("UPDATE ticket SET body = 'x' WHERE id = 1")
    assert ids(feed) == {1}
    with tickets.session() as session:
        copy = session.run(f"SELECT * FROM {queue}")
        session.run("UPDATE ticket SET body = 'abandoned' WHERE id = 2")
        assert ids(feed) == {2}
        session.run(f"DELETE FROM {queue}")
        for row in copy:
            marks = ", ".join(["?" if tickets.dialect == "sqlite" else "%s"] * len(row))
            session.run(f"INSERT INTO {queue} VALUES ({marks})", *row)
        session.run(RESET[tickets.dialect].format(queue)) if tickets.dialect in RESET else None
        session.run("UPDATE ticket SET body = 'y' WHERE id = 3")
    feed = tickets.feed() if restarted else feed
    found, overflow = take(feed)
    assert (found["ticket"] & {(2,)}, overflow) == (set(), {"ticket"})
    tickets.run("UPDATE ticket SET body = 'z' WHERE id = 1")
    assert ids(feed) == {1}


def test_a_table_is_another_one_after_statements_that_make_other_values(followed):
    """The statements write no rows that a trigger or the log would tell of; the others change no value."""
    add = "ADD COLUMN body varchar(90) DEFAULT 'x'"
    ours = ["ALTER TABLE ticket RENAME COLUMN body TO old", f"ALTER TABLE ticket {add}"]
    others = ["UPDATE ticket SET body = 'y'", "CREATE TABLE other (id integer)", "DELETE FROM ticket"]
    again = f"ALTER TABLE ticket DROP COLUMN body, {add}"
    if followed.dialect != "sqlite":
        ours += [again]
    if followed.dialect in ("sqlite", "postgresql"):
        others += ["CREATE INDEX by_body ON ticket (body)"]
    if followed.dialect == "postgresql":
        ours += ["ALTER TABLE ticket ALTER body TYPE varchar(90) USING upper(body)"]
        ours += ["ALTER TABLE ticket ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON ticket USING (id < 3)"]
        others += ["ALTER TABLE ticket ADD COLUMN more integer", "VACUUM FULL ticket", "ANALYZE ticket"]
    ours += ["ALTER TABLE ticket RENAME TO gone", "CREATE TABLE ticket AS SELECT * FROM gone"]
    followed.run(TABLE)
    found = []
    with connected(followed.url, "the tables") as connection:
        for statement in (*others, *ours):
            before = definition(connection, [TICKET])
            if statement == again and followed.dialect != "postgresql":
                time.sleep(1.1)  # MariaDB tells the second in which a table was altered
            followed.run(statement)
            connection.rollback()
            found.append((statement, definition(connection, [TICKET]) != before))
    assert [statement for statement, differs in found if differs] == ours
