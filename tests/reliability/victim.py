"""A run as a process of its own: watched through its ledger, killed in several ways, and looked for after."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tests.dask_workers import command, fork_servers, workers_among
from tests.project import PROGRAM, Project

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Row", "Victim", "assert_as_clean", "beside", "dead_pid", "ledger_rows", "marks"]

MARK = "KILL_TRIAL"
"""A variable of the environment by which all processes of a run are found, whoever their parent is by now."""


class Row(NamedTuple):
    """What the ledger says of a document."""

    text_hash: bytes
    payload_hash: bytes
    chunks: int
    pending: int


def ledger_rows(project: Project, file: Path | None = None) -> dict[str, Row]:
    """The ledger's documents, read by a connection that cannot write; none where it is not made yet."""
    file = file or project.folder / ".rag-index" / "ledger.db"
    try:
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)
    except sqlite3.OperationalError:
        return {}
    try:
        found = connection.execute(
            "SELECT key, text_hash, payload_hash, chunks, pending FROM rag_index_documents"
        ).fetchall()
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()
    rows = {row[0]: Row(*row[1:]) for row in found}
    assert len(rows) == len(found), "documents of one collection"
    return rows


def beside(folder: Path) -> Project:
    """A project over what is in the folder already."""
    project = Project.__new__(Project)
    project.folder, project.config, project.extra = folder, folder / "rag-index.toml", ""
    return project


def assert_as_clean(project: Project, folder: Path, *, ledger: Path | None = None) -> None:
    """Points and ledger are those of an index made from nothing, in `folder`, of the same source."""
    folder.mkdir()
    shutil.copy(project.config, folder)
    with sqlite3.connect(project.folder / "source.db") as db, sqlite3.connect(folder / "source.db") as copy:
        db.backup(copy)
    clean = beside(folder)
    assert clean.index(serial=True).state == "completed"
    assert project.points() == clean.points()
    assert ledger_rows(project, ledger) == ledger_rows(clean, ledger and folder / ledger.relative_to(project.folder))


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file of ledger and store: what anybody who still writes would change."""
    kept = [*folder.glob("ledger.db*"), *(folder / "qdrant").rglob("*")]
    found = {}
    for path in kept:
        if path.is_file():
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def dead_pid() -> int:
    """The number of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


class Victim:
    """`rag-index index-all` of a project, in a process group of its own; a context manager that leaves nothing."""

    def __init__(self, project: Project, *arguments: str, own_prefect: bool = False, **environment: str) -> None:
        self._mark = uuid.uuid4().hex
        inherited = {k: v for k, v in os.environ.items() if not (own_prefect and k.startswith("PREFECT_"))}
        self._output = project.folder / "output.txt"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*PROGRAM, "--config", str(project.config), "index-all", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**inherited, **environment, MARK: self._mark},
            )  # fmt: skip

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """All living processes of the run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """The Dask workers."""
        return workers_among(self.family())

    def fork_servers(self) -> list[psutil.Process]:
        """What the workers are forked from."""
        return fork_servers(self.family())

    def prefect(self) -> list[psutil.Process]:
        """The temporary Prefect server."""
        return self._children("rag_index.orchestration.api_server")

    def kill_flow(self) -> None:
        self.process.kill()

    def kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)

    def kill_tree(self) -> None:
        for process in self._children(""):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()

    def seconds_to_be_gone(self, limit: float) -> float | None:
        """How long it takes until no process of the run is left; None where some are after `limit` seconds."""
        started = time.monotonic()
        while True:
            self.process.poll()  # a dead child of ours is a zombie until we ask
            if not self.family():
                return time.monotonic() - started
            if time.monotonic() - started > limit:
                return None
            time.sleep(0.05)

    def _children(self, sign: str) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in children if sign in command(process)]
