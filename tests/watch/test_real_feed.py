"""A watch of a real queue: what answers may claim, and what the watch missed.

`tests/reliability/test_chaos.py` shows with all feeds that no claim is wrong, and that an ordinary day reports nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing, contextmanager

import pytest

from rag_index.changes import Received
from rag_index.documents.positions import Position
from rag_index.errors import IndexBehind, SettingsError
from rag_index.ledger import Ledger
from rag_index.retrieve import Retriever
from rag_index.watch import loop
from rag_index.watch.collector import Collector
from rag_index.watch.loop import Stop
from rag_index.watch.plain import open_watch
from tests.indexing.plain import run_plain
from tests.project import Project
from tests.reliability.chaos.watcher import Runner
from tests.waiting import eventually
from tests.watch.feeds import ListFeed

ALIAS = "test_notes"


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
        closing(Runner(project.settings)) as runner,
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


@pytest.mark.parametrize("meanwhile", [True, False], ids=["while it is watched", "while nobody watches"])
def test_changes_that_the_feed_cannot_see_are_reported(project, caplog, monkeypatch, meanwhile):
    monkeypatch.setattr(loop, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.1)
    with closing(Ledger(project.settings.ledger_url)) as ledger:

        def edit():
            with project.source() as db:
                triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
                unseen = ["UPDATE note SET body = 'restored' WHERE id = 3", "DELETE FROM note WHERE id = 4"]
                drop, again = ([one[n] for one in triggers] for n in (0, 1))
                for statement in (*(f"DROP TRIGGER {name}" for name in drop), *unseen, *again):
                    db.execute(statement)
                db.execute("UPDATE note SET body = 'as ever' WHERE id = 5")
                db.commit()
            assert run_plain(project).changed == 2

        def compared():
            record = ledger.watch(ALIAS)
            return record is not None and record.compared and record.full_number is None

        with watched(project):
            eventually(compared)
        edit() if not meanwhile else None
        with watched(project):
            edit() if meanwhile else None
            eventually(lambda: ledger.last_mended(ALIAS) is None and ledger.count_waiting(ALIAS) == 0)
        assert [(one.document_id, one.change) for one in ledger.missed(ALIAS)] == [("3", "changed"), ("4", "deleted")]
    [said] = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert "a run had to mend 2 documents that the watch missed: 3, 4." in said


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
    feed, ended = Claiming(), threading.Event()
    feed.problems = {"notes": SettingsError("table note has no triggers")}
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        collector = Collector(project.settings, ledger, feed, ["notes"], arrived=threading.Event(), ended=ended)
        collector.start()
        run_plain(project)
        asked = feed.asked
        eventually(lambda: feed.asked > asked + 3)
        assert ledger.reached()[ALIAS].how == "run"
        ended.set()
        collector.join()
