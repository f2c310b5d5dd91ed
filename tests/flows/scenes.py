"""Scenes of failures and of changes that need a person: each provokes one line of docs/failures.md.

A scene needs neither Prefect nor Dask. It checks what the run says, what the index then holds and what the next run
does, and returns the exit code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rag_index.components.sources.sql import SqlSource
from rag_index.search import Retriever
from tests.flows.stage import DOCUMENTS, Stage, does_the_rest, embeds, exit_code, fails, line
from tests.waiting import when

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.qdrant import FakeQdrant

ENDLESS = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)"

# Settings and source


@line("A setting, a table or a column is missing")
def wrong_settings(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    stage.project.execute("DELETE FROM note WHERE id = 1")
    right = stage.project.config.read_text()
    codes = set()
    for old, new, words in (
        ('table = "note"', 'table = "nothing"', "table 'nothing' cannot be read"),
        ('"body"]', '"nothing"]', "nothing"),
        ('table = "note"', 'query = "SELECT nullif(id, 3) AS id, title, body, author, priority FROM note"', "NULL"),
    ):
        stage.set(old, new)
        codes |= {fails(stage.run(), words) for _ in range(2)}
        assert stage.project.texts() == before
        stage.project.write_settings(right)
    stage.project.fill(20, first=DOCUMENTS + 1)
    stage.set('table = "note"', 'query = "SELECT * FROM note UNION ALL SELECT * FROM note WHERE id = 60"')
    pages_of(stage, 20)
    codes |= {fails(stage.run(), "60") for _ in range(2)}
    assert stage.project.texts().items() >= before.items(), "nothing was deleted"
    stage.project.write_settings(right)
    assert stage.run().deleted == 1
    [code] = codes
    return code


def pages_of(stage: Stage, rows: int, then: Callable[[int], None] = lambda _: None) -> None:
    """Read pages of so many rows, and do `then` with the number of each before it is read."""
    read, numbers = SqlSource.page, iter(range(10_000))

    def page(source, cursor, _):
        then(next(numbers))
        return read(source, cursor, rows)

    stage.patch.setattr(SqlSource, "page", page)


@line("The source does not answer at the start")
def source_away(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    right = stage.project.config.read_text()
    stage.set("sqlite:///source.db", "postgresql://nobody@127.0.0.1:9/nothing")
    code = fails(stage.run(), "127.0.0.1:9", "does not answer")
    assert stage.project.texts() == before
    stage.project.write_settings(right)
    does_the_rest(stage, sure=DOCUMENTS)
    return code


@line("A query of the source hangs")
def source_hangs(stage: Stage, _: FakeQdrant) -> int:
    stage.held()
    stage.project.execute("DELETE FROM note WHERE id = 1")
    stage.project.fill(40, first=DOCUMENTS + 1)
    right = stage.project.config.read_text()
    columns = f"id, title, CASE WHEN id > 70 THEN {ENDLESS} ELSE body END AS body, author, priority"
    stage.set('table = "note"', f'query = "SELECT {columns} FROM note"')
    stage.set('source.db"', 'source.db"\ntimeout = 0.5')
    pages_of(stage, 20)
    code = fails(stage.run(), "did not answer a query within 0.5 s", "[source] timeout")
    assert "1" in stage.project.texts(), "nothing was deleted"
    assert len(stage.project.texts()) > DOCUMENTS
    stage.project.write_settings(right)
    does_the_rest(stage, sure=DOCUMENTS)
    return code


# The embedder


@line("The embedder does not answer at the start")
def embedder_away(stage: Stage, _: FakeQdrant) -> int:
    before = stage.held()
    assert stage.project.settings.embedder.timeout == 120
    stage.fake.stop_listening()
    code = fails(stage.run(), stage.fake.url.removeprefix("http://"))
    stage.fake.restart(model="another")
    assert fails(stage.run(), "ollama pull fake-embed") == code
    assert stage.project.texts() == before
    stage.fake.model = "fake-embed"
    does_the_rest(stage, sure=DOCUMENTS)
    return code


@line("The model's weights change in the middle")
def weights_change(stage: Stage, _: FakeQdrant) -> int:
    stage.fake.seconds_per_text, digest = 0.02, stage.fake.digest
    with when(lambda: embeds(stage, "ticket 21 "), lambda: stage.fake.restart(digest="ee" * 32)):
        code = fails(stage.run(), "with weights eeeeeeeeeeee")
    assert stage.project.texts()
    assert fails(stage.run(), "rebuild notes") == code
    stage.fake.restart(digest=digest)
    does_the_rest(stage)
    return code


@line("A chunk gets no context")
def no_context(stage: Stage, _: FakeQdrant) -> int:
    table = f'[indexes.context]\nmodel = "{stage.fake.model}"\nhosts = ["{stage.fake.url}"]\n'
    stage.project.write_settings(stage.project.config.read_text() + table)
    stage.fake.fault("generated", path="/api/generate", marker="ticket 40 ", response="")
    outcome = stage.run()
    assert (outcome.failed, outcome.incomplete) == (0, 1)
    assert f"{outcome.contexts_missing} chunks are without context" in outcome.message
    assert stage.listed().keys() == {"40"}
    assert len(stage.project.texts()) == DOCUMENTS
    assert stage.run().nothing_to_do
    return exit_code(outcome)


# Single documents


# Store, ledger and disk


@line("Qdrant does not answer")
def qdrant_away(stage: Stage, qdrant: FakeQdrant) -> int:
    stage.project = stage.make("server", f'[store]\nurl = "{qdrant.url}"\n')
    stage.set("shard_documents = 10", "shard_documents = 2")  # on a busy machine the stop comes some writes later
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
