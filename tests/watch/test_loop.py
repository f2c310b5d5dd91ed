"""A watch indexes what changed, lets other runs come in between, and loses nothing whatever is down."""

import sqlite3
import threading
import time
from contextlib import closing
from unittest import mock

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.core.reports.outcome import IndexOutcome
from rag_index.errors import EmbedderUnavailable, FingerprintChanged, IndexLocked, SettingsError, SourceUnavailable
from rag_index.etl import run as pipeline
from rag_index.etl.changed import Applied, BatchIndexer
from rag_index.watch import PlainRunner, collector, loop
from rag_index.watch.changes import Received
from rag_index.watch.loop import Stop
from tests.etl.plain import run_plain
from tests.project import Project
from tests.waiting import GENEROUS, eventually
from tests.watch.feeds import EndedRun, ListFeed, is_watched, watch_of, watched

ALIAS = "test_notes"
SECOND = '[[indexes]]\nname = "titles"\ntable = "note"\nkey = "id"\ntext = "title"\n'


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(30)
    run_plain(project)
    return project


@pytest.fixture
def feed() -> ListFeed:
    return ListFeed()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    for name in ("LOOK_SECONDS", "FIRST_BATCH_PAUSE", "MAX_BATCH_PAUSE"):
        monkeypatch.setattr(loop, name, 0.05)
    monkeypatch.setattr(collector, "MAX_RECEIVE_PAUSE", 0.05)


def change(project, feed, number, text):
    project.execute("UPDATE note SET body = ? WHERE id = ?", text, number)
    feed.give(str(number))


def applied(ledger):
    return ledger.count_waiting(ALIAS) == 0 and ledger.watch(ALIAS).applied_at is not None


def hash_of(project, number):
    """Return what the ledger has of a document, which says when it has changed there."""
    with closing(sqlite3.connect(project.settings.ledger_url.database)) as db:
        return db.execute("SELECT text_hash FROM rag_index_documents WHERE key = ?", (str(number),)).fetchone()


def test_changes_are_indexed_while_the_watch_runs(project, feed):
    before = hash_of(project, 5)
    with watched(project, feed) as ledger:
        change(project, feed, 5, "the pump is mended")
        eventually(lambda: hash_of(project, 5) != before)
        eventually(lambda: applied(ledger) and ledger.watch(ALIAS).state == "running")
        assert is_watched(ledger, "test")
        again = hash_of(project, 5)
        change(project, feed, 5, "the valve is mended")
        eventually(lambda: hash_of(project, 5) != again)
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        assert (ledger.watch(ALIAS).state, is_watched(ledger, "test")) == ("stopped", False)
    assert project.texts()["5"] == ["Note 5\nthe valve is mended"]


def test_a_project_is_watched_by_one_process_at_a_time(project, feed):
    with watched(project, feed) as ledger:
        eventually(lambda: is_watched(ledger, "test"))
        with pytest.raises(IndexLocked, match="watched already"):
            watch_of(project, feed, ledger, PlainRunner(project.settings), Stop()).run()


def test_while_another_run_holds_the_index_changes_are_collected_and_then_indexed(project, feed):
    before = hash_of(project, 5)
    with closing(Ledger(project.settings.ledger_url)) as other, IndexLease(other, ALIAS, "nightly"):
        with watched(project, feed) as ledger:
            change(project, feed, 5, "the pump is mended")
            eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).state == "waiting")
            assert "is being written by" in ledger.watch(ALIAS).message
            assert feed.backlog() == 0  # the source need not keep it
        assert hash_of(project, 5) == before
    with watched(project, feed):
        eventually(lambda: hash_of(project, 5) != before)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (EmbedderUnavailable("http://gpu:11434 does not answer"), "backing off"),
        (FingerprintChanged("run `rag-index rebuild notes`"), "failing"),
    ],
)
def test_a_fault_is_said_and_the_batch_is_tried_again_until_it_is_over(project, feed, error, state):
    wrong, whole = threading.Event(), pipeline.index_pages
    wrong.set()

    def index_pages(*args):
        if wrong.is_set():
            raise error
        return whole(*args)

    before = hash_of(project, 5)
    with mock.patch.object(pipeline, "index_pages", index_pages), watched(project, feed) as ledger:
        change(project, feed, 5, "the pump is mended")
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).state == state)
        assert str(error) in ledger.watch(ALIAS).message
        assert (ledger.count_waiting(ALIAS), feed.backlog()) == (1, 0)
        wrong.clear()
        eventually(lambda: hash_of(project, 5) != before)
        eventually(lambda: ledger.watch(ALIAS).state == "running")


def test_a_source_that_is_down_is_waited_for_and_said_and_keeps_no_other_from_being_followed(project, feed):
    project.write_settings(project.config.read_text() + SECOND)
    project.run("titles")
    down = ListFeed("titles")
    down.error = SourceUnavailable("source sqlite does not answer")
    with watched(project, {"titles": down, "notes": feed}) as ledger:
        eventually(lambda: ledger.watch("test_titles") and ledger.watch("test_titles").state == "backing off")
        assert ledger.watch("test_titles").message == "changes cannot be received: source sqlite does not answer"
        change(project, feed, 5, "the pump is mended")
        eventually(lambda: applied(ledger))
        down.give("5", index="titles")
        down.error = None
        eventually(lambda: ledger.watch("test_titles").applied_at)


def whole_runs(project, begun, **end):
    """Return a runner whose ordinary runs are noted, and do what a complete run does to the inbox.

    That of an index in `end` goes on until its event is set.
    """

    def begin_run(name):
        begun.append(name)
        with closing(Ledger(project.settings.ledger_url)) as own:
            own.clear_changes(f"test_{name}", own.watch(f"test_{name}").last_number)
        return EndedRun(Applied(IndexOutcome(name)), end.get(name))

    return mock.Mock(begin_run=begin_run, index_changes=mock.Mock(side_effect=AssertionError("a batch was begun")))


def test_a_burst_is_batches_however_large_and_a_single_change_is_in_the_next_of_them(project, feed):
    project.write_settings(project.config.read_text() + "\n[watch]\nbatch_documents = 40\nburst_documents = 50\n")
    project.fill(170, first=31)
    run_plain(project)
    project.execute("UPDATE note SET body = 'all are mended'")
    batches, index = [], BatchIndexer.index

    def note_batch(self, name):
        before = hash_of(project, 5)
        found = index(self, name)
        batches.append(found.outcome.changed)
        if len(batches) == 2:
            change(project, feed, 5, "the pump is mended")
            eventually(lambda: feed.backlog() == 0)
        assert len(batches) != 3 or hash_of(project, 5) != before
        return found

    feed.give(*(str(number) for number in range(200, 0, -1)))
    whole = mock.patch.object(PlainRunner, "begin_run", side_effect=AssertionError("an ordinary run took over"))
    with whole, mock.patch.object(BatchIndexer, "index", note_batch), watched(project, feed) as ledger:
        eventually(lambda: len(batches) > 3 and applied(ledger))
    assert max(batches) == 40
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]


def test_a_feed_that_lost_changes_needs_a_complete_run_even_after_a_death(project, feed, caplog):
    feed.overflow, begun = ["notes"], []
    caplog.set_level("INFO")
    with watched(project, feed, runner=mock.Mock(begin_run=mock.Mock(side_effect=IndexLocked("held")))) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).full_number is not None)
    assert feed.overflow == []  # it is in the ledger now
    caplog.clear()
    with watched(project, feed, runner=whole_runs(project, begun)):
        eventually(lambda: begun)
    assert "comparing everything once, since this watch is new" in caplog.text


def test_what_arrives_while_a_watch_looks_at_the_inbox_is_not_claimed_as_done(project, feed):
    feed.overflow, count, receive = ["notes"], Ledger.count_waiting, feed.receive
    looked, empty = threading.Event(), threading.Event()
    feed.receive = lambda limit: looked.wait(GENEROUS) and receive(limit)
    feed.wait = lambda seconds: empty.set() or time.sleep(0.01)

    def late(self, alias):
        found = count(self, alias)
        looked.set()
        assert empty.wait(GENEROUS), "the feed has not given all"
        return found

    held = mock.Mock(begin_run=mock.Mock(side_effect=IndexLocked("held")))
    with mock.patch.object(Ledger, "count_waiting", late), watched(project, feed, runner=held) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).state == "waiting")
        assert ledger.watch(ALIAS).caught_up_at is None


def test_an_index_that_was_never_indexed_is_left_to_a_run(tmp_path, feed, caplog):
    project, begun = Project(tmp_path / "new").fill(3), []
    caplog.set_level("INFO")
    feed.give("1")
    with watched(project, feed, runner=whole_runs(project, begun)):
        eventually(lambda: begun)
    assert "nothing is indexed yet" in caplog.text


@pytest.mark.parametrize("step", ["put_changes", "acknowledge"])
def test_a_death_while_changes_are_received_loses_none(project, feed, step):
    class Died(BaseException):
        pass

    dying = threading.Event()

    def die(*args):
        dying.set()
        raise Died

    where = Ledger if step == "put_changes" else ListFeed
    before = hash_of(project, 5)
    change(project, feed, 5, "the pump is mended")
    with pytest.raises(Died), mock.patch.object(where, step, die), watched(project, feed) as ledger:
        eventually(lambda: dying.is_set() and not is_watched(ledger, "test") and feed.backlog() == 1)
    with watched(project, feed):
        eventually(lambda: hash_of(project, 5) != before)


class SlowFeed(ListFeed):
    """A feed that first gives nothing, and has more: it has read past what is not ours. It counts what it is asked."""

    empty = 3

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def receive(self, limit: int) -> Received:
        self.asked.append("receive")
        if self.empty:
            self.empty -= 1
            return Received((), 0, more=True)
        return super().receive(limit)

    def wait(self, seconds: float) -> None:
        self.asked.append("wait")
        super().wait(seconds)


def test_once_ends_when_everything_is_indexed(project):
    feed, stop = SlowFeed(), Stop()
    change(project, feed, 5, "the pump is mended")
    with closing(Ledger(project.settings.ledger_url)) as ledger, closing(PlainRunner(project.settings)) as runner:
        assert watch_of(project, feed, ledger, runner, stop).run(once=True)
        assert ledger.count_waiting(ALIAS) == 0
        assert feed.asked[:4] == ["receive"] * 4, "a feed that has more is asked for it at once"
        change(project, feed, 6, "the pump is mended")
        feed.error = SourceUnavailable("it is down")
        assert not watch_of(project, feed, ledger, runner, stop).run(once=True)
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]


def test_a_feed_that_always_has_changes_may_rest_between_two_readings(project):
    """Many readings of a few rows would take the processor from the batch that is being indexed."""
    feed = SlowFeed()
    feed.empty, feed.wait = 0, lambda seconds: feed.asked.append("wait") or feed.give(f"k{len(feed.asked) % 10}")
    with watched(project, feed):
        eventually(lambda: len(feed.asked) > 8)
    assert not [one for one, before in zip(feed.asked[1:], feed.asked, strict=False) if one == before == "receive"]


def test_a_run_takes_what_waited_when_it_began_out_of_the_inbox_if_it_reads_all(project):
    project.execute("ALTER TABLE note ADD COLUMN changed TEXT DEFAULT '2020-01-01 00:00:00'")
    project.write_settings(project.config.read_text() + 'changed_since = "changed"\n')
    run_plain(project)
    see = Ledger.see
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.begin_watch(ALIAS)
        ledger.put_changes([(ALIAS, "5", 1.0)])
        run_plain(project)  # a row of another table may have changed, which `changed_since` does not tell
        assert ledger.count_waiting(ALIAS) == 1
        ledger.need_full_scan(ALIAS)  # it reads all rows in full

        def arrive(self, *args, **kwargs):
            ledger.put_changes([(ALIAS, "6", 2.0)])
            return see(self, *args, **kwargs)

        with mock.patch.object(Ledger, "see", arrive):
            run_plain(project)
        assert [one.document_id for one in ledger.waiting_changes(ALIAS, 10)] == ["6"]
        assert ledger.watch(ALIAS).full_number is None


def test_a_run_notes_all_that_the_watch_should_have_brought(project):
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.begin_watch(ALIAS)
        run_plain(project)
        assert ledger.last_mended(ALIAS) is None
        project.fill(1, first=99)
        project.execute("UPDATE note SET title = '', body = '' WHERE id = 1")
        project.execute("UPDATE note SET body = 'another text' WHERE id = 2")
        project.execute("UPDATE note SET author = 'somebody else' WHERE id = 3")
        project.execute("DELETE FROM note WHERE id = 4")
        run_plain(project)
        number, _ = ledger.last_mended(ALIAS)
        assert sorted(ledger.unexplained(ALIAS, number)) == ["1", "2", "3", "4", "99"]


def test_an_index_whose_changes_are_not_seen_says_so_and_all_of_it_is_compared_afterwards(project, feed, monkeypatch):
    """Each check asks for the comparison again: a run that comes in between does not see what changes after it."""
    monkeypatch.setattr(collector, "FEED_CHECK_SECONDS", 0.05)
    runs: list[str] = []
    with watched(project, feed, runner=whole_runs(project, runs)) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).caught_up_at)
        feed.problems = {"notes": SettingsError("table note has no triggers")}
        eventually(lambda: ledger.watch(ALIAS).state == "failing")
        assert ledger.watch(ALIAS).message == "changes cannot be received: table note has no triggers"
        ledger.clear_changes(ALIAS, ledger.watch(ALIAS).last_number)  # as a nightly run does
        eventually(lambda: ledger.watch(ALIAS).full_number is not None)
        feed.problems["notes"] = SourceUnavailable("it is down")  # which says nothing about the triggers
        assert (ledger.watch(ALIAS).state, runs) == ("failing", [])
        feed.problems = {}
        eventually(lambda: runs == ["notes"] and ledger.watch(ALIAS).state == "running")
        assert ledger.watch(ALIAS).full_number is None


def test_what_arrives_wakes_the_watch_and_one_that_looks_seldom_ends_soon(project, feed, monkeypatch):
    """Otherwise it looks at the inbox only now and then."""
    monkeypatch.setattr(loop, "NOTE_SECONDS", 100_000.0)
    project.write_settings(project.config.read_text() + "[watch]\npoll_seconds = 3600\n")
    with watched(project, feed) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).caught_up_at)
        change(project, feed, 5, "the pump is mended")
        eventually(lambda: ledger.watch(ALIAS).applied_at)
        noted = eventually(lambda: (one := ledger.watch(ALIAS)).caught_up_at > one.applied_at and one.caught_up_at)
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        assert ledger.watch(ALIAS).caught_up_at > noted, "also at its end, or `seconds_behind` begins too early"
