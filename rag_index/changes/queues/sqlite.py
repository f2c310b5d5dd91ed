"""The queue in SQLite: a table in the same file, and triggers. Keys keep the type of their value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.changes.queues import FIRST_ROWS, SETUP, Queue, QueuedRow, require_columns
from rag_index.changes.rows import Step
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import Setup, WatchedTable

NOW = "(julianday('now') - 2440587.5) * 86400.0"
COSTS = (
    "Each insert, delete, and update of a column that documents show adds a row to the queue, in the writer's own",
    "transaction. `benchmarks/watch_writers.py` measures it; docs/performance.md has figures.",
    "The watch deletes these rows in short transactions of its own: the file and its folder must be writable for it,",
    "and writers need a busy timeout, as beside any other writer. The other tables are only read.",
    "The queue grows while no watch runs; `rag-index doctor` tells.",
)
_POSITION = "SELECT seq FROM sqlite_sequence WHERE name = :name"
_OBJECTS = sa.text("SELECT name, type, tbl_name FROM sqlite_master WHERE type IN ('table', 'view', 'trigger')")


class SqliteQueue(Queue):
    """The queue in SQLite, whose rows have numbers."""

    kinds = ("insert", "update", "delete", "replace", "replace2")
    costs = COSTS

    def __init__(self, tables: Sequence[WatchedTable], project: str) -> None:
        super().__init__(tables, project)
        self._width = max((len(table.columns) for table in tables), default=1)
        self._keys = ", ".join(f"key{number}" for number in range(1, self._width + 1))

    def setup(self, connection: Connection) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""
        objects = connection.execute(_OBJECTS).fetchall()
        old = [name for name, kind, _ in objects if kind == "trigger" and name.startswith(f"{self._name}_")]
        triggers = [step for table in self._watched for step in self._triggers(connection, table)]
        own = [sql.split()[2] for sql, _ in triggers]
        names = ", ".join(f"('{_escaped(str(table))}', 1, {NOW})" for table in self._watched)
        steps = [
            Step("BEGIN IMMEDIATE"),
            *(Step(f"DROP TRIGGER IF EXISTS {name}") for name in dict.fromkeys([*old, *own])),
            Step(f"DROP TABLE IF EXISTS {self._name}"),
            Step(
                f"CREATE TABLE {self._name} (\n"
                "    id INTEGER PRIMARY KEY AUTOINCREMENT,\n    source TEXT NOT NULL,\n"
                f"    whole INTEGER NOT NULL DEFAULT 0,\n    changed_at REAL NOT NULL,\n    {self._keys}\n)",
                "The queue. A row with whole = 1 means that all of a table changed.",
            ),
            *(Step(sql, reason) for sql, reason in triggers),
            Step(
                f"INSERT INTO sqlite_sequence (name, seq) VALUES ('{self._name}', "
                "CAST(strftime('%s', 'now') AS INTEGER) * 1000)",
                "No number of an earlier queue comes again.",
            ),
            Step(
                f"INSERT INTO {self._name} (source, whole, changed_at) VALUES {names}",
                FIRST_ROWS,
            ),
            Step("COMMIT"),
        ]
        removal = [*(f"DROP TRIGGER {name}" for name in own), f"DROP TABLE {self._name}"]
        return self._setup(steps, removal, _POSITION.replace(":name", f"'{self._name}'"))

    def _check_queue(self, connection: Connection) -> None:
        columns = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({self._name})")}
        if not columns:
            raise SettingsError(f"the source has no queue {self._name}; {SETUP}")
        if f"key{self._width}" not in columns:
            raise SettingsError(
                f"the queue {self._name} has too few columns for the keys of the settings; {SETUP} again"
            )

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        wanted = {sql.split()[2] for sql, _ in self._triggers(connection, table)}
        objects = connection.execute(_OBJECTS).fetchall()
        return wanted <= {name for name, kind, of in objects if kind == "trigger" and of == table.name}

    def read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        """Return at most `limit` rows of the queue."""
        statement = f"SELECT id, source, whole, changed_at, {self._keys} FROM {self._name} ORDER BY id LIMIT :limit"
        found = []
        for number, source, whole, changed_at, *keys in connection.execute(sa.text(statement), {"limit": limit}):
            table = self._by_name.get(source)
            values = None if whole or table is None else tuple(keys[: len(table.columns)])
            found.append(QueuedRow(number, table, values, changed_at))
        return found

    def before(self, connection: Connection) -> Any:
        """Return the last number that was given, before the rows are read: writers come one after the other."""
        return connection.scalar(sa.text(_POSITION), {"name": self._name})

    def through(self, before: Any, rows: Sequence[QueuedRow]) -> str:
        """Return the last number that was given."""
        return str(before or "")

    def delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows. Numbers are never used again (AUTOINCREMENT), so a row deleted twice is no other row."""
        connection.execute(sa.text(f"DELETE FROM {self._name} WHERE id = :id"), [{"id": token} for token in tokens])
        connection.commit()

    def _triggers(self, connection: Connection, table: WatchedTable) -> Iterator[tuple[str, str]]:
        """Yield the statements that make the triggers of a table, each with its reason."""
        name = _quoted(table.name)
        columns = connection.exec_driver_sql(f"PRAGMA table_info({name})").fetchall()
        kind = connection.scalar(sa.text("SELECT type FROM sqlite_master WHERE name = :name"), {"name": table.name})
        if kind != "table":
            what = "is a view" if kind == "view" else "does not exist"
            raise SettingsError(f"table {str(table)!r} {what}, so its changes cannot be followed; see depends_on")
        require_columns(table, (column[1] for column in columns))
        names = self._names(table)
        begin = f"INSERT INTO {self._name} (source, changed_at, {self._key_names(table)})"
        old, new, same_row = (self._select(table, row) for row in ("OLD.", "NEW.", ""))
        create = f"CREATE TRIGGER {{}} AFTER {{}} ON {name}"
        yield f"{create.format(names['insert'], 'INSERT')} BEGIN\n    {begin} {new};\nEND", f"Changes of {table}."
        yield f"{create.format(names['delete'], 'DELETE')} BEGIN\n    {begin} {old};\nEND", ""
        when = "" if table.used is None else f" WHEN {_differs(sorted({*table.used, *table.columns}))}"
        moved = f"{begin} {new} WHERE {_differs(table.columns)};"
        yield f"{create.format(names['update'], 'UPDATE')}{when} BEGIN\n    {begin} {old};\n    {moved}\nEND", ""
        keys = _other_keys(connection, table, columns)
        if keys:
            conflicts = " OR ".join(
                "(" + " AND ".join(f"{_quoted(c)} = NEW.{_quoted(c)}" for c in key) + ")" for key in keys
            )
            body = f"BEGIN\n    {begin} {same_row} FROM {name} WHERE {conflicts};\nEND"
            reason = "REPLACE deletes rows that have the same value in another unique column, and fires no trigger."
            yield f"CREATE TRIGGER {names['replace']} BEFORE INSERT ON {name} {body}", reason
            changed = _differs(sorted({column for key in keys for column in key}))
            yield f"CREATE TRIGGER {names['replace2']} BEFORE UPDATE ON {name} WHEN {changed} {body}", ""

    def _key_names(self, table: WatchedTable) -> str:
        return ", ".join(f"key{number}" for number in range(1, len(table.columns) + 1))

    def _select(self, table: WatchedTable, row: str) -> str:
        values = ", ".join(f"{row}{_quoted(name)}" for name in table.columns)
        return f"SELECT '{_escaped(str(table))}', {NOW}, {values}"


def _other_keys(connection: Connection, table: WatchedTable, columns: Sequence[Any]) -> list[list[str]]:
    """Return the unique keys of a table, except one of the watched columns: its rows are noted anyway."""
    keys = [[column[1] for column in sorted(columns, key=lambda column: column[5]) if column[5]]]
    for _, index, unique, *_rest in connection.exec_driver_sql(f"PRAGMA index_list({_quoted(table.name)})").fetchall():
        found = [row[2] for row in connection.exec_driver_sql(f"PRAGMA index_info({_quoted(index)})")]
        if unique and None not in found:
            keys.append(found)
    return [
        key for number, key in enumerate(keys) if key and set(key) != set(table.columns) and key not in keys[:number]
    ]


def _differs(columns: Sequence[str]) -> str:
    """Return the condition that a column differs in its bytes or its type: for NOCASE, "a" equals "A"."""
    parts = [
        f"OLD.{name} IS NOT NEW.{name} COLLATE BINARY OR typeof(OLD.{name}) <> typeof(NEW.{name})"
        for name in map(_quoted, columns)
    ]
    return f"({' OR '.join(parts)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(text: str) -> str:
    return text.replace("'", "''")
