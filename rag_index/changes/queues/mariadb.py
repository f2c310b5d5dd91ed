"""The queue in MariaDB and MySQL: a table beside the others, and three row triggers for each watched table."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.changes.queues import FIRST_ROWS, SETUP, Queue, QueuedRow, require_columns
from rag_index.changes.rows import Step
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import Setup, WatchedTable

DELETE_ROWS = 1000
BINARY_TYPES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit"})
INTEGER_TYPES = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
COSTS = (
    "Each insert, delete, and update of a column that documents show adds a row to the queue, in the writer's own",
    "transaction. `benchmarks/watch_writers.py` measures such triggers.",
    "The queue grows while no watch runs; `rag-index doctor` tells.",
    "Columns that a trigger names can be renamed or dropped only after the trigger: remove, change, set up again.",
    "Not seen, since no trigger fires: rows that a foreign key deletes or updates by CASCADE or SET NULL, rows that a",
    "replica gets, TRUNCATE, and dropped or exchanged partitions. The nightly run sees these.",
    "With binary logging, CREATE TRIGGER may need the right SUPER or log_bin_trust_function_creators = 1.",
)
_COLUMNS = sa.text("""
    SELECT c.COLUMN_NAME, c.DATA_TYPE, t.TABLE_TYPE FROM information_schema.COLUMNS c
    JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)
    WHERE c.TABLE_SCHEMA = COALESCE(:schema, DATABASE()) AND c.TABLE_NAME = :name
""")
_TRIGGERS = sa.text("""
    SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS
    WHERE LEFT(TRIGGER_NAME, :length) = :prefix
""")
_MAY_SEE = sa.text("""
    SELECT 1 FROM (
        SELECT GRANTEE, PRIVILEGE_TYPE, '%' AS s, '%' AS t FROM information_schema.USER_PRIVILEGES UNION ALL
        SELECT GRANTEE, PRIVILEGE_TYPE, TABLE_SCHEMA, '%' FROM information_schema.SCHEMA_PRIVILEGES UNION ALL
        SELECT GRANTEE, PRIVILEGE_TYPE, TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLE_PRIVILEGES
    ) AS p
    WHERE PRIVILEGE_TYPE = 'TRIGGER' AND COALESCE(:schema, DATABASE()) LIKE s AND :name LIKE t
    AND GRANTEE = CONCAT("'", REPLACE(CURRENT_USER(), '@', "'@'"), "'") LIMIT 1
""")
"""Whether the user has the right to see the triggers of a table."""
_COMMENT = sa.text("""
    SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = :name
""")


class MariadbQueue(Queue):
    """The queue in MariaDB and MySQL, whose rows have numbers.

    Only a user with the right TRIGGER sees triggers. For others the queue's comment tells whether the triggers fit the
    settings, but not whether they are still there.
    """

    costs = COSTS

    def __init__(self, tables: Sequence[WatchedTable], project: str) -> None:
        super().__init__(tables, project)
        self._types: dict[WatchedTable, Sequence[str]] = {}
        self._last = 0

    def setup(self, connection: Connection) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""
        database = str(connection.scalar(sa.text("SELECT DATABASE()")))
        queue = f"{_quoted(database)}.{self._name}"
        user, _, host = str(connection.scalar(sa.text("SELECT CURRENT_USER()"))).rpartition("@")
        types = {table: self._column_types(connection, table) for table in self._watched}
        old = [f"DROP TRIGGER IF EXISTS {_quoted(schema)}.{name}" for schema, name, _ in self._present(connection)]
        own = [
            f"DROP TRIGGER IF EXISTS {_quoted(table.schema or database)}.{name}"
            for table in self._watched
            for name in self._names(table).values()
        ]
        steps = [
            *(Step(sql) for sql in dict.fromkeys([*old, *own])),
            Step(f"DROP TABLE IF EXISTS {queue}"),
            Step(
                f"CREATE TABLE {queue} (\n"
                "    id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,\n"
                "    source varchar(255) NOT NULL,\n    row_key longtext,\n"
                "    changed_at decimal(20, 6) NOT NULL\n"
                ") ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin "
                f"COMMENT = '{self._digest()}'",
                "The queue. A row without a key means that all of a table changed.",
            ),
            *(step for table in self._watched for step in self._triggers(table, types[table], database, queue)),
            Step(
                f"GRANT SELECT, DELETE ON {queue} TO {_text(user)}@{_text(host)}",
                "The user who reads the source empties the queue.",
            ),
            Step(
                f"INSERT INTO {queue} (id, source, changed_at) VALUES "
                "(UNIX_TIMESTAMP() * 1000, '', UNIX_TIMESTAMP(NOW(6)))",
                "No number of an earlier queue comes again.",
            ),
            Step(
                f"INSERT INTO {queue} (source, changed_at) VALUES "
                + ", ".join(f"({_text(str(table))}, UNIX_TIMESTAMP(NOW(6)))" for table in self._watched),
                FIRST_ROWS,
            ),
        ]
        position = f"INSERT INTO {queue} (source, changed_at) VALUES ('', UNIX_TIMESTAMP(NOW(6))) RETURNING id"
        return self._setup(steps, [*own, f"DROP TABLE {queue}"], position)

    def _check_queue(self, connection: Connection) -> None:
        if connection.scalar(_COMMENT, {"name": self._name}) is None:
            raise SettingsError(f"the source has no queue {self._name}, or its user may not read it; {SETUP}")

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        self._column_types(connection, table)
        if connection.scalar(_MAY_SEE, {"schema": table.schema, "name": table.name}):
            names = {name for _, name, of in self._present(connection) if of.lower() == table.name.lower()}
            return names.issuperset(self._names(table).values())
        return bool(connection.scalar(_COMMENT, {"name": self._name}) == self._digest())

    def read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        """Return at most `limit` rows of the queue."""
        statement = sa.text(f"SELECT id, source, row_key, changed_at FROM {self._name} ORDER BY id LIMIT :limit")
        rows = connection.execute(statement, {"limit": limit}).fetchall()
        self._last = rows[-1].id if rows else self._last
        return [self._read(connection, *row) for row in rows]

    def through(self, before: Any, rows: Sequence[QueuedRow]) -> str:
        """Return the number of the last row that was ever read. Numbers are given in the order of time.

        An application gets its number after its commit. If it is a lower one, these rows or earlier ones have all that
        the application committed.
        """
        return str(self._last or "")

    def delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows in one transaction, and no others."""
        statement = sa.text(f"DELETE FROM {self._name} WHERE id IN :ids").bindparams(
            sa.bindparam("ids", expanding=True)
        )
        connection = connection.execution_options(isolation_level="READ COMMITTED")  # locks no gaps, where writers add
        for start in range(0, len(tokens), DELETE_ROWS):
            connection.execute(statement, {"ids": list(tokens[start : start + DELETE_ROWS])})
        connection.commit()

    def _read(self, connection: Connection, number: int, source: str, key: str | None, changed_at: Any) -> QueuedRow:
        table = self._by_name.get(source)
        values = None
        if table is not None and key is not None:
            with suppress(SettingsError):  # the table is gone
                if table not in self._types:
                    types = self._column_types(connection, table)
                    self._types[table] = [types[name] for name in table.columns]
                values = tuple(map(_value, json.loads(key), self._types[table]))
        return QueuedRow(number, table, values, float(changed_at))

    def _column_types(self, connection: Connection, table: WatchedTable) -> dict[str, str]:
        """Return the type of each column. Raises SettingsError if the table cannot be followed."""
        rows = connection.execute(_COLUMNS, {"schema": table.schema, "name": table.name}).fetchall()
        if not rows:
            raise SettingsError(f"there is no table {str(table)!r} in the source whose changes could be followed")
        if rows[0][2] not in ("BASE TABLE", "SYSTEM VERSIONED"):
            raise SettingsError(
                f"{str(table)!r} is a view, whose changes cannot be followed: name its tables in depends_on"
            )
        types = {name: str(kind).lower() for name, kind, _ in rows}
        require_columns(table, types)
        return types

    def _present(self, connection: Connection) -> list[Any]:
        """Return the schema, the name and the table of each trigger that the user may see."""
        prefix = f"{self._name}_"
        return list(connection.execute(_TRIGGERS, {"length": len(prefix), "prefix": prefix}))

    def _digest(self) -> str:
        names = json.dumps([self._names(table) for table in sorted(self._watched, key=str)])
        return f"rag-index {hashlib.sha256(names.encode()).hexdigest()[:16]}"

    def _triggers(self, table: WatchedTable, types: Mapping[str, str], database: str, queue: str) -> Iterator[Step]:
        schema = _quoted(table.schema or database)
        into, name = f"INSERT INTO {queue} (source, row_key, changed_at)", _text(str(table))
        time = "UNIX_TIMESTAMP(NOW(6))"
        old, new = (_key(table.columns, types, row) for row in ("OLD", "NEW"))
        differs = "TRUE" if table.used is None else _differs(sorted({*table.used, *table.columns}))
        update = (
            f"SELECT {name}, {old}, {time} FROM DUAL WHERE {differs} UNION ALL "
            f"SELECT {name}, {new}, {time} FROM DUAL WHERE {_differs(table.columns)}"
        )
        bodies = {
            "insert": f"VALUES ({name}, {new}, {time})",
            "update": update,
            "delete": f"VALUES ({name}, {old}, {time})",
        }
        for kind, trigger in self._names(table).items():
            yield Step(
                f"CREATE TRIGGER {schema}.{trigger} AFTER {kind.upper()} ON {schema}.{_quoted(table.name)} "
                f"FOR EACH ROW\n    {into} {bodies[kind]}"
            )


def _key(columns: Sequence[str], types: Mapping[str, str], row: str) -> str:
    parts = [
        f"HEX({row}.{_quoted(name)})"
        if types[name] in BINARY_TYPES
        else f"CAST({row}.{_quoted(name)} AS CHAR CHARACTER SET utf8mb4)"
        for name in columns
    ]
    return f"JSON_ARRAY({', '.join(parts)})"


def _differs(columns: Sequence[str]) -> str:
    """Return the condition that a column differs, by its bytes: for most collations "a" equals "A"."""
    same = (f"CAST(OLD.{_quoted(name)} AS BINARY) <=> CAST(NEW.{_quoted(name)} AS BINARY)" for name in columns)
    return f"NOT ({' AND '.join(same)})"


def _value(text: str | None, kind: str) -> Any:
    """Return what the driver gives for a column of this type."""
    if text is None:
        return None
    if kind in BINARY_TYPES:
        return bytes.fromhex(text.zfill(len(text) + len(text) % 2))
    if kind in INTEGER_TYPES:
        return int(text)
    if kind == "decimal":
        return decimal.Decimal(text)
    if kind in ("float", "double"):
        return float(text)
    with suppress(ValueError):  # the driver, too, gives 0000-00-00 as a text
        if kind == "date":
            return dt.date.fromisoformat(text)
        if kind in ("datetime", "timestamp"):
            return dt.datetime.fromisoformat(text)
    return text


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
