"""The inbox of changes: nothing that arrived is lost, whatever happens between arrival and the end of its batch."""

from __future__ import annotations

import pytest


@pytest.fixture
def ledger(each_ledger):
    return each_ledger


def ids(ledger, alias="p_notes"):
    return [change.document_id for change in ledger.waiting_changes(alias, 100)]


def test_a_document_waits_once_with_its_earliest_change_and_its_last_number(ledger):
    ledger.put_changes([("p_notes", "1", 10.0), ("p_notes", "2", 11.0), ("p_notes", "1", 9.0)])
    first = {change.document_id: change for change in ledger.waiting_changes("p_notes", 100)}
    ledger.put_changes([("p_notes", "1", 12.0), ("p_other", "1", 12.0)])
    again = {change.document_id: change for change in ledger.waiting_changes("p_notes", 100)}
    assert (again["1"].changed_at, again["2"]) == (9.0, first["2"])
    assert again["1"].number > first["1"].number
    assert ids(ledger) == ["2", "1"]  # what has waited longest comes first
    assert (ledger.count_waiting("p_notes"), ledger.count_waiting("p_other")) == (2, 1)
    assert (ledger.waiting_since("p_notes"), ledger.waiting_since("p_nothing")) == (9.0, None)


def test_a_document_that_arrives_while_its_batch_runs_stays(ledger):
    ledger.put_changes([("p_notes", "1", 10.0), ("p_notes", "2", 10.0)])
    batch = ledger.waiting_changes("p_notes", 100)
    ledger.put_changes([("p_notes", "2", 20.0), ("p_notes", "3", 20.0)])
    ledger.remove_changes("p_notes", batch)
    assert ids(ledger) == ["2", "3"]


def test_a_change_that_arrives_after_a_burst_is_in_the_next_batch_and_so_is_the_oldest(ledger):
    ledger.put_changes([("p_notes", "0", 1.0)])
    ledger.put_changes([("p_notes", f"burst {number}", 10.0) for number in range(20)])
    ledger.put_changes([("p_notes", "alone", 20.0)])
    batch = [change.document_id for change in ledger.waiting_changes("p_notes", 6)]
    assert {"0", "alone"} <= set(batch)
    assert len(set(batch)) == 6
    assert [change.document_id for change in ledger.waiting_changes("p_notes", 1)] == ["0"]


def test_numbers_grow_although_the_inbox_was_emptied(ledger):
    ledger.put_changes([("p_notes", "1", 10.0)])
    batch = ledger.waiting_changes("p_notes", 100)
    ledger.remove_changes("p_notes", batch)
    ledger.put_changes([("p_notes", "1", 10.0)])
    ledger.remove_changes("p_notes", batch)  # a batch that ends late must not take the new arrival with it
    assert ids(ledger) == ["1"]


def test_a_complete_scan_clears_what_had_arrived_when_it_began(ledger):
    assert ledger.watch("p_notes") is None
    ledger.put_changes([("p_notes", "1", 10.0), ("p_notes", "2", 10.0)])
    number = ledger.watch("p_notes").last_number
    ledger.put_changes([("p_notes", "2", 11.0), ("p_notes", "3", 11.0), ("p_other", "1", 11.0)])
    ledger.clear_changes("p_notes", number)
    assert (ids(ledger), ids(ledger, "p_other")) == (["2", "3"], ["1"])


def test_a_need_for_a_complete_scan_ends_with_one_that_began_after_it(ledger):
    earlier = 0
    ledger.need_full_scan("p_notes")
    ledger.clear_changes("p_notes", earlier)
    assert ledger.watch("p_notes").full_number is not None
    ledger.clear_changes("p_notes", ledger.watch("p_notes").last_number)
    assert ledger.watch("p_notes").full_number is None


def test_a_put_that_dies_leaves_nothing(ledger):
    def die():
        with ledger.transaction():
            ledger.put_changes([("p_notes", "1", 10.0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert ids(ledger) == []


def test_a_watch_that_begins_again_keeps_what_is_known_about_it(ledger):
    ledger.begin_watch("p_notes")
    ledger.update_watch("p_notes", state="stopped", applied_at=900.0)
    ledger.begin_watch("p_notes")
    record = ledger.watch("p_notes")
    assert (record.state, record.applied_at) == ("stopped", 900.0)
    assert ledger.watch("p_other") is None
