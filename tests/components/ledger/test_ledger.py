"""The ledger in each database: what a run records, what an interrupt leaves, what is forgotten or
held back. A ledger of another version is refused and left as it is."""

import itertools
import signal
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import LEASE_SECONDS, IndexLease
from rag_index.components.ledger.tables import (
    DAY,
    LEDGER_VERSION,
    ScanRecord,
    leases,
    metadata,
    schema_version,
)
from rag_index.core.database import database_url, interrupts_deferred
from rag_index.core.documents.batches import Failure
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.core.settings import load_settings
from rag_index.errors import LedgerError
from tests.components.ledger.conftest import add
from tests.etl.plain import run_plain
from tests.live.sessions import new_database

A, B, C = hash_text("a"), hash_text("b"), hash_text("c")
KEYS = [encode_key([key]) for key in ("one", "tw\0o", "ž'\"%s:x\\", 4)] + [encode_key(["a", 5])]


def test_documents_are_counted_whether_their_bucket_is_committed_open_or_unknown(each_ledger):
    """Bucket 1 is committed, 2 is open, and the last document has no bucket. Those of another
    collection have the same keys."""
    ledger = each_ledger
    ledger.record(add(ledger, "p_other__1").id, [("1", A, B, 9), ("2", A, B, 9)])
    collection = add(ledger)
    cid = collection.id
    ledger.begin_scan(collection.alias)
    ledger.see(["1", "2", "3"], page=1, buckets=[1, 1, 2])
    ledger.record(cid, [("1", A, B, 1), ("2", B, B, 3), ("3", C, B, 5)])
    ledger.place(cid, ["1", "2", "3"])
    ledger.record(cid, [("4", A, B, 7)])
    assert ledger.commit_buckets(cid, {1: "2:17:4711"}) == set()
    ledger.open_buckets(cid, [2])
    assert ledger.digests(cid) == {1: "2:17:4711", 2: ""}
    totals = ledger.totals(cid)
    assert (totals.documents, totals.points, totals.pending) == (4, 16, 0)
    assert ledger.count_documents(collection).all == 4
    ledger.mark_pending(cid, ["3"])
    totals = ledger.totals(cid)
    assert (totals.documents, totals.points, totals.pending) == (3, 11, 1)


def test_a_collection_that_is_dropped_leaves_nothing_behind(ledger):
    """SQLite may give its id to another collection."""
    tables = [table for table in metadata.tables.values() if "collection_id" in table.c]
    for number in (1, 2):
        made = add(ledger, f"a{number}__1")
        ledger.record(made.id, [("1", b"t", b"p", 1)])
        ledger.record_scan(made.id, ScanRecord("w", "s", 1.0))
        ledger.record_files(made.id, [("1", "stamp", b"t", b"p")])
        ledger.record_largest_size(made.id, 1)
        ledger.begin_scan("p_notes")
        ledger.complete_scan(made.alias, made.id, began=1.0, how="run")
        ledger.fail(made.id, [Failure("2", "why", b"t")])
        ledger.open_buckets(made.id, [1])

    def rows() -> set[int]:
        with ledger.transaction() as connection:
            return {
                connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables
            }

    assert rows() == {2}
    ledger.drop_collection(made.id)
    assert rows() == {1}


def test_what_a_failure_has_to_do_with_the_server_is_kept_until_the_document_fails_for_another_reason(
    each_ledger,
):
    """A watch tries it once a day, since each try costs the server."""
    ledger, cid = each_ledger, add(each_ledger).id
    ledger.fail(
        cid, [Failure("1", "it ends the server", A, cause="server"), Failure("2", "refused", A)]
    )
    found = ledger.failures(cid)
    assert [(found[key].cause, found[key].next_try - found[key].last_at) for key in "12"] == [
        ("server", DAY),
        ("", 60),
    ]
    assert [one.cause for one in ledger.failures(cid, ["1"]).values()] == ["server"]
    late = found["1"].last_at + DAY - 1
    assert [found[key].is_due(late, watched=True) for key in "12"] == [False, True]
    assert found["1"].is_due(late, watched=False), "each run tries it"
    ledger.fail(cid, [Failure("1", "refused", A)])
    [failure] = ledger.failures(cid, ["1"]).values()
    assert (failure.cause, failure.tries) == ("", 2)


def test_a_scan_finds_gone_emptied_and_duplicate_documents(each_ledger):
    ledger, cid = each_ledger, add(each_ledger).id
    ledger.record(cid, [(key, A, B, 1) for key in KEYS])
    ledger.fail(cid, [Failure(KEYS[0], "x", A), Failure(KEYS[4], "x", A)])
    for _ in range(2):
        ledger.begin_scan("p_notes")
        assert ledger.see(KEYS[:2], page=1) == ledger.see([], page=2) == []
        assert ledger.see([KEYS[2], KEYS[1]], page=2) == [KEYS[1]]
        assert ledger.see([KEYS[3], KEYS[3]], page=3) == [KEYS[3]]
        ledger.record_emptied([(KEYS[0], C, B), (KEYS[1], C, B)])
        assert [ledger.find_deleted(cid) for _ in range(2)] == [1, 1]
        assert sorted(ledger.lost(cid)) == sorted(
            [(KEYS[0], C, B), (KEYS[1], C, B), (KEYS[4], None, None)]
        )
        ledger.forget_lost([KEYS[0], KEYS[4]])
        assert (ledger.lost(cid, limit=5), ledger.count_emptied()) == ([(KEYS[1], C, B)], 1)
    ledger.forget_unseen_failures(cid)
    assert list(ledger.failures(cid)) == [KEYS[0]]


def test_gone_documents_that_nobody_decided_on_are_no_deletions(each_ledger):
    ledger, collection = each_ledger, add(each_ledger)
    cid = collection.id
    ledger.record(cid, [(key, A, B, 1) for key in KEYS])
    ledger.record_largest_size(cid, len(KEYS))
    ledger.begin_scan("p_notes")
    ledger.see(KEYS[:1], page=1)
    ledger.record_emptied([(KEYS[1], C, B)])
    ledger.see(KEYS[1:2], page=1)
    gone = ledger.find_deleted(cid)
    ledger.record_undecided([*KEYS[:3], "none"])
    assert (
        gone,
        ledger.count_deletions(collection).all,
        ledger.count_undecided(collection).all,
    ) == (3, 3, 1)
    assert ledger.count_known(collection, [*KEYS[:3], "none"]).all == 3
    assert ledger.find_deleted(cid) == gone, "found anew, they are to be recorded anew"
    assert ledger.count_undecided(collection).all == 0
    ledger.record_undecided(KEYS[2:4])
    ledger.keep_undecided()
    assert sorted(key for key, text_hash, _ in ledger.lost(cid) if text_hash is None) == sorted(
        KEYS[2:4]
    )
    assert (len(ledger.lost(cid)), ledger.count_deletions(collection).all) == (2, 0)
    ledger.reduce_size(cid, 2)
    assert ledger.largest_sizes(cid) == {"": len(KEYS) - 2}
    ledger.reduce_size(cid, 20)
    assert ledger.largest_sizes(cid) == {"": 0}


def interrupt_at(number, work):
    """Do the work with a Ctrl-C at the line of this number, counting lines of libraries. Return the
    number of lines."""
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
def test_after_an_interrupt_at_any_line_the_ledger_is_free_and_records_the_end_of_the_run(
    ledger, tmp_path
):
    """An interrupt inside SQLAlchemy's work at the end of a transaction used to leave the
    transaction open.

    Other connections, also those of the same process, waited for half a minute, and the end of the
    run was lost.
    """

    def write():
        with ledger.transaction():
            ledger.record(1, [("1", b"t", b"p", 1)])
            ledger.fail(1, [])

    with closing(
        sqlite3.connect(tmp_path / "ledger.db", timeout=0.1, isolation_level=None)
    ) as other:
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
                found = other.execute(
                    "SELECT pid, message FROM rag_index_runs WHERE id = ?", (run,)
                ).fetchone()
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
    assert (ledger.prune(910 * DAY), ledger.last_run("test_notes").id) == (3, "run 999")
    assert (ledger.last_run("other_notes").id, ledger.last_run("test_notes", "id-").id) == (
        "run of another",
        "id-2",
    )
    assert ledger.prune(910 * DAY) == 0


def test_a_run_prunes_with_default_settings_and_leaves_another_project_of_the_folder_alone(project):
    project.fill(3)
    second = project.config.read_text().replace('project = "test"', 'project = "second"')
    (project.folder / "second.toml").write_text(second)
    ledger = Ledger(load_settings(project.config).ledger_url)
    now = ledger.clock()
    for name, alias, days in (
        ("one", "test_notes", 200),
        ("two", "second_notes", 200),
        ("three", "second_notes", 100),
    ):
        ledger.clock = lambda days=days: now - days * DAY
        ledger.start_run(name, alias, host="h", pid=1)
        ledger.finish_run(name, state="completed", message="", report={})
    assert run_plain(project).state == "completed"
    assert ledger.last_run("test_notes", "one") is None
    assert ledger.last_run("test_notes").state == "completed"
    assert ledger.last_run("second_notes").id == "three", "the last one says how it went"
    ledger.close()


def test_what_is_held_back_is_known_with_its_time_until_it_is_none(ledger, clock):
    collection = add(ledger, "a__1")

    def now():
        found = ledger.collection("a__1")
        return found.held, found.held_since

    ledger.hold_back(collection, 5)
    first, clock.now = clock.now, clock.now + DAY
    assert (now(), ledger.gaps_since(collection.id)) == (
        (5, first),
        first,
    ), "nothing is complete since then"
    ledger.hold_back(ledger.collection("a__1"), 7)
    assert now() == (7, first)
    ledger.hold_back(ledger.collection("a__1"), 0)
    assert (now(), ledger.gaps_since(collection.id)) == ((0, None), None)


def test_a_text_has_tries_and_nights_of_its_own_and_its_document_one_time_since_when_it_is_listed(
    each_ledger, clock
):
    ledger, cid, key = each_ledger, add(each_ledger).id, KEYS[0]

    def fail(text_hash, kind="failed", *, crashed=()):
        """Record a failure a day later, and return the number of tries and both times, in days
        since the first."""
        clock.now += DAY
        ledger.fail(cid, [Failure(key, "why", text_hash, kind)], crashed=crashed)
        row = ledger.failures(cid)[key]
        return row.tries, (row.first_at - began) / DAY, (row.incomplete_since - began) / DAY

    began = clock.now + DAY
    assert [fail(A), fail(A)] == [(1, 0, 0), (2, 0, 0)]
    assert [fail(B), fail(B, crashed=[key])] == [(1, 2, 0), (3, 2, 0)], "another text"
    assert fail(A) == (1, 4, 0), "the first text again"
    assert fail(b"") == (1, 5, 0), "a value that cannot be read has no text"
    assert ledger.gaps_since(cid) == began
    assert fail(b"", "skipped")[:2] == (1, 6)
    assert ledger.gaps_since(cid) is None, "nothing is missing"
    assert fail(b"") == (1, 7, 7)
    assert ledger.gaps_since(cid) == began + 7 * DAY
    ledger.record(cid, [(key, A, B, 1)])
    assert ledger.gaps_since(cid) is None
    assert fail(B) == (1, 8, 8), "it was indexed meanwhile"


def test_many_failures_are_recorded_at_once_each_by_its_own_text(each_ledger, clock):
    ledger, cid = each_ledger, add(each_ledger).id
    ledger.fail(cid, [Failure(key, "why", A) for key in KEYS])
    clock.now += 9 * DAY
    ledger.fail(
        cid, [Failure(key, "why", B if number % 2 else A) for number, key in enumerate(KEYS)]
    )
    rows = [ledger.failures(cid)[key] for key in KEYS]
    assert [row.tries for row in rows] == [2, 1, 2, 1, 2]
    assert [row.is_due(clock.now, watched=False) for row in rows] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert {row.incomplete_since for row in rows} == {clock.now - 9 * DAY}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of a ledger with a document."""
    with new_database(request.param, request, tmp_path, "ledger") as url:
        with closing(Ledger(url)) as ledger:
            ledger.record(add(ledger).id, [("1", b"t", b"p", 1)])
        yield url


def rows_of(url):
    """Return what each table of a ledger has."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: connection.execute(sa.select(table)).all()
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(url, change, read_only):
    engine, version = sa.create_engine(url), LEDGER_VERSION + change
    with engine.begin() as connection:
        connection.execute(schema_version.update().values(version=version))
    engine.dispose()
    before = rows_of(url)
    with pytest.raises(LedgerError) as refused:
        Ledger(url, read_only=read_only)
    said = str(refused.value)
    assert f"has version {version}, and this rag-index reads version {LEDGER_VERSION}: " in said
    if change > 0:
        assert said.endswith(": a newer rag-index wrote it, so upgrade this one")
    else:
        is_file = url.get_backend_name() == "sqlite"
        assert (
            "move the file away, or name another one" if is_file else "name another database"
        ) in said
        assert "`rag-index doctor --repair` makes it from the store, without embedding" in said
        assert "Tries of failed documents, the history of runs and cached contexts are lost" in said
    assert rows_of(url) == before


def test_a_reader_leaves_a_database_without_a_ledger_as_it_is(tmp_path):
    """Such as the source, which a mistyped URL names."""
    file = tmp_path / "source.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY)")
    before = file.read_bytes()
    with closing(Ledger(database_url(f"sqlite:///{file}", tmp_path), read_only=True)) as ledger:
        assert ledger.is_missing
        assert ledger.collections("p_notes") == []
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["source.db"]


def test_a_lease_of_a_killed_watch_that_expires_while_a_run_asks_is_taken(tmp_path):
    start = 1_700_000_000.0
    ticks = itertools.count()
    url = database_url(f"sqlite:///{tmp_path}/ledger.db", tmp_path)
    with closing(Ledger(url, clock=lambda: start + 0.05 * next(ticks))) as ledger:
        elsewhere = {
            "name": "p_notes",
            "run_id": "watch-p_notes",
            "epoch": 3,
            "host": "another machine",
            "pid": 1,
        }
        times = {
            "process_started": start,
            "since": start,
            "renewed_at": start - LEASE_SECONDS + 0.12,
        }
        with ledger.transaction() as connection:
            connection.execute(leases.insert().values(**elsewhere, **times))
        with IndexLease(ledger, "p_notes", "a run of the night") as lease:
            assert (lease.epoch, lease.interrupted_run) == (4, "watch-p_notes")
