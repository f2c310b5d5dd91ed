"""Decisions: which rows an index shows by the values of a column, as `[indexes.visible.NAME]` says.

`decided` puts the conditions that follow from the decisions into the SQL of an index, and is the
only place that does. Whatever reads rows gets the index that it returns. A value that no list names
is undecided: its rows are shown to nobody. With `undecided=True` they are there: the source still
has them, whatever a person decides.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.sources.secret_values import MASK
from rag_index.components.sources.source_tables import (
    SourceTable,
    documents_from,
    first_rows,
    own_rows,
    relations_read,
    without_end,
)
from rag_index.components.sources.value_text import value_sql
from rag_index.core.reports.outcome import UndecidedValue
from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.core.settings.visible import (
    VisibleSettings,
    name_parts,
    replace_tokens,
    sql_texts,
    tokens_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.core.settings import IndexSettings
    from rag_index.core.settings.parts import JoinSettings, PartSettings

_NAME_IN_RELATION = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|\[([^\[\]]*)\]|(\w+)')

MAX_GROUPS = 1000
"""The combinations of values that are read: a column of texts would have one in each row."""
MAX_VALUES = 20
"""The values of one decision that are reported."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the settings decide on the values of one column, or of a key of the JSON objects in
    it."""

    name: str
    """The name in the settings."""
    settings: VisibleSettings
    column: str
    keys: tuple[str, ...] = ()
    """The keys that lead to the value inside of an object; none for the value of the column
    itself."""
    table: str | None = None
    """The table of the column; None for that of the index, or for its query."""
    schema: str | None = None

    def text(self, dialect: sa.Dialect, alias: str = "") -> str:
        """Return the SQL of the value as a text. `alias`, which is SQL, is that of the table in its
        statement."""
        sql = value_sql(dialect)
        column = sql.quoted(self.column)
        return sql.text(
            f"{alias}.{column}" if alias else column, self.keys, kind=self.settings.kind
        )

    def condition(self, dialect: sa.Dialect, alias: str = "", *, undecided: bool = False) -> str:
        """Return the condition for the rows that are shown; with `undecided`, for all that are not
        hidden."""
        text = self.text(dialect, alias)
        sql = value_sql(dialect)
        if undecided:
            return f"(NOT {sql.is_any(text, self.settings.hidden)})"
        return sql.is_any(text, self.settings.shown)

    def is_undecided(self, dialect: sa.Dialect, alias: str) -> str:
        """Return the condition for the rows whose value neither list names."""
        named = (*self.settings.shown, *self.settings.hidden)
        return f"(NOT {value_sql(dialect).is_any(self.text(dialect, alias), named)})"


def decisions_of(index: IndexSettings) -> list[Decision]:
    """Return the decisions of an index.

    A name with several parts is that of a column of another table if SQL of the index refers to it,
    and names the table too: `ticket.state`. Otherwise it is that of a key in a column of the index
    itself: `extra.private`.
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
    """Return how many parts of a name are those of one of the tables; 0 if it begins with none of
    them."""
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
    return [
        "".join(found).replace('""', '"').lower() for found in _NAME_IN_RELATION.findall(relation)
    ]


def decided(index: IndexSettings, dialect: sa.Dialect, *, undecided: bool = False) -> IndexSettings:
    """Return an index whose SQL has the conditions that follow from its decisions, and that has no
    decisions any more.

    Args:
        index: The index as the settings have it.
        dialect: The kind of database that it reads.
        undecided: Whether rows with a value that nobody decided on are there. Those of hidden
            values never are.

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
        return {
            name: join.model_copy(update={"where": replaced(join.where)})
            for name, join in rows.joins.items()
        }

    alias = "" if index.query is None else "decided_rows"
    own = [
        one.condition(dialect, alias, undecided=undecided) for one in decisions if one.table is None
    ]
    query, where = replaced(index.query), replaced(index.where)
    if query is not None and own:
        # the query returns the columns that are decided on
        query = (
            f"SELECT * FROM ({without_end(query, index.name)}) {alias} WHERE {' AND '.join(own)}"
        )
    elif own:
        written = [] if where is None else [f"({without_end(where, index.name, 'condition')})"]
        where = " AND ".join([*written, *own])
    parts = [
        part.model_copy(update={"where": replaced(part.where), "joins": with_joins(part)})
        for part in index.parts
    ]
    changed: dict[str, Any] = {
        "visible": {},
        "query": query,
        "where": where,
        "access": replaced(index.access),
        "joins": with_joins(index),
        "parts": parts,
    }
    return index.model_copy(update=changed)


def undecided_values(connection: Connection, index: IndexSettings) -> list[UndecidedValue]:
    """Return the values that nobody decided on, those with the most rows first, at most
    `MAX_VALUES` of a decision.

    It takes one pass over the rows of each table with a decision. Rows that are hidden anyway do
    not count.
    """
    dialect = connection.dialect
    decisions = decisions_of(index)
    there = decided(index, dialect, undecided=True)
    own = [one for one in decisions if one.table is None]
    found: list[UndecidedValue] = []
    if own:
        rows = own_rows(
            there, dict.fromkeys([*index.key_columns, *(one.column for one in own)]), "documents"
        )
        found += _undecided_in(connection, rows, own)
    for decision in decisions:
        if decision.table is not None:
            table = sa.table(decision.table, sa.column(decision.column), schema=decision.schema)
            found += _undecided_in(connection, sa.select(table).subquery("documents"), [decision])
    return found


def _undecided_in(
    connection: Connection, rows: FromClause, decisions: Sequence[Decision]
) -> list[UndecidedValue]:
    """Return the values that nobody decided on among these rows, which are called `documents`."""
    dialect = connection.dialect
    sql = value_sql(dialect)
    texts: list[sa.Label[Any]] = []
    for number, one in enumerate(decisions):
        text = sql.beginning(one.text(dialect, "documents"))
        # a password, for which an empty value is shown
        if is_named_like_a_secret([one.column, *one.keys][-1]):
            text = sql.literal(MASK)
        is_undecided = one.is_undecided(dialect, "documents")
        texts.append(
            sa.literal_column(f"CASE WHEN {is_undecided} THEN {text} END").label(f"value_{number}")
        )
    undecided: list[sa.ColumnElement[bool]] = [
        sa.literal_column(one.is_undecided(dialect, "documents")) for one in decisions
    ]
    some = sa.select(*texts).select_from(rows).where(sa.or_(*undecided)).subquery("undecided_rows")
    count = sa.func.count().label("row_count")
    groups = sa.select(*some.c, count).group_by(*some.c).order_by(count.desc()).limit(MAX_GROUPS)
    counts: list[Counter[str]] = [Counter() for _ in decisions]
    for *values, number_of_rows in connection.execute(groups):
        for value, counted in zip(values, counts, strict=True):
            if value is not None:
                counted[sql.read(value)] += number_of_rows
    return [
        UndecidedValue(decision.name, value, rows_of_value)
        for decision, counted in zip(decisions, counts, strict=True)
        for value, rows_of_value in counted.most_common(MAX_VALUES)
    ]


def undecided_keys(index: IndexSettings, dialect: sa.Dialect) -> Select[Any]:
    """Return the query of the keys of documents that are not shown alone because of values nobody
    decided on."""
    shown = documents_from(_keys_alone(decided(index, dialect)))
    there = documents_from(_keys_alone(decided(index, dialect, undecided=True)))
    keys = [there.c[name] for name in index.key_columns]
    # a name of its own, so that the inner rows are compared with these, and not with themselves
    rows = sa.select(*keys).where(*[key.is_not(None) for key in keys]).subquery("undecided_rows")
    same = [shown.c[name] == rows.c[name] for name in index.key_columns]
    one: sa.ColumnClause[Any] = sa.literal_column("1")
    return sa.select(*rows.c).where(~sa.exists(sa.select(one).select_from(shown).where(*same)))


def _keys_alone(index: IndexSettings) -> IndexSettings:
    """Return an index of the same documents with their keys alone."""
    less: dict[str, Any] = dict.fromkeys(("title", "link", "access", "language_column"))
    less |= {"text": index.key_columns, "payload": [], "parts": [], "format": {}}
    return index.model_copy(update=less)


def check_decisions(connection: Connection, index: IndexSettings) -> None:
    """Check that each column that an index decides on exists, and can be read as a text.

    Raises:
        SettingsError: One does not exist, or cannot be read.
    """
    for decision in decisions_of(index):
        what = f"visible {decision.name!r}"
        if decision.keys and decision.table is None:
            what += (
                f" (no $visible({decision.name}) refers to it, so that {decision.column!r} is a"
                " column)"
            )
        if decision.table is None and index.query is not None:
            # the condition is around the query
            rows = own_rows(decided(index, connection.dialect), index.key_columns, "documents")
            first_rows(connection, index, sa.select(rows), f"{what} of the query", limit=1)
            continue
        name = decision.table or index.table or ""
        schema = decision.schema if decision.table else index.db_schema
        table = SourceTable(name, schema, (decision.column,), "")
        # SQLite reads a quoted name that no column has as a text, unless it follows a table
        rows = sa.table(name, schema=schema).alias("decided_rows")
        value: sa.ColumnClause[Any] = sa.literal_column(
            decision.text(connection.dialect, rows.name)
        )
        statement: Select[Any] = sa.select(value).select_from(rows)
        first_rows(connection, index, statement, f"{what} of table {name!r}", limit=1, table=table)
