"""The pipeline: one shard is written while the next is embedded, and nothing that was written is lost."""

import re
import sys
import threading
import uuid
from contextlib import closing
from pathlib import Path

import pytest

import rag_index
from rag_index.embedders import open_embedder
from rag_index.errors import StoreError, StoreUnavailable, TerminalError
from rag_index.indexing import pipeline, step_retries
from rag_index.indexing.embed import ChildEmbedder
from rag_index.indexing.pipeline import AllDocuments, Pool, execute
from rag_index.indexing.run import RunOptions, open_run
from rag_index.indexing.scan import Scan
from rag_index.indexing.step_retries import call_plainly, shared_checks
from rag_index.ledger import Ledger
from rag_index.orchestration import launch
from rag_index.stores.edge.store import EdgeStore
from tests.project import Project

SHARDS = "[parallel]\nshard_documents = 10\n"
WAIT = 60.0


@pytest.fixture
def project(qdrant, tmp_path):
    return Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"\n{SHARDS}').fill(30)


class Failing(AllDocuments):
    """Documents whose source fails after the first page."""

    def fetch(self, run, cursor, rows):
        if cursor is not None:
            raise TerminalError("the source is gone")
        return super().fetch(run, cursor, 20)


class Broken(AllDocuments):
    """Documents with an error that is not ours, as one of Prefect's client would be."""

    def fetch(self, run, cursor, rows):
        raise ConnectionError("the server went away")


def run_with(project, documents=AllDocuments, *, child=False):
    """Run, and embed in this process, since a `child` takes more than a second of processor time to start."""
    with (
        open_run(project.settings, "notes", RunOptions(), run_id=str(uuid.uuid4())) as run,
        closing(open_embedder(project.settings.embedder)) as embedder,
    ):
        return execute(run, documents(embedder=None if child else embedder))


def committed(project, *, pending: bool = False) -> int:
    """Return how many documents the ledger has as committed, or as pending."""
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        [collection] = ledger.collections("test_notes")
        totals = ledger.totals(collection.id)
        return totals.pending if pending else totals.documents


@pytest.mark.parametrize("store", ["a server", "an embedded store"])
def test_the_next_shard_is_embedded_while_the_last_one_is_written(project, monkeypatch, store):
    if store == "an embedded store":
        project.write_settings(re.sub('url = "http.*', "", project.config.read_text()))
    embedded, write, embed = threading.Semaphore(0), pipeline.write_shard, ChildEmbedder.embed

    def embed_next(*args):
        made = embed(*args)
        embedded.release()
        return made

    def write_shard(store, collection, shard, **options):
        assert embedded.acquire(timeout=WAIT)  # its own
        assert shard.number == 3 or embedded.acquire(timeout=WAIT), "nothing is embedded meanwhile"
        embedded.release()
        return write(store, collection, shard, **options)

    monkeypatch.setattr(ChildEmbedder, "embed", embed_next)
    monkeypatch.setattr(pipeline, "write_shard", write_shard)
    assert run_with(project, child=True).new == len(project.texts()) == 30


def test_documents_are_pending_before_anybody_may_embed_them(project, monkeypatch):
    """A worker may write them to a server before this process hears of it."""
    submit, seen = Pool.submit, []

    def checked(pool, shard):
        run = pool._scan.run
        rows = run.ledger.known(pool._scan.collection.id, shard.documents.keys)
        seen.append(all(key in rows and rows[key].pending for key in shard.documents.keys))
        submit(pool, shard)

    monkeypatch.setattr(Pool, "submit", checked)
    run_with(project)
    assert seen == [True, True, True]


def test_what_is_under_way_when_the_source_fails_is_committed(project):
    outcome = run_with(project, Failing)
    assert (outcome.state, outcome.message, outcome.new) == ("failed", "the source is gone", 20)
    assert committed(project) == 20
    again = run_with(project)
    assert (again.unchanged, again.new) == (20, 10)


def test_a_shard_whose_points_are_not_durable_is_not_committed(project, monkeypatch):
    project.write_settings(re.sub('url = "http.*', "", project.config.read_text()))
    write, flush, written = pipeline.write_shard, EdgeStore.flush, []

    def write_shard(store, collection, shard, **options):
        written.append(shard.number)
        return write(store, collection, shard, **options)

    def flush_once(store, name):
        if written[-1:] == [2]:
            raise StoreError("the disk is full")
        flush(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_shard", write_shard)
        patch.setattr(EdgeStore, "flush", flush_once)
        outcome = run_with(project)
    assert (outcome.state, outcome.message, committed(project)) == ("failed", "the disk is full", 10)
    assert run_with(project).new == 20
    assert len(project.texts()) == 30


def test_nothing_is_written_after_the_store_has_failed(project, monkeypatch):
    """What is embedded by then is embedded again by the next run: a store that is down would be asked in vain."""
    project.write_settings(re.sub('url = "http.*', "", project.config.read_text()))
    asked = []

    def write_shard(store, collection, shard, **options):
        asked.append(shard.number)
        raise StoreError("the disk is full")

    monkeypatch.setattr(pipeline, "write_shard", write_shard)
    assert run_with(project).message == "the disk is full"
    assert len(asked) == 1


def test_a_run_that_is_interrupted_while_a_server_writes_leaves_the_shard_pending(project, monkeypatch):
    let_go = threading.Event()

    def write_shard(*args, **options):
        let_go.wait(WAIT)
        raise StoreError("nobody reads this")

    class Interrupted(Scan):
        def compare(self, page):
            return self.until_interrupted(super().compare(page))

        def until_interrupted(self, shards):
            yield next(shards)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_shard", write_shard)
        patch.setattr("rag_index.indexing.pipeline.Scan", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_with(project)
    let_go.set()
    assert (committed(project), committed(project, pending=True)) == (0, 10)
    assert run_with(project).new == 30


@pytest.mark.parametrize("kind", ["fetch", "embed", "upsert", "delete gone", "verify and publish"])
def test_a_step_with_a_transient_error_is_tried_again(project, monkeypatch, kind):
    monkeypatch.setattr(step_retries.time, "sleep", lambda seconds: None)
    failed = []

    def call(step, function):
        def fails_once():
            if step.kind == kind and not failed:
                failed.append(step)
                raise StoreUnavailable("it is away")
            return function()

        return call_plainly(step, fails_once)

    with (
        open_run(project.settings, "notes", RunOptions(), run_id=str(uuid.uuid4())) as run,
        closing(open_embedder(project.settings.embedder)) as embedder,
    ):
        assert execute(run, AllDocuments(embedder=embedder), call=call).new == 30
    assert failed


CORE = ("orchestration/launch", "indexing/run", "indexing/pipeline", "indexing/scan")


def test_for_one_changed_row_control_changes_files_fifteen_times_in_the_core_and_enters_55_modules(tmp_path):
    """Whoever follows a row reads the files of the core side by side."""
    project = Project(tmp_path / "project").fill(30)
    project.run()
    project.execute("UPDATE note SET body = 'changed' WHERE id = 3")
    settings, folder = project.settings, Path(rag_index.__file__).parent
    core, stack, changes, entered = {str(folder / f"{name}.py") for name in CORE}, [], [], set()

    def note(frame, event, _):
        file = frame.f_code.co_filename
        if file.startswith(str(folder)) and event == "call" and frame.f_code.co_name != "<module>":
            entered.add(file.removeprefix(str(folder)))
        if file in core and event == "call":
            if stack and stack[-1] != file:
                changes.append(f"{Path(stack[-1]).stem} > {Path(file).stem}.{frame.f_code.co_name}")
            stack.append(file)
        elif file in core and event == "return":
            stack.pop()

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        launch.run_plainly(settings, settings.indexes, RunOptions())
    finally:
        sys.setprofile(before)
    assert 10 < len(changes) <= 15, changes
    assert 40 < len(entered) <= 55, sorted(entered)


def test_an_error_that_is_not_ours_is_raised_and_recorded(project, ledger):
    with pytest.raises(ConnectionError):
        run_with(project, Broken)
    last = ledger.last_run("test_notes")
    assert (last.state, last.message) == ("failed", "ConnectionError: the server went away")


def test_an_index_whose_run_breaks_does_not_stop_the_others(project, monkeypatch):
    text = project.config.read_text()
    second = text.partition("[[indexes]]")[2].replace('"notes"', '"second"')
    project.write_settings(f"{text}\n[[indexes]]{second}")
    made = [Broken(), AllDocuments()]
    monkeypatch.setattr(launch, "AllDocuments", lambda **_: made.pop(0))
    report = project.run()
    assert ([one.state for one in report.indexes], report.exit_code) == (["failed", "completed"], 1)


def test_a_run_ends_before_it_costs_more_than_max_cost_and_the_next_one_goes_on(tmp_path):
    costs = "[embedder]\nprice = 100\n[run]\nmax_cost = 0.35\n"  # 60 notes cost 0.9
    project = Project(tmp_path / "project", extra=f"{costs}{SHARDS}").fill(60)
    outcome = run_with(project)
    assert "more than [run] max_cost = 0.35: what was embedded is kept" in outcome.message
    assert 0 < (first := committed(project)) < 40
    with shared_checks(0):  # all indexes of a run together
        assert run_with(project).state == "failed"
        assert first < (second := committed(project)) < 60
        assert run_with(project).state == "failed"
    assert committed(project) == second
    project.write_settings(project.config.read_text().replace("0.35", "35"))
    outcome = run_with(project)
    assert (outcome.state, outcome.unchanged, committed(project)) == ("completed", second, 60)
