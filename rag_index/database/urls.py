"""Databases by their URL: files and drivers, what can be shown of them, and which of their errors may pass."""

from __future__ import annotations

import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "database_url",
    "first_line",
    "is_file",
    "is_secret",
    "is_transient",
    "missing_driver",
    "redacted_url",
]

DRIVERS: Mapping[str, tuple[str, str, str]] = {
    "postgresql": ("postgresql+psycopg", "psycopg", "postgresql"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "pymysql", "mariadb"),
    "mariadb": ("mariadb+pymysql", "pymysql", "mariadb"),
}
"""For a URL that names no driver: the one that our extras bring, its module, and the extra."""
PASSING_STATES = frozenset({"08", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE that may pass: connection, rollback, resources, locks, shutdown and timeouts, the system."""
LASTING_WORDS = (
    "authentication failed", "access denied", "does not exist", "no pg_hba.conf entry", "unknown database",
    "password supplied", "certificate verify",
)  # fmt: skip
"""What drivers say without a state where asking again gives the same answer."""


def database_url(text: str, folder: Path) -> URL:
    """The URL of these settings: a relative SQLite file is one of `folder`; where no driver is named, ours.

    Raises:
        ValueError: it is no database URL; the text is not repeated, since it may hold a password.
    """
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        raise ValueError(
            "is not a database URL; write it as sqlite:///file.db or postgresql+psycopg://user@host/name"
        ) from None
    if is_file(url):
        return url.set(database=str(folder / Path(str(url.database)).expanduser()))
    driver, module, _ = DRIVERS.get(url.drivername, ("", "", ""))
    return url.set(drivername=driver) if module and find_spec(module) else url


def is_file(url: URL) -> bool:
    """Whether the database is a file: SQLite, and not in memory."""
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def redacted_url(url: URL) -> str:
    """The URL for a person: without password and without options, which may hold one too."""
    shown = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return shown.render_as_string(hide_password=False)


def _without_secrets(said: str, url: URL) -> str:
    """What a driver said, should it have repeated a password."""
    secrets = [str(url.password)] if url.password else []
    secrets += [str(value) for key, value in url.query.items() if is_secret(key)]
    for secret in secrets:
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            said = said.replace(form, "***") if form else said
    return said


def is_secret(option: str) -> bool:
    """Whether an option of a URL is one to hide, as its name says."""
    return any(word in option.lower() for word in ("pass", "secret", "token", "key"))


def missing_driver(url: URL, error: Exception) -> str:
    """What to say where no driver for this database can be loaded."""
    backend = url.drivername.split("+")[0]
    driver, _, extra = DRIVERS.get(backend, ("", "", ""))
    remedy = f"pip install 'rag-index[{extra}]' brings {driver}" if extra else "install the one that the URL names"
    return f"no driver for {url.drivername!r} is installed ({error}); {remedy}"


def is_transient(error: exc.SQLAlchemyError) -> bool:
    """Whether asking again may help."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        return False
    origin = getattr(error, "orig", None) or error
    text = str(origin).lower()
    if isinstance(origin, sqlite3.Error):
        return any(word in text for word in ("locked", "busy", "disk i/o"))
    if state := getattr(origin, "sqlstate", None):
        return str(state)[:2] in PASSING_STATES
    return not any(word in text for word in LASTING_WORDS)


def first_line(error: Exception, url: URL) -> str:
    """The first line of what a driver says, without a password."""
    origin = getattr(error, "orig", None) or error
    lines = str(origin).strip().splitlines()
    return _without_secrets(lines[0].strip() if lines else type(origin).__name__, url)
