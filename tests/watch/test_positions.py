"""An answer says what it is true of, and a search can wait for what was just committed."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager

import pytest

from rag_index.changes import Received
from rag_index.documents.positions import Position
from rag_index.errors import IndexBehind, SettingsError
from rag_index.ledger import Ledger
from rag_index.retrieve import Retriever
from rag_index.watch.collector import Collector
from rag_index.watch.loop import Stop
from rag_index.watch.plain import PlainRunner, open_watch
from tests.indexing.plain import run_plain
from tests.project import Project
from tests.waiting import eventually
from tests.watch.feeds import ListFeed


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", extra='changes = "queue"\n[watch]\npoll_seconds = 0.2\n').fill(30)
    with project.source() as db:
        db.executescript(project.cli("watch", "--setup").stdout)
    return project


@contextmanager
def watched(project):
    stop = Stop()
    with (
        closing(PlainRunner(project.settings)) as runner,
        open_watch(project.settings, None, runner, stop) as watch,
    ):
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def position(project):
    with project.source() as db:
        return str(db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'rag_index_test'").fetchone()[0])


def test_a_search_waits_for_what_was_just_committed(project):
    with watched(project), Retriever(project.settings) as retriever:
        for number in range(5):
            project.execute("INSERT INTO note VALUES (?, 'zebra', 'quagga', 'me', 1)", 1000 + number)
            after = position(project)
            found = retriever.search_sync("zebra quagga", limit=20, after=after, timeout=60)
            assert {f"{1000 + one}" for one in range(number + 1)} <= {hit.document_id for hit in found.hits}
            as_of = found.as_of["notes"]
            assert int(as_of.position) >= int(after)
            assert as_of.known_by == "queue"
            assert retriever.search_sync("zebra", max_age="10 s", timeout=60).as_of["notes"].seconds_behind < 10
    with Retriever(project.settings) as retriever:
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


def test_an_index_whose_changes_are_not_seen_claims_nothing_also_after_a_complete_run(project):
    run_plain(project)
    feed = Claiming()
    feed.problems = {"notes": SettingsError("table note has no triggers")}
    ended = threading.Event()
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        collector = Collector(project.settings, ledger, feed, ["notes"], arrived=threading.Event(), ended=ended)
        collector.start()
        run_plain(project)
        asked = feed.asked
        eventually(lambda: feed.asked > asked + 3)
        assert ledger.reached()["test_notes"].how == "run"
        ended.set()
        collector.join()
