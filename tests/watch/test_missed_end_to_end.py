"""A real feed: what a run finds first is explained by it, and what it cannot see is reported with its key.

`tests/reliability/test_chaos.py` shows that an ordinary day reports nothing.
"""

from __future__ import annotations

import logging
import random
import threading
from contextlib import ExitStack, closing, contextmanager

import pytest

from rag_index.indexing.steps import Here
from rag_index.ledger import Ledger
from rag_index.settings import load_settings
from rag_index.watch import loop
from rag_index.watch.loop import Stop
from rag_index.watch.plain import open_watch
from tests.reliability.chaos.places import open_desk
from tests.reliability.chaos.watcher import Runner, whole_run
from tests.waiting import eventually

INDEXES = ("chaos_tickets", "chaos_customers")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.1)
    with ExitStack() as stack:
        desk, _ = open_desk(stack, tmp_path, "sqlite-queue", tickets=60)
        yield desk


@pytest.fixture
def settings(desk):
    return load_settings(desk.config)


@pytest.fixture
def ledger(settings):
    """The ledger of indexes that the watch has brought up to date after the setup."""
    with closing(Ledger(settings.ledger_url)) as opened:
        with watching(settings):
            eventually(lambda: all(compared(opened.watch(alias)) for alias in INDEXES))
        yield opened


@pytest.fixture
def reports(caplog):
    caplog.set_level(logging.INFO, logger="rag_index.watch")
    return lambda: [one.getMessage() for one in caplog.records if "the watch missed" in one.getMessage()]


@contextmanager
def watching(settings):
    """Watch for the time of the block."""
    stop, errors = Stop(), []

    def run() -> None:
        try:
            with closing(Runner(settings)) as runner, open_watch(settings, None, runner, stop) as watch:
                watch.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert errors == []


class Night(Here):
    """The steps of a run that calls `during` when it has the index, before it reads."""

    def __init__(self, during) -> None:
        super().__init__()
        self._during = during

    def begin(self, run):
        scan = super().begin(run)
        assert scan.comparison.judged
        self._during()
        return scan


def night(settings, during=lambda: None):
    """Run each index over all its documents, and return how many were not as the index had them."""
    outcomes = [whole_run(settings, index.name, Night(during)) for index in settings.indexes]
    return sum(one.new + one.changed + one.payload_only + one.deleted for one in outcomes)


def compared(record):
    """Return whether an index has been followed without a gap since a complete scan."""
    return record is not None and record.compared and record.full_number is None


def settled(ledger):
    return all(ledger.last_mended(alias) is None and ledger.count_waiting(alias) == 0 for alias in INDEXES)


def test_what_a_run_finds_first_is_explained_by_the_feed(desk, settings, ledger, reports):
    def edit():
        with closing(desk.session()) as session:
            number = random.randrange(10**6)
            session.run(f"UPDATE ticket SET body = 'v{number}' WHERE id = 3")
            session.run("DELETE FROM ticket WHERE id = 4")
            session.run(f"INSERT INTO ticket VALUES ({number}, 'new', 'new', 1)")
            session.run(f"UPDATE customer SET name = 'name {number}' WHERE id = 1")

    def drop():
        """Let a join give no longer some tickets, which the run deletes before the look-up, which finds nothing."""
        with closing(desk.session()) as session:
            session.run("DELETE FROM customer WHERE id = 1")

    edit()  # nobody watches
    assert night(settings, edit) > 6
    assert all(ledger.last_mended(alias) for alias in INDEXES)
    edit()
    with watching(settings):
        eventually(lambda: settled(ledger))
        assert night(settings, edit) > 3
        edit()
        eventually(lambda: settled(ledger))
        assert night(settings, drop) > 1
        eventually(lambda: settled(ledger))
    assert reports() == []


@pytest.mark.parametrize("watched", [True, False], ids=["while it is watched", "while nobody watches"])
def test_changes_that_the_feed_cannot_see_are_reported_once(desk, settings, ledger, reports, watched):
    with ExitStack() as stack, closing(desk.session()) as session:
        if watched:
            stack.enter_context(watching(settings))
            eventually(lambda: ledger.watch(INDEXES[1]).state == "running")  # it has checked the triggers
        triggers = session.run("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'ticket'")
        for statement in (
            *(f"DROP TRIGGER {name}" for name, _ in triggers),
            "UPDATE ticket SET body = 'restored' WHERE id = 3",
            "DELETE FROM ticket WHERE id = 4",
            "INSERT INTO ticket VALUES (4711, 'restored', 'new', 1)",
            *(sql for _, sql in triggers),
            "UPDATE ticket SET body = 'as ever' WHERE id = 5",
        ):
            session.run(statement)
        night(settings)
        stack.enter_context(watching(settings)) if not watched else None
        eventually(lambda: settled(ledger))
    with watching(settings):
        with closing(desk.session()) as session:
            session.run("UPDATE ticket SET body = 'later' WHERE id = 6")
        eventually(lambda: settled(ledger))
    [said] = reports()
    assert said.startswith("index tickets: a run had to mend 3 documents that the watch missed: 3, 4, 4711.")
    night(settings)
    assert ledger.missed(INDEXES[0]) == []
