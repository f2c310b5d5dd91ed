"""A SQL source that reads only the buckets of rows whose digests differ from the last scan.

The database computes the digests in one pass over the rows, with read rights alone. A run then
reads the buckets whose digest is not the one in the ledger. So it finds every change, including
deleted rows, rows that are committed late, and rows without a time of change. A database that
renders a value in another way than before (another version, another time zone) gives another
digest: the bucket is read for nothing, and no change is missed. Values of any type, NULL and empty
texts differ in the form that is hashed.

The digests that the ledger gets are sums over the rows as they were read, each with its digest in
the same statement. So they describe what is in the index, even if the source changes between two
queries.

The columns of joins are columns of the row. A row of a part, or of the query of `access`, counts in
the bucket of its document. It must be found for every document to which reading would add it, so
both are compared in the same way (`_compare_as`).

All rows are read if the table is small, or if the database cannot compute the digests in time.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from attrs import evolve
from sqlalchemy import event, exc

from rag_index.components.sources.buckets import (
    MIN_ROWS,
    TEXT_KEYS,
    BucketDigests,
    BucketLayout,
    PageBuckets,
    choose_layout,
    rows_of,
    sum_values,
    value_bucket,
    values_digest,
)
from rag_index.components.sources.digest_sql import (
    CHARSET,
    MD5_OF_A,
    RENDERING,
    WITHOUT_BINARY_FORM,
    WITHOUT_TEXT,
    bucket_digests,
    bucket_of,
    cast_to,
    collation_of,
    converted,
    digest_halves,
    literal,
    type_codes,
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

    from rag_index.components.sources.attachments import FileReader
    from rag_index.components.sources.pages import Row
    from rag_index.components.sources.part_reader import RowsBeside
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings

BACKENDS = {"mariadb": "mysql", "mysql": "mysql", "postgresql": "postgresql", "sqlite": "sqlite"}
"""The databases whose buckets have digests, each with the dialect that it shares."""
INTEGER_TYPE_CODES = {"postgresql": {20, 21, 23}, "mysql": {1, 2, 3, 8, 9}}
"""The drivers' type codes of whole numbers."""
SQLITE_ROWS = 20_000
"""Rows per query in SQLite, whose writers wait as long as the query lasts. Chosen; nothing depends
on it."""
MAX_LISTED = 65_536
"""The most buckets that one query lists. If more differ, all rows are read. Chosen; nothing
depends on it."""
MAX_KEPT_BUCKETS = 1 << 18
"""If the source has grown to more buckets, all rows are read and divided into larger ones. Chosen;
each bucket is a row of the ledger."""
MAX_SHARE = 0.9
"""If buckets with more than this share of all rows differ, all rows are read: that needs no second
look at each key. Chosen; nothing depends on it."""
UNDIVIDED = BucketLayout("none", 0, "")
"""The layout of rows without digests: a small table, or a database that computes none."""
logger = logging.getLogger("rag_index.source")


class DigestSource(SqlSource):
    """A `SqlSource` that leaves buckets unread whose digests did not change since the last scan."""

    def __init__(self, url: URL, index: IndexSettings, **how: Any) -> None:
        super().__init__(url, index, **how)
        self._backend = BACKENDS[url.get_backend_name()]
        self._files = self._reader.files if index.files is not None else None
        self._copies_always = self._copies
        self._state: ScanState | None = None
        self._layout = UNDIVIDED
        self._rows: int | None = None
        """The number of rows; None until the scan has begun."""
        self._as_text: dict[RowsBeside | None, list[bool]] = {}
        """Which columns of the rows (None) and of each table beside them are hashed as text."""
        self._charset: str | None = None
        """The charset of a database of PostgreSQL whose texts are converted for the connection."""
        self._compared_as: dict[RowsBeside, list[Any]] = {}
        """The type or collation by which each column of a table is compared (`_compare_as`)."""
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
        """How many rows of each bucket were not read yet; None if the order of the rows shows when
        a bucket is complete."""
        self._parts.digest_columns = self._columns_beside
        self._parts.digest = self._digest_beside
        if self._access is not None:
            self._access.digest_columns = self._columns_beside
            self._access.digest = self._digest_beside

    def _new_engine(self, *, any_text: bool = False) -> Engine:
        opened = super()._new_engine(any_text=any_text)
        if opened.dialect.name == "sqlite":
            event.listen(opened, "connect", self._add_functions)
        return opened

    def _add_functions(self, connection: Any, _record: object) -> None:
        """Register the SQL functions of the bucket of a key, which take `_as_arguments`."""

        def bucket(encoding: str, *arguments: Any) -> int:
            key: list[Any] = []
            for value, is_text in zip(arguments[::2], arguments[1::2], strict=True):
                key.append(sqlite_text(value, encoding) if is_text else value)
            return value_bucket(self._layout, key)

        def is_read(encoding: str, *arguments: Any) -> bool:
            return bucket(encoding, *arguments) in (self._to_read or ())

        connection.create_function("rag_index_bucket", -1, bucket)
        connection.create_function("rag_index_reads", -1, is_read)

    def _as_arguments(self) -> list[sa.ColumnElement[Any]]:
        """Return the arguments by which a function of SQLite gets the key.

        These are the encoding of texts, and then each value and whether it is a text. A text is
        given as bytes, since Python takes no text that is not UTF-8.
        """
        arguments: list[sa.ColumnElement[Any]] = [literal("(SELECT encoding FROM pragma_encoding)")]
        for key in self._keys:
            is_text = sa.func.typeof(key) == "text"
            value = sa.case((is_text, sa.cast(key, sa.BLOB)), else_=key)
            arguments += [value, is_text]
        return arguments

    def use_scan_state(self, state: ScanState) -> None:
        """Prepare for a scan. The first `page` or `count` computes the digests."""
        self._state = state
        self._layout = UNDIVIDED
        self._rows = None

    def count(self) -> int:
        """Return the number of rows, including those that the scan leaves unread."""
        if self._state is None:
            return super().count()
        return self._begin(self._state)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of rows from the buckets to be read."""
        # Without a scan, or a later page of it.
        if self._state is None or cursor is not None:
            return super().page(cursor, rows)
        self._begin(self._state)
        if self._to_read is not None and not self._expected:
            # Nothing to read: no bucket differs, or the differing ones have no rows any more.
            buckets = PageBuckets({}, BucketDigests(), (), unread=self._unread)
            return SourcePage(DocumentBatch.empty(), None, buckets=buckets)
        page = super().page(cursor, rows)
        if page.buckets is None:
            return page
        return evolve(page, buckets=evolve(page.buckets, unread=self._unread))

    # The buckets to be read

    def _begin(self, state: ScanState) -> int:
        """Choose the buckets to read, once for each scan. Return the number of rows."""
        if self._rows is not None:
            return self._rows
        self._read_all()
        if state.watermark is not None and state.layout == UNDIVIDED:
            # An earlier scan found that the database computes no digests: do not try each time.
            lasting: BucketLayout | None = UNDIVIDED
        else:
            lasting = self._try_divide(state)
        if self._rows is None:
            self._rows = super().count()
        self._counted = self._rows - self._unread
        state.begin(lasting, self._to_read, left=self.left)
        return self._rows

    def _read_all(self) -> None:
        """Plan to read all rows, until `_compare` finds less to read."""
        self._unread = 0
        self.left = 0
        self._to_read = None
        self._open = set()
        self._expected = None
        self._copies = self._copies_always

    def _try_divide(self, state: ScanState) -> BucketLayout | None:
        """Divide the rows into buckets, if the database can. Return the layout to be recorded.

        It is None for a small table, which a later scan divides once it has grown.
        """
        try:
            self._rows = self._with_any_text(partial(self._connect_and_divide, state))
        except (SourceError, SourceTimedOut) as error:
            logger.info(
                "%s is read whole, since the database computes no digests: %s", self._name, error
            )
            self._read_all()
            self._rows = None
            self._layout = UNDIVIDED
            return UNDIVIDED
        if self._layout == UNDIVIDED:
            return None
        return self._layout

    def _connect_and_divide(self, state: ScanState) -> int:
        with self._connect(patience=self._timeout) as connection:
            return self._divide(connection, state)

    def _divide(self, connection: Connection, state: ScanState) -> int:
        """Choose the layout and the buckets to read. Return the number of rows."""
        types, rendering = self._rendering(connection)
        before = state.layout
        if state.watermark is not None and before is not None and before.rendering == rendering:
            self._layout = before
            is_current = self._files.is_current if self._files is not None else None
            known = state.digests(is_current)
            found = self._digests(connection)
            rows = sum(map(rows_of, found.values()))
            require_all(connection, self._select(), rows)
            self._compare(known, found, rows)
            if self._to_read is not None:
                return rows
        # The first scan, or too much differs: read all rows, in a layout for their present number.
        self._layout, rows = self._choose_layout(connection, types, rendering, before)
        if self._layout != UNDIVIDED:
            self._try_columns(connection)
        return rows

    def _compare(self, known: Mapping[int, str], found: dict[int, str], rows: int) -> None:
        """Plan to read the buckets that differ, unless that is too much.

        Args:
            known: The digests in the ledger; "" for a bucket that must be read.
            found: The digests of the source.
            rows: The number of rows of the source.
        """
        changed = {bucket for bucket, digest in found.items() if known.get(bucket) != digest}
        vanished = known.keys() - found.keys()
        differing = changed | vanished
        left = 0
        if self.fresh_first:
            # Buckets that changed since the last scan. If there are none, all that differ are read.
            last = self._last
            fresh = {bucket for bucket in differing if found.get(bucket) != last.get(bucket)}
            if fresh:
                left = len(differing) - len(fresh)
                differing = fresh
        self._last = found
        expected = Counter[int]()
        for bucket in differing - vanished:
            expected[bucket] = rows_of(found[bucket])
        to_read = expected.total()
        has_too_many = len(found) > MAX_KEPT_BUCKETS or len(differing) > MAX_LISTED
        if has_too_many or to_read > MAX_SHARE * rows:
            return
        self._to_read = differing
        self._expected = expected
        self._unread = rows - to_read
        self.left = left
        # Pages in the order of a key do not help to find hashed buckets: one pass does.
        if self._layout.kind == "hash" and self._backend != "sqlite":
            self._copies = True

    def _choose_layout(
        self,
        connection: Connection,
        types: Sequence[Any],
        rendering: str,
        before: BucketLayout | None,
    ) -> tuple[BucketLayout, int]:
        """Return the layout for all rows, and their number. A layout that still fits stays."""
        ends: list[sa.ColumnElement[Any]] = [sa.null(), sa.null()]
        if self._has_numeric_key(types):
            key = self._keys[0]
            ends = [sa.func.min(key), sa.func.max(key)]
        statement = sa.select(sa.func.count(), *ends).select_from(self._from)
        statement = statement.where(*self._keys_not_null())
        rows, lowest, highest = connection.execute(statement).one()
        if rows < MIN_ROWS:
            return UNDIVIDED, rows
        # In SQLite a key may have values of any type, such as 1 and "a".
        if not isinstance(lowest, int):
            lowest = None
        if not isinstance(highest, int):
            highest = None
        wanted = choose_layout(rows, lowest, highest, rendering)
        if before is not None and before.fits(wanted):
            return before, rows
        return wanted, rows

    def _has_numeric_key(self, types: Sequence[Any]) -> bool:
        """Return whether the key is one column of whole numbers, as far as its type shows."""
        if len(self._keys) > 1:
            return False
        if self._backend == "sqlite":
            return True
        return types[0] in INTEGER_TYPE_CODES[self._backend]

    def _try_columns(self, connection: Connection) -> None:
        """Prepare to read all rows: test the digests, and count the rows of hashed buckets.

        Raises:
            SourceError: The database refuses to compute a digest.
        """
        if self._backend != "sqlite":
            self._try_digest(connection, self._select(), self._digest_columns())
            for table in self._beside(connection):
                self._try_digest(connection, table.select(), self._columns_beside(table))
        # In the order of the key, rows of a hashed bucket may come until the last page.
        if self._layout.kind == "hash" and not self._copies:
            bucket = self._bucket().label("bucket")
            counts = sa.select(bucket, sa.func.count()).where(*self._keys_not_null())
            rows = connection.execute(counts.group_by(bucket))
            self._expected = Counter({int(number): count for number, count in rows})

    def _try_digest(
        self, connection: Connection, statement: Select[Any], digests: Sequence[Any]
    ) -> None:
        only = statement.with_only_columns(*digests, maintain_column_froms=True)
        connection.execute(only.limit(1)).fetchall()

    def _completed(self, numbers: Sequence[int], *, last: bool) -> Collection[int]:
        """Return the buckets that are complete after a page.

        Args:
            numbers: The bucket of each row of the page.
            last: Whether this is the last page.
        """
        self._open.update(numbers)
        if last:
            done = set(self._open)
        elif self._expected is not None:
            self._expected.subtract(numbers)
            seen = self._open.intersection(numbers)
            done = {number for number in seen if self._expected[number] <= 0}
        else:
            # Ranges in the order of the key: all but the current one are complete. The order of
            # keys that are no numbers (in SQLite) is unknown.
            current = numbers[-1]
            done = {number for number in self._open if number != current and number > TEXT_KEYS}
        self._open -= done
        return done

    def _all_rows(self) -> Generator[Row, None, None]:
        """Yield the rows of the copy, and count those of each bucket."""
        if self._layout == UNDIVIDED:
            yield from super()._all_rows()
            return
        self._expected = expected = Counter[int]()
        for row in super()._all_rows():
            bucket = int(row[-2])
            expected[bucket] += 1
            yield row

    # The SQL of digests

    def _digests(self, connection: Connection) -> dict[int, str]:
        """Return the digests of all buckets, encoded."""
        if self._backend == "sqlite":
            return self._digests_of_sqlite(connection).encoded()
        found = connection.execute(
            self._digest_statement(connection), execution_options={"stream_results": True}
        )
        return dict(found.tuples().all())

    def _digest_statement(self, connection: Connection) -> Select[Any]:
        """Return the query of all digests. Not for SQLite, which computes none itself."""
        rows = sa.select(*self._digest_columns()).where(*self._keys_not_null())
        beside: list[Select[Any]] = []
        for table in self._beside(connection):
            columns = self._columns_beside(table)
            beside.append(self._with_documents(table, self._bucket(), *columns))
        return bucket_digests(self._backend, rows, beside)

    def _bucket(self) -> Any:
        """Return the number of a row's bucket, as an expression over its key."""
        if self._backend == "sqlite":
            return sa.func.rag_index_bucket(*self._as_arguments())
        return bucket_of(self._backend, self._layout, self._keys)

    def _digest_columns(self) -> tuple[Any, Any]:
        """Return the bucket and the digest of a row, as expressions."""
        columns = list(self._select().selected_columns)
        values = columns[len(self._keys) :]
        return self._bucket(), self._digest_of([*self._keys, *values], None)

    def _digest_of(
        self, values: Sequence[sa.ColumnElement[Any]], table: RowsBeside | None
    ) -> sa.ColumnElement[Any]:
        """Return the digest of these columns, of the rows (None) or of a table beside them."""
        if self._backend == "postgresql":
            sent: list[Any] = []
            for value, is_text in zip(values, self._as_text[table], strict=True):
                sent.append(self._sent_as_text(value) if is_text else value)
            return sa.func.sha256(sa.func.record_send(sa.func.row(*sent)))
        # An MD5 has 32 digits, so "-" for NULL differs from that of every value.
        hashes = [sa.func.coalesce(sa.func.md5(value), "-") for value in values]
        return sa.func.md5(sa.func.concat(*hashes))

    def _sent_as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return a value as text for a digest.

        In a database of another charset these are the bytes that it stores. They are the same for
        each connection, and no conversion refuses them.
        """
        text: sa.ColumnElement[Any] = sa.cast(value, sa.Text)
        if self._charset is None:
            return text
        return sa.func.convert_to(text, literal(f"'{self._charset}'"))

    # Rows of other tables

    def _beside(self, connection: Connection) -> list[RowsBeside]:
        """Return the tables whose rows are read beside those of the documents."""
        tables: list[RowsBeside] = list(self._parts.tables)
        pairs = None if self._access is None else self._access.pairs(connection)
        if pairs is not None:
            tables.append(pairs)
        return tables

    def _columns_beside(self, table: RowsBeside) -> list[sa.ColumnElement[Any]]:
        """Return the columns that are read in addition to those of a table: the digest, if any."""
        if self._backend == "sqlite" or self._layout == UNDIVIDED:
            return []
        return [self._digest_of(table.read_columns, table)]

    def _digest_beside(self, row: Row) -> tuple[int, int]:
        if self._layout == UNDIVIDED:
            return 0, 0
        if self._backend == "sqlite":
            return values_digest(row)
        return digest_halves(row[-1])

    def _with_documents(self, table: RowsBeside, *columns: sa.ColumnElement[Any]) -> Select[Any]:
        """Return the rows of a table with the documents that they are read for."""
        compared_as = self._compared_as.get(table) or [None] * len(table.on)
        conditions: list[Any] = []
        for own, other, kind in zip(table.on, table.of_document, compared_as, strict=True):
            value = converted(self._backend, self._from.c[other], kind)
            conditions.append(table.rows.c[own] == value)
        joined = self._from.join(table.rows, sa.and_(*conditions))
        return sa.select(*columns).select_from(joined).where(*self._keys_not_null())

    def _compare_as(
        self, connection: Connection, table: RowsBeside, types: Sequence[Any], own: Sequence[Any]
    ) -> None:
        """Find out how the columns of a document are compared with those of a table.

        Rows of a table are read by values, not by a join: PostgreSQL then reads a text as the type
        of the column, and MySQL compares by the collation of the column.

        Args:
            types: The type codes of the document's columns.
            own: The type codes of the table's columns, those in `table.on` first.
        """
        found: list[Any] = []
        for number, (name, other) in enumerate(zip(table.on, table.of_document, strict=True)):
            if self._backend == "postgresql":
                document_type = types[self._reader.positions[other]]
                found.append(cast_to(connection, document_type, own[number]))
            else:
                found.append(collation_of(connection, table.rows, name))
        self._compared_as[table] = found

    # SQLite

    def _digests_of_sqlite(self, connection: Connection) -> BucketDigests:
        """Return the digests of all buckets, page by page: writers wait for one page at most."""
        digests = BucketDigests()
        cursor: Cursor | None = None
        rows = SQLITE_ROWS
        while rows == SQLITE_ROWS:
            page, last_key = self._sum_page(connection, cursor)
            rows = page.rows
            cursor = Cursor(last_key)
            for bucket, (count, first, second) in page.items():
                digests.add(bucket, count, first, second)
        return digests

    def _sum_page(
        self, connection: Connection, cursor: Cursor | None
    ) -> tuple[BucketDigests, tuple[Any, ...]]:
        """Return the digests of the rows after a cursor and of their parts, and the last key."""
        width = len(self._keys)
        statement = self._in_order(connection, self._select(), cursor).limit(SQLITE_ROWS)
        with connection.execute(statement) as result:
            # The driver's cursor, not SQLAlchemy's: every row of the source passes through it.
            rows: Any = result.cursor
            try:
                digests, last = sum_values(self._layout, rows, width)
            except sqlite3.OperationalError as error:
                raise exc.OperationalError(str(statement), {}, error) from error
        if not digests:
            return digests, last
        for table in self._beside(connection):
            parts = self._with_documents(table, *self._keys, *table.read_columns)
            parts = parts.where(sa.not_(self._after(last)))
            if cursor is not None:
                parts = parts.where(self._after(cursor.key))
            for row in stream_rows(connection, parts):
                bucket = value_bucket(self._layout, row[:width])
                first, second = values_digest(row[width:])
                digests.add_part(bucket, first, second)
        return digests, last

    # What is read

    def _select_scanned(self) -> Select[Any]:
        """Return the query of the rows that the scan reads, with their bucket and digest."""
        statement = self._select()
        if self._layout == UNDIVIDED:
            return statement
        # `_read_scanned` computes the digests of SQLite from the values.
        if self._backend != "sqlite":
            statement = statement.add_columns(*self._digest_columns())
        if self._to_read is None:
            return statement
        if self._backend == "sqlite":
            statement = statement.where(sa.func.rag_index_reads(*self._as_arguments()))
        else:
            # Literals, not parameters: there may be more buckets than a statement has parameters.
            listed = ", ".join(map(str, sorted(self._to_read)))
            is_listed = self._bucket().op("IN", is_comparison=True)(literal(f"({listed})"))
            statement = statement.where(is_listed)
        ends = self._layout.keys_of(self._to_read)
        if ends is None:
            return statement
        # The lowest and highest key of these buckets: an index on the key can be used.
        lowest, highest = ends
        return statement.where(self._keys[0].between(literal(lowest), literal(highest)))

    def _read_scanned(
        self, rows: Sequence[Row], cursor: Any, parts: Sequence[DocumentParts]
    ) -> SourcePage:
        page = super()._read_scanned(rows, cursor, parts)
        if self._layout == UNDIVIDED:
            return page
        if self._files is not None:
            page = evolve(page, stamps=_stamps_of(self._files, page.documents))
        width = len(self._keys)
        sums = BucketDigests()
        numbers: list[int] = []
        for row, beside in zip(rows, parts, strict=True):
            if self._backend == "sqlite":
                number = value_bucket(self._layout, row[:width])
                first, second = values_digest(row)
            else:
                number = int(row[-2])
                first, second = digest_halves(row[-1])
            first_beside, second_beside = beside.digest
            sums.add(number, 1, first + first_beside, second + second_beside)
            numbers.append(number)
        keys = page.documents.keys
        if page.unreadable:
            # These rows have a bucket, too, and are no documents of the page.
            columns = list(zip(*[row[:width] for row in rows], strict=True))
            keys = encode_keys(columns)
        bucket_of = dict(zip(keys, numbers, strict=True))
        complete = self._completed(numbers, last=cursor is None)
        return evolve(page, buckets=PageBuckets(bucket_of, sums, complete))

    def _rendering(self, connection: Connection) -> tuple[list[Any], str]:
        """Return the type codes of all columns, and what determines how values are rendered.

        Raises:
            SourceError: The database cannot hash the values.
        """
        tables = self._beside(connection)
        types_of: dict[RowsBeside | None, list[Any]] = {}
        types_of[None] = type_codes(connection, self._select())
        for table in tables:
            types_of[table] = type_codes(connection, table.select())
        types = list(chain.from_iterable(types_of.values()))
        if self._backend == "sqlite":
            return types, self._backend
        if self._backend == "postgresql":
            self._find_text_columns(connection, types_of)
        for table in tables:
            self._compare_as(connection, table, types_of[None], types_of[table])
        settings = str(connection.exec_driver_sql(RENDERING[self._backend]).scalar())
        # The settings of MySQL end with md5('a'), which tests the function.
        if self._backend == "mysql" and not settings.endswith(MD5_OF_A):
            raise SourceError("this database computes no MD5")
        listed = " ".join(map(str, types))
        return types, f"{self._backend} {settings} {listed}"

    def _find_text_columns(
        self, connection: Connection, types_of: Mapping[RowsBeside | None, Sequence[Any]]
    ) -> None:
        """Find the columns of PostgreSQL that are hashed as text.

        These are columns of a type without a binary form. If the connection converts texts from the
        charset of the database, all columns that may hold text are hashed so.
        """
        types = list(chain.from_iterable(types_of.values()))
        listed = ",".join(map(str, types))
        parameters = {"types": f"{{{listed}}}"}
        sent_as_text = set(connection.scalars(sa.text(WITHOUT_BINARY_FORM), parameters))
        self._charset = connection.exec_driver_sql(CHARSET).scalar()
        if self._charset is not None:
            sent_as_text |= set(types) - WITHOUT_TEXT
        self._as_text = {}
        for table, codes in types_of.items():
            self._as_text[table] = [code in sent_as_text for code in codes]


def _stamps_of(files: FileReader, documents: DocumentBatch) -> dict[str, str]:
    """Return the stamps of the files that documents name, by key."""
    stamps: dict[str, str] = {}
    for key, named in zip(documents.keys, documents.files, strict=True):
        stamp = files.stamp(named)
        if stamp:
            stamps[key] = stamp
    return stamps
