"""Runs without Prefect: the same outcome, ledger, store, files and exit codes as by the flow, and
nothing is started. Each project is run in both ways, step by step, and compared after every
step."""

import json
import re
import signal
import sqlite3
import subprocess
import sys

import pytest

from tests.etl.plain import printed
from tests.forked_program import run_program, without_api
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually

LOUD = """
import atexit, sys
heavy = {"prefect", "dask", "distributed"}
atexit.register(lambda: print("imported:", *sorted(heavy & set(sys.modules)), file=sys.stderr))
from rag_index.cli import main
main()
"""
TIMES = (
    "workers",
    "seconds",
    "started",
    "ended",
    "run",
    "stages",
    "advice",
    "worker_seconds",
    "embed_seconds",
    "chunk_seconds",
    "write_seconds",
    "first_shard_after",
    "utilisation",
    "as_of",
    "erasable_since",
)
"""What differs between two runs in the same way, or between a plain run and a flow."""
METRICS = '[run]\nmetrics_file = "metrics.prom"\n'
CHANGE = """
UPDATE note SET body = 'changed' WHERE id % 50 = 0;
UPDATE note SET author = 'another' WHERE id % 50 = 1;
UPDATE note SET title = '', body = '' WHERE id = 7;
DELETE FROM note WHERE id = 9;
"""


def plainly(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user without a Prefect server does."""
    return run_program(["--config", str(project.config), *arguments], without_api(), timeout=240)


def timeless(value):
    """Return a report without what differs between two runs in the same way."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def left_by(project: Project) -> dict:
    """Return what a run has left in ledger, store and metrics file, and what `status` says of
    it."""
    found = {
        " ".join(more): timeless(printed(project, *more))
        for more in (["status"], ["status", "--report"])
    }
    names = re.findall(
        r"^rag_index_\w+", (project.folder / "metrics.prom").read_text(), re.MULTILINE
    )
    found["metrics"] = sorted(set(names))  # a flow has other stages
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        for table in ("documents", "failed_documents"):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info(rag_index_{table})")]
            kept = ", ".join(
                c for c in columns if not c.endswith(("_at", "since", "_started", "pid", "run_id"))
            )
            found[table] = db.execute(
                f"SELECT {kept} FROM rag_index_{table} ORDER BY key"
            ).fetchall()
        found["runs"] = db.execute(
            "SELECT state, message FROM rag_index_runs ORDER BY number"
        ).fetchall()
        assert not db.execute("SELECT * FROM rag_index_leases WHERE run_id IS NOT NULL").fetchall()
    found["points"] = project.points()
    return json.loads(json.dumps(found, default=bytes.hex).replace(str(project.folder), "FOLDER"))


def test_small_work_starts_and_imports_nothing(tmp_path):
    project = Project(tmp_path / "project", extra=METRICS).fill(300)
    for said in ("Completed: 1 index: 300 documents indexed", "Nothing changed."):
        command = [sys.executable, "-c", LOUD, "--config", str(project.config), "index-all"]
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=240, env=without_api(), check=False
        )
        assert (ended.returncode, ended.stdout.startswith(said)) == (0, True), ended
        assert ended.stderr.splitlines()[-1] == "imported:", ended.stderr
    assert sorted(path.name for path in (project.folder / ".rag-index").iterdir()) == [
        "ledger.db",
        "qdrant",
    ]
    assert len(project.texts()) == 300
    assert (
        'rag_index_run_documents{index="notes"} 300.0\n'
        in (project.folder / "metrics.prom").read_text()
    )


@pytest.mark.long
def test_both_ways_leave_the_same(tmp_path, prefect_server):
    plain, flow = (Project(tmp_path / way, extra=METRICS).fill(300) for way in ("plain", "flow"))

    def run(*arguments, change="", **options):
        """Run a command and the flow with the same options, compare all that they leave, and return
        the report."""
        for project in (plain, flow):
            with project.source() as db:
                db.executescript(change)
        ended, report = plainly(plain, *arguments, "--json"), flow.index(**options)
        assert ended.returncode == report.exit_code, (ended, report)
        said = timeless(json.loads(ended.stdout))
        told = json.dumps(said).replace(str(plain.folder), str(flow.folder))
        assert json.loads(told) == timeless(json.loads(json.dumps(report.to_json())))
        assert "Traceback" not in ended.stderr
        assert left_by(plain) == left_by(flow)
        return ended.returncode, said["indexes"][0]

    code, first = run("index-all")
    assert (code, first["new"]) == (0, 300)
    _, second = run("index-all", change=CHANGE)
    assert [second[name] for name in ("changed", "payload_only", "empty", "deleted")] == [
        6,
        6,
        1,
        2,
    ]
    assert run("index-all", change="DELETE FROM note WHERE id > 20")[0] == 3, "the delete guard"
    assert run("index-all", "--allow-deletes", allow_deletes=True)[1]["deleted"] > 200
    assert run("rebuild", "notes", full=True)[1]["verified"]


@pytest.mark.long
def test_a_signal_ends_a_plain_run_and_the_next_resumes(tmp_path, fake):
    project = Project(tmp_path / "project", extra=fake.settings).fill(60)
    fake.fault("hang", marker="ticket 41 ")
    with Victim(project, plain=True) as running:
        eventually(lambda: any("ticket 41 " in text for one in fake.embeds() for text in one.texts))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(120) == 130, running.output
    assert running.output.splitlines()[-1] == "rag-index: stopped"
    assert "Traceback" not in running.output
    assert printed(project, "status")["indexes"][0]["last_run"]["state"] == "failed"
    fake.clear()
    next_run = json.loads(plainly(project, "index-all", "--json").stdout)["indexes"][0]
    assert next_run["new"] + next_run["changed"] > 0
    assert (
        next_run["new"] + next_run["changed"] + next_run["unchanged"] == len(project.texts()) == 60
    )
