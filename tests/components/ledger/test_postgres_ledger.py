"""PostgreSQL as a ledger, where that differs from a file; and ledger, source and hint behind a
pooler. The pooler gives each transaction another session. `test_ledger` has the ledger's methods in
both databases."""

import datetime as dt
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.ledger.tables import leases, scan_metadata, scans
from rag_index.components.sources.engine import errors_as_ours, open_read_only
from rag_index.components.sources.hints import Hints, Moved
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import encode_key, point_id
from rag_index.errors import (
    IndexLocked,
    LedgerError,
    LedgerUnavailable,
    SourceError,
    StoreError,
)
from rag_index.etl.reconcile import Comparison
from rag_index.etl.upsert import CHUNK_HASH, chunk_hash
from rag_index.search import Retriever
from tests.components.ledger.conftest import add
from tests.live.pooler import pooler
from tests.live.postgres import PASSWORD
from tests.project import SETTINGS, Project
from tests.waiting import eventually

A, B = hash_text("a"), hash_text("b")
KEYS = [encode_key([key]) for key in ("one", "two")]
TABLES = """\
project = "test"
[source]
url = "{url}"
[ledger]
url = "{url}"
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
text = "body"
payload = ["level"]
[[indexes]]
name = "numbers"
query = "SELECT id, body FROM ticket"
key = "id"
text = "body"
"""


@pytest.fixture
def ledger(postgres, name):
    with closing(Ledger(postgres.url(name))) as opened:
        yield opened


@pytest.fixture
def cid(ledger):
    return add(ledger).id


def renewed_at(ledger):
    with ledger.transaction() as connection:
        return connection.execute(sa.select(leases.c.renewed_at)).scalar()


def test_one_run_at_a_time_over_several_machines(postgres, name, monkeypatch):
    """Machines share only the ledger. A lease from another machine is valid for a minute after its
    last renewal."""
    now = time.time()
    ledger, other = (Ledger(postgres.url(name), clock=lambda: now) for _ in range(2))
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
    """The keys that the scan has seen are lost, so the run must not treat every document as
    gone."""
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
        ledger.find_deleted(cid)


def test_a_wrong_password_is_not_in_the_message_and_a_key_too_long_for_an_index_is_terminal(
    postgres, ledger, cid
):
    with pytest.raises((LedgerError, LedgerUnavailable)) as caught:
        Ledger(postgres.url("postgres", password="wr0ng"))
    assert "wr0ng" not in str(caught.value)
    assert "password authentication failed" in str(caught.value)
    key = encode_key(["".join(chr(0x4E00 + i * 7919 % 20000) for i in range(3000))])
    with pytest.raises(LedgerError, match="index row"):
        ledger.record(cid, [(key, A, B, 1)])


def test_several_runs_may_begin_at_once_on_an_empty_database(postgres):
    begin = threading.Barrier(4)
    for _ in range(5):
        with postgres.database() as name, ThreadPoolExecutor(4) as pool:
            url = postgres.url(name)
            list(pool.map(lambda _, url=url: (begin.wait(), Ledger(url).close()), range(4)))


@pytest.fixture
def name(postgres):
    with postgres.database() as made:
        yield made


@pytest.fixture
def url(name, pooled):
    return pooled(name)


@pytest.fixture
def two(url):
    """Two ledgers of different indexes, whose documents have the same keys."""
    with closing(Ledger(url)) as one, closing(Ledger(url)) as other:
        yield one, other


def left(ledger):
    """Return how many rows the scans have left in each table."""
    with ledger.transaction() as connection:
        tables = [scans, *scan_metadata.sorted_tables]
        counts = {
            one.name: connection.scalar(sa.select(sa.func.count()).select_from(one))
            for one in tables
        }
    return {table: count for table, count in counts.items() if count}


def answers(ledger):
    try:
        return ledger.collections() is not None
    except LedgerUnavailable:
        return False


def test_scans_of_two_indexes_at_once_do_not_meet(two):
    """Each of the two sees what it has seen, whatever the other sees, loses, leaves unread or has
    finished."""
    one, other = two
    ids = [add(ledger, f"p_{alias}__1").id for ledger, alias in zip(two, "ab", strict=True)]
    for ledger, cid in zip(two, ids, strict=True):
        ledger.record(cid, [(key, A, B, 1) for key in "1234"])
    one.begin_scan("p_a")
    other.begin_scan("p_b")
    assert one.see(["1", "2"], page=1, buckets=[1, 1]) == []
    assert other.see(["2", "3", "4"], page=1, buckets=[2, 2, 2]) == []
    other.read_only([2])
    other.record_emptied([("2", B, B)])
    assert (one.count_emptied(), other.count_emptied()) == (0, 1)
    assert one.keys_of_texts(ids[0], [A]) == other.keys_of_texts(ids[1], [A]) == ["1"]
    assert (one.find_deleted(ids[0]), other.find_deleted(ids[1])) == (2, 1)
    assert [sorted(key for key, *_ in two[n].lost(ids[n])) for n in (0, 1)] == [
        ["3", "4"],
        ["1", "2"],
    ]
    one.place(ids[0], ["1", "2"])
    assert one.commit_buckets(ids[0], {1: "1:00"}) == set()
    one.forget_lost(["1", "3", "4"])
    assert len(other.lost(ids[1])) == 2
    other.forget_lost(["1"])
    assert (one.lost(ids[0]), other.lost(ids[1])) == ([], [("2", B, B)])
    other.begin_scan("p_b")
    assert (other.lost(ids[1]), one.see(["1"], page=2), one.find_deleted(ids[0])) == ([], ["1"], 2)
    one.begin_scan("p_a")
    other.read_only([1])
    one.read_only([7])
    assert one.find_deleted(ids[0]) == 2
    one.read_only([1])
    other.see(["1"], page=1, buckets=[2])
    assert (one.commit_buckets(ids[0], {1: "1:00", 7: "1:00"}), one.find_deleted(ids[0])) == (
        {1},
        4,
    )


def comparison(ledger, folder, index):
    """Return a comparison of two documents that the ledger has with points of the first one, and of
    two others."""
    collection = add(ledger, f"p_{index}__1")
    ledger.record(collection.id, [(key, A, B, 1) for key in "12"])
    store = EdgeStore(folder)
    store.create(collection.name, 4, {"alias": collection.alias, "store_id": collection.store_id})
    ids, payloads = [point_id(index, key, 0) for key in "189"], [payload_of(key) for key in "189"]
    store.points(collection.name).upsert(
        PointBatch(ids, np.ones((3, 4), dtype=np.float32), payloads)
    )
    return Comparison(ledger, store, index, collection, check=lambda: None)


def payload_of(key):
    hashes = {"text_hash": A.hex(), "payload_hash": B.hex()}
    payload = {RESERVED_KEY: {"key": key, "document_id": key, "chunk": 0, "chunks": 1, **hashes}}
    payload[RESERVED_KEY][CHUNK_HASH] = chunk_hash(payload)
    return payload


def test_the_points_of_two_indexes_are_compared_at_once(two, tmp_path):
    compared = [
        comparison(ledger, tmp_path / index, index) for ledger, index in zip(two, "ab", strict=True)
    ]
    for one, keys in zip(compared, ("8", "89"), strict=True):
        one.add_source_keys(keys)
        one.complete = True
    for one in compared:
        one.read_points()
    assert [one.differing().keys for one in compared] == [["2", "8"], ["2", "8", "9"]]
    assert [one.orphans().keys for one in compared] == [["9"], []]
    assert [one.mend() for one in compared] == [(1, 2), (0, 3)]


def test_what_scans_have_seen_is_deleted_at_their_end_or_if_they_were_killed_by_the_next(two, url):
    one, other = two
    killed = Ledger(url)
    for ledger, alias in ((killed, "p_a"), (other, "p_b")):
        ledger.begin_scan(alias)
        ledger.see(["1", "2"], page=1)
    killed.engine.dispose()
    one.begin_scan("p_a")
    assert left(one) == {"rag_index_scans": 2, "rag_index_seen": 2, "rag_index_intact": 2}
    with pytest.raises(LedgerError, match="lost what this run has seen"):
        killed.find_deleted(1)
    other.close()
    assert left(one) == {"rag_index_scans": 1, "rag_index_intact": 1}
    one.forget_index("p_a")
    assert left(one) == {}


def test_a_crash_that_the_pooler_hides_is_noticed(two, postgres, tmp_path):
    """The tables of scans have no log, so that PostgreSQL empties them: whatever was seen would
    count as deleted."""
    ledger, other = two
    cid = add(ledger).id
    ledger.record(cid, [("1", A, B, 1)])
    ledger.begin_scan("p_notes")
    ledger.see(["1"], page=1)
    compared = comparison(other, tmp_path / "store", "others")
    compared.read_points()
    postgres.stop(crash=True)
    postgres.start()
    eventually(lambda: answers(ledger) and answers(other))
    ledger.see(["2"], page=2)
    for claim in (
        lambda: ledger.find_deleted(cid),
        lambda: ledger.forget_unseen_failures(cid),
        lambda: ledger.commit_buckets(
            cid, {1: "1:00"}
        ),  # what is left to delete would count as unchanged
        compared.differing,
        compared.orphans,
        compared.foreign_points,
        compared.mend,
    ):
        with pytest.raises(LedgerError, match="lost what this run has seen"):
            claim()


def test_who_may_only_read_a_ledger_scans_in_one_session(two, url):
    one, _ = two
    cid = add(one).id
    one.record(cid, [(key, A, B, 1) for key in "123"])
    with closing(Ledger(url, read_only=True)) as reader:
        for _ in range(2):
            reader.begin_scan("p_notes")
            assert (reader.see(["1", "2"], page=1), reader.find_deleted(cid)) == ([], 1)
    assert left(one) == {}


def test_a_search_writes_nothing_into_a_ledger_and_needs_select_alone(tmp_path, postgres, name):
    """Also a process that began to search before the first run."""
    reader = f"reader_{name}"

    def settings_of(user):
        url = postgres.url(name, user).render_as_string(hide_password=False)
        project.write_settings(SETTINGS.format(extra=f'[ledger]\nurl = "{url}"'))
        return project.settings

    def position(retriever):
        return retriever.search_sync("printer", timeout=60).as_of["notes"].at

    project = Project(tmp_path).fill(3)
    with postgres.connect(name) as connection:
        connection.execute(f"CREATE ROLE {reader} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}")
        with Retriever(settings_of(reader)) as early:
            with Retriever(settings_of("owner")) as able:
                for retriever in (early, able):
                    with pytest.raises(StoreError, match="nothing is indexed yet"):
                        retriever.search_sync("printer")
            made = connection.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'")
            assert made.fetchall() == [], "the owner could create tables"
            settings_of("owner")
            assert project.run().exit_code == 0
            settings_of(reader)
            eventually(lambda: position(early))
            states = connection.execute(
                "SELECT state FROM pg_stat_activity WHERE usename = %s", [reader]
            )
            assert set(states.fetchall()) == {("idle",)}, "no open transaction hinders VACUUM"
        with Retriever(project.settings) as late:
            assert position(late)


def test_runs_read_and_write_all_that_is_there(project, name, url, postgres):
    """More pages than psycopg wants to see before it prepares a statement by name; a table, and a
    query as a stream."""
    project.write_settings(TABLES.format(url=url.render_as_string(hide_password=False)))
    with postgres.connect(name) as connection:
        connection.execute("CREATE TABLE ticket (id int PRIMARY KEY, body text, level float8)")
        connection.execute(
            "INSERT INTO ticket SELECT n, 'Ticket ' || n, n / 3.0 FROM generate_series(1, 90) n"
        )
        assert project.run().exit_code == 0
        connection.execute("DELETE FROM ticket WHERE id % 9 = 0")
        connection.execute("UPDATE ticket SET body = 'New ' || id WHERE id % 9 = 1")
        assert project.run().exit_code == 0
        rows = dict(connection.execute("SELECT id::text, ARRAY[body] FROM ticket").fetchall())
        assert project.texts("tickets") == project.texts("numbers") == rows
        stored = {
            payload["_rag"]["document_id"]: payload["level"]
            for payload, _ in project.points("tickets").values()
        }
        assert stored == dict(connection.execute("SELECT id::text, level FROM ticket").fetchall())
    with closing(Ledger(url)) as ledger:
        assert left(ledger) == {}


def test_a_hint_sees_each_commit(project, name, url, postgres):
    project.write_settings(TABLES.format(url=url.render_as_string(hide_password=False)))
    settings = project.settings
    with closing(Hints(settings, settings.indexes)) as hints, postgres.connect(name) as connection:
        connection.execute("CREATE TABLE ticket (id int PRIMARY KEY, body text, level float8)")
        for number in range(10):
            before = hints.look()["tickets"]
            assert not hints.blind
            connection.execute(f"INSERT INTO ticket VALUES ({number}, 'a', 1)")
            assert hints.moved("tickets", before, hints.look()["tickets"]) != Moved.NO


def test_a_pooler_that_has_no_transactions_is_refused_by_name(postgres, name):
    with pooler(postgres, "statement") as url:
        with pytest.raises(LedgerError, match=r"pool_mode.*\[ledger\] url"):
            Ledger(url(name))
        refused = pytest.raises(SourceError, match=r"pool_mode.*\[source\] url")
        with (
            refused,
            errors_as_ours(url(name), "notes"),
            open_read_only(url(name)).connect() as connection,
        ):
            connection.execute(sa.text("SELECT 1"))
