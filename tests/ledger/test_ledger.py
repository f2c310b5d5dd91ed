"""The ledger when its process is interrupted."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import sys
import threading
from contextlib import closing

import pytest
from sqlalchemy import event

from rag_index.database.sqlite import interrupts_deferred
from rag_index.database.urls import database_url
from rag_index.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(database_url(f"sqlite:///{tmp_path}/ledger.db", tmp_path))
    with ledger.transaction() as connection:
        connection.exec_driver_sql("PRAGMA synchronous=OFF")
    yield ledger
    ledger.close()


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


def test_after_an_interrupt_at_any_line_the_ledger_is_free_and_records_the_end_of_the_run(ledger, tmp_path):
    """An interrupt inside SQLAlchemy's work at the end of a transaction used to leave the transaction open.

    Other connections, also those of the same process, waited for half a minute, and the end of the run was lost.
    """

    def write():
        with ledger.transaction():
            ledger.record(1, [("1", b"t", b"p", 1)])
            ledger.fail(1, [])

    with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0.1, isolation_level=None)) as other:
        other.execute("PRAGMA synchronous=OFF")
        write()
        for number in itertools.count(1, 11):
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


def test_a_foreign_handler_is_called_and_restored():
    handled = []
    before = signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with interrupts_deferred():
            signal.raise_signal(signal.SIGTERM)
            assert not handled
        assert handled == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_can_write(ledger):
    """Only the main thread can set handlers of signals."""
    thread = threading.Thread(target=ledger.start_run, args=("r", "p_notes"), kwargs={"host": "h", "pid": 1})
    thread.start()
    thread.join()
    assert ledger.last_run("p_notes").id == "r"


def test_a_document_that_is_written_forgets_the_digest_that_another_process_recorded(ledger, tmp_path):
    with closing(Ledger(database_url(f"sqlite:///{tmp_path}/ledger.db", tmp_path))) as other:
        for writer in (ledger, other):
            writer.begin_scan()
            writer.mark_pending(1, ["1"])
            writer.record(1, [("1", b"t", b"p", 1)])
        other.see(["1", "2"], page=1, buckets=[7, 8])
        other.record_digests(1, {7: "1:00", 8: "1:00"}, unread=())
        assert ledger.digests(1) == {7: "1:00", 8: "1:00"}
        ledger.begin_scan()
        ledger.mark_pending(1, ["1"])
        assert other.digests(1) == {8: "1:00"}
        other.record_digests(1, {7: "1:00"}, unread=[8])
        other.forget(1, ["1"])
        assert ledger.digests(1) == {8: "1:00"}


def test_what_few_documents_have_is_found_by_a_small_index(ledger):
    asked: list[tuple[str, object]] = []

    @event.listens_for(ledger.engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, many):
        asked.append((statement, parameters))

    ledger.begin_scan()
    ledger.leave_unread([1])
    asked.clear()
    ledger.pending_keys(1)
    ledger.unfinished_buckets(1, max_tries=5)
    ledger.count_empty(1)
    ledger.count_unread(1)
    ledger.count_held(1)
    ledger.release_seen(1)
    plans = []
    with ledger.transaction() as connection:
        for statement, parameters in [one for one in asked if "rag_index_documents" in one[0]]:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(row[3] for row in rows))
    assert len(plans) >= 6
    assert not [plan for plan in plans if "rag_index_documents USING PRIMARY KEY (collection_id=?)" in plan]
    assert sum("rag_index_documents USING INDEX" in plan for plan in plans) >= 6
