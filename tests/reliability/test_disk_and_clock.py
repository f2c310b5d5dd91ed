"""A full disk, a ledger that is locked or too new, folders that cannot be written, a clock that was set back.

Each gives one line and the right exit code, spoils nothing, and the next run makes all as it should be.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time

import pytest

from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from tests.project import Project
from tests.reliability.scenario import edited, made
from tests.reliability.victim import Victim, assert_as_clean, dead_pid, ledger_rows

DAY = 86_400.0
STORE = '[store]\npath = "disk/store"\n'
LEDGER = '[ledger]\nurl = "sqlite:///disk/ledger.db"\n'


class Disk:
    """A small filesystem of its own at `disk` in a project's folder."""

    def __init__(self, project: Project, megabytes: int) -> None:
        self.path = project.folder / "disk"
        self.ballast = self.path / "ballast"
        self.path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", self.path],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted by this user, so none can be full: {done.stderr.strip()}")

    def fill(self, *, leave: int = 0) -> None:
        """Leave so many bytes free, none by default."""
        size = 0
        with self.ballast.open("wb", buffering=0) as file:
            while (free := shutil.disk_usage(self.path).free - leave) > 0:
                with contextlib.suppress(OSError):  # the run was quicker
                    os.posix_fallocate(file.fileno(), size, free)
                    size += free

    def read_only(self, yes: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", self.path], check=True)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


def one_line(text: str) -> str:
    """What a person reads at the end of a run that failed: no traceback, the reason in the last line."""
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


@pytest.mark.mount
@pytest.mark.parametrize(
    ("what", "leave", "said"),
    [
        pytest.param(STORE, 100 << 20, "no space left for the store", id="store"),
        pytest.param(LEDGER, 0, "the disk is full", id="ledger", marks=pytest.mark.long),
    ],
)
def test_a_disk_that_gets_full_under_a_run(tmp_path, prefect_server, what, leave, said):
    project = made(tmp_path / "p", 900, extra=what)
    with Disk(project, 400) as disk:
        with Victim(project, "--serial", "--shard-documents", "10") as run:
            ledger = disk.path / "ledger.db" if what == LEDGER else None
            deadline = time.monotonic() + 60
            while sum(not row.pending and row.chunks > 0 for row in ledger_rows(project, ledger).values()) < 150:
                assert not run.ended, run.said
                assert time.monotonic() < deadline, run.said
                time.sleep(0.01)
            disk.fill(leave=leave)
            assert run.process.wait(60) == 1, run.said
            assert said in one_line(run.said)
        assert project.index(serial=True).exit_code == 1, "it is still full"
        disk.ballast.unlink()
        report = project.index(serial=True)
        assert report.state == "completed", report.sentence()
        assert report.indexes[0].unchanged >= 150
        assert_as_clean(project, tmp_path / "clean", ledger=ledger)


@pytest.mark.mount
@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param(STORE, "cannot write to the store", id="store", marks=pytest.mark.long),
        pytest.param(LEDGER, "ledger.db", id="ledger", marks=pytest.mark.long),
    ],
)
def test_a_folder_that_cannot_be_written(tmp_path, prefect_server, what, said):
    project = made(tmp_path / "p", 100, extra=what)
    with Disk(project, 400) as disk:
        disk.read_only(True)
        never = project.index(serial=True)
        assert (never.exit_code, said in never.indexes[0].message) == (1, True)
        disk.read_only(False)
        assert project.index(serial=True).state == "completed"

        edited(project)
        disk.read_only(True)
        ended = project.cli("index-all", "--serial")
        assert ended.returncode == 1
        assert said in one_line(ended.stdout)
        assert "Traceback" not in ended.stderr
        disk.read_only(False)
        assert project.index(serial=True).state == "completed"
        assert_as_clean(project, tmp_path / "clean", ledger=disk.path / "ledger.db" if what == LEDGER else None)


def locked(project: Project, seconds: float) -> threading.Thread:
    """Somebody else writes to the ledger, in one transaction of so many seconds."""
    file = project.folder / ".rag-index" / "ledger.db"
    begun = threading.Event()

    def hold() -> None:
        db = sqlite3.connect(file, timeout=30, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        begun.set()
        time.sleep(seconds)
        db.execute("ROLLBACK")
        db.close()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    return thread


@pytest.mark.long
def test_a_ledger_that_is_locked_for_a_while_is_waited_for(tmp_path, prefect_server):
    project = made(tmp_path / "p", 100)
    project.index(serial=True)
    edited(project)
    holder = locked(project, 2.0)
    report = project.index(serial=True)
    holder.join()
    assert report.state == "completed", report.sentence()
    assert_as_clean(project, tmp_path / "clean")


@pytest.mark.long
def test_a_ledger_that_stays_locked_ends_the_run_in_words(tmp_path, prefect_server):
    project = made(tmp_path / "p", 100)
    project.index(serial=True)
    edited(project)
    holder = locked(project, 100.0)
    started = time.monotonic()
    ended = project.cli("index-all", "--serial")
    assert time.monotonic() - started < 95
    assert ended.returncode == 1
    assert "ledger.db" in one_line(ended.stdout)
    assert "locked" in one_line(ended.stdout)
    assert "Traceback" not in ended.stderr
    holder.join()
    assert project.index(serial=True).state == "completed"
    assert_as_clean(project, tmp_path / "clean")


@pytest.mark.long
def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path, prefect_server):
    project = made(tmp_path / "p", 50)
    project.index(serial=True)
    file = project.folder / ".rag-index" / "ledger.db"
    with sqlite3.connect(file) as db:
        [(version,)] = db.execute("SELECT version FROM rag_index_schema_version").fetchall()
        db.execute("UPDATE rag_index_schema_version SET version = 99")
    rows, points = ledger_rows(project), project.points()
    project.execute("DELETE FROM note WHERE id = 3")
    report = project.index(serial=True)
    assert report.exit_code == 1
    assert "version 99" in report.indexes[0].message
    assert "upgrade rag-index" in report.indexes[0].message
    for command in ("status", "plan"):
        ended = project.cli(command)
        assert (ended.returncode, "upgrade rag-index" in one_line(ended.stderr)) == (1, True)
    assert (ledger_rows(project), project.points()) == (rows, points)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE rag_index_schema_version SET version = ?", (version,))
    assert project.index(serial=True).indexes[0].deleted == 1
    assert_as_clean(project, tmp_path / "clean")


@pytest.mark.long
def test_a_clock_that_was_set_back_by_a_day(tmp_path, prefect_server):
    """What an earlier run noted lies in the future now; a killed run's lock too."""
    project = made(tmp_path / "p", 200)
    project.execute("INSERT INTO note VALUES (9999, 'blob', ?, 'a', 1)", b"\x00")
    assert project.index(serial=True).state == "partial"
    ledger = Ledger(project.settings.ledger_url, clock=lambda: time.time() + DAY)
    dead = IndexLease(ledger, "test_notes", "killed")
    dead.__enter__()
    dead._stop.set()
    ledger.close()
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        db.execute(f"UPDATE rag_index_runs SET started_at = started_at + {DAY}, ended_at = ended_at + {DAY}")
        db.execute(f"UPDATE rag_index_failed_documents SET first_at = first_at + {DAY}, last_at = last_at + {DAY}")
        db.execute("UPDATE rag_index_leases SET pid = ?", (dead_pid(),))
    project.execute("DELETE FROM note WHERE id = 9999")
    edited(project)
    report = project.index(serial=True)
    assert report.state == "completed", report.sentence()
    assert_as_clean(project, tmp_path / "clean")
