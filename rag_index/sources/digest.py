"""A SQL source whose buckets of rows have digests: only the rows of buckets that differ from the last scan are read.

The database computes a digest of each bucket (`sources.buckets`), which takes it one pass over the rows and needs read
rights alone. A run then reads those buckets whose digest is not the one that the ledger has. So it finds every change:
deletions, rows that are committed late, and rows without a time of change, too.

The digests that the ledger gets are sums over the rows as they were read, each with its digest in the same statement.
So they are the digests of what is in the index, whatever the source did between two queries.

A row of a part counts in the bucket of its document. The columns of joins are columns of the row.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from rag_index.documents.batches import DocumentBatch
from rag_index.documents.keys import encode_keys
from rag_index.errors import SettingsError
from rag_index.sources import SourcePage
from rag_index.sources.buckets import (
    BucketDigest,
    BucketLayout,
    RowDigest,
    add_values,
    choose_layout,
    digest_columns,
    read_digest,
    row_digest,
    sum_columns,
    value_bucket,
    values_digest,
)
from rag_index.sources.changed import ChangedSource
from rag_index.sources.parts import invalid_text, replace_invalid, stream_rows
from rag_index.sources.sql import TIMEOUT, SqlSource

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import Select

    from rag_index.settings import IndexSettings
    from rag_index.sources import ScanState
    from rag_index.sources.parts import DocumentParts, PartRows

BACKENDS = ("mariadb", "mysql", "postgresql", "sqlite")
"""The databases whose buckets have digests."""
WHOLE_NUMBERS = {"postgresql": {20, 21, 23}, "mysql": {1, 2, 3, 8, 9}}
"""Drivers' codes of the types of whole numbers."""
RENDERING = {
    "postgresql": "SELECT current_setting('lc_monetary')",
    "mysql": "SELECT concat_ws(' ', @@version, @@time_zone, @@character_set_connection, md5('a'))",
}
"""What the database's way to write values depends on, beside the types of the columns."""
MD5_OF_A = "0cc175b9c0f1b6a831c399e269772661"
SQLITE_ROWS = 20_000
"""Rows whose digests are computed within one query of SQLite, which keeps writers waiting as long as it lasts."""
MAX_LISTED = 4096
"""Buckets that one query lists. If more differ, more is read."""
MAX_SHARE = 0.5
"""If buckets with more than this share of all rows differ, all rows are read: that needs no second look at each key."""
MAX_BUCKETS = 1 << 18
"""If the source has grown until it has more buckets, everything is read and gets larger ones."""


class DigestSource(SqlSource):
    """A `SqlSource` that leaves buckets of rows unread whose digests are as the last scan left them."""

    def __init__(self, url: URL, index: IndexSettings, *, timeout: float = TIMEOUT) -> None:
        super().__init__(url, index, timeout=timeout)
        backend = url.get_backend_name()
        if backend not in BACKENDS:
            self.close()
            raise SettingsError(
                f"[source] digest = true: there are no digests of {backend}, only of PostgreSQL, MariaDB, MySQL and "
                "SQLite; leave digest out"
            )
        self._backend = "mysql" if backend == "mariadb" else backend
        if backend == "sqlite":
            event.listen(self._engine, "connect", self._register_bucket)
        self._streams_always = self._streams
        self._state: ScanState | None = None
        self._layout: BucketLayout | None = None
        self._rows: int | None = None
        self._unread: dict[int, int] = {}
        self._to_read: set[int] | None = None
        if self._parts is not None:
            self._parts.digests = self

    def use_scan_state(self, state: ScanState) -> None:
        """Prepare for a scan. The digests are computed with the first page, or when rows are counted."""
        self._state = state
        self._layout, self._rows, self._unread, self._to_read = None, None, {}, None

    def count(self) -> int:
        """Return how many rows the source has now."""
        if self._state is None:
            return super().count()
        return self._begin(self._state)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of rows from the buckets to be read. The first page has the buckets that stay unread."""
        if self._state is None or cursor is not None:
            return super().page(cursor, rows)
        self._begin(self._state)
        if self._to_read is not None and not self._to_read:
            return SourcePage(DocumentBatch.empty(), None, unread_buckets=self._unread)
        return replace(super().page(cursor, rows), unread_buckets=self._unread)

    def _begin(self, state: ScanState) -> int:
        """Find out which buckets have to be read, once for each scan, and return how many rows there are."""
        if self._rows is not None:
            return self._rows
        since = self._since()  # before the rows are looked at, so that later changes are above it
        with self._connect(patience=self._timeout) as connection:
            types = self._types(connection)
            rendering = self._rendering(connection, types)
            before = BucketLayout.decode(state.last_watermark)
            before = before if before is not None and before.rendering == rendering else None
            if before is not None and state.watermark is not None:
                self._layout = before
                found = self._digests(connection)
                if len(found) <= MAX_BUCKETS:
                    self._compare(state, found)
                else:
                    before = None
            if self._rows is None:
                self._layout, self._rows = self._choose_layout(connection, types, rendering, before)
        if self._layout is not None:
            state.set_watermark(self._layout.encode(since))
        return self._rows

    def _since(self) -> str | None:
        """Return the watermark of times, with which a watch that polls begins after this scan."""
        if self._index.changed_since is None:
            return None
        with closing(ChangedSource(self._url, self._index, timeout=self._timeout)) as times:
            return times.watermark()

    def _compare(self, state: ScanState, found: dict[int, BucketDigest]) -> None:
        """Choose the buckets to read by these digests."""
        known = state.digests()
        differ = {bucket for bucket, digest in found.items() if known.get(bucket) != digest.encode()}
        if len(differ) > MAX_LISTED and self._layout is not None and self._layout.kind == "range":
            differ = {bucket for bucket in found if min(differ) <= bucket <= max(differ)}
        self._rows = sum(digest.rows for digest in found.values())
        rows_to_read = sum(found[bucket].rows for bucket in differ)
        too_many = len(differ) > MAX_LISTED and (self._layout is None or self._layout.kind == "hash")
        if too_many or rows_to_read > MAX_SHARE * self._rows:
            return
        self._to_read = differ
        self._unread = {bucket: digest.rows for bucket, digest in found.items() if bucket not in differ}
        hashed = self._layout is not None and self._layout.kind == "hash"
        # pages in the order of a key do not help to find hashed buckets: one pass does
        self._streams = self._streams_always or (hashed and self._backend != "sqlite")

    def _choose_layout(
        self, connection: Connection, types: Sequence[Any], rendering: str, before: BucketLayout | None
    ) -> tuple[BucketLayout, int]:
        """Return a layout for all rows, the one before if it still fits, and the number of rows."""
        self._streams = self._streams_always
        key = self._keys[0]
        whole = len(self._keys) == 1 and (self._backend == "sqlite" or types[0] in WHOLE_NUMBERS[self._backend])
        ends = [sa.func.min(key), sa.func.max(key)] if whole else [sa.null(), sa.null()]
        statement = sa.select(sa.func.count(), *ends).select_from(self._from).where(*self._keys_not_null())
        rows, *found = connection.execute(statement).one()
        lowest, highest = [value if isinstance(value, int) else None for value in found]
        wanted = choose_layout(rows, lowest, highest, rendering)
        return (before if before is not None and before.fits(wanted) else wanted), rows

    def _digests(self, connection: Connection) -> dict[int, BucketDigest]:
        """Return the digest of each bucket, as the database computes it."""
        if self._backend == "sqlite":
            return self._digests_of_sqlite(connection)
        rows = connection.execute(self.digest_statement(), execution_options={"stream_results": True})
        found = {int(row[0]): BucketDigest.of(*row[1:]) for row in rows}
        for table in self._parts.tables if self._parts is not None else ():
            rows = connection.execute(self._part_statement(table), execution_options={"stream_results": True})
            for bucket, *values in rows:
                _add_part(found, int(bucket), BucketDigest.of(*values)[1:])
        return found

    def digest_statement(self) -> Select[Any]:
        """Return the query of all digests, after the scan has begun. Not for SQLite, which has none."""
        bucket, digest = self._digest_columns()
        rows = sa.select(bucket.label("bucket"), digest.label("digest")).where(*self._keys_not_null())
        if self._backend == "postgresql":  # keeps each digest from being computed once for each half
            rows = rows.offset(sa.literal_column("0"))
        every = rows.subquery("digests")
        return sa.select(every.c.bucket, *sum_columns(self._backend, every.c.digest)).group_by(every.c.bucket)

    def columns(self, table: PartRows) -> list[sa.ColumnElement[Any]]:
        """Return the columns that are read of a part for its digest."""
        if self._backend == "sqlite" or self._layout is None:
            return []
        on = [table.rows.c[name] for name in table.on]
        values = [table.rows.c[name] for name in table.columns[len(on) :]]
        return [digest_columns(self._backend, self._layout, on, values)[1]]

    def plus(self, digest: tuple[int, int], row: Sequence[Any]) -> tuple[int, int]:
        """Return a sum of digests with that of a row of a part more."""
        if self._layout is None:
            return digest
        first, second = values_digest(row) if self._backend == "sqlite" else read_digest(0, row[-1])[1:]
        return digest[0] + first, digest[1] + second

    def _with_parts(self, table: PartRows, *columns: sa.ColumnElement[Any]) -> Select[Any]:
        """Return columns of the documents and of their parts in a table."""
        pairs = zip(table.on, table.of_document, strict=True)
        both: list[tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]] = [
            (table.rows.c[own], self._from.c[other]) for own, other in pairs
        ]
        if self._backend == "postgresql":  # types may differ, such as a text that holds ids of several tables
            both = [(sa.cast(own, sa.Text), sa.cast(other, sa.Text)) for own, other in both]
        same = [own == other for own, other in both]
        joined = self._from.join(table.rows, sa.and_(*same))
        return sa.select(*columns).select_from(joined).where(*self._keys_not_null())

    def _part_statement(self, table: PartRows) -> Select[Any]:
        """Return the query of the digests of all parts in a table, by the buckets of their documents."""
        [digest] = self.columns(table)
        rows = self._with_parts(table, self._digest_columns()[0].label("bucket"), digest.label("digest"))
        if self._backend == "postgresql":
            rows = rows.offset(sa.literal_column("0"))
        every = rows.subquery("digests")
        return sa.select(every.c.bucket, *sum_columns(self._backend, every.c.digest)).group_by(every.c.bucket)

    def _add_parts(self, connection: Connection, found: dict[int, BucketDigest], after: Any, last: Any) -> None:
        """Add the parts of the documents after one key up to another to the digests, as SQLite gives them."""
        width, layout = len(self._keys), self._known_layout
        for table in self._parts.tables if self._parts is not None else ():
            statement = self._with_parts(table, *self._keys, *[table.rows.c[name] for name in table.columns])
            if after is not None:
                statement = statement.where(self._after(after))
            for row in stream_rows(connection, statement.where(sa.not_(self._after(last)))):
                _add_part(found, value_bucket(layout, row[:width]), values_digest(row[width:]))

    def _digests_of_sqlite(self, connection: Connection) -> dict[int, BucketDigest]:
        """Return the digest of each bucket, page by page, so that writers need not wait for all of them."""
        found: dict[int, BucketDigest] = {}
        cursor: Any = None
        while True:
            statement = self._select().order_by(*self._order).limit(SQLITE_ROWS)
            if cursor is not None:
                statement = statement.where(self._after(cursor))
            rows, last = self._digest_page(connection, statement, found)
            if rows:
                self._add_parts(connection, found, cursor, last)
            if rows < SQLITE_ROWS:
                return found
            cursor = last

    def _digest_page(
        self, connection: Connection, statement: Select[Any], found: dict[int, BucketDigest]
    ) -> tuple[int, Any]:
        """Add the rows of one query, which are not kept, to the digests; return their number and the last key."""
        before = dict(found)
        try:
            return self._digest_rows(connection, statement, found)
        except sqlite3.OperationalError as error:
            if "decode to UTF-8" not in str(error):
                raise sa.exc.OperationalError(str(statement), {}, error) from error
            found.clear()
            found.update(before)
        with invalid_text(connection):
            return self._digest_rows(connection, statement, found, invalid=True)

    def _digest_rows(
        self, connection: Connection, statement: Select[Any], found: dict[int, BucketDigest], *, invalid: bool = False
    ) -> tuple[int, Any]:
        width = len(self._keys)
        with connection.execute(statement) as result:
            rows: Any = result.cursor  # that of the driver: every row of the source passes here
            if invalid:
                rows = ((*row[:width], *map(replace_invalid, row[width:])) for row in rows)
            count, last = add_values(found, self._known_layout, rows, width)
        return count, last[:width]

    def _select(self) -> Select[Any]:
        statement = super()._select()
        if self._layout is None:
            return statement
        if self._backend != "sqlite":
            statement = statement.add_columns(*self._digest_columns())
        return statement if self._to_read is None else statement.where(*self._is_to_read(self._to_read))

    def _is_to_read(self, numbers: Collection[int]) -> list[sa.ColumnElement[bool]]:
        """Return the conditions for rows in these buckets."""
        bucket = sa.func.rag_index_bucket(*self._keys) if self._backend == "sqlite" else self._digest_columns()[0]
        if len(numbers) <= MAX_LISTED:
            listed = ", ".join(map(str, sorted(numbers)))
            conditions: list[sa.ColumnElement[bool]] = [
                bucket.op("IN", is_comparison=True)(sa.literal_column(f"({listed})"))
            ]
        else:
            conditions = [bucket.between(min(numbers), max(numbers))]
        ends = self._known_layout.keys_of(numbers)
        if ends is not None:  # an index on the key helps
            conditions.append(self._keys[0].between(sa.literal_column(str(ends[0])), sa.literal_column(str(ends[1]))))
        return conditions

    def _read(
        self,
        rows: Sequence[Sequence[Any]],
        cursor: Any,
        groups: Sequence[Sequence[str]] | None = None,
        parts: Sequence[DocumentParts] | None = None,
    ) -> SourcePage:
        """Return a page of these rows, with their digests."""
        layout = self._layout
        if layout is None:
            return super()._read(rows, cursor, groups, parts)
        width = len(self._keys)
        if self._backend == "sqlite":
            digests = [row_digest(layout, tuple(row), width) for row in rows]
        else:
            digests = [read_digest(row[-2], row[-1]) for row in rows]
            rows = [row[:-2] for row in rows]
        if parts is not None:
            digests = [
                RowDigest(one.bucket, one.first + some.digest[0], one.second + some.digest[1])
                for one, some in zip(digests, parts, strict=True)
            ]
        page = super()._read(rows, cursor, groups, parts)
        keys = encode_keys(list(zip(*[row[:width] for row in rows], strict=True)) or [()] * width)
        return replace(page, digests=dict(zip(keys, digests, strict=True)))

    def _digest_columns(self) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        values = list(super()._select().selected_columns)[len(self._keys) :]
        return digest_columns(self._backend, self._known_layout, self._keys, values)

    def _types(self, connection: Connection) -> list[Any]:
        """Return the driver's codes of the types of the columns."""
        types: list[Any] = []
        parts = [table.select() for table in self._parts.tables] if self._parts is not None else []
        for statement in (super()._select(), *parts):
            with connection.execute(statement.limit(0)) as result:
                description: Any = result.cursor.description if result.cursor is not None else []
                types += [column[1] for column in description]
        return types

    def _rendering(self, connection: Connection, types: Sequence[Any]) -> str:
        """Return what decides how the database writes values."""
        if self._backend == "sqlite":
            return self._backend
        found = str(connection.exec_driver_sql(RENDERING[self._backend]).scalar())
        if self._backend == "mysql" and not found.endswith(MD5_OF_A):
            raise SettingsError("[source] digest = true: this database computes no MD5; leave digest out")
        return f"{self._backend} {found} {' '.join(map(str, types))}"

    def _register_bucket(self, connection: Any, _record: object) -> None:
        connection.create_function("rag_index_bucket", -1, self._bucket)

    def _bucket(self, *key: Any) -> int:
        return value_bucket(self._known_layout, key)

    @property
    def _known_layout(self) -> BucketLayout:
        if self._layout is None:
            raise RuntimeError("no layout has been chosen: the first page does so")
        return self._layout


def _add_part(found: dict[int, BucketDigest], bucket: int, digest: tuple[int, int]) -> None:
    """Add the digest of parts to that of their bucket, unless its documents are newer than the digests."""
    if bucket in found:
        found[bucket] = found[bucket].with_parts(*digest)
