"""A Prefect API for tests and benchmarks."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path

from rag_index.orchestration.launch import own_server

EMPTY = Path(__file__).parent.parent / ".pytest_cache" / f"prefect-{version('prefect')}.db"
"""The database of a new server, kept for later ones. Making its tables, by all of Prefect's
migrations, takes a server 5 s of processor time."""


@contextmanager
def temporary_server(home: Path | None = None) -> Iterator[dict[str, str]]:
    """Give the variables that lead to a Prefect API on a free loopback port, for the time of the
    block.

    Its database is in `home`, by default in a folder that is removed at the end.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]  # they lead to another server
        os.environ["PREFECT_HOME"] = str(home or folder)
        database = Path(home or folder) / "prefect.db"
        is_new = not database.exists()
        copy_tables(database)
        try:
            url, password = stack.enter_context(own_server())
        finally:
            os.environ.clear()
            os.environ.update(before)
        if is_new and not EMPTY.exists():
            _keep_empty(database)
        yield {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password, "PREFECT_UI_URL": ""}


def copy_tables(database: Path) -> None:
    """Give a server that has no database yet the kept one, if there is one."""
    if EMPTY.exists() and not database.exists():
        shutil.copy(EMPTY, database)


def _keep_empty(database: Path) -> None:
    """Copy the database of a server that has started and has no runs yet. Other processes may do
    the same."""
    EMPTY.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=EMPTY.parent) as folder:
        copy = Path(folder) / EMPTY.name
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            connection.execute("VACUUM INTO ?", [str(copy)])
        copy.replace(EMPTY)
