"""The pipeline: one shard is written while the next is embedded, and nothing that was written is
lost."""

import re
import sqlite3
import threading
import uuid
from concurrent.futures import CancelledError, Future
from contextlib import closing
from unittest import mock

import pytest
from pydantic import BaseModel, model_serializer
from pydantic_core import PydanticSerializationError

from rag_index.components.sources.sql import SqlSource
from rag_index.core import machine
from rag_index.core.reports.progress import RunRecord
from rag_index.errors import StoreError, TerminalError, TransientError
from rag_index.etl import local_steps, upsert, window
from rag_index.etl import run as run_module
from rag_index.etl import scan as scan_module
from rag_index.etl.changed import serially
from rag_index.etl.deletes import delete_gone
from rag_index.etl.diff import Diff
from rag_index.etl.embed import EmbedJob
from rag_index.etl.fetch import fetch_page
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.etl.upsert import Destination
from tests.etl.plain import printed
from tests.project import Project

SHARDS = "[parallel]\nshard_documents = 10\n"
WAIT = 60.0


@pytest.fixture
def project(qdrant, tmp_path):
    return Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"\n{SHARDS}').fill(30)


def fails_after_the_first_page(opened, number, cursor, rows):
    if cursor is not None:
        raise TerminalError("the source is gone")
    return fetch_page(opened, number, cursor, 20)


def run_with(project, steps=LocalSteps, *, child=False):
    """Run, and embed in this process, since a `child` takes more than a second of processor time to
    start."""
    settings, record = project.settings, RunRecord("notes")
    with (
        open_index(settings, "notes", RunOptions(), run_id=str(uuid.uuid4())) as opened,
        closing(steps(settings if child else serially(settings))) as made,
    ):
        run_index(opened, made, record)
    return record.outcome


def committed(project, *, pending: bool = False) -> int:
    """Return how many documents the ledger has as committed, or as pending."""
    with project.ledger() as ledger:
        [collection] = ledger.collections("test_notes")
        totals = ledger.totals(collection.id)
        return totals.pending if pending else totals.documents


def test_the_next_shard_is_embedded_while_the_last_one_is_written(project, monkeypatch):
    project.write_settings(re.sub('url = "http.*', "", project.config.read_text()))
    embedded, write, answer = (
        threading.Semaphore(0),
        upsert.write_shard,
        local_steps.embedded_by,
    )

    def answer_next(*args):
        made = answer(*args)
        embedded.release()
        return made

    def write_shard(points, shard, **options):
        assert embedded.acquire(timeout=WAIT)  # its own
        assert shard.number == 3 or embedded.acquire(timeout=WAIT), "nothing is embedded meanwhile"
        embedded.release()
        return write(points, shard, **options)

    monkeypatch.setattr(local_steps, "embedded_by", answer_next)
    monkeypatch.setattr(upsert, "write_shard", write_shard)
    assert run_with(project, child=True).new == len(project.texts()) == 30


def test_documents_are_pending_before_anybody_may_embed_them(project, monkeypatch):
    """A worker may write them to a server before this process hears of it."""
    job, seen = window.Window._job, []

    def checked(self, shard, workers):
        with project.ledger() as ledger:
            rows = ledger.known(ledger.collections("test_notes")[0].id, shard.documents.keys)
        seen.append(all(key in rows and rows[key].pending for key in shard.documents.keys))
        return job(self, shard, workers)

    monkeypatch.setattr(window.Window, "_job", checked)
    run_with(project)
    assert seen == [True, True, True]


@pytest.mark.long
def test_what_is_under_way_when_the_source_fails_is_committed(project):
    with mock.patch.object(run_module, "fetch_page", fails_after_the_first_page):
        outcome = run_with(project, child=True)
    assert (outcome.state, outcome.message, outcome.new) == ("failed", "the source is gone", 20)
    assert committed(project) == 20
    again = run_with(project)
    assert (again.unchanged, again.new) == (20, 10)


def test_a_run_ends_at_once_when_the_store_has_failed_whatever_is_under_way(project):
    class Half(LocalSteps):
        """Steps of which the first shard cannot be written, and the next ones take for ever."""

        def write(self, job, to):
            future = Future()
            if job.shard.number == 1:
                future.set_exception(StoreError("the disk is full"))
            return future

        def tick(self):
            raise AssertionError("it waits for what cannot be written")

    outcome = run_with(project, Half)
    assert (outcome.state, outcome.message) == ("failed", "the disk is full")


def test_a_store_is_not_closed_while_a_shard_is_written_and_nothing_is_written_then():
    to, inside, let_go, done = (
        Destination(None, "notes", None),
        threading.Event(),
        threading.Event(),
        [],
    )

    def write() -> None:
        with to.turn():
            inside.set()
            let_go.wait(WAIT)
            done.append("written")

    def close() -> None:
        to.close()
        done.append("closed")

    threads = threading.Thread(target=write), threading.Thread(target=close)
    threads[0].start()
    inside.wait(WAIT)
    threads[1].start()
    threads[1].join(0.2)  # it would be done by then
    let_go.set()
    for thread in threads:
        thread.join(WAIT)
    assert done == ["written", "closed"]
    with pytest.raises(CancelledError), to.turn():
        pass


def test_a_run_that_is_interrupted_while_a_server_writes_leaves_the_shard_pending(project):
    let_go = threading.Event()

    def write_shard(*args, **options):
        let_go.wait(WAIT)
        raise StoreError("nobody reads this")

    class Interrupted(Diff):
        def shards(self, page):
            yield next(super().shards(page))
            raise KeyboardInterrupt

    waits = mock.patch.object(upsert, "write_shard", write_shard)
    with (
        waits,
        mock.patch.object(scan_module, "Diff", Interrupted),
        pytest.raises(KeyboardInterrupt),
    ):
        run_with(project)
    let_go.set()
    assert (committed(project), committed(project, pending=True), run_with(project).new) == (
        0,
        10,
        30,
    )


class Told(BaseModel):
    @model_serializer(mode="wrap")
    def interrupted(self, _):
        raise KeyboardInterrupt


@pytest.mark.parametrize("write", [Told.model_dump, Told.model_dump_json])
def test_ctrl_c_inside_a_serializer_stops_a_run_that_waits_for_nothing(project, monkeypatch, write):
    """Pydantic, with which Prefect writes what a task gets, makes an error of its own of whatever
    is raised there, and if it writes JSON, only the words of that tell of it."""

    class Interrupted(Diff):
        def shards(self, page):
            yield next(super().shards(page))
            write(Told())

    monkeypatch.setattr(scan_module, "Diff", Interrupted)
    monkeypatch.setattr(
        window.Window, "drain", lambda self: pytest.fail("a stopped run does not wait")
    )
    with pytest.raises(PydanticSerializationError):
        run_with(project)
    ended = printed(project, "status")["indexes"][0]["last_run"]
    assert ended["message"].startswith("stopped; 0 of 30 documents are done and kept")


@pytest.mark.long
@pytest.mark.parametrize("step", ["fetch", "embed", "delete", "publish"])
def test_a_step_with_a_transient_error_is_tried_again(project, monkeypatch, step):
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    failed = []

    def once(function):
        def call(*args, **named):
            if not failed:
                failed.append(step)
                raise TransientError("it is away")
            return function(*args, **named)

        return call

    owner, name = {
        "fetch": (SqlSource, "page"),
        "embed": (EmbedJob, "embed"),
        "delete": (run_module, "delete_gone"),
        "publish": (run_module, "publish"),
    }[step]
    monkeypatch.setattr(owner, name, once(getattr(owner, name)))
    outcome = run_with(project)
    assert (failed, outcome.state, outcome.new) == ([step], "completed", 30)


def test_an_error_that_is_not_ours_is_raised_and_recorded_and_stops_no_other_index(
    project, ledger, monkeypatch
):
    """One of Prefect's client would be such an error."""
    text = project.config.read_text()
    second = text.partition("[[indexes]]")[2].replace('"notes"', '"second"')
    project.write_settings(f"{text}\n[[indexes]]{second}")
    page, made = SqlSource.page, []

    def breaks(source, *args):
        made.append(source)
        if len(made) <= 2:
            raise ConnectionError("the server went away")
        return page(source, *args)

    monkeypatch.setattr(SqlSource, "page", breaks)
    with pytest.raises(ConnectionError):
        run_with(project)
    last = ledger.last_run("test_notes")
    assert (last.state, last.message) == ("failed", "ConnectionError: the server went away")
    report = project.run()
    assert ([one.state for one in report.indexes], report.exit_code) == (["failed", "completed"], 1)


def delete_as_a_row_comes_back(opened, scan, record):
    """Delete, just after a row has come back that was not there when the source was read."""
    with sqlite3.connect(opened.settings.path.parent / "source.db") as db:
        db.execute("INSERT INTO note (id, title, body) VALUES (7, 'back', 'with another text')")
    db.close()
    return delete_gone(opened, scan, record)


def test_a_row_that_comes_back_while_a_run_deletes_is_kept_and_nothing_is_claimed_until_it_is_read(
    project, ledger
):
    run_with(project)
    complete = ledger.reached()["test_notes"].at
    project.execute("DELETE FROM note WHERE id = 7")
    with mock.patch.object(run_module, "delete_gone", delete_as_a_row_comes_back):
        assert run_with(project).deleted == 0
    assert ledger.reached()["test_notes"].at == complete, (
        "the index has the text that the row had before"
    )
    assert run_with(project).changed == 1
    assert ledger.reached()["test_notes"].at > complete
