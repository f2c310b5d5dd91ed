"""SQLite: whatever statement changes rows, the queue has them, also those that REPLACE and foreign keys delete."""

import random
import sqlite3

import pytest

from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.rows import WatchedTable
from tests.changes.databases import PROJECT

STATEMENTS = 400
IDS, NAMES, BODIES = list(range(1, 7)), ["a", "A", "b", "B ", 1, 1.0, None, "\u00e4"], ["one", "two", "three"]
ROWID, ON = "id integer primary key, name text, body text", "create unique index u on t"
CASCADE = "references t(id) on delete cascade on update cascade"
TABLES = {
    "unique": "create table t(id integer primary key, name text unique, body text)",
    "no type": "create table t(id integer primary key, name unique, body)",
    "the key has no type": "create table t(id primary key, name, body)",
    "collation": f"create table t({ROWID}); {ON}(name collate nocase desc)",
    "collation of the column": f"create table t(id integer primary key, name text collate nocase, body); {ON}(name)",
    "key of any case": f"create table t(id text collate nocase primary key, name unique, body); {ON}(id)",
    "trimmed": "create table t(id integer primary key, name text collate rtrim unique, body)",
    "expression": f"create table t({ROWID}); {ON}(lower(name) asc, /* , */ substr(body, 1, 1))",
    "expression with a text": f"create table t({ROWID}); {ON}(coalesce(name, 'b)' || \"body\") collate nocase)",
    "partial": f"create table t({ROWID}); {ON}(name) where body <> 'one' -- or not",
    "key without case": "create table t(id text collate nocase primary key, name, body) without rowid",
    "key of two": "create table t(id, name, body, primary key (name, id)) without rowid",
    "default": "create table t(id integer primary key, name text not null default 'a' unique, body text)",
    "generated": f"create table t({ROWID}, made text as (lower(name)) stored unique)",
    "computed": f"create table t({ROWID}, made text as (lower(name)) virtual); {ON}(made, body)",
    "refers to itself": f"create table t(id integer primary key, name integer {CASCADE}, body text unique)",
    "no key": "create table t(id integer, name text, body text unique)",
    "a column is named rowid": "create table t(id integer unique, name text, body text, rowid text unique)",
}  # fmt: skip


def statement(rng, names):
    """Return a random statement and its values."""
    row = [rng.choice(IDS), rng.choice(names), rng.choice(BODIES)]
    column, insert = rng.choice(["id", "name", "body"]), "into t(id, name, body) values (?, ?, ?)"
    value = dict(zip(("id", "name", "body"), row, strict=True))[column]
    chosen = rng.choice(IDS)
    return rng.choice([
        (f"insert or replace {insert}", row), (f"insert or ignore {insert}", row),
        (f"insert {insert} on conflict do update set body = excluded.body", row), (f"replace {insert}", row),
        ("insert or replace into t(name, body) values (?, ?)", row[1:]), (f"insert {insert}", row),
        (f"update or replace t set {column} = ? where id = ?", [value, chosen]),
        (f"update or ignore t set {column} = ?", [value]),
        ("update or replace t set id = id + 1 where id > ?", [chosen]),
        ("update or replace t set name = upper(name), body = ? where id < ?", [row[2], chosen]),
        ("update or replace t set rowid = ? where id = ?", [chosen, row[0]]), ("delete from t where id = ?", [chosen]),
    ])  # fmt: skip


@pytest.mark.parametrize("columns", [("id",), ("body",)], ids=" ".join)
@pytest.mark.parametrize("name", TABLES)
def test_no_row_is_changed_without_a_note(sqlite_file, name, columns):
    with sqlite3.connect(sqlite_file.database, isolation_level=None) as db:
        db.executescript(f"pragma synchronous = off; pragma foreign_keys = on; {TABLES[name]}")
        watched = WatchedTable("t", None, columns, frozenset({"id", "name", "body"}))
        db.executescript(setup_for(sqlite_file, "queue", [watched], PROJECT).script())
        rng, names = random.Random(4), [*IDS, None] if "refer" in name else NAMES

        def rows():
            found = {}
            for key, *row in db.execute(f"select {columns[0]}, id, name, body from t"):
                found.setdefault((key, type(key)), []).append(repr(row))
            return {key: sorted(some) for key, some in found.items()}

        before, done = rows(), 0
        for _ in range(STATEMENTS):
            sql, values = statement(rng, names)
            db.execute("delete from rag_index_desk")
            try:
                db.execute(sql, values)
            except (sqlite3.IntegrityError, sqlite3.OperationalError):  # some tables have no rowid
                continue
            after, done = rows(), done + 1
            changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            noted = {(key, type(key)) for (key,) in db.execute("select key0 from rag_index_desk")}
            assert changed <= noted, (sql, values)
            before = after
        assert done > STATEMENTS / 3
