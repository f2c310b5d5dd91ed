"""A night as docs/operations.md has it: a worker somewhere else runs what was deployed, a person looks at Prefect's UI.

SCREENSHOTS=docs/images pytest tests/deployments/test_worker.py    # makes the page's pictures as well
"""

from __future__ import annotations

import re
import sqlite3
import time

import psutil
import pytest

from tests.dask_workers import workers_among
from tests.deployments.server import wait_until
from tests.fakes.ollama import FakeOllama
from tests.project import Project

pytestmark = pytest.mark.long

EMBEDDER = """\
[embedder]
kind = "ollama"
model = "{fake.model}"
hosts = ["{fake.url}"]
wait_for_recovery = 5
"""


@pytest.fixture
def fake():
    with FakeOllama() as server:
        yield server


@pytest.fixture
def project(tmp_path, fake) -> Project:
    return Project(tmp_path / "project", extra=EMBEDDER.format(fake=fake)).fill(240)


@pytest.fixture
def worker(deployed, project, tmp_path):
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)) as process:
        yield process


def dask_workers(process) -> list[psutil.Process]:
    """The Dask worker processes below this one."""
    below = psutil.Process(process.pid).children(recursive=True)
    return workers_among(one for one in below if one.is_running())


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_night_with_failures_is_seen_in_the_browser(deployed, project, fake, worker, browser):
    project.execute("UPDATE note SET body = 'POISON' WHERE id IN (17, 40)")
    fake.fault("status", code=400, marker="POISON", words="cannot embed this")
    fake.seconds_per_text = 0.1
    started = deployed.start("index-all/index-all", workers=2, shard_documents=20)["id"]

    moved = set()

    def some_progress():
        found = deployed.artifacts().get("test-notes-progress")
        if found and "of 240 documents" in found["description"]:  # another test's run had others
            moved.add(found["description"])
        rated = [one for one in moved if re.search(r"notes: \d+ of 240 documents, \d+/s.*, \d+ s left", one)]
        return len(moved) > 3 and len(rated) > 1

    wait_until(some_progress, "the progress artifact moves, with rate and time left", seconds=90)
    browser.open(f"{deployed.url}/runs/flow-run/{started}")
    browser.see("index all", "Running")
    browser.picture("run-running.png")

    ended = deployed.ended(started)
    assert (ended["state_type"], ended["state_name"], ended["name"]) == ("FAILED", "PartiallyIndexed", "index all")
    assert "238 documents indexed, 2 failed" in ended["state"]["message"]
    begun = [run for run in deployed.runs() if (run["start_time"] or "") >= ended["start_time"]]  # other tests ran, too
    subflow = next(run for run in begun if run["name"] == "index notes")
    assert subflow["state"]["message"] == ended["state"]["message"]
    logs = "\n".join(deployed.logs(subflow["id"]))
    assert "notes 1: documents 1 to 20 (20)" in logs
    assert re.search(r"document 17 failed: .*cannot embed this", logs)

    browser.open(f"{deployed.url}/runs/flow-run/{started}")
    browser.see("index all", "PartiallyIndexed", "238 documents indexed, 2 failed")
    browser.picture("run-partial.png")
    browser.open(f"{deployed.url}/runs/flow-run/{subflow['id']}")
    browser.see("index notes", "PartiallyIndexed", "document 17 failed")
    browser.picture("run-index.png")
    browser.click("Artifacts")
    browser.see("test-notes-progress", "test-notes-failed", "test-notes-report")
    browser.picture("artifacts.png")
    artifacts = deployed.artifacts()
    browser.open(f"{deployed.url}/artifacts/artifact/{artifacts['test-notes-failed']['latest_id']}")
    browser.see("2 documents of notes could not be indexed", "17", "cannot embed this", "rag-index retry-failed notes")
    browser.picture("failed.png", height=600)
    browser.open(f"{deployed.url}/artifacts/artifact/{artifacts['test-notes-report']['latest_id']}")
    browser.see("notes: partial", "documents embedded a second", "Where the time went", "What to do")
    browser.picture("report.png")
    browser.open(f"{deployed.url}/artifacts/artifact/{artifacts['test-notes-progress']['latest_id']}")
    browser.see("240 documents: 238 new, 2 failed")

    log = (project.folder.parent / "elsewhere" / "worker.log").read_text()
    assert "cannot be resolved" not in log
    browser.open(f"{deployed.url}/deployments")
    browser.see("index-all", "index-collection", "doctor", "At 02:00 AM")
    browser.picture("deployments.png", height=700)


def test_one_index_by_hand_has_workers_of_its_own(deployed, project, fake, worker):
    fake.seconds_per_text = 0.02
    started = deployed.start("index-collection/index-collection", index="notes", workers=2, shard_documents=20)["id"]
    wait_until(lambda: len(dask_workers(worker)) >= 2, "two Dask workers", seconds=60)
    ended = deployed.ended(started)
    assert (ended["name"], ended["state_name"]) == ("index notes", "Completed")
    assert len(project.texts()) == 240
    wait_until(lambda: not dask_workers(worker), "no Dask worker is left", seconds=20)


def test_the_log_of_a_run_that_failed_has_the_cause(deployed, project, fake, worker):
    fake.stop_listening()
    started = deployed.start("index-collection/index-collection", index="notes", serial=True)["id"]
    ended = deployed.ended(started)
    address = fake.url.removeprefix("http://")
    assert ended["state_type"] == "FAILED"
    assert address in ended["state"]["message"]
    cause = f"{address} accepts no connection: is Ollama running there?"
    wait_until(lambda: any(cause in line for line in deployed.logs(started)), "the log has the cause", seconds=20)
    assert "# notes: failed" in deployed.artifacts()["test-notes-report"]["data"]


def test_the_doctor_runs_as_a_deployment(deployed, project, worker):
    done = deployed.start("index-all/index-all", serial=True)["id"]
    assert deployed.ended(done)["state_name"] == "Completed"
    healthy = deployed.ended(deployed.start("doctor/doctor")["id"])
    assert (healthy["state_name"], healthy["name"]) == ("Completed", "doctor all"), healthy["state"]
    assert "All agrees" in healthy["state"]["message"]


def test_the_benchmark_runs_as_a_deployment(deployed, project, worker):
    run = deployed.ended(deployed.start("benchmark/benchmark", sample_size=60, workers=[1])["id"], seconds=150)
    assert run["state_name"] == "Completed", run["state"]


@pytest.mark.parametrize("way", ["cancel", "SIGTERM to the worker"])
def test_a_run_that_is_stopped_leaves_nothing_but_what_was_done(deployed, project, fake, tmp_path, way):
    fake.seconds_per_text = 0.1
    environment = {"RAG_INDEX_CONFIG": str(project.config)}
    with deployed.worker(tmp_path / "elsewhere", **environment) as worker:
        run = deployed.start("index-all/index-all", workers=2, shard_documents=10)["id"]
        wait_until(lambda: len(fake.embeds()) > 5, "documents are being embedded", seconds=90)
        below = psutil.Process(worker.pid).children(recursive=True)
        assert dask_workers(worker)
        stopped = time.monotonic()
        if way == "cancel":
            deployed.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
        else:
            worker.terminate()
            worker.wait(timeout=30)
        wait_until(lambda: not any(map(alive, below)), "no process is left", seconds=30)
        took = time.monotonic() - stopped
        if way == "cancel":
            assert deployed.ended(run)["state_type"] == "CANCELLED"
    assert took < 20, took
    if way == "cancel":  # Prefect 3.8.8 kills the run's process 30 ms after the worker's SIGTERM: nothing can be tidied
        with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as ledger:
            assert ledger.execute("SELECT run_id FROM rag_index_leases").fetchall() == [(None,)], (
                "the lock is given back"
            )
    kept = len(project.texts())
    fake.seconds_per_text = 0
    assert 0 < kept < 240
    with deployed.worker(tmp_path / "elsewhere", **environment):
        again = deployed.ended(deployed.start("index-collection/index-collection", index="notes", serial=True)["id"])
    assert again["state_name"] == "Completed", again["state"]
    assert len(project.texts()) == 240
