"""The SQL by which databases compute the buckets and the digests of rows (`digest`).

The dialects are "postgresql" and "mysql", which MariaDB shares. SQLite computes no digests; it
calls a function of this process for the bucket of a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BIT, OID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.components.sources.buckets import BucketLayout

NUMBERS = {20, 21, 23, 700, 701, 1700}
"""PostgreSQL's type codes of numbers, which it compares with each other."""
RENDERING = {
    "postgresql": (
        "SELECT concat_ws(' ', current_setting('lc_monetary'), current_setting('TimeZone'),"
        " current_setting('DateStyle'), current_setting('IntervalStyle'),"
        " current_setting('extra_float_digits'), nullif(getdatabaseencoding(),"
        " current_setting('client_encoding')))"
    ),
    "mysql": "SELECT concat_ws(' ', @@version, @@time_zone, @@character_set_connection, md5('a'))",
}
"""The query of the settings that determine how a database renders values, besides their types."""
CHARSET = "SELECT nullif(getdatabaseencoding(), current_setting('client_encoding'))"
"""The query of the charset from which PostgreSQL converts texts for this connection; NULL if it
does not convert them."""
WITHOUT_TEXT = {16, 17, 20, 21, 23, 26, 700, 701, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950}
"""PostgreSQL's type codes of values that hold no text: truth values, bytes, numbers, times and
UUIDs."""
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
"""The types among :types that PostgreSQL cannot send in binary form, or that contain such a type.

Examples are isn and aclitem, and their arrays, domains, ranges and composites. The catalog does not
list what a record contains, so record is among them."""
MD5_OF_A = "0cc175b9c0f1b6a831c399e269772661"


def literal(value: object) -> sa.ColumnElement[Any]:
    """Return a value that stands in the statement as it is, not as a parameter."""
    return sa.literal_column(str(value))


def bucket_digests(backend: str, rows: Select[Any], beside: Sequence[Select[Any]]) -> Select[Any]:
    """Return the query of all buckets with their digests, as `BucketDigests.encoded` has them.

    Args:
        rows: The query of the bucket and the digest of each row.
        beside: The same of the rows of other tables, each in the bucket of its document. They do
            not count as rows.
    """
    counted = [_with_count(rows, 1)]
    for others in beside:
        counted.append(_with_count(others, 0))
    # One statement, so that rows and parts are of the same moment.
    together = sa.union_all(*counted) if beside else counted[0]
    every = sa.select(together.subquery("counted"))
    if backend == "postgresql":
        # OFFSET 0 keeps each digest from being computed once for each half.
        every = every.offset(literal(0))
    digests = every.subquery("digests").c
    number = sa.func.sum(digests.counts)
    first = sa.func.sum(_half_of(backend, digests.digest, 0))
    second = sa.func.sum(_half_of(backend, digests.digest, 1))
    separator = literal("':'")
    encoded = sa.func.concat(number, separator, first, separator, second)
    return sa.select(digests.bucket, encoded).group_by(digests.bucket)


def _with_count(rows: Select[Any], count: int) -> Select[Any]:
    """Return the query of buckets and digests with a third column: 1 for rows that count as rows of
    their bucket, 0 for others."""
    bucket, digest = rows.selected_columns
    counts = literal(count).label("counts")
    return rows.with_only_columns(
        bucket.label("bucket"), digest.label("digest"), counts, maintain_column_froms=True
    )


def _half_of(backend: str, digest: Any, half: int) -> Any:
    """Return the first (0) or second (1) 64 bits of a digest as a number, which has a sign in
    PostgreSQL only (`digest_halves`)."""
    if backend == "postgresql":
        # 8 bytes of a bytea: CAST('x' || '0123456789abcdef' AS bit(64))
        octets = sa.func.substr(digest, literal(1 + 8 * half), literal(8))
        digits: Any = sa.func.encode(octets, "hex")
        bits: Any = sa.cast(sa.literal_column("'x'").op("||")(digits), BIT(64))
        return sa.cast(bits, sa.BigInteger)
    # 16 hexadecimal digits of a text
    digits = sa.func.substr(digest, 1 + 16 * half, 16)
    return sa.cast(sa.func.conv(digits, 16, 10), sa.Numeric(20))


def bucket_of(backend: str, layout: BucketLayout, key: Sequence[sa.ColumnElement[Any]]) -> Any:
    """Return the number of a row's bucket, as an expression over the columns of its key."""
    is_range = layout.kind == "range"
    size = layout.size
    if backend == "postgresql":
        if is_range:
            # id / 32::bigint
            return key[0].op("/")(literal(f"{size}::bigint"))
        text = sa.cast(sa.func.row(*key), sa.Text).collate("C")
        hashed = sa.func.hashtextextended(text, literal(0))
    elif is_range:
        # id DIV 32
        return key[0].op("DIV")(literal(size))
    else:
        joined = sa.func.concat(*[sa.func.md5(column) for column in key])
        hashed = sa.func.crc32(joined)
    # The number of hash buckets is a power of 2.
    return hashed.op("&")(literal(size - 1))


def digest_halves(digest: Any) -> tuple[int, int]:
    """Return both halves of a digest as `bucket_digests` sums them: hexadecimal text from MySQL,
    bytes from PostgreSQL, whose numbers of 64 bits have a sign."""
    if isinstance(digest, str):
        return int(digest[:16], 16), int(digest[16:32], 16)
    raw = bytes(digest)
    first = int.from_bytes(raw[:8], "big", signed=True)
    second = int.from_bytes(raw[8:16], "big", signed=True)
    return first, second


def converted(backend: str, value: Any, kind: Any) -> Any:
    """Convert a document's value as comparing it with a column does.

    Args:
        kind: What `cast_to` or `collation_of` returned for the column.
    """
    if kind is None:
        return value
    if backend == "postgresql":
        return sa.cast(value, sa.Text).op("::")(literal(kind))
    charset, collation = kind
    in_charset = sa.func.convert(value.op("USING")(literal(charset)))
    return in_charset.op("COLLATE")(literal(collation))


def cast_to(connection: Connection, document_type: Any, own_type: Any) -> str | None:
    """Return the name of the PostgreSQL type to which a document's value is cast, if any.

    Args:
        document_type: The type code of the document's column.
        own_type: The type code of the column that it is compared with.
    """
    if document_type == own_type:
        return None
    # Numbers of two types, such as integer and numeric, are compared as they are.
    if document_type in NUMBERS and own_type in NUMBERS:
        return None
    type_name = sa.func.format_type(sa.cast(literal(own_type), OID), literal(-1))
    found: str | None = connection.scalar(sa.select(type_name))
    return found


def collation_of(connection: Connection, rows: FromClause, name: str) -> tuple[str, str] | None:
    """Return the charset and collation of a column in MySQL; None if it holds no text."""
    column = rows.c[name]
    one_row = sa.select(literal(1).label("one")).subquery("one")
    # An outer join: the columns of an empty table have a collation, too.
    with_one = one_row.outerjoin(rows, sa.true())
    statement = sa.select(sa.func.charset(column), sa.func.collation(column))
    charset, collation = connection.execute(statement.select_from(with_one).limit(1)).one()
    return None if charset == "binary" else (charset, collation)


def type_codes(connection: Connection, statement: Select[Any]) -> list[Any]:
    """Return the driver's type code of each column of a query."""
    with connection.execute(statement.limit(0)) as result:
        if result.cursor is None:
            return []
        return [column[1] for column in result.cursor.description]
