"""Buckets of rows, and their digests, by which a run finds the rows that it need not read.

The key of a row alone determines its bucket. Keys that are whole numbers are divided into ranges,
so that rows that are added and changed together are in few buckets; others are hashed. The digest
of a row is 128 bits of a hash over its key and all columns that the index reads. The digest of a
bucket is the number of its rows and the sums of both halves of their digests. The probability that
a change leaves it the same is 2^-128, unless somebody chooses values for that.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import attrs

from rag_index.core.documents.sizes import shows_sizes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

DIGEST_VERSION = 3
"""Raise it whenever a digest is computed in another way."""
MIN_ROWS = 2000
"""All rows of a smaller table are read: one page costs less than computing digests. Chosen; nothing
depends on it."""
BUCKET_ROWS = 16
"""The rows of a bucket, which are all read if one changed. Each bucket is a row of the ledger.
Chosen; nothing depends on it."""
MIN_BUCKETS = 64
"""The fewest buckets of a source: a power of 2, since `TEXT_KEYS` hashes into as many."""
MAX_BUCKETS = 65_536
"""The most buckets of a source: a power of 2, and as many rows of the ledger."""
MAX_GAPS = 64
"""Numbers between the lowest and the highest key for each row. With more, keys are hashed: ranges
would be too uneven. Chosen; nothing depends on it."""
MAX_TIMES = 4
"""The growth of a source after which it gets other buckets, when everything is read anyway. Chosen;
nothing depends on it."""
TEXT_KEYS = -(1 << 40)
"""In SQLite, a few keys may be texts although the others are numbers. Their buckets are at most
this number; the buckets of numbers are above it, except for keys near -2**63."""
HALF = 1 << 64
"""A half of a digest has this many values."""
UNPACK = struct.Struct(">QQ16x").unpack
"""Returns the two halves of a digest, and leaves out the rest of a SHA-256."""


class BucketDigests(dict[int, list[int]]):
    """The number of rows, and the sums of both halves of their digests, by bucket."""

    @property
    def rows(self) -> int:
        """The number of rows in all buckets."""
        return sum(rows for rows, _, _ in self.values())

    def add(self, bucket: int, rows: int, first: int, second: int) -> None:
        """Add a number of rows and the sums of their digests to a bucket. Rows of parts count as 0
        rows."""
        sums = self.setdefault(bucket, [0, 0, 0])
        sums[0] += rows
        sums[1] += first
        sums[2] += second

    def add_part(self, bucket: int, first: int, second: int) -> None:
        """Add the digest of parts to the bucket of their document. If the bucket is unknown, the
        document was added after its rows were read, and nothing is added."""
        if bucket in self:
            self.add(bucket, 0, first, second)

    def encoded(self, buckets: Iterable[int] | None = None) -> dict[int, str]:
        """Return the digests of these buckets, or all, as the ledger stores them; "" for a bucket
        without rows.

        The form is rows:sum:sum, such as "2:-1234567890123456789:98765432101234567890". Databases
        compute the same text (`digest_sql.bucket_digests`).
        """
        encoded: dict[int, str] = {}
        for bucket in self if buckets is None else buckets:
            rows, first, second = self.get(bucket, (0, 0, 0))
            encoded[bucket] = f"{rows}:{first}:{second}" if rows else ""
        return encoded


def rows_of(digest: str) -> int:
    """Return the number of rows of a bucket: 2 for the digest "2:-17:4711"."""
    return int(digest.partition(":")[0])


@shows_sizes("unread")
@attrs.frozen
class PageBuckets:
    """The buckets of the rows of a page."""

    of: Mapping[str, int]
    """The bucket of each row that was read, by the key of its document."""
    sums: BucketDigests
    """The sums over the rows of the page, by bucket."""
    complete: Collection[int]
    """Buckets of which no later page should have rows."""
    unread: int = 0
    """How many rows of the source stay unread, because the digests of their buckets did not
    change."""


@dataclass(frozen=True, slots=True)
class BucketLayout:
    """How rows are divided into buckets. The ledger stores it as text."""

    kind: Literal["range", "hash", "none"]
    """`none`: the database cannot compute digests, so all rows are read."""
    size: int
    """The keys of a range, or the number of hash buckets (a power of 2)."""
    rendering: str
    """The settings of the database that determine how it renders values. Digests of another
    rendering cannot be compared."""

    def encode(self) -> str:
        return json.dumps([DIGEST_VERSION, self.kind, self.size, self.rendering])

    @classmethod
    def decode(cls, text: str | None) -> BucketLayout | None:
        """Return the layout that a scan stored; None without one of this version."""
        try:
            version, kind, size, rendering = json.loads(text or "")
        except (TypeError, ValueError):
            return None
        return cls(kind, size, rendering) if version == DIGEST_VERSION else None

    def fits(self, wanted: BucketLayout) -> bool:
        """Return whether buckets of this layout are about as large as those of the layout that the
        source would get now."""
        if self.kind != wanted.kind or self.rendering != wanted.rendering:
            return False
        return wanted.size / MAX_TIMES <= self.size <= wanted.size * MAX_TIMES

    def keys_of(self, buckets: Collection[int]) -> tuple[int, int] | None:
        """Return two numbers between which the keys of these buckets are; None if they are unknown,
        of hashed keys and of texts."""
        first = min(buckets)
        if self.kind != "range" or first <= TEXT_KEYS + MIN_BUCKETS:
            return None
        last = max(buckets)
        # Databases round to zero or downwards: a range more on either side.
        lowest = (first - 1) * self.size
        highest = (last + 2) * self.size
        # The numbers of a BIGINT, or of a BIGINT UNSIGNED if keys are above them.
        limit = HALF // 2 - 1 if last * self.size < HALF // 2 else HALF
        return max(lowest, 1 - HALF // 2), min(highest, limit)


def choose_layout(rows: int, lowest: Any, highest: Any, rendering: str) -> BucketLayout:
    """Return the layout for a number of rows.

    Args:
        lowest: The lowest key; None unless the keys are whole numbers.
        highest: The highest key.
        rendering: See `BucketLayout`.
    """
    wanted = max(MIN_BUCKETS, min(MAX_BUCKETS, rows // BUCKET_ROWS))
    # The next power of 2
    count = 1 << (wanted - 1).bit_length()
    if lowest is None or highest is None:
        return BucketLayout("hash", count, rendering)
    distance = highest - lowest
    if distance > MAX_GAPS * max(rows, MIN_BUCKETS):
        return BucketLayout("hash", count, rendering)
    # Rounded up, so that there are at most `count` ranges
    size = -(-(distance + 1) // count)
    return BucketLayout("range", max(2, size), rendering)


def value_bucket(layout: BucketLayout, key: Sequence[Any]) -> int:
    """Return the bucket of a key, by its values in SQLite."""
    first = key[0]
    if layout.kind == "range" and isinstance(first, int | float) and abs(first) <= HALF // 2:
        return int(first // layout.size)
    hashed = zlib.crc32(marshal.dumps(tuple(key), 0))
    if layout.kind == "hash":
        return hashed & (layout.size - 1)
    # A text, or a number that is too large, among whole numbers
    return TEXT_KEYS - (hashed & (MIN_BUCKETS - 1))


def values_digest(values: Sequence[Any]) -> tuple[int, int]:
    """Return both halves of the digest of values from SQLite.

    `marshal` in its version 0 writes each value with its type and its length, and equal values
    always as the same bytes.
    """
    first, second = UNPACK(hashlib.sha256(marshal.dumps(tuple(values), 0)).digest())
    return first, second


def sum_values(
    layout: BucketLayout, rows: Iterable[tuple[Any, ...]], width: int
) -> tuple[BucketDigests, tuple[Any, ...]]:
    """Return the digests of rows from SQLite by bucket, and the key of the last row. The key is the
    first `width` values of a row."""
    found = BucketDigests()
    row: tuple[Any, ...] = ()
    size = layout.size if layout.kind == "range" else 0
    # As `values_digest` and `add` do. Calling them for each row would take a fifth longer.
    for row in rows:
        first, second = UNPACK(hashlib.sha256(marshal.dumps(row, 0)).digest())
        is_number = size and type(row[0]) is int
        bucket = row[0] // size if is_number else value_bucket(layout, row[:width])
        sums = found.get(bucket)
        if sums is None:
            found[bucket] = [1, first, second]
        else:
            sums[0] += 1
            sums[1] += first
            sums[2] += second
    return found, row[:width]
