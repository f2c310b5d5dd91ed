"""Who may see the documents of a database: a column with groups, or a query that gives pairs of key and group."""

from __future__ import annotations

import decimal
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.documents.groups import groups_of
from rag_index.errors import SettingsError
from rag_index.sources.pages import stream_rows
from rag_index.sources.part_reader import comparable_key
from rag_index.sources.source_tables import batches, equals_any, first_rows, single_select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.settings import IndexSettings


class AccessReader:
    """Reads the groups of documents, as `access` of an index says. Not for an index without it."""

    def __init__(self, index: IndexSettings) -> None:
        self._index = index
        self._width = len(index.key_columns)
        self._pairs: FromClause | None = None

    def check(self, connection: Connection, key: Sequence[Any] | None) -> None:
        """Check that the query of pairs runs, and that its keys can be compared with `key`, that of some document.

        Raises SettingsError if it does not, or they cannot.
        """
        if self._index.access_query is None:
            return
        pairs, what = self._pairs_of(connection), "the query of access"
        _, rows = first_rows(connection, self._index, sa.select(*pairs.c), what, limit=1)
        if key is None:
            return
        first_rows(connection, self._index, self._select(connection, pairs, [key]), what, limit=1)
        for own, other, name in zip(rows[0] if rows else (), key, self._index.key_columns, strict=False):
            if own is not None and _kind(own) != _kind(other):
                raise SettingsError(
                    f"index {self._index.name}: access gives keys of type {type(own).__name__} ({own!r:.40}), but "
                    f"{name} is {type(other).__name__} ({other!r:.40}); cast one of them in its query"
                )

    def groups(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[list[str]]:
        """Return the groups of each row, which begins with its key, and ends with the column that has them, if one has.

        Raises the driver's errors.
        """
        if self._index.asks_database:  # which is asked in each search; whoever does not ask it sees nothing
            return [[] for _ in rows]
        if self._index.access_query is None:
            return [groups_of(row[-1], self._index.access_separator) for row in rows]
        pairs = self._pairs_of(connection)
        keys = [row[: self._width] for row in rows]
        found: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for some in batches(keys):
            for pair in stream_rows(connection, self._select(connection, pairs, some)):
                found[_comparable(pair[: self._width])].append(pair[self._width])
        return [groups_of(found.get(_comparable(key))) for key in keys]

    def _select(self, connection: Connection, pairs: FromClause, keys: Sequence[Sequence[Any]]) -> Select[Any]:
        return sa.select(*pairs.c).where(equals_any(list(pairs.c)[: self._width], keys, connection.dialect.name))

    def _pairs_of(self, connection: Connection) -> FromClause:
        if self._pairs is None:
            query = single_select(str(self._index.access_query), self._index.name)
            every: Select[Any] = sa.select(sa.literal_column("*")).select_from(query.columns().subquery("pairs"))
            names, _ = first_rows(connection, self._index, every, "the query of access", limit=0)
            if len(set(names)) != self._width + 1:
                wanted = ", ".join([*self._index.key_columns, "group"])
                raise SettingsError(
                    f"index {self._index.name}: the query of access gives {len(names)} columns ({', '.join(names)}); "
                    f"it should give {wanted}, each under a name of its own"
                )
            self._pairs = query.columns(*[sa.column(name) for name in names]).subquery("pairs")
        return self._pairs


def _comparable(key: Sequence[Any]) -> tuple[Any, ...]:
    """Return a key in a form that is equal for equal keys whatever the type of number; a number never equals a text."""
    return tuple(zip(map(_kind, key), comparable_key(key), strict=True))


def _kind(value: Any) -> str:
    """Return what kind of values of a key a value can be compared with."""
    kind = "number" if isinstance(value, int | float | decimal.Decimal) else type(value).__name__
    return "bytes" if isinstance(value, bytearray | memoryview) else kind
