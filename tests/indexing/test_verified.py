"""No run ends well, and no rebuild is shown, before the store was counted against the ledger."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest

from rag_index.documents.batches import RESERVED_KEY, PointBatch
from rag_index.errors import StoreMismatch
from rag_index.indexing.changed import index_documents
from rag_index.stores.edge.store import EdgeStore
from tests.indexing.plain import run_plain
from tests.project import Project


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(30)
    assert run_plain(project).state == "completed"
    return project


def losing(chunk: int):
    """Let the store lose what is written of chunks of this number, without a word."""
    upsert = EdgeStore.upsert

    def write_too_few(store: EdgeStore, name: str, batch: PointBatch) -> None:
        kept = [row for row, payload in enumerate(batch.payloads) if payload[RESERVED_KEY]["chunk"] != chunk]
        ids, payloads = [batch.ids[row] for row in kept], [batch.payloads[row] for row in kept]
        upsert(store, name, PointBatch(ids, batch.vectors[kept], payloads))

    return mock.patch.object(EdgeStore, "upsert", write_too_few)


@pytest.mark.parametrize("documents", [0, 5], ids=["the first run", "a later run"])
def test_a_run_whose_points_were_lost_on_the_way_says_so(tmp_path, documents):
    project = Project(tmp_path / "project")
    if documents:
        run_plain(project.fill(documents))
    project.fill(20, first=6)
    with losing(1), pytest.raises(StoreMismatch, match=r"after the run .* the ledger explains"):
        run_plain(project)


def test_a_run_of_one_document_whose_points_were_lost_on_the_way_says_so(project):
    project.fill(1, first=40)
    with losing(1):
        outcome = index_documents(project.settings, "notes", ["40"])
    assert (outcome.state, "after the run" in outcome.message) == ("failed", True)


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_rebuild_that_lost_points_on_the_way_is_never_shown(project, chunk):
    """Second chunks are not among those that are embedded again to see whether they find themselves."""
    before = project.points()
    with (
        losing(chunk),
        mock.patch.object(EdgeStore, "point_alias", side_effect=AssertionError("the alias moved")),
        pytest.raises(StoreMismatch, match="the ledger explains"),
    ):
        run_plain(project, full=True)
    assert project.points() == before


def test_a_rebuild_whose_vectors_are_not_those_of_its_texts_is_never_shown(project):
    before, upsert = project.points(), EdgeStore.upsert
    project.write_settings(project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 150"))

    def write_wrong_vectors(store: EdgeStore, name: str, batch: PointBatch) -> None:
        upsert(store, name, replace(batch, vectors=-batch.vectors))

    with (
        mock.patch.object(EdgeStore, "upsert", write_wrong_vectors),
        mock.patch.object(EdgeStore, "point_alias", side_effect=AssertionError("the alias moved")),
        pytest.raises(StoreMismatch, match="sampled chunks find themselves; it was not published"),
    ):
        run_plain(project, full=True)
    assert project.points() == before
