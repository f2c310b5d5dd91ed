"""All feeds of a watch as one: what is watched how, and what is said about the rest."""

from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.errors import SettingsError
from rag_index.watch.changes.opening import OpenedFeeds, open_feeds
from tests.project import Project

NOTES = '[[indexes]]\nname = "notes"\ntable = "note"\nkey = "id"\ntext = "body"\n'
TIMED = NOTES.replace("notes", "timed") + 'changed_since = "title"\n'
CODE = '[[indexes]]\nname = "code"\nkind = "code"\nroot = "src"\n'


@pytest.fixture
def opened(tmp_path):
    """A function that opens the feed of a project with these settings."""
    project = Project(tmp_path / "project")
    (project.folder / "src").mkdir()
    with closing(Ledger(project.settings.ledger_url)) as ledger:

        def opened(indexes: str, source: str = "", *names: str) -> OpenedFeeds:
            project.write_settings(f'project = "test"\n[source]\nurl = "sqlite:///source.db"\n{source}\n{indexes}')
            settings = project.settings
            return open_feeds(settings, settings.named(names), ledger)

        yield opened


def test_an_index_without_times_is_not_polled_and_the_reason_is_said(opened):
    with closing(opened(NOTES + TIMED + CODE)) as feed:
        assert list(feed.unwatched) == ["notes"]
        polled, left_out = feed.notes
        assert left_out.startswith(
            "not watched, and brought up to date by the next run: notes: it has no changed_since"
        )
        assert polled.startswith("index timed: polled by 'title'")
        assert len(feed.feeds) == 2
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
        assert len(feed.feeds) == 2  # the queue, and the poll of the query that has a time
        assert any("list the tables that its query reads in depends_on" in note for note in feed.notes)
    with pytest.raises(SettingsError, match="no index can be watched: query: list the tables"):
        opened(NOTES + query, 'changes = "queue"', "query")  # the queue has what the other index needs
