"""The connection that all parts of the ledger share.

It runs transactions, explains the errors of the database, numbers the scans, and passes lists of
keys as one parameter.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.sql.operators import custom_op

from rag_index.components.ledger.tables import (
    create_scan_tables,
    create_tables,
    documents,
    intact,
    scan_metadata,
    scans,
    version_of,
)
from rag_index.core import database
from rag_index.core.files import file_stamp, private_file, unwritable
from rag_index.errors import LedgerError, LedgerUnavailable, SettingsError

ELSEWHERE = "set `data` or [ledger] url to another place"
SHARED_BYTES = 64 << 10
"""Bytes that a disk needs for SQLite's shared files: it writes them beside the database before
anything else, and reports an I/O error if there is no room for them."""
IN_MEMORY = make_url("sqlite://")
PRAGMAS = (
    "synchronous=FULL",
    "temp_store=FILE",
    "cache_size=-16384",  # KiB
    "secure_delete=ON",
)
WRITER_PRAGMAS = ("journal_mode=WAL", *PRAGMAS)
"""`journal_mode` is written into the file. A reader must not write into a database, which may be
another one if the URL is mistyped."""


class LedgerConnection:
    """The transactions of one connection, and their statements."""

    def __init__(
        self, url: URL, *, clock: Callable[[], float] = time.time, read_only: bool = False
    ) -> None:
        """Open a ledger, and create it if it is missing.

        Args:
            url: The database, in SQLite or PostgreSQL.
            clock: Returns the time in seconds since 1970.
            read_only: Write and create nothing, so that a user with no other right than SELECT may
                open it. An empty ledger in memory takes the place of a missing one (`is_missing`),
                as when the URL is mistyped. A ledger of this version may be on a read-only mount or
                belong to another user.

        Raises:
            SettingsError: The database cannot hold a ledger, or its driver is missing.
            LedgerUnavailable: Another attempt may help.
            LedgerError: No other attempt helps, for example because the version differs.
        """
        self.redacted_url = database.redacted_url(url)
        self._url = url
        self.clock = clock
        self._lock = threading.RLock()
        self._writer: int | None = None
        """The thread that is inside a transaction."""
        self._read_only = read_only
        self.is_missing = False
        """Whether the database has no ledger, so that this one is empty and in memory."""
        self._scans: set[int] = set()
        """The numbered scans of this connection, whose rows are deleted when it closes."""
        self._connect(_engine(url, read_only=read_only))
        try:
            if read_only:
                with self.transaction() as connection:
                    self.is_missing = version_of(connection) is None
                if self.is_missing:
                    self.close()
                    self._connect(_engine(IN_MEMORY, read_only=True))
            with self.transaction() as connection:
                create_tables(connection, redacted_url=self.redacted_url, read_only=read_only)
        except BaseException:
            self.close()
            raise

    def _connect(self, engine: Engine) -> None:
        self.engine = engine
        self._insert = database.insert_for(engine.dialect)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._immutable_file: Path | None = None
        """The file that SQLite reads without locks, because it cannot write beside it."""
        if engine.url.query.get("immutable"):
            self._immutable_file = Path(str(self._url.database))
        self._stamp = self._file_stamp()
        with self._map_errors():
            self._connection = engine.connect()
        self._begin = self._connection.begin

    def close(self) -> None:
        """Delete the rows of this connection's scans, and close it."""
        if self._scans:
            # If this fails, the next scan of the index deletes them.
            with suppress(LedgerError, LedgerUnavailable):
                self.forget_scans(scans.c.number.in_(self._scans))
        with self._lock:
            self._connection.close()
            self.engine.dispose()

    def empty_log(self) -> None:
        """Remove deleted rows from SQLite's log. Their pages were overwritten when freed."""
        if self._is_sqlite:
            with self._lock, self._map_errors():
                self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
                self._connection.rollback()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run the statements of the block as one transaction, and defer signals until its end.

        A block inside another one is part of the outer transaction.

        Raises:
            LedgerUnavailable: The database cannot be used now.
            LedgerError: The database refused, or its file was replaced.
        """
        # The outer block begins and commits.
        if self._writer == threading.get_ident():
            yield self._connection
            return
        with database.interrupts_deferred(), self._lock, self._map_errors(), self._begin():
            self._writer = threading.get_ident()
            try:
                yield self._connection
            finally:
                self._writer = None
            self._check_unchanged()

    # Scans

    def new_scan(self, alias: str) -> int:
        """Return the number of a new scan, and delete the rows of earlier scans of the index.

        The caller must hold the lease of the index, unless the ledger is read-only.
        """
        # A reader of PostgreSQL has temporary tables, which belong to a session. Behind a pooler,
        # only one long transaction keeps the session, so its parts are savepoints. It begins with
        # the first scan: other readers may be open for days, and would hinder VACUUM.
        if self._read_only and not self._is_sqlite:
            self._begin = self._connection.begin_nested  # type: ignore[assignment]
        with self.transaction() as connection:
            if self._is_sqlite or self._read_only:
                # The tables are temporary and have rows of this scan alone.
                create_scan_tables(connection, "TEMPORARY")
                for table in scan_metadata.sorted_tables:
                    connection.execute(table.delete())
                number = 0
            else:
                # All processes share the tables of PostgreSQL.
                self.forget_scans(scans.c.alias == alias)
                insert = scans.insert().values(alias=alias)
                number = int(connection.scalar(insert.returning(scans.c.number)) or 0)
                self._scans.add(number)
            connection.execute(intact.insert().values(scan=number))
            return number

    def check_scan(self, number: int | None) -> None:
        """Check that the rows of a scan are still there.

        A crash of PostgreSQL empties unlogged tables, and a pooler may hide the crash from us.

        Raises:
            LedgerError: They were lost.
        """
        if not self._count(intact, intact.c.scan == number):
            loss = f"ledger {self.redacted_url} lost what this run has seen"
            raise LedgerError(f"{loss}, so nothing is deleted for it: run it again")

    def forget_scans(self, condition: sa.ColumnElement[bool]) -> None:
        """Delete the rows of the scans that a condition on `scans` selects."""
        numbers = sa.select(scans.c.number).where(condition)
        with self.transaction():
            for table in scan_metadata.sorted_tables:
                self._write(table.delete().where(table.c.scan.in_(numbers)))
            self._write(scans.delete().where(condition))

    # The file of SQLite

    def _file_stamp(self) -> object:
        """Return a value that changes if the file is replaced. None if the ledger is no file."""
        # Read without locks: it must not change at all, and nobody may begin a log.
        if file := self._immutable_file:
            return file_stamp(file), Path(f"{file}-wal").exists()
        if not database.is_file(self._url) or self.engine.url == IN_MEMORY:
            return None
        with suppress(OSError):
            return Path(str(self._url.database)).stat().st_ino
        # The file was removed.
        return 0

    def _check_unchanged(self) -> None:
        """Check that the file is still the one that was opened.

        Raises:
            LedgerUnavailable: The file is read without locks, and was written: pages may be mixed.
            LedgerError: The file was removed or replaced. Nobody would read what is written now.
        """
        if self._file_stamp() == self._stamp:
            return
        if self._immutable_file:
            raise LedgerUnavailable(
                f"ledger {self.redacted_url} is being written by its owner: run the command again"
            )
        raise LedgerError(
            f"ledger {self.redacted_url} was removed or replaced while it was open: put it back "
            "and run again, or let `rag-index doctor --repair` make it from the store"
        )

    # Statements

    def _select(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[Any]:
        with self.transaction() as connection:
            # Not by iteration, which takes twice as long: it fetches each row by itself.
            return list(connection.execute(statement).all())

    def _first(self, statement: sa.Select[Any]) -> Any:
        """Return the first row; None if there is none."""
        return next(iter(self._select(statement)), None)

    def _column(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self._select(statement)]

    def _value(self, statement: sa.Select[Any]) -> Any:
        """Return the first column of the first row; None if there is none."""
        with self.transaction() as connection:
            return connection.scalar(statement)

    def _count(self, source: sa.FromClause, *where: sa.ColumnElement[bool]) -> int:
        count = sa.select(sa.func.count()).select_from(source)
        return int(self._value(count.where(*where)))

    def _write(self, statement: sa.UpdateBase) -> int:
        """Execute a statement, and return how many rows it changed."""
        options = {"preserve_rowcount": True}
        with self.transaction() as connection:
            return connection.execute(statement, execution_options=options).rowcount

    def _put_row(
        self,
        table: sa.Table,
        keys: Mapping[str, Any],
        values: Mapping[str, Any],
        update: Any = None,
    ) -> None:
        """Insert a row, or update the one that exists.

        Args:
            keys: The columns of a unique key, with their values.
            values: The other columns.
            update: What an existing row gets in place of `values`.
        """
        insert = self._insert(table).values(**keys, **values)
        self._write(insert.on_conflict_do_update(index_elements=list(keys), set_=update or values))

    def _put_rows(
        self,
        table: sa.Table,
        rows: list[tuple[Any, ...]],
        names: Sequence[str] = (),
        update: Iterable[str] = (),
        **changed: Any,
    ) -> None:
        """Insert rows. Those that exist are updated, or stay as they are if no change is given.

        Args:
            rows: The values of each row.
            names: The columns of these values; by default all columns of the table.
            update: The columns that an existing row gets from the new one.
            changed: The columns that an existing row gets from an expression (see `_new`).
        """
        names = names or table.c.keys()
        insert = self._insert(table).values({name: sa.bindparam(name) for name in names})
        for name in update:
            changed[name] = insert.excluded[name]
        if changed:
            keys = [*table.primary_key]
            statement = insert.on_conflict_do_update(index_elements=keys, set_=changed)
        else:
            statement = insert.on_conflict_do_nothing()
        if rows:
            self._execute_many(statement, names, rows)

    def _new(self, table: sa.Table) -> Any:
        """Return the columns of the row that `_put_rows` would insert, if it exists already."""
        return self._insert(table).excluded

    def _put_selected(self, table: sa.Table, names: Sequence[str], rows: sa.Select[Any]) -> int:
        """Insert the selected rows that do not exist yet. Return how many these are."""
        # Without a WHERE, SQLite takes the ON of ON CONFLICT for that of a join.
        insert = self._insert(table).from_select(names, rows.where(sa.true()))
        return self._write(insert.on_conflict_do_nothing())

    def _execute_many(
        self, statement: Any, names: Iterable[str], rows: list[tuple[Any, ...]]
    ) -> None:
        """Execute a statement once for each row. Every document is recorded by it.

        Args:
            names: The parameters of the statement, in the order of a row's values.
        """
        names = list(names)
        compiled = statement.compile(dialect=self.engine.dialect)
        with self.transaction() as connection:
            # SQLite: the driver gets the rows as they are. That is 4 times faster, because
            # SQLAlchemy does not look at each value.
            if compiled.positional and list(compiled.positiontup) == names:
                connection.exec_driver_sql(str(compiled), rows)
            else:
                connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])

    def _is_in_index(self, collection_id: int) -> sa.ColumnElement[bool]:
        """Return the condition for the documents of a collection, for a query of a partial index.

        These indexes have the pending, the empty and the documents without vectors. SQLite would
        prefer the primary key and read all documents of the collection; a `+` before the column
        prevents that: `+collection_id = 7`.
        """
        column: sa.ColumnElement[int] = documents.c.collection_id
        if self._is_sqlite:
            column = sa.UnaryExpression(column, operator=custom_op("+"), type_=sa.Integer())
        return column == collection_id

    def _is_in(self, column: Any, keys: Iterable[str]) -> sa.ColumnElement[bool]:
        """Return the condition that a column is one of the keys: one parameter for any number."""
        return column.in_(self._keys_as_rows(keys))  # type: ignore[no-any-return]

    def _keys_as_rows(self, keys: Iterable[str]) -> sa.Select[Any]:
        key = self._elements(list(keys), "json_array_elements_text")
        return sa.select(key)

    def _elements(self, values: list[Any], postgresql: str) -> Any:
        """Return a column with these values, which are passed as one JSON array.

        Args:
            postgresql: PostgreSQL's function that returns the elements of an array, as text or as
                JSON. SQLite has one for both.
        """
        array = sa.literal(json.dumps(values), sa.Text)
        if self._is_sqlite:
            rows = sa.func.json_each(array)
        else:
            function = getattr(sa.func, postgresql)
            rows = function(sa.cast(array, sa.JSON))
        return rows.table_valued("value").c.value

    # Errors

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        """Raise errors of the database as LedgerError or LedgerUnavailable."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            self._check_unchanged()
            raise self._explain(error) from error

    def _explain(self, error: exc.SQLAlchemyError) -> LedgerError | LedgerUnavailable:
        """Return an error of the database as ours, with what to do about it."""
        ledger = f"ledger {self.redacted_url}"
        failure = database.failure_of(error, self._url, "[ledger] url")
        origin = database.first_line(error, self._url)
        # "database or disk is full"; 53100 is PostgreSQL's disk_full.
        is_full = failure.code in (sqlite3.SQLITE_FULL, "53100")
        if is_full or self._lacks_shared_bytes(failure):
            return LedgerError(
                f"{ledger}: the disk is full ({origin}). Nothing is lost: make room and run again"
            )
        # "attempt to write a readonly database"
        if failure.code == sqlite3.SQLITE_READONLY:
            return LedgerError(
                f"ledger {unwritable(Path(str(self._url.database)), error, ELSEWHERE)}"
            )
        # 25006 is read_only_sql_transaction: a standby of PostgreSQL.
        if failure.code == "25006":
            return LedgerError(
                f"{ledger} cannot be written ({origin}): name the primary server in [ledger] url"
            )
        # "database disk image is malformed", "file is not a database"
        if failure.code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            remedy = "`rag-index doctor --repair` fills a new one from the store"
            return LedgerError(f"{ledger} is damaged ({origin}); {remedy}")
        # "database is locked", "connection refused"
        if failure.transient:
            verdict = "cannot be used now" if failure.answered else "does not answer"
            return LedgerUnavailable(f"{ledger} {verdict}: {failure.message}")
        # "permission denied for table rag_index_runs"
        return LedgerError(f"{ledger} refuses: {failure.message}")

    def _lacks_shared_bytes(self, failure: database.DatabaseFailure) -> bool:
        """Return whether SQLite has an I/O error because the disk has no room for its own files."""
        if failure.code != sqlite3.SQLITE_IOERR or not database.is_file(self._url):
            return False
        folder = Path(str(self._url.database)).parent
        return shutil.disk_usage(folder).free < SHARED_BYTES


def _engine(url: URL, *, read_only: bool) -> Engine:
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise SettingsError(
            f"ledger: {url.drivername!r} cannot hold a ledger; use sqlite or postgresql"
        )
    if read_only:
        url = _readable(url)
    elif database.is_file(url):
        file = Path(str(url.database))
        try:
            private_file(file)
        except OSError as error:
            raise LedgerError(f"ledger {unwritable(file, error, ELSEWHERE)}") from error
    try:
        engine = sa.create_engine(url, connect_args=database.connect_options(url))
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise SettingsError(f"ledger: {database.missing_driver(url, error)}") from error
    database.hide_values(engine)
    if engine.dialect.name == "sqlite":
        pragmas = PRAGMAS if read_only else WRITER_PRAGMAS
        event.listen(
            engine, "connect", lambda connection, _: database.set_pragmas(connection, pragmas)
        )
    return engine


def _readable(url: URL) -> URL:
    """Return the URL that opens a ledger for reading.

    Example: "sqlite:////home/ann/ledger.db" ->
        "sqlite:///file:///home/ann/ledger.db?immutable=1&uri=true" if only Ann may write there.
    """
    # A server, or a file that we may write: it is opened as usual.
    file = Path(str(url.database))
    if not database.is_file(url) or (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return url
    # A missing file: an empty ledger in memory.
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return IN_MEMORY
    except OSError as error:
        raise LedgerError(
            f"ledger: {file} cannot be read: {error.strerror}; correct its permissions"
        ) from error
    # SQLite writes beside a file that it reads. It does not if a writer has the log open already
    # ("mode=ro"), or if the file cannot change ("immutable=1").
    mode = {"immutable": "1"}
    if Path(f"{file}-wal").exists():
        mode = {"mode": "ro"}
    return url.set(database=file.absolute().as_uri(), query={**url.query, **mode, "uri": "true"})
