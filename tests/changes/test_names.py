"""Names: what `watch --setup` prints runs through each database's own client, whatever a name holds."""

import random
from contextlib import closing

import pytest

from rag_index.errors import SettingsError
from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.queues import open_queue
from rag_index.watch.changes.rows import WatchedTable, quoted
from tests.changes.databases import PROJECT, problems, removal, through_the_client

PROJECTS = ["Desk", "mein b\u00fcro", "d" * 60, "desk_b"]
HOSTILE = [
    "\\! touch {}", "\n\\! touch {}\n", "\n.shell touch {}\n", "a\nsystem touch {}\n", "\n\\. x\n", "';--\n", '";\n--',
    "$$ x", "$_$$__$", "`;\n", "*/ /*", "a\\", "\\'; x", "''", "\x1b[31m", "a\u2028b", "-- a\n;", "delimiter x\n",
    ":x :'y'",
]  # fmt: skip


def ours(followed):
    """Return the names of all that a project of ours made in a database."""
    statement = {
        "postgresql": "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal UNION SELECT proname::text FROM "
        "pg_proc WHERE prosrc LIKE '%rag_index%' UNION SELECT nspname::text FROM pg_namespace "
        "WHERE nspname = 'rag_index'",
        "sqlite": "SELECT name FROM sqlite_master WHERE sql LIKE '%rag_index%'",
    }.get(
        followed.dialect,
        "SELECT trigger_name FROM information_schema.triggers UNION "
        "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'rag_index%'",
    )
    with followed.session() as session:
        return [name for (name,) in session.run(statement)]


@pytest.mark.parametrize("followed", ["postgresql", "mariadb", "sqlite"], indirect=True)
@pytest.mark.parametrize("project", PROJECTS)
def test_the_application_writes_after_each_setup_and_after_the_removal(followed, project):
    """Another key, the same setup again, another project beside it, and a setup of an earlier version of this one."""
    followed.run("CREATE TABLE note (id integer PRIMARY KEY, code varchar(9) NOT NULL, body varchar(90))")
    numbers = iter(range(1, 99))

    def table(columns):
        return WatchedTable("note", None, columns, frozenset({"id", "code", "body"}))

    def has_all(columns, name):
        with closing(open_queue(followed.url, [table(columns)], name)) as feed:
            assert problems(feed) == {}

    def set_up(columns, name=project):
        through_the_client(followed.url, script := setup_for(followed.url, "queue", [table(columns)], name).script())
        has_all(columns, name)
        return writes(script)

    def writes(script):
        number = next(numbers)
        followed.run(
            f"INSERT INTO note VALUES ({number}, 'c', 'x')", f"UPDATE note SET code = 'd' WHERE id = {number}",
            f"UPDATE note SET id = {number + 1000} WHERE id = {number}", f"DELETE FROM note WHERE id = {number + 1000}",
        )  # fmt: skip
        return script

    other = set_up(("id",), "desk_b_c")
    for columns in (("code", "id"), ("id",), ("id",)):
        script = set_up(columns)
    through_the_client(followed.url, writes(removal(script)))
    has_all(("id",), "desk_b_c")  # the other project has its own
    set_up(("id",), "desk_b_c")
    through_the_client(followed.url, writes(removal(other)))
    writes("")
    assert ours(followed) == []


def hostile_name(rng, harm):
    """Return a name of one to three parts of characters of all kinds, or of what a client may take for a command."""
    kinds = [chr(number) for number in (*range(1, 128), 0x85, 0xA0, 0x200B, 0x202E, 0x2028, 0x20AC, 0x4E2D)]
    parts = [rng.choice(HOSTILE if rng.random() < 0.6 else kinds).replace("{}", str(harm)) for _ in range(3)]
    name = "".join(parts).replace("\r", "").encode()[:45].decode(errors="ignore")
    return f"{name.rstrip()}."  # MariaDB refuses blanks at the end


def test_a_name_is_no_command_and_no_other_name(followed, tmp_path):
    """Schema, table and columns are named alike; the script runs, does nothing else, and the feed gets the change."""
    rng, harm, sql = random.Random(35), tmp_path / "x", followed.dialect
    mark = '"' if sql in ("sqlite", "postgresql") else "`"
    for number in range(6):
        name, key, text = (f"{hostile_name(rng, harm)}{number}{kind}" for kind in "tkb")
        table, column, other = (quoted(one, mark) for one in (name, key, text))
        followed.run(f"CREATE TABLE {table} ({column} integer PRIMARY KEY, {other} varchar(90))")
        followed.run(f"INSERT INTO {table} VALUES (7, 'x')")
        watched = WatchedTable(name, None, (key,), frozenset({key, text}))
        script = setup_for(followed.url, followed.changes, [watched], PROJECT).script()
        through_the_client(followed.url, script)
        through_the_client(followed.url, script)
        followed.tables = [watched]
        feed = followed.feed()
        assert feed.problems() == {}
        feed.acknowledge(feed.rows(100))
        followed.run(f"UPDATE {table} SET {other} = 'y'")
        received = feed.rows(100)
        assert [(change.table, change.values) for change in received.changes] == [(watched, (7,))]
        through_the_client(followed.url, removal(script))
        assert not harm.exists()
        assert ours(followed) == []


def test_a_name_that_no_file_of_sql_keeps_is_refused():
    with pytest.raises(SettingsError, match=r"the name 'a\\rb' has a carriage return.*rename it"):
        quoted("a\rb")
