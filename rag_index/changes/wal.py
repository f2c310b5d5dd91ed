"""The feed of PostgreSQL's write-ahead log: a logical slot with pgoutput, read by SQL functions.

`pg_logical_slot_peek_binary_changes` returns committed transactions and leaves them in the slot. Only `acknowledge`
moves the slot, so a death at any moment loses nothing. A transaction is given whole, however large it is.

A slot knows nothing of the time before it. So `--setup` writes a message into the log, which makes the feed say that
everything may have changed. It says so, too, of a slot that does not begin where the ledger says that it was left.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes.pgoutput import UNCHANGED, Begin, Commit, Message, Relation, RowEvent, Truncate, decode
from rag_index.changes.postgres import (
    SlotState,
    TextReader,
    check_publication,
    check_server,
    lsn,
    lsn_number,
    table_in_catalogue,
)
from rag_index.changes.rows import Probe, ReceivedRows, RowChange
from rag_index.changes.watched_tables import object_name
from rag_index.documents.positions import Position
from rag_index.errors import SettingsError, SourceUnavailable
from rag_index.sources.engine import limited, open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.changes.rows import WatchedTable
    from rag_index.ledger import Ledger

TIMEOUT = 600.0
MAX_ROWS = 100_000
"""Changed rows of one table that are kept in memory; if there are more, all of the table counts as changed."""
PROBE_SECONDS = 0.25
"""The time between two looks at how far the log has come, which costs the server next to nothing."""
REST = 4.0
"""How many times as long as reading the log took the feed rests, so that it takes a fifth of a processor at most."""
SAVED_SECONDS = 2.0
"""How much time without a reading counts as rest beforehand, so that a change now and then waits for none."""
MAX_QUIET = 2.0
"""How long the log is left alone at most, although it grows, after readings that found nothing. It may grow by other
tables, or by the ledger if that is on the same server: each reading then makes it grow."""
ADVANCE_SECONDS = 5.0
"""The time between two moves of the slot past transactions of other tables: each reads the log once more."""
VISIBLE_SECONDS = 1.0
HELD_BYTES = 256 << 20
"""How much log the slot may hold back before that is said."""
IN_USE = "55006"
"""SQLSTATE of a slot that another process reads."""
_PEEK = sa.text("""
    SELECT data FROM pg_logical_slot_peek_binary_changes(
        :slot, CAST(:upto AS pg_lsn), :count,
        'proto_version', '1', 'messages', 'true', 'publication_names', :publication)
""")
_END = sa.text("SELECT pg_current_wal_flush_lsn()::text")
_ADVANCE = sa.text("SELECT pg_replication_slot_advance(:slot, CAST(:upto AS pg_lsn))")
logger = logging.getLogger("rag_index.watch")


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
        ledger: Ledger,
        *,
        timeout: float = TIMEOUT,
        max_rows: int = MAX_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._watched = list(tables)
        self._slot = self._publication = object_name(project)
        self._ledger = ledger
        self._acknowledged: str | None = None
        """What the ledger has of the slot's position, once that was asked for."""
        self._timeout = timeout
        self._max_rows = max_rows
        self._clock = clock
        self._engine = open_read_only(url)
        self._tables: Mapping[tuple[str, str], Sequence[WatchedTable]] | None = None
        self._relations: dict[int, _WatchedRelation | None] = {}
        self._seen = ""
        """The end of the log when it was last read to its end, and what was found is in the inbox."""
        self._advanced_at = -ADVANCE_SECONDS
        self._rest_until = 0.0
        self._read_at = self._quiet = 0.0
        self._probe = Probe(self._engine)

    def check(self) -> Mapping[WatchedTable, SettingsError]:
        """Check slot and publication; return why changes of some tables are not seen."""
        with self._connect() as connection:
            check_server(connection)
            if problem := SlotState.read(connection, self._slot).problem():
                raise SettingsError(problem)
            problems = check_publication(connection, self._publication, self._watched)
            self._tables = self._resolve(connection)
        return problems

    def warnings(self) -> list[str]:
        """Return a warning if the source's log grows because of the slot."""
        with self._connect() as connection:
            state = SlotState.read(connection, self._slot)
        found = []
        if state.held_bytes > HELD_BYTES:
            found.append(
                f"slot {self._slot} holds back {_size(state.held_bytes)} of the source's log: start `rag-index watch`, "
                f"or drop the slot: SELECT pg_drop_replication_slot('{self._slot}')"
            )
        if state.exists and state.max_bytes is None:
            found.append(
                "the source has no max_slot_wal_keep_size, so its log fills the disk while nobody watches: "
                "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()"
            )
        return found

    def receive(self, limit: int) -> ReceivedRows:
        """Return about `limit` changes. A transaction is given whole, so one may exceed the limit.

        Raises SourceUnavailable, and SourceError if the slot is missing or lost.
        """
        looked_at = time.time()
        with self._connect() as connection:
            state = SlotState.read(connection, self._slot)
            state.require_usable()
            if self._tables is None:
                self._tables = self._resolve(connection)
            follows, end = self._follows(state), state.end
            if end == self._seen and follows:
                return ReceivedRows([], through=Position(looked_at, end, "wal"))
            began = self._read_at = self._clock()
            reading = self._read(connection, end, limit)
            took = self._clock() - began
            self._rest_until = max(self._rest_until, began - SAVED_SECONDS) + (1 + REST) * took
            if not _all_visible(connection, reading.xids):
                # committed in the log, but not for readers: their rows would be read too early
                return ReceivedRows([], behind=True)
            more = reading.messages >= limit
            position = lsn(reading.end) if more else max(end, lsn(reading.end), key=lsn_number)
            through = None if more else Position(looked_at, position, "wal")
            self._quiet = 0.0 if reading.rows or reading.overflow else min(MAX_QUIET, self._quiet * 2 or PROBE_SECONDS)
            changes = [change for rows in reading.rows.values() for change in rows.values()]
            overflow = reading.overflow if follows else self._watched
            if changes or overflow:
                return ReceivedRows(changes, position, more, sorted(overflow, key=str), through=through)
            # what passed concerns other tables: without a move of the slot it would hold back their log
            self._seen = "" if more else position
            due = more or self._clock() - self._advanced_at >= ADVANCE_SECONDS
            return ReceivedRows([], position if due else None, more, through=through)

    def acknowledge(self, received: ReceivedRows) -> None:
        """Move the slot on, the ledger's copy of its position first: a death in between leaves the ledger ahead."""
        if received.position is not None:
            self._ledger.remember_slot(self._slot, received.position)
            self._acknowledged = received.position
            with self._connect() as connection:
                connection.execute(_ADVANCE, {"slot": self._slot, "upto": received.position})
            self._advanced_at = self._clock()
            self._seen = "" if received.more else received.position

    def wait(self, seconds: float) -> None:
        """Return after this many seconds, or when the log has grown, which it also does for other tables."""
        until = self._clock() + seconds
        rested = max(self._rest_until, self._read_at + self._quiet)
        while (left := until - self._clock()) > 0:
            if self._clock() >= rested and self._probe.finds(self._has_grown):
                return  # early, also if `seconds` are as few as there are between two looks
            time.sleep(min(left, PROBE_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._probe.close()
        self._engine.dispose()

    def _follows(self, state: SlotState) -> bool:
        """Return whether the slot gives everything since it was last acknowledged, and say so if it does not."""
        if self._acknowledged is None:
            self._acknowledged = self._ledger.slot_position(self._slot)
        follows = state.follows(self._acknowledged)
        if not follows and self._acknowledged is not None:
            logger.warning(
                "slot %s is not the one that was read up to %s: it begins at %s, so everything is compared once",
                self._slot, self._acknowledged, state.start,
            )  # fmt: skip
        return follows

    def _resolve(self, connection: Connection) -> dict[tuple[str, str], list[WatchedTable]]:
        """Return the tables by schema and name. One that is gone is left out; `check` says so."""
        found: dict[tuple[str, str], list[WatchedTable]] = {}
        for watched in self._watched:
            with suppress(SettingsError):
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
                reading.end = event.end  # and not beyond: there the commit of another transaction may begin
            if event.prefix == self._slot:
                reading.overflow.update(self._watched)

    def _has_grown(self, cursor: Any) -> bool:
        """Return whether the log has grown since all of it was read."""
        cursor.execute(str(_END))
        return bool(cursor.fetchone()[0] != self._seen)

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
            if getattr(error.orig if isinstance(error, exc.DBAPIError) else None, "sqlstate", "") == IN_USE:
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


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MB"
