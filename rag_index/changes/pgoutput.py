"""Decodes pgoutput, in which PostgreSQL's logical decoding describes transactions (protocol version 1).

The messages are those of "Logical Replication Message Formats" in PostgreSQL's documentation. A transaction comes after
its commit, as Begin, its changes and Commit; only a Message may stand outside of any. A table is described by Relation
before its first change, and again after it was altered. Values come as text, in the form that the table's types print.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rag_index.errors import SourceError

EPOCH_2000 = 946_684_800
"""Seconds from 1970 to 2000, where PostgreSQL's times start."""
UNCHANGED = b"\0unchanged"
"""The value of a column that is stored apart (TOAST) and was not changed. No text contains a NUL."""

Tuple = tuple[bytes | None, ...]
"""The values of a row as text; None is NULL."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The start of a committed transaction: its id without the epoch, and the time of its commit since 1970."""

    xid: int
    committed_at: float


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a transaction; `end` is the position in the log right after it."""

    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, as it was when the changes that follow were made."""

    id: int
    schema: str
    name: str
    columns: tuple[str, ...]
    types: tuple[int, ...]
    """The type of each column, as an OID."""
    identity: frozenset[str]
    """The columns that old rows have values of."""


@dataclass(frozen=True, slots=True)
class RowEvent:
    """An insert (only `new`), an update or a delete (only `old`). An update has `old` if its identity changed.

    Columns outside the identity are NULL in `old`.
    """

    relation: int
    old: Tuple | None
    new: Tuple | None


@dataclass(frozen=True, slots=True)
class Truncate:
    """TRUNCATE of tables."""

    relations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """What `pg_logical_emit_message` wrote, in a transaction or outside of any; `end` is where it ends in the log."""

    prefix: str
    transactional: bool
    end: int


Event = Begin | Commit | Relation | RowEvent | Truncate | Message


def decode(data: bytes) -> Event | None:
    """Return what a message says; None for those that do not matter here (Origin, Type).

    Raises:
        SourceError: it is not a message of this protocol.
    """
    try:
        return _decode(data)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise SourceError(f"the write-ahead log gives a message that cannot be read: {data[:40]!r}") from error


def _decode(data: bytes) -> Event | None:
    kind = data[:1]
    if kind == b"I":
        return RowEvent(_int4(data, 1), None, _tuple(data, 6)[0])
    if kind == b"U":
        return _update(data)
    if kind == b"D":
        return RowEvent(_int4(data, 1), _tuple(data, 6)[0], None)
    if kind == b"B":
        _, microseconds, xid = struct.unpack_from(">QqI", data, 1)
        return Begin(xid, EPOCH_2000 + microseconds / 1e6)
    if kind == b"C":
        return Commit(struct.unpack_from(">Q", data, 10)[0])
    if kind == b"R":
        return _relation(data)
    if kind == b"T":
        return Truncate(struct.unpack_from(f">{_int4(data, 1)}I", data, 6))
    if kind == b"M":
        flags, start = struct.unpack_from(">BQ", data, 1)
        return Message(_text(data, 10)[0], bool(flags & 1), start)
    if kind in (b"O", b"Y"):
        return None
    raise IndexError(kind)


def _update(data: bytes) -> RowEvent:
    old, start = None, 5
    if data[5:6] in (b"K", b"O"):
        old, start = _tuple(data, 6)
    return RowEvent(_int4(data, 1), old, _tuple(data, start + 1)[0])


def _tuple(data: bytes, start: int) -> tuple[Tuple, int]:
    """Return the values that begin at `start`, and where they end."""
    [count] = struct.unpack_from(">H", data, start)
    values: list[bytes | None] = []
    place = start + 2
    for _ in range(count):
        kind = data[place]
        place += 1
        if kind == 0x74:  # t: a text
            length = _int4(data, place)
            place += 4
            values.append(data[place : place + length])
            place += length
        elif kind == 0x6E:  # n: NULL
            values.append(None)
        elif kind == 0x75:  # u: unchanged, and stored apart
            values.append(UNCHANGED)
        else:
            raise IndexError(kind)
    return tuple(values), place


def _relation(data: bytes) -> Relation:
    schema, place = _text(data, 5)
    name, place = _text(data, place)
    [count] = struct.unpack_from(">H", data, place + 1)
    place += 3
    columns, types, identity = [], [], []
    for _ in range(count):
        flags = data[place]
        column, place = _text(data, place + 1)
        columns.append(column)
        types.append(_int4(data, place))
        place += 8
        if flags & 1:
            identity.append(column)
    # an empty name stands for pg_catalog
    schema = schema or "pg_catalog"
    return Relation(_int4(data, 1), schema, name, tuple(columns), tuple(types), frozenset(identity))


def _text(data: bytes, start: int) -> tuple[str, int]:
    """Return the text that ends with a NUL, and where the next field begins."""
    end = data.index(b"\0", start)
    return data[start:end].decode(), end + 1


def _int4(data: bytes, start: int) -> int:
    return int.from_bytes(data[start : start + 4], "big")
