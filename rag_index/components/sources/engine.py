"""Read-only connections to a source, and the errors of its drivers as ours."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection, Engine
    from sqlalchemy.sql.selectable import Select

TLS_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
"""The options of a URL that name files of TLS."""
GRACE_SECONDS = 5.0
"""Seconds after the database's own limit when the connection is broken off. Chosen; nothing depends
on it."""
CHECKED_STEPS = 100_000
"""Steps of SQLite's machine after which it compares a statement's time with the limit: a few
milliseconds."""
TIMED_OUT = {"57014", 1969, 3024}
"""The codes of a query that was ended for its time: PostgreSQL's SQLSTATE, and the error numbers of
MariaDB and MySQL."""
LOG_MODE = b"\2\2"
"""The bytes 18 and 19 of the header of a SQLite file with a write-ahead log."""
ENUM_OR_SET, FLOAT, BIT = 256 | 2048, 4, 16
"""Flags (ENUM_FLAG, SET_FLAG) and type codes of the protocol of MySQL."""
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
"""The settings of a session that determine which rows are read, and in which form. They replace those
of the role or the server, but not those of the URL."""
_ARRAYS = """
    SELECT typname, coalesce(nullif(typbasetype, 0), oid)::int8, typarray::int8, typdelim::text FROM pg_type
    WHERE typarray <> 0 AND oid >= 16384 AND typtype IN ('b', 'd', 'e')
"""
"""The types of enums, domains and extensions that PostgreSQL has arrays of."""
_LONG_INTERVAL = re.compile(rb"\d{7}")
"""A million years or more, which psycopg converts to a wrong value."""


def open_read_only(url: URL, *, any_text: bool = False) -> Engine:
    """Return an engine that cannot write: SQLite in mode=ro; PostgreSQL, MySQL and MariaDB in
    read-only transactions.

    Args:
        any_text: Whether a text that is not valid in its charset is an `Undecoded`. Otherwise it
            raises InvalidText.

    Raises:
        SettingsError: No driver is installed for this kind of database, or the file of SQLite does
            not exist.
    """
    engine = _open(url)
    options = str(dict(url.query)).lower()
    if url.get_backend_name() == "postgresql":
        engine = engine.execution_options(postgresql_readonly=True)
        pairs: list[str] = []
        for name, value in POSTGRESQL_SETTINGS.items():
            if name.lower() not in options:
                pairs.append(f"('{name}', '{value}')")
        if pairs:
            event.listen(engine, "begin", partial(_set_for_transaction, ", ".join(pairs)))
    elif url.get_backend_name() in ("mysql", "mariadb"):
        settings = {name: value for name, value in MYSQL_SETTINGS.items() if name not in options}
        driver_error = engine.dialect.loaded_dbapi.Error
        event.listen(engine, "connect", partial(_begin_session, settings, driver_error))
    if any_text:
        accept_any_text(engine)
    return engine


def _begin_session(
    settings: Mapping[str, str], driver_error: type[Exception], connection: Any, _record: object
) -> None:
    """Make a session of MySQL or MariaDB read-only, and set these settings for it."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for name, value in settings.items():
            # MySQL has no max_recursive_iterations, for example.
            with suppress(driver_error):
                cursor.execute(f"SET SESSION {name} = {value}")


def _set_for_transaction(pairs: str, connection: Connection) -> None:
    """Set those of these settings that the database has, for this transaction: a pooler may run the
    next one in another session."""
    connection.exec_driver_sql(
        f"SELECT set_config(name, value, true) FROM (VALUES {pairs}) AS wanted (name, value) "
        "WHERE current_setting(name, true) IS NOT NULL"
    )


def _open(url: URL) -> Engine:
    """Return an engine for a URL, with the driver's settings that reading needs."""
    file = Path(str(url.database)).absolute() if database.is_file(url) else None
    pool: dict[str, Any] = {"pool_pre_ping": True}
    if file is not None:
        _check_file(file, url)
        # The form of a URI quotes "?" and "#" in the name.
        url = url.set(database=file.as_uri(), query={**url.query, "mode": "ro", "uri": "true"})
        # A file is opened each time: it may have been replaced by another of its name.
        pool = {"poolclass": NullPool}
    try:
        engine = sa.create_engine(url, connect_args=database.connect_options(url), **pool)
    except (exc.NoSuchModuleError, ImportError) as error:
        raise SettingsError(f"source: {database.missing_driver(url, error)}") from error
    except (exc.ArgumentError, TypeError, ValueError) as error:
        # The URL has options that the driver does not have.
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
    if url.get_backend_name() == "postgresql" and engine.dialect.driver == "psycopg":
        event.listen(engine, "connect", _read_all_types)
    if engine.dialect.driver == "pymysql":
        event.listen(engine, "connect", _read_bits)
    return engine


def _check_file(file: Path, url: URL) -> None:
    """Raise SettingsError if the file of SQLite does not exist."""
    if file.is_file():
        return
    names: list[str] = []
    if file.parent.is_dir():
        names = [path.name for path in file.parent.glob("*") if path.is_file()]
    remedy = database.did_you_mean(file.name, names) or "correct [source] url"
    raise SettingsError(f"source: there is no file {url.database}; {remedy}")


def _open_unchanging(
    file: Path, _dialect: object, record: Any, arguments: list[str], _options: object
) -> None:
    """Open a file with a write-ahead log as immutable if SQLite cannot make the files beside it.

    So is a file on a read-only mount that was closed cleanly. `limited` checks that it was not
    written meanwhile.
    """
    log = Path(f"{file}-wal")
    shared = Path(f"{file}-shm")
    # SQLite can make the files beside it, or has them.
    if os.access(file.parent, os.W_OK):
        return
    if log.exists() and (shared.exists() or log.stat().st_size):
        return
    # If the file cannot be read, SQLite reports it.
    with suppress(OSError), file.open("rb") as opened:
        if opened.read(20)[18:] == LOG_MODE:
            arguments[0] += "&immutable=1"
            record.info["unchanging"] = _Unchanging(file, file_stamp(file), log.exists())


@dataclass(frozen=True, slots=True)
class _Unchanging:
    """An SQLite file that must not be written while it is read."""

    file: Path
    stamp: tuple[int, int, int] | None
    has_log: bool


def _check_unchanged(connection: Connection, what: str) -> None:
    opened: _Unchanging | None = connection.info.get("unchanging")
    if opened is None:
        return
    file = opened.file
    if opened != _Unchanging(file, file_stamp(file), Path(f"{file}-wal").exists()):
        raise SourceUnavailable(f"{what}: {file} was written while it was read: run again")


def column_kinds(connection: Connection, statement: Select[Any]) -> list[str]:
    """Return, for each column of a statement in MySQL and MariaDB, whether it is an ENUM or a SET
    ("enum"), a FLOAT ("float"), or of another type (""). The list is empty for other databases."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return []
    with connection.execute(statement.limit(0)) as result:
        cursor: Any = result.cursor
        flags = _column_flags(cursor)
        codes = [column[1] for column in cursor.description]
    kinds: list[str] = []
    for flag, code in zip_longest(flags, codes):
        if (flag or 0) & ENUM_OR_SET:
            kinds.append("enum")
        else:
            kinds.append("float" if code == FLOAT else "")
    return kinds


def _column_flags(cursor: Any) -> Sequence[int]:
    """Return the flags of a result's columns in the protocol of MySQL, as the driver has them."""
    # PyMySQL
    fields = getattr(getattr(cursor, "_result", None), "fields", ())
    if fields:
        return [field.flags for field in fields]
    # mysqlclient
    return getattr(cursor, "description_flags", None) or []


def begin_snapshot(connection: Connection) -> None:
    """Let all statements of a new connection see one state of the database, if that delays no
    writers. In MySQL and MariaDB each transaction does so (`open_read_only`)."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")
    elif connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def errors_as_ours(url: URL, what: str) -> Iterator[None]:
    """Raise the errors of a driver as SourceUnavailable or SourceError, without a password.

    Args:
        what: What is read, at the beginning of a message.
    """
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
            raise SourceUnavailable(f"{source} does not answer: {failure.message}") from error
        if failure.transient:
            raise SourceUnavailable(
                f"{what}: {source} cannot be read now: {failure.message}"
            ) from error
        raise SourceError(f"{what}: {source} cannot be read: {failure.message}") from error
    except RuntimeError as error:
        if "package is required" not in str(error):
            raise
        # PyMySQL requires one for some ways to log in.
        raise SourceError(f"{what}: {error}; install it with pip") from error
    except OSError as error:
        # PyMySQL reads the files of TLS before it connects.
        named = ", ".join(f"{name}={url.query[name]}" for name in TLS_FILES if name in url.query)
        if not named or error.filename is not None:
            raise
        raise SourceError(
            f"{what}: a file of TLS in [source] url cannot be read ({error}): correct {named}"
        ) from error


def _invalid_text(error: Exception, url: URL, what: str) -> SourceError:
    """Return the error of a text that is not valid. The driver's message contains its bytes, and is
    left out."""
    source = f"source {database.redacted_url(url)}"
    # Such as a Chinese name in a `where` for a database in WIN1252
    if isinstance(error, UnicodeEncodeError):
        return SourceError(f"{what}: {source} has no such characters as a query of it has")
    return InvalidText(
        f"{what}: {source} holds a text that is not valid in its charset: correct it there"
    )


def _read_all_types(connection: Any, _record: object) -> None:
    """Let psycopg read values that Python has no value for as text.

    It would refuse the page, or return another value. Examples are 'infinity', years before 1 or
    after 9999, 24:00, intervals of a million years and JSON of a thousand levels. Arrays of enums,
    domains and types of extensions (citext) are read as lists.
    """
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
    """Let the server end statements that take longer.

    PostgreSQL keeps a limit that its administrator has set. In MySQL and MariaDB the limit includes
    the time in which a result is fetched, so a stream has none there.
    """
    dialect = connection.dialect
    if dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SELECT set_config('statement_timeout', '{seconds * 1000:.0f}', true) "
            "WHERE current_setting('statement_timeout') = '0'"
        )
    elif dialect.name in ("mysql", "mariadb"):
        if streams:
            seconds = 0
        if getattr(dialect, "is_mariadb", False):
            limit = f"max_statement_time = {seconds:g}"
        else:
            limit = f"max_execution_time = {seconds * 1000:.0f}"
        connection.exec_driver_sql(f"SET SESSION {limit}")


@contextmanager
def _deadline(driver: Any, seconds: float, expired: threading.Event) -> Iterator[None]:
    """Break off the driver's call after some seconds, and set the event.

    For servers a thread closes the socket. SQLite compares the time itself: a thread for each
    statement would take longer than most statements.
    """
    if isinstance(driver, sqlite3.Connection):
        with _deadline_of_sqlite(driver, seconds, expired):
            yield
        return

    def expire() -> None:
        expired.set()
        # The connection may be closed by now, and some drivers have no socket.
        with suppress(Exception):
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
def _deadline_of_sqlite(
    driver: sqlite3.Connection, seconds: float, expired: threading.Event
) -> Iterator[None]:
    at = time.monotonic() + seconds

    def check() -> bool:
        if time.monotonic() > at:
            expired.set()
        return expired.is_set()

    driver.set_progress_handler(check, CHECKED_STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


@contextmanager
def limited(connection: Connection, seconds: float, what: str) -> Iterator[None]:
    """Break off the connection if the block takes longer.

    Args:
        what: The source, at the beginning of a message.

    Raises:
        SourceTimedOut: The database ended the query for its time, or the connection was broken off.
    """
    driver: Any = connection.connection.driver_connection
    began = time.monotonic()
    expired = threading.Event()
    cause: exc.SQLAlchemyError | None = None
    try:
        with _deadline(driver, seconds, expired):
            yield
            _check_unchanged(connection, what)
    except UnicodeDecodeError:
        # PyMySQL stops in the middle of an answer.
        connection.invalidate()
        raise
    except exc.SQLAlchemyError as error:
        cause = error
    finally:
        # No ROLLBACK can be sent through a closed socket, even if the database answered.
        is_broken = expired.is_set() and not isinstance(driver, sqlite3.Connection)
        if is_broken:
            connection.invalidate()
    if cause is None and not is_broken:
        return
    origin = getattr(cause, "orig", None)
    codes = {getattr(origin, "sqlstate", None), *getattr(origin, "args", ())[:1]}
    was_ended = bool(codes & TIMED_OUT)
    took = time.monotonic() - began
    # By our limit
    if expired.is_set() or (was_ended and took >= seconds):
        raise SourceTimedOut(
            f"{what} did not answer a query within {seconds:g} s: check what the database is doing,"
            " or raise [source] timeout if the query takes longer"
        ) from cause
    # By another limit, such as one of the role
    if cause is not None and was_ended:
        reason = database.failure_of(cause, connection.engine.url, "[source] url").message
        raise SourceTimedOut(
            f"{what}: the database ended a query after {took:.1f} s: {reason}"
        ) from cause
    if cause is not None:
        raise cause
