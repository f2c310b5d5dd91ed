"""Decisions: which rows an index shows by the values of a column, as `[indexes.visible.NAME]` says.

Only `decided` puts the conditions that follow from the decisions into the SQL of an index. Whatever
reads rows gets the index that it returns. A value that no list names is undecided: nobody sees its
rows. With `undecided=True` the index has them: they are still in the source, whatever a person
decides.
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
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.core.settings import IndexSettings
    from rag_index.core.settings.parts import JoinSettings, PartSettings

_NAME_IN_RELATION = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|\[([^\[\]]*)\]|(\w+)')
"""One name in `"Help Desk".note`; a group for each kind of quotes, and one for none."""
MAX_GROUPS = 1000
"""The combinations of values that are read: a column of texts would have one in each row. Chosen;
nothing depends on it."""
MAX_VALUES = 20
"""The undecided values of one decision that are reported. Chosen; nothing depends on it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of the settings on the values of one column, or of a key of the JSON objects in
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
        """Return the SQL of the value as a text.

        Args:
            alias: The alias of the table in its statement, in SQL; "" for none.
        """
        sql = value_sql(dialect)
        column = sql.quoted(self.column)
        if alias:
            column = f"{alias}.{column}"
        return sql.text(column, self.keys, kind=self.settings.kind)

    def condition(self, dialect: sa.Dialect, alias: str = "", *, undecided: bool = False) -> str:
        """Return the condition for the rows that are shown; with `undecided`, for all rows that are
        not hidden."""
        text = self.text(dialect, alias)
        sql = value_sql(dialect)
        if undecided:
            return f"(NOT {sql.is_any(text, self.settings.hidden)})"
        return sql.is_any(text, self.settings.shown)

    def is_undecided(self, dialect: sa.Dialect, alias: str) -> str:
        """Return the condition for the rows whose value neither list names."""
        named = (*self.settings.shown, *self.settings.hidden)
        text = self.text(dialect, alias)
        is_named = value_sql(dialect).is_any(text, named)
        return f"(NOT {is_named})"


def decisions_of(index: IndexSettings) -> list[Decision]:
    """Return the decisions of an index.

    A name with several parts is that of a column of another table if SQL of the index refers to it,
    and names the table too: `ticket.state`. Otherwise it is that of a key in a column of the index
    itself: `extra.private`.
    """
    referred: set[str] = set()
    for sql in sql_texts(index).values():
        referred |= {name for name, _ in tokens_of(sql)}
    relations = relations_read(index.model_dump(by_alias=True))
    tables = [_parts_of(relation) for relation in relations]
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
    """Return how many parts at the beginning of a name are the name of one of the tables."""
    lowered = [part.lower() for part in parts]
    # helpdesk.ticket.state
    if len(parts) > 2 and any(table[-2:] == lowered[:2] for table in tables):
        return 2
    # ticket.state
    if len(parts) > 1 and any(table[-1:] == lowered[:1] for table in tables):
        return 1
    return 0


def _parts_of(relation: str) -> list[str]:
    """Return the parts of the name of a table in SQL, in lower case and without quotes."""
    parts: list[str] = []
    for groups in _NAME_IN_RELATION.findall(relation):
        # One of the groups has the name, the others are empty.
        name = "".join(groups)
        parts.append(name.replace('""', '"').lower())
    return parts


def decided(index: IndexSettings, dialect: sa.Dialect, *, undecided: bool = False) -> IndexSettings:
    """Return an index without decisions, whose SQL has the conditions that follow from them.

    Args:
        index: The index as the settings have it.
        dialect: The kind of database that it reads.
        undecided: Whether the index has rows with a value that nobody decided on. It never has rows
            with hidden values.

    Raises:
        SettingsError: The database cannot read what a decision names.
    """
    if not index.visible:
        return index
    decisions = decisions_of(index)
    conditions = _conditions_of_tokens(index, decisions, dialect, undecided=undecided)
    alias = "" if index.query is None else "decided_rows"
    own: list[str] = []
    for decision in decisions:
        if decision.table is None:
            own.append(decision.condition(dialect, alias, undecided=undecided))
    together = " AND ".join(own)
    query = _replaced(index.query, conditions)
    where = _replaced(index.where, conditions)
    if query is not None and own:
        # The query returns the columns that are decided on.
        query = f"SELECT * FROM ({without_end(query, index.name)}) {alias} WHERE {together}"
    elif where is not None and own:
        where = f"({without_end(where, index.name, 'condition')}) AND {together}"
    elif own:
        where = together
    parts: list[PartSettings] = []
    for part in index.parts:
        joins = _joins_of(part, conditions)
        changed_part = {"where": _replaced(part.where, conditions), "joins": joins}
        parts.append(part.model_copy(update=changed_part))
    changed: dict[str, Any] = {
        "visible": {},
        "query": query,
        "where": where,
        "access": _replaced(index.access, conditions),
        "joins": _joins_of(index, conditions),
        "parts": parts,
    }
    return index.model_copy(update=changed)


def _conditions_of_tokens(
    index: IndexSettings, decisions: Sequence[Decision], dialect: sa.Dialect, *, undecided: bool
) -> dict[tuple[str, str], str]:
    """Return the condition for each `$visible(NAME)` in the SQL of an index, by its name and the
    alias in it."""
    by_name = {decision.name: decision for decision in decisions}
    conditions: dict[tuple[str, str], str] = {}
    for sql in sql_texts(index).values():
        for name, alias in tokens_of(sql):
            condition = by_name[name].condition(dialect, alias, undecided=undecided)
            conditions[name, alias] = condition
    return conditions


def _replaced(sql: str | None, conditions: Mapping[tuple[str, str], str]) -> str | None:
    return None if sql is None else replace_tokens(sql, conditions)


def _joins_of(
    rows: IndexSettings | PartSettings, conditions: Mapping[tuple[str, str], str]
) -> dict[str, JoinSettings]:
    """Return the joins of a table with the conditions in their SQL."""
    joins: dict[str, JoinSettings] = {}
    for name, join in rows.joins.items():
        where = _replaced(join.where, conditions)
        joins[name] = join.model_copy(update={"where": where})
    return joins


def undecided_values(connection: Connection, index: IndexSettings) -> list[UndecidedValue]:
    """Return the values that nobody decided on, those with the most rows first, at most
    `MAX_VALUES` of a decision.

    It takes one pass over the rows of each table with a decision. Rows that are hidden anyway do
    not count.
    """
    decisions = decisions_of(index)
    with_undecided = decided(index, connection.dialect, undecided=True)
    found: list[UndecidedValue] = []
    own = [decision for decision in decisions if decision.table is None]
    if own:
        columns = [*index.key_columns, *[decision.column for decision in own]]
        rows = own_rows(with_undecided, dict.fromkeys(columns), "documents")
        found += _undecided_in(connection, rows, own)
    for decision in decisions:
        if decision.table is not None:
            table = sa.table(decision.table, sa.column(decision.column), schema=decision.schema)
            rows = sa.select(table).subquery("documents")
            found += _undecided_in(connection, rows, [decision])
    return found


def _undecided_in(
    connection: Connection, rows: FromClause, decisions: Sequence[Decision]
) -> list[UndecidedValue]:
    """Return the values that nobody decided on among these rows, which are called `documents`."""
    dialect = connection.dialect
    sql = value_sql(dialect)
    texts: list[sa.Label[Any]] = []
    undecided: list[sa.ColumnElement[bool]] = []
    for number, decision in enumerate(decisions):
        text = sql.beginning(decision.text(dialect, "documents"))
        # A password: the settings decide only whether it is empty, and its value must not be shown.
        if is_named_like_a_secret([decision.column, *decision.keys][-1]):
            text = sql.literal(MASK)
        is_undecided = decision.is_undecided(dialect, "documents")
        value: sa.ColumnClause[Any] = sa.literal_column(f"CASE WHEN {is_undecided} THEN {text} END")
        texts.append(value.label(f"value_{number}"))
        undecided.append(sa.literal_column(is_undecided))
    statement = sa.select(*texts).select_from(rows).where(sa.or_(*undecided))
    found = statement.subquery("undecided_rows").c
    count = sa.func.count().label("row_count")
    groups = sa.select(*found, count).group_by(*found).order_by(count.desc()).limit(MAX_GROUPS)
    counts: list[Counter[str]] = [Counter() for _ in decisions]
    for *values, number_of_rows in connection.execute(groups):
        for text, counted in zip(values, counts, strict=True):
            # NULL: the row is undecided for another decision.
            if text is not None:
                counted[sql.read(text)] += number_of_rows
    reported: list[UndecidedValue] = []
    for decision, counted in zip(decisions, counts, strict=True):
        for text, number_of_rows in counted.most_common(MAX_VALUES):
            reported.append(UndecidedValue(decision.name, text, number_of_rows))
    return reported


def undecided_keys(index: IndexSettings, dialect: sa.Dialect) -> Select[Any]:
    """Return the query of the keys of documents that are hidden only because of values that nobody
    decided on."""
    shown = documents_from(_with_keys_only(decided(index, dialect)))
    not_hidden = documents_from(_with_keys_only(decided(index, dialect, undecided=True)))
    keys = [not_hidden.c[name] for name in index.key_columns]
    have_keys = [key.is_not(None) for key in keys]
    # A name of its own, so that the inner rows are compared with these, and not with themselves.
    rows = sa.select(*keys).where(*have_keys).subquery("undecided_rows")
    same = [shown.c[name] == rows.c[name] for name in index.key_columns]
    one: sa.ColumnClause[Any] = sa.literal_column("1")
    shown_row = sa.select(one).select_from(shown).where(*same)
    return sa.select(*rows.c).where(~sa.exists(shown_row))


def _with_keys_only(index: IndexSettings) -> IndexSettings:
    """Return an index of the same documents that reads their keys only."""
    less: dict[str, Any] = dict.fromkeys(("title", "link", "access", "language_column"))
    less |= {"text": index.key_columns, "payload": [], "parts": [], "format": {}}
    return index.model_copy(update=less)


def check_decisions(connection: Connection, index: IndexSettings) -> None:
    """Check that each column with a decision exists, and can be read as a text.

    Raises:
        SettingsError: A column does not exist, or cannot be read.
    """
    for decision in decisions_of(index):
        what = f"visible {decision.name!r}"
        if decision.keys and decision.table is None:
            what += (
                f" (no $visible({decision.name}) refers to it, so that {decision.column!r} is a"
                " column)"
            )
        if decision.table is None and index.query is not None:
            # The condition is around the query.
            index_decided = decided(index, connection.dialect)
            rows = own_rows(index_decided, index.key_columns, "documents")
            first_rows(connection, index, sa.select(rows), f"{what} of the query", limit=1)
            continue
        name = decision.table or index.table or ""
        schema = decision.schema if decision.table else index.db_schema
        table = SourceTable(name, schema, (decision.column,), "")
        # In SQLite, a quoted name that no column has is a text, unless it follows a table.
        rows = sa.table(name, schema=schema).alias("decided_rows")
        text = decision.text(connection.dialect, rows.name)
        value: sa.ColumnClause[Any] = sa.literal_column(text)
        statement: Select[Any] = sa.select(value).select_from(rows)
        first_rows(connection, index, statement, f"{what} of table {name!r}", limit=1, table=table)
