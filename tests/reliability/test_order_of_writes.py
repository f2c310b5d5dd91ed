"""The order of writes in every kind of run, checked at each write of the ledger. What the ledger
says is in the store, whole, with nothing left over, and survives a power cut: `test_every_step`
shows what follows from that, and could not tell if a flush were missing."""

import sqlite3
import uuid

import attrs
import pytest

from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.reports.progress import RunRecord
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from tests.project import Project
from tests.reliability.scenario import make_project
from tests.reliability.test_every_step import SCENES, SmallShards, SmallSteps, run_once


class Watch:
    """Checks the writes to a store and a ledger against each other."""

    def __init__(self, store, ledger) -> None:
        self.store, self.ledger = _Watched(store, self), _Watched(ledger, self)
        self._store, self._ledger = store, ledger
        self._unflushed: set[tuple[str, str]] = set()
        """The collections and keys that were written; a shard is recorded while the next one is
        written."""
        self.checked: dict[str, int] = {}
        self._complete: set[int] = set()
        """The collections whose scan was recorded as complete."""

    def name(self, collection_id: int) -> str:
        wanted = "SELECT name FROM rag_index_collections WHERE id = ?"
        with self._ledger.transaction() as connection:
            return str(connection.exec_driver_sql(wanted, (collection_id,)).scalar())

    def before(self, method: str, arguments: tuple) -> None:
        check = getattr(self, f"before_{method}", None)
        if check is not None:
            check(*arguments)
            self.checked[method] = self.checked.get(method, 0) + 1

    def before_upsert(self, collection: str, batch) -> None:
        keys = {payload[RESERVED_KEY]["key"] for payload in batch.payloads}
        self._are_pending(collection, keys)
        self._unflushed |= {(collection, key) for key in keys}

    def before_update_payloads(self, collection: str, payloads) -> None:
        keys = {payload[RESERVED_KEY]["key"] for _, payload in payloads}
        self._are_pending(collection, keys)
        self._unflushed |= {(collection, key) for key in keys}

    def before_delete_points(self, collection: str, ids) -> None:
        points = self._store.points(collection).retrieve(list(ids))
        self._are_pending(collection, {point.payload[RESERVED_KEY]["key"] for point in points})
        self._unflushed |= {(collection, "")} if ids else set()

    def before_delete_chunks(self, collection: str, first) -> None:
        self._are_pending(collection, set(first))
        self._unflushed |= {(collection, key) for key in first}

    def written(self, collection: str) -> set[tuple[str, str]]:
        """Return what was written to a collection and is not durable."""
        return {one for one in self._unflushed if one[0] == collection}

    def after_flush(self, written: set[tuple[str, str]]) -> None:
        self._unflushed -= written

    def before_set_commit_mark(self, collection: str, mark) -> None:
        assert not self.written(collection), "a commit is marked before its points are durable"

    def before_record_commit(self, collection_id: int, mark) -> None:
        assert self._store.points(self.name(collection_id)).commit_mark() == mark, (
            "the ledger commits before the store"
        )

    def before_record(self, collection_id: int, rows, *_) -> None:
        name = self.name(collection_id)
        for key, text_hash, payload_hash, chunks in rows:
            assert (name, key) not in self._unflushed, (
                f"{key} is recorded before its points are durable"
            )
            points = [
                p
                for p in self._store.points(name).scroll()
                if p.payload[RESERVED_KEY]["key"] == key
            ]
            ours = sorted((p.payload[RESERVED_KEY] for p in points), key=lambda one: one["chunk"])
            assert [one["chunk"] for one in ours] == list(range(chunks)), (
                f"{key} has stale or missing chunks"
            )
            assert {(one["text_hash"], one["payload_hash"]) for one in ours} <= {
                (text_hash.hex(), payload_hash.hex())
            }

    def before_complete_scan(self, _alias: str, collection_id: int, *_) -> None:
        self._complete.add(collection_id)

    def before_forget(self, collection_id: int, keys) -> None:
        name = self.name(collection_id)
        assert collection_id not in self._complete, (
            "the next run would not look for what is still to be deleted"
        )
        assert not self.written(name), "documents are forgotten before their deletion is durable"
        assert self._store.points(name).count(keys=list(keys)) == 0, (
            "documents are forgotten that have points"
        )

    def before_unmark_pending(self, collection_id: int, known, new) -> None:
        name = self.name(collection_id)
        assert not {(name, key) for key in (*known, *new)} & self._unflushed

    def _are_pending(self, collection: str, keys: set[str]) -> None:
        known = self._ledger.known(self._ledger.collection(collection).id, sorted(keys))
        assert {key for key, row in known.items() if row.pending} == keys, (
            "written before it is marked pending"
        )


class _Watched:
    """A store, the points of a collection (`of`) or a ledger, whose calls are checked before they
    are made."""

    def __init__(self, thing, watch: Watch, *of: str) -> None:
        self._thing, self._watch, self._of = thing, watch, of

    def __getattr__(self, name):
        attribute = getattr(self._thing, name)
        if name == "points":
            return lambda collection: _Watched(attribute(collection), self._watch, collection)
        if not callable(attribute):
            return attribute

        def call(*arguments, **named):
            arguments = tuple(
                list(one) if name == "record" and i else one for i, one in enumerate(arguments)
            )
            self._watch.before(name, (*self._of, *arguments, *named.values()))
            written = self._watch.written(*self._of) if name == "flush" else set()
            result = attribute(*arguments, **named)
            self._watch.after_flush(written)
            return result

        return call


def run_watched(project: Project, embedder, *, full: bool = False) -> dict[str, int]:
    """Run once, and return how many writes were checked."""
    options, record = RunOptions(full=full, allow_deletes=True), RunRecord("notes")
    with open_index(project.settings, "notes", options, run_id=str(uuid.uuid4())) as opened:
        watch = Watch(opened.store, opened.ledger)
        watched = attrs.evolve(opened, store=watch.store, ledger=watch.ledger)
        run_index(watched, SmallSteps(project.settings, embedder), record, documents=SmallShards())
    assert record.outcome.state == "completed", record.error
    return watch.checked


@pytest.mark.parametrize("scene", SCENES)
def test_the_ledger_says_what_the_store_durably_holds(folder, embedder, scene):
    before, change, full = SCENES[scene]
    project = make_project(folder / "p", 60)
    if before is not None:
        run_once(before(project), embedder)
    change(project)
    checked = run_watched(project, embedder, full=full)
    assert checked["record"] > 3
    if scene == "second":
        assert {
            "upsert",
            "update_payloads",
            "delete_points",
            "record",
            "forget",
            "complete_scan",
        } <= checked.keys()


def test_what_a_dead_run_left_is_cleaned_up_durably(folder, embedder):
    """Documents that are pending and gone, emptied, changed or shorter: the store is searched for
    their chunks."""
    project = make_project(folder / "p", 60)
    run_once(project, embedder)
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        db.execute("UPDATE rag_index_documents SET pending = 1, chunks = 1")
    project.execute("DELETE FROM note WHERE id <= 5")
    project.execute("UPDATE note SET title = '', body = '' WHERE id BETWEEN 6 AND 10")
    project.execute("UPDATE note SET title = 'short', body = '' WHERE id BETWEEN 11 AND 20")
    assert {"delete_chunks", "forget", "record"} <= run_watched(project, embedder).keys()
    assert sorted(map(int, project.texts())) == [i for i in range(11, 61) if i != 41]


def test_chunks_that_a_document_has_no_more_are_deleted_durably(folder, embedder):
    """Documents that become shorter: the ledger knows how many chunks they had."""
    project = make_project(folder / "p", 20)
    run_once(project, embedder)
    project.execute("UPDATE note SET title = 'short', body = '' WHERE id IN (5, 10)")
    assert {"upsert", "delete_points", "record"} <= run_watched(project, embedder).keys()
