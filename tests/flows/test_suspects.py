"""A document that kills the process that embeds it stops one run, not every night: the next run finds it."""

import datetime as dt
import os

import httpx
import pytest

from tests.project import Project
from tests.reliability.victim import Victim

pytestmark = pytest.mark.long

HUNGRY = """
import numpy as np
from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.hosts.host_pool import RequestStats

class Hungry:
    def __init__(self, settings, **_): self.stats = RequestStats()
    def identity(self): return EmbedderIdentity(kind="hungry", model="hungry", digest="1", dimension=4)
    def embed_documents(self, texts):
        if any("EATS" in text for text in texts): bytearray(1 << 60)
        return np.asarray([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)
    def embed_query(self, text): return self.embed_documents([text])[0]
    def close(self): pass
"""
SETTINGS = '[embedder]\nkind = "hungry"\nmodel = "hungry"\ndocument_prefix = ""\nquery_prefix = ""\n'

KILLED = -9


@pytest.fixture
def project(tmp_path, fake) -> Project:
    """200 notes are indexed; then one that kills and a good one are added."""
    project = Project(tmp_path / "project", extra=fake.settings + "[run]\nwait_for_recovery = 5\n").fill(200)
    assert project.run().state == "completed"
    project.execute("INSERT INTO note (id, title, body) VALUES (900, 'bad', 'KILLS'), (901, 'good', 'harmless')")
    fake.fault("kill_client", marker="KILLS")
    return project


def listed(project: Project) -> dict[str, int]:
    return {one["document_id"]: one["tries"] for one in project.json("status", "--failed")["failed"]}


def kinds(project: Project) -> set[str]:
    return {finding["kind"] for finding in project.json("doctor", code=3)["findings"]}


def test_the_next_run_finds_it_and_indexes_the_rest(project):
    assert project.cli("index-all").returncode == KILLED
    assert "901" not in project.texts()
    answer = project.json("index-all", code=3)["indexes"][0]
    assert (answer["failed"], answer["new"]) == (1, 1), answer
    assert project.texts()["901"] == ["good\nharmless"]
    assert listed(project) == {"900": 2}, "the run that died was a try as well"
    assert project.json("index-all", code=3)["indexes"][0]["failed"] == 1
    assert listed(project) == {"900": 3}
    assert kinds(project) == {"failed_documents"}


def test_single_documents_as_well(project):
    """Where a changed document keeps what it had, since the run that died had written nothing."""
    before = project.texts()["7"]
    project.execute("UPDATE note SET body = 'KILLS' WHERE id = 7")
    assert project.cli("index", "notes", "--id", "7").returncode == KILLED
    answer = project.json("index", "notes", "--id", "7", "--id", "901", code=3)["indexes"][0]
    assert (answer["failed"], answer["new"]) == (1, 1), answer
    assert listed(project) == {"7": 2}
    assert (project.texts()["7"], project.texts()["901"]) == (before, ["good\nharmless"])
    assert "pending_documents" not in kinds(project)


def test_a_worker_without_memory_is_told_in_a_sentence_with_its_shard(tmp_path, prefect_server):
    info = tmp_path / "site" / "hungry-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "hungry.py").write_text(HUNGRY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hungry\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rag_index.embedders]\nhungry = hungry:Hungry\n")
    project = Project(tmp_path / "project", SETTINGS).fill(8)
    project.execute("UPDATE note SET body = 'EATS' WHERE id = 5")
    began = dt.datetime.now(dt.UTC)  # the server has the runs of other tests, too
    with Victim(project, "--workers", "1", "--shard-documents", "2", PYTHONPATH=str(info.parent)) as run:
        assert run.process.wait(240) == 3, run.output
    answer = project.json("status", "--report", PYTHONPATH=str(info.parent))["runs"][0]
    assert (answer["failed"], answer["new"]) == (1, 7), answer
    listed = project.json("status", "--failed", PYTHONPATH=str(info.parent))["failed"]
    assert [one["document_id"] for one in listed] == ["5"]
    said = "the process had no more memory ([parallel] worker_memory) under shard 3 of notes: "
    parts = "its 2 documents are tried in parts, and `rag-index status notes --failed` lists any that does it again"
    alone = "`rag-index status notes --failed` lists its document, unless another try succeeds"
    assert crashed(prefect_server, began) == {
        "embed notes 3": {said + parts},
        "embed notes 3 alone": {said + parts, said + alone},
    }


def crashed(url: str, began: dt.datetime) -> dict[str, set[str]]:
    """Return what is said of the tasks that began since then and did not complete."""
    auth = tuple(os.environ["PREFECT_API_AUTH_STRING"].split(":"))
    found: dict[str, set[str]] = {}
    with httpx.Client(base_url=url, auth=auth, timeout=60) as api:
        since = {"start_time": {"after_": began.isoformat()}}
        asked = {"sort": "EXPECTED_START_TIME_DESC", "task_runs": since}
        for run in api.post("/task_runs/filter", json=asked).json():
            if run["state_type"] in ("FAILED", "CRASHED") and run["name"].startswith(("embed", "upsert")):
                found.setdefault(run["name"], set()).add(run["state"]["message"])
    return found
