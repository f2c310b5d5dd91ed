"""Databases and stores for a trial, each a real server or a file."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.fakes.qdrant import FakeQdrant
from tests.live.mariadb import MariadbServer, find_mariadb
from tests.live.postgres import PostgresServer, find_postgres
from tests.reliability.chaos.desk import Desk, sqlite_url

WAYS = ("postgresql-wal", "postgresql-queue", "sqlite-queue", "mariadb-queue", "postgresql-wal-server")
"""Database, how its changes are known, and whether the store is a server of its own."""


class Missing(Exception):
    """A program that is not installed here."""


def open_desk(
    stack: ExitStack, folder: Path, way: str, *, tickets: int, services: str = "", batch: int = 200
) -> tuple[Desk, dict[str, Any]]:
    """Return a desk, and what of it a trial may kill."""
    database, changes, *store = way.split("-")
    what: dict[str, Any] = {}
    if store:
        what["qdrant"] = stack.enter_context(FakeQdrant())
        services += f'[store]\nurl = "{what["qdrant"].url}"'
    if database == "sqlite":
        url = sqlite_url(folder)
    elif database == "postgresql":
        programs = find_postgres()
        if isinstance(programs, str):
            raise Missing(programs)
        logical = ("wal_level=logical", "max_slot_wal_keep_size=1GB")
        what["server"] = stack.enter_context(PostgresServer(programs, *logical))
        url = what["server"].url(stack.enter_context(what["server"].database()))
    else:
        found = find_mariadb()
        if isinstance(found, str):
            raise Missing(found)
        url = stack.enter_context(MariadbServer(*found)).url  # it loses commits when it is killed: that is not tried
    return Desk(folder, url, changes, services=services, tickets=tickets, batch=batch), what
