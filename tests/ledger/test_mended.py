"""What runs mended: a document is explained when it leaves the inbox; what is left was missed."""

import pytest

from rag_index.components.ledger import inbox as inbox_module

ALIAS = "p_notes"


@pytest.fixture
def ledger(each_ledger):
    return begun(each_ledger)


def begun(ledger):
    """Return a ledger with an index that was compared under its watch."""
    ledger.begin_watch(ALIAS)
    ledger.clear_changes(ALIAS, 0, compared="settings")
    assert ledger.begin_comparison(ALIAS, "settings")
    return ledger


def unexplained(ledger):
    last = ledger.last_mended(ALIAS)
    return [] if last is None else ledger.unexplained(ALIAS, last[0])


def test_a_document_that_waits_is_not_missed_and_one_that_was_indexed_is_explained(ledger):
    ledger.put_changes([(ALIAS, "1", 1.0)])
    ledger.note_mended(ALIAS, "night", 0, [("1", "changed"), ("2", "new"), ("3", "deleted")])
    ledger.put_changes([(ALIAS, "2", 1.0)])
    assert unexplained(ledger) == ["3"]
    [one, two] = ledger.waiting_changes(ALIAS, 10)
    ledger.put_changes([(ALIAS, "1", 2.0)])  # once more, while its batch runs
    ledger.remove_changes(ALIAS, [one, two])
    ledger.remove_changes(ALIAS, ledger.waiting_changes(ALIAS, 10))
    assert unexplained(ledger) == ["3"]


def test_only_what_was_found_until_the_question_is_judged(ledger):
    ledger.note_mended(ALIAS, "night", 0, [("1", "changed")])
    number, _ = ledger.last_mended(ALIAS)
    ledger.note_mended(ALIAS, "next", 0, [("2", "changed")])
    assert ledger.unexplained(ALIAS, number) == ["1"]
    ledger.record_missed(ALIAS, ["1"])
    assert [one[:3] for one in ledger.missed(ALIAS)] == [("1", "changed", "night")]
    assert unexplained(ledger) == ["2"]
    ledger.put_changes([(ALIAS, "1", 1.0)])
    ledger.remove_changes(ALIAS, ledger.waiting_changes(ALIAS, 10))
    assert len(ledger.missed(ALIAS)) == 1  # it is no news any more that it was missed
    ledger.forget_missed(ALIAS, "night")
    assert len(ledger.missed(ALIAS)) == 1
    ledger.forget_missed(ALIAS, "next")
    assert ledger.missed(ALIAS) == []


def test_of_very_many_only_the_number_is_kept(ledger, monkeypatch):
    monkeypatch.setattr(inbox_module, "MAX_KEPT", 3)
    ledger.note_mended(ALIAS, "night", 0, [("1", "new"), ("2", "new")])
    ledger.note_mended(ALIAS, "night", 0, [("3", "new"), ("4", "new")])
    ledger.note_mended(ALIAS, "night", 0, [("5", "new")])
    assert (unexplained(ledger), ledger.watch(ALIAS).unkept) == (["1", "2", "3"], 2)


def test_other_settings_a_batch_with_others_or_a_lost_change_end_the_comparison(ledger):
    def compared():
        ledger.clear_changes(ALIAS, ledger.watch(ALIAS).last_number, compared="settings")
        ledger.note_mended(ALIAS, "night", 0, [("1", "changed")])
        ledger.note_settings(ALIAS, "settings")
        assert ledger.begin_comparison(ALIAS, "settings")
        assert unexplained(ledger) == ["1"]

    compared()
    assert not ledger.begin_comparison(ALIAS, "others")
    assert not ledger.begin_comparison(ALIAS, "settings")
    assert unexplained(ledger) == []
    compared()
    ledger.note_settings(ALIAS, "others")
    assert not ledger.begin_comparison(ALIAS, "settings")
    compared()
    ledger.need_full_scan(ALIAS)
    assert unexplained(ledger) == []
    assert not ledger.begin_comparison(ALIAS, "settings")


def test_while_look_ups_wait_nothing_is_compared_and_a_run_that_clears_them_explains_everything(ledger):
    ledger.note_mended(ALIAS, "night", 0, [("1", "changed")])
    ledger.put_look_ups([(ALIAS, "customer_id", "[5]", 1.0)])
    assert ledger.any_look_ups(ALIAS)
    assert not ledger.begin_comparison(ALIAS, "settings")
    assert unexplained(ledger) == ["1"]
    ledger.clear_changes(ALIAS, ledger.watch(ALIAS).last_number, compared="settings")
    assert unexplained(ledger) == []
    assert ledger.begin_comparison(ALIAS, "settings")


def test_look_ups_since_the_scan_began_explain_what_it_deleted(ledger):
    begun = ledger.watch(ALIAS).last_number
    ledger.put_look_ups([(ALIAS, "customer_id", "[5]", 1.0)])
    ledger.replace_look_ups(ALIAS, ledger.waiting_look_ups(ALIAS, 10), [])
    later = ledger.watch(ALIAS).last_number
    ledger.note_mended(ALIAS, "night", begun, [("1", "deleted"), ("2", "changed")])
    assert unexplained(ledger) == ["2"]
    ledger.note_mended(ALIAS, "next", later, [("3", "deleted")])
    assert unexplained(ledger) == ["2", "3"]
