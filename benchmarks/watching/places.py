"""How `benchmarks/watch.py` starts a watch: as a command, or as the deployment of a Prefect server with a worker."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from tests.deployments.server import PrefectServer
from tests.project import PROGRAM
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.reliability.chaos.desk import Desk

__all__ = ["Command", "Deployed"]


class Command:
    """`rag-index watch` without Prefect."""

    def __init__(self, desk: Desk) -> None:
        self.log = desk.folder / "watch.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*PROGRAM, "--config", str(desk.config), "watch"], stdout=log, stderr=log)
        self.process = psutil.Process(self._process.pid)

    def rows(self) -> dict[str, int]:
        """Return how many rows each table of Prefect's database has."""
        return {}

    def end(self) -> None:
        """End the watch after its batch."""
        self._process.terminate()
        self._process.wait(timeout=60)


class Deployed:
    """The deployment `watch` as docs/operations.md says: a server with SQLite, a worker, and the run of the watch."""

    def __init__(self, desk: Desk) -> None:
        folder = desk.folder / "prefect"
        self._stack = ExitStack()
        self.log = folder / "worker" / "worker.log"
        with ExitStack() as stack:
            self._server = stack.enter_context(PrefectServer(folder))
            self._server.deploy()
            stack.enter_context(self._server.worker(folder / "worker", RAG_INDEX_CONFIG=str(desk.config)))
            self._run = self._server.start("watch/watch")["id"]
            self._server.wait_for_start(self._run)
            pid = eventually(lambda: self._server.run(self._run)["infrastructure_pid"], "the worker says which process")
            self.process = psutil.Process(int(str(pid).rpartition(":")[2]))
            self._stack = stack.pop_all()
        self._database = folder / "prefect.db"

    def rows(self) -> dict[str, int]:
        """Return how many rows each table of Prefect's database has."""
        with _opened(self._database) as database:
            tables = [name for [name] in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}

    def end(self) -> None:
        """Cancel the run, and end worker and server."""
        self._server.post(f"/flow_runs/{self._run}/set_state", state={"type": "CANCELLING"})
        self._server.wait_for_end(self._run)
        self._stack.close()


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as database:
        yield database
