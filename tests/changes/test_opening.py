"""All feeds of a watch as one: what is watched how, and what is said about the rest."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from rag_index.changes import DocumentChange, Received, opening
from rag_index.changes.opening import JoinedFeed, open_feed
from rag_index.errors import SettingsError, SourceUnavailable
from rag_index.ledger import Ledger
from tests.project import Project

NOTES = '[[indexes]]\nname = "notes"\ntable = "note"\nkey = "id"\ntext = "body"\n'
TIMED = NOTES.replace("notes", "timed") + 'changed_since = "title"\n'
CODE = '[[indexes]]\nname = "code"\nkind = "code"\nroot = "src"\n'


class Given:
    """A feed that gives what a test puts there."""

    def __init__(self, *ids: str, overflow: tuple[str, ...] = ()) -> None:
        self.waiting = list(ids)
        self.overflow = overflow
        self.error: Exception | None = None
        self.wakes = False
        self.closed = False

    def check(self) -> dict:
        return {}

    def receive(self, limit: int) -> Received:
        if self.error is not None:
            raise self.error
        some = self.waiting[:limit]
        return Received([DocumentChange("i", one, 0.0) for one in some], some, len(self.waiting) > limit, self.overflow)

    def acknowledge(self, received: Received) -> None:
        self.waiting = [one for one in self.waiting if one not in received.position]

    def wait(self, seconds: float) -> None:
        time.sleep(0 if self.wakes else seconds)

    def close(self) -> None:
        self.closed = True


def everything(feed: JoinedFeed, limit: int) -> list[str]:
    found: list[str] = []
    more = True
    while more:
        received = feed.receive(limit)
        assert len(received.changes) <= limit
        feed.acknowledge(received)
        found += [change.id for change in received.changes]
        more = received.more
    return found


def test_each_feed_has_its_turn_and_is_acknowledged_for_its_own_changes():
    one, other = Given("a", "b", "c"), Given("x", "y")
    feed = JoinedFeed([(one, ["i"]), (other, ["i"])])
    assert sorted(everything(feed, 2)) == ["a", "b", "c", "x", "y"]
    feed.close()
    assert (one.closed, other.closed) == (True, True)


def test_a_feed_that_fails_stops_no_other_and_is_asked_again_later_and_later():
    down, other, now = Given(), Given("x"), [0.0]
    down.error = SourceUnavailable("the database does not answer")
    feed = JoinedFeed([(down, ["tickets"]), (other, ["code"])], clock=lambda: now[0])
    received = feed.receive(10)
    assert ([change.id for change in received.changes], received.behind) == (["x"], ("tickets",))
    feed.acknowledge(received)
    assert feed.errors == {"tickets": down.error}
    down.waiting.append("y")
    error, down.error = down.error, None
    assert everything(feed, 10) == []
    assert feed.errors == {"tickets": error}
    feed.wait(0.0)
    now[0] = 1.0
    assert everything(feed, 10) == ["y"]
    assert feed.errors == {}


def test_a_change_in_any_feed_ends_the_waiting():
    quiet, other = Given(), Given()
    other.wakes = True
    started = time.monotonic()
    JoinedFeed([(quiet, ["i"]), (other, ["j"])]).wait(60)
    assert time.monotonic() - started < 30


def test_each_of_many_feeds_is_looked_at_as_soon_as_one_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(Given, "wait", lambda self, seconds: time.sleep(seconds) or asked.append(seconds))
    JoinedFeed([(Given(), [str(number)]) for number in range(20)]).wait(0.001)
    JoinedFeed([(Given(), [str(number)]) for number in range(20)]).wait(opening.SLICE)
    assert len(asked) >= 40
    assert sum(asked[20:40]) <= opening.SLICE + 1e-9


@pytest.fixture
def opened(tmp_path):
    """A function that opens the feed of a project with these settings."""
    project = Project(tmp_path / "project")
    (project.folder / "src").mkdir()
    with closing(Ledger(project.settings.ledger_url)) as ledger:

        def opened(indexes: str, source: str = "") -> JoinedFeed:
            project.write_settings(f'project = "test"\n[source]\nurl = "sqlite:///source.db"\n{source}\n{indexes}')
            settings = project.settings
            return open_feed(settings, settings.indexes, ledger)

        yield opened


def test_an_index_without_times_is_not_polled_and_the_reason_is_said(opened):
    with closing(opened(NOTES + TIMED + CODE)) as feed:
        assert list(feed.unwatched) == ["notes"]
        polled, left_out = feed.notes
        assert left_out.startswith(
            "not watched, and brought up to date by the next run: notes: it has no changed_since"
        )
        assert polled.startswith("index timed: polled by 'title'")
        assert len(feed._parts) == 2
        assert feed.blind.keys() == {"timed", "code"}
        assert feed.blind["timed"].startswith("polling sees no deletions")


@pytest.mark.parametrize(
    ("column", "blind"),
    [
        ("datetime('now') AS age", "(datetime('now')"),
        ("strftime('%Y', 'now') AS age", "(strftime('%Y', 'now')"),
        ("CURRENT_TIMESTAMP AS age", "(CURRENT_TIMESTAMP)"),
        ("date(title) AS nowhere", ""),
    ],
)
def test_a_query_that_asks_for_the_time_changes_without_a_row(opened, column, blind):
    query = NOTES.replace('table = "note"', f'query = "SELECT id, body, {column} FROM note"')
    depends = 'depends_on = [{table = "note", key = "id", column = "id"}]\n'
    with closing(opened(query + depends, 'changes = "queue"')) as feed:
        assert blind in feed.blind.get("notes", "")
        assert bool(feed.blind) == bool(blind)


def test_where_nothing_can_be_watched_the_reasons_are_the_error(opened):
    said_once = "no index can be watched: notes, more: it has no changed_since; name one"
    with pytest.raises(SettingsError, match=said_once) as said:
        opened(NOTES + NOTES.replace("notes", "more"))
    assert str(said.value).count("changed_since") == 1


def test_the_indexes_of_a_database_share_one_feed(opened):
    query = NOTES.replace('table = "note"', 'query = "SELECT id, body, title FROM note"').replace("notes", "query")
    timed = query.replace('"query"', '"both"') + 'changed_since = "title"\n'
    with closing(opened(NOTES + query + timed, 'changes = "queue"')) as feed:
        assert list(feed.unwatched) == ["query"]
        assert len(feed._parts) == 2  # the queue, and the poll of the query that has a time
        assert any("list the tables that its query reads in depends_on" in note for note in feed.notes)
