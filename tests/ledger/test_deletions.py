"""By what the delete guard decides: which documents the collection had when it was whole, and how large it was."""

import pytest

from rag_index.components.ledger.scans import DAY
from tests.ledger.conftest import add


@pytest.fixture
def collection(ledger):
    return add(ledger, "a__1")


def test_the_largest_size_counts_for_a_day(ledger, clock, collection):
    def largest():
        return ledger.largest_sizes(collection.id).get("", 0)

    for count in (300, 900, 400):
        ledger.note_size(collection.id, count)
    ledger.note_size(collection.id, 7, "comment")
    clock.now += DAY - 1
    ledger.note_size(collection.id, 500)
    assert ledger.largest_sizes(collection.id) == {"": 900, "comment": 7}
    clock.now += 2
    assert ledger.largest_sizes(collection.id) == {"comment": 7}, "of parts, those before the last whole run"
    ledger.note_size(collection.id, 400)
    assert largest() == 400
    clock.now -= 3 * DAY  # the clock was wrong: a day that is yet to come does not count
    assert largest() == 0
    ledger.note_size(collection.id, 300)
    assert largest() == 300


def test_what_is_held_back_is_known_with_its_time_until_it_is_none(ledger, clock, collection):
    def now():
        found = ledger.collection("a__1")
        return found.held, found.held_since

    ledger.hold_back(collection, 5)
    first, clock.now = clock.now, clock.now + DAY
    assert now() == (5, first)
    assert ledger.gaps_since(collection.id) == first, "nothing is complete since then"
    ledger.hold_back(ledger.collection("a__1"), 7)
    assert now() == (7, first)
    ledger.hold_back(ledger.collection("a__1"), 0)
    assert now() == (0, None)
    assert ledger.gaps_since(collection.id) is None


def test_documents_that_are_gone_are_counted_if_they_have_points(ledger, collection):
    ledger.record(collection.id, [("1", b"t", b"p", 1), ("2", b"t", b"p", 1), ("3", b"t", b"p", 0)])
    ledger.begin_scan("p_notes")
    ledger.note_gone(["1", "3", "4"])
    assert ledger.count_deletions(collection).all == 1
    assert [row[0] for row in ledger.lost(collection.id)] == ["1", "3", "4"]
