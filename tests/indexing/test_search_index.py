"""What makes a collection searchable: its model named in it, payload indexes as settings say, HNSW where it pays."""

from __future__ import annotations

from contextlib import closing

import pytest

from rag_index.embedders import EmbedderIdentity
from rag_index.errors import StoreError
from rag_index.indexing import search_index as searchable
from rag_index.indexing.search_index import make_searchable, optimize, search_index_due
from rag_index.stores import open_store
from rag_index.stores.edge.store import EdgeStore
from tests.indexing.plain import run_plain
from tests.project import Project
from tests.retrieve.desk import Desk

IDENTITY = EmbedderIdentity("local", "wordllama", "d" * 64, 4, "doc: ", "query: ")


class Watched(EdgeStore):
    """Notes what is done to it."""

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.done: list[object] = []

    def index_fields(self, name, fields):
        self.done.append(dict(fields))
        super().index_fields(name, fields)

    def set_metadata(self, name, metadata):
        self.done.append("metadata")
        super().set_metadata(name, metadata)

    def optimize(self, name):
        self.done.append(f"optimize {name}")


@pytest.fixture
def store(tmp_path):
    with closing(Watched(tmp_path)) as store:
        store.create("c", 4, {"other": 1})
        yield store


def test_payload_indexes_follow_the_settings_and_nothing_is_done_twice(store):
    fields = {"priority": "keyword", "number": "float"}
    for _ in range(3):
        make_searchable(store, "c", IDENTITY, fields)
    assert store.done == [fields, "metadata"]
    assert EmbedderIdentity(**store.metadata("c")["embedder_identity"]) == IDENTITY
    assert store.metadata("c")["other"] == 1
    store.done.clear()
    make_searchable(store, "c", IDENTITY, {"priority": "integer"})
    assert store.done == [{"priority": "integer", "number": None}, "metadata"]
    store.done.clear()
    make_searchable(store, "c", IDENTITY, {})
    assert store.done == [{"priority": None}, "metadata"]


def test_documents_with_a_value_are_counted_by_an_index_also_in_a_collection_from_before(tmp_path):
    project = Project(tmp_path / "project").fill(2)
    run_plain(project)
    project.config.write_text(f'{project.config.read_text()}payload_indexes = {{ author = "keyword" }}\n')
    assert run_plain(project).message == ""
    with closing(open_store(project.settings.store)) as store:
        assert store.metadata("test_notes__1")["payload_indexes"] == {"author": "keyword", "_rag.chunk": "integer"}


def test_a_run_says_which_payload_indexes_are_empty(tmp_path):
    """SQLite has neither booleans nor JSON: it gives numbers and text, and filters that expect more find nothing."""
    project = Project(tmp_path / "project").fill(2)
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
        "the payload index on urgent is empty: its kind is bool, and the source gives whole numbers; "
        "the payload index on meta.tag is empty: its kind is keyword, and the source gives "
        "text or a number in place of an object"
    )


def test_a_collection_of_an_older_version_learns_its_model(store):
    make_searchable(store, "c", IDENTITY, {})
    assert store.done == ["metadata"]


def test_a_run_builds_only_what_is_large_and_lacks_it(store, monkeypatch):
    monkeypatch.setattr(store, "indexed", lambda name: False)
    monkeypatch.setattr(store, "count", lambda name: 100_000)
    assert not search_index_due(store, "c", 256, "auto")
    assert search_index_due(store, "c", 768, "auto")
    assert not search_index_due(store, "c", 768, "never")
    monkeypatch.setattr(store, "indexed", lambda name: True)
    assert not search_index_due(store, "c", 768, "auto")
    monkeypatch.setattr(store, "embedded", False)
    monkeypatch.setattr(store, "indexed", lambda name: False)
    assert not search_index_due(store, "c", 768, "auto")


def test_optimize_goes_through_the_indexes(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "desk").fill({"titles": [(1, "printer")]})
    with closing(open_store(desk.settings.store)) as store:
        (done,) = optimize(desk.settings, store)
        assert (done.index, done.collection, done.points, done.built, done.seconds) == (
            "titles",
            "desk_titles__1",
            1,
            False,
            0,
        )
        built = []
        monkeypatch.setattr(store, "indexed", lambda name: False)
        monkeypatch.setattr(store, "optimize", built.append)
        (done,) = optimize(desk.settings, store, ["titles"])
        assert (done.built, built) == (True, ["desk_titles__1"])
        with pytest.raises(StoreError, match="index comments is empty: `rag-index index comments` fills it"):
            list(optimize(desk.settings, store, ["comments"]))
    assert set(searchable.Optimized("a", "b", 1, False, 0.0).to_json()) == {
        "index",
        "collection",
        "points",
        "built",
        "seconds",
    }
