"""A rebuild beside the live collection: it is not shown before the store was counted against the ledger; and going back
to collections that are kept."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch
from rag_index.core.documents.keys import point_id
from rag_index.core.settings import Alias
from rag_index.errors import StoreMismatch
from rag_index.etl.changed import index_documents
from rag_index.etl.collection import verify_counts
from rag_index.etl.publish import publish_collection, roll_back
from tests.etl.plain import printed, run_plain

ALIAS = Alias("p", "notes")


@pytest.fixture
def store(project):
    with project.store() as opened:
        yield opened


def publish(ledger, store, number, *, keep, alias=ALIAS):
    """Make another collection of the alias, and show it."""
    collection = ledger.add_collection(
        alias=alias, name=f"{alias}__{number}", store_id=str(number), embedder_fingerprint="f", embedder="e",
        chunking="c", dimension=2, state="building",
    )  # fmt: skip
    store.create(collection.name, 2, {"store_id": str(number)})
    publish_collection(ledger, store, collection, keep=keep)


def there(ledger, store, alias=ALIAS):
    """The numbers of the alias's collections, in the store and in the ledger alike, and of the one that is shown."""
    stored = sorted(int(name.rpartition("__")[2]) for name in store.collections() if name.startswith(alias))
    assert stored == sorted(int(c.name.rpartition("__")[2]) for c in ledger.collections(alias))
    return stored, int(store.aliases()[alias].rpartition("__")[2])


@pytest.mark.parametrize(("keep", "kept"), [(0, [4]), (1, [3, 4]), (2, [2, 3, 4]), (9, [1, 2, 3, 4])])
def test_so_many_older_collections_are_kept(ledger, store, keep, kept):
    publish(ledger, store, 1, keep=keep, alias="p_other")
    for number in (1, 2, 3, 4):
        publish(ledger, store, number, keep=keep)
    assert there(ledger, store) == (kept, 4)
    assert there(ledger, store, "p_other") == ([1], 1), "another index's are its own"


def test_what_was_shown_until_now_is_kept_rather_than_a_newer_one_that_people_went_back_from(ledger, store):
    publish(ledger, store, 1, keep=1)
    publish(ledger, store, 2, keep=1)
    for _ in range(2):
        assert roll_back(ledger, store, ALIAS, "notes") == ("p_notes__2", "p_notes__1", 0)
        assert roll_back(ledger, store, ALIAS, "notes") == ("p_notes__1", "p_notes__2", 0)
    assert there(ledger, store) == ([1, 2], 2), "going back and forth moves nothing but the alias"
    roll_back(ledger, store, ALIAS, "notes")
    publish(ledger, store, 3, keep=1)
    assert there(ledger, store) == ([1, 3], 3)


def losing(chunk: int):
    """Let the store lose what is written of chunks of this number, without a word."""
    upsert = EdgeStore.upsert

    def write_too_few(store: EdgeStore, name: str, batch: PointBatch) -> None:
        kept = [row for row, payload in enumerate(batch.payloads) if payload[RESERVED_KEY]["chunk"] != chunk]
        ids, payloads = [batch.ids[row] for row in kept], [batch.payloads[row] for row in kept]
        upsert(store, name, PointBatch(ids, batch.vectors[kept], payloads))

    return mock.patch.object(EdgeStore, "upsert", write_too_few)


def test_a_run_whose_points_were_lost_on_the_way_says_so(project):
    project.fill(20)
    with losing(1), pytest.raises(StoreMismatch, match="the ledger explains"):
        run_plain(project)
    project.execute("DELETE FROM note")
    run_plain(project, full=True, allow_loss=True)
    project.fill(1, first=40)
    with losing(1):
        outcome = index_documents(project.settings, "notes", ["40"])
    assert (outcome.state, "the ledger explains" in outcome.message) == ("failed", True)


def test_points_that_no_document_explains_are_noticed_and_those_of_pending_ones_may_be_there(ledger, store):
    publish(ledger, store, 1, keep=0)
    [collection] = ledger.collections(ALIAS)
    foreign = PointBatch([point_id("notes", "7", 0)], np.ones((1, 2), np.float32), [{"_rag": {"key": "7"}}])
    store.upsert(collection.name, foreign)
    store.flush(collection.name)
    with pytest.raises(StoreMismatch, match="holds 1 points, the ledger explains 0"):
        verify_counts(ledger, store, collection)
    ledger.mark_pending(collection.id, ["7", "8"])
    assert verify_counts(ledger, store, collection) == (0, 0)


def wrong_vectors(store: EdgeStore, name: str, batch: PointBatch, *, upsert=EdgeStore.upsert) -> None:
    upsert(store, name, replace(batch, vectors=-batch.vectors))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (losing(0), "the ledger explains"),
        (losing(1), "the ledger explains"),  # not among those that are embedded again
        (mock.patch.object(EdgeStore, "upsert", wrong_vectors), "sampled chunks find themselves; it was not published"),
    ],
)
def test_a_rebuild_whose_points_are_not_right_is_never_shown(project, fault, message):
    run_plain(project.fill(30))
    before = project.points()
    project.write_settings(project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 150"))
    moved = mock.patch.object(EdgeStore, "point_alias", side_effect=AssertionError("the alias moved"))
    with fault, moved, pytest.raises(StoreMismatch, match=message):
        run_plain(project, full=True)
    assert project.points() == before


def test_nobody_goes_back_to_a_collection_that_a_rebuild_did_not_finish(ledger, store):
    publish(ledger, store, 1, keep=2)
    publish(ledger, store, 2, keep=2)
    killed = mock.patch.object(EdgeStore, "point_alias", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        publish(ledger, store, 3, keep=2)
    assert roll_back(ledger, store, ALIAS, "notes") == ("p_notes__2", "p_notes__1", 0)


def test_a_first_run_that_is_killed_once_its_collection_is_live_leaves_one_that_can_be_searched(project):
    killed = mock.patch("rag_index.etl.collection.make_searchable", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        project.fill(3).run()
    assert printed(project, "search", "printer")["hits"] == []


@pytest.mark.long
def test_a_rebuild_verifies_publishes_and_keeps_one_collection_to_roll_back_to(project):
    project.fill(150).run()
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
    assert "5" in project.texts(), "the earlier collection is unchanged"
    status = project.json("status")["indexes"][0]
    assert (status["collection"], status["documents"]) == ("test_notes__1", 150), "the ledger went back with it"
    assert project.run().indexes[0].deleted == 1

    project.run(full=True)
    project.run(full=True)
    with project.store() as store:
        assert len(store.collections()) == 2, "the live collection and the previous one"
