"""Decodes pgoutput, in which PostgreSQL's logical decoding describes transactions (protocol version 1).

The messages are those of "Logical Replication Message Formats" in PostgreSQL's documentation. A transaction comes after
its commit, as Begin, its changes and Commit; only a Message may stand outside of any. A table is described by Relation
before its first change, and again after it was altered. Values come as text, in the form that the table's types print.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from rag_index.errors import SourceError

EPOCH_2000 = 946_684_800
"""Seconds from 1970 to 2000, where PostgreSQL's times start."""
UNCHANGED = b"\0unchanged"
"""The value of a column that is stored apart (TOAST) and was not changed. No text contains a NUL."""

Values = tuple[bytes | None, ...]
"""The values of a row as text; None is NULL."""


class Begin(NamedTuple):
    """The start of a committed transaction: its id without the epoch, and the time of its commit since 1970."""

    xid: int
    committed_at: float


class Commit(NamedTuple):
    """The end of a transaction; `end` is the position in the log right after it."""

    end: int


class Relation(NamedTuple):
    """A table, as it was when the changes that follow were made."""

    id: int
    table: tuple[str, str]
    """Its schema and name."""
    columns: list[str]
    types: list[int]
    """The type of each column, as an OID."""
    identity: set[str]
    """The columns that old rows have values of."""


class RowEvent(NamedTuple):
    """An insert (only `new`), an update or a delete (only `old`). An update has `old` if its identity changed.

    Columns outside the identity are NULL in `old`.
    """

    relation: int
    old: Values | None
    new: Values | None


class Truncate(NamedTuple):
    """TRUNCATE of tables."""

    relations: tuple[int, ...]


class Message(NamedTuple):
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
        return _decode(_Fields(data))
    except (IndexError, struct.error, ValueError) as error:
        raise SourceError(f"the write-ahead log gives a message that cannot be read: {data[:40]!r}") from error


class _Fields:
    """The fields of a message, which are read one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, form: str) -> Any:
        """Return numbers in a form of `struct`; one alone as it is."""
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values[0] if len(values) == 1 else values

    def byte(self) -> bytes:
        self._at += 1
        return self._data[self._at - 1 : self._at]

    def text(self) -> str:
        """Return the text that ends with a NUL."""
        start, self._at = self._at, self._data.index(b"\0", self._at) + 1
        return self._data[start : self._at - 1].decode()

    def values(self) -> Values:
        """Return the values of a row. Each change has one or two, so nothing is called for each of them."""
        values: list[bytes | None] = []
        count, data, at = self.read(">H"), self._data, self._at
        for _ in range(count):
            kind = data[at]
            at += 1
            if kind == 0x74:  # t: a text
                start = at + 4
                at = start + int.from_bytes(data[at:start], "big")
                values.append(data[start:at])
            elif kind in (0x6E, 0x75):  # n: NULL; u: unchanged, and stored apart
                values.append(None if kind == 0x6E else UNCHANGED)
            else:
                raise IndexError(kind)
        self._at = at
        return tuple(values)


def _decode(fields: _Fields) -> Event | None:
    kind = fields.byte()
    if kind in (b"I", b"U", b"D"):
        relation, old = fields.read(">I"), None
        if (part := fields.byte()) in (b"K", b"O"):
            old = fields.values()
            part = fields.byte()
        return RowEvent(relation, old, fields.values() if part == b"N" else None)
    if kind == b"B":
        _, microseconds, xid = fields.read(">QqI")
        return Begin(xid, EPOCH_2000 + microseconds / 1e6)
    if kind == b"C":
        return Commit(fields.read(">BQQ")[2])
    if kind == b"R":
        return _relation(fields)
    if kind == b"T":
        count, _ = fields.read(">IB")
        return Truncate(tuple(fields.read(">I") for _ in range(count)))
    if kind == b"M":
        flags, end = fields.read(">BQ")
        return Message(fields.text(), bool(flags & 1), end)
    if kind in (b"O", b"Y"):
        return None
    raise IndexError(kind)


def _relation(fields: _Fields) -> Relation:
    found = Relation(fields.read(">I"), (fields.text() or "pg_catalog", fields.text()), [], [], set())
    _, count = fields.read(">BH")
    for _ in range(count):
        in_identity = fields.read(">B") & 1
        found.columns.append(name := fields.text())
        found.types.append(fields.read(">Ii")[0])
        if in_identity:
            found.identity.add(name)
    return found
