"""Read-only connections to a source, and the errors of drivers as ours."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import NullPool

from rag_index.components.sources.undecoded import accept_any_text, is_invalid_text
from rag_index.core import database
from rag_index.core.files import file_stamp
from rag_index.errors import (
    InvalidText,
    SettingsError,
    SourceError,
    SourceTimedOut,
    SourceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.sql.selectable import Select

TLS_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
GRACE_SECONDS = 5.0
"""How much later than the database the connection is broken off."""
CHECKED_STEPS = 100_000
"""Steps of SQLite's machine after which a statement's time is looked at: a few milliseconds."""
TIMED_OUT = {"57014", 1969, 3024}
"""A query that was ended for its time: PostgreSQL's SQLSTATE, and the error numbers of MariaDB and
MySQL."""
LOG_MODE = b"\2\2"
"""What the header of a SQLite file has at its bytes 18 and 19 if it has a write-ahead log."""
ENUM_OR_SET, FLOAT, BIT = 256 | 2048, 4, 16
"""Flags and types of the protocol of MySQL."""
POSTGRESQL_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "gin_fuzzy_search_limit": "0",
}
MYSQL_SETTINGS = {
    "sql_select_limit": "18446744073709551615",
    "max_join_size": "18446744073709551615",
    "sql_big_selects": "1",
    "max_recursive_iterations": "4294967295",
    "group_concat_max_len": "4294967295",
    "time_zone": "'+00:00'",
    "sql_mode": "REPLACE(@@sql_mode, 'PAD_CHAR_TO_FULL_LENGTH', '')",
}
"""What decides which rows are read, and in which form, whatever a role or a server sets, unless the
URL sets it."""
_ARRAYS = """
    SELECT typname, coalesce(nullif(typbasetype, 0), oid)::int8, typarray::int8, typdelim::text FROM pg_type
    WHERE typarray <> 0 AND oid >= 16384 AND typtype IN ('b', 'd', 'e')
"""
_LONG_INTERVAL = re.compile(rb"\d{7}")
"""More years than psycopg counts right."""


def open_read_only(url: URL, *, any_text: bool = False) -> Engine:
    """Return an engine that cannot write: SQLite in mode=ro; PostgreSQL, MySQL and MariaDB in
    read-only transactions. With `any_text`, a text that is not valid in its charset is an
    `Undecoded`; otherwise it raises InvalidText. Raises SettingsError if no driver is installed for
    this kind of database, or an SQLite file does not exist."""
    engine, given = _open(url), str(dict(url.query)).lower()
    if url.get_backend_name() == "postgresql":
        engine = engine.execution_options(postgresql_readonly=True)
        pairs = [
            f"('{name}', '{value}')"
            for name, value in POSTGRESQL_SETTINGS.items()
            if name.lower() not in given
        ]
        if pairs:
            event.listen(engine, "begin", partial(_set_for_transaction, ", ".join(pairs)))
    elif url.get_backend_name() in ("mysql", "mariadb"):
        settings = {name: value for name, value in MYSQL_SETTINGS.items() if name not in given}

        @event.listens_for(engine, "connect")
        def begin_session(connection: Any, _record: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                for name, value in settings.items():
                    with suppress(
                        engine.dialect.loaded_dbapi.Error
                    ):  # not every such database knows all of them
                        cursor.execute(f"SET SESSION {name} = {value}")

    if any_text:
        accept_any_text(engine)
    return engine


def _set_for_transaction(pairs: str, connection: Connection) -> None:
    """Set what the database knows of these, for this transaction: a pooler may run the next one in
    another session."""
    connection.exec_driver_sql(
        f"SELECT set_config(name, value, true) FROM (VALUES {pairs}) AS wanted (name, value) "
        "WHERE current_setting(name, true) IS NOT NULL"
    )


def _open(url: URL) -> Engine:
    file = Path(str(url.database)).absolute() if database.is_file(url) else None
    if file is not None:
        if not file.is_file():
            beside = (
                [one.name for one in file.parent.glob("*") if one.is_file()]
                if file.parent.is_dir()
                else []
            )
            near = database.did_you_mean(file.name, beside)
            raise SettingsError(
                f"source: there is no file {url.database}; {near or 'correct [source] url'}"
            )
        url = url.set(
            database=file.as_uri(), query={**url.query, "mode": "ro", "uri": "true"}
        )  # with ? and # quoted
    backend = url.get_backend_name()
    try:
        # a file is opened each time: it may have been replaced by another of its name
        pool: dict[str, Any] = {"pool_pre_ping": True} if file is None else {"poolclass": NullPool}
        engine = sa.create_engine(url, connect_args=database.connect_options(url), **pool)
    except (exc.NoSuchModuleError, ImportError) as error:
        raise SettingsError(f"source: {database.missing_driver(url, error)}") from error
    except (
        exc.ArgumentError,
        TypeError,
        ValueError,
    ) as error:  # the URL has options that the driver does not know
        raise SettingsError(
            f"source: the driver refuses the URL {database.redacted_url(url)}:"
            f" {database.first_line(error, url)}"
        ) from error
    database.hide_values(engine)
    if file is not None:
        event.listen(engine, "do_connect", partial(_open_unchanging, file))
    if engine.dialect.is_async:
        raise SettingsError(
            f"source: {url.drivername!r} is an asynchronous driver; name a synchronous one, such as"
            " postgresql+psycopg or mysql+pymysql"
        )
    if backend == "postgresql" and engine.dialect.driver == "psycopg":
        event.listen(engine, "connect", _read_all_types)
    if engine.dialect.driver == "pymysql":
        event.listen(engine, "connect", _read_bits)
    return engine


def _open_unchanging(
    file: Path, _dialect: object, record: Any, arguments: list[str], _options: object
) -> None:
    """Open a file without the ones beside it if SQLite cannot make these: closed cleanly, on a
    read-only mount, say. `limited` checks that it was not written meanwhile."""
    log, shared = Path(f"{file}-wal"), Path(f"{file}-shm")
    if os.access(file.parent, os.W_OK) or (
        log.exists() and (shared.exists() or log.stat().st_size)
    ):
        return
    with suppress(OSError), file.open("rb") as opened:  # else SQLite says what is wrong
        if opened.read(20)[18:] == LOG_MODE:
            arguments[0] += "&immutable=1"
            record.info["unchanging"] = file, file_stamp(file), log.exists()


def _check_unchanged(connection: Connection, what: str) -> None:
    file, *seen = connection.info.get("unchanging", (None,))
    if file is not None and seen != [file_stamp(file), Path(f"{file}-wal").exists()]:
        raise SourceUnavailable(f"{what}: {file} was written while it was read: run again")


def column_kinds(connection: Connection, statement: Select[Any]) -> list[str]:
    """Return what paging by key has to know of the columns of a statement in MySQL and MariaDB:
    "enum" (a SET, too), "float", or "". The result is empty for other databases."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return []
    with connection.execute(statement.limit(0)) as result:
        cursor: Any = result.cursor
        fields = getattr(
            getattr(cursor, "_result", None), "fields", ()
        )  # PyMySQL; mysqlclient has what follows
        flags = (
            [field.flags for field in fields] or getattr(cursor, "description_flags", None) or []
        )
        codes = [column[1] for column in cursor.description]
    return [
        "enum" if (flag or 0) & ENUM_OR_SET else "float" if code == FLOAT else ""
        for flag, code in zip_longest(flags, codes)
    ]


def begin_snapshot(connection: Connection) -> None:
    """Let all statements of a new connection see one state of the database, where it can without
    holding writers up. In MySQL and MariaDB each transaction does so (`open_read_only`)."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")
    elif connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def errors_as_ours(url: URL, what: str) -> Iterator[None]:
    """Raise the driver's errors as SourceUnavailable or SourceError, without a password; `what`
    names what is read."""
    try:
        yield
    except UnicodeError as error:
        raise _invalid_text(error, url, what) from None
    except exc.SQLAlchemyError as error:
        if is_invalid_text(error):
            raise _invalid_text(error, url, what) from None
        failure = database.failure_of(error, url, "[source] url")
        source = f"source {database.redacted_url(url)}"
        if not failure.answered:
            raise SourceUnavailable(f"{source} does not answer: {failure.said}") from error
        if failure.transient:
            raise SourceUnavailable(
                f"{what}: {source} cannot be read now: {failure.said}"
            ) from error
        raise SourceError(f"{what}: {source} cannot be read: {failure.said}") from error
    except RuntimeError as error:
        if "package is required" not in str(error):
            raise
        raise SourceError(
            f"{what}: {error}; install it with pip"
        ) from error  # PyMySQL's way to log in
    except OSError as error:  # PyMySQL reads the files of TLS before it connects
        named = ", ".join(f"{name}={url.query[name]}" for name in TLS_FILES if name in url.query)
        if not named or error.filename is not None:
            raise
        raise SourceError(
            f"{what}: a file of TLS in [source] url cannot be read ({error}): correct {named}"
        ) from error


def _invalid_text(error: Exception, url: URL, what: str) -> SourceError:
    """Return the error of a text. What the driver says has bytes of it, and stays out."""
    source = f"source {database.redacted_url(url)}"
    if isinstance(
        error, UnicodeEncodeError
    ):  # such as a Chinese name in a `where` for a database in WIN1252
        return SourceError(f"{what}: {source} has no such characters as a query of it has")
    return InvalidText(
        f"{what}: {source} holds a text that is not valid in its charset: correct it there"
    )


def _read_all_types(connection: Any, _record: object) -> None:
    """Read what Python has no value for as text; psycopg would refuse the whole page, or give
    another value. Such are 'infinity', years before 1 or after 9999, 24:00, intervals of a million
    years and JSON of a thousand levels. Arrays of enums, domains and types of extensions (citext)
    are read as lists."""
    from psycopg import DataError
    from psycopg.adapt import Loader
    from psycopg.pq import Format
    from psycopg.types import TypeInfo
    from psycopg.types.array import register_array

    class Lenient(Loader):
        """A loader that returns the text if the usual one fails."""

        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._load = loaders[oid](oid, context).load

        def load(self, data: Any) -> Any:
            try:
                if not _LONG_INTERVAL.search(data) or self.oid != interval:
                    return self._load(data)
            except (DataError, ValueError, OverflowError, RecursionError):
                pass
            return bytes(data).decode()

    names = ("date", "timestamp", "timestamptz", "time", "timetz", "json", "jsonb", "interval")
    *types, interval = (connection.adapters.types[name].oid for name in names)
    loaders = {oid: connection.adapters.get_loader(oid, Format.TEXT) for oid in (*types, interval)}
    for oid in loaders:
        connection.adapters.register_loader(oid, Lenient)
    for name, oid, array, delimiter in connection.execute(_ARRAYS):
        register_array(TypeInfo(name, oid, array, delimiter=delimiter), connection)
    connection.rollback()


def _read_bits(connection: Any, _record: object) -> None:
    connection.decoders = {**connection.decoders, BIT: lambda raw: int.from_bytes(raw, "big")}


def limit_on_server(connection: Connection, seconds: float, *, streams: bool) -> None:
    """Have the server end statements that take longer, unless the person who runs it has set a
    limit. In MySQL and MariaDB the time in which a result is fetched counts, so a stream has no
    limit there."""
    dialect = connection.dialect
    if dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SELECT set_config('statement_timeout', '{seconds * 1000:.0f}', true) "
            "WHERE current_setting('statement_timeout') = '0'"
        )
    elif dialect.name in ("mysql", "mariadb"):
        mariadb, seconds = getattr(dialect, "is_mariadb", False), 0 if streams else seconds
        value = (
            f"max_statement_time = {seconds:g}"
            if mariadb
            else f"max_execution_time = {seconds * 1000:.0f}"
        )
        connection.exec_driver_sql(f"SET SESSION {value}")


@contextmanager
def _deadline(driver: Any, seconds: float, expired: threading.Event) -> Iterator[None]:
    """Set the event after so many seconds and break off what the driver does: SQLite looks at the
    clock itself, and for others a thread closes the socket."""
    at = time.monotonic() + seconds
    if isinstance(
        driver, sqlite3.Connection
    ):  # a thread for each statement would take longer than most of them

        def check() -> bool:
            if time.monotonic() > at:
                expired.set()
            return expired.is_set()

        driver.set_progress_handler(check, CHECKED_STEPS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)
        return

    def expire() -> None:
        expired.set()
        with suppress(
            Exception
        ):  # the connection may have been closed by now; a driver of another kind has no socket
            number = driver._sock.fileno() if hasattr(driver, "_sock") else driver.fileno()
            with socket.socket(fileno=os.dup(number)) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds + GRACE_SECONDS, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def limited(connection: Connection, seconds: float, what: str) -> Iterator[None]:
    """Break off the connection if the block takes longer. `what` names the source in the message.
    Raises SourceTimedOut if the database ended the query for its time, or the connection was broken
    off."""
    driver: Any = connection.connection.driver_connection
    began, expired = time.monotonic(), threading.Event()
    cause: exc.SQLAlchemyError | None = None
    try:
        with _deadline(driver, seconds, expired):
            yield
            _check_unchanged(connection, what)
    except UnicodeDecodeError:
        connection.invalidate()  # PyMySQL stops in the middle of an answer
        raise
    except exc.SQLAlchemyError as error:
        cause = error
    finally:  # no ROLLBACK can be sent, even if the database answered
        if broken := expired.is_set() and not isinstance(driver, sqlite3.Connection):
            connection.invalidate()
    origin = getattr(cause, "orig", None)
    codes = {getattr(origin, "sqlstate", None), *getattr(origin, "args", ())[:1]}
    took = time.monotonic() - began
    if broken or (cause and (expired.is_set() or (codes & TIMED_OUT and took >= seconds))):
        raise SourceTimedOut(
            f"{what} did not answer a query within {seconds:g} s: check what the database is doing,"
            " or raise [source] timeout if the query takes longer"
        ) from cause
    if cause is not None and codes & TIMED_OUT:  # by another limit than ours
        said = database.failure_of(cause, connection.engine.url, "[source] url").said
        raise SourceTimedOut(
            f"{what}: the database ended a query after {took:.1f} s: {said}"
        ) from cause
    if cause is not None:
        raise cause
