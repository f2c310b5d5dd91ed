"""By what the delete guard decides: which documents the collection had when it was whole, and how large it was."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from rag_index.ledger import Counts
from rag_index.ledger.deletions import DAY, DAYS
from rag_index.ledger.tables import documents, sizes


@pytest.fixture
def collection_id(ledger) -> int:
    return ledger.add_collection(
        alias="a", name="a__1", store_id="s", embedder_fingerprint="e", embedder="e", chunking="c", dimension=2,
        state="ready",
    ).id  # fmt: skip


def test_a_document_that_is_written_again_was_there_when_the_collection_was_whole(ledger, clock, collection_id):
    ledger.record(collection_id, [("1", b"t", b"p", 1), ("2", b"t", b"p", 1)])
    ledger.update_collection(collection_id, whole_at=ledger.clock())
    clock.now += DAY
    ledger.mark_pending(collection_id, ["1", "3"])
    ledger.record(collection_id, [("1", b"other", b"p", 1), ("3", b"t", b"p", 1)])
    assert ledger.count_documents(ledger.collection("a__1")) == Counts(all=3, whole=2, held=0)


def test_a_size_counts_for_so_many_days_and_is_then_forgotten(ledger, clock, collection_id):
    ledger.note_size(collection_id, 900)
    clock.now += (DAYS - 1) * DAY
    ledger.note_size(collection_id, 500)
    assert ledger.largest_size(collection_id) == 900
    clock.now += DAY
    assert ledger.largest_size(collection_id) == 500
    ledger.note_size(collection_id, 400)
    with ledger.transaction() as connection:
        kept = connection.scalars(sa.select(sizes.c.documents).order_by(sizes.c.day)).all()
    assert kept == [500, 400]


def test_a_size_of_a_day_that_is_yet_to_come_does_not_count(ledger, clock, collection_id):
    """The clock was wrong and was set right."""
    ledger.note_size(collection_id, 900)
    clock.now -= 3 * DAY
    assert ledger.largest_size(collection_id) == 0
    ledger.note_size(collection_id, 500)
    clock.now += 3 * DAY
    assert ledger.largest_size(collection_id) == 500


def test_the_largest_size_of_a_day_counts(ledger, collection_id):
    for count in (300, 500, 400):
        ledger.note_size(collection_id, count)
    assert ledger.largest_size(collection_id) == 500


def test_deletions_of_batches_count_for_a_day(ledger, clock, collection_id):
    ledger.note_batch_deletions(collection_id, 10)
    clock.now += 23 * 3600
    ledger.note_batch_deletions(collection_id, 5)
    ledger.note_batch_deletions(collection_id, 5)
    assert ledger.count_batch_deletions(collection_id) == 20
    clock.now += 2 * 3600
    assert ledger.count_batch_deletions(collection_id) == 10
    clock.now -= 100 * DAY  # the clock was set back
    ledger.note_batch_deletions(collection_id, 1)
    assert ledger.count_batch_deletions(collection_id) == 1
    ledger.release_all(collection_id)
    assert ledger.count_batch_deletions(collection_id) == 0


def test_documents_that_are_named_are_held_back_and_released(ledger, collection_id):
    ledger.record(collection_id, [("1", b"t", b"p", 1), ("2", b"t", b"p", 1), ("3", b"t", b"p", 0)])
    assert ledger.count_deletions(ledger.collection("a__1"), ["1", "3", "4"]).all == 1
    ledger.hold_back_named(collection_id, ["1", "3", "4"])
    assert (ledger.held_of(collection_id, ["1", "2", "3"]), ledger.count_held(collection_id)) == ({"1"}, 1)
    assert ledger.count_deletions(ledger.collection("a__1"), ["1", "2"]).all == 1
    ledger.release_named(collection_id, ["1"])
    assert ledger.count_held(collection_id) == 0


def test_a_document_is_held_back_since_the_first_time(ledger, clock, collection_id):
    def held_since():
        with ledger.transaction() as connection:
            return connection.scalar(sa.select(documents.c.held_at))

    ledger.record(collection_id, [("1", b"t", b"p", 1)])
    ledger.hold_back_named(collection_id, ["1"])
    first = held_since()
    clock.now += DAY
    ledger.hold_back_named(collection_id, ["1"])
    assert held_since() == first
    ledger.begin_scan()
    ledger.hold_back(ledger.collection("a__1"), whole=False)
    assert held_since() == first
