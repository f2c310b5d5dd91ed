"""The feed of PostgreSQL's write-ahead log: a logical slot with pgoutput, read by SQL functions.

`pg_logical_slot_peek_binary_changes` returns committed transactions and leaves them in the slot. Only `acknowledge`
moves the slot, so a death at any moment loses nothing. A transaction is given whole, however large it is.

A slot knows nothing of the time before it. So `--setup` writes a message into the log, which makes the feed say that
everything may have changed. It says so, too, of a slot that does not begin where the ledger says that it was left.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.components.ledger.tables import Position
from rag_index.errors import SettingsError, SourceError
from rag_index.watch.changes.postgres_catalogue import (
    SlotState,
    TextReader,
    lsn,
    lsn_number,
    require_published,
    require_version,
    table_in_catalogue,
)
from rag_index.watch.changes.rows import CHANGES_PROBE_SECONDS, ReceivedRows, RowChange, RowFeed, WatchedTable

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rag_index.components.ledger import Ledger
    from rag_index.watch.changes import Received

THE_LOG = "the write-ahead log of the source"
MAX_CHANGED_ROWS = 100_000
"""Changed rows of one table that are kept in memory; if there are more, all of the table counts as changed."""
REST = 4.0
"""How many times as long as reading the log took the feed rests, so that it takes a fifth of a processor at most."""
MAX_QUIET = 2.0
"""How long the log is left alone at most, although it grows, after readings that found nothing. It may grow by other
tables, or by the ledger if that is on the same server: each reading then makes it grow."""
ADVANCE_SECONDS = 5.0
"""The time between two moves of the slot past transactions of other tables: each reads the log once more."""
VISIBLE_LOOKS = 100
HELD_BYTES = 256 << 20
"""How much log the slot may hold back before that is said."""
EPOCH_2000 = 946_684_800
"""Seconds from 1970 to 2000, where PostgreSQL's times start."""
UNCHANGED = b"\0unchanged"
"""The value of a column that is stored apart (TOAST) and was not changed. No text contains a NUL."""
_PEEK = sa.text("""
    SELECT data FROM pg_logical_slot_peek_binary_changes(
        :slot, CAST(:upto AS pg_lsn), :count,
        'proto_version', '1', 'messages', 'true', 'publication_names', :publication)
""")
_END = sa.text("SELECT pg_current_wal_flush_lsn()::text")
_ADVANCE = sa.text("SELECT pg_replication_slot_advance(:slot, CAST(:upto AS pg_lsn))")
_SNAPSHOT = sa.text("SELECT pg_current_snapshot()::text")


@dataclass(eq=False)
class WalFeed(RowFeed):
    """The changes of tables that a publication and a slot of PostgreSQL give."""

    ledger: Ledger = field(kw_only=True)
    max_rows: int = field(default=MAX_CHANGED_ROWS, kw_only=True)
    _acknowledged: str | None = field(default=None, init=False)
    """What the ledger has of the slot's position, once that was asked for."""
    _tables: Mapping[tuple[str, str], Sequence[WatchedTable]] | None = field(default=None, init=False)
    """The tables by schema and name. One that is gone is left out; `check` says so."""
    _seen: str = field(default="", init=False)
    """The end of the log when it was last read to its end, and what was found is in the inbox."""
    _advanced_at: float = field(default=-ADVANCE_SECONDS, init=False)
    _quiet: float = field(default=0.0, init=False)

    def problems(self) -> dict[WatchedTable, SettingsError]:
        with self._connect(THE_LOG) as connection:
            require_version(connection)
            if problem := SlotState.read(connection, self.name).problem:
                raise SettingsError(problem)
            return self._find_tables(connection)

    def warnings(self) -> list[str]:
        with self._connect(THE_LOG) as connection:
            state = SlotState.read(connection, self.name)
        found = []
        if state.held_bytes > HELD_BYTES:
            found.append(
                f"slot {self.name} holds back {state.held_bytes >> 20:,} MB of the source's log: start `rag-index "
                f"watch`, or drop the slot: SELECT pg_drop_replication_slot('{self.name}')"
            )
        if state.exists and state.max_bytes < 0:
            found.append(
                "the source has no max_slot_wal_keep_size, so its log fills the disk while no watch runs: "
                "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()"
            )
        return found

    def rows(self, limit: int) -> ReceivedRows:
        """Return about `limit` changes. A transaction is given whole, so one may exceed the limit. Raises
        SourceUnavailable, and SourceError if the slot is missing or lost."""
        looked_at = time.time()
        with self._connect(THE_LOG) as connection:
            state = SlotState.read(connection, self.name)
            if state.problem:
                raise SourceError(state.problem)
            if self._acknowledged is None:
                self._acknowledged = self.ledger.slot_position(self.name)
            follows, end = state.follows(self._acknowledged), state.end
            if end == self._seen and follows:
                return ReceivedRows([], through=Position(looked_at, end, "wal"))
            began = self.clock()
            reading = self._read(connection, end, limit)
            self._quiet = (
                0.0 if reading.rows or reading.overflow else min(MAX_QUIET, self._quiet * 2 or CHANGES_PROBE_SECONDS)
            )
            took = self.clock() - began
            self._rest_until = self.clock() + max(REST * took, self._quiet - took)
            if not _are_visible(connection, reading.xids):
                # committed in the log, but not for readers: their rows would be read too early
                return ReceivedRows([])
        more = reading.messages >= limit
        position = lsn(reading.end) if more else max(end, lsn(reading.end), key=lsn_number)
        through = None if more else Position(looked_at, position, "wal")
        changes = [change for rows in reading.rows.values() for change in rows.values()]
        overflow = reading.overflow if follows else self.tables
        if changes or overflow:
            return ReceivedRows(changes, position, more, overflow, through)
        # what passed concerns other tables: without a move of the slot it would hold back their log
        self._seen = "" if more else position
        due = more or self.clock() - self._advanced_at >= ADVANCE_SECONDS
        return ReceivedRows([], position if due else None, more, through=through)

    def acknowledge(self, received: Received | ReceivedRows) -> None:
        """Move the slot on, the ledger's copy of its position first: a death in between leaves the ledger ahead."""
        if received.position is not None:
            self.ledger.remember_slot(self.name, received.position)
            self._acknowledged = received.position
            with self._connect(THE_LOG) as connection:
                connection.execute(_ADVANCE, {"slot": self.name, "upto": received.position})
            self._advanced_at = self.clock()
            self._seen = "" if received.more else received.position

    def _look(self, connection: Connection) -> bool:
        """Return whether the log has grown since all of it was read, which it also does for other tables."""
        return bool(connection.scalar(_END) != self._seen)

    def _find_tables(self, connection: Connection) -> dict[WatchedTable, SettingsError]:
        found: dict[tuple[str, str], list[WatchedTable]] = {}
        problems = {}
        for watched in self.tables:
            try:
                table = table_in_catalogue(connection, watched)
                found.setdefault((table.schema, table.name), []).append(watched)
                require_published(connection, self.name, table)
            except SettingsError as error:
                problems[watched] = error
        self._tables = found
        return problems

    def _read(self, connection: Connection, end: str, limit: int) -> _Reading:
        if self._tables is None:
            self._find_tables(connection)
        reading = _Reading(connection, self._tables or {}, self.max_rows)
        given = {"slot": self.name, "upto": end, "count": limit, "publication": self.name}
        with connection.execute(_PEEK, given, execution_options={"stream_results": True}) as result:
            for [data] in result:
                reading.take(bytes(data))
        if self.name in reading.prefixes:  # it was just set up
            reading.overflow.update(self.tables)
        return reading


class _Fields:
    """The fields of a message of pgoutput, which are read one after the other. See "Logical Replication Message
    Formats" in PostgreSQL's documentation, protocol version 1."""

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
        start, self._at = self._at, self._data.index(b"\0", self._at) + 1
        return self._data[start : self._at - 1].decode()

    def values(self) -> list[bytes | None]:
        """Return the values of a row as text. Each change has one or two, so nothing is called for each of them."""
        values: list[bytes | None] = []
        count, data, at = self.read(">H"), self._data, self._at
        for _ in range(count):
            kind = data[at]
            at += 1
            if kind == 0x74:  # t: a text; otherwise NULL (n), or unchanged (u)
                start = at + 4
                at = start + int.from_bytes(data[at:start], "big")
                values.append(data[start:at])
            else:
                values.append(None if kind == 0x6E else UNCHANGED)
        self._at = at
        return values


class _Place(NamedTuple):
    """Where the log has the watched columns of a table."""

    table: WatchedTable
    columns: list[int]
    in_old: bool
    """Whether old rows have values of them."""
    reader: TextReader


class _Reading:
    """What one reading of the slot has given so far. A transaction comes after its commit. A table is described before
    its first change, and again after it was altered."""

    def __init__(
        self, connection: Connection, tables: Mapping[tuple[str, str], Sequence[WatchedTable]], max_rows: int
    ) -> None:
        self._connection, self._tables, self._max_rows = connection, tables, max_rows
        self._places: dict[int, list[_Place]] = {}
        self._committed_at = 0.0
        self.rows: dict[WatchedTable, dict[tuple[bytes | None, ...], RowChange]] = {}
        """The changed rows of each table by the text of their watched columns; a row counts once."""
        self.overflow: set[WatchedTable] = set()
        self.xids: set[int] = set()
        self.prefixes: set[str] = set()
        """Whose messages the log has."""
        self.messages = 0
        self.end = 0
        """Where the last whole transaction, or the last message outside of one, ends."""

    def take(self, data: bytes) -> None:
        self.messages += 1
        fields = _Fields(data)
        kind = fields.byte()
        if kind in (b"I", b"U", b"D"):
            self._take_row(fields)
        elif kind == b"B":
            _, microseconds, xid = fields.read(">QqI")
            self._committed_at = EPOCH_2000 + microseconds / 1e6
            self.xids.add(xid)
        elif kind == b"C":
            _, _, self.end = fields.read(">BQQ")
        elif kind == b"R":
            self._take_relation(fields)
        elif kind == b"T":
            count, _ = fields.read(">IB")
            relations = [fields.read(">I") for _ in range(count)]
            self.overflow.update(place.table for one in relations for place in self._places.get(one, ()))
        elif kind == b"M":
            transactional, end = fields.read(">?Q")
            self.prefixes.add(fields.text())
            if not transactional:
                self.end = end  # and not beyond: there the commit of another transaction may begin
        elif kind not in (b"O", b"Y"):  # origins and types do not matter
            raise SourceError(f"the write-ahead log gives a message that cannot be read: {data[:40]!r}")

    def _take_relation(self, fields: _Fields) -> None:
        relation, table = fields.read(">I"), (fields.text() or "pg_catalog", fields.text())
        _, count = fields.read(">BH")
        columns, identity = {}, set()
        for number in range(count):
            in_identity, name = fields.read(">B") & 1, fields.text()
            columns[name] = number, fields.read(">Ii")[0]
            if in_identity:
                identity.add(name)
        self._places[relation] = []
        for watched in self._tables.get(table, ()):
            there = [columns[name] for name in watched.columns if name in columns]
            reader = TextReader(self._connection, [type_ for _, type_ in there])
            numbers = [number for number, _ in there]
            self._places[relation].append(_Place(watched, numbers, identity.issuperset(watched.columns), reader))

    def _take_row(self, fields: _Fields) -> None:
        """Add an insert, an update or a delete. An update has the old row if its identity changed."""
        places, old, new = self._places.get(fields.read(">I"), ()), None, None
        if places and (part := fields.byte()) in (b"K", b"O"):
            old = fields.values()
            part = fields.byte()
        if places and part == b"N":
            new = fields.values()
        for table, columns, in_old, reader in places:
            rows = self.rows.setdefault(table, {})
            whole = len(columns) == len(table.columns) and (old is None or in_old)
            for row in (old, new):
                if row is None or table in self.overflow:
                    continue
                texts = tuple(row[one] if row[one] is not UNCHANGED or not old else old[one] for one in columns)
                if not whole or UNCHANGED in texts:  # the row is unknown
                    self.overflow.add(table)
                elif texts not in rows:
                    rows[texts] = RowChange(table, reader.values(texts), self._committed_at)
                if len(rows) > self._max_rows:
                    self.overflow.add(table)
            if table in self.overflow:
                del self.rows[table]


def _are_visible(connection: Connection, xids: set[int]) -> bool:
    """Return whether readers see these transactions. The log has a commit before readers do: for microseconds, which
    are waited for, and as long as the server waits for a standby. The end of our own transaction comes first, so that
    the snapshot is a new one."""
    for _ in range(VISIBLE_LOOKS):
        connection.rollback()
        _, newest, running = str(connection.scalar(_SNAPSHOT)).split(":")
        invisible = {int(xid) & 0xFFFFFFFF for xid in running.split(",") if xid}
        if not any(xid in invisible or 0 <= (xid - int(newest)) & 0xFFFFFFFF < 1 << 31 for xid in xids):
            return True
        time.sleep(0.01)
    return False
