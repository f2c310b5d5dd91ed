"""The ledger in each database: what a run records of documents, what is left when its process is interrupted,
what the delete guard decides by, what there is to erase, and what is forgotten."""

import itertools
import signal
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from rag_index.components.ledger import Known, Ledger, Totals
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.ledger.tables import DAY, ScanRecord, metadata
from rag_index.core.database import interrupts_deferred
from rag_index.core.documents.batches import Failure
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.core.settings import load_settings
from rag_index.errors import LedgerError
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


def test_documents_are_pending_then_recorded_then_forgotten(each_ledger):
    ledger, cid = each_ledger, add(each_ledger).id
    ledger.mark_pending(cid, KEYS[:3])
    assert ledger.known(cid, KEYS) == {key: Known(b"", b"", 0, 1) for key in KEYS[:3]}
    assert sorted(ledger.pending_keys(cid)) == sorted(KEYS[:3])
    ledger.record(cid, [(KEYS[0], A, B, 3), (KEYS[1], A, B, 0), (KEYS[4], C, C, 1)])
    assert ledger.totals(cid) == Totals(documents=2, points=4, pending=1)
    ledger.mark_pending(cid, KEYS[:1])
    assert ledger.known(cid, KEYS[:1]) == {KEYS[0]: Known(A, B, 3, 1)}
    ledger.unmark_pending(cid, known=KEYS[:1], new=KEYS[2:3])
    kept = {KEYS[0]: Known(A, B, 3, 0), KEYS[1]: Known(A, B, 0, 0), KEYS[4]: Known(C, C, 1, 0)}
    assert ledger.known(cid, KEYS) == kept
    ledger.unmark_pending(cid, known=[], new=[])
    assert set(ledger.sample(cid, 10)) == {KEYS[0], KEYS[4]}
    ledger.forget(cid, [KEYS[0], KEYS[2]])
    assert sorted(ledger.known(cid, KEYS)) == sorted([KEYS[1], KEYS[4]])
    assert ledger.known(cid, []) == {}


def test_pages_of_rows_hold_every_row_once(each_ledger):
    keys = [encode_key([f"{kind}{i}"]) for i in range(20) for kind in ("a", "A", "é", "-", "ž")]
    cid = add(each_ledger).id
    each_ledger.record(cid, [(key, A, B, 1) for key in keys])
    found, after = [], ""
    while page := each_ledger.rows(cid, after=after, limit=7):
        found += [key for key, _ in page]
        after = found[-1]
    assert sorted(found) == sorted(keys)


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


def test_failures_count_the_tries_of_the_same_text(each_ledger):
    ledger, cid = each_ledger, add(each_ledger).id
    ledger.fail(cid, [Failure(KEYS[0], "refused 'x\\ud800'", A), Failure(KEYS[1], "refused", A)])
    ledger.fail(cid, [Failure(KEYS[0], "again", A), Failure(KEYS[1], "other text", B)])
    found = {key: (one.tries, one.reason, one.text_hash) for key, one in ledger.failures(cid).items()}
    assert found == {KEYS[0]: (2, "again", A), KEYS[1]: (1, "other text", B)}
    assert list(ledger.failures(cid, KEYS[1:])) == [KEYS[1]]
    ledger.fail(cid, [Failure(KEYS[1], "it kills", B)], crashed=[KEYS[1]])
    assert ledger.failures(cid)[KEYS[1]].tries == 3, "the run that died is a try, too"
    ledger.record(cid, [(KEYS[0], A, B, 1)])
    assert (list(ledger.failures(cid)), ledger.count_failures(cid)) == ([KEYS[1]], 1)
    ledger.clear_failures(cid, KEYS)
    assert ledger.count_failures(cid) == 0


def test_a_transaction_is_atomic_and_may_be_nested(each_ledger):
    ledger, cid = each_ledger, add(each_ledger).id

    def write_and_fail():
        with ledger.transaction():
            add(ledger, "p_notes__2")
            ledger.record(cid, [(KEYS[1], A, B, 1)])
            ledger.fail(cid, [Failure(KEYS[2], "x", A)])
            add(ledger)  # its name is taken

    ledger.record(cid, [(KEYS[0], A, B, 1)])
    with pytest.raises(LedgerError):
        write_and_fail()
    assert (list(ledger.known(cid, KEYS)), ledger.failures(cid)) == ([KEYS[0]], {})
    assert len(ledger.collections("p_notes")) == 1


def test_a_document_that_is_written_forgets_the_digest_that_another_process_recorded(each_ledger):
    with closing(Ledger(each_ledger._url)) as other:
        for writer, alias in ((each_ledger, "p_former"), (other, "p_notes")):
            writer.begin_scan(alias)
            writer.mark_pending(1, ["1"])
            writer.record(1, [("1", b"t", b"p", 1)])
        other.see(["1", "2"], page=1, buckets=[7, 8])
        other.place(1, ["1"])
        assert other.commit_buckets(1, {7: "1:00", 8: "1:00"}) == set()
        assert each_ledger.digests(1) == {7: "1:00", 8: "1:00"}
        each_ledger.begin_scan("p_former")
        each_ledger.mark_pending(1, ["1"])
        assert other.digests(1) == {7: "", 8: "1:00"}
        other.commit_buckets(1, {7: "1:00"})
        other.forget(1, ["1"])
        assert each_ledger.digests(1) == {7: "", 8: "1:00"}
        other.forget_empty_buckets(1)
        assert each_ledger.digests(1) == {8: "1:00"}


def test_a_bucket_with_a_document_that_the_scan_did_not_see_is_not_committed(each_ledger):
    each_ledger.begin_scan("p_notes")
    each_ledger.record(1, [(key, b"t", b"p", 1) for key in "12"])
    each_ledger.see(["1", "2"], page=1, buckets=[7, 8])
    each_ledger.place(1, ["1", "2"])
    each_ledger.begin_scan("p_notes")
    each_ledger.see(["1"], page=1, buckets=[7])
    assert each_ledger.commit_buckets(1, {7: "1:00", 8: "1:00"}) == {8}
    assert each_ledger.digests(1) == {7: "1:00"}


def test_of_a_scan_that_reads_some_buckets_only_their_documents_may_be_gone(each_ledger):
    each_ledger.begin_scan("p_notes")
    each_ledger.record(1, [(key, b"t", b"p", 1) for key in "1234"])
    each_ledger.see(["1", "2", "3"], page=1, buckets=[7, 7, 8])
    each_ledger.place(1, ["1", "2", "3"])
    each_ledger.begin_scan("p_notes")
    each_ledger.read_only([7])
    each_ledger.see(["1"], page=1, buckets=[7])
    assert each_ledger.find_gone(1) == 2
    assert sorted(key for key, *_ in each_ledger.lost(1)) == ["2", "4"], "of 4 it is not known where it was"


def test_what_few_documents_have_is_found_by_a_small_index(ledger):
    asked: list[tuple[str, object]] = []

    @event.listens_for(ledger.engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, many):
        asked.append((statement, parameters))

    ledger.begin_scan("p_notes")
    ledger.read_only([1])
    asked.clear()
    ledger.pending_keys(1)
    ledger.unfinished_buckets(1, None)
    ledger.count_unread(1)
    plans = []
    with ledger.transaction() as connection:
        for statement, parameters in [one for one in asked if "rag_index_documents" in one[0]]:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(row[3] for row in rows))
    assert len(plans) >= 3
    assert not [plan for plan in plans if "rag_index_documents USING PRIMARY KEY (collection_id=?)" in plan]
    assert sum("rag_index_documents USING INDEX" in plan for plan in plans) >= 3


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


RECIPE, EARLIER = "0123456789abcdef", "fedcba9876543210"


def put(ledger, text: str, *, chunks: int = 1, recipe: str = RECIPE) -> None:
    for number in range(chunks):
        ledger.put_context(recipe, hash_text(text), hash_text(str(number)), text)


def has(ledger, text: str, *, recipe: str = RECIPE) -> bool:
    return bool(ledger.contexts(recipe, [hash_text(text)])[hash_text(text)])


def test_a_context_is_kept_by_its_document_chunk_and_recipe(ledger):
    put(ledger, "sécond 漢字", chunks=2)
    put(ledger, "other", recipe=EARLIER)
    ledger.put_context(RECIPE, hash_text("sécond 漢字"), hash_text("0"), "too late")
    first, other = hash_text("sécond 漢字"), hash_text("other")
    assert ledger.contexts(RECIPE, [first, other]) == {
        first: {hash_text("0"): "sécond 漢字", hash_text("1"): "sécond 漢字"}, other: {},
    }  # fmt: skip


def test_old_contexts_go_unless_a_document_of_a_collection_needs_them(ledger, clock):
    collection = add(ledger)
    ledger.update_collection(collection.id, chunking=f"text-1-200-20/context-{RECIPE}/bm25-1/canonical-3")
    plain = add(ledger, "p_others__1")
    ledger.update_collection(plain.id, chunking="text-1-200-20/bm25-1/canonical-3")
    ledger.record(collection.id, [("1", hash_text("indexed"), b"", 2)])
    ledger.record(plain.id, [("1", hash_text("without contexts"), b"", 2)])
    ledger.fail(collection.id, [Failure("2", "refused", hash_text("failed"))])
    texts = ("unneeded", "indexed", "failed", "without contexts")
    for text in texts:
        put(ledger, text, chunks=3)
    put(ledger, "indexed", recipe=EARLIER)
    assert ledger.prune_contexts(clock.now) == 0, "nothing is old"
    clock.now += 90 * DAY
    put(ledger, "new")
    assert ledger.prune_contexts(clock.now - DAY) == 7
    assert [has(ledger, text) for text in (*texts, "new")] == [False, True, True, False, True]
    assert not has(ledger, "indexed", recipe=EARLIER), "of a prompt or a model that no collection has"
    ledger.drop_collection(collection.id)
    assert ledger.prune_contexts(clock.now + DAY) == 7, "no collection needs any"


@pytest.fixture
def collection(ledger):
    return add(ledger, "a__1")


def test_the_largest_size_counts_for_a_day(ledger, clock, collection):
    def largest():
        return ledger.largest_sizes(collection.id).get("", 0)

    for count in (300, 900, 400):
        ledger.note_size(collection.id, count)
    ledger.note_size(collection.id, 7, "comment")
    clock.now += DAY - 1
    ledger.note_size(collection.id, 500)
    assert ledger.largest_sizes(collection.id) == {"": 900, "comment": 7}
    clock.now += 2
    assert ledger.largest_sizes(collection.id) == {"comment": 7}, "of parts, those before the last whole run"
    ledger.note_size(collection.id, 400)
    assert largest() == 400
    clock.now -= 3 * DAY  # the clock was wrong: a day that is yet to come does not count
    assert largest() == 0
    ledger.note_size(collection.id, 300)
    assert largest() == 300


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


def test_documents_that_are_gone_are_counted_if_they_have_points(ledger, collection):
    ledger.record(collection.id, [("1", b"t", b"p", 1), ("2", b"t", b"p", 1), ("3", b"t", b"p", 0)])
    ledger.begin_scan("p_notes")
    ledger.note_gone(["1", "3", "4"])
    assert ledger.count_deletions(collection).all == 1
    assert [row[0] for row in ledger.lost(collection.id)] == ["1", "3", "4"]


ALIAS = "p_notes"


def test_deletions_and_changes_are_counted_in_all_collections_until_the_erasure_ends(each_ledger):
    kept, live = add(each_ledger), add(each_ledger, "p_notes__2")
    assert each_ledger.erasable(ALIAS).documents == 0
    each_ledger.note_erasable(kept.id, 2)
    each_ledger.forget(live.id, ["1"])
    pending = each_ledger.erasable(ALIAS)
    assert (pending.documents, pending.since, pending.lately) == (3, kept.created_at, False)
    each_ledger.drop_collection(kept.id)
    each_ledger.end_erasure(live.id)
    assert (each_ledger.erasable(ALIAS).documents, each_ledger.erasable(ALIAS).lately) == (0, True)
    each_ledger.update_collection(live.id, erased_at=each_ledger.clock() - DAY)
    assert not each_ledger.erasable(ALIAS).lately


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


def test_a_run_that_holds_its_index_stays_however_old_it_is(ledger):
    ledger.clock.now = 1_000 * DAY
    with IndexLease(ledger, "test_notes", "long"):
        ledger.clock.now = 800 * DAY
        ledger.start_run("long", "test_notes", host="h", pid=1)
        run(ledger, "newer", "test_notes", 900)
        assert ledger.prune(950 * DAY) == 0
    assert ledger.prune(950 * DAY) == 1


def test_failures_of_collections_that_are_gone_go(ledger):
    ours = add(ledger, "test_notes__1").id
    for one in (ours, 4711):  # of a collection that nobody knows
        ledger.fail(one, [Failure("k", "reason", b"h")])
    assert ledger.prune(910 * DAY) == 1
    assert [ledger.count_failures(one) for one in (ours, 4711)] == [1, 0]


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
