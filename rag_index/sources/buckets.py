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
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

VERSION = 1
"""Raise it whenever a digest is computed in another way."""
BUCKET_ROWS = 128
"""The rows of a bucket, which are all read if one changed. Each bucket is a row of the ledger."""
MIN_BUCKETS, MAX_BUCKETS = 64, 65_536
SPARSE = 64
"""Keys are hashed if they leave more numbers than this unused for each one used: ranges would be too uneven."""
MAX_TIMES = 4
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

    def plus(self, rows: int, first: int, second: int) -> BucketDigest:
        """Return the digest with more rows; of parts, which are no rows of their own, with none."""
        return BucketDigest(self.rows + rows, (self.first + first) % HALF, (self.second + second) % HALF)

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

    def encode(self) -> str:
        """Return the watermark of a scan: the layout, and the version of the digest."""
        return json.dumps([VERSION, self.kind, self.size, self.rendering])

    @classmethod
    def decode(cls, text: str | None) -> BucketLayout | None:
        """Return the layout that a scan left; None if there is none, or none of this version."""
        try:
            version, kind, size, rendering = json.loads(text or "")
        except (TypeError, ValueError):
            return None
        return cls(kind, size, rendering) if version == VERSION else None

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
    if lowest is not None and highest is not None and highest - lowest <= SPARSE * max(rows, MIN_BUCKETS):
        return BucketLayout("range", max(2, -(-(highest - lowest + 1) // count)), rendering)
    return BucketLayout("hash", count, rendering)


def value_bucket(layout: BucketLayout, key: Sequence[Any]) -> int:
    """Return the bucket of a key as SQLite gives it."""
    if layout.kind == "range" and isinstance(key[0], int | float) and abs(key[0]) <= HALF // 2:
        return int(key[0] // layout.size)
    hashed = zlib.crc32(marshal.dumps(tuple(key), 0))
    return hashed & (layout.size - 1) if layout.kind == "hash" else TEXT_KEYS - (hashed & (MIN_BUCKETS - 1))


def values_digest(values: Sequence[Any]) -> tuple[int, int]:
    """Return the digest of values as SQLite gives them, in two halves.

    `marshal` in its version 0 writes each value with its type and its length, and nothing else decides the bytes.
    """
    first, second = UNPACK(hashlib.sha256(marshal.dumps(tuple(values), 0)).digest())
    return first, second


def sum_values(
    layout: BucketLayout, rows: Iterable[tuple[Any, ...]], width: int
) -> tuple[dict[int, list[int]], tuple[Any, ...]]:
    """Return the number of rows and the sums of both halves by bucket, and the last row. A key has `width` columns."""
    sums: dict[int, list[int]] = {}
    row: tuple[Any, ...] = ()
    for row in rows:
        first, second = UNPACK(hashlib.sha256(marshal.dumps(row, 0)).digest())
        one = sums.setdefault(value_bucket(layout, row[:width]), [0, 0, 0])
        one[0], one[1], one[2] = one[0] + 1, one[1] + first, one[2] + second
    return sums, row


def add_rows(found: dict[int, BucketDigest], rows: Iterable[RowDigest]) -> None:
    """Add rows to the digests of their buckets."""
    for bucket, first, second in rows:
        found[bucket] = found.get(bucket, NO_ROWS).plus(1, first, second)
