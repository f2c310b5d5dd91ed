"""The queue in PostgreSQL: a table without an index, in a schema of its own, and a trigger function for each table.

The table has no sequence, because `lastval()` of an application would return its number. A row is known by its place
(`ctid`) and its time. Inserts and deletes have statement triggers with transition tables, which cost bulk writers less.
A subscription fires none of these, so its rows have row triggers that fire for them alone. Updates have row triggers,
whose condition skips rows of which no document shows a change. There is no NOTIFY: it makes all commits of the database
wait for each other (`benchmarks/watch_writers.py` measures it).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.changes.postgres import POSITION, PostgresTable, TextReader, lsn, lsn_number, quoted, table_in_catalogue
from rag_index.changes.queues import FIRST_ROWS, SETUP, Queue, QueuedRow
from rag_index.changes.rows import Step
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import Setup, WatchedTable

SCHEMA = "rag_index"
PLAIN_TYPES = frozenset({16, 20, 21, 23, 25, 1042, 1043, 1700, 2950})
"""bool, int8, int2, int4, text, char, varchar, numeric, uuid: their text does not depend on a session's settings."""
PADDED_TYPE = 1042
ENABLED = {
    "insert": "O", "delete": "O", "replicated_insert": "R", "replicated_delete": "R", "update": "A", "truncate": "A",
}  # fmt: skip
"""Whose changes each trigger fires for, as `pg_trigger.tgenabled` has it: of sessions (O), of a subscription (R), or of
both (A). Another state says that somebody has switched a trigger off, perhaps for a while."""
COSTS = (
    "Each insert, delete, and update of a column that documents show adds a row to the queue, in the writer's own",
    "transaction. `benchmarks/watch_writers.py` measures it; docs/performance.md has figures.",
    "The queue grows while no watch runs; `rag-index doctor` tells. Autovacuum cleans it often, but not while a",
    "transaction, a prepared one or a slot holds an old snapshot: then it grows with every change, and the watch looks",
    "at all of it five times a second.",
    "Columns that a trigger names can be renamed or dropped only after the trigger: remove, change, set up again.",
    "Not seen: TRUNCATE, ATTACH and DETACH of a single partition. The nightly run sees it.",
)
_RUNNING = sa.text("""
    SELECT transactionid::text FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
""")
_TRIGGERS = sa.text("""
    SELECT tgname, min(tgenabled::text) || max(tgenabled::text) FROM pg_trigger
    WHERE tgname = ANY(:names) AND (tgrelid = :oid OR tgparentid <> 0) GROUP BY tgname HAVING bool_or(tgrelid = :oid)
""")
_OLD_FUNCTIONS = sa.text("""
    SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = :schema AND p.prorettype = 'trigger'::regtype AND starts_with(p.proname, :prefix)
""")


class PostgresQueue(Queue):
    """The queue in PostgreSQL, which has neither index nor sequence: a row is named by its place and time."""

    kinds = tuple(ENABLED)
    costs = COSTS
    schema = f"{SCHEMA}."
    no_rows = (("(0,0)", "1970-01-01 00:00:00+00"),)

    def __init__(self, tables: Sequence[WatchedTable], project: str) -> None:
        super().__init__(tables, project)
        self._readers: dict[WatchedTable, Sequence[int]] = {}
        self._end = ""
        self._running: set[str] = set()
        """The transactions that ran when the log was first seen to end there, and still do."""

    def setup(self, connection: Connection) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""
        tables = [table_in_catalogue(connection, table) for table in self._watched]
        names = [self._names(table.watched)["truncate"] for table in tables]
        found = connection.execute(_OLD_FUNCTIONS, {"schema": SCHEMA, "prefix": f"{self._name}_"})
        old = [name for [name] in found]
        drops = [f"DROP FUNCTION IF EXISTS {SCHEMA}.{name} CASCADE" for name in dict.fromkeys([*old, *names])]
        role = quoted(str(connection.scalar(sa.text("SELECT current_user"))))
        steps = [
            Step("BEGIN", "Writers of these tables wait until COMMIT."),
            Step("SET LOCAL lock_timeout = '30s'"),
            Step(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"),
            *(Step(sql) for sql in drops),
            Step(f"DROP TABLE IF EXISTS {self._queue}"),
            Step(
                f"CREATE TABLE {self._queue} (\n"
                "    source text NOT NULL,\n    row_key text[],\n"
                "    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()\n"
                ") WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)",
                "The queue. It has no index and no sequence; a row without a key means that all of a table changed.",
            ),
            *(step for table in tables for step in self._triggers(table)),
            Step(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}", "The role that reads the source empties the queue."),
            Step(f"GRANT SELECT, DELETE ON {self._queue} TO {role}"),
            Step(
                f"INSERT INTO {self._queue} (source) VALUES " + ", ".join(f"({_text(str(t))})" for t in self._watched),
                FIRST_ROWS,
            ),
            Step("COMMIT"),
        ]
        return self._setup(steps, [*drops, f"DROP TABLE {self._queue}", f"DROP SCHEMA {SCHEMA}"], POSITION)

    def _check_queue(self, connection: Connection) -> None:
        if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": self._queue}) is None:
            raise SettingsError(f"the source has no queue {self._queue}; {SETUP}")
        allowed = sa.text("SELECT has_table_privilege(:name, 'SELECT') AND has_table_privilege(:name, 'DELETE')")
        if not connection.scalar(allowed, {"name": self._queue}):
            raise SettingsError(f"the role of the source may not read and delete rows of {self._queue}; {SETUP}")

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        oid = table_in_catalogue(connection, table).oid
        wanted = {name: ENABLED[kind] * 2 for kind, name in self._names(table).items()}
        there = connection.execute(_TRIGGERS, {"oid": oid, "names": list(wanted)})
        return wanted == dict(map(tuple, there))

    def read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        """Return at most `limit` rows of the queue."""
        statement = sa.text(
            f"SELECT ctid::text, source, row_key, changed_at::text, extract(epoch FROM changed_at)::float8 "
            f"FROM {self._queue} LIMIT :limit"
        )
        rows = connection.execute(statement, {"limit": limit}).fetchall()
        readers = {}
        for table in {self._by_name[row[1]] for row in rows if row[1] in self._by_name}:
            with suppress(SettingsError):  # the table is gone
                readers[table] = TextReader(connection, self._types(connection, table))
        return [self._read(row, readers) for row in rows]

    def before(self, connection: Connection) -> Any:
        """Return how far the log has come, and then the transactions that run, before the rows are read.

        Each holds a lock on itself until readers see it. A snapshot would not name the newest of them.
        """
        end = str(connection.scalar(sa.text(POSITION)))
        return end, {xid for [xid] in connection.execute(_RUNNING)}

    def through(self, before: Any, rows: Sequence[QueuedRow]) -> str:
        """Return how far the log had come, once whatever may have been committed by then is seen.

        A transaction that is in the log may not be seen yet: for microseconds, or as long as the server waits for a
        standby. Its application learns its position later, so that this is not below the end of the log that was read.
        Hence everything below that was seen, and all of it if no transaction runs that may be in the log.
        """
        end, running = before
        if end != self._end:
            self._end, self._running = end, running
        self._running &= running
        return lsn(lsn_number(end) - 1) if self._running else end

    def delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows in one transaction. A row at the same place with another time is another row."""
        statement = sa.text(
            f"DELETE FROM {self._queue} q "
            "USING unnest(CAST(:places AS tid[]), CAST(:times AS timestamptz[])) AS r(p, t) "
            "WHERE q.ctid = r.p AND q.changed_at = r.t"
        )
        connection.execute(statement, {"places": [place for place, _ in tokens], "times": [at for _, at in tokens]})
        connection.commit()

    def _read(self, row: Any, readers: dict[WatchedTable, TextReader]) -> QueuedRow:
        place, source, key, at, changed_at = row
        table = self._by_name.get(source)
        values = None
        if table in readers and key is not None:
            values = readers[table].values([None if text is None else text.encode() for text in key])
        return QueuedRow((place, at), table, values, changed_at)

    def _types(self, connection: Connection, table: WatchedTable) -> Sequence[int]:
        if table not in self._readers:
            types = table_in_catalogue(connection, table).types
            self._readers[table] = [types[name] for name in table.columns]
        return self._readers[table]

    def _triggers(self, table: PostgresTable) -> Iterator[Step]:
        names = self._names(table.watched)
        function = f"{SCHEMA}.{names['truncate']}"
        yield Step(self._function(table, function), f"Changes of {table.watched}.")
        rows = table.partitioned or table.inherits  # a statement for a part of a table fires no trigger of the whole
        do = f"EXECUTE FUNCTION {function}()"
        on = f"ON {table.quoted}"
        for kind, row in (("insert", "NEW"), ("delete", "OLD")):
            each = "FOR EACH ROW" if rows else f"REFERENCING {row} TABLE AS changed_rows FOR EACH STATEMENT"
            yield Step(f"CREATE TRIGGER {names[kind]} AFTER {kind} {on} {each} {do}")
            yield Step(f"CREATE TRIGGER {names[f'replicated_{kind}']} AFTER {kind} {on} FOR EACH ROW {do}")
        condition = f"FOR EACH ROW WHEN ({_differs(table.watched)})"
        yield Step(f"CREATE TRIGGER {names['update']} AFTER UPDATE {on} {condition} {do}")
        yield Step(f"CREATE TRIGGER {names['truncate']} AFTER TRUNCATE {on} FOR EACH STATEMENT {do}")
        for kind, name in names.items():
            if (fires := {"A": "ALWAYS", "R": "REPLICA"}.get(ENABLED[kind])) is not None:
                yield Step(f"ALTER TABLE {table.quoted} ENABLE {fires} TRIGGER {name}")

    def _function(self, table: PostgresTable, function: str) -> str:
        columns = table.watched.columns
        settings = "SET search_path = ''"
        if not PLAIN_TYPES.issuperset(table.types[name] for name in columns):
            settings += " SET datestyle = 'ISO' SET bytea_output = 'hex' SET extra_float_digits = 1"
        old, new, changed = (_key(columns, table.types, prefix) for prefix in ("OLD.", "NEW.", ""))
        into, name = f"INSERT INTO {self._queue} (source, row_key)", _text(str(table.watched))
        return (
            f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {settings} AS $$\n"
            "BEGIN\n"
            "    IF TG_OP = 'TRUNCATE' THEN\n"
            f"        {into} VALUES ({name}, NULL);\n"
            "    ELSIF TG_LEVEL = 'STATEMENT' THEN\n"
            f"        {into} SELECT {name}, {changed} FROM changed_rows;\n"
            "    ELSE\n"
            "        IF TG_OP <> 'INSERT' THEN\n"
            f"            {into} VALUES ({name}, {old});\n"
            "        END IF;\n"
            "        IF TG_OP = 'INSERT' THEN\n"
            f"            {into} VALUES ({name}, {new});\n"
            f"        ELSIF TG_OP = 'UPDATE' AND {old} <> {new} THEN\n"
            f"            {into} VALUES ({name}, {new});\n"
            "        END IF;\n"
            "    END IF;\n"
            "    RETURN NULL;\n"
            "END $$"
        )


def _key(columns: Sequence[str], types: Mapping[str, int], prefix: str) -> str:
    texts = [f"{prefix}{quoted(name)}" for name in columns]
    for number, name in enumerate(columns):
        if types[name] == PADDED_TYPE:  # a cast would remove the blanks at its end
            texts[number] = f"pg_catalog.bpcharout({texts[number]})"
    return f"ARRAY[{', '.join(f'{text}::text' for text in texts)}]"


def _differs(table: WatchedTable) -> str:
    """Return the condition that a row differs, by its bytes: for some collations "a" equals "A"."""
    if table.used is None:
        return "OLD.* OPERATOR(pg_catalog.*<>) NEW.*"
    names = sorted({*table.used, *table.columns})
    old, new = (f"ROW({', '.join(f'{row}.{quoted(name)}' for name in names)})::record" for row in ("OLD", "NEW"))
    return f"{old} OPERATOR(pg_catalog.*<>) {new}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
