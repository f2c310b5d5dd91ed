"""The feed of a queue: a table in the source that triggers fill (`queues`)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from rag_index.changes.queues import SETUP, open_queue
from rag_index.changes.rows import Probe, ReceivedRows, RowChange
from rag_index.documents.positions import Position
from rag_index.errors import SettingsError, SourceError
from rag_index.sources.engine import limited, open_read_only, open_writable, source_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection, Engine

    from rag_index.changes.rows import WatchedTable

TIMEOUT = 600.0
PROBE_SECONDS = 0.2
"""The time between two looks whether the queue has rows, and after a reading that found some: many readings of a few
rows would take the processor from the batch that is being indexed."""
UNREAD_SECONDS = 600.0
"""How old the first row may be before that is said."""
MAX_COUNT = 1_000_000
"""Where counting the rows of a queue ends."""


class QueueFeed:
    """The changes that triggers noted. Rows are read without a lock, and deleted after they were acknowledged."""

    def __init__(
        self,
        url: URL,
        tables: Sequence[WatchedTable],
        project: str,
        *,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._clock = clock
        self._engine = open_read_only(url)
        self._writer = open_writable(url)
        self._queue = open_queue(self._engine.dialect.name, tables, project)
        self._probe = Probe(self._engine)
        self._version: Any = None
        self._rest_until = 0.0

    def check(self) -> Mapping[WatchedTable, SettingsError]:
        """Check triggers and rights; return why changes of some tables are not seen."""
        with self._connect(self._engine) as connection:
            problems = self._queue.problems(connection)
        try:
            with self._connect(self._writer) as connection:
                self._queue.delete(connection, self._queue.no_rows)
        except SourceError as error:
            raise SettingsError(f"rows of the queue cannot be deleted: {error}; {SETUP}") from error
        return problems

    def warnings(self) -> list[str]:
        """Return a warning if nobody has read the queue for long."""
        with self._connect(self._engine) as connection:
            age = max((time.time() - row.changed_at for row in self._queue.read(connection, 1)), default=0.0)
            if age <= UNREAD_SECONDS:
                return []
            count = self._queue.count(connection, MAX_COUNT)
        more = " or more" if count >= MAX_COUNT else ""
        remedy = "start `rag-index watch`, or remove the triggers as `rag-index watch --setup` says"
        return [f"the queue of changes has {count:,}{more} rows, the first {age / 3600:.1f} hours old: {remedy}"]

    def receive(self, limit: int) -> ReceivedRows:
        """Return the changes of at most `limit` rows of the queue, without waiting for any."""
        looked_at = time.time()
        with self._connect(self._engine) as connection:
            before = self._queue.before(connection)
            rows = self._queue.read(connection, limit)
        more = len(rows) >= limit
        self._rest_until = self._clock() + PROBE_SECONDS if rows else 0.0
        through = None if more else Position(looked_at, self._queue.through(before, rows), "queue")
        changes = [
            RowChange(row.table, dict(zip(row.table.columns, row.values, strict=True)), row.changed_at)
            for row in rows
            if row.table is not None and row.values is not None
        ]
        overflow = {row.table for row in rows if row.table is not None and row.values is None}
        tokens = [row.token for row in rows]
        return ReceivedRows(changes, tokens, more, sorted(overflow, key=str), through=through)

    def acknowledge(self, received: ReceivedRows) -> None:
        """Delete exactly the rows that were received."""
        if received.position:
            with self._connect(self._writer) as connection:
                self._queue.delete(connection, received.position)
            if self._engine.dialect.name == "sqlite":  # hold the file open for writing no longer than needed
                self._writer.dispose()

    def wait(self, seconds: float) -> None:
        """Return after this many seconds, or when the queue has rows, or when the file of SQLite has changed."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            rest = self._rest_until - self._clock()
            if rest <= 0 and self._probe.finds(self._look):
                return
            time.sleep(min(left, rest if rest > 0 else PROBE_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._probe.close()
        self._engine.dispose()
        self._writer.dispose()

    def _look(self, cursor: Any) -> bool:
        """Return whether there may be rows."""
        if self._engine.dialect.name == "sqlite":
            return self._file_changed(cursor)
        cursor.execute(self._queue.has_changes)
        return cursor.fetchone() is not None

    def _file_changed(self, cursor: Any) -> bool:
        """Return whether another connection has written the file since the last look of this one."""
        before = self._version
        self._version = (cursor.connection, cursor.execute("PRAGMA data_version").fetchone()[0])
        return bool(self._version != before)

    @contextmanager
    def _connect(self, engine: Engine) -> Iterator[Connection]:
        """Yield a connection, and raise its errors as ours."""
        try:
            with engine.connect() as connection, limited(connection, self._timeout, "the queue of changes"):
                yield connection
        except exc.SQLAlchemyError as error:
            raise source_error(error, self._url, "the queue of changes") from error
