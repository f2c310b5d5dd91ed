"""A SQL source whose buckets of rows have digests: only the rows of buckets that differ from the
last scan are read.

The database computes the digests in one pass over the rows, with read rights alone. A run then
reads those buckets whose digest is not the one that the ledger has. So it finds every change:
deletions, rows that are committed late, and rows without a time of change, too. A database that
writes a value in another way than before (another version, another time zone) gives another digest:
then the bucket is read for nothing, and nothing is lost. Values of any type, NULL and empty texts
differ in the form that is hashed.

The digests that the ledger gets are sums over the rows as they were read, each with its digest in
the same statement. So they are the digests of what is in the index, whatever the source did between
two queries.

The columns of joins are columns of the row. A row of a part, or of the query of `access`, counts in
the bucket of its document. It has to be found for every document to which reading would add it, so
it is compared in the same way.

A small table is read whole, and so is one whose digests the database cannot compute, or not in
time.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from attrs import evolve
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql import BIT, OID

from rag_index.components.sources.buckets import (
    MIN_ROWS,
    TEXT_KEYS,
    BucketDigests,
    BucketLayout,
    PageBuckets,
    choose_layout,
    sum_values,
    value_bucket,
    values_digest,
)
from rag_index.components.sources.pages import (
    DocumentParts,
    SourcePage,
    require_all,
    stream_rows,
)
from rag_index.components.sources.sql import Cursor, SqlSource
from rag_index.components.sources.undecoded import sqlite_text
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.keys import encode_keys
from rag_index.errors import SourceError, SourceTimedOut

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.sql.selectable import Select

    from rag_index.components.sources.pages import Row
    from rag_index.components.sources.part_reader import RowsBeside
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings

BACKENDS = {"mariadb": "mysql", "mysql": "mysql", "postgresql": "postgresql", "sqlite": "sqlite"}
"""The databases whose buckets have digests, and the one that they are like."""
WHOLE_NUMBERS = {"postgresql": {20, 21, 23}, "mysql": {1, 2, 3, 8, 9}}
"""Drivers' codes of the types of whole numbers."""
NUMBERS = {20, 21, 23, 700, 701, 1700}
"""PostgreSQL's types of numbers, which it compares with each other."""
RENDERING = {
    "postgresql": (
        "SELECT concat_ws(' ', current_setting('lc_monetary'), current_setting('TimeZone'),"
        " current_setting('DateStyle'), current_setting('IntervalStyle'),"
        " current_setting('extra_float_digits'), nullif(getdatabaseencoding(),"
        " current_setting('client_encoding')))"
    ),
    "mysql": "SELECT concat_ws(' ', @@version, @@time_zone, @@character_set_connection, md5('a'))",
}
"""What the database's way to write values depends on, beside the types of the columns."""
CHARSET = "SELECT nullif(getdatabaseencoding(), current_setting('client_encoding'))"
"""The charset from which PostgreSQL converts texts for this connection; NULL if it does not."""
WITHOUT_TEXT = {16, 17, 20, 21, 23, 26, 700, 701, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950}
"""PostgreSQL's types that hold no text: truth values, bytes, numbers, times and UUIDs."""
WITHOUT_BINARY_FORM = """
WITH RECURSIVE held(column_type, oid) AS (
    SELECT listed, listed FROM unnest(CAST(:types AS oid[])) AS listed
    UNION
    SELECT held.column_type, inner_type FROM held
    JOIN pg_type ON pg_type.oid = held.oid
    CROSS JOIN LATERAL (
        SELECT typbasetype UNION ALL SELECT typelem
        UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT rngsubtype FROM pg_range
        WHERE rngtypid = held.oid OR to_jsonb(pg_range) ->> 'rngmultitypid' = CAST(held.oid AS text)
    ) AS inside(inner_type)
)
SELECT DISTINCT column_type FROM held JOIN pg_type ON pg_type.oid = held.oid
WHERE typsend = 0 OR typname IN ('record', '_record')
"""
"""The types among :types that PostgreSQL cannot send in binary form, or that hold one which it
cannot: such as isn and aclitem, their arrays, domains, ranges, and composites of them. Of a record,
the catalog does not say what it holds."""
MD5_OF_A = "0cc175b9c0f1b6a831c399e269772661"
SQLITE_ROWS = 20_000
"""Rows whose digests are computed within one query of SQLite, which keeps writers waiting as long
as it lasts."""
MAX_LISTED = 65_536
"""Buckets that one query lists. If more differ, all rows are read."""
MAX_KEPT_BUCKETS = 1 << 18
"""If the source has grown until it has more buckets, all rows are read and divided into larger
ones."""
MAX_SHARE = 0.9
"""If buckets with more than this share of all rows differ, all rows are read: that needs no second
look at each key."""
UNDIVIDED = BucketLayout("none", 0, "")
logger = logging.getLogger("rag_index.source")


class DigestSource(SqlSource):
    """A `SqlSource` that leaves buckets of rows unread whose digests are as the last scan left
    them."""

    def __init__(self, url: URL, index: IndexSettings, **how: Any) -> None:
        super().__init__(url, index, **how)
        self._backend = BACKENDS[url.get_backend_name()]
        self._files = self._reader.files if index.files is not None else None
        self._copies_always = self._copies
        self._state: ScanState | None = None
        self._layout = UNDIVIDED
        self._rows: int | None = None
        self._as_text: dict[RowsBeside | None, list[bool]] = {}
        """Which columns of the rows (None) and of each table beside them are hashed as text."""
        self._charset: str | None = None
        """The charset of a database of PostgreSQL whose texts are converted for the connection."""
        self._compared_as: dict[RowsBeside, list[Any]] = {}
        """As what the columns of a document are compared with those of a table; None for as they
        are."""
        self._unread = 0
        self.fresh_first = False
        """Whether the next scan leaves what had changed by the last one to a later scan, if
        anything else changed."""
        self._last: dict[int, str] = {}
        """The digests that the last scan found."""
        self.left = 0
        """How many buckets that differ the scan leaves to a later one."""
        self._to_read: set[int] | None = None
        """The buckets to be read; None if all are."""
        self._open: set[int] = set()
        """Buckets of which some rows were read."""
        self._expected: Counter[int] | None = None
        """How many rows of each bucket were not read yet; None if the order of the rows tells when
        one is complete."""
        self._parts.digest_columns, self._parts.digest = self._columns_beside, self._digest_beside
        if self._access is not None:
            self._access.digest_columns, self._access.digest = (
                self._columns_beside,
                self._digest_beside,
            )

    def _new_engine(self, *, any_text: bool = False) -> Engine:
        opened = super()._new_engine(any_text=any_text)
        if opened.dialect.name == "sqlite":
            event.listen(opened, "connect", self._add_functions)
        return opened

    def _add_functions(self, connection: Any, _record: object) -> None:
        """Let SQLite compute the bucket of a key, whose values it gives as `_as_arguments`."""

        def bucket(encoding: str, *arguments: Any) -> int:
            pairs = zip(arguments[::2], arguments[1::2], strict=True)
            key = [sqlite_text(value, encoding) if is_text else value for value, is_text in pairs]
            return value_bucket(self._layout, key)

        connection.create_function("rag_index_bucket", -1, bucket)
        connection.create_function(
            "rag_index_reads", -1, lambda *key: bucket(*key) in (self._to_read or ())
        )

    def _as_arguments(self) -> list[sa.ColumnElement[Any]]:
        """Return the key for a function of SQLite: the encoding of texts, and then each value, a
        text as bytes, and whether it is one. Python takes no text that is not UTF-8."""
        arguments: list[sa.ColumnElement[Any]] = [_sql("(SELECT encoding FROM pragma_encoding)")]
        for key in self._keys:
            is_text = sa.func.typeof(key) == "text"
            arguments += [sa.case((is_text, sa.cast(key, sa.BLOB)), else_=key), is_text]
        return arguments

    def use_scan_state(self, state: ScanState) -> None:
        """Prepare for a scan. The digests are computed with the first page, or when rows are
        counted."""
        self._state, self._layout, self._rows = state, UNDIVIDED, None

    def count(self) -> int:
        return super().count() if self._state is None else self._begin(self._state)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of rows from the buckets to be read."""
        if self._state is None or cursor is not None:
            return super().page(cursor, rows)
        self._begin(self._state)
        if self._to_read is not None and not self._expected:
            page = SourcePage(
                DocumentBatch.empty(), None, buckets=PageBuckets({}, BucketDigests(), ())
            )
        else:
            page = super().page(cursor, rows)
        return (
            page
            if page.buckets is None
            else evolve(page, buckets=evolve(page.buckets, unread=self._unread))
        )

    def _begin(self, state: ScanState) -> int:
        """Find out which buckets have to be read, once for each scan, and return how many rows
        there are."""
        if self._rows is not None:
            return self._rows
        self._unread, self.left, self._to_read, self._open, self._expected = 0, 0, None, set(), None
        self._copies = self._copies_always
        lasting = UNDIVIDED if state.watermark is not None and state.layout == UNDIVIDED else None
        try:
            if lasting is None:
                self._rows = self._with_any_text(partial(self._connect_and_divide, state))
                lasting = self._layout if self._layout != UNDIVIDED else None
        except (SourceError, SourceTimedOut) as error:
            logger.info(
                "%s is read whole, since the database computes no digests: %s", self._name, error
            )
            self._unread, self.left, self._to_read, self._expected = 0, 0, None, None
            self._copies = self._copies_always
            self._rows, self._layout, lasting = None, UNDIVIDED, UNDIVIDED
        self._rows = super().count() if self._rows is None else self._rows
        self._counted = self._rows - self._unread
        state.begin(lasting, self._to_read, left=self.left)
        return self._rows

    def _connect_and_divide(self, state: ScanState) -> int:
        with self._connect(patience=self._timeout) as connection:
            return self._divide(connection, state)

    def _divide(self, connection: Connection, state: ScanState) -> int:
        """Choose the layout and the buckets to read, and return how many rows there are."""
        types, rendering = self._rendering(connection)
        before = state.layout
        if state.watermark is not None and before is not None and before.rendering == rendering:
            self._layout = before
            known = state.digests(self._files.is_current if self._files is not None else None)
            rows = self._compare(known, self._digests(connection))
            if self._to_read is not None:
                return rows
        self._layout, rows = self._choose_layout(connection, types, rendering, before)
        if self._layout != UNDIVIDED:
            self._try_columns(connection)
        return rows

    def _compare(self, known: Mapping[int, str], found: BucketDigests) -> int:
        """Choose the buckets to read by these digests, unless there is too much to read. Return the
        number of rows."""
        encoded = found.encoded()
        differ = {bucket for bucket, digest in encoded.items() if known.get(bucket) != digest}
        differ |= known.keys() - encoded.keys()
        last, self._last, left = self._last, encoded, 0
        if self.fresh_first and (
            fresh := {one for one in differ if encoded.get(one) != last.get(one)}
        ):
            differ, left = fresh, len(differ) - len(fresh)
        expected = Counter({bucket: found[bucket][0] for bucket in differ if bucket in found})
        rows, to_read = found.rows, expected.total()
        if (
            len(found) <= MAX_KEPT_BUCKETS
            and len(differ) <= MAX_LISTED
            and to_read <= MAX_SHARE * rows
        ):
            self._to_read, self._expected, self._unread, self.left = (
                differ,
                expected,
                rows - to_read,
                left,
            )
            # pages in the order of a key do not help to find hashed buckets: one pass does
            self._copies = self._copies_always or (
                self._layout.kind == "hash" and self._backend != "sqlite"
            )
        return rows

    def _choose_layout(
        self,
        connection: Connection,
        types: Sequence[Any],
        rendering: str,
        before: BucketLayout | None,
    ) -> tuple[BucketLayout, int]:
        """Return a layout for all rows, the one before if it still fits, and the number of rows."""
        key = self._keys[0]
        whole = len(self._keys) == 1 and (
            self._backend == "sqlite" or types[0] in WHOLE_NUMBERS[self._backend]
        )
        ends = [sa.func.min(key), sa.func.max(key)] if whole else [sa.null(), sa.null()]
        statement = (
            sa.select(sa.func.count(), *ends).select_from(self._from).where(*self._keys_not_null())
        )
        rows, *found = connection.execute(statement).one()
        if rows < MIN_ROWS:
            return UNDIVIDED, rows
        lowest, highest = [value if isinstance(value, int) else None for value in found]
        wanted = choose_layout(rows, lowest, highest, rendering)
        return (before if before is not None and before.fits(wanted) else wanted), rows

    def _try_columns(self, connection: Connection) -> None:
        """Let the database compute some digests, which it may refuse, and count the rows of each
        bucket if no order of the rows tells when one is complete."""
        if self._backend != "sqlite":
            tried: list[tuple[Select[Any], Sequence[Any]]] = [
                (self._select(), self._digest_columns())
            ]
            tried += [
                (table.select(), self._columns_beside(table)) for table in self._beside(connection)
            ]
            for statement, digests in tried:
                only = statement.with_only_columns(*digests, maintain_column_froms=True)
                connection.execute(only.limit(1)).fetchall()
        if self._layout.kind == "hash" and not self._copies:
            bucket = self._bucket().label("bucket")
            counts = (
                sa.select(bucket, sa.func.count()).where(*self._keys_not_null()).group_by(bucket)
            )
            self._expected = Counter(
                {int(number): rows for number, rows in connection.execute(counts)}
            )

    def _completed(self, numbers: Sequence[int], *, last: bool) -> Collection[int]:
        """Return the buckets that are complete with these rows, which are in these buckets."""
        self._open.update(numbers)
        if last:
            done = set(self._open)
        elif self._expected is not None:
            self._expected.subtract(numbers)
            done = {
                number for number in self._open.intersection(numbers) if self._expected[number] <= 0
            }
        else:  # in the order of the key; of a key that is no number, nothing is known
            done = {number for number in self._open if number != numbers[-1] and number > TEXT_KEYS}
        self._open -= done
        return done

    def _all_rows(self) -> Generator[Row, None, None]:
        """Yield the rows of the copy, and count those of each bucket."""
        if self._layout == UNDIVIDED:
            yield from super()._all_rows()
            return
        self._expected = expected = Counter[int]()
        for row in super()._all_rows():
            expected[int(row[-2])] += 1
            yield row

    def _digests(self, connection: Connection) -> BucketDigests:
        if self._backend == "sqlite":
            return self._digests_of_sqlite(connection)
        streamed, found = {"stream_results": True}, BucketDigests()
        for row in connection.execute(self.digest_statement(), execution_options=streamed):
            found.add(*map(int, row))
        require_all(connection, self._select(), found.rows)
        for table in self._beside(connection):
            rows = self._with_documents(table, self._bucket(), *self._columns_beside(table))
            for bucket, _, *sums in connection.execute(
                self._summed(rows), execution_options=streamed
            ):
                found.add_part(int(bucket), *map(int, sums))
        return found

    def digest_statement(self) -> Select[Any]:
        """Return the query of all digests, after the scan has begun. Not for SQLite, which has
        none."""
        return self._summed(sa.select(*self._digest_columns()).where(*self._keys_not_null()))

    def _summed(self, rows: Select[Any]) -> Select[Any]:
        bucket, digest = rows.selected_columns
        rows = rows.with_only_columns(
            bucket.label("bucket"), digest.label("digest"), maintain_column_froms=True
        )
        if (
            self._backend == "postgresql"
        ):  # keeps each digest from being computed once for each half
            rows = rows.offset(_sql(0))
        every = rows.subquery("digests")
        numbers: list[Any] = []
        for half in (0, 1):
            if self._backend == "postgresql":
                part: Any = sa.func.encode(
                    sa.func.substr(every.c.digest, _sql(1 + 8 * half), _sql(8)), "hex"
                )
                bits: Any = sa.cast(sa.literal_column("'x'").op("||")(part), BIT(64))
                numbers.append(sa.cast(bits, sa.BigInteger))
            else:
                part = sa.func.conv(sa.func.substr(every.c.digest, 1 + 16 * half, 16), 16, 10)
                numbers.append(sa.cast(part, sa.Numeric(20)))
        return sa.select(every.c.bucket, sa.func.count(), *map(sa.func.sum, numbers)).group_by(
            every.c.bucket
        )

    def _bucket(self) -> Any:
        size, keys = self._layout.size, self._keys
        if self._backend == "sqlite":
            return sa.func.rag_index_bucket(*self._as_arguments())
        if self._layout.kind == "range":
            by_range = _sql(f"{size}::bigint" if self._backend == "postgresql" else size)
            return keys[0].op("/" if self._backend == "postgresql" else "DIV")(by_range)
        if self._backend == "postgresql":
            text = sa.cast(sa.func.row(*keys), sa.Text).collate("C")
            return sa.func.hashtextextended(text, _sql(0)).op("&")(_sql(size - 1))
        joined = sa.func.concat(*[sa.func.md5(key) for key in keys])
        return sa.func.crc32(joined).op("&")(_sql(size - 1))

    def _digest_columns(self) -> tuple[Any, Any]:
        values = list(self._select().selected_columns)[len(self._keys) :]
        return self._bucket(), self._digest_of([*self._keys, *values], None)

    def _digest_of(
        self, values: Sequence[sa.ColumnElement[Any]], table: RowsBeside | None
    ) -> sa.ColumnElement[Any]:
        if self._backend == "postgresql":
            as_text = zip(values, self._as_text[table], strict=True)
            sent = [self._sent_as_text(value) if text else value for value, text in as_text]
            return sa.func.sha256(sa.func.record_send(sa.func.row(*sent)))
        return sa.func.md5(
            sa.func.concat(*[sa.func.coalesce(sa.func.md5(column), "-") for column in values])
        )

    def _sent_as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return a value as text for a digest. The bytes that the database has are hashed, which
        are the same for each connection, and which no conversion refuses."""
        text: sa.ColumnElement[Any] = sa.cast(value, sa.Text)
        return (
            text if self._charset is None else sa.func.convert_to(text, _sql(f"'{self._charset}'"))
        )

    # Rows of other tables

    def _beside(self, connection: Connection) -> list[RowsBeside]:
        """Return the tables whose rows are read beside those of the documents."""
        pairs = None if self._access is None else self._access.pairs(connection)
        return [*self._parts.tables, *([] if pairs is None else [pairs])]

    def _columns_beside(self, table: RowsBeside) -> list[sa.ColumnElement[Any]]:
        """Return what is read of a table beside its columns."""
        if self._backend == "sqlite" or self._layout == UNDIVIDED:
            return []
        return [self._digest_of(table.read_columns, table)]

    def _digest_beside(self, row: Row) -> tuple[int, int]:
        if self._layout == UNDIVIDED:
            return 0, 0
        return values_digest(row) if self._backend == "sqlite" else _read_digest(row[-1])

    def _with_documents(self, table: RowsBeside, *columns: sa.ColumnElement[Any]) -> Select[Any]:
        """Return the rows of a table with the documents that they are read for."""
        both: list[Any] = []
        compared = self._compared_as.get(table) or [None] * len(table.on)
        for own, other, kind in zip(table.on, table.of_document, compared, strict=True):
            value: Any = self._from.c[other]
            if kind is not None and self._backend == "postgresql":
                value = sa.cast(value, sa.Text).op("::")(_sql(kind))
            elif kind is not None:
                charset, collation = map(_sql, kind)
                value = sa.func.convert(value.op("USING")(charset)).op("COLLATE")(collation)
            both.append(table.rows.c[own] == value)
        joined = self._from.join(table.rows, sa.and_(*both))
        return sa.select(*columns).select_from(joined).where(*self._keys_not_null())

    def _compare_as(
        self, connection: Connection, table: RowsBeside, types: Sequence[Any], own: Sequence[Any]
    ) -> None:
        """Find out how the columns of a document are compared with those of a table where it is
        read, as values: as PostgreSQL reads a text as the type of the column, and as MySQL compares
        by the collation of the column."""
        found: list[Any] = [None] * len(table.on)
        for number, (name, other) in enumerate(zip(table.on, table.of_document, strict=True)):
            if self._backend == "postgresql":
                theirs = types[self._reader.positions[other]]
                if theirs != own[number] and not {theirs, own[number]} <= NUMBERS:
                    name_of = sa.select(
                        sa.func.format_type(sa.cast(_sql(own[number]), OID), _sql(-1))
                    )
                    found[number] = connection.scalar(name_of)
            else:
                column = table.rows.c[name]
                rows = (
                    sa.select(_sql(1).label("one")).subquery("one").outerjoin(table.rows, sa.true())
                )  # it may be empty
                row = (
                    sa.select(sa.func.charset(column), sa.func.collation(column))
                    .select_from(rows)
                    .limit(1)
                )
                kind = connection.execute(row).one()
                found[number] = tuple(kind) if kind[0] != "binary" else None
        self._compared_as[table] = found

    # SQLite

    def _digests_of_sqlite(self, connection: Connection) -> BucketDigests:
        """Return the digest of each bucket, page by page, so that writers need not wait for all of
        them."""
        found, cursor, rows = BucketDigests(), None, SQLITE_ROWS
        while rows == SQLITE_ROWS:
            page, last = self._sum_page(connection, cursor)
            rows, cursor = page.rows, Cursor(last)
            for bucket, sums in page.items():
                found.add(bucket, *sums)
        return found

    def _sum_page(
        self, connection: Connection, cursor: Cursor | None
    ) -> tuple[BucketDigests, tuple[Any, ...]]:
        """Return the digests of the rows after a cursor and of their parts, and the key of the last
        row."""
        width = len(self._keys)
        statement = self._in_order(connection, self._select(), cursor).limit(SQLITE_ROWS)
        with connection.execute(statement) as result:
            rows: Any = result.cursor  # that of the driver: every row of the source passes here
            try:
                found, last = sum_values(self._layout, rows, width)
            except sqlite3.OperationalError as error:
                raise exc.OperationalError(str(statement), {}, error) from error
        for table in self._beside(connection) if found else ():
            statement = self._with_documents(table, *self._keys, *table.read_columns).where(
                sa.not_(self._after(last))
            )
            if cursor is not None:
                statement = statement.where(self._after(cursor.key))
            for row in stream_rows(connection, statement):
                found.add_part(value_bucket(self._layout, row[:width]), *values_digest(row[width:]))
        return found, last

    # What is read

    def _select_scanned(self) -> Select[Any]:
        statement = self._select()
        if self._layout == UNDIVIDED:
            return statement
        if self._backend != "sqlite":
            statement = statement.add_columns(*self._digest_columns())
        if (numbers := self._to_read) is None:
            return statement
        if self._backend == "sqlite":
            statement = statement.where(sa.func.rag_index_reads(*self._as_arguments()))
        else:
            listed = ", ".join(map(str, sorted(numbers)))
            statement = statement.where(
                self._bucket().op("IN", is_comparison=True)(_sql(f"({listed})"))
            )
        ends = self._layout.keys_of(numbers)  # an index on the key helps
        return (
            statement
            if ends is None
            else statement.where(self._keys[0].between(_sql(ends[0]), _sql(ends[1])))
        )

    def _read_scanned(
        self, rows: Sequence[Row], cursor: Any, parts: Sequence[DocumentParts]
    ) -> SourcePage:
        page = super()._read_scanned(rows, cursor, parts)
        if self._layout == UNDIVIDED:
            return page
        if (files := self._files) is not None:
            pairs = zip(page.documents.keys, map(files.stamp, page.documents.files), strict=True)
            page = evolve(page, stamps={key: stamp for key, stamp in pairs if stamp})
        width, sums, numbers = len(self._keys), BucketDigests(), list[int]()
        for row, beside in zip(rows, parts, strict=True):
            if self._backend == "sqlite":
                number, (first, second) = (
                    value_bucket(self._layout, row[:width]),
                    values_digest(row),
                )
            else:
                number, (first, second) = int(row[-2]), _read_digest(row[-1])
            sums.add(number, 1, first + beside.digest[0], second + beside.digest[1])
            numbers.append(number)
        keys = page.documents.keys
        if page.unreadable:
            keys = encode_keys(list(zip(*[row[:width] for row in rows], strict=True)))
        complete = self._completed(numbers, last=cursor is None)
        return evolve(
            page, buckets=PageBuckets(dict(zip(keys, numbers, strict=True)), sums, complete)
        )

    def _rendering(self, connection: Connection) -> tuple[list[Any], str]:
        """Return the codes of the types of all columns, and what decides how the database writes
        values. Raises SourceError if it cannot hash them."""
        by_table: dict[RowsBeside | None, list[Any]] = {}
        for table in (None, *self._beside(connection)):
            statement = self._select() if table is None else table.select()
            with connection.execute(statement.limit(0)) as result:
                description: Any = result.cursor.description if result.cursor is not None else []
                by_table[table] = [column[1] for column in description]
        types = [one for some in by_table.values() for one in some]
        if self._backend == "sqlite":
            return types, self._backend
        if self._backend == "postgresql":
            listed = f"{{{','.join(map(str, types))}}}"
            lacking = set(connection.scalars(sa.text(WITHOUT_BINARY_FORM), {"types": listed}))
            self._charset = connection.exec_driver_sql(CHARSET).scalar()
            if self._charset is not None:
                lacking |= set(types) - WITHOUT_TEXT
            self._as_text = {
                table: [one in lacking for one in some] for table, some in by_table.items()
            }
        for table, own in by_table.items():
            if table is not None:
                self._compare_as(connection, table, by_table[None], own)
        found = str(connection.exec_driver_sql(RENDERING[self._backend]).scalar())
        if self._backend == "mysql" and not found.endswith(MD5_OF_A):
            raise SourceError("this database computes no MD5")
        return types, f"{self._backend} {found} {' '.join(map(str, types))}"


def _sql(value: object) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(value))


def _read_digest(digest: Any) -> tuple[int, int]:
    raw = bytes.fromhex(digest) if isinstance(digest, str) else bytes(digest)
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big")
