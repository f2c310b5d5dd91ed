"""A SQL source whose buckets of rows have digests: only the rows of buckets that differ from the last scan are read.

A row belongs to a bucket by its key alone. Keys that are whole numbers are divided into ranges, so that rows that are
added and changed together are in few buckets; others are hashed. The digest of a row is 128 bits of a hash over its key
and all columns that the index reads. Values of any type, NULL and empty texts differ in the form that is hashed. The
digest of a bucket is the number of its rows and the sum of their digests, as two numbers of 64 bits each. A change
leaves it as it was with a probability of 2^-128, unless values are made for that purpose.

The database computes the digests in one pass over the rows, with read rights alone. A run then reads those buckets
whose digest is not the one that the ledger has. So it finds every change: deletions, rows that are committed late, and
rows without a time of change, too. A database that writes a value in another way than before (another version, another
time zone) gives another digest: then the bucket is read for nothing, and nothing is lost.

The digests that the ledger gets are sums over the rows as they were read, each with its digest in the same statement.
So they are the digests of what is in the index, whatever the source did between two queries.

A row of a part counts in the bucket of its document. The columns of joins are columns of the row.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import sqlite3
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from attrs import evolve
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql import BIT

from rag_index.components.sources import SourcePage
from rag_index.components.sources.pages import DocumentParts, require_all, stream_rows, valid_rows, with_any_text
from rag_index.components.sources.sql import Cursor, SqlSource
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.keys import encode_keys
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.sql.selectable import Select

    from rag_index.components.sources.pages import Row
    from rag_index.components.sources.part_reader import PartRows
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings

DIGEST_VERSION = 1
"""Raise it whenever a digest is computed in another way."""
BUCKET_ROWS = 128
"""The rows of a bucket, which are all read if one changed. Each bucket is a row of the ledger."""
MIN_BUCKETS, MAX_BUCKETS = 64, 65_536
MAX_GAPS = 64
"""Keys are hashed if they leave more numbers than this unused for each one used: ranges would be too uneven."""
MAX_TIMES = 4
"""The growth of a source after which it gets other buckets, when everything is read anyway."""
TEXT_KEYS = -(1 << 40)
"""SQLite's keys that are no numbers, although most are, lie below this. Ranges cannot have them."""
HALF = 1 << 64
"""A digest is two numbers below this."""
UNPACK = struct.Struct(">QQ16x").unpack
"""Returns the two halves of a digest, and leaves out the rest of a SHA-256."""
BACKENDS = {"mariadb": "mysql", "mysql": "mysql", "postgresql": "postgresql", "sqlite": "sqlite"}
"""The databases whose buckets have digests, and the one that they are like."""
WHOLE_NUMBERS = {"postgresql": {20, 21, 23}, "mysql": {1, 2, 3, 8, 9}}
"""Drivers' codes of the types of whole numbers."""
RENDERING = {
    "postgresql": "SELECT current_setting('lc_monetary')",
    "mysql": "SELECT concat_ws(' ', @@version, @@time_zone, @@character_set_connection, md5('a'))",
}
"""What the database's way to write values depends on, beside the types of the columns."""
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
"""The types among :types that PostgreSQL cannot send in binary form, or that hold one which it cannot: such as isn and
aclitem, their arrays, domains, ranges, and composites of them. Of a record, the catalog does not say what it holds."""
MD5_OF_A = "0cc175b9c0f1b6a831c399e269772661"
SQLITE_ROWS = 20_000
"""Rows whose digests are computed within one query of SQLite, which keeps writers waiting as long as it lasts."""
MAX_LISTED = 4096
"""Buckets that one query lists. If more differ, all rows are read."""
MAX_KEPT_BUCKETS = 1 << 18
"""If the source has grown until it has more buckets, all rows are read and divided into larger ones."""
MAX_SHARE = 0.5
"""If buckets with more than this share of all rows differ, all rows are read: that needs no second look at each key."""


class RowDigest(NamedTuple):
    """The bucket of a row, and its digest in two halves."""

    bucket: int
    first: int
    second: int


class BucketDigests(dict[int, list[int]]):
    """The number of rows, and the sums of both halves of their digests, by bucket."""

    @property
    def rows(self) -> int:
        return sum(rows for rows, _, _ in self.values())

    def add(self, bucket: int, rows: int, first: int, second: int) -> None:
        """Add rows of a bucket to it; of parts, which are no rows of their own, none."""
        sums = self.setdefault(bucket, [0, 0, 0])
        sums[0], sums[1], sums[2] = sums[0] + rows, sums[1] + first, sums[2] + second

    def add_part(self, bucket: int, first: int, second: int) -> None:
        """Add the digest of parts to their bucket, unless its documents are newer than the digests."""
        if bucket in self:
            self.add(bucket, 0, first, second)

    def encoded(self) -> dict[int, str]:
        """Return the digest of each bucket, as the ledger keeps it."""
        return {
            bucket: f"{rows}:{first % HALF:016x}{second % HALF:016x}" for bucket, (rows, first, second) in self.items()
        }


@dataclass(frozen=True, slots=True)
class BucketLayout:
    """How rows are divided into buckets. It is kept in the ledger as text."""

    kind: Literal["range", "hash"]
    size: int
    """The keys of a range, or the number of hash buckets (a power of 2)."""
    rendering: str
    """What decides how the database writes values; digests that were computed with another are not comparable."""

    def encode(self) -> str:
        return json.dumps([DIGEST_VERSION, self.kind, self.size, self.rendering])

    @classmethod
    def decode(cls, text: str | None) -> BucketLayout | None:
        """Return the layout that a scan left; None if there is none, or none of this version."""
        try:
            version, kind, size, rendering = json.loads(text or "")
        except (TypeError, ValueError):
            return None
        return cls(kind, size, rendering) if version == DIGEST_VERSION else None

    def fits(self, wanted: BucketLayout) -> bool:
        """Return whether buckets of this layout are about like those of the layout that a source would get now."""
        return self.kind == wanted.kind and wanted.size / MAX_TIMES <= self.size <= wanted.size * MAX_TIMES

    def keys_of(self, buckets: Collection[int]) -> tuple[int, int] | None:
        """Return two numbers between which the keys of these buckets are; None if nothing is known of them."""
        if self.kind != "range" or min(buckets) <= TEXT_KEYS + MIN_BUCKETS:
            return None  # databases round to zero or downwards: a range more on either side
        ends = (min(buckets) - 1) * self.size, (max(buckets) + 2) * self.size
        highest = HALF // 2 - 1 if max(buckets) * self.size < HALF // 2 else HALF  # of a BIGINT UNSIGNED
        return max(ends[0], 1 - HALF // 2), min(ends[1], highest)


def choose_layout(rows: int, lowest: Any, highest: Any, rendering: str) -> BucketLayout:
    """Return the layout for `rows` rows with keys from `lowest` to `highest`, None unless they are whole numbers."""
    wanted = max(MIN_BUCKETS, min(MAX_BUCKETS, rows // BUCKET_ROWS))
    count = 1 << (wanted - 1).bit_length()
    if lowest is not None and highest is not None and highest - lowest <= MAX_GAPS * max(rows, MIN_BUCKETS):
        return BucketLayout("range", max(2, -(-(highest - lowest + 1) // count)), rendering)
    return BucketLayout("hash", count, rendering)


def value_bucket(layout: BucketLayout, key: Sequence[Any]) -> int:
    """Return the bucket of a key as SQLite gives it."""
    if layout.kind == "range" and isinstance(key[0], int | float) and abs(key[0]) <= HALF // 2:
        return int(key[0] // layout.size)
    hashed = zlib.crc32(marshal.dumps(tuple(key), 0))
    return hashed & (layout.size - 1) if layout.kind == "hash" else TEXT_KEYS - (hashed & (MIN_BUCKETS - 1))


def values_digest(values: Sequence[Any]) -> tuple[int, int]:
    """Return the digest of values as SQLite gives them, in two halves. `marshal` in its version 0 writes each value
    with its type and its length, and nothing else decides the bytes."""
    first, second = UNPACK(hashlib.sha256(marshal.dumps(tuple(values), 0)).digest())
    return first, second


def sum_values(
    layout: BucketLayout, rows: Iterable[tuple[Any, ...]], width: int
) -> tuple[BucketDigests, tuple[Any, ...]]:
    """Return the digests of rows as SQLite gives them, and the key of the last one. A key has `width` columns."""
    found, row = BucketDigests(), ()
    for row in rows:  # as `values_digest` and `add`, which would take a fifth longer if they were called for each row
        first, second = UNPACK(hashlib.sha256(marshal.dumps(row, 0)).digest())
        sums = found.setdefault(value_bucket(layout, row[:width]), [0, 0, 0])
        sums[0], sums[1], sums[2] = sums[0] + 1, sums[1] + first, sums[2] + second
    return found, row[:width]


class DigestSource(SqlSource):
    """A `SqlSource` that leaves buckets of rows unread whose digests are as the last scan left them."""

    def __init__(self, url: URL, index: IndexSettings, **how: Any) -> None:
        super().__init__(url, index, **how)
        backend = url.get_backend_name()
        if backend not in BACKENDS:
            self.close()
            raise SettingsError(
                f"[source] digest = true: there are no digests of {backend}, only of PostgreSQL, MariaDB, MySQL and "
                "SQLite; leave digest out"
            )
        self._backend = BACKENDS[backend]
        if backend == "sqlite":

            @event.listens_for(self._engine, "connect")
            def register(connection: Any, _record: object) -> None:
                connection.create_function("rag_index_bucket", -1, lambda *key: value_bucket(self._layout, key))

        self._copies_always = self._copies
        self._state: ScanState | None = None
        self._layout = BucketLayout("hash", 1, "")
        self._rows: int | None = None
        self._as_text: dict[PartRows | None, list[bool]] = {}
        """Which columns of the rows (None) and of each table of parts are hashed as text."""
        self._unread: dict[int, int] = {}
        self._to_read: set[int] | None = None
        """The buckets to be read; None if all are."""
        self._parts.digest_columns, self._parts.digest = self._part_columns, self._part_digest

    def use_scan_state(self, state: ScanState) -> None:
        """Prepare for a scan. The digests are computed with the first page, or when rows are counted."""
        self._state = state
        self._rows, self._unread, self._to_read = None, {}, None

    def count(self) -> int:
        return super().count() if self._state is None else self._begin(self._state)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of rows from the buckets to be read. The first page has the buckets that stay unread."""
        if self._state is None or cursor is not None:
            return super().page(cursor, rows)
        self._begin(self._state)
        if self._to_read is not None and not self._to_read:
            return SourcePage(DocumentBatch.empty(), None, unread_buckets=self._unread)
        return evolve(super().page(cursor, rows), unread_buckets=self._unread)

    def _begin(self, state: ScanState) -> int:
        """Find out which buckets have to be read, once for each scan, and return how many rows there are."""
        if self._rows is not None:
            return self._rows
        with self._connect(patience=self._timeout) as connection:
            types, rendering = self._rendering(connection)
            before = BucketLayout.decode(state.last_watermark)
            before = before if before is not None and before.rendering == rendering else None
            if before is not None and state.watermark is not None:
                self._layout = before
                self._compare(state.digests(), self._digests(connection))
            if self._to_read is None:
                self._copies = self._copies_always
                self._layout, self._rows = self._choose_layout(connection, types, rendering, before)
        state.set_watermark(self._layout.encode())
        self._counted = (self._rows or 0) - sum(self._unread.values())
        return self._rows or 0

    def _compare(self, known: Mapping[int, str], found: BucketDigests) -> None:
        """Choose the buckets to read by these digests, unless there is too much to read."""
        differ = {bucket for bucket, digest in found.encoded().items() if known.get(bucket) != digest}
        unread = {bucket: rows for bucket, (rows, _, _) in found.items() if bucket not in differ}
        same = sum(unread.values())
        if len(found) > MAX_KEPT_BUCKETS or len(differ) > MAX_LISTED or found.rows - same > MAX_SHARE * found.rows:
            return
        self._rows, self._to_read, self._unread = found.rows, differ, unread
        # pages in the order of a key do not help to find hashed buckets: one pass does
        self._copies = self._copies_always or (self._layout.kind == "hash" and self._backend != "sqlite")

    def _choose_layout(
        self, connection: Connection, types: Sequence[Any], rendering: str, before: BucketLayout | None
    ) -> tuple[BucketLayout, int]:
        """Return a layout for all rows, the one before if it still fits, and the number of rows."""
        key = self._keys[0]
        whole = len(self._keys) == 1 and (self._backend == "sqlite" or types[0] in WHOLE_NUMBERS[self._backend])
        ends = [sa.func.min(key), sa.func.max(key)] if whole else [sa.null(), sa.null()]
        statement = sa.select(sa.func.count(), *ends).select_from(self._from).where(*self._keys_not_null())
        rows, *found = connection.execute(statement).one()
        lowest, highest = [value if isinstance(value, int) else None for value in found]
        wanted = choose_layout(rows, lowest, highest, rendering)
        return (before if before is not None and before.fits(wanted) else wanted), rows

    def _digests(self, connection: Connection) -> BucketDigests:
        if self._backend == "sqlite":
            return self._digests_of_sqlite(connection)
        streamed, found = {"stream_results": True}, BucketDigests()
        for row in connection.execute(self.digest_statement(), execution_options=streamed):
            found.add(*map(int, row))
        require_all(connection, self._select(), found.rows)
        for table in self._parts.tables:
            rows = self._with_parts(table, self._digest_columns()[0], *self._part_columns(table))
            for bucket, _, *sums in connection.execute(self._summed(rows), execution_options=streamed):
                found.add_part(int(bucket), *map(int, sums))
        return found

    def digest_statement(self) -> Select[Any]:
        """Return the query of all digests, after the scan has begun. Not for SQLite, which has none."""
        return self._summed(sa.select(*self._digest_columns()).where(*self._keys_not_null()))

    def _summed(self, rows: Select[Any]) -> Select[Any]:
        bucket, digest = rows.selected_columns
        rows = rows.with_only_columns(bucket.label("bucket"), digest.label("digest"), maintain_column_froms=True)
        if self._backend == "postgresql":  # keeps each digest from being computed once for each half
            rows = rows.offset(_sql(0))
        every = rows.subquery("digests")
        numbers: list[Any] = []
        for half in (0, 1):
            if self._backend == "postgresql":
                part: Any = sa.func.encode(sa.func.substr(every.c.digest, _sql(1 + 8 * half), _sql(8)), "hex")
                bits: Any = sa.cast(sa.literal_column("'x'").op("||")(part), BIT(64))
                numbers.append(sa.cast(bits, sa.BigInteger))
            else:
                part = sa.func.conv(sa.func.substr(every.c.digest, 1 + 16 * half, 16), 16, 10)
                numbers.append(sa.cast(part, sa.Numeric(20)))
        return sa.select(every.c.bucket, sa.func.count(), *map(sa.func.sum, numbers)).group_by(every.c.bucket)

    def _digest_columns(self) -> tuple[Any, Any]:
        size, keys = self._layout.size, self._keys
        values = list(super()._select().selected_columns)[len(keys) :]
        whole = self._digest_of([*keys, *values], None)
        if self._layout.kind == "range":
            by_range = _sql(f"{size}::bigint" if self._backend == "postgresql" else size)
            return keys[0].op("/" if self._backend == "postgresql" else "DIV")(by_range), whole
        if self._backend == "postgresql":
            text = sa.cast(sa.func.row(*keys), sa.Text).collate("C")
            return sa.func.hashtextextended(text, _sql(0)).op("&")(_sql(size - 1)), whole
        joined = sa.func.concat(*[sa.func.md5(key) for key in keys])
        return sa.func.crc32(joined).op("&")(_sql(size - 1)), whole

    def _digest_of(self, values: Sequence[sa.ColumnElement[Any]], table: PartRows | None) -> sa.ColumnElement[Any]:
        if self._backend == "postgresql":
            as_text = zip(values, self._as_text[table], strict=True)
            sent = [sa.cast(value, sa.Text) if text else value for value, text in as_text]
            return sa.func.sha256(sa.func.record_send(sa.func.row(*sent)))
        return sa.func.md5(sa.func.concat(*[sa.func.coalesce(sa.func.md5(column), "-") for column in values]))

    def _part_columns(self, table: PartRows) -> list[sa.ColumnElement[Any]]:
        if self._backend == "sqlite" or self._state is None:
            return []
        return [self._digest_of([table.rows.c[name] for name in table.columns], table)]

    def _part_digest(self, row: Row) -> tuple[int, int]:
        if self._state is None:
            return 0, 0
        return values_digest(row) if self._backend == "sqlite" else _read_digest(row[-1])

    def _with_parts(self, table: PartRows, *columns: sa.ColumnElement[Any]) -> Select[Any]:
        both: list[Any] = [
            (table.rows.c[own], self._from.c[other]) for own, other in zip(table.on, table.of_document, strict=True)
        ]
        if self._backend == "postgresql":  # types may differ, such as a text that holds ids of several tables
            both = [(sa.cast(own, sa.Text), sa.cast(other, sa.Text)) for own, other in both]
        joined = self._from.join(table.rows, sa.and_(*[own == other for own, other in both]))
        return sa.select(*columns).select_from(joined).where(*self._keys_not_null())

    def _digests_of_sqlite(self, connection: Connection) -> BucketDigests:
        """Return the digest of each bucket, page by page, so that writers need not wait for all of them."""
        found, cursor, rows = BucketDigests(), None, SQLITE_ROWS
        while rows == SQLITE_ROWS:
            page, last = with_any_text(connection, partial(self._sum_page, connection, cursor))
            for bucket, sums in page.items():
                found.add(bucket, *sums)
            rows, cursor = page.rows, Cursor(last)
        return found

    def _sum_page(self, connection: Connection, cursor: Cursor | None) -> tuple[BucketDigests, tuple[Any, ...]]:
        """Return the digests of the rows after a cursor and of their parts, and the key of the last row."""
        width = len(self._keys)
        statement = self._in_order(connection, self._select(), cursor).limit(SQLITE_ROWS)
        with connection.execute(statement) as result:
            rows: Any = result.cursor  # that of the driver: every row of the source passes here
            try:
                found, last = sum_values(self._layout, valid_rows(connection, rows, width), width)
            except sqlite3.OperationalError as error:
                raise exc.OperationalError(str(statement), {}, error) from error
        for table in self._parts.tables if found else ():
            statement = self._with_parts(table, *self._keys, *table.read_columns).where(sa.not_(self._after(last)))
            if cursor is not None:
                statement = statement.where(self._after(cursor.key))
            for row in stream_rows(connection, statement):
                found.add_part(value_bucket(self._layout, row[:width]), *values_digest(row[width:]))
        return found, last

    def _select(self) -> Select[Any]:
        statement = super()._select()
        if self._state is None:
            return statement
        if self._backend != "sqlite":
            statement = statement.add_columns(*self._digest_columns())
        if (numbers := self._to_read) is None:
            return statement
        bucket = sa.func.rag_index_bucket(*self._keys) if self._backend == "sqlite" else self._digest_columns()[0]
        listed = ", ".join(map(str, sorted(numbers)))
        statement = statement.where(bucket.op("IN", is_comparison=True)(_sql(f"({listed})")))
        ends = self._layout.keys_of(numbers)  # an index on the key helps
        return statement if ends is None else statement.where(self._keys[0].between(_sql(ends[0]), _sql(ends[1])))

    def _groups(self, connection: Connection, rows: Sequence[Row]) -> list[list[str]] | None:
        has_digests = self._state is not None and self._backend != "sqlite"
        return super()._groups(connection, [row[:-2] for row in rows] if has_digests else rows)

    def _read(self, rows: Sequence[Row], cursor: Any, parts: Sequence[DocumentParts]) -> SourcePage:
        if self._state is None:
            return super()._read(rows, cursor, parts)
        width = len(self._keys)
        if self._backend == "sqlite":
            digests = [RowDigest(value_bucket(self._layout, row[:width]), *values_digest(row)) for row in rows]
        else:
            digests = [RowDigest(int(row[-2]), *_read_digest(row[-1])) for row in rows]
        if self._parts.tables:
            pairs = zip(digests, parts, strict=True)
            digests = [RowDigest(own.bucket, *map(sum, zip(own[1:], one.digest, strict=True))) for own, one in pairs]
        page = super()._read(rows, cursor, parts)
        keys = encode_keys(list(zip(*[row[:width] for row in rows], strict=True)) or [()] * width)
        return evolve(page, digests=dict(zip(keys, digests, strict=True)))

    def _rendering(self, connection: Connection) -> tuple[list[Any], str]:
        by_table: dict[PartRows | None, list[Any]] = {}
        for table in (None, *self._parts.tables):
            statement = super()._select() if table is None else table.select()
            with connection.execute(statement.limit(0)) as result:
                description: Any = result.cursor.description if result.cursor is not None else []
                by_table[table] = [column[1] for column in description]
        types = [one for some in by_table.values() for one in some]
        if self._backend == "postgresql":
            listed = f"{{{','.join(map(str, types))}}}"
            lacking = set(connection.scalars(sa.text(WITHOUT_BINARY_FORM), {"types": listed}))
            self._as_text = {table: [one in lacking for one in some] for table, some in by_table.items()}
        if self._backend == "sqlite":
            return types, self._backend
        found = str(connection.exec_driver_sql(RENDERING[self._backend]).scalar())
        if self._backend == "mysql" and not found.endswith(MD5_OF_A):
            raise SettingsError("[source] digest = true: this database computes no MD5; leave digest out")
        return types, f"{self._backend} {found} {' '.join(map(str, types))}"


def _sql(value: object) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(value))


def _read_digest(digest: Any) -> tuple[int, int]:
    raw = bytes.fromhex(digest) if isinstance(digest, str) else bytes(digest)
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big")
