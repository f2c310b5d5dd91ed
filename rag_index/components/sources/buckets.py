"""Buckets of rows, and their digests: what tells a run which rows it need not read.

A row belongs to a bucket by its key alone. Keys that are whole numbers are divided into ranges, so
that rows that are added and changed together are in few buckets; others are hashed. The digest of a
row is 128 bits of a hash over its key and all columns that the index reads. The digest of a bucket
is the number of its rows and the sum of their digests, as two numbers of 64 bits each. A change
leaves it as it was with a probability of 2^-128, unless values are made for that.
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

DIGEST_VERSION = 2
"""Raise it whenever a digest is computed in another way."""
MIN_ROWS = 2000
"""Smaller tables are read whole: one page costs less than asking what changed."""
BUCKET_ROWS = 16
"""The rows of a bucket, which are all read if one changed. Each bucket is a row of the ledger."""
MIN_BUCKETS, MAX_BUCKETS = 64, 65_536
MAX_GAPS = 64
"""Keys are hashed if they leave more numbers than this unused for each one used: ranges would be
too uneven."""
MAX_TIMES = 4
"""The growth of a source after which it gets other buckets, when everything is read anyway."""
TEXT_KEYS = -(1 << 40)
"""SQLite's keys that are no numbers, although most are, lie below this. Ranges cannot have them."""
HALF = 1 << 64
"""A digest is two numbers below this."""
UNPACK = struct.Struct(">QQ16x").unpack
"""Returns the two halves of a digest, and leaves out the rest of a SHA-256."""


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
        """Add the digest of parts to their bucket, unless its documents are newer than the
        digests."""
        if bucket in self:
            self.add(bucket, 0, first, second)

    def encoded(self, buckets: Iterable[int] | None = None) -> dict[int, str]:
        """Return the digests of these buckets, or all, as the ledger keeps them; "" for one without
        rows."""
        found = (
            (bucket, self.get(bucket, (0, 0, 0)))
            for bucket in (self if buckets is None else buckets)
        )
        return {
            bucket: f"{rows}:{first % HALF:016x}{second % HALF:016x}" if rows else ""
            for bucket, (rows, first, second) in found
        }


@shows_sizes("unread")
@attrs.frozen
class PageBuckets:
    """The buckets of the rows of a page."""

    of: Mapping[str, int]
    """The bucket of each row that was read, by key."""
    sums: BucketDigests
    """What the rows of the page add to the digests of their buckets."""
    complete: Collection[int]
    """Buckets of which no later page is expected to have rows."""
    unread: int = 0
    """How many rows of the source stay unread, because the digests of their buckets are as they
    were."""


@dataclass(frozen=True, slots=True)
class BucketLayout:
    """How rows are divided into buckets. It is kept in the ledger as text."""

    kind: Literal["range", "hash", "none"]
    """`none`: the database cannot compute digests, so all rows are read."""
    size: int
    """The keys of a range, or the number of hash buckets (a power of 2)."""
    rendering: str
    """What decides how the database writes values; digests that were computed with another are not
    comparable."""

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
        """Return whether buckets of this layout are about like those of the layout that a source
        would get now."""
        same = self.kind == wanted.kind and self.rendering == wanted.rendering
        return same and wanted.size / MAX_TIMES <= self.size <= wanted.size * MAX_TIMES

    def keys_of(self, buckets: Collection[int]) -> tuple[int, int] | None:
        """Return two numbers between which the keys of these buckets are; None if nothing is known
        of them."""
        if self.kind != "range" or min(buckets) <= TEXT_KEYS + MIN_BUCKETS:
            return None  # databases round to zero or downwards: a range more on either side
        ends = (min(buckets) - 1) * self.size, (max(buckets) + 2) * self.size
        highest = (
            HALF // 2 - 1 if max(buckets) * self.size < HALF // 2 else HALF
        )  # of a BIGINT UNSIGNED
        return max(ends[0], 1 - HALF // 2), min(ends[1], highest)


def choose_layout(rows: int, lowest: Any, highest: Any, rendering: str) -> BucketLayout:
    """Return the layout for `rows` rows with keys from `lowest` to `highest`, None unless they are
    whole numbers."""
    wanted = max(MIN_BUCKETS, min(MAX_BUCKETS, rows // BUCKET_ROWS))
    count = 1 << (wanted - 1).bit_length()
    if (
        lowest is not None
        and highest is not None
        and highest - lowest <= MAX_GAPS * max(rows, MIN_BUCKETS)
    ):
        return BucketLayout("range", max(2, -(-(highest - lowest + 1) // count)), rendering)
    return BucketLayout("hash", count, rendering)


def value_bucket(layout: BucketLayout, key: Sequence[Any]) -> int:
    """Return the bucket of a key as SQLite gives it."""
    if layout.kind == "range" and isinstance(key[0], int | float) and abs(key[0]) <= HALF // 2:
        return int(key[0] // layout.size)
    hashed = zlib.crc32(marshal.dumps(tuple(key), 0))
    return (
        hashed & (layout.size - 1)
        if layout.kind == "hash"
        else TEXT_KEYS - (hashed & (MIN_BUCKETS - 1))
    )


def values_digest(values: Sequence[Any]) -> tuple[int, int]:
    """Return the digest of values as SQLite gives them, in two halves. `marshal` in its version 0
    writes each value with its type and its length, and nothing else decides the bytes."""
    first, second = UNPACK(hashlib.sha256(marshal.dumps(tuple(values), 0)).digest())
    return first, second


def sum_values(
    layout: BucketLayout, rows: Iterable[tuple[Any, ...]], width: int
) -> tuple[BucketDigests, tuple[Any, ...]]:
    """Return the digests of rows as SQLite gives them, and the key of the last one. A key has
    `width` columns."""
    found = BucketDigests()
    row: tuple[Any, ...] = ()
    size = layout.size if layout.kind == "range" else 0
    for row in rows:  # as `values_digest` and `add`, which would take a fifth longer if they were called for each row
        first, second = UNPACK(hashlib.sha256(marshal.dumps(row, 0)).digest())
        bucket = (
            row[0] // size if size and type(row[0]) is int else value_bucket(layout, row[:width])
        )
        if (sums := found.get(bucket)) is None:
            found[bucket] = [1, first, second]
        else:
            sums[0] += 1
            sums[1] += first
            sums[2] += second
    return found, row[:width]
