"""Databases by their drivers: URLs and redaction, pragmas and upserts, deferred signals, and the
meaning of an error's code: whether a retry may help, and the remedy."""

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
"""Seconds for a connection. Without a limit, a host that drops packets holds a run for minutes.
Chosen."""
LOCKED_SECONDS = 30.0
"""Seconds for which a locked SQLite file is retried. Chosen."""
RETRY_SECONDS = 0.05
"""Seconds between two such tries. Chosen; nothing depends on it."""
LISTED = 20
"""Names that a message lists at most. Chosen; nothing depends on it."""
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
"""Classes of SQLSTATE that a retry may help, unless `POSTGRESQL` names the code."""
REFUSALS: tuple[tuple[str, str], ...] = (
    ("too many (clients|connections)|connection slots", "53300"),
    ("starting up|shutting down|recovery mode|not (yet )?accepting connections", "57P03"),
    ("authentication failed|password supplied", "28P01"),
    ("permission denied|not permitted to log in", "42501"),
    ("certificate|not support SSL", "TLS"),
)
"""The code of a refused connection, by words of its message: before a connection psycopg has no
code."""
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
"""The same by the error number of MySQL and MariaDB. Of other numbers, those of the client are
transient, those of the server terminal."""
CLIENT_ERRORS = range(2000, 3000)
"""The error numbers of MySQL's client library."""
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
"""Classes of SQLSTATE whose messages quote values: data, constraints, functions, foreign data,
PL/pgSQL."""
ENCODING_STATES = frozenset({"22021", "22P05"})
"""A byte or character that an encoding does not have: the message names nothing else."""
RAISED_STATES, RAISED_NUMBERS = frozenset({"P0001", "45000"}), frozenset({1644, 1645})
"""The codes of RAISE and SIGNAL, whose message a person has written."""
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
"""SQLite's result codes whose messages may quote values."""
TERMINAL_WORDS = ("access denied", "does not exist", "no pg_hba.conf entry", "unknown database")
"""Words of errors without a code that a retry does not help."""


def database_url(text: str, folder: Path) -> URL:
    """Return the parsed URL, with a relative SQLite file placed in `folder`, and with our driver if
    it names none. Registers its secrets for redaction. Raises ValueError if the text is not a
    database URL; the message does not repeat it, since it may hold a password."""
    keep_url(text)
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: the port is not a number
        raise ValueError(_why_no_url(text)) from None
    if is_file(url):
        return url.set(database=str(folder / Path(str(url.database)).expanduser()))
    driver, module, _ = DRIVERS.get(url.drivername, ("", "", ""))
    # postgresql://… becomes postgresql+psycopg://… if psycopg is installed.
    return url.set(drivername=driver) if module and find_spec(module) else url


def _why_no_url(text: str) -> str:
    _, _, rest = text.partition("://")
    authority, _, _ = rest.partition("/")
    _, _, location = authority.rpartition("@")
    hosts = location.split(",")
    # postgresql://user@db1:5432,db2:5432/name, which libpq reads and SQLAlchemy does not
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
    """Return the options for connections to a server, except those that the URL has."""
    backend = url.get_backend_name()
    options: dict[str, Any] = {}
    if backend in DRIVERS:
        options["connect_timeout"] = DATABASE_CONNECT_SECONDS
    # A database in SQL_ASCII would otherwise return bytes for texts: SQLAlchemy cannot connect.
    if backend == "postgresql":
        options["client_encoding"] = "utf8"
    # Behind a pooler, such as PgBouncer, each transaction may run in another session, which lacks
    # the statements that an earlier one has prepared.
    if url.drivername == "postgresql+psycopg":
        options["prepare_threshold"] = None
    return {name: value for name, value in options.items() if name not in url.query}


def redacted_url(url: URL) -> str:
    """Return the URL without its password and without its options, which may hold one too."""
    shown = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return shown.render_as_string(hide_password=False)


def missing_driver(url: URL, error: Exception) -> str:
    """Return the message for a database whose driver cannot be loaded."""
    # Imported late: it reads the installation, which no other command needs.
    from rag_index.errors import install_command

    backend = url.drivername.split("+")[0]
    driver, _, extra = DRIVERS.get(backend, ("", "", ""))
    package = PACKAGES.get(backend)
    if extra:
        remedy = f"`{install_command(extra)}` installs {driver}"
    elif package:
        named = ", and the URL begins with oracle+oracledb" if url.drivername == "oracle" else ""
        remedy = f"`pip install '{package}'` installs one{named}"
    else:
        near = did_you_mean(backend, [*DRIVERS, *PACKAGES, "sqlite"])
        remedy = near or "install the SQLAlchemy dialect that the URL names"
    return f"no driver for {url.drivername!r} is installed ({error}); {remedy}"


def first_line(error: Exception, url: URL) -> str:
    """Return the first line of the driver's message, without values of rows and without the secrets
    of the URL, which it may repeat."""
    origin = getattr(error, "orig", None) or error
    message = str(origin)
    code = _code(origin)
    # A function or a trigger raised it. Its text may quote a row.
    if code in RAISED_STATES or code in RAISED_NUMBERS:
        message = f"a function of the database raised an error ({code})"
    elif _is_about_value(error, origin, code):
        # PyMySQL's error is a pair of number and message, whose repr is one long quotation.
        if isinstance(code, int) and len(origin.args) > 1:
            message = f"{without_values(str(origin.args[1]))} ({code})"
        else:
            message = without_values(message)
    lines = message.strip().splitlines()
    keep_url(url.render_as_string(hide_password=False))
    return redacted(lines[0].strip() if lines else type(origin).__name__)


def _is_about_value(error: Exception, origin: Any, code: str | int | None) -> bool:
    """Return whether the message may quote the value of a row. Other messages quote only names and
    settings."""
    if isinstance(origin, sqlite3.Error):
        return code in SQLITE_VALUES or "Could not decode" in str(origin)
    # PyMySQL has no class for most of these: 1292, "Truncated incorrect DOUBLE value: 'measles'"
    if isinstance(code, int) and code in MYSQL_VALUES:
        return True
    # PostgreSQL: 22P02, "invalid input syntax for type integer: "measles""
    if isinstance(code, str):
        return code[:2] in VALUE_CLASSES and code not in ENCODING_STATES
    # Oracle, DuckDB, ClickHouse, …: any error that is not about a name or a connection
    about_names = isinstance(
        error, exc.ProgrammingError | exc.OperationalError | exc.InterfaceError
    )
    return isinstance(error, exc.DBAPIError) and not about_names


def hide_values(engine: sa.Engine) -> None:
    """Keep rows and parameters out of SQLAlchemy's log and messages, even at level DEBUG."""
    # Adding the same function again has no effect.
    logging.getLogger("sqlalchemy.engine.Engine").addFilter(_is_no_row)
    engine.hide_parameters = True


def _is_no_row(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Row ")


def did_you_mean(name: str, known: Iterable[str], *, all_of_them: bool = False) -> str:
    """Return a question with the known names most similar to a wrong one. If none is similar,
    return the first known names if `all_of_them`, else ""."""
    names = {known_name.lower(): known_name for known_name in known}
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    # "did you mean orders or orderlines?"
    if near:
        return f"did you mean {' or '.join(names[lower] for lower in near)}?"
    if not all_of_them or not names:
        return ""
    first = list(names.values())[:LISTED]
    more = ", …" if len(names) > LISTED else ""
    return f"there are {', '.join(first)}{more}"


def set_pragmas(connection: Any, pragmas: Sequence[str]) -> None:
    """Set `busy_timeout` and then each pragma on a connection of the driver. Raises
    sqlite3.OperationalError if SQLite refuses a pragma, or if the file is still locked after half a
    minute."""
    deadline = time.monotonic() + LOCKED_SECONDS
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={LOCKED_SECONDS * 1000:.0f}", *pragmas):
        # Two processes that switch a new file to `journal_mode=WAL` exclude each other. SQLite
        # does not wait there in spite of `busy_timeout` (sqlite3_busy_handler documents it).
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
    `on_conflict_do_nothing`."""
    if dialect.name == "postgresql":  # importing a dialect takes 20 ms
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer a SIGINT or SIGTERM that arrives inside the block to its end. Use it for work of
    milliseconds. Outside the main thread, which alone is ever interrupted, this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}

    def record(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    try:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, record)
        yield
    finally:
        # The handler of SIGINT, which raises, is restored last.
        for replaced, handler in reversed(before.items()):
            signal.signal(replaced, handler)
        for received_number, frame in received:
            before[received_number](received_number, frame)


@dataclass(frozen=True, slots=True)
class DatabaseFailure:
    """The meaning of a database's error."""

    transient: bool
    """Whether a retry may help."""
    answered: bool
    """Whether the database reported what is wrong."""
    lost: bool
    """Whether the connection is lost."""
    message: str
    """The first line of the driver's message, without secrets, and the remedy if one is known."""
    code: str | int | None = None
    """SQLSTATE, the error number of MySQL, or SQLite's primary result code."""


def failure_of(error: exc.SQLAlchemyError, url: URL, setting: str) -> DatabaseFailure:
    """Return the meaning of a database's error, without the secrets of `url`. `setting` is the one
    that holds the URL, such as "[source] url"."""
    origin: Any = getattr(error, "orig", None) or error
    lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    code = _code(origin)
    meaning = _meaning(origin, code)
    if meaning is not None:
        transient, remedy = meaning
    # Without a code, the class decides. A connection that fails without one is taken for silence.
    elif lost or isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        transient, remedy = True, SILENCE
    else:
        transient, remedy = False, ""
    variable = f"RAG_INDEX_{setting.strip('[').replace('] ', '__').upper()}"
    advice = remedy.format(setting=setting, variable=variable)
    if not advice and code not in RAISED_STATES and not _is_about_value(error, origin, code):
        advice = _hint(origin)
    message = "; ".join(filter(None, [first_line(error, url), advice]))
    return DatabaseFailure(
        # A new connection may help after a lost one, but a pooler's mode stays.
        transient=transient or (lost and remedy != _POOLER),
        answered=remedy != SILENCE,
        lost=lost or remedy == SILENCE,
        message=message,
        code=code,
    )


def _hint(origin: Any) -> str:
    """Return PostgreSQL's hint on an error, such as "Perhaps you meant to reference …"."""
    hint = getattr(getattr(origin, "diag", None), "message_hint", None) or ""
    return str(hint).strip().rstrip(".")


def _code(origin: Any) -> str | int | None:
    """Return the code of a driver's error; None if neither the error nor its words give one."""
    if isinstance(origin, sqlite3.Error):
        # The primary result code is the lowest byte: 5 of SQLITE_BUSY_SNAPSHOT (517).
        return (getattr(origin, "sqlite_errorcode", None) or 0) & 0xFF
    # PyMySQL gives a failed TLS handshake the number of an unavailable server.
    if isinstance(origin.__context__, ssl.SSLError):
        return 2026
    # PyMySQL also has an SQLSTATE, which is less precise than its number.
    if origin.args and isinstance(origin.args[0], int):
        return int(origin.args[0])
    state = getattr(origin, "sqlstate", None)
    if state:
        return str(state)
    # psycopg before there is a connection
    for words, code in REFUSALS:
        if re.search(words, str(origin), re.I):
            return code
    return None


def _meaning(origin: Any, code: str | int | None) -> _Meaning | None:
    """Return whether a retry may help, and the remedy; None if only the error's class can tell."""
    message = str(origin)
    if isinstance(origin, sqlite3.Error):
        # Such as "no such collation sequence: UNICODE".
        if NOT_OURS.search(message):
            return False, _COLLATION if "collation" in message else _OWN
        return SQLITE.get(int(code or 0), (False, ""))
    if isinstance(code, int):
        # 2013, "Lost connection", is an error of the client; 1146, "no such table", of the server.
        unknown = (True, SILENCE) if code in CLIENT_ERRORS else (False, "")
        return MYSQL.get(code, unknown)
    # PgBouncer's code for it is that of many transient faults.
    if "statement pooling" in message:
        return False, _POOLER
    if code is not None:
        return POSTGRESQL.get(code, (code[:2] in TRANSIENT_CLASSES, ""))
    if any(word in message.lower() for word in TERMINAL_WORDS):
        return False, ""
    # PostgreSQL answered before there was a connection, with a message that `REFUSALS` lacks.
    return (True, "") if "FATAL:" in message else None
