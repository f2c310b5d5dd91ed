"""A document that kills the process that embeds it stops one run, not every night: the next run finds it."""

import pytest

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
