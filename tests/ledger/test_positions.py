"""The position that an index has reached: never beyond something that a search would not find."""

import pytest

from rag_index.components.ledger.tables import Position, parse_position
from rag_index.core.documents.batches import CommitMark, Failure
from tests.ledger.conftest import add

ALIAS = "p_notes"


@pytest.fixture
def ledger(each_ledger):
    """A ledger with an index that a complete scan has filled."""
    complete(each_ledger, add(each_ledger).id)
    return each_ledger


def complete(ledger, collection, *, number=0, began=10.0, read_all=True):
    ledger.clear_changes(ALIAS, number)
    ledger.complete_scan(ALIAS, collection, number=number, began=began, read_all=read_all)


def arrive(ledger, position, *ids):
    ledger.put_changes((ALIAS, one, 1.0) for one in ids)
    ledger.note_position(ALIAS, Position(float(position), str(position), "queue"))


def index(ledger, *ids, collection=1):
    """Take these documents out of the inbox, as a batch does after it has written them."""
    ledger.remove_changes(ALIAS, [one for one in ledger.waiting_changes(ALIAS, 100) if one.document_id in ids])
    ledger.note_written(ALIAS, collection)


def at(ledger):
    return (found := ledger.reached().get(ALIAS)) and found.position


def test_a_position_is_reached_once_everything_that_arrived_by_then_is_indexed(ledger):
    assert (ledger.reached()[ALIAS].how, at(ledger)) == ("run", "")
    arrive(ledger, 20, "1", "2")
    arrive(ledger, 30, "3")
    arrive(ledger, 40)
    assert at(ledger) == ""
    index(ledger, "1", "3")  # its neighbour was not written
    assert at(ledger) == ""
    index(ledger, "2")
    assert (at(ledger), ledger.reached()[ALIAS].at, ledger.reached()[ALIAS].how) == ("40", 40.0, "queue")
    arrive(ledger, 50)
    assert at(ledger) == "50"


def test_a_time_ahead_of_the_clock_is_given_up(ledger, clock):
    complete(ledger, 1, began=clock.now + 1000)
    arrive(ledger, 20)
    assert ledger.reached()[ALIAS].at == 20.0


def test_a_document_that_changes_again_and_again_holds_the_position_back(ledger):
    arrive(ledger, 20, "1")
    batch = ledger.waiting_changes(ALIAS, 100)
    arrive(ledger, 30, "1", "2")
    index(ledger, "2")
    assert at(ledger) == ""  # its first change is not indexed, although a later one gave it another number
    ledger.remove_changes(ALIAS, batch)
    ledger.note_written(ALIAS, 1)
    assert at(ledger) == "20"
    index(ledger, "1")
    assert at(ledger) == "30"


def test_a_look_up_holds_the_position_back_until_its_documents_are_indexed(ledger):
    ledger.put_look_ups([(ALIAS, "customer", "7", 1.0)])
    arrive(ledger, 20)
    arrive(ledger, 30, "9")
    wanted = ledger.waiting_look_ups(ALIAS, 10)
    ledger.put_look_ups([(ALIAS, "customer", "7", 1.0)])
    arrive(ledger, 40)
    ledger.replace_look_ups(ALIAS, wanted, [("1", 1.0)])
    index(ledger, "9")
    assert at(ledger) == ""
    index(ledger, "1")
    assert at(ledger) == "20"  # the look-up has come again, nobody knows how soon
    ledger.replace_look_ups(ALIAS, ledger.waiting_look_ups(ALIAS, 10), [])
    ledger.note_written(ALIAS, 1)
    assert at(ledger) == "40"


def test_a_document_that_failed_or_is_held_back_holds_the_position_back(ledger):
    ledger.record(1, [("1", b"t", b"p", 1), ("2", b"t", b"p", 1)])
    ledger.fail(1, [Failure("1", "why", b"t")])
    arrive(ledger, 20)
    assert at(ledger) == ""
    ledger.clear_failures(1, ["1"])
    ledger.fail(1, [Failure("1", "no context", b"t", kind="incomplete")])  # it is found all the same
    arrive(ledger, 30)
    assert at(ledger) == "30"
    ledger.begin_scan("p_notes")
    ledger.note_gone(["2"])
    ledger.hold_back(ledger.collection(f"{ALIAS}__1"))
    arrive(ledger, 40)
    assert at(ledger) == "30"


def test_a_watch_that_finds_an_empty_queue_forgets_no_place_that_waits(ledger):
    arrive(ledger, 20, "1")  # the watch ends after it has emptied the queue, and before it has written the document
    ledger.note_position(ALIAS, Position(30.0, "", "queue"))
    index(ledger, "1")
    assert (at(ledger), ledger.reached()[ALIAS].at) == ("20", 30.0)


def test_while_nobody_knows_what_changed_nothing_is_reached(ledger):
    arrive(ledger, 20)
    ledger.need_full_scan(ALIAS)
    arrive(ledger, 30)
    assert at(ledger) == ""
    began = ledger.watch(ALIAS).last_number
    arrive(ledger, 40, "1")
    complete(ledger, 1, number=began, began=35.0)
    assert (at(ledger), ledger.reached()[ALIAS].at) == ("30", 35.0)
    index(ledger, "1")
    assert at(ledger) == "40"


def test_a_rebuilt_collection_inherits_what_its_scan_has_seen_and_one_before_it_nothing(ledger):
    arrive(ledger, 20)
    began = ledger.watch(ALIAS).last_number if ledger.watch(ALIAS) else 0
    second = add(ledger, f"{ALIAS}__2").id
    ledger.record_commit(second, CommitMark(7, "now"))
    complete(ledger, second, number=began, began=25.0)
    assert ledger.reached()[ALIAS][1:3] == (f"{ALIAS}__2", 7)
    assert at(ledger) == "20"
    arrive(ledger, 30, "1")
    index(ledger, "1", collection=1)  # after a rollback: the second one lacks it from now on
    arrive(ledger, 40)
    assert at(ledger) is None
    third = add(ledger, f"{ALIAS}__3").id
    complete(ledger, third, number=0, began=45.0, read_all=False)
    arrive(ledger, 50)
    assert (at(ledger), ledger.reached()[ALIAS].how) == ("", "run")  # it relied on `changed_since`


def test_positions_compare_by_their_kind():
    assert parse_position("1/0") > parse_position("0/FFFFFFFF")
    assert parse_position("0/2018") == parse_position("0/2000")  # the place after the header of an empty page
    assert parse_position("0/100028") == parse_position("0/100000")
    assert parse_position("10") > parse_position("9")
    assert parse_position("2026-11-22T10:00:00Z") == parse_position("2026-11-22T11:00:00+01:00")
    for wrong in ("", "x", "0/x", "2026-11-22", "-1"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_position(wrong)
