"""What makes a collection searchable: its model named in it, payload indexes as settings say, HNSW where it pays."""

from contextlib import closing
from types import SimpleNamespace

import pytest

from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.ledger import Ledger
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.server import ServerStore
from rag_index.etl import run as run_module
from rag_index.etl.changed import index_documents
from rag_index.etl.collection import make_searchable
from rag_index.etl.run import search_index_due
from tests.etl.plain import run_plain
from tests.project import Project

IDENTITY = EmbedderIdentity("local", "wordllama", "d" * 64, 4, "doc: ", "query: ")


def test_payload_indexes_follow_the_settings_and_nothing_is_done_twice(qdrant):
    with closing(ServerStore(qdrant.url)) as store:
        store.create("c", 4, {"other": 1})
        ours = dict(qdrant.indexes["c"])
        for fields in ({"priority": "keyword", "number": "float"}, {"priority": "integer"}, {}):
            make_searchable(store, "c", IDENTITY, fields)
            assert qdrant.indexes["c"] == ours | fields
            before = qdrant.requests("/collections/c/index"), qdrant.requests("PATCH")
            make_searchable(store, "c", IDENTITY, fields)
            assert (qdrant.requests("/collections/c/index"), qdrant.requests("PATCH")) == before
        metadata = store.metadata("c")
        assert (EmbedderIdentity(**metadata["embedder_identity"]), metadata["other"]) == (IDENTITY, 1)


def test_a_run_follows_the_payload_indexes_of_the_settings_and_says_which_are_empty(tmp_path):
    """SQLite has neither booleans nor JSON: it gives numbers and text, and filters that expect more find nothing."""
    project = Project(tmp_path / "project").fill(2)
    run_plain(project)
    for column, value in (("urgent", 1), ("meta", '{"tag": "x"}'), ("blank", None)):
        project.execute(f"ALTER TABLE note ADD {column}")
        project.execute(f"UPDATE note SET {column} = ?", value)
    kinds = {"urgent": "bool", "meta.tag": "keyword", "blank": "bool", "author": "keyword", "priority": "integer"}
    added = ", ".join(f'"{field}" = "{kind}"' for field, kind in kinds.items())
    text = project.config.read_text().replace(
        '["author", "priority"]', '["author", "priority", "urgent", "meta", "blank"]'
    )
    project.config.write_text(f"{text}payload_indexes = {{ {added} }}\n")
    assert run_plain(project).message == (
        "the payload index on urgent is empty: its kind is bool, and the source gives other values; "
        "the payload index on meta.tag is empty: its kind is keyword, and the source gives other values"
    )
    with project.store() as store:
        assert store.metadata("test_notes__1")["payload_indexes"] == {**kinds, "_rag.chunk": "integer"}


@pytest.mark.parametrize(
    ("dimension", "embedded", "indexed", "due"),
    [(256, True, False, False), (768, True, False, True), (768, True, True, False), (768, False, False, False)],
)
def test_a_run_builds_only_what_is_large_and_lacks_it(dimension, embedded, indexed, due):
    store = SimpleNamespace(embedded=embedded, indexed=lambda name: indexed, count=lambda name: 100_000)
    assert search_index_due(store, "c", dimension) == due


def test_a_run_is_complete_before_it_builds_the_search_index_and_single_documents_leave_it_to_runs(
    tmp_path, monkeypatch
):
    project, seen = Project(tmp_path / "project").fill(20), []

    def note_state(store, name):
        with closing(Ledger(project.settings.ledger_url)) as ledger:
            seen.append(ledger.last_run("test_notes").state)

    monkeypatch.setattr(run_module, "AUTO_MB", 0)
    monkeypatch.setattr(EdgeStore, "indexed", lambda store, name: False)
    monkeypatch.setattr(EdgeStore, "optimize", note_state)
    assert project.run().state == "completed"
    assert seen == ["completed"]
    project.execute("UPDATE note SET body = 'changed' WHERE id = 5")
    assert index_documents(project.settings, "notes", ["5"]).changed == 1
    assert seen == ["completed"]
