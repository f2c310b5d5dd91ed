"""The connection that all parts of the ledger share: transactions, error messages, and lists of keys as parameters."""

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
"""What SQLite writes beside its file before anything else, for the processes that have it open."""
IN_MEMORY = make_url("sqlite://")


class LedgerConnection:
    """The transactions of one connection, and their statements."""

    def __init__(self, url: URL, *, clock: Callable[[], float] = time.time, read_only: bool = False) -> None:
        """Open a ledger, and create it if it is missing. With `read_only`, none is created: an empty one in memory
        takes the place of one that is missing. So the URL may be mistyped, and a ledger of this version may be on a
        read-only mount or belong to another user."""
        self.redacted_url = database.redacted_url(url)
        self._url = url
        self.clock = clock
        self._lock = threading.RLock()
        self._writer: int | None = None
        self._read_only = read_only
        self._scans: set[int] = set()
        """The scans whose rows end with this connection, unless they are in temporary tables."""
        self._connect(_engine(url, read_only=read_only))
        try:
            if read_only:
                with self.transaction() as connection:
                    is_missing = version_of(connection) is None
                if is_missing:
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
        unchanging = engine.url.query.get("immutable")
        self._unchanging = Path(str(self._url.database)) if unchanging else None
        self._stamp = self._file_stamp()
        with self._map_errors():
            self._connection = engine.connect()
        nested = self._read_only and not self._is_sqlite
        self._begin = self._connection.begin_nested if nested else self._connection.begin

    def close(self) -> None:
        """Delete what scans found, and close the connection."""
        if self._scans:
            with suppress(LedgerError, LedgerUnavailable):  # else the next scan of the index deletes it
                self.forget_scans(scans.c.number.in_(self._scans))
        with self._lock:
            self._connection.close()
            self.engine.dispose()

    def empty_log(self) -> None:
        """Leave nothing of deleted rows in SQLite's log; their pages are overwritten as they are freed."""
        if self._is_sqlite:
            with self._lock, self._map_errors():
                self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
                self._connection.rollback()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run the statements of the block as one transaction. Signals are deferred until its end. Who may only read has
        temporary tables in PostgreSQL: there all is in one transaction, which keeps its session."""
        if self._writer == threading.get_ident():  # within another block, which does the rest
            yield self._connection
            return
        with database.interrupts_deferred(), self._lock, self._map_errors(), self._begin():
            self._writer = threading.get_ident()
            try:
                yield self._connection
            finally:
                self._writer = None
            self._check_unchanged()

    def new_scan(self, alias: str) -> int:
        """Return the number of a new scan. What earlier ones of this index found is deleted: the caller has its lease.
        In SQLite, and for who may only read, the tables are temporary and have rows of this scan alone."""
        with self.transaction() as connection:
            if self._is_sqlite or self._read_only:
                create_scan_tables(connection, "TEMPORARY")
                for table in scan_metadata.sorted_tables:
                    connection.execute(table.delete())
                number = 0
            else:
                self.forget_scans(scans.c.alias == alias)
                number = int(connection.scalar(scans.insert().values(alias=alias).returning(scans.c.number)) or 0)
                self._scans.add(number)
            connection.execute(intact.insert().values(scan=number))
            return number

    def check_scan(self, number: int | None) -> None:
        """Raise LedgerError if what a scan found is lost: in a crash of PostgreSQL, which a pooler may hide from us."""
        if not self._count(intact, intact.c.scan == number):
            raise LedgerError(
                f"ledger {self.redacted_url} lost what this run has seen, so nothing is deleted for it: run it again"
            )

    def forget_scans(self, which: sa.ColumnElement[bool]) -> None:
        """Delete what these scans found, which `which` selects among the rows of `scans`."""
        with self.transaction():
            for table in scan_metadata.sorted_tables:
                self._write(table.delete().where(table.c.scan.in_(sa.select(scans.c.number).where(which))))
            self._write(scans.delete().where(which))

    def _file_stamp(self) -> object:
        if file := self._unchanging:
            return file_stamp(file), Path(f"{file}-wal").exists()
        if not database.is_file(self._url) or self.engine.url == IN_MEMORY:
            return None
        with suppress(OSError):
            return Path(str(self._url.database)).stat().st_ino
        return 0

    def _check_unchanged(self) -> None:
        """Raise LedgerUnavailable if SQLite takes the file for unchanging, and it has changed: pages may be mixed.
        Raises LedgerError if the file is another one than when it was opened: what is written now would never be
        read."""
        if self._file_stamp() == self._stamp:
            return
        if self._unchanging:
            raise LedgerUnavailable(f"ledger {self.redacted_url} is being written by its owner: run the command again")
        raise LedgerError(
            f"ledger {self.redacted_url} was removed or replaced while it was open: put it back and run again, or let "
            "`rag-index doctor --repair` make it from the store"
        )

    def _select(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[Any]:
        with self.transaction() as connection:
            return list(connection.execute(statement))

    def _first(self, statement: sa.Select[Any]) -> Any:
        return next(iter(self._select(statement)), None)

    def _column(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[Any]:
        return [row[0] for row in self._select(statement)]

    def _value(self, statement: sa.Select[Any]) -> Any:
        with self.transaction() as connection:
            return connection.scalar(statement)

    def _count(self, source: sa.FromClause, *where: sa.ColumnElement[bool]) -> int:
        return int(self._value(sa.select(sa.func.count()).select_from(source).where(*where)))

    def _write(self, statement: sa.UpdateBase) -> int:
        with self.transaction() as connection:
            return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount

    def _put_row(self, table: sa.Table, keys: Mapping[str, Any], values: Mapping[str, Any], update: Any = None) -> None:
        """Insert a row, or give the one that has these keys the values, or `update` in their place."""
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
        """Insert rows of these columns, by default of all. One that exists gets the columns `update` of the new one,
        and those `changed` by an expression (of `_new`, too); without either it stays as it is."""
        names, keys = names or table.c.keys(), [*table.primary_key]
        insert = self._insert(table).values({name: sa.bindparam(name) for name in names})
        changed |= {name: insert.excluded[name] for name in update}
        same = {"index_elements": keys, "set_": changed}
        statement = insert.on_conflict_do_update(**same) if changed else insert.on_conflict_do_nothing()
        if rows:
            self._execute_many(statement, names, rows)

    def _new(self, table: sa.Table) -> Any:
        """Return the columns of a row that `_put_rows` finds to exist already, as they would be written."""
        return self._insert(table).excluded

    def _put_selected(self, table: sa.Table, names: Sequence[str], rows: sa.Select[Any]) -> int:
        """Insert selected rows, but those that exist; return how many."""
        insert = self._insert(table).from_select(names, rows.where(sa.true()))  # else SQLite takes ON for a join's
        return self._write(insert.on_conflict_do_nothing())

    def _execute_many(self, statement: Any, names: Iterable[str], rows: list[tuple[Any, ...]]) -> None:
        """Execute a statement for each row, whose values belong to the parameters `names`. On SQLite this skips
        SQLAlchemy's work for each value and is 4 times faster. Every document passes here."""
        names = list(names)
        compiled = statement.compile(dialect=self.engine.dialect)
        with self.transaction() as connection:
            if compiled.positional and list(compiled.positiontup) == names:
                connection.exec_driver_sql(str(compiled), rows)
            else:
                connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])

    def _is_in_index(self, collection_id: int) -> sa.ColumnElement[bool]:
        """Return the condition for a document of a collection, in a query that is for one of the small indexes. These
        have the pending, the held back and the empty documents. SQLite would rather look at all documents of the
        collection by the primary key, which a `+` before the column prevents."""
        column: sa.ColumnElement[int] = documents.c.collection_id
        if self._is_sqlite:
            column = sa.UnaryExpression(column, operator=custom_op("+"), type_=sa.Integer())
        return column == collection_id

    def _is_in(self, column: Any, keys: Iterable[str]) -> sa.ColumnElement[bool]:
        """Return the condition that `column` is one of `keys`, which is one bound parameter for any number of keys."""
        return column.in_(sa.select(self._keys(keys)))  # type: ignore[no-any-return]

    def _keys(self, keys: Iterable[str]) -> Any:
        """Return the column of a table of these keys."""
        return self._elements(list(keys), "json_array_elements_text")

    def _elements(self, values: list[Any], postgresql: str) -> Any:
        """Return the column of a table of these values; `postgresql` is the function that makes it there."""
        given = sa.literal(json.dumps(values), sa.Text)
        if self._is_sqlite:
            return sa.func.json_each(given).table_valued("value").c.value
        return getattr(sa.func, postgresql)(sa.cast(given, sa.JSON)).table_valued("value").c.value

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            self._check_unchanged()
            url, ledger = self._url, f"ledger {self.redacted_url}"
            failure, origin = database.failure_of(error, url, "[ledger] url"), database.first_line(error, url)
            # where the disk has no room for the files beside SQLite's, SQLite calls that an I/O error
            if failure.code in (sqlite3.SQLITE_FULL, "53100") or (
                failure.code == sqlite3.SQLITE_IOERR
                and database.is_file(url)
                and shutil.disk_usage(Path(str(url.database)).parent).free < SHARED_BYTES
            ):
                message = f"{ledger}: the disk is full ({origin}). Nothing is lost: make room and run again"
            elif failure.code == sqlite3.SQLITE_READONLY:
                message = f"ledger {unwritable(Path(str(url.database)), error, ELSEWHERE)}"
            elif failure.code == "25006":
                message = f"{ledger} cannot be written ({origin}): name the primary server in [ledger] url"
            elif failure.code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                message = f"{ledger} is damaged ({origin}); `rag-index doctor --repair` fills a new one from the store"
            elif failure.transient:
                verdict = "cannot be used now" if failure.answered else "does not answer"
                raise LedgerUnavailable(f"{ledger} {verdict}: {failure.said}") from error
            else:
                message = f"{ledger} refuses: {failure.said}"
            raise LedgerError(message) from error


def _engine(url: URL, *, read_only: bool) -> Engine:
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise SettingsError(f"ledger: {url.drivername!r} cannot hold a ledger; use sqlite or postgresql")
    if read_only:
        url = _readable(url)
    elif database.is_file(url):
        try:
            private_file(Path(str(url.database)))
        except OSError as error:
            raise LedgerError(f"ledger {unwritable(Path(str(url.database)), error, ELSEWHERE)}") from error
    try:
        engine = sa.create_engine(url, connect_args=database.connect_options(url))
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise SettingsError(f"ledger: {database.missing_driver(url, error)}") from error
    database.hide_values(engine)
    if engine.dialect.name == "sqlite":
        pragmas = ("journal_mode=WAL", "synchronous=FULL", "temp_store=FILE", "cache_size=-16384", "secure_delete=ON")
        event.listen(engine, "connect", lambda connection, _: database.set_pragmas(connection, pragmas))
    return engine


def _readable(url: URL) -> URL:
    """Return the URL by which a ledger is read as it is: of one in memory, if there is no file. SQLite wants to write
    beside a file that it reads, unless a writer has the log open or the file does not change."""
    file = Path(str(url.database))
    if not database.is_file(url) or (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return url
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return IN_MEMORY
    except OSError as error:
        raise LedgerError(f"ledger: {file} cannot be read: {error.strerror}; correct its permissions") from error
    mode = {"mode": "ro"} if Path(f"{file}-wal").exists() else {"immutable": "1"}
    return url.set(database=file.absolute().as_uri(), query={**url.query, **mode, "uri": "true"})
