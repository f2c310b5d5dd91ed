"""The lease of an index: living runs keep it, dead ones lose it, and of two at once only one gets
it."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from unittest import mock

import numpy as np
import psutil
import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger import runs as lease_module
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores.edge.edge_points import EdgePoints
from rag_index.core.documents.batches import ChunkedDocument, DocumentBatch, EmbeddedShard
from rag_index.core.documents.keys import point_id
from rag_index.core.documents.work import Work
from rag_index.errors import IndexLocked
from rag_index.etl import commit, upsert
from rag_index.etl.commit import Committer
from rag_index.etl.deletes import delete_gone, delete_some
from rag_index.etl.opened import RunOptions
from rag_index.etl.publish import publish
from rag_index.etl.run import index_pages
from tests.etl.plain import begun_run, printed
from tests.live.qdrant import SERVERS, project_on
from tests.project import Project
from tests.reliability.victim import dead_pid, ledger_rows
from tests.waiting import eventually

DAY = 86_400.0


def held_by(ledger: Ledger, **values: object) -> None:
    """Make a lease that somebody else holds, with these values in its columns."""
    lease = IndexLease(ledger, "notes", "another")
    lease.__enter__()
    lease._stop.set()
    change(ledger, ", ".join(f"{name} = :{name}" for name in values), **values)


def change(ledger: Ledger, what: str, **values: object) -> None:
    """Change a lease, by a connection of its own."""
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE rag_index_leases SET {what}", values)


def is_taken(ledger: Ledger) -> bool:
    try:
        with IndexLease(ledger, "notes", "mine"):
            return False
    except IndexLocked:
        return True


def test_a_zombie_holds_no_lease(ledger):
    """A killed run stays in the process table until its parent reaps it; in some containers that
    never happens."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    held_by(ledger, pid=child.pid, process_started=psutil.Process(child.pid).create_time())
    assert not is_taken(ledger)
    child.wait()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_living_run_keeps_its_lease_when_the_clock_is_set(ledger, hours):
    """The start time of a process moves with the clock, but renewals of the lease show that the run
    lives."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(child.pid).create_time() + hours * 3600
    held_by(ledger, pid=child.pid, process_started=started, renewed_at=time.time() - 5)
    assert is_taken(ledger)
    change(
        ledger, "renewed_at = renewed_at - 60"
    )  # a process that has the id of a dead one does not renew
    assert not is_taken(ledger)
    child.communicate(b"\n")


def test_a_lease_from_the_future_is_valid_while_it_is_renewed(ledger, monkeypatch):
    monkeypatch.setattr("rag_index.components.ledger.runs.RENEW_SECONDS", 1.0)
    held_by(ledger, host="another machine", renewed_at=time.time() + DAY)
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.1):
            change(ledger, "renewed_at = renewed_at + 0.1")

    renewer = threading.Thread(target=renew)
    renewer.start()
    assert is_taken(ledger)
    stop.set()
    renewer.join()
    assert not is_taken(ledger)


def test_one_of_two_that_take_a_new_lease_at_once_is_refused(ledger):
    begin, outcomes = threading.Barrier(2), []

    def take() -> None:
        with closing(Ledger(ledger._url)) as mine:
            lease = IndexLease(mine, "notes", "one of two")
            begin.wait()
            try:
                lease.__enter__()
                lease._stop.set()
                outcomes.append("has it")
            except IndexLocked as error:
                outcomes.append(str(error))

    both = [threading.Thread(target=take) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    first, second = sorted(outcomes)
    assert (first, "wait until it is done" in second) == ("has it", True)


def test_a_lease_that_its_holder_renews_at_the_last_moment_is_not_taken(ledger, monkeypatch):
    """It looked dead when it was read."""
    held_by(ledger, pid=dead_pid())

    def read_row_and_be_late(*arguments):
        row = read_row(*arguments)
        change(ledger, "renewed_at = renewed_at + 1")
        return row

    read_row = lease_module._read_row
    monkeypatch.setattr(lease_module, "_read_row", read_row_and_be_late)
    assert is_taken(ledger)


def test_a_run_whose_lease_was_taken_notices_it(ledger, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    with IndexLease(ledger, "notes", "mine") as lease:
        lease.check()
        change(ledger, "epoch = epoch + 1, run_id = 'another'")
        lease._renewer.join()  # it has nothing left to renew
        with pytest.raises(IndexLocked, match="another took over notes"):
            lease.check()


def test_a_run_whose_lease_was_taken_deletes_and_publishes_nothing_more(tmp_path):
    """It stood still after its last commit, such as while a server built the search index."""
    project = Project(tmp_path / "project").fill(3)
    assert project.run().state == "completed"
    project.execute("DELETE FROM note WHERE id = 3")
    for full, writes in (
        (False, delete_gone),
        (False, partial(delete_some, gone=["3"])),
        (True, publish),
    ):
        with begun_run(project.settings, RunOptions(full=full, allow_deletes=True)) as (
            opened,
            scan,
            steps,
            record,
        ):
            index_pages(opened, scan, steps, record)
            change(opened.ledger, "epoch = epoch + 1, run_id = NULL")
            with pytest.raises(IndexLocked):
                writes(opened, scan, record)
    assert sorted(project.texts()) == ["1", "2", "3"]
    with project.store() as store:
        assert store.aliases()["test_notes"].endswith("__1")


@pytest.mark.parametrize(
    "when", ["documents become pending", "it has written points", "the store has its mark"]
)
def test_a_run_that_stood_still_changes_nothing_in_the_ledger(tmp_path, monkeypatch, when):
    """Another run took over and has ended `when` this one stood still; it goes on before it has
    noticed."""
    project = Project(tmp_path / "project").fill(3)
    assert project.run().state == "completed"
    before = ledger_rows(project)
    project.execute("UPDATE note SET body = 'this is new'")
    with begun_run(project.settings, RunOptions()) as (opened, scan, steps, record):

        def stands_still():
            opened.ledger.unmark_pending(scan.target.collection.id, known=list(before), new=[])
            change(opened.ledger, "epoch = epoch + 1")

        if when == "documents become pending":
            stands_still()
        elif when == "it has written points":
            after(monkeypatch, Committer, "begin_shard", stands_still)
        else:
            scan.committer.mark_pending(["1"])  # the commit of which is not the one that is meant
            after(monkeypatch, EdgePoints, "set_commit_mark", stands_still)
        with pytest.raises(IndexLocked, match="another took over"):
            index_pages(opened, scan, steps, record)
    assert ledger_rows(project) == before


def after(monkeypatch, of: object, call: str, then: Callable[[], None]) -> None:
    """Do something whenever a method has been called."""
    method = getattr(of, call)

    def called(*arguments):
        method(*arguments)
        then()

    monkeypatch.setattr(of, call, called)


# What a server gets of a run that was overtaken


@pytest.fixture(params=SERVERS)
def on_server(request, tmp_path):
    """A project whose store is a server, with ten documents."""
    with project_on(request.param, partial(Project, tmp_path / "server")) as project:
        project.fill(10).run()
        yield project


def late_shard(key: str) -> EmbeddedShard:
    page = DocumentBatch([key], ["late"], [b"{}"], [b"h"], [b"h"])
    return EmbeddedShard(
        "notes", 1, page, [ChunkedDocument(["late"])], np.ones((1, 256), np.float32), [], Work()
    )


def test_workers_of_a_dead_run_are_refused_by_the_collection(on_server):
    with on_server.store() as store:
        name = store.aliases()[on_server.settings.alias("notes")]
        epoch = store.points(name).metadata()["epoch"]
        on_server.run()
        with pytest.raises(IndexLocked, match="written by a later run"):
            upsert.write_shard(store.points(name), late_shard("99"), epoch=epoch)
        assert store.points(name).retrieve([point_id("notes", "99", 0)]) == [], (
            "it was refused before it wrote"
        )
        upsert.write_shard(store.points(name), late_shard("99"), epoch=epoch + 1)


@pytest.mark.long
def test_what_a_run_wrote_after_it_was_overtaken_is_found_by_the_next_one(on_server):
    """Its process stands still between its look at the epoch and its first point."""
    with on_server.store() as store:
        name = store.aliases()[on_server.settings.alias("notes")]
        points = store.points(name)
        epoch, upsert_points = points.metadata()["epoch"], points.upsert

        def overtaken(batch):
            points.set_metadata({"epoch": epoch + 1})
            upsert_points(batch)

        with (
            mock.patch.object(points, "upsert", overtaken),
            pytest.raises(IndexLocked, match="written by a later run"),
        ):
            upsert.write_shard(points, late_shard("7"), epoch=epoch)
    assert on_server.texts()["7"] == ["late"]
    [outcome] = on_server.run().indexes
    assert (
        "whose process had stood still; every point was compared: 1 document to index again"
        in outcome.message
    )
    assert on_server.texts()["7"] != ["late"]
    assert (on_server.run().indexes[0].message, printed(on_server, "doctor")["findings"]) == (
        "",
        [],
    )


@pytest.mark.long
def test_what_a_run_deleted_after_it_was_overtaken_is_found_by_the_next_one(on_server):
    """It stood still before it deleted the points of a document that was there again when another
    run came by."""
    on_server.execute("CREATE TABLE kept AS SELECT * FROM note WHERE id = 7")
    on_server.execute("DELETE FROM note WHERE id = 7")
    delete = commit.delete_chunks
    with begun_run(on_server.settings, RunOptions()) as (opened, scan, steps, record):
        index_pages(opened, scan, steps, record)

        def stands_still(*wanted):
            opened.ledger.unmark_pending(scan.target.collection.id, known=["7"], new=[])
            change(opened.ledger, "epoch = epoch + 1, run_id = NULL")
            return delete(*wanted)

        frozen = mock.patch.object(commit, "delete_chunks", stands_still)
        with frozen, pytest.raises(IndexLocked, match="another took over"):
            delete_gone(opened, scan, record)
    assert "7" not in on_server.texts()
    on_server.execute("INSERT INTO note SELECT * FROM kept")
    [outcome] = on_server.run().indexes
    assert (
        "whose process had stood still; every point was compared: 1 document to index again"
        in outcome.message
    )
    assert "7" in on_server.texts()
    assert printed(on_server, "doctor")["findings"] == []
