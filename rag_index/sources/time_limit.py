"""The time limit of a query: the database is told where it has one, and a connection that is silent is broken off.

The database's own limit frees what the query holds there. It does not help if the server hangs or the network swallows
packets, so a thread of ours breaks off the connection a little later: SQLite interrupts its query, and other drivers
notice that their socket was shut down.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from rag_index.errors import SourceTimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

GRACE_SECONDS = 5.0
"""How much later than the database the connection is broken off."""
TIMED_OUT_STATES = {"57014"}
"""SQLSTATE of PostgreSQL for a query that was cancelled, for example by its statement_timeout."""
TIMED_OUT_CODES = {1969, 3024}
"""Error numbers of MariaDB (max_statement_time) and MySQL (max_execution_time)."""


def limit_on_server(connection: Connection, seconds: float, *, streams: bool) -> None:
    """Have the server end statements that take longer, unless the person who runs it has set a limit.

    In MySQL and MariaDB the time in which a result is fetched counts, so a stream has no limit there.
    """
    dialect = connection.dialect
    if dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SELECT set_config('statement_timeout', '{seconds * 1000:.0f}', true) "
            "WHERE current_setting('statement_timeout') = '0'"
        )
    elif dialect.name in ("mysql", "mariadb") and not streams:
        mariadb = getattr(dialect, "is_mariadb", False)
        value = f"max_statement_time = {seconds:g}" if mariadb else f"max_execution_time = {seconds * 1000:.0f}"
        connection.exec_driver_sql(f"SET SESSION {value}")


@contextmanager
def limited(connection: Connection, seconds: float, what: str) -> Iterator[None]:
    """Break off the connection if the block takes longer. `what` names the source in the message.

    Raises:
        SourceTimedOut: the database ended the query for its time, or the connection was broken off.
    """
    driver: Any = connection.connection.driver_connection
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _break_off(driver)

    grace = 0.0 if isinstance(driver, sqlite3.Connection) else GRACE_SECONDS
    timer = threading.Timer(seconds + grace, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except exc.SQLAlchemyError as error:
        if expired.is_set() or _ended_for_time(error):
            raise SourceTimedOut(
                f"{what} did not answer a query within {seconds:g} s: check what the database is doing, or raise "
                "[source] timeout if the query takes longer"
            ) from error
        raise
    finally:
        timer.cancel()


def _break_off(driver: Any) -> None:
    """Make whatever waits for this connection, in another thread, fail now."""
    if isinstance(driver, sqlite3.Connection):
        driver.interrupt()
        return
    with suppress(Exception):  # the connection may have been closed by now; a driver of another kind has no socket
        open_socket = getattr(driver, "_sock", None)
        if isinstance(open_socket, socket.socket):
            open_socket.shutdown(socket.SHUT_RDWR)
        else:
            with socket.socket(fileno=os.dup(driver.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def _ended_for_time(error: exc.SQLAlchemyError) -> bool:
    """Return whether the database ended the query for its time."""
    origin = getattr(error, "orig", None)
    code = origin.args[0] if origin is not None and origin.args else None
    return getattr(origin, "sqlstate", None) in TIMED_OUT_STATES or code in TIMED_OUT_CODES
