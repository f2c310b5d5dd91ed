"""The feed of PostgreSQL's write-ahead log: a logical slot with pgoutput, read by SQL functions.

`pg_logical_slot_peek_binary_changes` returns committed transactions and leaves them in the slot. Only `acknowledge`
moves the slot, so a death at any moment loses nothing. A transaction is given whole, however large it is. `--setup`
writes a message into the log, which makes the feed say that everything may have changed: a slot knows nothing of the
time before it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes.names import object_name
from rag_index.changes.pgoutput import UNCHANGED, Begin, Commit, Message, Relation, RowEvent, Truncate, decode
from rag_index.changes.postgres import TextReader, table_in_catalogue
from rag_index.changes.rows import ReceivedRows, RowChange
from rag_index.changes.slot import SlotState, check_slot
from rag_index.errors import SourceUnavailable
from rag_index.sources.engine import open_read_only, source_error
from rag_index.sources.time_limit import limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.changes.rows import WatchedTable

__all__ = ["WalFeed"]

TIMEOUT = 600.0
MAX_ROWS = 100_000
"""Changed rows of one table that are kept in memory; if there are more, all of the table counts as changed."""
PROBE_SECONDS = 0.25
"""The time between two looks at how far the log has come, which costs the server next to nothing."""
REST = 4.0
"""How many times as long as reading the log took the feed rests, so that it takes a fifth of a processor at most."""
ADVANCE_SECONDS = 5.0
"""The time between two moves of the slot past transactions of other tables: each reads the log once more."""
VISIBLE_SECONDS = 1.0
_PEEK = sa.text("""
    SELECT data FROM pg_logical_slot_peek_binary_changes(
        :slot, CAST(:upto AS pg_lsn), :count,
        'proto_version', '1', 'messages', 'true', 'publication_names', :publication)
""")
_END = sa.text("SELECT pg_current_wal_flush_lsn()::text")
_ADVANCE = sa.text("SELECT pg_replication_slot_advance(:slot, CAST(:upto AS pg_lsn))")
_BACKLOG = sa.text("""
    SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn)::bigint
    FROM pg_replication_slots WHERE slot_name = :slot
""")


@dataclass(slots=True)
class _Reading:
    """What one reading of the slot has given so far."""

    rows: dict[WatchedTable, dict[tuple[bytes | None, ...], RowChange]] = field(default_factory=dict)
    """The changed rows of each table by the text of their watched columns; a row counts once."""
    overflow: set[WatchedTable] = field(default_factory=set)
    xids: set[int] = field(default_factory=set)
    messages: int = 0
    end: int = 0
    """Where the last whole transaction, or the last message outside of one, ends."""
    committed_at: float = 0.0


class WalFeed:
    """The changes of tables that a publication and a slot of PostgreSQL give."""

    def __init__(
        self,
        url: URL,
        tables: Sequence[WatchedTable],
        project: str,
        *,
        timeout: float = TIMEOUT,
        max_rows: int = MAX_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._watched = list(tables)
        self._slot = self._publication = object_name(project)
        self._timeout = timeout
        self._max_rows = max_rows
        self._clock = clock
        self._engine = open_read_only(url)
        self._tables: Mapping[tuple[str, str], Sequence[WatchedTable]] | None = None
        self._relations: dict[int, _WatchedRelation | None] = {}
        self._seen = ""
        """The end of the log when it was last read to its end without finding anything."""
        self._advanced_at = -ADVANCE_SECONDS
        self._rest_until = 0.0
        self._probe: Any = None

    def check(self) -> None:
        """As `ChangeFeed.check`."""
        with self._connect() as connection:
            check_slot(connection, self._slot, self._watched)
            self._tables = self._resolve(connection)

    def receive(self, limit: int) -> ReceivedRows:
        """As `ChangeFeed.receive`; a transaction is given whole, so one may exceed the limit.

        Raises SourceUnavailable, and SourceError if the slot is missing or lost.
        """
        with self._connect() as connection:
            SlotState.read(connection, self._slot).require_usable()
            if self._tables is None:
                self._tables = self._resolve(connection)
            end = str(connection.scalar(_END))
            if end == self._seen:
                return ReceivedRows([])
            began = self._clock()
            reading = self._read(connection, end, limit)
            read = self._clock()
            self._rest_until = read + REST * (read - began)
            if not _all_visible(connection, reading.xids):
                # committed in the log, but not for readers: their rows would be read too early
                return ReceivedRows([], behind=True)
            more = reading.messages >= limit
            position = _lsn(reading.end) if more else max(end, _lsn(reading.end), key=_number)
            changes = [change for rows in reading.rows.values() for change in rows.values()]
            if changes or reading.overflow:
                return ReceivedRows(changes, position, more, sorted(reading.overflow, key=str))
            self._pass_over(connection, position, more=more)
            return ReceivedRows([], None, more)

    def acknowledge(self, received: ReceivedRows) -> None:
        """As `ChangeFeed.acknowledge`."""
        if received.position is not None:
            with self._connect() as connection:
                connection.execute(_ADVANCE, {"slot": self._slot, "upto": received.position})
            self._advanced_at = self._clock()

    def wait(self, seconds: float) -> None:
        """As `ChangeFeed.wait`: return when the log has grown, which it also does for other tables."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            time.sleep(min(left, PROBE_SECONDS))
            if self._clock() >= self._rest_until and self._has_grown():
                return

    def backlog(self) -> int | None:
        """Return how many bytes of the log were written since the last change that was acknowledged."""
        with self._connect() as connection:
            found = connection.scalar(_BACKLOG, {"slot": self._slot})
        return None if found is None else int(found)

    def close(self) -> None:
        """Close the connections."""
        self._close_probe()
        self._engine.dispose()

    def _resolve(self, connection: Connection) -> dict[tuple[str, str], list[WatchedTable]]:
        found: dict[tuple[str, str], list[WatchedTable]] = {}
        for watched in self._watched:
            table = table_in_catalogue(connection, watched)
            found.setdefault((table.schema, table.name), []).append(watched)
        return found

    def _read(self, connection: Connection, end: str, limit: int) -> _Reading:
        reading = _Reading()
        self._relations.clear()
        given = {"slot": self._slot, "upto": end, "count": limit, "publication": self._publication}
        with connection.execute(_PEEK, given, execution_options={"stream_results": True}) as result:
            for [data] in result:
                reading.messages += 1
                self._take(connection, bytes(data), reading)
        return reading

    def _take(self, connection: Connection, data: bytes, reading: _Reading) -> None:
        """Add what a message says to the reading."""
        event = decode(data)
        if isinstance(event, RowEvent):
            relation = self._relations.get(event.relation)
            if relation is not None:
                relation.take(event, reading, self._max_rows)
        elif isinstance(event, Begin):
            reading.committed_at = event.committed_at
            reading.xids.add(event.xid)
        elif isinstance(event, Commit):
            reading.end = event.end
        elif isinstance(event, Relation):
            tables = (self._tables or {}).get((event.schema, event.name))
            self._relations[event.id] = None if tables is None else _WatchedRelation.of(connection, event, tables)
        elif isinstance(event, Truncate):
            relations = filter(None, map(self._relations.get, event.relations))
            reading.overflow.update(table for relation in relations for table in relation.tables)
        elif isinstance(event, Message):
            if not event.transactional:
                reading.end = event.start + 1  # what the slot skips is older than its position
            if event.prefix == self._slot:
                reading.overflow.update(self._watched)

    def _pass_over(self, connection: Connection, position: str, *, more: bool) -> None:
        """Move the slot past transactions that touch none of our tables; otherwise it would hold back their log."""
        self._seen = "" if more else position
        if more or self._clock() - self._advanced_at >= ADVANCE_SECONDS:
            connection.execute(_ADVANCE, {"slot": self._slot, "upto": position})
            self._advanced_at = self._clock()

    def _has_grown(self) -> bool:
        """Return whether the log has grown since it was last found empty; True if the database does not answer."""
        try:
            if self._probe is None:
                self._probe = self._engine.raw_connection()
                self._probe.driver_connection.autocommit = True
            with self._probe.cursor() as cursor:
                cursor.execute(str(_END))
                return bool(cursor.fetchone()[0] != self._seen)
        except Exception:  # noqa: BLE001 - `receive` says what is wrong
            self._close_probe()
            return True

    def _close_probe(self) -> None:
        if self._probe is not None:
            with suppress(Exception):
                self._probe.invalidate()
        self._probe = None

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """Yield a connection, and raise its errors as ours."""
        try:
            with (
                self._engine.connect() as connection,
                limited(connection, self._timeout, "the write-ahead log of the source"),
            ):
                yield connection
        except exc.SQLAlchemyError as error:
            if "is active for PID" in str(error):
                raise SourceUnavailable(
                    f"slot {self._slot} is being read by another process; end the other watch of this project"
                ) from error
            raise source_error(error, self._url, f"slot {self._slot}") from error


class _WatchedRelation:
    """A table as a Relation message describes it, and which of its values are wanted."""

    def __init__(self, tables: Sequence[WatchedTable], places: Mapping[WatchedTable, Sequence[int]]) -> None:
        self.tables = tables
        self._places = places
        self._identified: set[WatchedTable] = set()
        self._readers: dict[WatchedTable, TextReader] = {}

    @classmethod
    def of(cls, connection: Connection, relation: Relation, tables: Sequence[WatchedTable]) -> _WatchedRelation:
        """Return a relation. A table with a column that the log does not have is not in `places`."""
        numbers = {name: number for number, name in enumerate(relation.columns)}
        whole = [table for table in tables if numbers.keys() >= set(table.columns)]
        own = cls(tables, {table: [numbers[name] for name in table.columns] for table in whole})
        own._identified = {table for table in whole if relation.identity.issuperset(table.columns)}
        for table in whole:
            own._readers[table] = TextReader(connection, [relation.types[place] for place in own._places[table]])
        return own

    def take(self, event: RowEvent, reading: _Reading, max_rows: int) -> None:
        """Add the rows of an event to the reading."""
        for table in self.tables:
            if table in reading.overflow:
                continue
            places = self._places.get(table)
            if places is None or (event.old is not None and table not in self._identified):
                reading.overflow.add(table)
            else:
                self._add(table, places, event, reading)
            rows = reading.rows.get(table)
            if rows is not None and len(rows) > max_rows:
                reading.overflow.add(table)
            if table in reading.overflow:
                reading.rows.pop(table, None)

    def _add(self, table: WatchedTable, places: Sequence[int], event: RowEvent, reading: _Reading) -> None:
        rows = reading.rows.setdefault(table, {})
        old, new = event.old, event.new
        for values in (old, new):
            if values is None:
                continue
            texts = [values[place] for place in places]
            if UNCHANGED in texts and old is not None:
                texts = [old[place] if text is UNCHANGED else text for text, place in zip(texts, places, strict=True)]
            if UNCHANGED in texts:  # nobody knows which row this is
                reading.overflow.add(table)
                return
            if (known := tuple(texts)) not in rows:
                read = self._readers[table].values(texts)
                rows[known] = RowChange(table, dict(zip(table.columns, read, strict=True)), reading.committed_at)


def _all_visible(connection: Connection, xids: set[int]) -> bool:
    """Return whether readers see these transactions.

    The log has a commit before readers do: for microseconds, and as long as the server waits for a standby. The end of
    our own transaction comes first, so that the snapshot is a new one.
    """
    until = time.monotonic() + VISIBLE_SECONDS
    while xids:
        connection.rollback()
        snapshot = str(connection.scalar(sa.text("SELECT pg_current_snapshot()::text")))
        _, newest, running = snapshot.split(":")
        invisible = {int(xid) & 0xFFFFFFFF for xid in running.split(",") if xid}
        beyond = int(newest)
        if not any(xid in invisible or 0 <= (xid - beyond) & 0xFFFFFFFF < 1 << 31 for xid in xids):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _lsn(number: int) -> str:
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def _number(lsn: str) -> int:
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)
