"""Which tables a query or a view reads, as the database itself says."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.sources.statement import single_select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

    from rag_index.settings import IndexSettings

_ROOTS = sa.text("""
    SELECT part.relname, root.relname FROM pg_class part JOIN pg_class root ON root.oid = pg_partition_root(part.oid)
    WHERE part.relispartition AND part.relname = ANY(:names)
""")


def tables_read(connection: Connection, index: IndexSettings, query: str | None = None) -> set[str]:
    """Return the names, without schemas, of the tables that a query of the index reads; by default its own.

    The result is empty where the database cannot say: only SQLite, PostgreSQL, MySQL and MariaDB are asked.
    """
    if query is None and index.table is not None:
        inner: Any = sa.select(sa.text("*")).select_from(sa.table(index.table, schema=index.db_schema))
        query = str(inner.compile(dialect=connection.dialect))
    else:
        query = str(single_select(str(query or index.query), index.name)).replace("\\:", ":")
    readers = {"sqlite": _in_sqlite, "postgresql": _in_postgresql, "mysql": _in_mysql, "mariadb": _in_mysql}
    reader = readers.get(connection.dialect.name)
    if reader is None:
        return set()
    try:
        return reader(connection, query)
    except exc.DBAPIError:  # the check of the source says what is wrong with the query
        connection.rollback()
        return set()


def _in_sqlite(connection: Connection, query: str) -> set[str]:
    found: set[str] = set()

    def note(action: int, table: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_READ and table and not table.startswith("sqlite_"):
            found.add(table)
        return sqlite3.SQLITE_OK

    driver: Any = connection.connection.driver_connection
    views = set(sa.inspect(connection).get_view_names())
    driver.set_authorizer(note)
    try:
        connection.exec_driver_sql(f"EXPLAIN {query}").close()
    finally:
        driver.set_authorizer(None)
    return found - views


def _in_postgresql(connection: Connection, query: str) -> set[str]:
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query}").scalar()
    found = set(_values(json.loads(plan) if isinstance(plan, str) else plan, "Relation Name"))
    roots = dict(map(tuple, connection.execute(_ROOTS, {"names": list(found)})))  # a plan names partitions
    return {roots.get(name, name) for name in found}


def _in_mysql(connection: Connection, query: str) -> set[str]:
    plan = json.loads(str(connection.exec_driver_sql(f"EXPLAIN FORMAT=JSON {query.replace('%', '%%')}").scalar()))
    existing = set(sa.inspect(connection).get_table_names())
    return set(_values(plan, "table_name")) & existing  # an alias of the query is shown in place of its table


def _values(plan: Any, name: str) -> Iterator[str]:
    """Yield the values of a key at any depth."""
    if isinstance(plan, dict):
        if isinstance(plan.get(name), str):
            yield plan[name]
        plan = list(plan.values())
    for inner in plan if isinstance(plan, list) else []:
        yield from _values(inner, name)
