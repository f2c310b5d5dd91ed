"""The ledger on a real PostgreSQL server: each of its methods, and how a server differs from a file."""

from __future__ import annotations

import datetime as dt
import os
import threading
import time

import pytest
import sqlalchemy as sa

from rag_index.documents.batches import Failure
from rag_index.documents.canonical import hash_text
from rag_index.documents.keys import encode_key
from rag_index.errors import IndexLocked, LedgerError, LedgerUnavailable
from rag_index.ledger import Known, Ledger, Totals
from rag_index.ledger.lease import IndexLease
from rag_index.ledger.tables import leases
from tests.waiting import eventually

A, B, C = hash_text("a"), hash_text("b"), hash_text("c")
KEYS = [encode_key([key]) for key in ("one", "tw\0o", "ž'\"%s:x\\", 4)] + [encode_key(["a", 5])]


@pytest.fixture
def url(postgres):
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def ledger(url):
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def add(ledger, name="p_notes__1", alias="p_notes"):
    return ledger.add_collection(
        alias=alias, name=name, store_id="s", embedder_fingerprint="f", embedder="256-d wordllama", chunking="text-1",
        dimension=256, state="building",
    )  # fmt: skip


@pytest.fixture
def cid(ledger):
    return add(ledger).id


def test_collections(ledger, url):
    first, second = add(ledger), add(ledger, "p_notes__2")
    add(ledger, "p_other__1", "p_other")
    assert [c.name for c in ledger.collections("p_notes")] == ["p_notes__1", "p_notes__2"]
    assert ledger.collection("p_notes__2") == second
    assert ledger.collection("p_notes__3") is None
    ledger.update_collection(first.id, state="ready", chars_per_second=1234.5678901)
    ledger.record(first.id, [(KEYS[0], A, B, 2)])
    ledger.record(second.id, [(KEYS[0], A, B, 2)])
    again = Ledger(url)
    found = again.collection("p_notes__1")
    assert (found.state, found.chars_per_second, found.created_at) == ("ready", 1234.5678901, first.created_at)
    again.close()
    ledger.drop_collection(first.id)
    assert ledger.collection("p_notes__1") is None
    assert (ledger.totals(first.id), ledger.totals(second.id)) == (Totals(0, 0, 0), Totals(1, 2, 0))


def test_documents_are_pending_then_recorded_then_forgotten(ledger, cid):
    ledger.mark_pending(cid, KEYS[:3])
    assert ledger.known(cid, KEYS) == {key: Known(b"", b"", 0, 1) for key in KEYS[:3]}
    assert sorted(ledger.pending_keys(cid)) == sorted(KEYS[:3])
    ledger.record(cid, [(KEYS[0], A, B, 3), (KEYS[1], A, B, 0), (KEYS[4], C, C, 1)])
    assert ledger.totals(cid) == Totals(documents=2, points=4, pending=1)
    ledger.mark_pending(cid, KEYS[:1])
    assert ledger.known(cid, KEYS[:1]) == {KEYS[0]: Known(A, B, 3, 1)}
    ledger.unmark_pending(cid, known=KEYS[:1], new=KEYS[2:3])
    assert ledger.known(cid, KEYS) == {
        KEYS[0]: Known(A, B, 3, 0),
        KEYS[1]: Known(A, B, 0, 0),
        KEYS[4]: Known(C, C, 1, 0),
    }
    ledger.unmark_pending(cid, known=[], new=[])
    assert set(ledger.sample(cid, 10)) == {KEYS[0], KEYS[4]}
    ledger.forget(cid, [KEYS[0], KEYS[2]])
    assert sorted(ledger.known(cid, KEYS)) == sorted([KEYS[1], KEYS[4]])
    assert ledger.known(cid, []) == {}


def test_pages_of_rows_hold_every_row_once(ledger, cid):
    keys = [encode_key([f"{kind}{i}"]) for i in range(20) for kind in ("a", "A", "é", "-", "ž")]
    ledger.record(cid, [(key, A, B, 1) for key in keys])
    found, after = [], ""
    while page := ledger.rows(cid, after=after, limit=7):
        found += [key for key, _ in page]
        after = found[-1]
    assert sorted(found) == sorted(keys)


def test_a_scan_finds_gone_emptied_and_duplicate_documents(ledger, cid):
    ledger.record(cid, [(key, A, B, 1) for key in KEYS])
    ledger.fail(cid, [Failure(KEYS[0], "x", A), Failure(KEYS[4], "x", A)])
    for _ in range(2):
        ledger.begin_scan()
        assert ledger.see(KEYS[:2], page=1) == []
        assert ledger.see([], page=2) == []
        assert ledger.see([KEYS[2], KEYS[1]], page=2) == [KEYS[1]]
        assert ledger.see([KEYS[3], KEYS[3]], page=3) == [KEYS[3]]
        assert ledger.count_gone(cid) == 1
        assert ledger.gone(cid) == [KEYS[4]]
        ledger.note_emptied([(KEYS[0], C, B), (KEYS[1], C, B)])
        assert ledger.count_emptied() == 2
        assert sorted(ledger.emptied(cid)) == sorted([(KEYS[0], C, B), (KEYS[1], C, B)])
        ledger.forget_emptied([KEYS[0]])
        assert ledger.emptied(cid, limit=5) == [(KEYS[1], C, B)]
    ledger.forget_unseen_failures(cid)
    assert list(ledger.failures(cid)) == [KEYS[0]]


def test_failures_count_the_tries_of_the_same_text(ledger, cid):
    ledger.fail(cid, [Failure(KEYS[0], "refused 'x\\ud800'", A), Failure(KEYS[1], "refused", A)])
    ledger.fail(cid, [Failure(KEYS[0], "again", A), Failure(KEYS[1], "other text", B)])
    found = ledger.failures(cid)
    assert (found[KEYS[0]].tries, found[KEYS[0]].reason, found[KEYS[0]].text_hash) == (2, "again", A)
    assert (found[KEYS[1]].tries, found[KEYS[1]].reason, found[KEYS[1]].text_hash) == (1, "other text", B)
    assert list(ledger.failures(cid, KEYS[1:])) == [KEYS[1]]
    ledger.record(cid, [(KEYS[0], A, B, 1)])
    assert (list(ledger.failures(cid)), ledger.count_failures(cid)) == ([KEYS[1]], 1)
    ledger.clear_failures(cid, KEYS)
    assert ledger.count_failures(cid) == 0


def test_a_transaction_is_atomic_and_may_be_nested(ledger, cid):
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


def renewed_at(ledger):
    with ledger.transaction() as connection:
        return connection.execute(sa.select(leases.c.renewed_at)).scalar()


def test_one_run_at_a_time_over_several_machines(url, monkeypatch):
    """Machines share only the ledger. A lease from another machine is valid for a minute after its last renewal."""
    now = time.time()
    ledger, other = Ledger(url, clock=lambda: now), Ledger(url, clock=lambda: now)
    monkeypatch.setattr("rag_index.ledger.lease.RENEW_SECONDS", 0.1)
    monkeypatch.setattr("socket.gethostname", lambda: "machine-one")
    lease = IndexLease(ledger, "p_notes", "r1")
    lease.__enter__()
    monkeypatch.setattr("socket.gethostname", lambda: "machine-two")
    now += 300  # on both clocks; the run on the first machine renews its lease
    eventually(lambda: renewed_at(other) == now)
    since = dt.datetime.fromtimestamp(now - 300, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    message = rf"process {os.getpid()} on machine-one since {since}"
    with pytest.raises(IndexLocked, match=message), IndexLease(other, "p_notes", "r2"):
        pass
    lease._stop.set()  # machine-one loses power
    lease._renewer.join()
    now += 59
    with pytest.raises(IndexLocked, match=message), IndexLease(other, "p_notes", "r2"):
        pass
    now += 2
    with IndexLease(other, "p_notes", "r2") as second:
        assert second.epoch == lease.epoch + 1
        lease._stop.clear()
        lease._renew()  # it is back, and finds at its next renewal that the lease is another's
        with pytest.raises(IndexLocked, match="another took over p_notes"):
            lease.check()
        second.check()
    ledger.close()
    other.close()


def test_no_transaction_is_left_open(ledger, cid, postgres, url):
    """No connection idles in a transaction during the embedding, so that others may alter tables."""
    ledger.begin_scan()
    ledger.known(cid, KEYS)
    ledger.see(KEYS, page=1)
    with postgres.connect(url.database) as connection:
        states = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    assert {state for (state,) in states} == {"idle"}


def test_a_lost_server_is_a_transient_fault_that_ends_the_scan(ledger, cid, postgres):
    """The keys that the scan has seen are lost, so the run must not treat every document as gone."""
    ledger.record(cid, [(KEYS[0], A, B, 1)])
    ledger.begin_scan()
    ledger.see(KEYS[:1], page=1)
    postgres.stop()
    try:
        with pytest.raises(LedgerUnavailable):
            ledger.record(cid, [(KEYS[1], A, B, 1)])
        with pytest.raises(LedgerUnavailable, match="does not answer") as caught:
            Ledger(ledger.engine.url)
        assert "s3cret" not in str(caught.value)
    finally:
        postgres.start()
    ledger.record(cid, [(KEYS[1], A, B, 1)])
    assert ledger.totals(cid).documents == 2
    with pytest.raises(LedgerError):
        ledger.count_gone(cid)


def test_a_wrong_password_is_not_in_the_message(postgres):
    with pytest.raises((LedgerError, LedgerUnavailable)) as caught:
        Ledger(postgres.url("postgres", password="wr0ng"))
    assert "wr0ng" not in str(caught.value)
    assert "password authentication failed" in str(caught.value)


def test_a_key_too_long_for_a_database_index_is_a_terminal_error(ledger, cid):
    key = encode_key(["".join(chr(0x4E00 + i * 7919 % 20000) for i in range(3000))])
    with pytest.raises(LedgerError, match="index row"):
        ledger.record(cid, [(key, A, B, 1)])


def test_several_runs_may_begin_at_once_on_an_empty_database(postgres):
    for _ in range(5):
        with postgres.database() as name:
            errors = []

            def begin(name=name, errors=errors):
                try:
                    Ledger(postgres.url(name)).close()
                except Exception as error:
                    errors.append(error)

            threads = [threading.Thread(target=begin) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
