"""The ledger in each database: what a run records of documents, what is left when its process is interrupted,
what is forgotten, and what is held back."""

import itertools
import signal
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.tables import DAY, ScanRecord, metadata
from rag_index.core.database import interrupts_deferred
from rag_index.core.documents.batches import Failure
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.core.settings import load_settings
from tests.components.ledger.conftest import add
from tests.etl.plain import run_plain
from tests.project import Project

A, B, C = hash_text("a"), hash_text("b"), hash_text("c")
KEYS = [encode_key([key]) for key in ("one", "tw\0o", "ž'\"%s:x\\", 4)] + [encode_key(["a", 5])]


def test_a_collection_that_is_dropped_leaves_nothing_behind(ledger):
    """SQLite may give its id to another collection."""
    tables = [table for table in metadata.tables.values() if "collection_id" in table.c]
    for number in (1, 2):
        made = add(ledger, f"a{number}__1")
        ledger.record(made.id, [("1", b"t", b"p", 1)])
        ledger.record_scan(made.id, ScanRecord("w", "s", 1.0))
        ledger.note_files(made.id, [("1", "stamp", b"t", b"p")])
        ledger.note_size(made.id, 1)
        ledger.begin_scan("p_notes")
        ledger.complete_scan(made.alias, made.id, began=1.0, how="run")
        ledger.fail(made.id, [Failure("2", "why", b"t")])
        ledger.open_buckets(made.id, [1])

    def rows() -> set[int]:
        with ledger.transaction() as connection:
            return {connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables}

    assert rows() == {2}
    ledger.drop_collection(made.id)
    assert rows() == {1}


def test_a_scan_finds_gone_emptied_and_duplicate_documents(each_ledger):
    ledger, cid = each_ledger, add(each_ledger).id
    ledger.record(cid, [(key, A, B, 1) for key in KEYS])
    ledger.fail(cid, [Failure(KEYS[0], "x", A), Failure(KEYS[4], "x", A)])
    for _ in range(2):
        ledger.begin_scan("p_notes")
        assert ledger.see(KEYS[:2], page=1) == []
        assert ledger.see([], page=2) == []
        assert ledger.see([KEYS[2], KEYS[1]], page=2) == [KEYS[1]]
        assert ledger.see([KEYS[3], KEYS[3]], page=3) == [KEYS[3]]
        ledger.note_emptied([(KEYS[0], C, B), (KEYS[1], C, B)])
        assert [ledger.find_gone(cid) for _ in range(2)] == [1, 1]
        emptied = [(KEYS[0], C, B), (KEYS[1], C, B)]
        assert sorted(ledger.lost(cid)) == sorted([*emptied, (KEYS[4], None, None)])
        ledger.forget_lost([KEYS[0], KEYS[4]])
        assert ledger.lost(cid, limit=5) == [(KEYS[1], C, B)]
        assert ledger.count_emptied() == 1
    ledger.forget_unseen_failures(cid)
    assert list(ledger.failures(cid)) == [KEYS[0]]


def interrupt_at(number, work):
    """Do the work with a Ctrl-C at the line of this number, counting lines of libraries. Return the number of lines."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        lines += event == "line"
        if lines == number and event == "line":
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.long
def test_after_an_interrupt_at_any_line_the_ledger_is_free_and_records_the_end_of_the_run(ledger, tmp_path):
    """An interrupt inside SQLAlchemy's work at the end of a transaction used to leave the transaction open.

    Other connections, also those of the same process, waited for half a minute, and the end of the run was lost.
    """

    def write():
        with ledger.transaction():
            ledger.record(1, [("1", b"t", b"p", 1)])
            ledger.fail(1, [])

    with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0.1, isolation_level=None)) as other:
        for one in (other, ledger._connection.connection.driver_connection):
            one.execute("PRAGMA synchronous=OFF")
        write()
        for number in itertools.count(1, 37):
            run = f"run {number}"
            ledger.start_run(run, "p_notes", host="h", pid=1)
            try:
                lines = interrupt_at(number, write)
            except KeyboardInterrupt:  # it keeps its frames alive here, as in a run that ends
                other.execute("UPDATE rag_index_runs SET pid = 2 WHERE id = ?", (run,))
                ledger.finish_run(run, state="failed", message="stopped", report={})
                found = other.execute("SELECT pid, message FROM rag_index_runs WHERE id = ?", (run,)).fetchone()
                assert found == (2, "stopped"), number
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            else:
                assert lines < number, f"the interrupt at line {number} of {lines} was lost"
                break
    assert number > 200


def test_a_deferred_signal_is_handled_at_the_end_of_the_block_even_if_it_fails():
    handled = []

    def whole():
        with interrupts_deferred(), interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            handled.append("whole")

    def failing():
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("the disk is full")

    with pytest.raises(KeyboardInterrupt):
        whole()
    assert handled == ["whole"]
    with pytest.raises(KeyboardInterrupt) as both:
        failing()
    assert isinstance(both.value.__context__, ValueError)


@pytest.fixture
def collection(ledger):
    return add(ledger, "a__1")


def run(ledger: Any, run_id: str, alias: str, day: float) -> None:
    ledger.clock.now = day * DAY
    ledger.start_run(run_id, alias, host="h", pid=1)
    ledger.finish_run(run_id, state="completed", message="", report={})


def test_old_runs_go_and_the_newest_of_each_index_stays(ledger):
    for day in (800, 801, 999):
        run(ledger, f"run {day}", "test_notes", day)
    run(ledger, "run of another", "other_notes", 700)
    run(ledger, "id-1", "test_notes", 800)
    run(ledger, "id-2", "test_notes", 999)
    run(ledger, "watch-test_notes", "test_notes", 700)
    assert ledger.prune(910 * DAY) == 3
    assert ledger.last_run("test_notes").id == "run 999"
    assert ledger.last_run("other_notes").id == "run of another"
    assert ledger.last_run("test_notes", "id-").id == "id-2"
    assert ledger.prune(910 * DAY) == 0


def test_a_run_prunes_with_default_settings_and_leaves_another_project_of_the_folder_alone(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    second = project.config.read_text().replace('project = "test"', 'project = "second"')
    (project.folder / "second.toml").write_text(second)
    ledger = Ledger(load_settings(project.config).ledger_url)
    now = ledger.clock()
    for name, alias, days in (("one", "test_notes", 200), ("two", "second_notes", 200), ("three", "second_notes", 100)):
        ledger.clock = lambda days=days: now - days * DAY
        ledger.start_run(name, alias, host="h", pid=1)
        ledger.finish_run(name, state="completed", message="", report={})
    assert run_plain(project).state == "completed"
    assert ledger.last_run("test_notes", "one") is None
    assert ledger.last_run("test_notes").state == "completed"
    assert ledger.last_run("second_notes").id == "three", "the last one says how it went"
    ledger.close()


def test_what_is_held_back_is_known_with_its_time_until_it_is_none(ledger, clock, collection):
    def now():
        found = ledger.collection("a__1")
        return found.held, found.held_since

    ledger.hold_back(collection, 5)
    first, clock.now = clock.now, clock.now + DAY
    assert now() == (5, first)
    assert ledger.gaps_since(collection.id) == first, "nothing is complete since then"
    ledger.hold_back(ledger.collection("a__1"), 7)
    assert now() == (7, first)
    ledger.hold_back(ledger.collection("a__1"), 0)
    assert now() == (0, None)
    assert ledger.gaps_since(collection.id) is None
