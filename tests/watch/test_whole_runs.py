"""Ordinary runs in place of batches: when they are tried, and what is said of one that fails."""

import re
import subprocess
import threading
from contextlib import ExitStack, closing
from itertools import count
from unittest import mock

import pytest

from rag_index.care.index_status import status
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.core.reports.outcome import IndexOutcome
from rag_index.errors import IndexLocked, SettingsError, TransientError
from rag_index.etl.changed import Applied
from rag_index.search import Retriever
from rag_index.watch import PlainRunner, loop
from tests.etl.plain import run_plain
from tests.fakes.ollama import FakeOllama
from tests.project import Project
from tests.twin import STORE, back_up, restore
from tests.waiting import eventually
from tests.watch.feeds import EndedRun, ListFeed, watched
from tests.watch.test_loop import SECOND, whole_runs

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(5)
    run_plain(project)
    return project


class FailingRunner:
    """A runner whose ordinary runs fail until `over` is set, and that notes when each was tried."""

    def __init__(self, clock, error) -> None:
        self.clock, self.error, self.over = clock, error, threading.Event()
        self.tried: list[float] = []

    def begin_run(self, name):
        self.tried.append(self.clock())
        if self.over.is_set():
            return EndedRun(Applied(IndexOutcome(name)))
        if isinstance(self.error, IndexLocked):
            raise self.error
        return EndedRun(Applied(None, self.error))


@pytest.mark.parametrize(
    ("error", "state", "message", "wanted"),
    [
        (TransientError("no answer"), "backing off", r"no answer; the next try is at \d\d:\d\d:\d\d UTC",
         [15, 30, 60, 120, 240, 480, 900, 900]),
        (IndexLocked("written by another run"), "waiting", "written by another run", [1, 1, 1, 1]),
    ],
)  # fmt: skip
def test_a_run_that_fails_is_tried_again_later_and_later_and_one_that_waits_soon(
    project, monkeypatch, error, state, message, wanted
):
    """By a clock that goes on by a second with each look at it, and a loop that looks all the time."""
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.001)
    seconds, feed = count(1_000.0).__next__, ListFeed()
    feed.overflow = ["notes"]
    runner = FailingRunner(seconds, error)
    with watched(project, feed, runner=runner, clock=seconds) as ledger:
        eventually(lambda: ledger.watch(ALIAS) and ledger.watch(ALIAS).state == state)
        assert re.fullmatch(message, status(project.settings).indexes[0].watch["message"])
        eventually(lambda: len(runner.tried) > len(wanted))
        runner.over.set()
    pauses = [later - sooner for sooner, later in zip(runner.tried, runner.tried[1:], strict=False)]
    assert all(least <= pause < least + 15 for least, pause in zip(wanted, pauses, strict=False)), pauses


@pytest.mark.long
@pytest.mark.parametrize("when", ["before the watch", "between two batches"])
def test_a_store_that_is_put_back_is_left_to_an_ordinary_run(project, tmp_path, monkeypatch, when):
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.01)
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
        closing(PlainRunner(project.settings)) as runner,
        mock.patch.object(subprocess, "Popen", side_effect=AssertionError("a command was started")),
    ):
        with (
            closing(Ledger(project.settings.ledger_url)) as other,
            IndexLease(other, ALIAS, "nightly"),
            pytest.raises(IndexLocked),
        ):
            runner.begin_run("notes")
        with pytest.raises(AssertionError, match="a command was started"):
            runner.begin_run("notes")


def test_a_run_in_place_of_a_batch_ends_with_its_outcome_or_its_error(project):
    project.execute("UPDATE note SET body = 'the pump is mended' WHERE id = 3")
    with closing(PlainRunner(project.settings)) as runner:
        applied = eventually(runner.begin_run("notes").applied)
        assert (applied.error, applied.outcome.state) == (None, "completed")
        assert project.texts()["3"] == ["Note 3\nthe pump is mended"]
        project.execute("DROP TABLE note")
        applied = eventually(runner.begin_run("notes").applied)
    assert isinstance(applied.error, SettingsError)  # somebody has to act: another try would end in the same way
    assert "note" in str(applied.error)


@pytest.mark.long
def test_a_run_of_one_index_stops_no_other(tmp_path):
    """Its embedder does not answer until the change of the other index has been found."""
    with ExitStack() as stack:
        fake = stack.enter_context(FakeOllama())
        extra = f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\ntimeout = 600\n'
        project = Project(tmp_path / "project", extra=extra).fill(5)
        project.write_settings(project.config.read_text() + SECOND)
        assert project.cli("index-all").returncode == 0
        feed = ListFeed()
        ledger = stack.enter_context(watched(project, feed, names=("notes", "titles")))
        eventually(lambda: ledger.watch("test_titles") and ledger.watch("test_titles").caught_up_at)
        fake.fault("hang", marker="the pump is mended")
        project.execute("UPDATE note SET body = 'the pump is mended'")
        feed.overflow = ["notes"]
        feed.give(index="titles")
        eventually(lambda: any("the pump is mended" in text for sent in fake.embeds() for text in sent.texts))
        assert ledger.watch(ALIAS).state == "catching up"
        project.execute("UPDATE note SET title = 'Pump' WHERE id = 5")
        feed.give("5", index="titles")
        retriever = stack.enter_context(Retriever(project.settings))
        eventually(lambda: "Pump" in [hit.text for hit in retriever.search_sync("pump", indexes=["titles"]).hits])
        assert ledger.watch(ALIAS).state == "catching up"
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        record = ledger.watch(ALIAS)
    assert (record.state, "was stopped with the watch" in record.message) == ("stopped", True)


def test_the_runs_of_two_indexes_take_place_one_after_the_other(project):
    """Each has workers of its own, and the embedded store has one writer."""
    project.write_settings(project.config.read_text() + SECOND)
    project.run("titles")
    end = {"notes": threading.Event(), "titles": threading.Event()}
    begun: list[str] = []
    feed = ListFeed()
    feed.overflow = ["notes", "titles"]
    with watched(project, feed, runner=whole_runs(project, begun, **end), names=("notes", "titles")) as ledger:
        eventually(lambda: ledger.watch("test_titles") and ledger.watch("test_titles").state == "waiting")
        assert "an ordinary run of notes is under way" in ledger.watch("test_titles").message
        end["notes"].set()
        eventually(lambda: begun == ["notes", "titles"] and ledger.watch(ALIAS).state == "running")
        end["titles"].set()
        eventually(lambda: ledger.watch("test_titles").state == "running")
