"""The inbox of changes: nothing that arrived is lost, whatever happens between arrival and the end of its batch."""

import pytest


@pytest.fixture
def ledger(each_ledger):
    return each_ledger


def ids(ledger, alias="p_notes", limit=100):
    return [change.document_id for change in ledger.waiting_changes(alias, limit)]


def test_a_document_waits_once_with_its_earliest_change_and_its_last_number(ledger):
    ledger.put_changes([("p_notes", "1", 10.0), ("p_notes", "2", 11.0), ("p_notes", "1", 9.0)])
    first = dict(ledger.waiting_changes("p_notes", 100))
    ledger.put_changes([("p_notes", "1", 12.0), ("p_other", "1", 12.0)])
    again = dict(ledger.waiting_changes("p_notes", 100))
    assert (again["2"], again["1"] > first["1"]) == (first["2"], True)
    assert ids(ledger) == ["2", "1"]  # what has waited longest comes first
    assert (ledger.count_waiting("p_notes"), ledger.count_waiting("p_other")) == (2, 1)
    assert (ledger.waiting_since("p_notes"), ledger.waiting_since("p_nothing")) == (9.0, None)
    ledger.put_look_ups([("p_notes", "customer", "7", 8.0), ("p_notes", "customer", "7", 10.0)])
    assert (ledger.count_waiting("p_notes"), ledger.waiting_since("p_notes")) == (3, 8.0)


def test_a_document_that_arrives_while_its_batch_runs_stays(ledger):
    ledger.put_changes([("p_notes", "1", 10.0), ("p_notes", "2", 10.0)])
    batch = ledger.waiting_changes("p_notes", 100)
    ledger.put_changes([("p_notes", "2", 20.0), ("p_notes", "3", 20.0)])
    ledger.remove_changes("p_notes", batch)
    assert ids(ledger) == ["2", "3"]
    batch = ledger.waiting_changes("p_notes", 100)
    ledger.remove_changes("p_notes", batch)
    ledger.put_changes([("p_notes", "2", 10.0)])
    ledger.remove_changes("p_notes", batch)  # a batch that ends late must not take the new arrival with it
    assert ids(ledger) == ["2"], "numbers grow although the inbox was emptied"


def test_a_change_that_arrives_after_a_burst_is_in_the_next_batch_and_so_is_the_oldest(ledger):
    ledger.put_changes([("p_notes", "0", 1.0)])
    ledger.put_changes([("p_notes", f"burst {number}", 10.0) for number in range(20)])
    ledger.put_changes([("p_notes", "alone", 20.0)])
    batch = ids(ledger, limit=6)
    assert {"0", "alone"} <= set(batch)
    assert len(set(batch)) == 6
    assert ids(ledger, limit=1) == ["0"]


def test_a_complete_scan_clears_what_had_arrived_when_it_began(ledger):
    assert ledger.watch("p_notes") is None
    ledger.put_changes([("p_notes", "1", 10.0), ("p_notes", "2", 10.0)])
    ledger.need_full_scan("p_notes")
    number = ledger.watch("p_notes").last_number
    ledger.put_changes([("p_notes", "2", 11.0), ("p_notes", "3", 11.0), ("p_other", "1", 11.0)])
    ledger.clear_changes("p_notes", number - 1)
    assert ledger.watch("p_notes").full_number == number, "this scan began before the need"
    ledger.clear_changes("p_notes", number)
    assert (ids(ledger), ids(ledger, "p_other")) == (["2", "3"], ["1"])
    assert ledger.watch("p_notes").full_number is None
