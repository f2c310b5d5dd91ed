"""The queue in SQLite: a table in the same file, and triggers. Keys keep the type of their value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.changes.queues import QueuedRow, QueueFeed, text
from rag_index.changes.rows import Step, WatchedTable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import Connection

_TRIGGERS = sa.text("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'")
_KIND = sa.text("SELECT type FROM sqlite_master WHERE name = :name AND type IN ('table', 'view')")


class SqliteQueue(QueueFeed):
    """The queue in SQLite, whose rows have numbers."""

    kinds = ("insert", "update", "delete", "replace", "replace2")
    unseen = """\
The watch deletes these rows in short transactions of its own: the file and its folder must be writable for it,
and writers need a busy timeout, as beside any other writer. The other tables are only read.
"""
    begin = (Step("BEGIN IMMEDIATE"),)
    first_number = "CAST(strftime('%s', 'now') AS INTEGER) * 1000"

    def _old(self, connection: Connection) -> Iterable[str]:
        there = [name for name, _ in connection.execute(_TRIGGERS) if name.startswith(f"{self.name}_")]
        own = [name for table in self.tables for name in self._names(table).values()]
        return (f"DROP TRIGGER IF EXISTS {name}" for name in [*there, *own])

    def _create(self) -> str:
        keys = ", ".join(f"key{number}" for number in range(max(len(table.columns) for table in self.tables)))
        return (
            f"CREATE TABLE {self.name} (\n    id INTEGER PRIMARY KEY AUTOINCREMENT,\n    source TEXT NOT NULL,\n"
            "    whole INTEGER NOT NULL DEFAULT 1,\n"
            f"    changed_at REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0),\n    {keys}\n)"
        )

    def _types(self, connection: Connection, table: WatchedTable) -> dict[str, Any]:
        """Return whether each column belongs to the primary key. Raises SettingsError, as in other databases."""
        columns = connection.exec_driver_sql(f"PRAGMA table_info({quoted(table.name)})").fetchall()
        found = {column[1]: bool(column[5]) for column in columns}
        table.require(connection.scalar(_KIND, {"name": table.name}), found)
        return found

    def _triggers(self, connection: Connection, table: WatchedTable) -> Iterator[Step]:
        columns = self._types(connection, table)
        keys = _other_keys(connection, table, {name for name, is_key in columns.items() if is_key})
        names, on = self._names(table), quoted(table.name)
        numbered = ", ".join(f"key{number}" for number in range(len(table.columns)))
        put = f"INSERT INTO {self.name} (source, whole, {numbered}) SELECT {text(str(table))}, 0, "
        old, new, same = (
            put + ", ".join(f"{row}{quoted(name)}" for name in table.columns) for row in ("OLD.", "NEW.", "")
        )
        when = "" if table.used is None else f" WHEN {_differs(sorted({*table.used, *table.columns}))}"
        done = {
            "insert": ("AFTER INSERT", f"{new};"),
            "delete": ("AFTER DELETE", f"{old};"),
            "update": ("AFTER UPDATE", f"{old};\n    {new} WHERE {_differs(table.columns)};"),
        }
        if keys:  # REPLACE deletes rows that have the same value in another unique column, and fires no trigger
            same += f" FROM {on} WHERE " + " OR ".join(
                "(" + " AND ".join(f"{quoted(c)} = NEW.{quoted(c)}" for c in key) + ")" for key in keys
            )
            done |= {"replace": ("BEFORE INSERT", f"{same};"), "replace2": ("BEFORE UPDATE", f"{same};")}
        whens = {"update": when, "replace2": f" WHEN {_differs(sorted({c for key in keys for c in key}))}"}
        for kind, (at, body) in done.items():
            yield Step(
                f"CREATE TRIGGER {names[kind]} {at} ON {on}{whens.get(kind, '')} BEGIN\n    {body}\nEND",
                f"Changes of {table}." if kind == "insert" else "",
            )

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        wanted = {step.sql.split()[2] for step in self._triggers(connection, table)}
        return wanted <= {name for name, of in connection.execute(_TRIGGERS) if of == table.name}

    def _position(self) -> str:
        return f"SELECT seq FROM sqlite_sequence WHERE name = '{self.name}'"

    def _end(self, connection: Connection) -> str:
        """Return the last number that was given: writers come one after the other."""
        return str(connection.scalar(sa.text(self._position())) or "")

    def _read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        found = connection.execute(sa.text(f"SELECT * FROM {self.name} ORDER BY id LIMIT {limit:d}"))
        return [
            QueuedRow(number, source, None if whole else self._key(source, keys), changed_at)
            for number, source, whole, changed_at, *keys in found
        ]

    def _delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows. Numbers are never used again (AUTOINCREMENT), so a row deleted twice is no other row."""
        statement = sa.text(f"DELETE FROM {self.name} WHERE id IN :ids").bindparams(sa.bindparam("ids", expanding=True))
        connection.execute(statement, {"ids": list(tokens)})

    def _key(self, source: str, keys: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(keys[: len(self._by_name[source].columns)]) if source in self._by_name else ()


def _other_keys(connection: Connection, table: WatchedTable, primary: set[str]) -> list[list[str]]:
    """Return the unique keys of a table, except one of the watched columns: its rows are noted anyway."""
    keys = {frozenset(primary)}
    for _, index, unique, *_rest in connection.exec_driver_sql(f"PRAGMA index_list({quoted(table.name)})").fetchall():
        if unique:
            keys.add(frozenset(row[2] for row in connection.exec_driver_sql(f"PRAGMA index_info({quoted(index)})")))
    return sorted(sorted(key) for key in keys - {frozenset(), frozenset(table.columns)} if None not in key)


def _differs(columns: Sequence[str]) -> str:
    """Return the condition that a column differs in its bytes or its type: for NOCASE, "a" equals "A"."""
    parts = [
        f"OLD.{name} IS NOT NEW.{name} COLLATE BINARY OR typeof(OLD.{name}) <> typeof(NEW.{name})"
        for name in map(quoted, columns)
    ]
    return f"({' OR '.join(parts)})"
