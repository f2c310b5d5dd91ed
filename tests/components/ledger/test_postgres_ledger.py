"""The ledger on a real PostgreSQL server, where that differs from a file; `test_ledger` has its methods in both."""

import datetime as dt
import os
import time

import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.ledger.tables import leases
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.errors import IndexLocked, LedgerError, LedgerUnavailable
from tests.components.ledger.conftest import add, open_at_once
from tests.waiting import eventually

A, B = hash_text("a"), hash_text("b")
KEYS = [encode_key([key]) for key in ("one", "two")]


@pytest.fixture
def url(postgres):
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def ledger(url):
    ledger = Ledger(url)
    yield ledger
    ledger.close()


@pytest.fixture
def cid(ledger):
    return add(ledger).id


def renewed_at(ledger):
    with ledger.transaction() as connection:
        return connection.execute(sa.select(leases.c.renewed_at)).scalar()


def test_one_run_at_a_time_over_several_machines(url, monkeypatch):
    """Machines share only the ledger. A lease from another machine is valid for a minute after its last renewal."""
    now = time.time()
    ledger, other = Ledger(url, clock=lambda: now), Ledger(url, clock=lambda: now)
    monkeypatch.setattr("rag_index.components.ledger.runs.RENEW_SECONDS", 0.1)
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


def test_a_lost_server_is_a_transient_fault_that_ends_the_scan(ledger, cid, postgres):
    """The keys that the scan has seen are lost, so the run must not treat every document as gone."""
    ledger.record(cid, [(KEYS[0], A, B, 1)])
    ledger.begin_scan("p_notes")
    ledger.see(KEYS[:1], page=1)
    postgres.stop(crash=True)
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
    with pytest.raises(LedgerError, match="lost what this run has seen"):
        ledger.find_gone(cid)


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
            assert open_at_once(postgres.url(name)) == []
