"""The rows that documents and their parts are read from, as subqueries: a table or a query, conditions, and joins.

Whatever an index declares becomes a subquery with the columns that it names, so that paging, digests, look-ups and
checks know of one kind of source. Each table with a condition stands in a subquery of its own, in which the condition
can name columns as they are. All of it can be flattened by a database: there is no aggregate, no order and no limit.

A column of a join is named `NAME.column` in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.settings.parts import split_name, split_prefix
from rag_index.sources.statement import number_after, single_select

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.sql.selectable import FromClause

    from rag_index.settings import IndexSettings
    from rag_index.settings.parts import JoinSettings, PartSettings


OF_PART = ": "
"""What stands between the name of a part and one of its columns, where documents are looked up by the latter."""
ROWS = "_rows"
"""The rows of the table itself beside those that are joined, none of which has such a name."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that an index reads, with the columns that it needs."""

    table: str
    schema: str | None
    columns: tuple[str, ...]
    """The columns that the settings name, once each, without those of conditions."""
    where: tuple[str, ...]
    """The conditions, in SQL, that decide about its rows."""
    place: str
    """What the settings call it, for a message: "", "join customer", "part remark"."""


@dataclass(frozen=True, slots=True)
class TableRoute:
    """How a changed row of a table leads to the documents that show it."""

    table: SourceTable
    keys: tuple[str, ...]
    """The columns of the table whose values make the id of the document, or one column that is looked up."""
    look_up: str | None
    """What the value of that column is looked up in (see `keys_by`); None if the values make the id."""


def document_columns(index: IndexSettings) -> list[str]:
    """Return all columns of documents that the settings of an index name, those of joins as `NAME.column`."""
    more = filter(None, [index.changed_since, *[entry.column for entry in index.depends_on]])
    return list(dict.fromkeys([*content_columns(index), *more]))


def content_columns(index: IndexSettings) -> list[str]:
    """Return the columns that decide what documents say, who sees them, and which parts and joined rows they have."""
    on = [column for part in index.parts for _, column in part.pairs(index.key_columns)]
    more = filter(None, [index.access_column, index.language_column])
    return list(dict.fromkeys([*index.shown_columns, *more, *on, *_on(index.joins)]))


def own_columns(index: IndexSettings) -> list[str]:
    """Return the columns of its own table or query that an index needs."""
    return _own_columns(document_columns(index), index.joins)


def used_columns(index: IndexSettings, table: SourceTable) -> set[str]:
    """Return the columns of a table whose change matters, without those of conditions."""
    if table.place:
        return set(table.columns)
    return {*_own_columns(content_columns(index), index.joins), *filter(None, [index.newest])}


def part_columns(part: PartSettings, key: Iterable[str]) -> list[str]:
    """Return all columns of a part that the settings name, those of joins as `NAME.column`."""
    on = [column for column, _ in part.pairs(list(key))]
    return list(dict.fromkeys([*on, *part.shown_columns, *[name for name, _ in part.order], *_on(part.joins)]))


def source_tables(index: IndexSettings) -> list[SourceTable]:
    """Return the tables that an index declares, its own first; a query is none of them."""
    found: list[SourceTable] = []
    if index.table is not None:
        found.append(_own_table(index))
    found += _joined(document_columns(index), index.joins)
    for part in index.parts:
        names = part_columns(part, index.key_columns)
        found.append(_part_table(part, names))
        found += _joined(names, part.joins, f"part {part.label}, ")
    return found


def _own_table(index: IndexSettings) -> SourceTable:
    versions = [index.newest] if index.newest else []
    conditions = tuple(filter(None, [index.where, index.newest_among]))
    columns = tuple(dict.fromkeys([*own_columns(index), *versions]))
    return SourceTable(str(index.table), index.db_schema, columns, conditions, "")


def _part_table(part: PartSettings, names: list[str]) -> SourceTable:
    conditions = tuple(filter(None, [part.where]))
    columns = tuple(_own_columns(names, part.joins))
    return SourceTable(part.table, part.db_schema, columns, conditions, f"part {part.label}")


def table_routes(index: IndexSettings) -> list[TableRoute]:
    """Return how changed rows lead to documents, for each table that an index declares."""
    found, key = [], index.key_columns
    if index.table is not None:
        found.append(TableRoute(_own_table(index), tuple(key), None))
    of_joins = zip(index.joins.values(), _joined(document_columns(index), index.joins), strict=True)
    for join, table in of_joins:
        own, other = _looked_up(join)
        found.append(TableRoute(table, (own,), None if [other] == key else other))
    for part in index.parts:
        names = part_columns(part, key)
        found.append(_part_route(part, _part_table(part, names), key))
        for join, table in zip(part.joins.values(), _joined(names, part.joins), strict=True):
            own, other = _looked_up(join)
            found.append(TableRoute(table, (own,), f"{part.label}{OF_PART}{other}"))
    return found


def _looked_up(join: JoinSettings) -> tuple[str, str]:
    """Return a column of a joined table, and the column that it equals, or of which it equals the number."""
    own, other = join.pairs[0]
    prefix = join.prefixes[0]
    return own, f"{prefix}{{{other}}}" if prefix else other


def looked_up(rows: FromClause, name: str) -> sa.ColumnElement[Any]:
    """Return the column of rows that `look_up` of a route names, or the number in it: `tt:{content_address}`."""
    prefix, column = ("", name) if name in rows.c else split_prefix(name)
    return number_after(prefix, rows.c[column]) if prefix else rows.c[column]


def look_up_columns(index: IndexSettings) -> set[str]:
    """Return what documents may be looked up by: columns of documents, and those of parts (`PART: COLUMN`)."""
    declared = [route.look_up for route in table_routes(index)]
    return {*filter(None, declared), *[entry.column for entry in index.depends_on]}


def _part_route(part: PartSettings, table: SourceTable, key: list[str]) -> TableRoute:
    """Return how a changed row of a part leads to its documents."""
    pairs = part.pairs(key)
    by_column = {column: own for own, column in pairs}
    joins = [split_name(own, part.joins)[0] for own, _ in pairs]
    if joins[0] is not None:
        return TableRoute(table, (_first_on(part, joins[0]),), f"{part.label}{OF_PART}{_first_on(part, joins[0])}")
    if by_column.keys() == set(key) and not any(joins):
        return TableRoute(table, tuple(by_column[name] for name in key), None)
    return TableRoute(table, (pairs[0][0],), pairs[0][1])


def _first_on(part: PartSettings, join: str) -> str:
    """Return the column of the table of a part itself that decides which row of a join it has."""
    other = part.joins[join].pairs[0][1]
    before, _ = split_name(other, part.joins)
    return other if before is None else _first_on(part, before)


def documents_from(index: IndexSettings, *, filtered: bool = True) -> FromClause:
    """Return the rows of documents. If not `filtered`, those that conditions and joins leave out are there, too."""
    columns, own = document_columns(index), own_columns(index)
    if index.query is not None:
        query = single_select(index.query, index.name)
        base: FromClause = query.columns(*map(sa.column, own)).subquery(ROWS if index.joins else "documents")
    else:
        base = _own_rows(index, own, filtered=filtered)
    return _with_joins(base, columns, index.joins, index.name, "documents", filtered=filtered)


def query_from(index: IndexSettings) -> FromClause:
    """Return the rows of the query of an index, without its joins."""
    query = single_select(str(index.query), index.name)
    return query.columns(*map(sa.column, own_columns(index))).subquery("documents")


def part_from(part: PartSettings, index: IndexSettings, *, filtered: bool = True) -> FromClause:
    """Return the rows of a part. If not `filtered`, those that conditions and joins leave out are there, too."""
    columns = part_columns(part, index.key_columns)
    where = part.where if filtered else None
    own = _own_columns(columns, part.joins)
    base = _rows(part.table, part.db_schema, own, where, index.name, ROWS if part.joins else part.label)
    return _with_joins(base, columns, part.joins, index.name, part.label, filtered=filtered)


def _own_rows(index: IndexSettings, own: list[str], *, filtered: bool) -> FromClause:
    """Return the rows of the table of an index that its own conditions leave."""
    names = list(dict.fromkeys([*own, *([index.newest] if index.newest else [])]))
    table = sa.table(str(index.table), *map(sa.column, names), schema=index.db_schema)
    if not filtered or (index.where is None and index.newest is None):
        return table.alias(ROWS) if index.joins else table
    statement = sa.select(*[table.c[name] for name in own])
    if index.newest is not None:
        newer = table.alias("newer")
        same = [newer.c[key] == table.c[key] for key in index.key_columns]
        later = newer.c[index.newest] > table.c[index.newest]
        among = _conditions(index.newest_among, index.name)
        statement = statement.where(
            table.c[index.newest].is_not(None),
            ~sa.exists(sa.select(sa.literal_column("1")).select_from(newer).where(*same, later, *among)),
            *among,
        )
    return statement.where(*_conditions(index.where, index.name)).subquery(ROWS if index.joins else "documents")


def _rows(table: str, schema: str | None, columns: list[str], where: str | None, index: str, name: str) -> FromClause:
    """Return the rows of a table that a condition leaves, under this name."""
    rows = sa.table(table, *map(sa.column, columns), schema=schema)
    if where is None:
        return rows.alias(name)
    return sa.select(*rows.c).where(*_conditions(where, index)).subquery(name)


def _conditions(where: str | None, index: str) -> list[sa.ColumnElement[bool]]:
    """Return a condition of the settings as one of a statement."""
    if where is None:
        return []
    text = single_select(where, index, "condition")
    return [sa.text(f"({text.text})")]  # type: ignore[list-item]


def _with_joins(
    base: FromClause,
    columns: list[str],
    joins: Mapping[str, JoinSettings],
    index: str,
    name: str,
    *,
    filtered: bool,
) -> FromClause:
    """Return a subquery `name` of the columns of `base` and of its joins; `base` itself if there are none."""
    if not joins:
        return base
    froms: dict[str | None, FromClause] = {None: base}
    joined = base
    for join_name, join in joins.items():
        on = [column for column, _ in join.pairs]
        needed = [column for n in _named(columns, joins) if (column := _of_join(n, join_name, joins)) is not None]
        where = join.where if filtered else None
        rows = _rows(join.table, join.db_schema, list(dict.fromkeys([*on, *needed])), where, index, join_name)
        others = [_column(other, froms, joins) for _, other in join.pairs]
        equal = [number_after(*one) if one[0] else one[1] for one in zip(join.prefixes, others, strict=True)]
        condition = sa.and_(*[rows.c[own] == other for (own, _), other in zip(join.pairs, equal, strict=True)])
        joined = joined.join(rows, condition, isouter=not (join.required and filtered))
        froms[join_name] = rows
    selected = [_column(column, froms, joins).label(column) for column in columns]
    return sa.select(*selected).select_from(joined).subquery(name)


def _joined(columns: list[str], joins: Mapping[str, JoinSettings], place: str = "") -> list[SourceTable]:
    """Return the tables that are joined."""
    found = []
    for name, join in joins.items():
        on = tuple(column for column, _ in join.pairs)
        needed = [column for n in _named(columns, joins) if (column := _of_join(n, name, joins)) is not None]
        conditions = tuple(filter(None, [join.where]))
        names = tuple(dict.fromkeys([*on, *needed]))
        found.append(SourceTable(join.table, join.db_schema, names, conditions, f"{place}join {name}"))
    return found


def _named(columns: Iterable[str], joins: Mapping[str, JoinSettings]) -> list[str]:
    """Return the columns that are needed, those that only joins are on among them."""
    return [*columns, *_on(joins)]


def _on(joins: Mapping[str, JoinSettings]) -> list[str]:
    """Return the columns that joins are on: of the table itself, or of a join before."""
    return [other for join in joins.values() for _, other in join.pairs]


def _own_columns(columns: Iterable[str], joins: Mapping[str, JoinSettings]) -> list[str]:
    """Return the columns of the table itself that are needed."""
    named = [split_name(name, joins) for name in _named(columns, joins)]
    return list(dict.fromkeys(column for join, column in named if join is None))


def _of_join(name: str, join: str, joins: Mapping[str, JoinSettings]) -> str | None:
    """Return the column of this join that a name means; None if it means another one."""
    found, column = split_name(name, joins)
    return column if found == join else None


def _column(
    name: str, froms: Mapping[str | None, FromClause], joins: Mapping[str, JoinSettings]
) -> sa.ColumnElement[Any]:
    join, column = split_name(name, joins)
    return froms[join].c[column]
