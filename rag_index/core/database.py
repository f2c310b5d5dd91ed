"""Databases by their drivers: URLs and redaction, pragmas and upserts, deferred signals, and what
an error means by its code: whether another try may help, and what to do about it."""

from __future__ import annotations

import logging
import re
import signal
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from rag_index.quotes import without_values
from rag_index.redaction import keep_url, redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

DRIVERS: Mapping[str, tuple[str, str, str]] = {
    "postgresql": ("postgresql+psycopg", "psycopg", "postgresql"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "pymysql", "mariadb"),
    "mariadb": ("mariadb+pymysql", "pymysql", "mariadb"),
}
"""The scheme with our driver, the driver's module and our extra for it, by the scheme of a URL
without a driver."""
PACKAGES: Mapping[str, str] = {
    "bigquery": "sqlalchemy-bigquery",
    "clickhouse": "clickhouse-sqlalchemy",
    "cockroachdb": "sqlalchemy-cockroachdb",
    "db2": "ibm_db_sa",
    "duckdb": "duckdb-engine",
    "firebird": "sqlalchemy-firebird",
    "hana": "sqlalchemy-hana",
    "mssql": "pyodbc",
    "oracle": "oracledb",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
    "teradatasql": "teradatasqlalchemy",
    "trino": "trino[sqlalchemy]",
}
"""The package with the driver of a database for which we have no extra."""
DATABASE_CONNECT_SECONDS = 10
"""A host that swallows packets would otherwise hold a run for minutes."""
LOCKED_SECONDS = 30.0
RETRY_SECONDS = 0.05
LISTED = 20
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SILENCE = "check that it runs and that the URL is right"
_LOGIN = "correct user and password in {setting}, or set {variable} to the complete URL"
_TLS = (
    "name the file of its authority's certificate in {{setting}} ({}), or correct what that says"
    " of TLS"
)
_RIGHT = "give this user the right to that"
_CONNECTIONS = "allow more connections there, or close others"
_POOLER = (
    "set pool_mode of the pooler to transaction or session, or name the server itself in {setting}"
)
_DISK = "make room on the disk of the database"
_OTHER_SERVER = (
    "a foreign table needs a server that does not answer: start that one, or correct its definition"
)
_LOCKED = "another session holds a lock: wait for its end, or raise {} of this user"
_TIME = "raise {} of this user, unless a person ended the query"
_IDLE = "raise {} of this user"
_ENDED = "an administrator or a restart ended the connection: run again"
_AGAIN = "another transaction was in the way: run again"
_Meaning = tuple[bool, str]
POSTGRESQL: Mapping[str, _Meaning] = {
    "57014": (True, _TIME.format("statement_timeout")),
    "25P03": (True, _IDLE.format("idle_in_transaction_session_timeout")),
    "25P04": (True, _IDLE.format("transaction_timeout")),
    "57P05": (True, _IDLE.format("idle_session_timeout")),
    "55P03": (True, _LOCKED.format("lock_timeout")),
    "55006": (True, _AGAIN),
    "40P01": (True, _AGAIN),
    "40001": (
        True,
        "raise max_standby_streaming_delay of the standby, or read from the primary server",
    ),
    "57P01": (True, _ENDED),
    "57P02": (True, _ENDED),
    "57P03": (True, "wait until the database has started"),
    "57P04": (False, "the database was dropped: correct {setting}"),
    "53100": (True, _DISK),
    "53200": (True, "give the database more memory"),
    "53300": (True, _CONNECTIONS),
    "08001": (True, _OTHER_SERVER),
    "HV00N": (True, _OTHER_SERVER),
    "58P01": (
        False,
        "the database server lacks this file: put it there, or install the extension that it is of",
    ),
    "TLS": (False, _TLS.format("sslrootcert=FILE")),
    "42501": (False, _RIGHT),
    "28P01": (False, _LOGIN),
    "28000": (False, _LOGIN),
}
"""Whether another try may help, and the remedy, by SQLSTATE. For other states the database's own
hint is shown."""
TRANSIENT_CLASSES = frozenset({"08", "40", "53", "57", "58"})
REFUSALS: tuple[tuple[str, str], ...] = (
    ("too many (clients|connections)|connection slots", "53300"),
    ("starting up|shutting down|recovery mode|not (yet )?accepting connections", "57P03"),
    ("authentication failed|password supplied", "28P01"),
    ("permission denied|not permitted to log in", "42501"),
    ("certificate|not support SSL", "TLS"),
)
"""The code of a refused connection by its words."""
MYSQL: Mapping[int, _Meaning] = {
    1969: (True, _TIME.format("max_statement_time")),
    3024: (True, _TIME.format("max_execution_time")),
    1317: (True, "the query was ended by hand: run again"),
    1205: (True, _LOCKED.format("innodb_lock_wait_timeout")),
    1213: (True, _AGAIN),
    1412: (True, _AGAIN),
    1047: (True, "wait until this node of the cluster is ready"),
    1053: (True, _ENDED),
    1927: (True, _ENDED),
    4031: (True, _IDLE.format("wait_timeout")),
    1021: (True, _DISK),
    1114: (True, _DISK),
    3: (True, _DISK),
    28: (True, _DISK),
    1040: (True, _CONNECTIONS),
    1203: (True, _CONNECTIONS),
    1226: (True, _CONNECTIONS),
    1044: (False, _RIGHT),
    1045: (False, _LOGIN),
    1142: (False, _RIGHT),
    1143: (False, _RIGHT),
    1227: (False, _RIGHT),
    1158: (True, SILENCE),
    1159: (True, SILENCE),
    1160: (True, SILENCE),
    1161: (True, SILENCE),
    1296: (True, _OTHER_SERVER),
    1429: (True, _OTHER_SERVER),
    1430: (True, _OTHER_SERVER),
    2026: (False, _TLS.format("ssl_ca=FILE")),
}
"""The same by the error number of MySQL and MariaDB. Other errors of its client pass, and those of
the server stay."""
CLIENT_ERRORS = range(2000, 3000)
_WRITER = "another process writes it: wait for its end"
_RECOVER = (
    "a process that wrote it was killed: let a user who may write there open it once (`sqlite3 FILE"
    " .schema`)"
)
SQLITE: Mapping[int, _Meaning] = {
    sqlite3.SQLITE_BUSY: (True, _WRITER),
    sqlite3.SQLITE_LOCKED: (True, _WRITER),
    sqlite3.SQLITE_PROTOCOL: (True, _WRITER),
    sqlite3.SQLITE_INTERRUPT: (True, ""),
    sqlite3.SQLITE_IOERR: (True, "check the disk"),
    sqlite3.SQLITE_READONLY: (False, _RECOVER),
    sqlite3.SQLITE_CANTOPEN: (False, f"it may not be read, or has a -wal beside it and {_RECOVER}"),
    sqlite3.SQLITE_NOTADB: (False, "name another file, or a copy that is not encrypted"),
    sqlite3.SQLITE_CORRUPT: (False, "put back a backup, or run `sqlite3 FILE .recover`"),
}
"""The same by SQLite's primary result code."""
NOT_OURS = re.compile(r"(no such|unknown) (collation sequence|module|function)|no query solution")
"""SQLite's words, which have no code, for what an application adds to its own connections."""
_OWN = (
    "only the application's own connections have that: leave it out, or write a `query` that needs"
    " none of it"
)
_COLLATION = f"{_OWN}, as in SELECT name COLLATE BINARY AS name, … FROM the_table NOT INDEXED"
VALUE_CLASSES = frozenset({"22", "23", "38", "39", "HV", "P0"})
"""Classes of SQLSTATE whose messages quote values: data, constraints, functions, foreign data."""
ENCODING_STATES = frozenset({"22021", "22P05"})
"""Bytes or a character that an encoding does not have: the message names no more than these."""
RAISED_STATES, RAISED_NUMBERS = frozenset({"P0001", "45000"}), frozenset({1644, 1645})
"""The codes of RAISE and SIGNAL, whose words somebody has written."""
MYSQL_VALUES = frozenset(
    {
        1062,
        1105,
        1265,
        1292,
        1366,
        1367,
        1406,
        1411,
        1525,
        1582,
        1690,
        3140,
        3141,
        3143,
        3144,
        3146,
        3156,
    }
)
"""The error numbers of MySQL and MariaDB whose messages quote values, such as 1366, "Incorrect
integer value: 'x'"."""
SQLITE_VALUES = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})
TERMINAL_WORDS = ("access denied", "does not exist", "no pg_hba.conf entry", "unknown database")
"""Words in errors without a code for which another try gives the same answer."""


def database_url(text: str, folder: Path) -> URL:
    """Return the parsed URL, with a relative SQLite file placed in `folder` and with our driver if
    it names none. Its secrets are masked from now on. Raises ValueError if the text is not a
    database URL. The message does not repeat it, since it may hold a password."""
    keep_url(text)
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: the port is not a number
        raise ValueError(_why_no_url(text)) from None
    if is_file(url):
        return url.set(database=str(folder / Path(str(url.database)).expanduser()))
    driver, module, _ = DRIVERS.get(url.drivername, ("", "", ""))
    return url.set(drivername=driver) if module and find_spec(module) else url


def _why_no_url(text: str) -> str:
    authority = text.partition("://")[2].partition("/")[0].rpartition("@")[2]
    hosts = authority.split(",")
    if len(hosts) > 1 and all(map(_HOST.fullmatch, hosts)):
        options = "&".join(f"host={host}" for host in hosts)
        return (
            "names several hosts before the database; write them as"
            f" postgresql+psycopg://user@/name?{options}"
        )
    return (
        "is not a database URL; write it as sqlite:///file.db or"
        " postgresql+psycopg://user@host/name"
    )


def is_file(url: URL) -> bool:
    """Return whether the database is a file, that is, SQLite and not in memory."""
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def connect_options(url: URL) -> dict[str, Any]:
    """Return the options with which a server is connected to, except those that the URL has. A
    PostgreSQL database in SQL_ASCII would otherwise give bytes for texts, with which SQLAlchemy
    cannot even connect. Behind a pooler, such as PgBouncer, each transaction may run in another
    session, which has no statement that was prepared in an earlier one."""
    backend = url.get_backend_name()
    options: dict[str, Any] = (
        {"connect_timeout": DATABASE_CONNECT_SECONDS} if backend in DRIVERS else {}
    )
    if backend == "postgresql":
        options["client_encoding"] = "utf8"
    if url.drivername == "postgresql+psycopg":
        options["prepare_threshold"] = None
    return {name: value for name, value in options.items() if name not in url.query}


def redacted_url(url: URL) -> str:
    """Return the URL for a person, without its password and without its options, which may hold one
    too."""
    redacted = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return redacted.render_as_string(hide_password=False)


def missing_driver(url: URL, error: Exception) -> str:
    """Return the message for a database whose driver cannot be loaded."""
    from rag_index.errors import (
        install_command,
    )  # reads the installation, which no other command needs

    backend = url.drivername.split("+")[0]
    driver, _, extra = DRIVERS.get(backend, ("", "", ""))
    if extra:
        remedy = f"`{install_command(extra)}` installs {driver}"
    elif package := PACKAGES.get(backend):
        named = ", and the URL begins with oracle+oracledb" if url.drivername == "oracle" else ""
        remedy = f"`pip install '{package}'` installs one{named}"
    else:
        near = did_you_mean(backend, [*DRIVERS, *PACKAGES, "sqlite"])
        remedy = near or "install the SQLAlchemy dialect that the URL names"
    return f"no driver for {url.drivername!r} is installed ({error}); {remedy}"


def first_line(error: Exception, url: URL) -> str:
    """Return the first line of the driver's message, without the secrets of the URL, which it may
    repeat, and without the values of a row."""
    origin = getattr(error, "orig", None) or error
    words = str(origin)
    code = _code(origin)
    # a function or a trigger raised it, in words of its own: they may be the text of a row
    if code in RAISED_STATES or code in RAISED_NUMBERS:
        words = f"a function of the database raised an error ({code})"
    elif _is_about_value(error, origin, code):
        # PyMySQL's error is a pair of number and message, which would stand in quotes as a whole
        is_pair = isinstance(code, int) and len(origin.args) > 1
        words = (
            f"{without_values(str(origin.args[1]))} ({code})" if is_pair else without_values(words)
        )
    lines = words.strip().splitlines()
    keep_url(url.render_as_string(hide_password=False))
    return redacted(lines[0].strip() if lines else type(origin).__name__)


def _is_about_value(error: Exception, origin: Any, code: str | int | None) -> bool:
    """Return whether the database may quote the value of a row. Other errors quote names and
    settings alone."""
    if isinstance(origin, sqlite3.Error):
        return code in SQLITE_VALUES or "Could not decode" in str(origin)
    # PyMySQL has no class for most of these: 1292, "Truncated incorrect DOUBLE value: 'measles'"
    if isinstance(code, int) and code in MYSQL_VALUES:
        return True
    if isinstance(code, str):
        return code[:2] in VALUE_CLASSES and code not in ENCODING_STATES
    # Oracle, DuckDB, ClickHouse, …: any error that is not of a name or a connection
    about_names = isinstance(
        error, exc.ProgrammingError | exc.OperationalError | exc.InterfaceError
    )
    return isinstance(error, exc.DBAPIError) and not about_names


def hide_values(engine: sa.Engine) -> None:
    """Keep the rows that an engine reads out of SQLAlchemy's log, whoever sets its level to DEBUG.
    Its messages have no parameters either (`hide_parameters`)."""
    logging.getLogger("sqlalchemy.engine.Engine").addFilter(
        _is_no_row
    )  # the same function is added once
    engine.hide_parameters = True


def _is_no_row(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Row ")


def did_you_mean(name: str, known: Iterable[str], *, all_of_them: bool = False) -> str:
    """Return a question with the known names that are like a wrong one; without any, the first
    names if asked for."""
    names = {one.lower(): one for one in known}
    if near := get_close_matches(name.lower(), names, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(names[one] for one in near)}?"
    listed = ", ".join(list(names.values())[:LISTED]) + ", …" * (len(names) > LISTED)
    return f"there are {listed}" if all_of_them and names else ""


def set_pragmas(connection: Any, pragmas: Sequence[str]) -> None:
    """Set `busy_timeout` and then each pragma on a connection of the driver. Two processes that
    switch a new file to `journal_mode=WAL` at once exclude each other, and SQLite does not wait
    there, whatever `busy_timeout` says (its documentation of sqlite3_busy_handler). So this retries
    for half a minute. Raises sqlite3.OperationalError if SQLite refuses a pragma, or the file is
    still locked after that time."""
    deadline = time.monotonic() + LOCKED_SECONDS
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={LOCKED_SECONDS * 1000:.0f}", *pragmas):
        while True:
            try:
                cursor.execute(f"PRAGMA {pragma}")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
    cursor.close()


def insert_for(dialect: sa.Dialect) -> Callable[[sa.Table], Any]:
    """Return the `insert` of PostgreSQL or SQLite; its statements have `on_conflict_do_update` and
    `…_nothing`."""
    if dialect.name == "postgresql":  # importing a dialect takes 20 ms
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Handle a SIGINT or SIGTERM that arrives inside the block at its end. Use it for work of
    milliseconds. Only the main thread is ever interrupted; in other threads this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}
    try:
        for number in SIGNALS:
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, lambda *one: received.append(one))
        yield
    finally:
        for replaced, handler in reversed(
            before.items()
        ):  # SIGINT, whose handler raises, comes last
            signal.signal(replaced, handler)
        for received_number, frame in received:
            before[received_number](received_number, frame)


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error of a database means."""

    transient: bool
    """Whether another try may help."""
    answered: bool
    """Whether the database told what is wrong."""
    lost: bool
    """Whether there is no connection any more."""
    said: str
    """The first line of the driver's message, without secrets, and what to do if that is known."""
    code: str | int | None = None
    """SQLSTATE, the error number of MySQL, or SQLite's primary result code."""


def failure_of(error: exc.SQLAlchemyError, url: URL, setting: str) -> Failure:
    """Return what an error of a database means, without the secrets of `url`; `setting` is the one
    that holds it."""
    origin: Any = getattr(error, "orig", None) or error
    lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    passing = lost or isinstance(
        error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError
    )
    code = _code(origin)
    transient, remedy = _meaning(origin, code) or (passing, SILENCE if passing else "")
    hint = getattr(getattr(origin, "diag", None), "message_hint", None) or ""
    if code in RAISED_STATES or _is_about_value(error, origin, code):
        hint = ""
    variable = f"RAG_INDEX_{setting.strip('[').replace('] ', '__').upper()}"
    told = remedy.format(setting=setting, variable=variable) or hint.strip().rstrip(".")
    said = "; ".join(filter(None, [first_line(error, url), told]))
    return Failure(
        transient or (lost and remedy != _POOLER),
        remedy != SILENCE,
        lost or remedy == SILENCE,
        said,
        code,
    )


def _code(origin: Any) -> str | int | None:
    """Return the code of a driver's error. psycopg has none before there is a connection, so its
    words give it."""
    if isinstance(origin, sqlite3.Error):
        return (getattr(origin, "sqlite_errorcode", None) or 0) & 0xFF
    if isinstance(
        origin.__context__, ssl.SSLError
    ):  # to which PyMySQL gives the number of a server that is away
        return 2026
    if origin.args and isinstance(
        origin.args[0], int
    ):  # PyMySQL has an SQLSTATE, too, which says less
        return int(origin.args[0])
    if state := getattr(origin, "sqlstate", None):
        return str(state)
    return next((code for words, code in REFUSALS if re.search(words, str(origin), re.I)), None)


def _meaning(origin: Any, code: str | int | None) -> _Meaning | None:
    if isinstance(origin, sqlite3.Error):
        if NOT_OURS.search(str(origin)):
            return False, _COLLATION if "collation" in str(origin) else _OWN
        return SQLITE.get(int(code or 0), (False, ""))
    if isinstance(code, int):
        return MYSQL.get(code, (True, SILENCE) if code in CLIENT_ERRORS else (False, ""))
    if "statement pooling" in str(origin):  # PgBouncer gives it the code of many faults that pass
        return False, _POOLER
    if code is not None:
        return POSTGRESQL.get(code, (code[:2] in TRANSIENT_CLASSES, ""))
    terminal = any(word in str(origin).lower() for word in TERMINAL_WORDS)
    return (not terminal, "") if terminal or "FATAL:" in str(origin) else None
