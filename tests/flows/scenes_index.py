"""Scenes of failures of documents, store and ledger, and of changes: each provokes one line of docs/failures.md.

A scene needs neither Prefect nor Dask. It checks what the run says, what the index then holds and what the next run
does, and returns the exit code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from rag_index import stores
from rag_index.indexing.step_retries import POLICIES
from rag_index.retrieve import Retriever
from tests.flows.stage import DOCUMENTS, Stage, does_the_rest, embeds, exit_code, fails, line
from tests.waiting import when

if TYPE_CHECKING:
    from tests.fakes.qdrant import FakeQdrant

# Single documents


@line("A value in a text column is not text")
def no_text(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.project.execute("UPDATE note SET body = x'0001' WHERE id = 7")
    outcome = stage.run()
    assert (outcome.failed, stage.listed()) == (1, {"7": 1})
    assert stage.project.texts() == before
    stage.project.execute("UPDATE note SET body = 'good' WHERE id = 7")
    does_the_rest(stage, sure=DOCUMENTS - 1)
    assert not stage.listed()
    return exit_code(outcome)


# Store, ledger and disk


@line("Qdrant does not answer")
def qdrant_away(stage: Stage, qdrant: FakeQdrant) -> int:
    assert POLICIES["upsert"].retries == 3, "the line says how often an upsert is tried again"
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    stage.set("shard_documents = 10", "shard_documents = 2")  # on a busy machine the stop comes some writes later
    stage.patch.setattr(stores, "_open_server", partial(stores._open_server, patience=0.5))
    # a shard puts its points and its commit's mark, and the mark of one goes beside the points of the next
    with when(lambda: qdrant.requests("PUT /collections/test_notes__1/points") >= 5, qdrant.stop):
        code = fails(stage.run(), qdrant.url.removeprefix("http://"))
    qdrant.start()
    does_the_rest(stage, sure=2)
    return code


@line("Qdrant refuses points")
def refused_points(stage: Stage, qdrant: FakeQdrant) -> int:
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fakes.qdrant.POISON", "author")
        stage.project.execute("UPDATE note SET author = NULL WHERE id <> 25")
        code = fails(stage.run(), "refuse")
    points = {payload["_rag"]["document_id"] for payload, _ in stage.project.points().values()}
    assert points == {str(number) for number in range(1, 31) if number != 25}, "the others of the shard are written"
    does_the_rest(stage, sure=20)
    return code


@line("Qdrant refuses a request")
def read_only(stage: Stage, qdrant: FakeQdrant) -> int:
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    stage.held()
    stage.project.fill(10, first=DOCUMENTS + 1)
    qdrant.read_only = True
    code = fails(stage.run(), "give the key more access", "[store] api_key")
    qdrant.read_only = False
    does_the_rest(stage, sure=DOCUMENTS)
    return code


@line("Ledger and store do not belong together")
def lost(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    kept, codes = stage.project.folder / ".rag-index", set()
    for what in ("ledger.db", "qdrant"):
        (kept / what).rename(kept / f"lost {what}")
        codes |= {fails(stage.run(), "rag-index rebuild") for _ in range(2)}
        assert stage.run(full=True, allow_loss=True).state == "completed"
        assert stage.project.texts() == before
    [code] = codes
    return code


# Changes that need a person


@line("Model, prefix or chunk size")
def other_settings(stage: Stage, _: FakeQdrant) -> int:
    before, codes = stage.held(), set()
    right = stage.project.config.read_text()
    for old, new, both in (
        ("chunk_chars = 200", "chunk_chars = 100", ("/200/20", "/100/20")),
        ("[parallel]", 'document_prefix = "passage: "\n[parallel]', ("fake-embed", "passage: ")),
    ):
        stage.project.write_settings(right)
        stage.set(old, new)
        codes |= {fails(stage.run(), *both, "rebuild notes") for _ in range(2)}
        assert stage.project.texts() == before
    stage.set("[parallel]", 'query_prefix = "query: "\n[parallel]')
    with Retriever(stage.project.settings) as retriever:
        assert retriever.search_sync("a question").hits
    assert embeds(stage, "a question")
    assert not embeds(stage, "query: a question")
    stage.project.write_settings(right)
    does_the_rest(stage, sure=DOCUMENTS)
    [code] = codes
    return code


@line("A rebuild fails")
def rebuild_fails(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.set("chunk_chars = 200", "chunk_chars = 100")
    stage.fake.clear()
    stage.fake.seconds_per_text = 0.02
    with when(lambda: embeds(stage, "ticket 30 "), stage.fake.stop_listening):
        code = fails(stage.run(full=True), stage.fake.url.removeprefix("http://"))
    assert stage.project.texts() == before
    stage.fake.listen()
    resumed = stage.run(full=True)
    assert (resumed.state, resumed.unchanged > 0) == ("completed", True)
    assert stage.project.texts() != before
    return code


@line("A rebuild has failed documents")
def rebuild_lacks(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.project.execute("UPDATE note SET body = 'POISON' WHERE id = 9")
    stage.fake.fault("status", code=400, marker="POISON")
    outcome = stage.run(full=True)
    assert "1 documents failed, so the rebuilt test_notes__2 was not published" in outcome.message
    assert stage.project.texts() == before
    stage.fake.clear()
    assert stage.run(full=True).state == "completed"
    assert stage.project.texts()["9"] == ["Note 9\nPOISON"]
    return exit_code(outcome)
