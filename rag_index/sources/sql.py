"""A table or a query of any database that SQLAlchemy supports, read-only and in keyset pages.

Keyset paging is `WHERE key > :last ORDER BY key LIMIT n` (Markus Winand, "We need tool support for keyset pagination").
If that would sort everything again for each page (a query on a server), one streaming cursor is read instead.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.database.urls import redacted_url
from rag_index.documents.access import access_part
from rag_index.documents.batches import RESERVED_KEY, DocumentBatch, Failure
from rag_index.documents.canonical import encode_payloads, hash_bytes, hash_text
from rag_index.documents.keys import document_id, encode_key, encode_keys, key_parts
from rag_index.errors import SourceError, SourceUnavailable
from rag_index.outages import asking
from rag_index.sources import SourcePage
from rag_index.sources.access import AccessReader
from rag_index.sources.checks import check_query, check_table
from rag_index.sources.engine import limit_on_server, limited, open_read_only, source_error
from rag_index.sources.lookup import find_keys, find_rows
from rag_index.sources.pages import STREAMED, PageReader
from rag_index.sources.statement import single_select, untyped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.settings import IndexSettings
    from rag_index.sources import ScanState

TIMEOUT = 600.0
"""Seconds that a query may take, unless the settings say otherwise."""
USUAL_SECONDS = 10.0
"""Seconds after which the progress says that the database does not answer."""


class RowReader:
    """Converts rows of (key columns, text columns, payload columns, …) as the settings of an index say."""

    def __init__(self, index: IndexSettings) -> None:
        self._text_names = index.text_columns
        self._text_start = len(index.key_columns)
        self._payload_start = self._text_start + len(self._text_names)
        self._payload_names = index.payload
        self._payload_end = self._payload_start + len(self._payload_names)
        self._template: list[tuple[str, int | None]] | None = None
        """Pairs of a literal text and the number of the text column after it."""
        if (template := index.template) is not None:
            numbers = {name: number for number, name in enumerate(self._text_names)}
            self._template = [(literal, numbers[name] if name else None) for literal, name in template]

    def read(
        self, rows: Sequence[Sequence[Any]], groups: Sequence[Sequence[str]] | None = None
    ) -> tuple[DocumentBatch, list[Failure]]:
        """Return the documents of these rows, in order, and the failures of those whose text is not text.

        `groups` are those of each row, for an index with `access`: they become a part of the payload.

        Raises:
            SourceError: a value cannot be a key.
        """
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * self._payload_end
        keys = encode_keys(columns[: self._text_start])
        texts = self._texts(columns[self._text_start : self._payload_start])
        names, values = self._payload_names, columns[self._payload_start : self._payload_end]
        if groups is not None:
            names, values = [*names, RESERVED_KEY], [*values, [access_part(some) for some in groups]]
        payloads = encode_payloads(names, values, len(rows))
        unreadable: list[Failure] = []
        if None in texts:
            bad = [number for number, text in enumerate(texts) if text is None]
            unreadable = [Failure(keys[n], self._reason(rows[n][self._text_start : self._payload_start])) for n in bad]
            good = [number for number, text in enumerate(texts) if text is not None]
            keys, payloads = [keys[n] for n in good], [payloads[n] for n in good]
        readable = [text for text in texts if text is not None]
        hashes = list(map(hash_text, readable)), list(map(hash_bytes, payloads))
        return DocumentBatch(keys, readable, payloads, *hashes), unreadable

    def _texts(self, columns: Sequence[Sequence[Any]]) -> list[str | None]:
        """Return the text of each row, None if a value is not text. The usual case, one column of texts, is fast."""
        if len(columns) > 1 or self._template is not None or not set(map(type, columns[0])) <= {str, type(None)}:
            return [self._text(values) for values in zip(*columns, strict=True)]
        return [_clean(value) if value else "" for value in columns[0]]

    def _text(self, values: Sequence[Any]) -> str | None:
        """Return the text of one row; None if a value is not text."""
        parts: list[str] = []
        for value in values:
            if type(value) is str:
                parts.append(value)
            elif value is None:
                parts.append("")
            elif isinstance(value, dict | list):
                parts.append(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))
            else:
                return None
        if self._template is not None:
            text = self._fill_template(parts) if any(part and not part.isspace() for part in parts) else ""
        elif len(parts) == 1:
            text = parts[0]
        else:
            text = "\n".join(part for part in parts if part)
        return _clean(text)

    def _fill_template(self, parts: Sequence[str]) -> str:
        """Return the template filled with the values of the columns. Braces within a value have no meaning."""
        template = self._template or []
        return "".join(literal if number is None else literal + parts[number] for literal, number in template)

    def _reason(self, values: Sequence[Any]) -> str:
        for name, value in zip(self._text_names, values, strict=True):
            if value is not None and not isinstance(value, str | dict | list):
                return f"column {name!r} holds {type(value).__name__} ({value!r:.40}), not text; cast it in a query"
        return "the text cannot be read"


def _clean(text: str) -> str:
    """Replace NUL characters, at which tokenizers written in C end a text; return "" for white space alone."""
    if "\0" in text:
        text = text.replace("\0", " ")
    return text if not text.isspace() else ""


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
        self._from = self._documents()
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
            if self._index.table is not None:
                check_table(connection, self._index)
            else:
                check_query(connection, self._index, self._from)
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

    def use_scan_state(self, state: ScanState) -> None:
        """Do nothing: everything is read each time."""

    def count(self) -> int:
        """Return how many rows have a key."""
        with self._connect() as connection:
            statement = sa.select(sa.func.count()).select_from(self._from).where(*self._keys_not_null())
            return int(connection.scalar(statement) or 0)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return at most `rows` documents after the key `cursor`."""
        if self._streams:
            return self._read_stream(cursor, rows)
        statement = self._select()
        if cursor is not None:
            statement = statement.where(self._after(cursor))
        with self._connect() as connection:
            found, following = self._fetch_page(connection, statement.order_by(*self._order).limit(rows + 1), rows)
            last = None
            if following is not None:
                width = len(self._keys)
                last = tuple(found[-1][:width])  # the next page begins after all rows of this key
                if last == tuple(following[:width]) or self._is_shared(connection, last):
                    raise not_unique(self._index, encode_key(last))
        return self._read(found, last)

    def documents(self, ids: Sequence[str]) -> SourcePage:
        """Return the documents with these ids, as far as they exist."""
        wanted = [key_parts(text, self._index.key_columns) for text in ids]
        with self._connect() as connection:
            if self._index.table is not None:  # SQLite reads the name of a missing column as a text
                check_table(connection, self._index)
            found = find_rows(connection, self._select(), self._keys, wanted, self._fetch)
        return self._read(found, None)

    def keys_with(self, column: str, values: Sequence[Any]) -> Iterator[str]:
        """Yield the typed keys of the documents that have one of these values in a column of `depends_on`.

        They are fetched as they are consumed. Raises SourceUnavailable or SourceError.
        """
        with self._connect() as connection:
            yield from find_keys(connection, self._keys, self._from.c[column], values)

    def close(self) -> None:
        """Close the connections."""
        self._end_stream()
        self._engine.dispose()

    def _documents(self) -> FromClause:
        """Return the table, or the query as a subquery, without types: odd values arrive as the driver has them."""
        index = self._index
        more = filter(None, [index.changed_since, index.access_column, *[entry.column for entry in index.depends_on]])
        names = [*index.key_columns, *index.text_columns, *index.payload, *more]
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in dict.fromkeys(names)]
        if index.table is not None:
            return sa.table(index.table, *columns, schema=index.db_schema)
        return single_select(str(index.query), index.name).columns(*columns).subquery("documents")

    def _select(self) -> Select[Any]:
        columns, index = self._from.c, self._index
        names = [*index.text_columns, *index.payload, *filter(None, [index.access_column])]
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
        self, rows: Sequence[Sequence[Any]], cursor: Any, groups: Sequence[Sequence[str]] | None = None
    ) -> SourcePage:
        """Return a page of these rows, whose groups are read unless they are given."""
        if groups is None:
            groups = self._groups(rows)
        documents, unreadable = self._reader.read(rows, groups)
        keys = [*documents.keys, *(failure.key for failure in unreadable)]
        if len(set(keys)) < len(keys):
            raise not_unique(self._index, next(key for number, key in enumerate(keys) if key in keys[:number]))
        page = SourcePage(documents, cursor, unreadable)
        if groups is None or not unreadable:
            return page
        groups_by_key = {encode_key(row[: len(self._keys)]): some for row, some in zip(rows, groups, strict=True)}
        return replace(page, groups={failure.key: groups_by_key[failure.key] for failure in unreadable})

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
        # A text column of SQLite holds bytes that are not UTF-8: replace them in this page, except in keys.
        driver: Any = connection.connection.driver_connection
        driver.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
        try:
            page, following = _execute(connection, statement, rows)
        finally:
            driver.text_factory = str
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
        except exc.SQLAlchemyError as error:
            self._end_stream()
            raise self._source_error(error) from error
        except SourceUnavailable:
            self._end_stream()
            raise
        if following is None:
            self._end_stream()
            return self._read(found, None)
        return self._read(found, "streaming")

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


def replace_invalid(value: Any) -> Any:
    """Return a text with U+FFFD in place of bytes that are not UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value
