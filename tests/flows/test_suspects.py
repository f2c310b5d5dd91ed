"""A document that kills the process that embeds it stops one run, not every night: the next run finds it."""

from __future__ import annotations

from contextlib import closing

import pytest

from rag_index.documents.keys import point_id
from rag_index.ledger import Ledger
from tests.project import Project

KILLED = -9


@pytest.fixture
def project(tmp_path, fake) -> Project:
    """200 notes are indexed; then one that kills and a good one are added."""
    project = Project(tmp_path / "project", extra=fake.settings + "wait_for_recovery = 5\n").fill(200)
    assert project.run().state == "completed"
    project.execute("INSERT INTO note (id, title, body) VALUES (900, 'bad', 'KILLS'), (901, 'good', 'harmless')")
    fake.fault("kill_client", marker="KILLS")
    return project


def listed(project: Project) -> dict[str, int]:
    return {one["document_id"]: one["tries"] for one in project.json("failed")["failed"]}


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


def test_points_that_a_dead_run_wrote_of_it_are_deleted(project, fake):
    """A failed document holds what it had whole, or nothing: never a part of a text that was not committed."""
    settings = project.settings
    with project.store() as store, closing(Ledger(settings.ledger_url)) as ledger:
        name = store.aliases()[settings.alias("notes")]
        [point] = store.retrieve(name, [point_id("notes", "7", 0)])
        ledger.mark_pending(ledger.collection(name).id, ["7"])
        changed = {**point.payload["_rag"], "text_hash": "00" * 16}
        store.update_payloads(name, [(point.id, {**point.payload, "_rag": changed})])
        store.flush(name)
    project.execute("UPDATE note SET body = 'KILLS' WHERE id = 7")
    project.execute("DELETE FROM note WHERE id = 900")
    assert project.json("index-all", code=3)["indexes"][0]["failed"] == 1
    assert "7" not in project.texts()
    assert kinds(project) == {"failed_documents"}
