"""What a commit leaves of a failed document whose process died: what it had, whole, or nothing."""

from unittest import mock

import numpy as np
import pytest

from rag_index.components.ledger import Known
from rag_index.core.documents.batches import DocumentBatch, Failure, PointBatch, Shard, ShardStats, WrittenShard
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.groups import stored_groups
from rag_index.core.documents.keys import encode_key, point_id
from rag_index.errors import StoreMismatch
from rag_index.etl.collection import verify_counts
from rag_index.etl.commit import Committer, update_payloads
from tests.components.ledger.conftest import add
from tests.etl.plain import Died, die, run_plain

OLD, NEW, PAYLOAD = hash_text("old"), hash_text("new"), hash_text("{}")


@pytest.fixture
def store(project):
    with project.store() as opened:
        opened.create("p_notes__1", 2, {})
        yield opened


def write(store, key: str, text_hash: bytes, chunks: range) -> None:
    ours = {"key": key, "text_hash": text_hash.hex(), "payload_hash": PAYLOAD.hex()}
    ids = [point_id("notes", key, number) for number in chunks]
    payloads = [{"_rag": {**ours, "chunk": number}} for number in chunks]
    store.upsert("p_notes__1", PointBatch(ids, np.ones((len(ids), 2), np.float32), payloads))
    store.flush("p_notes__1")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("left", ["all", "all but one chunk", "one new chunk"])
def test_a_document_keeps_what_it_had_if_nothing_new_was_written_and_otherwise_loses_all(ledger, store, left, earlier):
    """A failed document holds what it had whole, or nothing: never a part of a text that was not committed. It killed
    its worker, or had been pending since an `earlier` run died."""
    collection = add(ledger)
    ledger.record(collection.id, [("7", OLD, PAYLOAD, 2)])
    write(store, "7", OLD, range(2))
    write(store, "8", NEW, range(3))
    intact = left == "all"
    if left == "one new chunk":
        write(store, "7", NEW, range(1))
    elif not intact:
        store.delete_points("p_notes__1", [point_id("notes", "7", 1)])
    committer, keys = Committer("notes", ledger, store, collection), ["7", "8"]
    if earlier:
        ledger.mark_pending(collection.id, keys)
    committer.begin(Shard("notes", 1, DocumentBatch(keys, [], [], [], []), 0))
    failures = [Failure(key, "it kills", NEW, died=not earlier) for key in keys]
    committer.commit(WrittenShard(1, [], [], [], [], failures, ShardStats()))
    assert {point.payload["_rag"]["key"] for point in store.scroll("p_notes__1")} == ({"7"} if intact else set())
    assert ledger.known(collection.id, ["7", "8"]) == ({"7": Known(OLD, PAYLOAD, 2, 0)} if intact else {})
    assert verify_counts(ledger, store, collection) == ((1, 2) if intact else (0, 0))
    tries = {key: one.tries for key, one in ledger.failures(collection.id).items()}
    assert tries == dict.fromkeys("78", 2 if earlier else 1), "the run that died was a try as well"


@pytest.mark.parametrize(("points", "pending"), [(2, False), (1, False), (2, True)])
def test_what_is_pending_or_lacks_points_is_not_up_to_date_because_its_groups_changed(ledger, store, points, pending):
    collection = add(ledger)
    ledger.record(collection.id, [("7", OLD, PAYLOAD, 2)])
    write(store, "7", OLD, range(points))
    if pending:
        ledger.mark_pending(collection.id, ["7"])
    before, whole = ledger.known(collection.id, ["7"]), points == 2 and not pending
    committer = Committer("notes", ledger, store, collection)
    assert update_payloads(committer, {"7": ["board"]}, before, alone=False) == ({"7"} if whole else set())
    assert [stored_groups(point.payload) for point in store.scroll("p_notes__1")] == [["board"]] * points
    assert (ledger.known(collection.id, ["7"]) == before) == (not whole)


def test_a_file_that_is_excluded_after_a_run_died_loses_the_points_that_the_run_wrote(project):
    """The ledger has it as pending and without chunks."""
    head = project.config.read_text().partition("[[indexes]]")[0]
    project.write_settings(f'{head}[[indexes]]\nname = "notes"\nkind = "code"\nroot = "src"\n')
    (project.folder / "src").mkdir()
    for name in ("kept.py", "excluded.py"):
        (project.folder / "src" / name).write_text("def f():\n    return 1\n")
    with mock.patch.object(Committer, "commit", die), pytest.raises(Died):
        run_plain(project)
    (project.folder / "src" / "excluded.py").write_bytes(b"now = 'binary'\0")
    run_plain(project, allow_deletes=True)
    assert {payload["_rag"]["key"] for payload, _ in project.points().values()} == {encode_key(["kept.py"])}


def test_a_document_without_its_points_is_embedded_although_its_payload_alone_changed(project):
    run_plain(project.fill(3))
    with project.store() as store:
        lost = next(point for point in store.scroll("test_notes", vectors=True) if point.payload["_rag"]["key"] == "2")
        vector = np.asarray([lost.vector], np.float32)
        store.delete_points("test_notes", [lost.id])
        store.upsert("test_notes", PointBatch([point_id("notes", "9", 0)], vector, [lost.payload]))  # as many as before
    project.execute("UPDATE note SET author = 'another' WHERE id = 2")
    with pytest.raises(StoreMismatch):  # of the point that no document explains
        run_plain(project)
    assert project.points()[lost.id][0]["author"] == "another"
