"""Which tables of a database have to be watched for which indexes, and how their rows lead to documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.components.sources.source_tables import (
    SourceTable,
    as_known,
    relations_read,
    single_select,
    source_tables,
    tables_read,
    used_columns,
)
from rag_index.core.settings.index import SQL
from rag_index.watch.changes.rows import RowRoute, WatchedTable, connected

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rag_index.core.settings import IndexSettings, Settings

CLOCK = re.compile(
    r"\b(now|curdate|curtime|sysdate|getdate|utc_timestamp|utc_date|unix_timestamp|random|rand)\s*\("
    r"|\b(current_date|current_time|current_timestamp|localtimestamp)\b"
    r"|\b(date|time|datetime|julianday|strftime)\s*\(([^()]*,)?\s*'now'",
    re.IGNORECASE,
)
"""What makes a query give something else although no row has changed."""

NAME_PATTERN = r'(?:"[^"]+"|`[^`]+`|\w+)'
PAIRS_QUERY = re.compile(
    rf"\s*SELECT\s+(?:DISTINCT\s+)?(?P<columns>.+?)\s+FROM\s+(?:(?P<schema>{NAME_PATTERN})\.)?(?P<table>{NAME_PATTERN})"
    rf"(?:\s+(?:AS\s+)?(?P<alias>{NAME_PATTERN}))??"
    r"(?P<rest>\s*,.*|\s+(?:JOIN|INNER|LEFT|CROSS|NATURAL|WHERE|GROUP|ORDER|LIMIT)\b.*)?\s*",
    re.IGNORECASE | re.DOTALL,
)
"""A query of pairs that says plainly which table has the keys: the first one that it reads."""

COLUMN = re.compile(
    rf"\s*(?:(?P<table>{NAME_PATTERN})\.)?(?P<name>{NAME_PATTERN})(?:\s+(?:AS\s+)?{NAME_PATTERN})?\s*", re.IGNORECASE
)
Name = tuple[str | None, str]
"""A table, by its schema (None: the default one) and name."""


@dataclass(slots=True)
class TablePlan:
    """The tables to watch, and what their rows mean."""

    tables: list[WatchedTable] = field(default_factory=list)
    routes: list[RowRoute] = field(default_factory=list)
    unwatched: dict[str, str] = field(default_factory=dict)
    """Why an index cannot be watched by its tables, by its name."""
    blind: dict[str, list[str]] = field(default_factory=dict)
    """What is not seen of an index, by its name, such as tables of a query that are not watched."""

    @property
    def notes(self) -> list[str]:
        """Return what a person should know."""
        return [f"index {name}: {one}: the next run finds that" for name, some in self.blind.items() for one in some]

    def add(self, index: str, table: Name, keys: Sequence[str], column: str | None, used: Iterable[str] | None) -> None:
        """Add what rows of a table mean for an index. Of a table, `used` are the columns whose update matters."""
        schema, name = table
        new = WatchedTable(name, schema, tuple(sorted(keys)), None if used is None else frozenset({*used, *keys}))
        self.routes.append(RowRoute(index, str(new), tuple(keys), column))
        for number, old in enumerate(self.tables):
            if str(old) == str(new):
                columns = tuple(sorted({*old.columns, *new.columns}))
                both = None if old.used is None or new.used is None else old.used | new.used
                self.tables[number] = WatchedTable(name, schema, columns, both)
                return
        self.tables = sorted([*self.tables, new], key=str)


def plan_tables(settings: Settings, indexes: Sequence[IndexSettings]) -> TablePlan:
    """Return the tables to watch for those of the indexes that are of kind sql. Whether they exist is what a feed
    checks. Raises SourceUnavailable, SourceError and SettingsError."""
    plan = TablePlan()
    with connected(settings.source_url, "the tables of the source") as connection:
        inspector = sa.inspect(connection)
        for index in indexes:
            if index.kind == SQL:
                _IndexTables(connection, inspector, index).add_to(plan)
    return plan


class _IndexTables:
    """The tables that an index reads."""

    def __init__(self, connection: Connection, inspector: sa.Inspector, index: IndexSettings) -> None:
        self._connection, self._inspector, self._index = connection, inspector, index

    def add_to(self, plan: TablePlan) -> None:
        """Add the tables whose changes concern documents, or the reason why that cannot be known."""
        index = self._index
        own = None if index.table is None else self._name(index.db_schema, index.table)
        if not index.depends_on and (own is None or self._is_view(own)):
            what = "query" if own is None else f"view {index.table}"
            plan.unwatched[index.name] = (
                f"list the tables that its {what} reads in depends_on, so that a change of them can be followed"
            )
            return
        watched = {entry.table.rpartition(".")[2] for entry in index.depends_on}
        for table in source_tables(index):
            name = self._name(table.schema, table.table)
            if not self._is_view(name):  # its tables are named, if depends_on does not list them
                plan.add(index.name, name, table.keys, table.look_up, self._used_columns(table))
                watched.add(name[1])
        for entry in index.depends_on:
            schema, _, named = entry.table.rpartition(".")
            column = None if index.key_columns == [entry.column] else entry.column
            plan.add(index.name, self._name(schema or None, named), [entry.key], column, None)
        if index.access_query is not None and (pairs := self._table_of_pairs(index)) is not None:
            plan.add(index.name, *pairs, None, None)
            watched.add(pairs[0][1])
        if blind := list(self._blind(watched)):
            plan.blind[index.name] = blind

    def _blind(self, watched: set[str]) -> Iterator[str]:
        """Yield what a watch of these tables will not see."""
        index = self._index
        reads = tables_read(self._connection, relations_read(index.model_dump(by_alias=True)))
        if forgotten := sorted(reads - watched):
            yield f"depends_on does not list {', '.join(forgotten)}, from which documents or their groups are read"
        for entry in index.depends_on:
            if entry.column not in (*index.payload, *index.key_columns):
                yield (
                    f"column {entry.column!r} of depends_on is not in payload, so a document stays that the join no "
                    f"longer gives after a change of {entry.table}"
                )
        asked = " ".join(filter(None, [index.query, *[one for table in source_tables(index) for one in table.where]]))
        if now := CLOCK.search(asked):
            yield f"its query asks for the time ({now[0]}), so documents change without a change of a row"

    def _name(self, schema: str | None, table: str) -> Name:
        return None if schema == self._inspector.default_schema_name else schema, table

    def _table_of_pairs(self, index: IndexSettings) -> tuple[Name, tuple[str, ...]] | None:
        """Return the table whose rows are pairs of key and group, and its columns that have the key. None if the query
        does not say it plainly: a wrong table would look as if nothing changed."""
        found = PAIRS_QUERY.fullmatch(str(single_select(str(index.access_query), index.name)))
        rest = (found and found["rest"]) or ""
        if found is None or re.search(r"\b(UNION|INTERSECT|EXCEPT)\b", rest, re.IGNORECASE):
            return None
        if found["columns"].count("(") != found["columns"].count(")"):  # the table is that of a query within it
            return None
        joins = rest.lstrip().startswith(",") or re.search(r"\bJOIN\b", rest, re.IGNORECASE)
        parts = found["columns"].split(",")[: len(index.key_columns)]
        columns = [column for part in parts if (column := COLUMN.fullmatch(part)) is not None]
        own = {_plain(found["alias"] or found["table"])}
        if len(columns) < len(index.key_columns) or any(
            _plain(c["table"]) not in own if c["table"] else joins for c in columns
        ):
            return None
        schema = _plain(found["schema"]) if found["schema"] else None
        table = as_known(_plain(found["table"]), self._inspector.get_table_names(schema=schema))
        there = [c["name"] for c in self._inspector.get_columns(table, schema=schema)] if table else []
        keys = [known for c in columns if (known := as_known(_plain(c["name"]), there)) is not None]
        return (self._name(schema, table), tuple(keys)) if table and len(keys) == len(columns) else None

    def _used_columns(self, table: SourceTable) -> set[str]:
        """Return the columns of a table whose update matters, those that its conditions name among them."""
        used = used_columns(self._index, table)
        if table.where:
            there = [column["name"] for column in self._inspector.get_columns(table.table, schema=table.schema)]
            conditions = " ".join(table.where)
            used |= {name for name in there if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", conditions, re.IGNORECASE)}
        return used

    def _is_view(self, name: Name) -> bool:
        schema, table = name
        found = self._inspector.get_view_names(schema=schema)
        if self._connection.dialect.name == "postgresql":
            found = [*found, *self._inspector.get_materialized_view_names(schema=schema)]
        return table in found


def _plain(name: str) -> str:
    """Return a name of a query without its quotes."""
    return name[1:-1] if name[0] in '"`' else name
