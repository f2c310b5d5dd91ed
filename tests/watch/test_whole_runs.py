"""Ordinary runs in place of batches: when they are tried, and what is said of one that fails."""

from __future__ import annotations

import re
import subprocess
from contextlib import closing
from itertools import count
from unittest import mock

import pytest

from rag_index.errors import IndexLocked, StoreBusy, TransientError
from rag_index.indexing.changed import Applied
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.reports.outcome import IndexOutcome
from rag_index.status.status import status
from rag_index.stores import open_store
from rag_index.watch import loop
from rag_index.watch.plain import PlainRunner
from rag_index.watch.stop import Stop
from tests.indexing.plain import run_plain
from tests.project import Project
from tests.twin import STORE, back_up, restore
from tests.waiting import eventually
from tests.watch.feeds import ListFeed, watched

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(5)
    run_plain(project)
    return project


class FailingRunner:
    """A runner whose ordinary runs fail, and that notes when each was tried."""

    def __init__(self, clock, error, *, tries: int) -> None:
        self.clock, self.error, self.left = clock, error, tries
        self.tried: list[float] = []

    def index_whole(self, name):
        self.tried.append(self.clock())
        self.left -= 1
        return Applied(None, self.error) if self.left else Applied(IndexOutcome(name))

    def close(self):
        pass


@pytest.fixture
def seconds(monkeypatch):
    """A clock that goes on by a second with each look at it, and a loop that looks all the time."""
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.001)
    return count(1_000.0).__next__


def test_a_run_that_fails_is_tried_again_later_and_later_and_status_says_when(project, seconds):
    feed = ListFeed()
    feed.overflow = ["notes"]
    runner = FailingRunner(seconds, TransientError("the embedder does not answer"), tries=9)
    said = r"the embedder does not answer; the next try is at \d\d:\d\d:\d\d UTC"
    with watched(project, feed, runner=runner, clock=seconds) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).state == "backing off")
        found = status(project.settings)[0].watch
        assert (found["state"], bool(re.fullmatch(said, found["message"]))) == ("backing off", True)
        eventually(lambda: not runner.left)
    pauses = [later - sooner for sooner, later in zip(runner.tried, runner.tried[1:], strict=False)]
    wanted = [15, 30, 60, 120, 240, 480, 900, 900]
    assert all(least <= pause < least + 15 for least, pause in zip(wanted, pauses, strict=True)), pauses


def test_a_run_that_another_keeps_waiting_is_tried_every_second(project, seconds):
    feed = ListFeed()
    feed.overflow = ["notes"]
    runner = FailingRunner(seconds, IndexLocked("index notes is being written by another run"), tries=5)
    with watched(project, feed, runner=runner, clock=seconds) as ledger:
        eventually(lambda: not runner.left)
        assert "the next try" not in ledger.watch(ALIAS).message
    assert max(later - sooner for sooner, later in zip(runner.tried, runner.tried[1:], strict=False)) < 10


@pytest.mark.parametrize("when", ["before the watch", "between two batches"])
def test_a_store_that_is_put_back_is_left_to_an_ordinary_run(project, tmp_path, monkeypatch, when):
    monkeypatch.setattr(loop, "LOCKED_SECONDS", 0.01)
    kept, feed = back_up(project, tmp_path / "kept", STORE), ListFeed()
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 3")
    run_plain(project)
    if when == "before the watch":
        restore(project, kept, STORE)
    with watched(project, feed) as ledger:
        if when != "before the watch":
            eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).caught_up_at)
            restore(project, kept, STORE)
            feed.give("5")
        eventually(lambda: "older copy" in ledger.last_run(ALIAS).message)
    assert project.texts()["3"] == ["Note 3\nthe pump is mended"]


def test_no_command_is_started_while_another_run_holds_index_or_store(project):
    with (
        closing(PlainRunner(project.settings, Stop())) as runner,
        mock.patch.object(subprocess, "Popen", side_effect=AssertionError("a command was started")),
    ):
        with closing(Ledger(project.settings.ledger_url)) as other, IndexLease(other, ALIAS, "nightly"):
            assert isinstance(runner.index_whole("notes").error, IndexLocked)
        with closing(open_store(project.settings.store)):
            assert isinstance(runner.index_whole("notes").error, StoreBusy)
        with pytest.raises(AssertionError, match="a command was started"):
            runner.index_whole("notes")


def test_a_run_in_place_of_a_batch_ends_with_its_outcome_or_its_error(project):
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 3")
    with closing(PlainRunner(project.settings, Stop())) as runner:
        applied = runner.index_whole("notes")
        assert (applied.error, applied.outcome.changed, applied.outcome.unchanged) == (None, 1, 4)
        project.execute("DROP TABLE note")
        applied = runner.index_whole("notes")
    assert "note" in str(applied.error)
