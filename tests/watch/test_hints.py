"""What a hint says: "nothing" never, if a reader sees anything else than at the look before."""

import os
import random
import shutil
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from rag_index.components.sources import hints as hints_module
from rag_index.components.sources.hints import Hints, Moved
from rag_index.core.settings import load_settings
from tests.live.mariadb import MariadbServer, find_mariadb
from tests.live.postgres import PostgresServer, find_postgres
from tests.live.sessions import Session, new_database
from tests.waiting import eventually

SETTINGS = """\
project = "desk"
[source]
url = "{url}"
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
text = "body"
"""
BEGIN = {"sqlite": "BEGIN IMMEDIATE"}
SEED = random.SystemRandom().randrange(1_000_000)
SERVERS = pytest.mark.parametrize("desk", ["postgresql", "mariadb"], indirect=True)
"""SQLite has no commits of two phases, and tells nothing of single tables."""
REPLAYED = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"


class Desk:
    """A database with tickets, and the hint of it."""

    def __init__(self, url, folder):
        self.url, self.folder, self.kind = url, folder, url.get_backend_name()
        self.config = folder / "rag-index.toml"
        self.config.write_text(SETTINGS.format(url=url.render_as_string(hide_password=False)))
        self.run(
            "CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(200))",
            "CREATE TABLE other (id integer PRIMARY KEY, body varchar(200))",
            "INSERT INTO ticket VALUES (1, 'first'), (2, 'first')",
        )
        self.settings = load_settings(self.config)
        self.hints = Hints(self.settings, self.settings.indexes)

    def session(self):
        return closing(Session(self.url))

    def run(self, *statements):
        with self.session() as session:
            for statement in statements:
                session.run(statement)

    def rows(self):
        with self.session() as session:
            return sorted(map(tuple, session.run("SELECT id, body FROM ticket")))

    def look(self):
        return self.hints.look()["tickets"]

    def moved(self, before):
        return self.hints.moved("tickets", before, self.look())

    def quiet(self):
        """Return a look that the next one equals: what a server does by itself after a start has
        ended."""
        return eventually(lambda: (one := self.look()) and self.moved(one) == Moved.NO and one)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def desk(request, tmp_path):
    with new_database(request.param, request, tmp_path, "hinted") as url:
        desk = Desk(url, tmp_path)
        yield desk
        desk.hints.close()


def test_what_is_committed_is_seen_also_late_and_what_is_rolled_back_costs_no_more_than_a_run(desk):
    before = desk.quiet()
    desk.run("UPDATE ticket SET body = 'second' WHERE id = 1")
    assert desk.moved(before) != Moved.NO
    with desk.session() as late:
        late.run(BEGIN.get(desk.kind, "BEGIN"))
        late.run("UPDATE ticket SET body = 'third' WHERE id = 1")
        before = desk.quiet()
        late.run("COMMIT")
        assert desk.moved(before) != Moved.NO
    assert (1, "third") in desk.rows()


@pytest.mark.parametrize("desk", ["postgresql"], indirect=True)
@pytest.mark.parametrize("looks", [1, 3], ids=["a moment", "longer"])
def test_a_database_that_is_away_while_it_is_restored_is_asked_again(desk, looks, monkeypatch):
    """What a look said before is no longer true then: the database of that name is another one."""
    before = desk.quiet()
    name, owner = desk.url.database, closing(Session(desk.url.set(database="postgres")))
    with owner as session:
        desk.hints.close()
        session.run(f"ALTER DATABASE {name} RENAME TO {name}_away")
        try:
            for _ in range(looks):
                assert desk.moved(before) == Moved.YES
            assert ("tickets" in desk.hints.blind) == (looks > 1)
        finally:
            session.run(f"ALTER DATABASE {name}_away RENAME TO {name}")
    monkeypatch.setattr(hints_module, "BLIND_SECONDS", 0.0)
    desk.hints._retry_at = None if looks == 1 else 0.0
    assert desk.moved(before) != Moved.NO
    assert desk.hints.blind == {}
    desk.quiet()


def test_a_deletion_a_change_of_a_key_a_truncated_table_and_a_rename_are_seen(desk):
    truncate = "DELETE FROM ticket" if desk.kind == "sqlite" else "TRUNCATE TABLE ticket"
    delete, move = "DELETE FROM ticket WHERE id = 2", "UPDATE ticket SET id = 7 WHERE id = 1"
    for statement in (delete, move, truncate, "ALTER TABLE ticket RENAME TO gone"):
        before = desk.quiet()
        desk.run(statement)
        assert desk.moved(before) != Moved.NO, statement
        if desk.kind == "postgresql":  # whose counters do not tell of TRUNCATE
            eventually(lambda before=before: desk.moved(before) == Moved.YES, statement, every=0.1)


def read_as_plain_reader(desk):
    """Let the hints read with a user of MariaDB that has the right to read the database, and no
    other."""
    name = desk.url.database
    desk.run(
        "CREATE OR REPLACE USER hints_reader@'127.0.0.1' IDENTIFIED BY 'only reads'",
        f"GRANT SELECT ON {name}.* TO hints_reader@'127.0.0.1'",
    )
    owner = desk.url.render_as_string(hide_password=False)
    reader = desk.url.set(username="hints_reader", password="only reads").render_as_string(
        hide_password=False
    )
    desk.hints.close()
    desk.config.write_text(desk.config.read_text().replace(owner, reader))
    desk.settings = load_settings(desk.config)
    desk.hints = Hints(desk.settings, desk.settings.indexes)


def test_a_view_that_is_replaced_counts_as_written(desk):
    for statement in (
        "CREATE VIEW shown AS SELECT id, body FROM ticket",
        "DROP VIEW shown",
        "CREATE VIEW shown AS SELECT id, body FROM ticket WHERE id = 1",
        "DROP VIEW shown",
    ):
        before = desk.quiet()
        desk.run(statement)
        assert desk.moved(before) != Moved.NO, statement


@pytest.mark.parametrize("desk", ["mariadb"], indirect=True)
def test_a_plain_reader_of_mariadb_sees_that_a_view_or_a_function_is_replaced(desk):
    read_as_plain_reader(desk)
    view = "VIEW shown AS SELECT id, concat(prefix(), body) AS body FROM ticket"
    function = "FUNCTION prefix() RETURNS varchar(20) DETERMINISTIC RETURN"
    procedure = f"PROCEDURE migrate() BEGIN CREATE OR REPLACE {view}; END"
    desk.run("CREATE DATABASE IF NOT EXISTS hinted_beside")
    for statement in (
        f"CREATE {function} 'first '",
        f"CREATE {view}",
        f"CREATE OR REPLACE {function} 'second '",
        "ALTER FUNCTION prefix SQL SECURITY INVOKER",
        f"CREATE OR REPLACE {view}",
        f"ALTER {view}",
        "RENAME TABLE shown TO hidden",
        "RENAME TABLE hidden TO shown",
        f"CREATE {procedure}",
        "CALL migrate()",
        f"EXECUTE IMMEDIATE 'CREATE OR REPLACE {view}'",
        f"BEGIN NOT ATOMIC CREATE OR REPLACE {view}; END",
        "CREATE VIEW hinted_beside.shown AS SELECT 1",
        "DROP DATABASE hinted_beside",
        "DROP PROCEDURE migrate",
        "DROP FUNCTION prefix",
        "DROP VIEW shown",
    ):
        before = desk.quiet()
        desk.run(statement)
        assert desk.moved(before) != Moved.NO, statement


@pytest.mark.parametrize("desk", ["mariadb"], indirect=True)
@pytest.mark.parametrize(
    "lock", [["FLUSH TABLES WITH READ LOCK"], ["BACKUP STAGE START", "BACKUP STAGE BLOCK_DDL"]]
)
def test_a_view_whose_replacement_waits_for_a_backup_counts_as_written_when_it_takes_effect(
    desk, lock
):
    desk.run("CREATE VIEW shown AS SELECT id, body FROM ticket")
    read_as_plain_reader(desk)
    statement = "CREATE OR REPLACE VIEW shown AS SELECT id, 'replaced' AS body FROM ticket"
    replacement = threading.Thread(target=desk.run, args=(statement,), daemon=True)
    with desk.session() as backup, desk.session() as reader:
        for step in lock:
            backup.run(step)
        begun = desk.quiet()
        replacement.start()
        eventually(
            lambda: desk.moved(begun) != Moved.NO, "the server counts the statement that waits"
        )
        before = desk.quiet()
        assert reader.run("SELECT body FROM shown WHERE id = 1") == (("first",),)
        backup.run("BACKUP STAGE END" if "BACKUP" in lock[0] else "UNLOCK TABLES")
        replacement.join()
        assert reader.run("SELECT body FROM shown WHERE id = 1") == (("replaced",),)
    assert desk.moved(before) != Moved.NO


@pytest.mark.parametrize("desk", ["mariadb"], indirect=True)
def test_counters_that_begin_again_count_as_written(desk):
    before = desk.quiet()
    time.sleep(1.1)  # the server tells in whole seconds when they began
    desk.run("FLUSH STATUS")
    assert desk.moved(before) != Moved.NO


def test_a_mariadb_server_that_restarts_counts_as_written(own_mariadb, tmp_path):
    from tests.reliability.chaos.desk import crash

    desk = Desk(own_mariadb.url, tmp_path)
    desk.run("CREATE VIEW shown AS SELECT id, body FROM ticket")
    before = desk.quiet()
    crash(own_mariadb)
    assert desk.moved(before) == Moved.YES
    before = desk.quiet()
    desk.run("CREATE OR REPLACE VIEW shown AS SELECT id, 'replaced' AS body FROM ticket")
    assert desk.moved(before) != Moved.NO
    desk.hints.close()


@pytest.mark.parametrize("desk", ["postgresql"], indirect=True)
def test_a_function_of_postgresql_that_is_replaced_counts_as_written(desk):
    function = "FUNCTION prefix() RETURNS text LANGUAGE sql AS"
    for statement in (
        f"CREATE {function} $$ SELECT 'first' $$",
        f"CREATE OR REPLACE {function} $$ SELECT 'second' $$",
        "ALTER FUNCTION prefix() SECURITY DEFINER",
        "DROP FUNCTION prefix()",
    ):
        before = desk.quiet()
        desk.run(statement)
        assert desk.moved(before) != Moved.NO, statement


@SERVERS
def test_two_phases_are_seen_when_the_second_has_ended(desk):
    with desk.session() as session:
        xa = desk.kind == "mariadb"
        session.run("XA START 'one'" if xa else "BEGIN")
        session.run("UPDATE ticket SET body = 'prepared' WHERE id = 1")
        for statement in (
            ["XA END 'one'", "XA PREPARE 'one'"] if xa else ["PREPARE TRANSACTION 'one'"]
        ):
            session.run(statement)
        before = desk.quiet()
        assert (1, "first") in desk.rows()
        session.run("XA COMMIT 'one'" if xa else "COMMIT PREPARED 'one'")
    assert desk.moved(before) != Moved.NO
    assert (1, "prepared") in desk.rows()


@SERVERS
def test_writes_to_other_tables_begin_no_run_at_once(desk):
    eventually(
        lambda: desk.look().tables == desk.look().tables, every=0.2
    )  # times of whole seconds, and late counters
    before = desk.quiet()
    desk.run("INSERT INTO other VALUES (1, 'nothing of ours')")
    assert desk.moved(before) == Moved.PERHAPS


@pytest.mark.parametrize("desk", ["postgresql"], indirect=True)
def test_rows_of_inheriting_tables_and_of_partitions_count_as_those_of_the_table(desk):
    desk.run("CREATE TABLE urgent () INHERITS (ticket)")
    before = desk.quiet()
    desk.run("INSERT INTO urgent VALUES (9, 'inherited')")
    assert desk.moved(before) != Moved.NO
    eventually(lambda: desk.moved(before) == Moved.YES, every=0.2)


@pytest.mark.parametrize("desk", ["sqlite"], indirect=True)
def test_another_file_of_the_same_name_counts_as_written(desk):
    before, file = desk.quiet(), desk.url.database
    shutil.copy(file, f"{file}.new")
    Path(f"{file}.new").replace(file)
    assert desk.moved(before) == Moved.YES
    before = desk.quiet()
    desk.run("UPDATE ticket SET body = 'in the new file' WHERE id = 1")
    assert desk.moved(before) == Moved.YES


@pytest.fixture
def own_server():
    """A PostgreSQL server that a test may end."""
    programs = find_postgres()
    if isinstance(programs, str):
        pytest.skip(programs)
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture
def own_mariadb():
    """A MariaDB server that a test may end."""
    programs = find_mariadb()
    if isinstance(programs, str):
        pytest.skip(programs)
    with MariadbServer(*programs) as server:
        yield server


def test_a_database_that_restarts_counts_as_written(own_server, tmp_path):
    from tests.reliability.chaos.desk import crash

    with own_server.database() as name:
        desk = Desk(own_server.url(name), tmp_path)
        before = desk.quiet()
        crash(own_server)
        assert desk.moved(before) == Moved.YES
        before = desk.quiet()
        desk.run("UPDATE ticket SET body = 'after the restart' WHERE id = 1")
        assert desk.moved(before) != Moved.NO
        desk.hints.close()


@pytest.mark.long
def test_what_a_standby_has_replayed_is_seen(own_server, tmp_path):
    with own_server.database() as name:
        desk = Desk(own_server.url(name), tmp_path)
        desk.hints.close()
        with own_server.standby() as standby:
            text = desk.config.read_text().replace(f":{own_server.port}/", f":{standby.port}/")
            desk.config.write_text(text)
            settings = load_settings(desk.config)
            desk.hints = Hints(settings, settings.indexes)
            with closing(Session(standby.url(name))) as reader, desk.session() as late:
                late.run("BEGIN")
                late.run("INSERT INTO ticket VALUES (3, 'late')")
                for number in range(20):
                    before, rows = (
                        desk.look(),
                        reader.run("SELECT id, body FROM ticket ORDER BY id"),
                    )
                    what = (
                        "UPDATE ticket SET body = '{0}' WHERE id = 1",
                        "INSERT INTO ticket VALUES (1{0}, 'new')",
                        "DELETE FROM ticket WHERE id = 2",
                        "TRUNCATE other",
                    )[number % 4]
                    late.run("COMMIT") if number == 10 else desk.run(what.format(number))
                    eventually(lambda: reader.run(REPLAYED, server_position(own_server))[0][0])
                    if reader.run("SELECT id, body FROM ticket ORDER BY id") != rows:
                        assert desk.moved(before) != Moved.NO, number
            desk.hints.close()


def server_position(server):
    with server.connect() as connection:
        return connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()[0]


class Random(threading.Thread):
    """Transactions at random: some late, some rolled back."""

    def __init__(self, desk, number, count):
        super().__init__(daemon=True)
        self._desk, self._chance, self._count, self._number = (
            desk,
            random.Random(f"{SEED} {number}"),
            count,
            number,
        )

    def run(self):
        chance, done = self._chance, 0
        with self._desk.session() as session:
            while done < self._count:
                try:
                    session.run(BEGIN.get(self._desk.kind, "BEGIN"))
                    for _ in range(chance.choice([1, 1, 3])):
                        number = 10 + 10 * chance.randrange(20) + self._number
                        session.run(f"DELETE FROM ticket WHERE id = {number}")
                        if chance.random() < 0.5:
                            session.run(
                                f"INSERT INTO ticket VALUES ({number}, '{chance.random()}')"
                            )
                    threading.Event().wait(chance.choice([0, 0, 0.002, 0.02]))
                    session.run("ROLLBACK" if chance.random() < 0.2 else "COMMIT")
                    done += 1
                except Exception:  # a lock, a deadlock
                    with suppress(Exception):
                        session.run("ROLLBACK")


def test_nothing_is_said_of_no_random_transaction(desk):
    """A reader that reads again only when the hint says so has what the database has."""
    print(f"seed {SEED}")
    writers = [Random(desk, number, 40) for number in range(3)]
    for writer in writers:
        writer.start()
    seen, known, wrong = None, None, []
    while any(writer.is_alive() for writer in writers) or seen is None:
        look = desk.look()
        if seen is None or desk.hints.moved("tickets", seen, look) != Moved.NO:
            seen, known = look, desk.rows()
            continue
        now = desk.rows()
        if now != known and desk.moved(seen) == Moved.NO:
            wrong.append((known, now))
    assert not wrong
    assert desk.moved(seen) != Moved.NO or desk.rows() == known


def test_files_are_seen_by_their_listing_and_a_file_that_may_change_within_its_time_counts_as_written(
    tmp_path,
):
    (tmp_path / "code").mkdir()
    file, config = tmp_path / "code" / "pump.py", tmp_path / "rag-index.toml"
    file.write_text("def pump(): pass")
    config.write_text('[[indexes]]\nname = "code"\nkind = "code"\nroot = "code"\n')
    settings = load_settings(config)
    with closing(Hints(settings, settings.indexes)) as hints:
        before = hints.look()["code"]
        assert (
            hints.moved("code", before, eventually(lambda: changed(hints, before))) == Moved.YES
        ), "it is too recent"
        old = time.time() - 60
        os.utime(file, (old, old))
        eventually(
            lambda: hints.moved("code", hints.look()["code"], hints.look()["code"]) == Moved.NO
        )
        before = eventually(lambda: settled(hints))
        (tmp_path / "code" / "valve.py").write_text("def valve(): pass")
        assert eventually(lambda: hints.moved("code", before, hints.look()["code"])) == Moved.YES


def changed(hints, before):
    return (look := hints.look()["code"]).folder is not before.folder and look


def settled(hints):
    look = hints.look()["code"]
    later = eventually(lambda: changed(hints, look))
    return later if later.folder == look.folder else None


def test_a_database_without_a_hint_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.delitem(hints_module.DATABASES, "sqlite")
    Session(url := URL.create("sqlite", database=str(tmp_path / "desk.db"))).close()
    desk = Desk(url, tmp_path)
    assert desk.hints.blind == {"tickets": "its database does not tell when it was last written"}
