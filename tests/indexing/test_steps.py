"""Steps in this process: a server writes one shard while the next is embedded, and nothing that it wrote is lost."""

from __future__ import annotations

import threading
import uuid
from contextlib import closing

import pytest

from rag_index.embedders import open_embedder
from rag_index.errors import StoreError, TerminalError
from rag_index.indexing import steps
from rag_index.indexing.embed import EmbedJob
from rag_index.indexing.run import RunOptions, open_run
from rag_index.indexing.steps import Here
from rag_index.ledger import Ledger
from rag_index.orchestration import plain_run
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project

SHARDS = "[parallel]\nshard_documents = 10\n"
WAIT = 250.0


@pytest.fixture
def project(tmp_path):
    with FakeQdrant() as server:
        yield Project(tmp_path / "project", extra=f'[store]\nurl = "{server.url}"\n{SHARDS}').fill(30)


class Failing(Here):
    """Steps whose source fails after the first page."""

    def fetch(self, run, cursor, rows):
        if cursor is not None:
            raise TerminalError("the source is gone")
        return super().fetch(run, cursor, 20)


class Broken(Here):
    """Steps with an error that is not ours, as one of Prefect's client would be."""

    def fetch(self, run, cursor, rows):
        raise ConnectionError("the server went away")


def execute(project, made):
    with open_run(project.settings, "notes", RunOptions(), run_id=str(uuid.uuid4())) as run:
        return run.execute(made)


def committed(project, *, pending: bool = False) -> int:
    """Return how many documents the ledger has as committed, or as pending."""
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        [collection] = ledger.collections("test_notes")
        totals = ledger.totals(collection.id)
        return totals.pending if pending else totals.documents


def test_the_next_shard_is_embedded_while_a_server_writes_the_last_one(project, monkeypatch):
    embedding, write, embed = threading.Semaphore(0), steps.write_shard, EmbedJob.embed

    def embed_next(*args):
        embedding.release()
        return embed(*args)

    def write_shard(store, collection, shard, **options):
        assert embedding.acquire(timeout=WAIT)  # its own
        assert shard.number == 3 or embedding.acquire(timeout=WAIT), "nothing is embedded meanwhile"
        embedding.release()
        return write(store, collection, shard, **options)

    monkeypatch.setattr(EmbedJob, "embed", embed_next)
    monkeypatch.setattr(steps, "write_shard", write_shard)
    assert execute(project, Here()).new == len(project.texts()) == 30


def test_what_is_under_way_when_the_source_fails_is_committed(project):
    outcome = execute(project, Failing())
    assert (outcome.state, outcome.message, outcome.new) == ("failed", "the source is gone", 20)
    assert committed(project) == 20
    again = execute(project, Here())
    assert (again.unchanged, again.new) == (20, 10)


def test_a_shard_that_could_not_be_written_is_not_committed(project, monkeypatch):
    write = steps.write_shard

    def write_shard(store, collection, shard, **options):
        if shard.number == 2:
            raise StoreError("the disk is full")
        return write(store, collection, shard, **options)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_shard", write_shard)
        outcome = execute(project, Here())
    assert (outcome.state, outcome.message, committed(project)) == ("failed", "the disk is full", 10)
    assert execute(project, Here()).new == 20
    assert len(project.texts()) == 30


def test_a_run_that_is_interrupted_while_a_server_writes_leaves_the_shard_pending(project, monkeypatch):
    let_go = threading.Event()

    def write_shard(*args, **options):
        let_go.wait(WAIT)
        raise StoreError("nobody reads this")

    class Interrupted(Here):
        def write(self, scan, shards):
            yield from super().write(scan, self.until_interrupted(shards))

        def until_interrupted(self, shards):
            yield next(iter(shards))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_shard", write_shard)
        with closing(open_embedder(project.settings.embedder)) as embedder, pytest.raises(KeyboardInterrupt):
            execute(project, Interrupted(embedder))
    let_go.set()
    assert (committed(project), committed(project, pending=True)) == (0, 10)
    assert execute(project, Here()).new == 30


def test_an_error_that_is_not_ours_is_raised_and_recorded(project):
    with pytest.raises(ConnectionError):
        execute(project, Broken())
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        last = ledger.last_run("test_notes")
    assert (last.state, last.message) == ("failed", "ConnectionError: the server went away")


def test_an_index_whose_run_breaks_does_not_stop_the_others(project, monkeypatch):
    text = project.config.read_text()
    second = text.partition("[[indexes]]")[2].replace('"notes"', '"second"')
    project.write_settings(f"{text}\n[[indexes]]{second}")
    made = [Broken(), Here()]
    monkeypatch.setattr(plain_run, "HereUntilWorkers", lambda start: made.pop(0))
    report = project.run()
    assert ([one.state for one in report.indexes], report.exit_code) == (["failed", "completed"], 1)
