"""A watch of a real queue: what answers may claim, and what the watch missed, which is said once and nothing else.

`tests/reliability/test_chaos.py` shows with all feeds that no claim is wrong, and that an ordinary day reports nothing.
"""

import logging
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from unittest import mock

import pytest

from rag_index.care.index_status import run_reports, status
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.tables import Position, includes
from rag_index.errors import IndexBehind, SettingsError
from rag_index.search import Retriever
from rag_index.watch import collector, loop, open_watch
from rag_index.watch.changes import Received
from rag_index.watch.changes.opening import setup_script
from rag_index.watch.changes.queues import QueueFeed
from rag_index.watch.changes.rows import ReceivedRows
from rag_index.watch.collector import Collector
from rag_index.watch.loop import Stop
from tests.etl.plain import run_plain
from tests.project import SETTINGS, Project
from tests.reliability.chaos.watcher import Runner
from tests.waiting import eventually
from tests.watch.feeds import ListFeed, in_a_thread

ALIAS = "test_notes"
WATCH = "[watch]\npoll_seconds = 0.2\n[retrieve]\nindex_timeout = 60\ntimeout = 60\n"
QUEUE = SETTINGS.format(extra=f'changes = "queue"\n{WATCH}')
SECOND = '[[indexes]]\nname = "titles"\ntable = "{}"\nkey = "id"\ntext = "title"\n'
POSITION = "SELECT id || '@' || printf('%.3f', changed_at) FROM rag_index_test ORDER BY id DESC LIMIT 1"
ASKS_FOR_THE_TIME = QUEUE.replace(
    'table = "note"',
    "query = \"SELECT note.*, datetime('now') FROM note\"\ndepends_on = [{table = 'note', key = 'id', column = 'id'}]",
)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(loop, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.05)


def followed(folder, settings=QUEUE, *, notes=30):
    project = Project(folder).fill(notes)
    project.write_settings(settings)
    set_up(project)
    return project


def set_up(project):
    with project.source() as db:
        db.executescript(setup_script(project.settings))


@pytest.fixture
def project(tmp_path):
    return followed(tmp_path / "project")


@contextmanager
def watched(project):
    settings, stop = project.settings, Stop()
    with (
        closing(Runner(settings)) as runner,
        open_watch(settings, None, runner, stop) as watch,
        in_a_thread(watch.run, stop),
    ):
        yield


def caught_up(project, *names):
    """Watch until everything that is known now is indexed, and return whether it is."""
    with closing(Runner(project.settings)) as runner, open_watch(project.settings, names, runner, Stop()) as watch:
        return watch.run(once=True)


def test_changes_of_an_index_that_is_not_watched_wait(tmp_path):
    project = Project(tmp_path / "project").fill(30)
    project.write_settings(QUEUE + SECOND.format("note"))
    with pytest.raises(SettingsError, match="no queue rag_index_test; run the SQL that `rag-index watch --setup`"):
        caught_up(project)
    record = status(project.settings).indexes[0].watch
    assert (record["state"], "changes are not seen: the source has no queue" in record["message"]) == ("stopped", True)
    set_up(project)
    assert caught_up(project)
    everything = {str(number) for number in range(1, 31)}
    assert project.texts("notes").keys() == project.texts("titles").keys() == everything
    project.execute("DELETE FROM note WHERE id = 7")
    project.execute("UPDATE note SET id = 400 WHERE id = 8")
    assert caught_up(project, "notes")
    after = everything - {"7", "8"} | {"400"}
    assert (project.texts("notes").keys(), project.texts("titles").keys()) == (after, everything)
    assert caught_up(project)
    assert project.texts("titles").keys() == after
    assert "leave out the names" in project.cli("watch", "notes", "--setup").stderr


@pytest.mark.parametrize("changes", ["queue", "poll"])
def test_a_table_that_is_gone_keeps_no_other_from_being_watched(tmp_path, changes):
    project = Project(tmp_path / "project").fill(5)
    timed = 'changed_since = "author"\n' + SECOND.format("other") + 'changed_since = "at"\n'
    project.write_settings(QUEUE.replace('"queue"', f'"{changes}"') + timed)
    project.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, title TEXT, at TEXT)")
    project.execute("INSERT INTO other VALUES (1, 'one', '2026-01-01')")
    project.execute("UPDATE note SET author = '2026-01-01'")
    if changes == "queue":
        set_up(project)
    assert caught_up(project)
    project.execute("DROP TABLE note")
    project.execute("UPDATE other SET title = 'two', at = datetime('now')")
    ended = project.cli("watch", "--once")
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "notes: changes cannot be received: " in ended.stderr
    assert project.texts("titles")["1"] == ["two"]
    assert "note" in status(project.settings).indexes[0].watch["message"]


def test_after_a_column_was_exchanged_nothing_is_claimed_until_all_is_compared(project):
    with watched(project), closing(Retriever(project.settings)) as retriever:
        eventually(lambda: retriever.search_sync("note 3", max_age=60).hits)
        with project.source() as db:
            db.executescript("ALTER TABLE note RENAME body TO old; ALTER TABLE note ADD body DEFAULT 'all new'")
            db.execute("UPDATE note SET title = 'x' WHERE id = 3")
        found = retriever.search_sync("note 3", after=position(project), timeout=60, limit=50)
        assert found.hits
        assert all("all new" in hit.text for hit in found.hits)


def test_a_file_that_is_renamed_to_the_sources_name_is_read_from_then_on(project):
    with watched(project), closing(Retriever(project.settings)) as retriever:
        eventually(lambda: retriever.search_sync("note 3", max_age=60).hits)
        copy = project.folder / "copy.db"
        copy.write_bytes((project.folder / "source.db").read_bytes())
        with closing(sqlite3.connect(copy)) as db, db:
            db.execute("UPDATE note SET body = 'violet' WHERE id = 3")
        copy.replace(project.folder / "source.db")
        assert retriever.search_sync("violet", after=position(project), timeout=60).hits[0].document_id == "3"


def test_a_running_watch_notices_that_its_triggers_are_gone(tmp_path, monkeypatch):
    """A table that is swapped by a rename has none, and gives nothing, as if nothing changed."""
    monkeypatch.setattr(collector, "FEED_CHECK_SECONDS", 0.05)
    project = followed(tmp_path / "project", QUEUE + SECOND.format("note"))

    def says(state, *known_by, documents=None):
        return all(
            ((one.watch or {}).get("state"), documents and one.documents) == (state, documents)
            and (one.as_of or {}).get("known_by") in known_by
            for one in status(project.settings).indexes
        )

    with watched(project):
        eventually(lambda: says("running", "queue", documents=30))
        with project.source() as db:
            db.executescript("ALTER TABLE note RENAME TO gone; CREATE TABLE note AS SELECT * FROM gone WHERE id < 9")
        eventually(lambda: says("failing", None, "run"))  # nobody knows since when; a run may have read the new table
        set_up(project)
        eventually(lambda: says("running", "queue", documents=8))


def position(project):
    with project.source() as db:
        return db.execute(POSITION).fetchone()[0]


def test_a_search_waits_for_what_was_just_committed(project):
    with watched(project), Retriever(project.settings) as retriever:
        for number in range(5):
            project.execute("INSERT INTO note VALUES (?, 'zebra', 'quagga', 'me', 1)", 1000 + number)
            after = position(project)
            found = retriever.search_sync("zebra quagga", limit=20, after=after, timeout=60)
            assert {f"{1000 + one}" for one in range(number + 1)} <= {hit.document_id for hit in found.hits}
            as_of = found.as_of["notes"]
            assert includes(as_of.position, after)
            assert as_of.known_by == "queue"
            assert retriever.search_sync("zebra", max_age="10 s", timeout=60).as_of["notes"].seconds_behind < 10
    with Retriever(project.settings) as retriever:
        assert retriever.search_sync("zebra").as_of["notes"].known_by == "queue"
        project.execute("INSERT INTO note VALUES (2000, 'zebra', 'quagga', 'me', 1)")
        with pytest.raises(
            IndexBehind, match=f"index notes has not reached {position(project)} within 0.3 s: it is at"
        ):
            retriever.search_sync("zebra", after=position(project), timeout=0.3)


class Claiming(ListFeed):
    """A feed that always claims to have everything, as one does whose triggers are gone."""

    asked = 0

    def receive(self, limit):
        self.asked += 1
        return Received((), through={"notes": Position(float(self.asked), str(self.asked), "queue")})

    def wait(self, seconds):
        time.sleep(0.01)


def test_an_index_whose_changes_are_not_seen_claims_nothing_also_after_a_complete_run(project, ledger):
    run_plain(project)
    feed, ended = Claiming(), threading.Event()
    feed.problems = {"notes": SettingsError("table note has no triggers")}
    collecting = Collector(project.settings, ledger, feed, ["notes"], arrived=threading.Event(), ended=ended)
    collecting.start()
    run_plain(project)
    asked = feed.asked
    eventually(lambda: feed.asked > asked + 3)
    assert ledger.reached()[ALIAS].how == "run"
    ended.set()
    collecting.join()


def unseen(project, *statements):
    """Change what the feed never gives, as a restore does that switches the triggers off."""
    with project.source() as db:
        db.execute("BEGIN IMMEDIATE")
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for statement in (
            *(f"DROP TRIGGER {name}" for name, _ in triggers),
            *statements,
            *(sql for _, sql in triggers),
        ):
            db.execute(statement)


def compare(project, ledger):
    """Let a complete run begin under the watch."""
    with watched(project):
        eventually(lambda: (one := ledger.watch(ALIAS)) and one.compared and one.full_number is None)


def begun(ledger):
    return ledger.watch(ALIAS).state == "running"


def judged(ledger):
    return ledger.last_mended(ALIAS) is None


def looked(ledger):
    before = ledger.watch(ALIAS).caught_up_at
    return eventually(lambda: ledger.watch(ALIAS).caught_up_at != before)


def all_is_indexed(project, ledger):
    with project.source() as db:
        [queued] = db.execute("SELECT count(*) FROM rag_index_test").fetchone()
    return queued == 1 and ledger.count_waiting(ALIAS) == 0  # the newest row stays


@pytest.fixture
def reports(caplog):
    """The errors or hints of watches about what they missed."""
    caplog.set_level(logging.INFO, logger="rag_index.watch")
    return lambda level=logging.ERROR: [
        one.getMessage() for one in caplog.records if one.levelno == level and "the watch missed" in one.getMessage()
    ]


@pytest.mark.parametrize(
    ("settings", "meanwhile"), [(QUEUE, True), (QUEUE, False), (ASKS_FOR_THE_TIME, True)],
    ids=["while it is watched", "while nobody watches", "where that is expected"],
)  # fmt: skip
def test_changes_that_the_feed_cannot_see_are_reported_until_the_next_run(tmp_path, reports, settings, meanwhile):
    project, expected = followed(tmp_path / "project", settings), settings != QUEUE

    def edit():
        unseen(
            project, "UPDATE note SET body = 'restored' WHERE id = 3", "DELETE FROM note WHERE id = 4",
            "INSERT INTO note VALUES (77, 'new', 'one', 'a', 1)",
        )  # fmt: skip
        project.execute("UPDATE note SET body = 'as ever' WHERE id = 5")
        outcome = run_plain(project)
        assert (outcome.new, outcome.deleted) == (1, 1)
        assert outcome.changed in {1, 2}  # the watch may have been quicker with what it can see

    with closing(Ledger(project.settings.ledger_url)) as ledger:
        compare(project, ledger)
        edit() if not meanwhile else None
        with watched(project):
            eventually(lambda: begun(ledger))
            edit() if meanwhile else None
            eventually(lambda: judged(ledger) and all_is_indexed(project, ledger))
        with watched(project):
            looked(ledger)  # and says nothing more
        missed = {one.document_id: one.change for one in ledger.missed(ALIAS)}
        assert missed == {"3": "changed", "4": "deleted", "77": "new"}
        [said] = reports(logging.INFO if expected else logging.ERROR)
        assert "index notes: a run had to mend 3 documents that the watch missed: 3, 4, 77. " in said
        assert ("That is expected: its query asks for the time" in said) == expected
        assert expected or "The index is right again" in said
        told = status(project.settings).indexes[0].watch["missed"]
        assert (told["documents"], told["expected"], told["message"]) == (3, expected, said)
        [run] = run_reports(project.settings, project.settings.indexes)
        assert run["missed"]["ids"] == ["3", "4", "77"]
        run_plain(project)
        assert (ledger.missed(ALIAS), status(project.settings).indexes[0].watch["missed"]) == ([], None)


def test_nothing_is_judged_before_the_feed_has_given_all_nor_while_a_run_writes(project, ledger, reports):
    compare(project, ledger)
    holds, rows, see = threading.Event(), QueueFeed.rows, Ledger.see

    def later(feed, limit):
        return ReceivedRows([]) if holds.is_set() else rows(feed, limit)

    def found(self, *args, **kwargs):
        ledger.note_mended(ALIAS, "this run", 0, [("9", "changed")])
        looked(ledger)
        assert not judged(ledger)
        return see(self, *args, **kwargs)

    with mock.patch.object(QueueFeed, "rows", later), watched(project):
        eventually(lambda: begun(ledger))
        holds.set()
        for _ in range(2):  # the first may have begun before
            looked(ledger)
        project.execute("UPDATE note SET body = 'mended' WHERE id = 5")
        run_plain(project)
        for _ in range(5):  # one look asks the feed, and the next would judge
            looked(ledger)
        assert not judged(ledger)
        holds.clear()
        eventually(lambda: judged(ledger))
        assert reports() == []
        with mock.patch.object(Ledger, "see", found):
            run_plain(project)
        eventually(lambda: judged(ledger))
    assert "the watch missed: 9." in reports()[0]


def test_other_settings_failures_and_a_rebuild_are_no_fault(project, ledger):
    compare(project, ledger)
    project.write_settings(QUEUE.replace('payload = ["author", "priority"]', 'payload = ["author"]'))
    assert (run_plain(project).payload_only, judged(ledger)) == (30, True)
    with ledger.transaction() as connection:  # a document that failed with the text that the source has
        connection.exec_driver_sql(
            "INSERT INTO rag_index_failed_documents (collection_id, key, text_hash, reason, tries, first_at, last_at) "
            "SELECT collection_id, key, text_hash, 'too long', 1, 1, 1 FROM rag_index_documents WHERE key = '8'"
        )
        connection.exec_driver_sql("UPDATE rag_index_documents SET text_hash = x'00' WHERE key = '8'")
    assert (run_plain(project).changed, judged(ledger)) == (1, True)
    for full in (True, False):  # the rebuilt collection is compared as any
        unseen(project, f"UPDATE note SET body = 'mended {full}' WHERE id = 5")
        run_plain(project, full=full)
        assert judged(ledger) == full


def test_what_the_delete_guard_holds_back_is_no_fault(tmp_path, reports):
    """Batches and runs find it again and again, and a document that is newer than the last run is not held back."""
    project = followed(tmp_path / "large", notes=300)
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        compare(project, ledger)
        with watched(project):
            project.fill(1, first=301)
            project.execute("DELETE FROM note WHERE id <= 150")
            eventually(lambda: all_is_indexed(project, ledger))
        assert (run_plain(project).held_back, judged(ledger)) == (150, True)
        project.execute("DELETE FROM note WHERE id = 301")
        ledger.put_changes([(ALIAS, str(number), 1.0) for number in [*range(1, 151), 301]])
        run_plain(project)
        assert (ledger.count_waiting(ALIAS), judged(ledger)) == (0, True)
        assert run_plain(project, allow_deletes=True).deleted >= 150
        assert judged(ledger)
    assert reports() == []


def test_a_source_that_was_put_back_is_noticed_whatever_its_numbers_are(project):
    """Neither before the watch looks nor later does an answer claim a position of another history."""
    retriever = Retriever(project.settings)
    assert caught_up(project)
    copy = (project.folder / "source.db").read_bytes()
    project.execute("UPDATE note SET body = 'abandoned' WHERE id BETWEEN 5 AND 9")
    assert caught_up(project)
    assert retriever.search_sync("note", after=position(project), timeout=10).hits
    (project.folder / "source.db").write_bytes(copy)
    for number in (1, 2, 3, 4, 10, 11, 12, 13):  # with the last of them, the number is beyond the one that was reached
        project.execute("UPDATE note SET body = 'violet' WHERE id = ?", number)
        with pytest.raises(IndexBehind):
            retriever.search_sync("note", after=position(project), timeout=0.1)
    assert caught_up(project)
    assert not any("abandoned" in " ".join(texts) for texts in project.texts("notes").values())
    assert "violet" in " ".join(project.texts("notes")["13"])
    assert retriever.search_sync("note", after=position(project), timeout=10).hits
    retriever.close()
