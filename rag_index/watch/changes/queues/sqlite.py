"""The queue in SQLite: a table in the same file, and triggers. Keys keep the type of their value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.watch.changes.queues import QueuedRow, QueueFeed
from rag_index.watch.changes.rows import Step, literal, quoted

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rag_index.watch.changes.rows import WatchedTable

_TRIGGERS = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND instr(sql, :put)")
_INDEX = sa.text("SELECT sql FROM sqlite_master WHERE type = 'index' AND name = :name")
_WITHOUT_ROWID = sa.text("SELECT wr FROM pragma_table_list WHERE name = :name COLLATE NOCASE AND schema = 'main'")
_TOKENS = re.compile(
    r"""'(?:[^']|'')*+(?:'|\Z)|"(?:[^"]|"")*+(?:"|\Z)|`(?:[^`]|``)*+(?:`|\Z)|\[[^\]]*+\]?|--[^\n]*+|/\*.*?(?:\*/|\Z)|\w++|.""",
    re.DOTALL,
)
"""The words of a statement: texts, names, comments and single characters."""
_ORDER = re.compile("asc|desc", re.IGNORECASE)
_KIND = sa.text("SELECT type FROM sqlite_master WHERE name = :name AND type IN ('table', 'view')")


class SqliteQueue(QueueFeed):
    """The queue in SQLite, whose rows have numbers."""

    kinds = ("insert", "update", "delete", "replace", "replace2")
    digits = 3
    unseen = """\
The watch deletes these rows in short transactions of its own: the file and its folder must be writable for it,
and writers need a busy timeout, as beside any other writer. The other tables are only read.
"""
    begin = (Step("BEGIN IMMEDIATE"),)
    first_number = "CAST(strftime('%s', 'now') AS INTEGER) * 1000"

    def _old(self, connection: Connection) -> Iterable[str]:
        there = [quoted(name) for name, _ in connection.execute(_TRIGGERS, {"put": self._put})]
        own = [quoted(name) for table in self.tables for name in self._names(table).values()]
        return (f"DROP TRIGGER IF EXISTS {name}" for name in [*there, *own])

    def _create(self) -> str:
        keys = ", ".join(f"key{number}" for number in range(max(len(table.columns) for table in self.tables)))
        return (
            f"CREATE TABLE {self.name} (\n    id INTEGER PRIMARY KEY AUTOINCREMENT,\n    source TEXT NOT NULL,\n"
            "    whole INTEGER NOT NULL DEFAULT 1,\n"
            f"    changed_at REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0),\n    {keys}\n)"
        )

    def _types(self, connection: Connection, table: WatchedTable) -> dict[str, Any]:
        columns = connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(table.name)})").fetchall()
        found = {column[1]: column[4] if column[3] else None for column in columns}
        table.require(connection.scalar(_KIND, {"name": table.name}), found)
        return found

    def _triggers(self, connection: Connection, table: WatchedTable) -> Iterator[Step]:
        columns, names, on = self._types(connection, table), self._names(table), quoted(table.name)
        numbered = ", ".join(f"key{number}" for number in range(len(table.columns)))
        put = f"{self._put}source, whole, {numbered}) SELECT {literal(str(table), 'sqlite')}, 0, "
        old, new, same = (
            put + ", ".join(f"{row}{quoted(name)}" for name in table.columns) for row in ("OLD.", "NEW.", "")
        )
        when = "" if table.used is None else f" WHEN {_differs(sorted({*table.used, *table.columns}))}"
        done = {
            "insert": ("AFTER INSERT", [new]),
            "delete": ("AFTER DELETE", [old]),
            "update": ("AFTER UPDATE", [old, f"{new} WHERE {_differs(table.columns)}"]),
        }
        # REPLACE deletes rows that are equal in another unique key, and fires no trigger
        times = ("replace", "BEFORE INSERT"), ("replace2", "BEFORE UPDATE")
        for (kind, at), replaced in zip(times, _replaced(connection, table, columns), strict=True):
            if replaced:
                done[kind] = at, [f"{same} FROM {on} WHERE {one}" for one in replaced]
        for kind, (at, bodies) in done.items():
            condition = when if kind == "update" else ""
            body = "".join(f"    {one};\n" for one in bodies)
            yield Step(
                f"CREATE TRIGGER {quoted(names[kind])} {at} ON {on}{condition} BEGIN\n{body}END",
                f"Changes of {table}." if kind == "insert" else "",
            )

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        there = {sql for _, sql in connection.execute(_TRIGGERS, {"put": self._put})}
        return there.issuperset(step.sql for step in self._triggers(connection, table))

    def _position(self) -> str:
        return f"SELECT id || '@' || printf('%.3f', changed_at) FROM {self.name} ORDER BY id DESC LIMIT 1"

    def _read(self, connection: Connection, limit: int, where: str = "", **given: Any) -> list[QueuedRow]:
        found = connection.execute(sa.text(f"SELECT * FROM {self.name} {where} ORDER BY id LIMIT {limit:d}"), given)
        return [
            QueuedRow(
                number, source, None if whole else self._key(source, keys), changed_at, self._place(number, changed_at)
            )
            for number, source, whole, changed_at, *keys in found
        ]

    def _delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows. Numbers are never used again (AUTOINCREMENT), so a row deleted twice is no other row."""
        statement = sa.text(f"DELETE FROM {self.name} WHERE id IN :ids").bindparams(sa.bindparam("ids", expanding=True))
        connection.execute(statement, {"ids": list(tokens)})

    def _key(self, source: str, keys: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(keys[: len(self._by_name[source].columns)]) if source in self._by_name else ()


def _replaced(connection: Connection, table: WatchedTable, columns: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return conditions for rows that an insert, and an update, may replace: they equal NEW in a unique key. A key is
    compared as its index does, with its collations, expressions and condition: on both sides stand its terms as the
    index has them, once about a row of the table, and once about a row of the same columns that NEW is."""
    on, ask = quoted(table.name), connection.exec_driver_sql
    new = {name: f"NEW.{quoted(name)}" for name in columns}
    new |= {name: f"coalesce({new[name]}, {default})" for name, default in columns.items() if default is not None}
    keys, primary = [], ""
    for _, index, unique, origin, *_rest in ask(f"PRAGMA index_list({on})").fetchall():
        parts = [row for row in ask(f"PRAGMA index_xinfo({quoted(index)})") if row[5]]
        terms, condition = ", ".join(f"{quoted(row[2])} COLLATE {quoted(row[4])}" for row in parts if row[2]), ""
        if sql := connection.scalar(_INDEX, {"name": index}):
            terms, condition = index_terms(sql)
        if unique:
            keys.append((terms, condition))
        if origin == "pk":
            primary = " AND ".join(
                f"{quoted(row[2])} IS OLD.{quoted(row[2])} COLLATE {quoted(row[4])}" for row in parts
            )
    updated, own = keys, primary
    if not connection.scalar(_WITHOUT_ROWID, {"name": table.name}):
        rowid = next(name for name in ("rowid", "_rowid_", "oid") if name not in map(str.lower, columns))
        updated, own, new[rowid] = [*keys, (rowid, "")], f"{rowid} = OLD.{rowid}", f"NEW.{rowid}"
        named = [row[1] for row in ask(f"PRAGMA table_xinfo({on})") if row[5]]
        keys = keys if named == [*table.columns] and not primary else updated  # such a row has the key of NEW
    source = f"(SELECT {', '.join(f'{value} AS {quoted(name)}' for name, value in new.items())})"
    equal = {key: f"({key[0]}) = (SELECT {key[0]} FROM {source}){key[1]}" for key in updated}
    return [equal[key] for key in keys], [f"{one} AND NOT ({own})" for one in equal.values()]


def index_terms(sql: str) -> tuple[str, str]:
    """Return the terms of an index, and its condition as ` AND (…)`, from the statement that made it."""
    depth, start, end = 0, 0, 0
    for token in _TOKENS.finditer(sql):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if token[0] == "(" and depth == 1 and not start:
            start = token.end()
        elif token[0] == ")" and depth == 0:
            end = token.start()
            break
    condition = re.match(r"\)\s*WHERE\b(.*)", sql[end:], re.IGNORECASE | re.DOTALL)
    plain = "".join("" if _ORDER.fullmatch(token[0]) else token[0] for token in _TOKENS.finditer(sql[start:end]))
    return plain, f" AND ({condition[1]}\n)" if condition else ""


def _differs(columns: Sequence[str]) -> str:
    """Return the condition that a column differs in its bytes or its type: for NOCASE, "a" equals "A"."""
    parts = [
        f"OLD.{name} IS NOT NEW.{name} COLLATE BINARY OR typeof(OLD.{name}) <> typeof(NEW.{name})"
        for name in map(quoted, columns)
    ]
    return f"({' OR '.join(parts)})"
