"""Runs of hybrid indexes: every way to write a document writes its words too."""

from pathlib import Path

import pytest

from rag_index import Retriever
from rag_index.components.embedders.bm25 import BM25_VERSION, Bm25Encoder, Bm25Model
from rag_index.core.documents.batches import StoredPoint
from tests.etl.plain import printed
from tests.project import SETTINGS, Project, run_here

DENSE = SETTINGS.format(extra="") + 'search = "dense"\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project").fill(60)


def points(project: Project) -> dict[str, StoredPoint]:
    """Return the live points with both vectors."""
    with project.store() as store:
        return {point.id: point for point in store.scroll(project.settings.alias("notes"), vectors=True)}


def check_words(project: Project, language: str = "english") -> dict[str, StoredPoint]:
    """Check that every point has exactly the sparse vector of its text and of its document's names, and return them."""
    found, encoder = points(project), Bm25Encoder(Bm25Model(language))
    for point in found.values():
        ours = point.payload["_rag"]
        names = () if ours["chunk"] else (ours["document_id"], "", ours["text"].partition("\n")[0])
        assert point.sparse == encoder.documents([ours["text"]], names=[names]).row(0)
    return found


def best(project: Project, query: str) -> str:
    with Retriever.from_settings(project.config) as retriever:
        return retriever.search_sync(query).hits[0].document_id


def test_a_run_and_single_documents_write_words_that_follow_the_text(project: Project) -> None:
    assert project.run().state == "completed"
    before = check_words(project)
    project.execute("UPDATE note SET body = 'the gate shows XQ-77' WHERE id = 10")  # it had several chunks
    project.execute("UPDATE note SET author = 'somebody' WHERE id = 11")
    project.execute("DELETE FROM note WHERE id = 12")
    assert project.run().state == "completed"
    after = check_words(project)
    assert len(after) < len(before)
    assert best(project, "XQ-77") == "10"
    project.execute("UPDATE note SET body = 'the gate shows ZZ-12' WHERE id = 13")
    run_here(project.config, "index", "notes", "--id", "13")
    check_words(project)
    assert best(project, "ZZ-12") == "13"


@pytest.mark.long
@pytest.mark.parametrize("before", ["no words", "words of another version"])
def test_an_index_gets_its_words_by_a_rebuild_that_embeds_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    with monkeypatch.context() as older:
        older.setattr(Bm25Model.__init__, "__defaults__", (False, BM25_VERSION - 1))
        if before == "no words":
            project.write_settings(DENSE)
        assert project.run().state == "completed"
    old = points(project)
    assert {point.sparse is None for point in old.values()} == {before == "no words"}
    project.write_settings(SETTINGS.format(extra=""))
    refused = project.run().indexes[0]
    assert refused.state == "failed"
    assert f"bm25-{BM25_VERSION}-english" in refused.message
    assert "rag-index rebuild notes" in refused.message
    assert best(project, "Note 7")  # it is searched by meaning until then
    assert project.run(full=True).state == "completed"
    hybrid = check_words(project)
    assert {i: point.vector for i, point in hybrid.items()} == {i: point.vector for i, point in old.items()}
    [metrics] = [
        run["metrics"] for run in printed(project, "status", "--report")["runs"] if run["metrics"].get("reused")
    ]
    assert (metrics["texts"], metrics["reused"]) == (0, len(hybrid))
