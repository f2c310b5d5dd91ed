"""Who may see the documents of a database: a column with groups, or a query that gives pairs of key and group."""

from __future__ import annotations

import decimal
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.database.urls import is_transient
from rag_index.documents.access import groups_of
from rag_index.errors import SettingsError
from rag_index.sources.statement import any_untyped, single_select, untyped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection, CursorResult
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.settings import IndexSettings

KEYS_AT_A_TIME = 200
"""Documents whose pairs are read by one query."""
FETCH_PAIRS = 1000


class AccessReader:
    """Reads the groups of documents, as `access` of an index says. Not for an index without it."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        self._pairs: FromClause | None = None

    def check(self, connection: Connection, key: Sequence[Any] | None) -> None:
        """Check that the query of pairs runs, and that its keys can be compared with `key`, that of some document.

        Raises:
            SettingsError: it does not, or they cannot.
        """
        if self._index.access_query is None:
            return
        try:
            pairs = self._pairs_of(connection)
            row = connection.execute(sa.select(*pairs.c).limit(1)).fetchone()
            if key is not None:
                next(self._rows(connection, pairs, [key]), None)
        except exc.DBAPIError as error:
            if is_transient(error):
                raise
            reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
            raise SettingsError(f"{self._name}: the query of access fails: {reason}") from error
        if row is None or key is None:
            return
        for own, other, name in zip(row, key, self._index.key_columns, strict=False):
            if own is not None and type(_comparable(own)) is not type(_comparable(other)):
                raise SettingsError(
                    f"{self._name}: access gives keys of type {type(own).__name__} ({own!r:.40}), but {name} is "
                    f"{type(other).__name__} ({other!r:.40}); cast one of them in its query"
                )

    def in_rows(self, rows: Sequence[Sequence[Any]]) -> list[list[str]]:
        """Return the groups of each row, which ends with the column that has them."""
        return [groups_of(row[-1], self._index.access_separator) for row in rows]

    def in_pairs(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[list[str]]:
        """Return the groups of each row, which begins with its key, by the query of pairs.

        Raises the driver's errors.
        """
        pairs = self._pairs_of(connection)
        found: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for start in range(0, len(rows), KEYS_AT_A_TIME):
            keys = [row[: self._width] for row in rows[start : start + KEYS_AT_A_TIME]]
            for pair in self._rows(connection, pairs, keys):
                found[_comparable_key(pair[: self._width])].append(pair[self._width])
        return [groups_of(found.get(_comparable_key(row[: self._width]))) for row in rows]

    @property
    def _name(self) -> str:
        return f"index {self._index.name}"

    def _rows(
        self, connection: Connection, pairs: FromClause, keys: Sequence[Sequence[Any]]
    ) -> Iterator[Sequence[Any]]:
        """Yield the pairs of these documents."""
        columns = list(pairs.c)[: self._width]
        statement: Select[Any] = sa.select(*pairs.c)
        if self._width == 1:
            statement = statement.where(columns[0].in_(any_untyped([key[0] for key in keys])))
        else:
            same = (zip(columns, key, strict=True) for key in keys)
            statement = statement.where(sa.or_(*[sa.and_(*[c == untyped(value) for c, value in one]) for one in same]))
        result = connection.execute(statement)
        while some := result.fetchmany(FETCH_PAIRS):
            yield from some

    def _pairs_of(self, connection: Connection) -> FromClause:
        """Return the query of pairs, with the names of its columns.

        Raises:
            SettingsError: it has another number of columns than the key and the group.
        """
        if self._pairs is None:
            query = single_select(str(self._index.access_query), self._index.name)
            every: Select[Any] = sa.select(sa.literal_column("*")).select_from(query.columns().subquery("pairs"))
            result: CursorResult[Any] = connection.execute(every.limit(0))
            names = list(result.keys())
            result.close()
            if len(set(names)) != self._width + 1:
                wanted = ", ".join([*self._index.key_columns, "group"])
                raise SettingsError(
                    f"{self._name}: the query of access gives {len(names)} columns ({', '.join(names)}); it should "
                    f"give {wanted}, each under a name of its own"
                )
            self._pairs = query.columns(*[sa.column(name) for name in names]).subquery("pairs")
        return self._pairs


def _comparable_key(key: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(map(_comparable, key))


def _comparable(value: Any) -> Any:
    """Return a value that is equal for equal keys whatever the type of number; a number never equals a text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, decimal.Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return bytes(value) if isinstance(value, bytearray | memoryview) else value
