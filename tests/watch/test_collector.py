"""What the collecting half of a watch tells the other half."""

from __future__ import annotations

from contextlib import closing

import pytest

from rag_index.changes import Received, joined
from rag_index.errors import SourceUnavailable
from rag_index.ledger import Ledger
from rag_index.watch import loop
from rag_index.watch.plain import PlainRunner
from rag_index.watch.stop import Stop
from tests.indexing.plain import run_plain
from tests.project import Project
from tests.waiting import eventually
from tests.watch.feeds import ListFeed, watch_of, watched

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(10)
    run_plain(project)
    return project


def test_what_arrives_wakes_the_watch(project, monkeypatch):
    """Otherwise it looks at the inbox only now and then."""
    monkeypatch.setattr(loop, "NOTE_SECONDS", 100_000.0)
    feed = ListFeed()
    with watched(project, feed) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).caught_up_at)
        project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
        feed.give("5")
        eventually(lambda: ledger.watch(ALIAS).applied_at)


class SlowFeed(ListFeed):
    """A feed that first gives nothing, and has more: it has read past what is not ours."""

    empty = 3
    waited_early = False

    def receive(self, limit: int) -> Received:
        if self.empty:
            self.empty -= 1
            return Received((), 0, more=True)
        return super().receive(limit)

    def wait(self, seconds: float) -> None:
        self.waited_early = self.waited_early or self.empty > 0
        super().wait(seconds)


def test_once_reads_on_where_a_feed_has_more(project):
    feed, stop = SlowFeed(), Stop()
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 5")
    feed.give("5")
    with closing(Ledger(project.settings.ledger_url)) as ledger, closing(PlainRunner(project.settings)) as runner:
        assert watch_of(project, feed, ledger, runner, stop).run(once=True)
    assert project.texts()["5"] == ["Note 5\nthe pump is mended"]
    assert not feed.waited_early, "a feed that has more is asked for it at once"


def test_a_source_that_answers_again_is_said(project, monkeypatch):
    monkeypatch.setattr(joined, "FIRST_PAUSE", 0.05)
    feed = ListFeed()
    feed.error = SourceUnavailable("source sqlite does not answer")
    with watched(project, feed) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).state == "backing off")
        feed.error = None
        eventually(lambda: ledger.watch(ALIAS).state == "running")


def test_a_watch_that_looks_seldom_ends_soon(tmp_path):
    project = Project(tmp_path / "project", "[watch]\npoll_seconds = 3600").fill(1)
    run_plain(project)
    feed = ListFeed()
    with watched(project, feed) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).caught_up_at)
