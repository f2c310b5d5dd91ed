"""Buckets of a source's rows, and a digest of each, computed by the database (`[source] digest`).

A row belongs to a bucket by its key alone. Keys that are whole numbers are divided into ranges, so that rows that are
added and changed together are in few buckets; others are hashed. The digest of a row is 128 bits of a hash over its key
and all columns that the index reads. Values of any type, NULL and empty texts differ in the form that is hashed. The
digest of a bucket is the number of its rows and the sum of their digests, as two numbers of 64 bits each.

A change of a bucket's rows leaves its digest as it was with a probability of 2^-128, if nobody makes the values for
that purpose. A database that writes a value in another way than before (another version, another time zone) gives
another digest: then the bucket is read for nothing, and nothing is lost.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BIT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

VERSION = 1
"""Raise it whenever a digest is computed in another way."""
BUCKET_ROWS = 128
"""The rows of a bucket, which are all read if one changed. Each bucket is a row of the ledger."""
MIN_BUCKETS, MAX_BUCKETS = 64, 65_536
SPARSE = 64
"""Keys are hashed if they leave more numbers than this unused for each one used: ranges would be too uneven."""
MAX_TIMES = {"range": 4, "hash": 2}
"""The growth of a source after which it gets other buckets, when everything is read anyway."""
TEXT_KEYS = -(1 << 40)
"""SQLite's keys that are no numbers, although most are, lie below this. Ranges cannot have them."""
HALF = 1 << 64
"""A digest is two numbers below this."""
UNPACK = struct.Struct(">QQ16x").unpack
"""Returns the two halves of a digest, and leaves out the rest of a SHA-256."""


class RowDigest(NamedTuple):
    """The bucket of a row, and its digest in two halves."""

    bucket: int
    first: int
    second: int


class BucketDigest(NamedTuple):
    """The digest of a bucket: its number of rows, and the sums of both halves of their digests."""

    rows: int
    first: int
    second: int

    @classmethod
    def of(cls, rows: Any, first: Any, second: Any) -> BucketDigest:
        """Return the digest from the values of `sum_columns`."""
        return cls(int(rows), int(first) % HALF, int(second) % HALF)

    def plus(self, row: RowDigest) -> BucketDigest:
        """Return the digest with a row more."""
        return BucketDigest(self.rows + 1, (self.first + row.first) % HALF, (self.second + row.second) % HALF)

    def with_parts(self, first: int, second: int) -> BucketDigest:
        """Return the digest with those of parts of its documents, which are no rows of their own."""
        return BucketDigest(self.rows, (self.first + first) % HALF, (self.second + second) % HALF)

    def encode(self) -> str:
        """Return the digest as the ledger keeps it."""
        return f"{self.rows}:{self.first:016x}{self.second:016x}"


NO_ROWS = BucketDigest(0, 0, 0)


@dataclass(frozen=True, slots=True)
class BucketLayout:
    """How rows are divided into buckets. It is kept in the ledger as text."""

    kind: Literal["range", "hash"]
    size: int
    """The keys of a range, or the number of hash buckets (a power of 2)."""
    rendering: str
    """What decides how the database writes values; digests that were computed with another are not comparable."""

    def encode(self, since: str | None) -> str:
        """Return the watermark of a scan: the layout, the version of the digest, and a watermark of times."""
        return json.dumps([VERSION, self.kind, self.size, self.rendering, since])

    @classmethod
    def decode(cls, text: str | None) -> BucketLayout | None:
        """Return the layout that a scan left; None if there is none, or none of this version."""
        try:
            version, kind, size, rendering, _since = json.loads(text or "")
        except (TypeError, ValueError):
            return None
        return cls(kind, size, rendering) if version == VERSION else None

    def fits(self, wanted: BucketLayout) -> bool:
        """Return whether buckets of this layout are about as large as those of the layout that a source would get."""
        if self.kind != wanted.kind:
            return self.kind == "range"  # a few keys far away from the others fill no buckets
        times = MAX_TIMES[self.kind]
        return wanted.size / times <= self.size <= wanted.size * times

    def keys_of(self, buckets: Collection[int]) -> tuple[int, int] | None:
        """Return two numbers between which the keys of these buckets are; None if nothing is known of them."""
        if self.kind != "range" or min(buckets) <= TEXT_KEYS + MIN_BUCKETS:
            return None  # databases round to zero or downwards: a range more on either side
        ends = (min(buckets) - 1) * self.size, (max(buckets) + 2) * self.size
        return max(ends[0], 1 - HALF // 2), min(ends[1], HALF // 2 - 1)


def time_watermark(watermark: str) -> str | None:
    """Return the watermark of times that a scan left, with digests or without."""
    found = json.loads(watermark)
    return found[-1] if isinstance(found, list) else watermark


def choose_layout(rows: int, lowest: Any, highest: Any, rendering: str) -> BucketLayout:
    """Return the layout for `rows` rows with keys from `lowest` to `highest`, None unless they are whole numbers."""
    count = _bucket_count(rows)
    if lowest is not None and highest is not None and highest - lowest <= SPARSE * max(rows, MIN_BUCKETS):
        return BucketLayout("range", max(2, -(-(highest - lowest + 1) // count)), rendering)
    return BucketLayout("hash", count, rendering)


def _bucket_count(rows: int) -> int:
    wanted = max(MIN_BUCKETS, min(MAX_BUCKETS, rows // BUCKET_ROWS))
    return 1 << (wanted - 1).bit_length()


def value_bucket(layout: BucketLayout, key: Sequence[Any]) -> int:
    """Return the bucket of a key as SQLite gives it."""
    if layout.kind == "range" and isinstance(key[0], int | float) and abs(key[0]) <= HALF // 2:
        return int(key[0] // layout.size)
    hashed = zlib.crc32(marshal.dumps(tuple(key), 0))
    return hashed & (layout.size - 1) if layout.kind == "hash" else TEXT_KEYS - (hashed & (MIN_BUCKETS - 1))


def row_digest(layout: BucketLayout, row: tuple[Any, ...], width: int) -> RowDigest:
    """Return the digest of a row as SQLite gives it, which begins with a key of `width` columns.

    `marshal` in its version 0 writes each value with its type and its length, and nothing else decides the bytes.
    """
    return RowDigest(value_bucket(layout, row[:width]), *UNPACK(hashlib.sha256(marshal.dumps(row, 0)).digest()))


def values_digest(values: Sequence[Any]) -> tuple[int, int]:
    """Return the digest of values as SQLite gives them, in two halves."""
    first, second = UNPACK(hashlib.sha256(marshal.dumps(tuple(values), 0)).digest())
    return first, second


def add_values(
    found: dict[int, BucketDigest], layout: BucketLayout, rows: Iterable[tuple[Any, ...]], width: int
) -> tuple[int, tuple[Any, ...]]:
    """Add rows as SQLite gives them to the digests of their buckets; return their number and the last of them.

    As `row_digest` and `add_rows`, for a whole source: rows in the order of their keys are added up bucket by bucket.
    """
    row: tuple[Any, ...] = ()
    number, count, rows_of, first, second = 0, 0, 0, 0, 0
    for row in rows:
        bucket = value_bucket(layout, row[:width])
        if bucket != number and rows_of:
            _add(found, number, rows_of, first, second)
            count, rows_of, first, second = count + rows_of, 0, 0, 0
        number = bucket
        one, other = UNPACK(hashlib.sha256(marshal.dumps(row, 0)).digest())
        rows_of, first, second = rows_of + 1, first + one, second + other
    _add(found, number, rows_of, first, second)
    return count + rows_of, row


def _add(found: dict[int, BucketDigest], bucket: int, rows: int, first: int, second: int) -> None:
    if rows:
        known = found.get(bucket, NO_ROWS)
        found[bucket] = BucketDigest.of(known.rows + rows, known.first + first, known.second + second)


def digest_columns(
    backend: str, layout: BucketLayout, keys: Sequence[sa.ColumnElement[Any]], values: Sequence[sa.ColumnElement[Any]]
) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    """Return the columns with the bucket and with the digest of a row (`RowDigest`, as `read_digest` reads it).

    For PostgreSQL, MariaDB and MySQL; `values` are the other columns that the index reads.
    """
    if backend == "postgresql":
        whole = sa.func.sha256(sa.func.record_send(sa.func.row(*keys, *values)))
        return _postgresql_bucket(layout, keys), whole
    parts = [sa.func.coalesce(sa.func.md5(column), "-") for column in [*keys, *values]]
    return _mysql_bucket(layout, keys), sa.func.md5(sa.func.concat(*parts))


def _postgresql_bucket(layout: BucketLayout, keys: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    if layout.kind == "range":
        return keys[0].op("/")(sa.literal_column(f"{layout.size}::bigint"))
    text = sa.cast(sa.func.row(*keys), sa.Text).collate("C")
    return sa.func.hashtextextended(text, sa.literal_column("0")).op("&")(sa.literal_column(str(layout.size - 1)))


def _mysql_bucket(layout: BucketLayout, keys: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    if layout.kind == "range":
        return keys[0].op("DIV")(sa.literal_column(str(layout.size)))
    joined = sa.func.concat(*[sa.func.md5(key) for key in keys])
    return sa.func.crc32(joined).op("&")(sa.literal_column(str(layout.size - 1)))


def sum_columns(backend: str, digest: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    """Return the columns of `BucketDigest` for rows with this digest."""
    if backend == "postgresql":
        halves = [sa.func.encode(sa.func.substr(digest, sa.literal_column(str(n)), sa.literal_column("8")), "hex")
                  for n in (1, 9)]  # fmt: skip
        bits: list[sa.ColumnElement[Any]] = [
            sa.cast(sa.literal_column("'x'").op("||")(half), BIT(64)) for half in halves
        ]
        numbers: list[sa.ColumnElement[Any]] = [sa.cast(half, sa.BigInteger) for half in bits]
    else:
        halves = [sa.func.conv(sa.func.substr(digest, n, 16), 16, 10) for n in (1, 17)]
        numbers = [sa.cast(half, sa.Numeric(20)) for half in halves]
    return [sa.func.count(), *[sa.func.sum(number) for number in numbers]]


def read_digest(bucket: Any, digest: Any) -> RowDigest:
    """Return the digest of a row from the values of `digest_columns`."""
    raw = bytes(digest)[:16] if not isinstance(digest, str) else bytes.fromhex(digest)
    return RowDigest(int(bucket), int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big"))


def add_rows(found: dict[int, BucketDigest], rows: Iterable[RowDigest]) -> None:
    """Add rows to the digests of their buckets."""
    for row in rows:
        found[row.bucket] = found.get(row.bucket, NO_ROWS).plus(row)
