"""Real feeds: an ordinary day reports nothing, and a change that the feed cannot see is reported with its key."""

from __future__ import annotations

import logging
import random
import threading
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from rag_index.errors import IndexLocked, StoreBusy
from rag_index.indexing.steps import Here
from rag_index.ledger import Ledger
from rag_index.settings import load_settings
from rag_index.watch import loop
from rag_index.watch.loop import Stop
from rag_index.watch.plain import open_watch
from tests.reliability.chaos.places import Missing, open_desk
from tests.reliability.chaos.watcher import Runner, whole_run
from tests.reliability.chaos.writers import Writers
from tests.waiting import eventually

INDEXES = ("chaos_tickets", "chaos_customers")
SEED = random.SystemRandom().randrange(1_000_000)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(loop, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.1)


@pytest.fixture(params=["sqlite-queue", "postgresql-wal"])
def way(request):
    return request.param


@pytest.fixture
def desk(way, tmp_path):
    with ExitStack() as stack:
        try:
            desk, _ = open_desk(stack, tmp_path, way, tickets=60)
        except Missing as reason:
            pytest.skip(str(reason))
        yield desk


@pytest.fixture
def settings(desk):
    return load_settings(desk.config)


@pytest.fixture
def ledger(settings):
    with closing(Ledger(settings.ledger_url)) as opened:
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


def night(settings, during=None):
    """Run each index over all its documents, and return how many were not as the index had them."""
    steps = Night(during) if during else None
    outcomes = [whole_run(settings, index.name, steps) for index in settings.indexes]
    return sum(one.new + one.changed + one.payload_only + one.deleted for one in outcomes)


def compared(ledger):
    """Return whether both indexes have followed without a gap since a complete scan."""
    records = [ledger.watch(alias) for alias in INDEXES]
    return all(one is not None and one.compared and one.full_number is None for one in records)


def settled(ledger):
    return all(ledger.last_mended(alias) is None and ledger.count_waiting(alias) == 0 for alias in INDEXES)


@pytest.fixture
def begun(settings, ledger):
    """An index that the watch has brought up to date after its setup."""
    with watching(settings):
        eventually(lambda: compared(ledger))
    return settings


def test_an_ordinary_day_reports_nothing(desk, begun, ledger, reports):
    print(f"seed {SEED}")
    with watching(begun):
        writers = Writers(desk, 400, threads=3, seed=SEED)
        writers.start()
        nights = 0
        while writers.running or not nights:
            with suppress(IndexLocked, StoreBusy):  # a batch of the other index has the store
                night(begun)
                nights += 1
        writers.join(60)
        eventually(lambda: settled(ledger))
    assert reports() == []
    assert [ledger.missed(alias) for alias in INDEXES] == [[], []]
    assert nights > 0


def test_what_a_run_finds_first_is_explained_by_the_feed(desk, begun, ledger, reports):
    def edit():
        with closing(desk.session()) as session:
            number = random.randrange(10**6)
            session.run(f"UPDATE ticket SET body = 'v{number}' WHERE id = 3")
            session.run("DELETE FROM ticket WHERE id = 4")
            session.run(f"INSERT INTO ticket VALUES ({number}, 'new', 'new', 1)")
            session.run(f"UPDATE customer SET name = 'name {number}' WHERE id = 1")

    edit()  # nobody watches
    assert night(begun, edit) > 6
    assert all(ledger.last_mended(alias) for alias in INDEXES)
    edit()
    with watching(begun):
        eventually(lambda: settled(ledger))
        assert night(begun, edit) > 3
        edit()
        eventually(lambda: settled(ledger))
    assert reports() == []


def test_a_ticket_that_a_join_no_longer_gives_is_explained_by_the_look_up(desk, begun, ledger, reports):
    """The run deletes it before the look-up is made, which then finds it nowhere."""

    def drop():
        with closing(desk.session()) as session:
            session.run("DELETE FROM customer WHERE id = 1")

    with watching(begun):
        assert night(begun, drop) > 1
        eventually(lambda: settled(ledger))
    assert reports() == []


@contextmanager
def unseen(desk, way):
    """A session whose changes of tickets the feed does not see, for the time of the block."""
    with closing(desk.session()) as session:
        if way == "sqlite-queue":
            triggers = session.run("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'ticket'")
            assert triggers
            for name, _ in triggers:
                session.run(f'DROP TRIGGER "{name}"')
            yield session
            for _, sql in triggers:
                session.run(sql)
        else:
            [[publication]] = session.run("SELECT pubname FROM pg_publication")
            session.run(f'ALTER PUBLICATION "{publication}" DROP TABLE ticket')
            yield session
            session.run(f'ALTER PUBLICATION "{publication}" ADD TABLE ticket')


@pytest.mark.parametrize("watched", [True, False], ids=["while it is watched", "while nobody watches"])
def test_changes_that_the_feed_cannot_see_are_reported_once(desk, way, begun, ledger, reports, watched):
    with ExitStack() as stack:
        if watched:
            stack.enter_context(watching(begun))
            eventually(lambda: ledger.watch(INDEXES[1]).state == "running")  # it has checked the triggers
        with unseen(desk, way) as session:
            session.run("UPDATE ticket SET body = 'restored' WHERE id = 3")
            session.run("DELETE FROM ticket WHERE id = 4")
            session.run("INSERT INTO ticket VALUES (4711, 'restored', 'new', 1)")
        with closing(desk.session()) as session:
            session.run("UPDATE ticket SET body = 'as ever' WHERE id = 5")
        night(begun, lambda: None)
        stack.enter_context(watching(begun)) if not watched else None
        eventually(lambda: settled(ledger))
    with watching(begun):
        with closing(desk.session()) as session:
            session.run("UPDATE ticket SET body = 'later' WHERE id = 6")
        eventually(lambda: settled(ledger))
    [said] = reports()
    assert said.startswith("index tickets: a run had to mend 3 documents that the watch missed: 3, 4, 4711.")
    night(begun, lambda: None)
    assert ledger.missed(INDEXES[0]) == []
