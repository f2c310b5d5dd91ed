"""A full disk, a ledger that is locked, folders and files that cannot be written, and a clock that
was set back. Each ends the run with one line and the right exit code, damages nothing, and the next
run repairs the index."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import make_url

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.errors import LedgerError
from tests.etl.plain import printed
from tests.project import Project, run_here
from tests.reliability.scenario import edit_corpus, make_project
from tests.reliability.victim import Victim, assert_equals_clean_index, dead_pid, ledger_rows
from tests.twin import lose_ledger
from tests.waiting import eventually, when

DAY = 86_400.0
STORE = '[store]\npath = "disk/store"\n'
LEDGER = '[ledger]\nurl = "sqlite:///disk/ledger.db"\n'
DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = 1, 2, 3
"""What root has to lose before permissions of files stop it."""


class Disk:
    """A small filesystem that is mounted at `disk` in a project's folder."""

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
            pytest.skip(
                f"a disk cannot be mounted by this user, so none can be full: {done.stderr.strip()}"
            )

    def fill(self, *, leave: int = 0) -> None:
        """Fill the disk up to `leave` bytes."""
        size = 0
        with self.ballast.open("wb", buffering=0) as file:
            while (free := shutil.disk_usage(self.path).free - leave) > 0:
                with contextlib.suppress(OSError):  # the run took the space first
                    os.posix_fallocate(file.fileno(), size, free)
                    size += free

    def read_only(self, yes: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", self.path], check=True)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


def last_line(text: str) -> str:
    """Return the last line of a failed run, which has the reason; there must be no traceback."""
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


@pytest.mark.long
@pytest.mark.mount
@pytest.mark.parametrize(
    ("extra", "leave", "message"),
    [(STORE, 100 << 20, "no space left for the store"), (LEDGER, 0, "the disk is full")],
    ids=["store", "ledger"],
)
def test_a_disk_that_fills_up_during_a_run_loses_nothing(
    tmp_path, prefect_server, extra, leave, message
):
    project = make_project(tmp_path / "p", 900, extra=extra)
    with Disk(project, 400) as disk:
        with Victim(project, "--serial", "--shard-documents", "10") as run:
            ledger = disk.path / "ledger.db" if extra == LEDGER else None

            def committed() -> int:
                assert not run.ended, run.output
                rows = ledger_rows(project, ledger).values()
                return sum(not (row.pending or row.by_words) and row.chunks > 0 for row in rows)

            eventually(lambda: committed() >= 150, lambda: run.output)
            disk.fill(leave=leave)
            assert run.process.wait(120) == 1, run.output
            assert message in last_line(run.output)
        assert project.run().exit_code == 1, "the disk is still full"
        disk.ballast.unlink()
        report = project.run()
        assert report.state == "completed", report.sentence()
        assert report.indexes[0].unchanged >= 150
        assert_equals_clean_index(project, tmp_path / "clean", ledger=ledger)


@pytest.mark.mount
@pytest.mark.parametrize("left", [pytest.param(2 << 20, marks=pytest.mark.long), 8 << 20])
def test_a_store_that_is_loaded_on_a_full_disk_says_so(tmp_path, left):
    project = make_project(tmp_path / "p", 60, extra=STORE)
    with Disk(project, 400) as disk:
        assert project.run().state == "completed"
        disk.fill(leave=left)
        for command in ("index-all", "search note", "doctor"):
            out, err = run_here(project.config, *command.split(), code=1)
            assert "no space left for the store" in last_line(out or err)
        disk.ballast.unlink()
        run_here(project.config, "search", "note")
        assert project.run().state == "completed"


@pytest.mark.mount
def test_a_ledger_that_is_opened_on_a_full_disk_says_so(tmp_path):
    with Disk(Project(tmp_path / "p"), 4) as disk:
        url = make_url(f"sqlite:///{disk.path}/ledger.db")
        Ledger(url).close()
        disk.fill()
        with pytest.raises(LedgerError, match="the disk is full"):
            Ledger(url)


@pytest.mark.long
@pytest.mark.mount
@pytest.mark.parametrize(
    ("extra", "message"),
    [(STORE, "cannot be written by user"), (LEDGER, "ledger.db")],
    ids=["store", "ledger"],
)
def test_a_folder_that_becomes_read_only_loses_nothing(tmp_path, extra, message):
    project = make_project(tmp_path / "p", 100, extra=extra)
    with Disk(project, 400) as disk:
        for edit in (lambda project: project, edit_corpus):
            edit(project)
            disk.read_only(True)
            ended = project.cli("index-all", "--serial")
            assert (ended.returncode, message in last_line(ended.stdout)) == (1, True)
            assert "Traceback" not in ended.stderr
            disk.read_only(False)
            assert project.run().state == "completed"
        ledger = disk.path / "ledger.db" if extra == LEDGER else None
        assert_equals_clean_index(project, tmp_path / "clean", ledger=ledger)


def test_a_run_whose_ledger_is_removed_meanwhile_says_so(tmp_path, fake):
    fake.seconds_per_text = 0.05
    project = make_project(tmp_path / "p", 40, extra=fake.settings)
    with when(fake.embeds, lambda: lose_ledger(project)):
        ended = project.cli("index-all", "--serial", "--shard-documents", "10")
    assert ended.returncode == 1
    assert "was removed or replaced while it was open" in last_line(ended.stdout)
    run_here(project.config, "doctor", "--repair")
    assert project.run().state == "completed"


@contextlib.contextmanager
def locked_ledger(project: Project, seconds: float | None = None) -> Iterator[None]:
    """Hold a write transaction on the ledger for `seconds`, or until the block ends."""
    file = project.folder / ".rag-index" / "ledger.db"
    with contextlib.closing(
        sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
    ) as db:
        db.execute("BEGIN IMMEDIATE")
        if seconds is not None:
            threading.Timer(seconds, db.rollback).start()
        yield


@pytest.mark.long
def test_a_ledger_that_is_locked_is_waited_for_and_ends_the_run_with_one_line_if_it_stays_so(
    tmp_path,
):
    project = make_project(tmp_path / "p", 100)
    project.run()
    edit_corpus(project)
    with locked_ledger(project, 2.0):
        report = project.run()
    assert report.state == "completed", report.sentence()
    project.execute("UPDATE note SET title = 'again' WHERE id = 5")
    with locked_ledger(project):
        ended = project.cli("index-all", "--serial", timeout=250)
    assert ended.returncode == 1
    assert "ledger.db" in last_line(ended.stdout)
    assert "locked" in last_line(ended.stdout)
    assert "Traceback" not in ended.stderr
    assert project.run().state == "completed"
    assert_equals_clean_index(project, tmp_path / "clean")


def test_what_a_run_with_a_clock_ahead_claimed_is_not_believed_and_later_runs_count(tmp_path):
    project = make_project(tmp_path / "p", 30)
    assert project.run().state == "completed"
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        for where in (
            "positions SET at = at",
            "runs SET started_at = started_at",
            "runs SET ended_at = ended_at",
            "scan_states SET full_at = full_at",
        ):
            db.execute(f"UPDATE rag_index_{where} + {400 * DAY}")
    fresh = ("search", "note", "--max-age", "1 h", "--timeout")
    assert "ahead of this clock" in run_here(project.config, *fresh, "2", code=1)[1]
    assert "known by a clock that was ahead" in run_here(project.config, "status")[0]
    project.execute("ALTER TABLE note RENAME TO gone")
    assert project.run().state == "failed"
    assert printed(project, "status")["indexes"][0]["last_run"]["state"] == "failed"
    project.execute("ALTER TABLE gone RENAME TO note")
    assert project.run().state == "completed"
    run_here(project.config, *fresh, "60")


@pytest.mark.long
def test_a_clock_that_was_set_back_by_a_day_loses_nothing(tmp_path):
    """The times that an earlier run recorded now lie in the future, and so does the lease of a
    killed run."""
    project = make_project(tmp_path / "p", 200)
    project.execute("INSERT INTO note VALUES (9999, 'blob', ?, 'a', 1)", b"\x00")
    assert project.run().state == "partial"
    ledger = Ledger(project.settings.ledger_url, clock=lambda: time.time() + DAY)
    dead = IndexLease(ledger, "test_notes", "killed")
    dead.__enter__()
    dead._stop.set()
    ledger.close()
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        db.execute(
            f"UPDATE rag_index_runs SET started_at = started_at + {DAY}, ended_at = ended_at +"
            f" {DAY}"
        )
        for time_of_failure in ("first_at", "last_at", "incomplete_since"):
            db.execute(
                f"UPDATE rag_index_failed_documents SET {time_of_failure} = {time_of_failure} +"
                f" {DAY}"
            )
        db.execute("UPDATE rag_index_leases SET pid = ?", (dead_pid(),))
    project.execute("DELETE FROM note WHERE id = 9999")
    edit_corpus(project)
    report = project.run()
    assert report.state == "completed", report.sentence()
    assert_equals_clean_index(project, tmp_path / "clean")


def run_as_anybody(project, command, code=1):
    """Run the program in a thread that permissions of files stop, even if it is root's, and return
    all that it says."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    without = type(before)(*before)
    without[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH | 1 << FOWNER)
    assert libc.capset(header, without) == 0
    try:
        with contextlib.chdir(project.folder):
            return "".join(run_here(project.config, *command.split(), code=code))
    finally:
        assert libc.capset(header, before) == 0


@pytest.fixture
def closed():
    """A function that takes the right to write a folder or file, and all in it; the test gives it
    back at its end."""
    changed = []

    def close(path):
        for one in (path, *path.rglob("*")):
            changed.append((one, one.stat().st_mode))
            one.chmod(0o500 if one.is_dir() else 0o400)
        return path

    yield close
    for one, mode in changed:
        if one.exists():
            one.chmod(mode)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        "search printer",
        "doctor",
        "doctor --repair",
        "index-all",
        "rebuild notes",
        "erase notes",
        "drop notes --yes",
    ],
)
def test_a_store_that_cannot_be_written_is_whole_and_no_reason_for_a_backup(
    project, closed, command
):
    assert project.fill(3).run().state == "completed"
    store = closed(project.folder / ".rag-index" / "qdrant")
    said = run_as_anybody(project, command)
    assert re.search(
        rf"the store {store}\S* cannot be written by user \w+ \(Permission denied; ", said
    ), said
    assert "set `data` or [store] path to another folder" in said
    assert "backup" not in said
    assert "finding" not in said
    for path in (store, *store.rglob("*")):
        path.chmod(0o700)
    assert project.run().indexes[0].unchanged == 3, "nothing was repaired, and so lost"


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("init --force", "rag-index.toml"),
        ("export notes --out out.jsonl", "out.jsonl"),
        ("sample workshop --out new.db", "new.db"),
        ("sample workshop --out new/new.db", "new/new.db"),
    ],
)
def test_a_file_that_cannot_be_written(project, closed, command, file):
    assert project.fill(3).run().state == "completed"
    closed(project.config)
    project.folder.chmod(0o500)
    said = run_as_anybody(project, command, 2)
    project.folder.chmod(0o700)
    assert f"{file} cannot be written by user " in said, said
    assert "or name " in said
