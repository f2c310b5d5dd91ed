"""Databases by their drivers: URLs and redaction, which errors are transient, pragmas and upserts, deferred signals."""

from __future__ import annotations

import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    import sqlalchemy as sa

DRIVERS: Mapping[str, tuple[str, str, str]] = {
    "postgresql": ("postgresql+psycopg", "psycopg", "postgresql"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "pymysql", "mariadb"),
    "mariadb": ("mariadb+pymysql", "pymysql", "mariadb"),
}
"""The scheme with our driver, the driver's module and our extra for it, by the scheme of a URL without a driver."""
PACKAGES: Mapping[str, str] = {
    "bigquery": "sqlalchemy-bigquery", "clickhouse": "clickhouse-sqlalchemy", "cockroachdb": "sqlalchemy-cockroachdb",
    "db2": "ibm_db_sa", "duckdb": "duckdb-engine", "firebird": "sqlalchemy-firebird", "hana": "sqlalchemy-hana",
    "mssql": "pyodbc", "oracle": "oracledb", "redshift": "sqlalchemy-redshift", "snowflake": "snowflake-sqlalchemy",
    "teradatasql": "teradatasqlalchemy", "trino": "trino[sqlalchemy]",
}  # fmt: skip
"""The package with the driver of a database for which we have no extra."""
MIN_SECRET = 4
"""Shorter secrets are masked only where a URL has them: they stand in any message by chance."""
DATABASE_CONNECT_SECONDS = 10
"""A host that swallows packets would otherwise hold a run for minutes."""
LOCKED_SECONDS = 30.0
RETRY_SECONDS = 0.05
LISTED = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def database_url(text: str, folder: Path) -> URL:
    """Return the parsed URL, with a relative SQLite file placed in `folder` and with our driver if it names none.
    Raises ValueError if the text is not a database URL. The message does not repeat it, since it may hold a
    password."""
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: the port is not a number
        raise ValueError(
            "is not a database URL; write it as sqlite:///file.db or postgresql+psycopg://user@host/name"
        ) from None
    if is_file(url):
        return url.set(database=str(folder / Path(str(url.database)).expanduser()))
    driver, module, _ = DRIVERS.get(url.drivername, ("", "", ""))
    return url.set(drivername=driver) if module and find_spec(module) else url


def is_file(url: URL) -> bool:
    """Return whether the database is a file, that is, SQLite and not in memory."""
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def connect_options(url: URL) -> dict[str, Any]:
    """Return the options with which a server is connected to, except those that the URL has. A PostgreSQL database in
    SQL_ASCII would otherwise give bytes for texts, with which SQLAlchemy cannot even connect. Behind a pooler, such as
    PgBouncer, each transaction may run in another session, which has no statement that was prepared in an earlier
    one."""
    backend = url.get_backend_name()
    options: dict[str, Any] = {"connect_timeout": DATABASE_CONNECT_SECONDS} if backend in DRIVERS else {}
    if backend == "postgresql":
        options["client_encoding"] = "utf8"
    if url.drivername == "postgresql+psycopg":
        options["prepare_threshold"] = None
    return {name: value for name, value in options.items() if name not in url.query}


def redacted_url(url: URL) -> str:
    """Return the URL for a person, without its password and without its options, which may hold one too."""
    redacted = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return redacted.render_as_string(hide_password=False)


def is_secret(option: str) -> bool:
    """Return whether the name of a URL's option says that its value is secret."""
    return any(word in option.lower() for word in ("pass", "secret", "token", "key"))


def missing_driver(url: URL, error: Exception) -> str:
    """Return the message for a database whose driver cannot be loaded."""
    from rag_index.core.extras import install_command  # reads the installation, which no other command needs

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
    """Return the first line of the driver's message, without the secrets of the URL, which it may repeat."""
    origin = getattr(error, "orig", None) or error
    lines = str(origin).strip().splitlines()
    message = lines[0].strip() if lines else type(origin).__name__
    secrets = [str(value) for key, value in url.query.items() if is_secret(key)]
    for secret in filter(None, [url.password and str(url.password), *secrets]):
        for form in (secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret)):
            message = re.sub(rf"([:=]){re.escape(form)}(?=[@&\s'\"]|$)", r"\1***", message)
            message = message.replace(form, "***") if len(form) >= MIN_SECRET else message
    return message


def did_you_mean(name: str, known: Iterable[str], *, all_of_them: bool = False) -> str:
    """Return a question with the known names that are like a wrong one; without any, the first names if asked for."""
    names = {one.lower(): one for one in known}
    if near := get_close_matches(name.lower(), names, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(names[one] for one in near)}?"
    listed = ", ".join(list(names.values())[:LISTED]) + ", …" * (len(names) > LISTED)
    return f"there are {listed}" if all_of_them and names else ""


def set_pragmas(connection: Any, pragmas: Sequence[str]) -> None:
    """Set `busy_timeout` and then each pragma on a connection of the driver. Two processes that switch a new file to
    `journal_mode=WAL` at once exclude each other, and SQLite does not wait there, whatever `busy_timeout` says (its
    documentation of sqlite3_busy_handler). So this retries for half a minute. Raises sqlite3.OperationalError if SQLite
    refuses a pragma, or the file is still locked after that time."""
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
    """Return the `insert` of PostgreSQL or SQLite; its statements have `on_conflict_do_update` and `…_nothing`."""
    if dialect.name == "postgresql":  # importing a dialect takes 20 ms
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Handle a SIGINT or SIGTERM that arrives inside the block at its end. Use it for work of milliseconds. Only the
    main thread is ever interrupted; in other threads this does nothing."""
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
        for replaced, handler in reversed(before.items()):  # SIGINT, whose handler raises, comes last
            signal.signal(replaced, handler)
        for received_number, frame in received:
            before[received_number](received_number, frame)
