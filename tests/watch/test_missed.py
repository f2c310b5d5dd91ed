"""What the watch missed is reported once, with its keys, and nothing else is."""

from __future__ import annotations

import logging
import threading
from contextlib import closing, contextmanager
from unittest import mock

import pytest

from rag_index.errors import IndexLocked
from rag_index.ledger import Ledger
from rag_index.status.status import run_reports, status, watch_report
from rag_index.watch import loop
from tests.indexing.plain import Died, run_plain
from tests.project import Project
from tests.waiting import eventually
from tests.watch.feeds import ListFeed, watched

ALIAS = "test_notes"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(loop, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.05)
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.05)


def compared(folder, notes: int) -> Project:
    """Make a project whose index was compared under its watch."""
    project = Project(folder).fill(notes)
    run_plain(project)
    with watched(project, ListFeed()) as ledger:
        eventually(lambda: ledger.watch(ALIAS))
    run_plain(project)
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return compared(tmp_path / "project", 30)


@pytest.fixture
def feed() -> ListFeed:
    return ListFeed()


@pytest.fixture
def ledger(project):
    with closing(Ledger(project.settings.ledger_url)) as opened:
        yield opened


@pytest.fixture
def reports(caplog):
    """The errors and the hints of watches about what they missed."""
    caplog.set_level(logging.INFO, logger="rag_index.watch")
    return lambda level=logging.ERROR: [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and "the watch missed" in record.getMessage()
    ]


def change(project, *numbers, text="mended"):
    for number in numbers:
        project.execute("UPDATE note SET body = ? WHERE id = ?", text, number)


def judged(ledger):
    return ledger.last_mended(ALIAS) is None


@contextmanager
def judging(project, feed, ledger, **arguments):
    """Watch until everything that runs have mended is judged."""
    with watched(project, feed, **arguments):
        yield
        eventually(lambda: judged(ledger))


def test_what_the_feed_never_gave_is_reported_once_and_shown_until_the_next_run(project, feed, ledger, reports):
    with judging(project, feed, ledger):
        change(project, 5)
        project.execute("DELETE FROM note WHERE id = 6")
        project.execute("INSERT INTO note VALUES (77, 'new', 'one', 'a', 1)")
        outcome = run_plain(project)
        assert (outcome.new, outcome.changed, outcome.deleted) == (1, 1, 1)
    with judging(project, feed, ledger):
        change(project, 7)
        feed.give("7")
        eventually(lambda: ledger.count_waiting(ALIAS) == 0)
    [said] = reports()
    assert "index notes: a run had to mend 3 documents that the watch missed: 5, 6, 77. The index is right" in said
    assert {one.document_id: one.change for one in ledger.missed(ALIAS)} == {
        "5": "changed",
        "6": "deleted",
        "77": "new",
    }
    told = status(project.settings).indexes[0].watch["missed"]
    assert (told["documents"], told["expected"], told["message"]) == (3, False, said)
    [run] = run_reports(project.settings, project.settings.indexes)
    assert run["missed"]["ids"] == ["5", "6", "77"]
    run_plain(project)
    assert ledger.missed(ALIAS) == []
    assert status(project.settings).indexes[0].watch["missed"] is None


def test_what_is_on_its_way_or_waits_is_no_fault(project, feed, ledger, reports):
    """A run finds three changes first: the feed gave one before the run, gives one meanwhile and one afterwards."""
    see = Ledger.see

    def arrive(self, *args, **kwargs):
        ledger.put_changes([(ALIAS, "6", 1.0)])
        return see(self, *args, **kwargs)

    change(project, 5, 6, 7)
    ledger.put_changes([(ALIAS, "5", 1.0)])
    with mock.patch.object(Ledger, "see", arrive):
        assert run_plain(project).changed == 3
    number, _ = ledger.last_mended(ALIAS)
    assert ledger.unexplained(ALIAS, number) == ["7"]
    with mock.patch.object(loop, "SETTLE_SECONDS", 1e9), judging(project, feed, ledger):
        feed.give("7")
    assert reports() == []


def test_nothing_is_judged_before_the_feed_has_said_that_there_is_no_more(project, feed, ledger, reports):
    served, feed.served = feed.served, ()
    with watched(project, feed):
        change(project, 5)
        run_plain(project)
        for _ in range(5):  # one look asks the feed, and the next would judge
            before = ledger.watch(ALIAS).caught_up_at
            eventually(lambda at=before: ledger.watch(ALIAS).caught_up_at != at)
        assert not judged(ledger)
        feed.give("5")
        feed.served = served
        eventually(lambda: judged(ledger))
    assert reports() == []


def test_nothing_is_judged_while_a_run_writes_the_index(project, feed, ledger, reports):
    with watched(project, feed):
        see = Ledger.see

        def found(self, *args, **kwargs):
            ledger.note_mended(ALIAS, "this run", 0, [("9", "changed")])
            before = ledger.watch(ALIAS).caught_up_at
            eventually(lambda: ledger.watch(ALIAS).caught_up_at != before)
            assert not judged(ledger)
            return see(self, *args, **kwargs)

        with mock.patch.object(Ledger, "see", found):
            run_plain(project)
        eventually(lambda: judged(ledger))
    assert len(reports()) == 1


def test_a_death_before_it_is_recorded_repeats_the_report_also_of_a_run_that_died(project, feed, ledger, reports):
    change(project, 5)
    with pytest.raises(Died):
        run_plain(project, delete=False)
    assert run_plain(project).changed == 0
    dying = threading.Event()

    def die(*args):
        dying.set()
        raise Died

    with pytest.raises(Died), mock.patch.object(Ledger, "record_missed", die), watched(project, feed):
        eventually(dying.is_set)
    assert not judged(ledger)
    for _ in range(2):
        with judging(project, feed, ledger):
            pass
    assert len(reports()) == 2
    assert [one.document_id for one in ledger.missed(ALIAS)] == ["5"]


def test_other_settings_are_no_fault_nor_are_failures(project, feed, ledger, reports):
    as_it_was = project.config.read_text().replace('payload = ["author", "priority"]', 'payload = ["author"]')
    project.write_settings(as_it_was)
    assert run_plain(project).payload_only == 30
    assert judged(ledger)
    run_plain(project)
    change(project, 5)
    run_plain(project)
    assert not judged(ledger)  # these settings are known now
    collection = ledger.collections(ALIAS)[0]
    feed.give("5")
    with judging(project, feed, ledger):
        pass
    project.write_settings(as_it_was.replace('text = ["title", "body"]', 'text = ["body"]'))
    with watched(project, feed):  # a batch with other settings
        change(project, 9)
        feed.give("9")
        eventually(lambda: batches(ledger))
    project.write_settings(as_it_was)
    assert run_plain(project).changed == 1
    assert judged(ledger)
    run_plain(project)
    with ledger.transaction() as connection:  # a document that failed with the text that the source has
        connection.exec_driver_sql(
            "INSERT INTO rag_index_failed_documents (collection_id, key, text_hash, reason, tries, first_at, last_at) "
            "SELECT collection_id, key, text_hash, 'too long', 1, 1, 1 FROM rag_index_documents WHERE key = '8'"
        )
        connection.exec_driver_sql("UPDATE rag_index_documents SET text_hash = x'00' WHERE key = '8'")
    assert ledger.failures(collection.id).keys() == {"8"}
    assert run_plain(project).changed == 1
    assert judged(ledger)
    assert reports() == []


def batches(ledger):
    return ledger.count_waiting(ALIAS) == 0 and ledger.watch(ALIAS).applied_at is not None


def test_what_the_delete_guard_holds_back_is_no_fault(tmp_path, feed, reports):
    """Batches and runs find it again and again, and a document that is newer than the last run is not held back."""
    project = compared(tmp_path / "large", 300)
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        with judging(project, feed, ledger):
            project.fill(1, first=301)
            project.execute("DELETE FROM note WHERE id <= 150")
            feed.give(*map(str, [*range(1, 151), 301]))
            eventually(lambda: batches(ledger))
        assert run_plain(project).held_back == 150
        project.execute("DELETE FROM note WHERE id = 301")
        ledger.put_changes([(ALIAS, str(number), 1.0) for number in [*range(1, 151), 301]])
        run_plain(project)
        assert (ledger.count_waiting(ALIAS), judged(ledger)) == (0, True)
        assert run_plain(project, allow_deletes=True).deleted >= 150
        assert judged(ledger)
    assert reports() == []


def test_an_index_whose_feed_lost_changes_is_not_judged(project, feed, ledger, reports):
    change(project, 5)
    run_plain(project)
    feed.overflow = ["notes"]
    with judging(project, feed, ledger, runner=mock.Mock(begin_run=mock.Mock(side_effect=IndexLocked("held")))):
        pass
    change(project, 6)
    run_plain(project)  # this one is complete again
    assert judged(ledger)
    change(project, 7)
    run_plain(project)
    with judging(project, feed, ledger):
        pass
    [said] = reports()
    assert "1 document that the watch missed: 7." in said


def test_what_cannot_be_seen_is_a_hint_and_no_error(project, feed, ledger, reports):
    blind = {"notes": "polling sees no deletions"}
    with judging(project, feed, ledger, blind=blind):
        eventually(lambda: ledger.watch(ALIAS).blind)
        project.execute("DELETE FROM note WHERE id = 5")
        run_plain(project)
    assert reports() == []
    [said] = reports(logging.INFO)
    assert said.endswith("the watch missed: 5. That is expected: polling sees no deletions")
    assert watch_report(project.settings, project.settings.indexes[0], ledger)["missed"]["expected"]


def test_a_rebuild_finds_nothing_mended(project, feed, ledger, reports):
    change(project, 5)
    run_plain(project, full=True)
    assert judged(ledger)
    change(project, 6)
    run_plain(project)
    with judging(project, feed, ledger):
        pass
    assert len(reports()) == 1  # the rebuilt collection is compared as any
