"""The queue in PostgreSQL: a table without an index, in a schema of its own, and a trigger function for each table.

The table has no sequence, because `lastval()` of an application would return its number. A row is known by its place
(`ctid`) and its time. Inserts and deletes have statement triggers with transition tables, which cost bulk writers less.
A subscription fires none of these, so its rows have row triggers that fire for them alone. Updates have row triggers,
whose condition skips changes that no document shows. There is no NOTIFY: it makes all commits of the database
wait for each other (`benchmarks/watch_writers.py` measures it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.watch.changes.postgres_catalogue import (
    POSITION,
    PostgresTable,
    TextReader,
    lsn,
    lsn_number,
    table_in_catalogue,
)
from rag_index.watch.changes.queues import THE_QUEUE, QueuedRow, QueueFeed
from rag_index.watch.changes.rows import Step, body, literal, quoted

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rag_index.watch.changes.rows import WatchedTable

SCHEMA = "rag_index"
PLAIN_TYPES = frozenset({16, 20, 21, 23, 25, 1042, 1043, 1700, 2950})
"""bool, int8, int2, int4, text, char, varchar, numeric, uuid: their text does not depend on a session's settings."""
PADDED_TYPE = 1042
FIRES = {
    "insert": "", "delete": "", "replicated_insert": "REPLICA", "replicated_delete": "REPLICA", "update": "ALWAYS",
    "truncate": "ALWAYS",
}  # fmt: skip
"""Whose changes each trigger fires for: of sessions, of a subscription (REPLICA), or of both (ALWAYS)."""
ENABLED = {"": "O", "REPLICA": "R", "ALWAYS": "A"}
"""The same as `pg_trigger.tgenabled`. Another state says that a trigger was switched off, perhaps for a while."""
_RUNNING = sa.text("""
    SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
""")
_MOVE = sa.text("SELECT txid_current()")
"""The commit of a transaction with an id is written to the log, whatever it has done."""
_TRIGGERS = sa.text("""
    SELECT tgname, min(tgenabled::text) || max(tgenabled::text) FROM pg_trigger
    WHERE tgname = ANY(:names) AND (tgrelid = :oid OR tgparentid <> 0) GROUP BY tgname HAVING bool_or(tgrelid = :oid)
""")
_OLD_FUNCTIONS = sa.text("""
    SELECT n.nspname, p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prorettype = 'trigger'::regtype AND strpos(p.prosrc, :put) > 0
""")


class PostgresQueue(QueueFeed):
    """The queue in PostgreSQL, which has neither index nor sequence: a row is named by its place and time."""

    kinds = tuple(FIRES)
    unseen = """\
Autovacuum cleans the queue often, but not while a transaction, a prepared one or a slot holds an old snapshot: then
it grows with every change, and the watch looks at all of it five times a second.
"""
    schema = SCHEMA
    begin = (
        Step("BEGIN", "Writers of these tables wait until COMMIT."),
        Step("SET LOCAL lock_timeout = '30s'"),
        Step(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"),
    )
    last = (
        Step(
            "DO $$ BEGIN\n    DROP SCHEMA IF EXISTS rag_index;\n"
            "EXCEPTION WHEN dependent_objects_still_exist THEN NULL;\nEND $$",
            "Unless another project has a queue in it.",
        ),
    )
    marked = "changed_at = CAST(:first AS timestamptz)"
    no_row = ("(0,0)", "1970-01-01 00:00:00+00")

    def _old(self, connection: Connection) -> Iterable[str]:
        found = [(schema, name) for schema, name in connection.execute(_OLD_FUNCTIONS, {"put": self._put})]
        names = [*found, *((SCHEMA, self._names(table)["truncate"]) for table in self.tables)]
        return (f"DROP FUNCTION IF EXISTS {quoted(schema)}.{quoted(name)}() CASCADE" for schema, name in names)

    def _create(self) -> str:
        return (
            f"CREATE TABLE {self.named} (\n    source text NOT NULL,\n    row_key text[],\n"
            "    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()\n"
            ") WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)"
        )

    def _types(self, connection: Connection, table: WatchedTable) -> dict[str, Any]:
        return table_in_catalogue(connection, table).types

    def _triggers(self, connection: Connection, table: WatchedTable) -> Iterator[Step]:
        there, names = table_in_catalogue(connection, table), self._names(table)
        function = f"{quoted(SCHEMA)}.{quoted(names['truncate'])}"
        do, on = f"EXECUTE FUNCTION {function}()", f"ON {there.quoted}"
        yield Step(self._function(there, function), f"Changes of {table}.")
        rows = there.partitioned or there.inherits  # a statement for a part of a table fires no trigger of the whole
        for kind, row in (("insert", "NEW"), ("delete", "OLD")):
            each = "FOR EACH ROW" if rows else f"REFERENCING {row} TABLE AS changed_rows FOR EACH STATEMENT"
            yield Step(f"CREATE TRIGGER {names[kind]} AFTER {kind} {on} {each} {do}")
            yield Step(f"CREATE TRIGGER {names[f'replicated_{kind}']} AFTER {kind} {on} FOR EACH ROW {do}")
        yield Step(f"CREATE TRIGGER {names['update']} AFTER UPDATE {on} FOR EACH ROW WHEN ({_differs(table)}) {do}")
        yield Step(f"CREATE TRIGGER {names['truncate']} AFTER TRUNCATE {on} FOR EACH STATEMENT {do}")
        for kind, fires in FIRES.items():
            if fires:
                yield Step(f"ALTER TABLE {there.quoted} ENABLE {fires} TRIGGER {names[kind]}")

    def _function(self, table: PostgresTable, function: str) -> str:
        columns = table.watched.columns
        settings = "SET search_path = ''"
        if not PLAIN_TYPES.issuperset(table.types[name] for name in columns):
            settings += " SET datestyle = 'ISO' SET bytea_output = 'hex' SET extra_float_digits = 1"
        old, new, changed = (_key(columns, table.types, prefix) for prefix in ("OLD.", "NEW.", ""))
        differs = f"ROW({old})::record OPERATOR(pg_catalog.*<>) ROW({new})::record"  # by bytes, as in `_differs`
        put, name = f"{self._put}source, row_key)", literal(str(table.watched), "postgresql")
        does = (
            "BEGIN\n"
            "    IF TG_OP = 'TRUNCATE' THEN\n"
            f"        {put} VALUES ({name}, NULL);\n"
            "    ELSIF TG_LEVEL = 'STATEMENT' THEN\n"
            f"        {put} SELECT {name}, {changed} FROM changed_rows;\n"
            "    ELSE\n"
            "        IF TG_OP <> 'INSERT' THEN\n"
            f"            {put} VALUES ({name}, {old});\n"
            "        END IF;\n"
            f"        IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND {differs} THEN\n"
            f"            {put} VALUES ({name}, {new});\n"
            "        END IF;\n"
            "    END IF;\n"
            "    RETURN NULL;\n"
            "END"
        )
        kind = f"RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {settings}"
        return f"CREATE FUNCTION {function}() {kind} AS {body(does)}"

    def _rights(self, connection: Connection) -> Iterator[Step]:
        role = quoted(str(connection.scalar(sa.text("SELECT current_user"))))
        yield Step(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}", "The role that reads the source empties the queue.")
        yield Step(f"GRANT SELECT, DELETE ON {self.named} TO {role}")

    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        oid = table_in_catalogue(connection, table).oid
        wanted = {name: ENABLED[FIRES[kind]] * 2 for kind, name in self._names(table).items()}
        return wanted == dict(map(tuple, connection.execute(_TRIGGERS, {"oid": oid, "names": list(wanted)})))

    def _position(self) -> str:
        return POSITION

    def _end(self, connection: Connection) -> str:
        """Return how far the log has come, once whatever may have been committed by then is seen.

        A transaction that is in the log may not be seen yet: for microseconds, or as long as the server waits for a
        standby. It holds a lock on itself until readers see it; a snapshot would not name the newest of them. Its
        application learns its position later, so that this is not below the end of the log that was read. Hence
        everything below that is seen, and all of it if no transaction runs. If one does, a transaction of our own makes
        the log longer: else the end of an idle one would not be reached before that has ended.
        """
        end = str(connection.scalar(sa.text(POSITION)))
        if not connection.scalar(_RUNNING):
            return end
        with self._connect(THE_QUEUE, self._writer) as writer:
            writer.execute(_MOVE)
        return lsn(lsn_number(str(connection.scalar(sa.text(POSITION)))) - 1)

    @staticmethod
    def _order(row: QueuedRow) -> Any:
        return row.changed_at

    def _read(self, connection: Connection, limit: int, where: str = "", **given: Any) -> list[QueuedRow]:
        statement = sa.text(
            "SELECT ctid::text, source, row_key, changed_at::text, extract(epoch FROM changed_at)::float8 "
            f"FROM {self.named} {where} LIMIT {limit:d}"
        )
        rows = connection.execute(statement, given).fetchall()
        kinds = {source: self._watched_types(connection, source) for source in {row.source for row in rows}}
        readers = {source: TextReader(connection, types) for source, types in kinds.items() if types is not None}
        return [
            QueuedRow((place, at), source, _values(key, readers.get(source)), changed_at, _mark(at, source, key))
            for place, source, key, at, changed_at in rows
        ]

    def _delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows by one statement. A row at the same place with another time is another row."""
        statement = sa.text(
            f"DELETE FROM {self.named} q "
            "USING unnest(CAST(:places AS tid[]), CAST(:times AS timestamptz[])) AS r(p, t) "
            "WHERE q.ctid = r.p AND q.changed_at = r.t"
        )
        connection.execute(statement, {"places": [place for place, _ in tokens], "times": [at for _, at in tokens]})


def _mark(at: str, source: str, key: Sequence[str | None] | None) -> str:
    return f"{at}@{hashlib.sha256(repr((source, key)).encode()).hexdigest()[:16]}"


def _values(key: Sequence[str | None] | None, reader: TextReader | None) -> tuple[Any, ...] | None:
    if key is None or reader is None or len(key) != reader.width:
        return None
    return reader.values([None if one is None else one.encode() for one in key])


def _key(columns: Sequence[str], types: dict[str, int], prefix: str) -> str:
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
