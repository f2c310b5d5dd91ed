"""Polling by `changed_since`: what is given, once, and what is given again."""

import datetime as dt
import time
from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.watch.changes.poll import ACCESS_LOOK_SECONDS, PollFeed
from tests.etl.plain import run_plain
from tests.project import Project

SETTINGS = """\
project = "test"
[source]
url = "sqlite:///source.db"
[watch]
burst_documents = 20
[[indexes]]
name = "notes"
table = "note"
key = "id"
text = "body"
changed_since = "at"
"""
ACCESS = """access = "SELECT note_id, name FROM acl"\n"""


class Polled:
    """A project whose table has times, and the feed of its index."""

    def __init__(self, folder) -> None:
        self.project = Project(folder)
        self.project.write_settings(SETTINGS)
        self.project.execute("DROP TABLE note")
        self.project.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, at TEXT)")
        self.now = 0.0
        self.ledger = Ledger(self.project.settings.ledger_url)
        self.feed = self.open()

    def open(self) -> PollFeed:
        settings = self.project.settings
        return PollFeed(settings, settings.indexes[0], self.ledger, clock=lambda: self.now)

    def restart(self) -> None:
        self.feed.close()
        self.feed = self.open()

    def put(self, *numbers: int, body: str = "x", form: str = "%Y-%m-%d %H:%M:%S.%f", **past) -> None:
        at = (dt.datetime.now(dt.UTC) - dt.timedelta(**past)).strftime(form)
        for number in numbers:
            self.project.execute("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", number, body, at)

    def receive(self, *, after: float = 10.0, acknowledge: bool = True, overflow: bool = False) -> set[str]:
        """Return the ids that the feed gives after so many seconds."""
        self.now += after
        received = self.feed.receive(5)
        assert list(received.overflow) == ["notes"] * overflow
        if acknowledge:
            self.feed.acknowledge(received)
        return {change.id for change in received.changes}

    def close(self) -> None:
        self.feed.close()
        self.ledger.close()


@pytest.fixture
def polled(tmp_path):
    with closing(Polled(tmp_path / "project")) as made:
        made.put(*range(1, 16), days=3)
        run_plain(made.project)
        yield made


def test_what_rises_is_given_once(polled):
    assert polled.receive() <= {str(number) for number in range(1, 16)}  # the time of the last run is not exact
    polled.put(3, 99)
    assert polled.receive(after=0.5) == set()
    assert polled.feed.receive(100).through == {}  # nobody has looked
    assert polled.receive(after=2.0) == {"3", "99"}
    assert polled.receive() == set()
    assert polled.receive(after=ACCESS_LOOK_SECONDS + 1) == set()
    polled.put(3, minutes=-1)
    assert polled.receive() == {"3"}
    polled.put(77, days=-9999)  # a row of the far future hides nothing
    assert polled.receive() == {"77"}
    polled.put(4)
    assert polled.receive() == {"4"}
    polled.project.execute("DELETE FROM note WHERE id = 3")
    assert polled.receive() == set()
    assert "no deletions" in polled.feed.note
    assert "committed more than 3600 s after their time" in polled.feed.note


def test_a_poll_claims_the_time_before_it_looked(polled, monkeypatch):
    polled.receive()
    looked, look = [], polled.feed._source.changed_keys
    monkeypatch.setattr(polled.feed._source, "changed_keys", lambda since: (looked.append(time.time()), look(since))[1])
    polled.now += 10
    assert polled.feed.receive(1).through["notes"].at <= looked[0]


def test_without_an_acknowledgement_the_same_comes_again_however_late(polled):
    """What is given meanwhile is never what the feed looks back from."""
    polled.receive()
    polled.put(3, 99, minutes=55)  # seen by a look that goes back as far as a run
    assert polled.receive(after=ACCESS_LOOK_SECONDS, acknowledge=False) == {"3", "99"}
    polled.put(4)
    assert polled.receive(acknowledge=False) == {"3", "4", "99"}
    polled.put(5, days=-0.1)
    assert polled.receive(acknowledge=False) == {"3", "4", "5", "99"}
    assert polled.receive() == {"3", "4", "5", "99"}
    assert polled.receive() == set()


def test_a_late_commit_is_found_by_the_next_poll_whatever_is_dated_ahead(polled):
    polled.put(50, hours=-2)
    polled.receive()
    polled.put(51, seconds=30)
    polled.put(52, minutes=50)  # it looks back for an hour
    polled.put(53)
    assert polled.receive(after=5) == {"51", "52", "53"}


@pytest.mark.parametrize("hours", [0, 5.75])
def test_a_second_change_within_the_same_second_is_given_too(polled, hours):
    """Of a column with whole seconds, whose zone nobody knows."""
    polled.receive()
    polled.put(3, body="first", form="%Y-%m-%d %H:%M:%S", hours=hours)
    assert polled.receive() == {"3"}
    polled.project.execute("UPDATE note SET body = 'second' WHERE id = 3")
    assert polled.receive() == {"3"}
    polled.put(3, form="%Y-%m-%d %H:%M:%S", hours=hours, seconds=10)
    assert (polled.receive(), polled.receive()) == ({"3"}, set())


def test_a_poll_that_takes_long_is_followed_by_a_pause_of_ten_times_as_long(polled, monkeypatch):
    look = polled.feed._source.changed_keys

    def slow(since):
        polled.now += 1.0
        return look(since)

    monkeypatch.setattr(polled.feed._source, "changed_keys", slow)
    polled.receive()
    polled.put(3)
    assert [polled.receive(after=4), polled.receive(after=4), polled.receive(after=4)] == [set(), set(), {"3"}]


def test_a_claim_says_what_the_table_was_so_that_an_altered_one_is_compared(polled):
    def tables():
        polled.now += 10
        return polled.feed.receive(5).definitions

    before = tables()
    polled.put(3)
    assert tables() == before != {}
    with polled.project.source() as db:
        db.executescript("ALTER TABLE note RENAME body TO old; ALTER TABLE note ADD COLUMN body TEXT DEFAULT 'new'")
    assert tables() != before


def test_what_changed_between_the_last_run_and_the_start_of_the_watch_is_not_missed(polled):
    polled.put(16, hours=30)
    run_plain(polled.project)
    polled.put(3, hours=20)
    polled.put(4)
    for _ in range(2):  # nothing was indexed by a run in between
        polled.restart()
        assert polled.receive() >= {"3", "4"}
    polled.project.write_settings(SETTINGS.replace("[source]", "[source]\ndigest = true"))
    run_plain(polled.project)
    polled.restart()
    assert polled.receive(overflow=True) == set()  # a run finds what digests tell


def test_an_index_that_no_run_has_read_with_these_settings_needs_one(polled):
    """Another text may show columns whose changes lie before the watermark of the last run."""
    polled.project.write_settings(SETTINGS.replace('text = "body"', 'text = ["body", "at"]'))
    polled.restart()
    assert polled.receive(acknowledge=False, overflow=True) == set()
    assert polled.receive(overflow=True) == set()  # until it is acknowledged
    polled.receive()
    polled.put(3)
    assert polled.receive() == {"3"}


def test_a_burst_is_left_to_a_run_and_said_once(polled):
    polled.receive()
    polled.put(*range(100, 121))
    assert polled.receive(overflow=True) == set()
    assert not polled.receive(after=ACCESS_LOOK_SECONDS + 1) & set(map(str, range(100, 121)))
    polled.put(3, minutes=-1)
    assert polled.receive() == {"3"}
    polled.put(*range(200, 220), minutes=-2)
    assert polled.receive() == set(map(str, range(200, 220)))


def test_a_time_that_comes_back_is_given_again(polled):
    """What is out of sight is forgotten, which also bounds the memory."""
    polled.receive()
    polled.put(3, body="first", seconds=5)
    [[at]] = polled.project.source().execute("SELECT at FROM note WHERE id = 3").fetchall()
    assert polled.receive() == {"3"}
    polled.put(3, days=300)
    polled.put(4)
    assert polled.receive(after=ACCESS_LOOK_SECONDS + 1) == {"4"}
    polled.project.execute("UPDATE note SET body = 'second', at = ? WHERE id = 3", at)
    assert polled.receive(after=ACCESS_LOOK_SECONDS + 1) == {"3"}


def test_documents_whose_groups_change_are_given_once_for_each_change(polled):
    project = polled.project
    project.execute("CREATE TABLE acl (note_id INTEGER, name TEXT)")
    polled.put(*range(1, 41), days=9)
    polled.put(99, days=2)  # polls look back from here
    project.write_settings(SETTINGS + ACCESS)
    run_plain(project)
    polled.restart()
    polled.receive()
    project.execute("INSERT INTO acl VALUES (3, 'staff'), (4, 'staff')")
    assert polled.receive(after=3) == set()
    assert polled.receive(after=ACCESS_LOOK_SECONDS, acknowledge=False) == {"3", "4"}
    assert polled.receive() == {"3", "4"}
    assert polled.receive(after=ACCESS_LOOK_SECONDS) == set()
    run_plain(project)
    for change in ("DELETE FROM acl WHERE note_id = 3", "INSERT INTO acl VALUES (3, 'staff')"):
        project.execute(change)
        assert polled.receive(after=ACCESS_LOOK_SECONDS) == ({"3"} if "DELETE" in change else set())  # as it is indexed
    project.execute("INSERT INTO acl SELECT id, 'board' FROM note")
    assert polled.receive(after=ACCESS_LOOK_SECONDS, overflow=True) == set()
    assert polled.receive(after=ACCESS_LOOK_SECONDS) == set()
