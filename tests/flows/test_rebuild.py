"""Rebuilding beside the live collection, verifying, rolling back, and reusing vectors."""

import pytest

from tests.project import Project


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(150)


def collections(project: Project) -> set[str]:
    with project.store() as store:
        return set(store.collections())


@pytest.mark.long
def test_a_rebuild_verifies_publishes_and_keeps_one_collection_to_roll_back_to(project):
    project.run()
    before = project.points()
    report = project.run(full=True)
    outcome = report.indexes[0]
    assert report.state == "completed"
    assert f"verified {len(before)} points of 150 documents" in outcome.verified
    assert "20 of 20 sampled found themselves" in outcome.verified
    assert project.json("status")["indexes"][0]["collection"] == "test_notes__2"
    assert project.points() == before, "the same source, the same points: vectors are copied bit by bit"
    assert outcome.chunks_embedded == 0, "every text had a vector already"

    project.execute("DELETE FROM note WHERE id = 5")
    project.run()
    back = project.json("rollback", "notes")
    assert (back["before"], back["live"]) == ("test_notes__2", "test_notes__1")
    assert "5" in project.texts(), "the earlier collection is unchanged"
    status = project.json("status")["indexes"][0]
    assert (status["collection"], status["documents"]) == ("test_notes__1", 150), "the ledger went back with it"
    assert project.run().indexes[0].deleted == 1

    project.run(full=True)
    project.run(full=True)
    assert len(collections(project)) == 2, "the live collection and the previous one"
