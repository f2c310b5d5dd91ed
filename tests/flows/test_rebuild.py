"""Rebuilding beside the live collection, verifying, rolling back, and reusing vectors."""

import pytest

from tests.project import Project


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(150)


def collections(project: Project) -> set[str]:
    with project.store() as store:
        return set(store.collections())


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


def test_a_rebuild_with_another_chunking_reuses_the_equal_chunks(project):
    project.run()
    before = project.points()
    project.write_settings(project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 120"))
    outcome = project.run(full=True).indexes[0]
    after = project.points()
    assert 0 < outcome.chunks_embedded < len(after)
    old = {payload["_rag"]["text"]: vector for payload, vector in before.values()}
    agreeing = [(old[p["_rag"]["text"]], v) for p, v in after.values() if p["_rag"]["text"] in old]
    assert len(agreeing) == len(after) - outcome.chunks_embedded
    assert all(vector == copied for vector, copied in agreeing)
