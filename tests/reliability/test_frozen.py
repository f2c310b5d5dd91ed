"""Processes that stand still in the middle of a run and go on later, and another run meanwhile.
With an embedded store no other run could begin: a process that lives has it open."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from tests.etl.plain import printed
from tests.fakes.ollama import FakeOllama
from tests.live.qdrant import SERVERS, project_on
from tests.project import Project
from tests.reliability.victim import Victim, ledger_rows
from tests.waiting import GENEROUS_LONG, eventually

pytestmark = pytest.mark.long
DOCUMENTS = 200


@pytest.fixture(params=SERVERS)
def project(request, tmp_path, fake):
    fake.seconds_per_text = 0.05
    with project_on(
        request.param, lambda store: Project(tmp_path / "project", fake.settings + store)
    ) as project:
        yield project.fill(DOCUMENTS)


def committed(project: Project) -> int:
    return sum(not (row.pending or row.by_words) for row in ledger_rows(project).values())


def begun(project: Project) -> bool:
    """Whether some shards are committed and others are under way."""
    return 0 < committed(project) < len(ledger_rows(project))


def suspend(run: Victim, *databases: Path) -> None:
    """Suspend all processes of a run, at a moment when none has a database locked: no other run
    could take over."""

    def is_suspended() -> bool:
        for process in run.processes():
            process.suspend()
        with suppress(sqlite3.OperationalError):
            for database in databases:
                with closing(sqlite3.connect(database, timeout=0)) as db:
                    db.execute("BEGIN EXCLUSIVE")
            return True
        for process in run.processes():
            process.resume()
        return False

    eventually(is_suspended, lambda: run.output, seconds=GENEROUS_LONG)


def assert_right(project: Project, fake: FakeOllama) -> None:
    fake.seconds_per_text = 0
    texts = project.texts()
    assert (len(texts), texts["7"]) == (DOCUMENTS, ["Note 7\nnow it prints"])
    assert not any(row.pending for row in ledger_rows(project).values())
    assert project.run().indexes[0].unchanged == DOCUMENTS
    printed(project, "doctor")


def test_a_run_that_was_frozen_ends_when_another_has_taken_over(prefect_server, project, fake):
    """As a virtual machine that was paused: the run, its workers and what they were about to write
    go on later."""
    with Victim(project, "--shard-documents", "10") as frozen:
        eventually(
            lambda: frozen.ended or (begun(project) and frozen.workers()),
            lambda: frozen.output,
            seconds=GENEROUS_LONG,
        )
        ledger = project.folder / ".rag-index" / "ledger.db"
        suspend(frozen, ledger, project.folder / "source.db")
        project.execute("UPDATE note SET body = 'now it prints' WHERE id = 7")
        with closing(sqlite3.connect(ledger)) as db, db:
            db.execute(
                "UPDATE rag_index_leases SET host = 'another machine', renewed_at = renewed_at"
                " - 120"
            )
        assert project.run().state == "completed"
        for process in frozen.processes():
            process.resume()
        assert frozen.process.wait(GENEROUS_LONG) == 1, frozen.output
        said = frozen.output
        assert "took over" in said or "written by a later run" in said, said
        assert "Traceback" not in said
        eventually(frozen.gone, seconds=GENEROUS_LONG)
    assert_right(project, fake)


def test_a_worker_that_freezes_costs_a_run_no_document(prefect_server, project, fake):
    """Its shards are embedded by another one after half a minute, and what it writes later changes
    nothing."""
    project.execute("UPDATE note SET body = 'now it prints' WHERE id = 7")
    with Victim(project, "--shard-documents", "10") as run:
        eventually(
            lambda: run.ended or (begun(project) and run.workers()),
            lambda: run.output,
            seconds=GENEROUS_LONG,
        )
        [worker] = run.workers()  # which asks for two shards at a time
        worker.suspend()
        eventually(lambda: run.ended or committed(project) == DOCUMENTS, seconds=GENEROUS_LONG)
        with suppress(psutil.NoSuchProcess):
            worker.resume()
        assert run.process.wait(GENEROUS_LONG) == 0, run.output
        assert "Traceback" not in run.output
        eventually(run.gone, seconds=GENEROUS_LONG)
    assert_right(project, fake)
