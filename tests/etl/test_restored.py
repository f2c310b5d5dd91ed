"""A store or a ledger that was put back to an older copy is noticed by whoever looks, and a run
mends it."""

import os
import uuid
from contextlib import nullcontext
from functools import partial
from unittest import mock

import pytest
from qdrant_client import QdrantClient, models

from rag_index.care.doctor import examine, repair
from rag_index.care.index_status import status
from rag_index.care.plan import plan_runs
from rag_index.components.stores.edge.edge_points import EdgePoints
from rag_index.core.documents.batches import CommitMark
from rag_index.errors import StoreRestored
from rag_index.etl import upsert
from rag_index.etl.changed import index_documents
from tests.etl.plain import Died, die, run_plain
from tests.live.qdrant import SERVERS, project_on
from tests.project import Project, run_here
from tests.twin import LEDGER, POINTS, STORE, back_up, restore

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

OLDER = "put back to an older copy"


def edit(project: Project) -> None:
    """Change texts, a payload and the number of chunks, and delete, empty and add a document;
    points stay as many."""
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id IN (5, 6, 20)")
    project.execute("UPDATE note SET author = 'somebody else' WHERE id = 7")
    project.execute("DELETE FROM note WHERE id = 8")
    project.execute("UPDATE note SET title = '', body = NULL WHERE id = 9")
    project.execute(
        "INSERT INTO note SELECT 31, title, body, author, priority FROM note WHERE id = 10"
    )


@pytest.fixture
def project(indexed_notes) -> Project:
    return indexed_notes(30)


def assert_right(project: Project) -> None:
    """Check that the index is as one that is made of the source now, and that nobody finds anything
    to say."""
    fresh = Project(project.folder.parent / f"fresh-{uuid.uuid4().hex}")
    with project.source() as db, fresh.source() as other:
        rows = db.execute("SELECT id, title, body, author, priority FROM note").fetchall()
        other.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", rows)
    run_plain(fresh)
    assert (contents(project), examine(project.settings).findings) == (contents(fresh), [])
    assert (status(project.settings).indexes[0].restored, run_plain(project).message) == ("", "")


def contents(project: Project):
    ours = [(payload["_rag"], payload["author"]) for payload, _ in project.points().values()]
    return sorted((one["document_id"], one["chunk"], one["text"], author) for one, author in ours)


@pytest.mark.long
@pytest.mark.parametrize("part", [STORE, POINTS])
@pytest.mark.parametrize("digest", [False, True])
def test_a_store_that_was_put_back_is_mended_by_the_next_run(
    project, tmp_path, monkeypatch, part, digest
):
    if digest:  # which would leave unread what has not changed in the source
        monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
        run_plain(project)
    kept = back_up(project, tmp_path / "kept", part)
    edit(project)
    run_plain(project)
    restore(project, kept, part)
    outcome = run_plain(project)
    assert "the store was " + OLDER in outcome.message
    assert "5 documents to index again, 2 deleted documents to delete again" in outcome.message
    assert (outcome.state, outcome.changed + outcome.payload_only, outcome.deleted) == (
        "completed",
        5,
        2,
    )
    assert_right(project)


@pytest.mark.parametrize(("column", "died"), [("body", False), ("author", True)])
def test_a_ledger_that_was_put_back_is_noticed_even_if_the_source_was_too(
    project, tmp_path, column, died
):
    """The ledger says what the source has again, the points are as many, and a run may die before
    its first commit."""
    kept = back_up(project, tmp_path / "kept", LEDGER)
    old = project.source().execute(f"SELECT {column} FROM note WHERE id = 5").fetchone()
    project.execute(f"UPDATE note SET {column} = 'another' WHERE id = 5")
    dying = mock.patch.object(EdgePoints, "flush", die) if died else nullcontext()
    with dying, pytest.raises(Died) if died else nullcontext():
        run_plain(project)
    project.execute(f"UPDATE note SET {column} = ? WHERE id = 5", *old)
    restore(project, kept, LEDGER)
    assert "the ledger was " + OLDER in run_plain(project).message
    assert_right(project)


def test_documents_that_an_older_ledger_does_not_know_stay_until_the_source_is_asked(
    project, tmp_path
):
    kept = back_up(project, tmp_path / "kept", LEDGER)
    edit(project)
    project.fill(1, first=32)
    run_plain(project)
    restore(project, kept, LEDGER)
    project.execute("DELETE FROM note WHERE id = 31")
    with mock.patch("rag_index.etl.collection.make_searchable", die), pytest.raises(Died):
        run_plain(project)
    assert {"31", "32"} <= project.texts().keys()
    assert run_plain(project).deleted == 3, "8, which an older ledger has, 9 without text, and 31"
    assert_right(project)


def test_a_store_of_another_history_with_as_many_commits_is_noticed(project, tmp_path):
    first = back_up(project, tmp_path / "first", STORE, LEDGER)
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    run_plain(project)
    abandoned = back_up(project, tmp_path / "abandoned", STORE)
    restore(project, first, STORE, LEDGER)
    project.execute("UPDATE note SET body = 'the valve is mended' WHERE id = 5")
    run_plain(project)
    restore(project, abandoned, STORE)
    assert OLDER in run_plain(project).message
    assert_right(project)


def test_everybody_who_looks_says_so_single_documents_leave_it_and_doctor_has_it_mended(
    project, tmp_path
):
    kept = back_up(project, tmp_path / "kept", STORE)
    edit(project)
    run_plain(project)
    restore(project, kept, STORE)
    refused = index_documents(project.settings, "notes", ["5"])
    assert (refused.state, OLDER in refused.message) == ("failed", True)
    said = status(project.settings).indexes[0].restored
    assert "the store was " + OLDER in said
    assert "`rag-index index notes` compares every point" in said
    assert f"notes: {said}\n" in run_here(project.config, "status")[0]
    assert plan_runs(project.settings, project.settings.indexes)[0].message == said
    found = {one.kind: one.count for one in examine(project.settings).findings}
    assert found == {"restored": 1, "different_documents": 6, "orphan_points": 1}
    repaired = repair(project.settings)
    assert (repaired.findings, {one.kind: one.count for one in repaired.repaired}) == ([], found)
    assert status(project.settings).indexes[0].restored == ""
    run_plain(project)
    assert_right(project)


def test_a_store_that_is_put_back_while_a_run_writes_it_ends_the_run(project):
    """Otherwise the next commit would write its mark over the only trace."""
    write = upsert.write_shard

    def put_back(points, shard, **how):
        written = write(points, shard, **how)
        points.set_commit_mark(CommitMark())
        return written

    edit(project)
    with (
        mock.patch.object(upsert, "write_shard", put_back),
        pytest.raises(StoreRestored, match="while a run wrote it"),
    ):
        run_plain(project)
    assert OLDER in run_plain(project).message
    assert_right(project)


def test_a_rebuild_does_not_resume_a_collection_that_was_put_back(project, tmp_path):
    project.write_settings(
        project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 120")
    )
    with pytest.raises(Died):
        run_plain(project, full=True, delete=False)
    kept = back_up(project, tmp_path / "kept", STORE)
    edit(project)
    with pytest.raises(Died):
        run_plain(project, full=True, delete=False)
    restore(project, kept, STORE)
    outcome = run_plain(project, full=True)
    assert (outcome.state, outcome.new, outcome.unchanged) == ("completed", 29, 0)
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    with project.store() as store, project.ledger() as ledger:
        known = {one.name for one in ledger.collections(project.settings.alias("notes"))}
        assert set(store.collections()) == known, "what was put back is dropped"


# On a server


@pytest.fixture(params=SERVERS)
def served(request, tmp_path):
    """An indexed project on a server, and a client that stands for who restores a snapshot."""
    with project_on(request.param, partial(Project, tmp_path / "project")) as project:
        run_plain(project.fill(30))
        url, real = project.settings.store.url, request.param == "real"
        client = QdrantClient(
            url, api_key=os.environ.get("QDRANT_API_KEY") if real else None, timeout=120
        )
        yield project, client, f"{project.settings.alias('notes')}__1", real


@pytest.mark.long
def test_a_snapshot_that_is_recovered_into_the_collection_is_noticed_and_mended(served):
    """A server then puts the points back, and leaves the metadata as it is."""
    project, client, name, real = served
    kept = (
        client.create_snapshot(name)
        if real
        else client.scroll(name, limit=1000, with_vectors=True)[0]
    )
    edit(project)
    run_plain(project)
    if real:
        location = f"{os.environ['QDRANT_URL']}/collections/{name}/snapshots/{kept.name}"
        client.recover_snapshot(name, location, api_key=os.environ.get("QDRANT_API_KEY"), wait=True)
    else:
        client.delete(name, models.Filter())
        points = [
            models.PointStruct(id=one.id, vector=one.vector or {}, payload=one.payload)
            for one in kept
        ]
        client.upsert(name, points)
    assert OLDER in status(project.settings).indexes[0].restored
    assert (
        "5 documents to index again, 2 deleted documents to delete again"
        in run_plain(project).message
    )
    assert_right(project)
