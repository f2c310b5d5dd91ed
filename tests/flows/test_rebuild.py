"""Rebuilding beside the live collection, verifying, rolling back, and reusing vectors."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rag_index.embedders import open_embedder
from rag_index.indexing import run as run_module
from rag_index.indexing.publish import roll_back
from rag_index.ledger import Ledger
from rag_index.stores import VectorQuery, open_store
from tests.project import Project


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(150)


def collections(project: Project) -> set[str]:
    with project.store() as store:
        return set(store.collections())


def test_a_rebuild_verifies_publishes_and_keeps_one_collection_to_roll_back_to(project, record_property):
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
    record_property("rollback_seconds", back["seconds"])
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


def test_searching_through_rebuilds_and_rollbacks_never_fails_or_finds_nothing(project, monkeypatch):
    """Search from another thread of the process that holds the embedded store."""
    project.run()
    settings = project.settings
    store = open_store(settings.store)
    monkeypatch.setattr(run_module, "open_store", lambda *_, **__: _Shared(store))
    vector = open_embedder(settings.embedder).embed_query("printer network")
    answers: list[int] = []
    errors: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(len(store.search("test_notes", VectorQuery(np.asarray(vector), 5))))
            except Exception as error:
                errors.append(error)
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(2):
            assert project.run(full=True).state == "completed"
        ledger = Ledger(settings.ledger_url)
        turns = 0
        while turns < 20 or (len(answers) <= 100 and not errors):  # a busy machine searches seldom
            roll_back(ledger, store, "test_notes", "notes")
            turns += 1
        ledger.close()
    finally:
        stop.set()
        asking.join()
        store.close()
    assert not errors
    assert set(answers) == {5}


class _Shared:
    """A store that stays open when a run closes it."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def close(self) -> None:
        pass
