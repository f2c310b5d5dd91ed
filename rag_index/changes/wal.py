"""The feed of PostgreSQL's write-ahead log: a logical slot with pgoutput, read by SQL functions.

`pg_logical_slot_peek_binary_changes` returns committed transactions and leaves them in the slot. Only `acknowledge`
moves the slot, so a death at any moment loses nothing. A transaction is given whole, however large it is.

A slot knows nothing of the time before it. So `--setup` writes a message into the log, which makes the feed say that
everything may have changed. It says so, too, of a slot that does not begin where the ledger says that it was left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.changes.pgoutput import UNCHANGED, Begin, Commit, Message, Relation, RowEvent, Truncate, decode
from rag_index.changes.postgres import Publication, SlotState, TextReader, lsn, lsn_number, table_in_catalogue
from rag_index.changes.rows import PROBE_SECONDS, ReceivedRows, RowChange, RowFeed
from rag_index.documents.positions import Position
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes import Received
    from rag_index.changes.rows import WatchedTable
    from rag_index.ledger import Ledger

WHAT = "the write-ahead log of the source"
MAX_ROWS = 100_000
"""Changed rows of one table that are kept in memory; if there are more, all of the table counts as changed."""
REST = 4.0
"""How many times as long as reading the log took the feed rests, so that it takes a fifth of a processor at most."""
MAX_QUIET = 2.0
"""How long the log is left alone at most, although it grows, after readings that found nothing. It may grow by other
tables, or by the ledger if that is on the same server: each reading then makes it grow."""
ADVANCE_SECONDS = 5.0
"""The time between two moves of the slot past transactions of other tables: each reads the log once more."""
HELD_BYTES = 256 << 20
"""How much log the slot may hold back before that is said."""
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
    max_rows: int = field(default=MAX_ROWS, kw_only=True)
    _acknowledged: str | None = field(default=None, init=False)
    """What the ledger has of the slot's position, once that was asked for."""
    _tables: Mapping[tuple[str, str], Sequence[WatchedTable]] | None = field(default=None, init=False)
    """The tables by schema and name. One that is gone is left out; `check` says so."""
    _seen: str = field(default="", init=False)
    """The end of the log when it was last read to its end, and what was found is in the inbox."""
    _advanced_at: float = field(default=-ADVANCE_SECONDS, init=False)
    _quiet: float = field(default=0.0, init=False)

    def problems(self) -> dict[WatchedTable, SettingsError]:
        """Check slot and publication; return why changes of some tables are not seen."""
        with self._connect(WHAT) as connection:
            if problem := SlotState.read(connection, self.name).problem:
                raise SettingsError(problem)
            return self._find_tables(connection)

    def warnings(self) -> list[str]:
        """Return a warning if the source's log grows because of the slot."""
        with self._connect(WHAT) as connection:
            state = SlotState.read(connection, self.name)
        found = []
        if state.held_bytes > HELD_BYTES:
            found.append(
                f"slot {self.name} holds back {state.held_bytes >> 20:,} MB of the source's log: start `rag-index "
                f"watch`, or drop the slot: SELECT pg_drop_replication_slot('{self.name}')"
            )
        if state.exists and state.max_bytes < 0:
            found.append(
                "the source has no max_slot_wal_keep_size, so its log fills the disk while nobody watches: "
                "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()"
            )
        return found

    def rows(self, limit: int) -> ReceivedRows:
        """Return about `limit` changes. A transaction is given whole, so one may exceed the limit.

        Raises SourceUnavailable, and SourceError if the slot is missing or lost.
        """
        looked_at = time.time()
        with self._connect(WHAT) as connection:
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
            self._quiet = 0.0 if reading.rows or reading.overflow else min(MAX_QUIET, self._quiet * 2 or PROBE_SECONDS)
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
            with self._connect(WHAT) as connection:
                connection.execute(_ADVANCE, {"slot": self.name, "upto": received.position})
            self._advanced_at = self.clock()
            self._seen = "" if received.more else received.position

    def _look(self, connection: Connection) -> bool:
        """Return whether the log has grown since all of it was read, which it also does for other tables."""
        return bool(connection.scalar(_END) != self._seen)

    def _find_tables(self, connection: Connection) -> dict[WatchedTable, SettingsError]:
        """Find the tables, and return why changes of some of them are not in the log."""
        found: dict[tuple[str, str], list[WatchedTable]] = {}
        problems = {}
        published = Publication(connection, self.name)
        for watched in self.tables:
            try:
                table = table_in_catalogue(connection, watched)
                found.setdefault((table.schema, table.name), []).append(watched)
                published.require(table)
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


@dataclass(slots=True)
class _Place:
    """Where the log has the watched columns of a table."""

    table: WatchedTable
    columns: Sequence[int]
    in_old: bool
    """Whether old rows have values of them."""
    reader: TextReader


class _Reading:
    """What one reading of the slot has given so far."""

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
        """Add what a message of the log says."""
        self.messages += 1
        event = decode(data)
        if isinstance(event, RowEvent):
            for place in self._places.get(event.relation, ()):
                self._take_row(place, event)
        elif isinstance(event, Begin):
            self._committed_at = event.committed_at
            self.xids.add(event.xid)
        elif isinstance(event, Commit):
            self.end = event.end
        elif isinstance(event, Relation):
            self._places[event.id] = [self._place(event, table) for table in self._tables.get(event.table, ())]
        elif isinstance(event, Truncate):
            self.overflow.update(place.table for one in event.relations for place in self._places.get(one, ()))
        elif isinstance(event, Message):
            self.prefixes.add(event.prefix)
            if not event.transactional:
                self.end = event.end  # and not beyond: there the commit of another transaction may begin

    def _place(self, relation: Relation, table: WatchedTable) -> _Place:
        names = relation.columns
        columns = [names.index(name) for name in table.columns if name in names]
        reader = TextReader(self._connection, [relation.types[column] for column in columns])
        return _Place(table, columns, relation.identity.issuperset(table.columns), reader)

    def _take_row(self, place: _Place, event: RowEvent) -> None:
        table = place.table
        rows = self.rows.setdefault(table, {})
        whole = len(place.columns) == len(table.columns) and (event.old is None or place.in_old)
        for values in (event.old, event.new):
            if values is None or table in self.overflow:
                continue
            texts = [values[column] for column in place.columns]
            if UNCHANGED in texts and event.old is not None:
                before = [event.old[column] for column in place.columns]
                texts = [old if new is UNCHANGED else new for old, new in zip(before, texts, strict=True)]
            if not whole or UNCHANGED in texts:  # nobody knows which row this is
                self.overflow.add(table)
            elif (known := tuple(texts)) not in rows:
                rows[known] = RowChange(table, place.reader.values(texts), self._committed_at)
            if len(rows) > self._max_rows:
                self.overflow.add(table)
        if table in self.overflow:
            del self.rows[table]


def _are_visible(connection: Connection, xids: set[int]) -> bool:
    """Return whether readers see these transactions.

    The log has a commit before readers do: for microseconds, and as long as the server waits for a standby. The end of
    our own transaction comes first, so that the snapshot is a new one.
    """
    connection.rollback()
    _, newest, running = str(connection.scalar(_SNAPSHOT)).split(":")
    invisible = {int(xid) & 0xFFFFFFFF for xid in running.split(",") if xid}
    return not any(xid in invisible or 0 <= (xid - int(newest)) & 0xFFFFFFFF < 1 << 31 for xid in xids)
