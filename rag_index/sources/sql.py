"""A table or a query of any database that SQLAlchemy supports, read-only and in keyset pages.

Keyset paging is `WHERE key > :last ORDER BY key LIMIT n` (Markus Winand, "We need tool support for keyset pagination").
If that would sort everything again for each page (a query on a server), one streaming cursor is read instead.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.database.urls import redacted_url
from rag_index.documents.keys import document_id, encode_key, key_parts
from rag_index.errors import SourceError, SourceUnavailable
from rag_index.outages import asking
from rag_index.sources import SourcePage
from rag_index.sources.access import AccessReader
from rag_index.sources.checks import check_query, check_rows, check_tables
from rag_index.sources.engine import limit_on_server, limited, open_read_only, source_error
from rag_index.sources.lookup import find_keys, find_rows
from rag_index.sources.pages import STREAMED, PageReader
from rag_index.sources.parts import PartsReader, invalid_text, owners_of, replace_invalid
from rag_index.sources.rows import RowReader, read_columns
from rag_index.sources.statement import untyped
from rag_index.sources.tables import OF_PART, documents_from, looked_up, query_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import Select

    from rag_index.settings import IndexSettings
    from rag_index.sources import ScanState
    from rag_index.sources.parts import DocumentParts

TIMEOUT = 600.0
"""Seconds that a query may take, unless the settings say otherwise."""
USUAL_SECONDS = 10.0
"""Seconds after which the progress says that the database does not answer."""


def not_unique(index: IndexSettings, key: str) -> SourceError:
    """Return the error for a key that several rows have."""
    return SourceError(
        f"index {index.name}: key {document_id(key)} ({', '.join(index.key_columns) or index.kind}) occurs more than "
        "once; name a key that is unique, of several columns if necessary"
    )


class SqlSource:
    """The table or the query of an index, as a `Source`."""

    def __init__(self, url: URL, index: IndexSettings, *, timeout: float = TIMEOUT) -> None:
        self._index = index
        self._url = url
        self._timeout = timeout
        self._name = f"source {redacted_url(url)}"
        self._engine = open_read_only(url)
        self._reader = RowReader(index)
        self._access = None if index.access is None else AccessReader(index)
        self._parts = PartsReader(index, self._reader.positions) if index.parts else None
        self._fitting = sys.maxsize
        """The documents whose parts are expected to fit into a page."""
        self._from = documents_from(index)
        self._keys: list[sa.ColumnElement[Any]] = [self._from.c[name] for name in index.key_columns]
        backend = url.get_backend_name()
        self._streams = index.query is not None and backend != "sqlite"
        self._row_values = backend in ("sqlite", "postgresql")
        self._exact = backend == "sqlite" and len(self._keys) == 1
        self._order: list[sa.ColumnElement[Any]] = list(self._keys)
        if self._exact:  # for the column's own collation, "a" and "A" may be the same key
            self._order = [sa.collate(self._keys[0], "BINARY")]
        self._stream: PageReader | None = None
        self._connection: Connection | None = None

    def check(self) -> None:
        """Check that table, columns and key fit the settings."""
        with self._connect() as connection:
            if self._index.query is not None:
                check_query(connection, self._index, query_from(self._index))
            check_tables(connection, self._index)
            self._check_conditions(connection)
            no_key = sa.or_(*[key.is_(None) for key in self._keys])
            nulls = connection.scalar(sa.select(sa.func.count()).select_from(self._from).where(no_key))
            if self._access is not None:
                keys = sa.select(*self._keys).where(*self._keys_not_null()).limit(1)
                self._access.check(connection, connection.execute(keys).fetchone())
        if nulls:
            raise SourceError(
                f"index {self._index.name}: {nulls} row{'s have' if nulls > 1 else ' has'} NULL in the key "
                f"({', '.join(self._index.key_columns)}); name another key, or exclude them with a query"
            )

    def _check_conditions(self, connection: Connection) -> None:
        """Check that conditions are SQL, and that the keys of parts can be compared with those of documents."""
        index = self._index
        first = None
        if index.joins or index.where is not None or index.newest is not None:
            what = "the query of its table with where, newest and joins"
            first = check_rows(connection, index, self._select(), what)
        if self._parts is not None:
            first = first or check_rows(connection, index, self._select(), "the query of its documents")
            self._parts.check(connection, index, first)

    def use_scan_state(self, state: ScanState) -> None:
        """Do nothing: everything is read each time."""

    def count(self) -> int:
        """Return how many rows have a key."""
        with self._connect() as connection:
            statement = sa.select(sa.func.count()).select_from(self._from).where(*self._keys_not_null())
            return int(connection.scalar(statement) or 0)

    def count_parts(self) -> dict[str, int]:
        """Return how many rows each table of parts has now, by the name of the part. Raises as `page`."""
        found: dict[str, int] = {}
        if self._parts is None:
            return found
        with self._connect(patience=self._timeout) as connection:
            for table in self._parts.tables:
                rows = table.select().with_only_columns(sa.func.count(), maintain_column_froms=True)
                found[table.label] = int(connection.scalar(rows) or 0)
        return found

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return at most `rows` documents after the key `cursor`."""
        rows = min(rows, self._fitting)
        if self._streams:
            return self._read_stream(cursor, rows)
        statement = self._select()
        if cursor is not None:
            statement = statement.where(self._after(cursor))
        with self._connect() as connection:
            found, following = self._fetch_page(connection, statement.order_by(*self._order).limit(rows + 1), rows)
            parts = self._read_parts(connection, found)
            if parts is not None and len(parts) < len(found):
                found, following = found[: len(parts)], found[len(parts)]
            last = None
            if following is not None:
                width = len(self._keys)
                last = tuple(found[-1][:width])  # the next page begins after all rows of this key
                if last == tuple(following[:width]) or self._is_shared(connection, last):
                    raise not_unique(self._index, encode_key(last))
        return self._read(found, last, parts=parts)

    def documents(self, ids: Sequence[str]) -> SourcePage:
        """Return the documents with these ids, as far as they exist."""
        wanted = [key_parts(text, self._index.key_columns) for text in ids]
        with self._connect() as connection:
            check_tables(connection, self._index)  # SQLite reads the name of a missing column as a text
            found = find_rows(connection, self._select(), self._keys, wanted, self._fetch)
        return self._read(found, None)

    def keys_with(self, column: str, values: Sequence[Any]) -> Iterator[str]:
        """Yield the typed keys of the documents that have one of these values in a column of `look_up_columns`.

        Documents that conditions leave out are among them: a change may have done that. The keys are fetched as they
        are consumed. Raises SourceUnavailable or SourceError.
        """
        label, of_part, name = column.partition(OF_PART)
        part = next((one for one in self._index.parts if of_part and one.label == label), None)
        rows = documents_from(self._index, filtered=False)
        keys = [rows.c[key] for key in self._index.key_columns]
        with self._connect() as connection:
            if part is None:
                yield from find_keys(connection, keys, looked_up(rows, column), values)
                return
            columns = [of_document for _, of_document in part.pairs(self._index.key_columns)]
            owners = owners_of(connection, part, self._index, name, values)
            if set(columns) == set(self._index.key_columns):
                order = [columns.index(key) for key in self._index.key_columns]
                yield from (encode_key([found[place] for place in order]) for found in owners)
                return
            distinct = list(dict.fromkeys(found[0] for found in owners))
            yield from find_keys(connection, keys, rows.c[columns[0]], distinct)

    def close(self) -> None:
        """Close the connections."""
        self._end_stream()
        self._engine.dispose()

    def _select(self) -> Select[Any]:
        columns, index = self._from.c, self._index
        names = [*read_columns(index), *filter(None, [index.access_column])]
        read = [*self._keys, *[columns[name] for name in names]]
        return sa.select(*read).where(*self._keys_not_null())

    def _keys_not_null(self) -> list[sa.ColumnElement[bool]]:
        return [key.is_not(None) for key in self._keys]

    def _after(self, cursor: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Return the condition for the rows after a key."""
        values = [untyped(value) for value in cursor]
        if len(values) == 1:
            return self._order[0] > values[0]
        if self._row_values:
            return sa.tuple_(*self._order) > sa.tuple_(*values)
        condition = self._order[-1] > values[-1]
        for key, value in reversed(list(zip(self._order[:-1], values[:-1], strict=True))):
            condition = sa.and_(key >= value, sa.or_(key > value, condition))  # the first part can use an index
        return condition

    def _is_shared(self, connection: Connection, last: Sequence[Any]) -> bool:
        """Return whether several rows have this key for the database, though not for Python: "a" and "A"."""
        if self._exact or not any(isinstance(value, str) for value in last):
            return False
        same = [key == untyped(value) for key, value in zip(self._keys, last, strict=True)]
        return int(connection.scalar(sa.select(sa.func.count()).select_from(self._from).where(*same)) or 0) > 1

    def _read(
        self,
        rows: Sequence[Sequence[Any]],
        cursor: Any,
        groups: Sequence[Sequence[str]] | None = None,
        parts: Sequence[DocumentParts] | None = None,
    ) -> SourcePage:
        """Return a page of these rows, whose groups and parts are read unless they are given."""
        if groups is None:
            groups = self._groups(rows)
        if parts is None and self._parts is not None:
            with self._connect() as connection:
                parts = self._parts.read(connection, rows)
        documents, unreadable = self._reader.read(rows, groups, parts)
        keys = [*documents.keys, *(failure.key for failure in unreadable)]
        if len(set(keys)) < len(keys):
            raise not_unique(self._index, next(key for number, key in enumerate(keys) if key in keys[:number]))
        page = SourcePage(documents, cursor, unreadable)
        if groups is None or not unreadable:
            return page
        groups_by_key = {encode_key(row[: len(self._keys)]): some for row, some in zip(rows, groups, strict=True)}
        return replace(page, groups={failure.key: groups_by_key[failure.key] for failure in unreadable})

    def _read_parts(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[DocumentParts] | None:
        """Return the parts of the first of these rows, of as many as fit into a page; None for an index without."""
        if self._parts is None or not rows:
            return None
        parts = self._parts.read_fitting(connection, rows)
        # the next page does not ask for rows whose parts would not fit
        self._fitting = min(2 * self._fitting, sys.maxsize) if len(parts) == len(rows) else len(parts)
        return parts

    def _groups(self, rows: Sequence[Sequence[Any]], connection: Connection | None = None) -> list[list[str]] | None:
        """Return the groups of each row; None for an index without `access`."""
        if self._access is None or self._index.access_query is None:
            return self._access.in_rows(rows) if self._access is not None else None
        if connection is not None:
            return self._access.in_pairs(connection, rows)
        with self._connect() as own:  # that of a stream is busy
            return self._access.in_pairs(own, rows)

    def _fetch(self, connection: Connection, statement: Select[Any]) -> Sequence[Sequence[Any]]:
        """Return all rows of a statement that has few."""
        return self._fetch_page(connection, statement, sys.maxsize)[0]

    def _fetch_page(
        self, connection: Connection, statement: Select[Any], rows: int
    ) -> tuple[list[Sequence[Any]], Sequence[Any] | None]:
        """Return the rows of a page and the row after it, as `PageReader.page`."""
        try:
            return _execute(connection, statement, rows)
        except exc.OperationalError as error:
            if "decode to UTF-8" not in str(error.orig):
                raise
        with invalid_text(connection):  # replace such bytes in this page, except in keys
            page, following = _execute(connection, statement, rows)
        width = len(self._keys)
        return [(*row[:width], *map(replace_invalid, row[width:])) for row in page], following

    def _read_stream(self, cursor: Any, rows: int) -> SourcePage:
        try:
            if cursor is None:
                self._open_stream()
            if self._connection is None:
                raise SourceUnavailable(
                    f"index {self._index.name}: the connection was lost during the query; run it again"
                )
            with asking(self._name, patience=USUAL_SECONDS), self._limited(self._connection, streams=True):
                stream = self._stream = self._stream or self._begin_stream(self._connection)
                found, following = stream.page(rows)
            parts = None
            if self._parts is not None:
                with self._connect() as own:  # that of the stream is busy
                    parts = self._read_parts(own, found)
            if parts is not None and len(parts) < len(found):
                stream.put_back(found[len(parts) :])
                found, following = found[: len(parts)], found[len(parts)]
        except exc.SQLAlchemyError as error:
            self._end_stream()
            raise self._source_error(error) from error
        except SourceUnavailable:
            self._end_stream()
            raise
        if following is None:
            self._end_stream()
            return self._read(found, None, parts=parts)
        return self._read(found, "streaming", parts=parts)

    def _open_stream(self) -> None:
        self._end_stream()
        self._connection = self._engine.connect()

    def _begin_stream(self, connection: Connection) -> PageReader:
        if self._url.get_backend_name() == "postgresql":  # embedding a page may take longer than the server waits
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        return PageReader(connection.execute(self._select(), execution_options=STREAMED))

    def _end_stream(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._stream = None

    @contextmanager
    def _connect(self, *, patience: float = USUAL_SECONDS) -> Iterator[Connection]:
        """Yield a connection, and raise its errors as ours."""
        try:
            with (
                asking(self._name, patience=patience),
                self._engine.connect() as connection,
                self._limited(connection),
            ):
                yield connection
        except exc.SQLAlchemyError as error:
            raise self._source_error(error) from error

    @contextmanager
    def _limited(self, connection: Connection, *, streams: bool = False) -> Iterator[None]:
        """Limit the time of the queries in the block. Raises SourceTimedOut."""
        with limited(connection, self._timeout, self._name):
            if not streams or self._stream is None:
                limit_on_server(connection, self._timeout, streams=streams)
            yield

    def _source_error(self, error: exc.SQLAlchemyError) -> Exception:
        return source_error(error, self._url, f"index {self._index.name}")


def _execute(
    connection: Connection, statement: Select[Any], rows: int
) -> tuple[list[Sequence[Any]], Sequence[Any] | None]:
    with connection.execute(statement, execution_options=STREAMED) as result:
        return PageReader(result).page(rows)
