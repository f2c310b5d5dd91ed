"""The queue in MariaDB and MySQL: a table beside the others, and three row triggers for each watched table."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.watch.changes.queues import QueuedRow, QueueFeed
from rag_index.watch.changes.rows import Step, literal, quoted

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rag_index.watch.changes.rows import WatchedTable

BINARY_TYPES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit"})
INTEGER_TYPES = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - the driver gives UTC without a zone
READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(BINARY_TYPES, lambda digits: bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))),
    **dict.fromkeys(INTEGER_TYPES, int),
    "datetime": dt.datetime.fromisoformat,
    "timestamp": lambda seconds: EPOCH + dt.timedelta(microseconds=int(decimal.Decimal(seconds) * 10**6)),
    "decimal": decimal.Decimal, "float": float, "double": float, "date": dt.date.fromisoformat,
}  # fmt: skip
"""What turns the text of a value into what the driver gives, by the type of its column; others stay texts."""
_COLUMNS = sa.text("""
    SELECT c.COLUMN_NAME, c.DATA_TYPE, t.TABLE_TYPE FROM information_schema.COLUMNS c
    JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)
    WHERE c.TABLE_SCHEMA = COALESCE(:schema, DATABASE()) AND c.TABLE_NAME = :name
""")
_TRIGGERS = sa.text("""
    SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS
    WHERE LOCATE(:put, ACTION_STATEMENT) = 1
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
_quoted = partial(quoted, mark="`")


class MariadbQueue(QueueFeed):
    """The queue in MariaDB and MySQL, whose rows have numbers. Only a user with the right TRIGGER sees triggers. For
    others the queue's comment tells whether the triggers fit the settings, but not whether they are still there."""

    unseen = """\
Not seen, since no trigger fires: rows that a foreign key deletes or updates by CASCADE or SET NULL, rows that a
replica gets, TRUNCATE, and dropped or exchanged partitions. The nightly run sees these.
With binary logging, CREATE TRIGGER may need the right SUPER or log_bin_trust_function_creators = 1.
"""
    first_number = "UNIX_TIMESTAMP() * 1000"

    @property
    def named(self) -> str:
        """Return the name of the queue for the statements of a setup: triggers may be in other databases."""
        return f"{_quoted(str(self.url.database))}.{self.name}"

    def _old(self, connection: Connection) -> Iterable[str]:
        there = [f"{_quoted(schema)}.{_quoted(name)}" for schema, name, _ in self._present(connection)]
        own = [
            f"{self._schema(table)}.{_quoted(name)}" for table in self.tables for name in self._names(table).values()
        ]
        return (f"DROP TRIGGER IF EXISTS {name}" for name in [*there, *own])

    def _create(self) -> str:
        return (
            f"CREATE TABLE {self.named} (\n    id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,\n"
            "    source varchar(255) NOT NULL,\n    row_key longtext,\n"
            "    changed_at decimal(20, 6) NOT NULL DEFAULT (UNIX_TIMESTAMP(NOW(6)))\n"
            f") ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin COMMENT = '{self._digest()}'"
        )

    def _triggers(self, connection: Connection, table: WatchedTable) -> Iterator[Step]:
        types, schema = self._types(connection, table), self._schema(table)
        name = literal(str(table), "mysql")
        old, new = (f"SELECT {name}, {_key(table.columns, types, row)} FROM DUAL" for row in ("OLD", "NEW"))
        differs = "TRUE" if table.used is None else _differs(sorted({*table.used, *table.columns}))
        bodies = {
            "insert": new,
            "update": f"{old} WHERE {differs} UNION ALL {new} WHERE {_differs(table.columns)}",
            "delete": old,
        }
        for kind, name in self._names(table).items():
            yield Step(
                f"CREATE TRIGGER {schema}.{_quoted(name)} AFTER {kind.upper()}\n"
                f"    ON {schema}.{_quoted(table.name)} FOR EACH ROW\n    {self._put}source, row_key) {bodies[kind]}"
            )

    def _rights(self, connection: Connection) -> Iterator[Step]:
        user, _, host = str(connection.scalar(sa.text("SELECT CURRENT_USER()"))).rpartition("@")
        sql = f"GRANT SELECT, DELETE ON {self.named} TO {literal(user, 'mysql')}@{literal(host, 'mysql')}"
        yield Step(sql, "The user who reads the source empties the queue.")

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        self._types(connection, table)
        if connection.scalar(_MAY_SEE, {"schema": table.schema, "name": table.name}):
            names = {name for _, name, of in self._present(connection) if of.lower() == table.name.lower()}
            return names.issuperset(self._names(table).values())
        return bool(connection.scalar(_COMMENT, {"name": self.name}) == self._digest())

    def _position(self) -> str:
        return f"INSERT INTO {self.named} (source) VALUES ('') RETURNING CONCAT(id, '@', changed_at)"

    def _read(self, connection: Connection, limit: int, where: str = "", **given: Any) -> list[QueuedRow]:
        columns = f"SELECT id, source, row_key, changed_at FROM {self.name}"
        rows = connection.execute(sa.text(f"{columns} {where} ORDER BY id LIMIT {limit:d}"), given).fetchall()
        typed = {source: self._watched_types(connection, source) for source in {row.source for row in rows}}
        return [
            QueuedRow(number, source, _values(key, typed[source]), float(at), self._place(number, float(at)))
            for number, source, key, at in rows
        ]

    def _delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows one by one: `id IN (…)` may read all rows, and wait for those of open transactions."""
        numbers = " UNION ALL ".join(f"SELECT {number:d} AS id" for number in tokens)
        statement = f"DELETE q FROM ({numbers}) AS k STRAIGHT_JOIN {self.name} q ON q.id = k.id"
        connection.execute(sa.text(statement))

    def _types(self, connection: Connection, table: WatchedTable) -> dict[str, str]:
        rows = connection.execute(_COLUMNS, {"schema": table.schema, "name": table.name}).fetchall()
        kind = ("view" if "VIEW" in rows[0].TABLE_TYPE else "table") if rows else None
        types = {name: str(kind).lower() for name, kind, _ in rows}
        table.require(kind, types)
        return types

    def _present(self, connection: Connection) -> list[Any]:
        return list(connection.execute(_TRIGGERS, {"put": self._put}))

    def _schema(self, table: WatchedTable) -> str:
        return _quoted(table.schema or str(self.url.database))

    def _digest(self) -> str:
        names = json.dumps([self._names(table) for table in sorted(self.tables, key=str)])
        return f"rag-index {hashlib.sha256(names.encode()).hexdigest()[:16]}"


def _key(columns: Sequence[str], types: dict[str, str], row: str) -> str:
    """Return the key of a row as a JSON array, whatever time zone the session has that writes it."""
    parts = [_text(f"{row}.{_quoted(name)}", types[name]) for name in columns]
    return f"JSON_ARRAY({', '.join(parts)})"


def _text(column: str, kind: str) -> str:
    if kind in BINARY_TYPES:
        return f"HEX({column})"
    value = f"UNIX_TIMESTAMP({column})" if kind == "timestamp" else column
    return f"CAST({value} AS CHAR CHARACTER SET utf8mb4)"


def _differs(columns: Sequence[str]) -> str:
    """Return the condition that a column differs, by its bytes: for most collations "a" equals "A"."""
    same = (f"CAST(OLD.{_quoted(name)} AS BINARY) <=> CAST(NEW.{_quoted(name)} AS BINARY)" for name in columns)
    return f"NOT ({' AND '.join(same)})"


def _values(key: str | None, kinds: Sequence[str] | None) -> tuple[Any, ...] | None:
    if key is None or kinds is None:
        return None
    return tuple(_value(one, kind) for one, kind in zip(json.loads(key), kinds, strict=False))


def _value(text: str | None, kind: str) -> Any:
    with suppress(ValueError):  # the driver, too, gives 0000-00-00 as a text
        return None if text is None else READERS.get(kind, str)(text)
    return text
