"""Decisions: which rows an index shows by the values of a column, as `[indexes.visible.NAME]` says.

`decided` puts the conditions that follow from the decisions into the SQL of an index, and is the
only place that does. Whatever reads rows gets the index that it returns. A value that no list names
is undecided: its rows are shown to nobody. With `undecided=True` they are there: the source still
has them, whatever a person decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.sources.source_tables import (
    SourceTable,
    first_rows,
    own_rows,
    relations_read,
    without_end,
)
from rag_index.components.sources.value_text import value_sql
from rag_index.core.settings.visible import VisibleSettings, name_parts, replace_tokens, sql_texts, tokens_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import Select

    from rag_index.core.settings import IndexSettings
    from rag_index.core.settings.parts import JoinSettings, PartSettings

_NAME_IN_RELATION = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|\[([^\]]*)\]|(\w+)')


@dataclass(frozen=True, slots=True)
class Decision:
    """What the settings decide on the values of one column, or of a key of the JSON objects in it."""

    name: str
    """The name in the settings."""
    settings: VisibleSettings
    column: str
    keys: tuple[str, ...] = ()
    """The keys that lead to the value inside of an object; none for the value of the column itself."""
    table: str | None = None
    """The table of the column; None for that of the index, or for its query."""
    schema: str | None = None

    def text(self, dialect: sa.Dialect, alias: str = "") -> str:
        """Return the SQL of the value as a text. `alias`, which is SQL, is that of the table in its statement."""
        sql = value_sql(dialect)
        column = sql.quoted(self.column)
        return sql.text(f"{alias}.{column}" if alias else column, self.keys, kind=self.settings.kind)

    def condition(self, dialect: sa.Dialect, alias: str = "", *, undecided: bool = False) -> str:
        """Return the condition for the rows that are shown; with `undecided`, for all that are not hidden."""
        text = self.text(dialect, alias)
        sql = value_sql(dialect)
        if undecided:
            return f"(NOT {sql.is_any(text, self.settings.hidden)})"
        return sql.is_any(text, self.settings.shown)

    def is_undecided(self, dialect: sa.Dialect) -> str:
        """Return the condition for the rows whose value neither list names."""
        named = (*self.settings.shown, *self.settings.hidden)
        return f"(NOT {value_sql(dialect).is_any(self.text(dialect), named)})"


def decisions_of(index: IndexSettings) -> list[Decision]:
    """Return the decisions of an index.

    A name with several parts is that of a column of another table if SQL of the index refers to it, and names the table
    too: `ticket.state`. Otherwise it is that of a key in a column of the index itself: `extra.private`.
    """
    texts = sql_texts(index).values()
    referred = {name for sql in texts for name, _ in tokens_of(sql)}
    tables = [_parts_of(name) for name in relations_read(index.model_dump(by_alias=True))]
    found: list[Decision] = []
    for name, settings in index.visible.items():
        parts = name_parts(name)
        length = _length_of_table(parts, tables) if name in referred else 0
        table = parts[length - 1] if length else None
        schema = parts[0] if length == 2 else None
        column, *keys = parts[length:]
        found.append(Decision(name, settings, column, tuple(keys), table, schema))
    return found


def _length_of_table(parts: list[str], tables: list[list[str]]) -> int:
    """Return how many parts of a name are those of one of the tables; 0 if it begins with none of them."""
    lowered = [part.lower() for part in parts]
    # helpdesk.ticket.state
    if len(parts) > 2 and any(table[-2:] == lowered[:2] for table in tables):
        return 2
    # ticket.state
    if len(parts) > 1 and any(table[-1:] == lowered[:1] for table in tables):
        return 1
    return 0


def _parts_of(relation: str) -> list[str]:
    """Return the parts of the name of a table in SQL, in small letters."""
    return ["".join(found).replace('""', '"').lower() for found in _NAME_IN_RELATION.findall(relation)]


def decided(index: IndexSettings, dialect: sa.Dialect, *, undecided: bool = False) -> IndexSettings:
    """Return an index whose SQL has the conditions that follow from its decisions, and that has no decisions any more.

    Args:
        index: The index as the settings have it.
        dialect: The kind of database that it reads.
        undecided: Whether rows with a value that nobody decided on are there. Those of hidden values never are.

    Raises:
        SettingsError: The database cannot read what a decision names.
    """
    if not index.visible:
        return index
    decisions = decisions_of(index)
    by_name = {decision.name: decision for decision in decisions}
    conditions = {
        (name, alias): by_name[name].condition(dialect, alias, undecided=undecided)
        for sql in sql_texts(index).values()
        for name, alias in tokens_of(sql)
    }

    def replaced(sql: str | None) -> str | None:
        return None if sql is None else replace_tokens(sql, conditions)

    def with_joins(rows: IndexSettings | PartSettings) -> dict[str, JoinSettings]:
        return {name: join.model_copy(update={"where": replaced(join.where)}) for name, join in rows.joins.items()}

    own = [one.condition(dialect, undecided=undecided) for one in decisions if one.table is None]
    query, where = replaced(index.query), replaced(index.where)
    if query is not None and own:
        # the query returns the columns that are decided on
        query = f"SELECT * FROM ({without_end(query, index.name)}) decided_rows WHERE {' AND '.join(own)}"
    elif own:
        written = [] if where is None else [f"({without_end(where, index.name, 'condition')})"]
        where = " AND ".join([*written, *own])
    parts = [part.model_copy(update={"where": replaced(part.where), "joins": with_joins(part)}) for part in index.parts]
    changed: dict[str, Any] = {
        "visible": {}, "query": query, "where": where, "access": replaced(index.access),
        "joins": with_joins(index), "parts": parts,
    }  # fmt: skip
    return index.model_copy(update=changed)


def check_decisions(connection: Connection, index: IndexSettings) -> None:
    """Check that each column that an index decides on exists, and can be read as a text.

    Raises:
        SettingsError: One does not exist, or cannot be read.
    """
    for decision in decisions_of(index):
        what = f"visible {decision.name!r}"
        if decision.keys and decision.table is None:
            what += f" (no $visible({decision.name}) refers to it, so that {decision.column!r} is a column)"
        if decision.table is None and index.query is not None:
            # the condition is around the query
            rows = own_rows(decided(index, connection.dialect), index.key_columns, "documents")
            first_rows(connection, index, sa.select(rows), f"{what} of the query", limit=1)
            continue
        name = decision.table or index.table or ""
        schema = decision.schema if decision.table else index.db_schema
        table = SourceTable(name, schema, (decision.column,), "")
        value: sa.ColumnClause[Any] = sa.literal_column(decision.text(connection.dialect))
        statement: Select[Any] = sa.select(value).select_from(sa.table(name, schema=schema))
        first_rows(connection, index, statement, f"{what} of table {name!r}", limit=1, table=table)
