"""A run in a process of its own that a test watches through the ledger and kills in several
ways."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.dask_workers import fork_servers, workers_among
from tests.fakes.qdrant import FakeQdrant
from tests.forked_program import without_api
from tests.project import PROGRAM, Project

FLOW = [sys.executable, "-P", "-m", "flows.index_all"]
MARK = "KILL_TRIAL"
"""An environment variable that identifies all processes of a run, even after their parent has
died."""


class Row(NamedTuple):
    """A document in the ledger."""

    text_hash: bytes
    payload_hash: bytes
    chunks: int
    pending: int
    by_words: int


def ledger_rows(project: Project, file: Path | None = None) -> dict[str, Row]:
    """Return the ledger's documents through a read-only connection; none if the ledger does not
    exist yet."""
    file = file or project.folder / ".rag-index" / "ledger.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as db:
            columns = "key, text_hash, payload_hash, chunks, pending, by_words"
            found = db.execute(f"SELECT {columns} FROM rag_index_documents").fetchall()
    except sqlite3.OperationalError:
        return {}
    rows = {row[0]: Row(*row[1:]) for row in found}
    assert len(rows) == len(found), "documents of one collection"
    return rows


def project_in(folder: Path) -> Project:
    """Return the project that a folder already holds."""
    project = Project.__new__(Project)
    project.folder, project.config, project.extra = folder, folder / "rag-index.toml", ""
    return project


def assert_equals_clean_index(
    project: Project, folder: Path, *, ledger: Path | None = None
) -> None:
    """Check that points and ledger equal those of an index that is built from nothing in
    `folder`."""
    folder.mkdir()
    shutil.copy(project.config, folder)
    with (
        sqlite3.connect(project.folder / "source.db") as db,
        sqlite3.connect(folder / "source.db") as copy,
    ):
        db.backup(copy)
    clean = project_in(folder)
    assert clean.run().state == "completed"
    found, expected = project.points(), clean.points()
    assert found == expected
    assert ledger_rows(project, ledger) == ledger_rows(
        clean, ledger and folder / ledger.relative_to(project.folder)
    )


def file_stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file of ledger and store, which would change if somebody still
    wrote."""
    kept = [
        path
        for path in (*folder.glob("ledger.db*"), *(folder / "qdrant").rglob("*"))
        if path.is_file()
    ]
    return {
        str(path): (status.st_size, status.st_mtime_ns) for path in kept for status in [path.stat()]
    }


def dead_pid() -> int:
    """Return the id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def kill_qdrant(qdrant: FakeQdrant, seconds: float) -> None:
    """Let clients see the server die, and come back after `seconds` with every point that it
    acknowledged."""
    fault = qdrant.break_next(times=None, cut=True)
    qdrant.stop()
    time.sleep(seconds)
    qdrant.faults.remove(fault)
    qdrant.start()


def in_environment(options: Sequence[str]) -> dict[str, str]:
    """Return options of a run, such as `--workers 2`, as variables that take the place of
    settings."""
    pairs = (option.split() for option in " ".join(options).split("--")[1:])
    return {
        f"RAG_INDEX_PARALLEL__{name.upper().replace('-', '_')}": (*value, "true")[0]
        for name, *value in pairs
    }


class Victim:
    """The flow `index-all` as a program, in a group of its own; all its processes are killed at the
    end. It is at the server that the fixture `prefect_server` has set. If it is `plain`, it is the
    command instead."""

    def __init__(
        self, project: Project, *arguments: str, plain: bool = False, **environment: str
    ) -> None:
        self._mark = uuid.uuid4().hex
        if plain:
            inherited = without_api()
            command = [*PROGRAM, "--config", str(project.config), "index-all", *arguments]
        else:
            inherited = (
                os.environ | in_environment(arguments) | {"RAG_INDEX_CONFIG": str(project.config)}
            )
            command = FLOW
        self._output = project.folder / "output.txt"
        with self._output.open("w") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            given = {**inherited, **environment, MARK: self._mark}
            self.process = subprocess.Popen(command, env=given, start_new_session=True, **streams)

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return all living processes of the run."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get(MARK) == self._mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the Dask workers."""
        return workers_among(self.processes())

    def fork_servers(self) -> list[psutil.Process]:
        """Return the processes that the workers are forked from."""
        return fork_servers(self.processes())

    def gone(self) -> bool:
        """Return whether no process of the run is left."""
        self.process.poll()  # a dead child of ours is a zombie until we ask
        return not self.processes()
