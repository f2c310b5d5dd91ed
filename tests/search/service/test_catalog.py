"""How fresh an answer is: as the ledger knows it, without a search ever waiting long for the ledger."""

import sqlite3
import subprocess
import sys

import pytest

from rag_index.care.transfer import move, target_settings
from rag_index.search import positions
from tests.etl.plain import run_plain
from tests.project import Project
from tests.search.service.live import asking
from tests.search.service.test_http import problem
from tests.waiting import eventually


@pytest.fixture
def project(indexed_notes) -> Project:
    return indexed_notes(12)


RUN = """
import sys
from rag_index.etl.opened import RunOptions, open_index
from rag_index.core.settings import load_settings
with open_index(load_settings(sys.argv[1]), "notes", RunOptions(), run_id="another"):
    print("running", flush=True)
    input()
"""


@pytest.mark.long
def test_a_run_that_was_killed_is_not_told_to_be_running(project):
    def told() -> str:
        with asking(project.settings) as client:
            return client.get("/indexes").json()["indexes"][0]["as_of"]["last_run"]

    command = [sys.executable, "-c", RUN, str(project.config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "running\n"
        assert told() == "running"
        run.kill()
    assert told() == "interrupted"
    assert project.json("status", "--report")["runs"][0]["state"] == "interrupted"


def test_a_search_does_not_depend_on_the_ledger(project):
    ledger = project.folder / ".rag-index" / "ledger.db"
    ledger.write_bytes(b"this is no database" * 100)
    with asking(project.settings) as client:
        answer = client.post("/search", json={"query": "printer"})
        assert answer.status_code == 200
        assert set(answer.json()["as_of"]["notes"].values()) == {None, ""}
        assert client.get("/indexes").status_code == 503
        assert client.get("/readyz").status_code == 503


def test_a_store_that_is_not_the_ledgers_answers_503_and_says_so(project):
    """As where [store] or [ledger] of the service's settings were not changed with those of the runs."""
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as ledger:
        ledger.execute("UPDATE rag_index_collections SET name = 'test_notes__9'")
    with asking(project.settings) as client:
        for answer in (client.post("/search", json={"query": "printer"}), client.get("/documents/notes/1")):
            assert answer.status_code == 503, answer.text
            assert "is none of the collections of notes in the ledger (test_notes__9)" in answer.json()["detail"]
        assert problem(client.get("/readyz"), 503)["detail"] == "the service is not ready; its log says why"
        assert not client.get("/indexes").json()["indexes"][0]["live"]


def test_after_a_move_the_service_is_not_ready(tmp_path, monkeypatch):
    monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 0.2)
    project = Project(tmp_path / "project").fill(5)
    run_plain(project)
    with asking(project.settings) as client:
        assert client.get("/readyz").status_code == 200
        move(project.settings, target_settings(project.settings, str(tmp_path / "moved"), None))
        eventually(lambda: client.get("/readyz").status_code == 503, "it looks again")
        assert not client.get("/indexes").json()["indexes"][0]["live"]
        assert "was moved to" in problem(client.post("/search", json={"query": "printer"}), 503)["detail"]
