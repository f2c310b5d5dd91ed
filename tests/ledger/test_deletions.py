"""By what the delete guard decides: which documents the collection had when it was whole, and how large it was."""

import pytest
import sqlalchemy as sa

from rag_index.components.ledger.scans import DAY, DAYS
from rag_index.components.ledger.tables import documents, sizes
from tests.ledger.conftest import add


@pytest.fixture
def collection(ledger):
    return add(ledger, "a__1")


def test_the_largest_size_of_a_day_counts_for_so_many_days_and_is_then_forgotten(ledger, clock, collection):
    def largest():
        return ledger.largest_sizes(collection.id).get("", 0)

    for count in (300, 900, 400):
        ledger.note_size(collection.id, count)
    ledger.note_size(collection.id, 7, "comment")
    clock.now += (DAYS - 1) * DAY
    ledger.note_size(collection.id, 500)
    assert ledger.largest_sizes(collection.id) == {"": 900, "comment": 7}
    clock.now += DAY
    assert ledger.largest_sizes(collection.id) == {"": 500, "comment": 7}, "of parts, those before the last whole run"
    ledger.note_size(collection.id, 400)
    with ledger.transaction() as connection:
        kept = sa.select(sizes.c.documents).where(sizes.c.part == "").order_by(sizes.c.day)
        assert connection.scalars(kept).all() == [500, 400]
    clock.now -= 3 * DAY  # the clock was wrong: a day that is yet to come does not count
    assert largest() == 0
    ledger.note_size(collection.id, 300)
    clock.now += 3 * DAY
    assert largest() == 300


def test_what_is_gone_is_held_back_since_the_first_time_and_released(ledger, clock, collection):
    def held_since():
        with ledger.transaction() as connection:
            return connection.scalar(sa.select(documents.c.held_at).where(documents.c.key == "1"))

    cid = collection.id
    ledger.record(cid, [("1", b"t", b"p", 1), ("2", b"t", b"p", 1), ("3", b"t", b"p", 0)])
    ledger.begin_scan("p_notes")
    ledger.note_gone(["1", "3", "4"])
    assert ledger.count_deletions(collection).all == 1
    ledger.hold_back(collection)
    assert (ledger.held_of(cid, ["1", "2", "3"]), ledger.count_held(cid), held_since()) == ({"1"}, 1, clock.now)
    assert [row[0] for row in ledger.lost(cid)] == ["3", "4"]
    assert ledger.count_deletions(collection, held=False).all == 0
    first, clock.now = clock.now, clock.now + DAY
    ledger.hold_back(collection)
    assert held_since() == first
    ledger.release(cid)
    ledger.release(cid, ["2"], even_lost=True)
    assert ledger.count_held(cid) == 1
    ledger.release(cid, ["1"], even_lost=True)
    assert ledger.count_held(cid) == 0
