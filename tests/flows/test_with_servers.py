"""The same flow with servers that only the settings name: a Qdrant server that workers write to, and a real Ollama."""

import os
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rag_index.components.ledger.tables import leases
from rag_index.core.documents.batches import ChunkedDocument, DocumentBatch, EmbeddedShard, ShardStats
from rag_index.errors import IndexLocked
from rag_index.etl import commit as commit_module
from rag_index.etl.commit import write_shard
from rag_index.etl.deletes import delete_gone
from rag_index.etl.opened import RunOptions
from rag_index.etl.run import AllDocuments, index_pages
from tests.etl.plain import begun_run, printed
from tests.live.qdrant import SERVERS, project_on
from tests.project import Project
from tests.reliability.victim import FLOW, in_environment

OLLAMA = '[embedder]\nkind = "ollama"\nmodel = "{model}"\nhosts = ["{url}"]\n'


@pytest.fixture(params=SERVERS)
def on_server(request, tmp_path):
    """A project whose store is a server."""
    with project_on(request.param, partial(Project, tmp_path / "server")) as project:
        yield project


@pytest.mark.long
def test_workers_write_to_a_qdrant_server(tmp_path, prefect_server, on_server):
    project = on_server.fill(200)
    assert project.index(workers=2, shard_documents=30).indexes[0].new == 200
    embedded = Project(tmp_path / "embedded").fill(200)
    embedded.run()
    written, in_folder = project.points(), embedded.points()
    assert written.keys() == in_folder.keys()
    for point, (payload, vector) in in_folder.items():
        assert written[point][0] == payload
        assert written[point][1] == pytest.approx(vector, abs=1e-5)
    project.execute("UPDATE note SET body = 'short' WHERE id = 10")
    project.execute("DELETE FROM note WHERE id = 11")
    report = project.index(workers=1, shard_documents=30).indexes[0]
    assert (report.changed, report.deleted, report.unchanged) == (1, 1, 198)
    assert project.texts()["10"] == ["Note 10\nshort"]


@pytest.mark.long
def test_secrets_are_written_nowhere(tmp_path, prefect_server, qdrant):
    """They are not in the output (even in full), in Prefect's database or in the ledger."""
    secret = "hunter2-correct-horse"
    settings = f'[store]\nurl = "{qdrant.url}"\n[run]\nwait_for_recovery = 1\n'
    project = Project(tmp_path / "p", extra=settings).fill(10)
    url = f"postgresql+psycopg://reader:{secret}@127.0.0.1:9/desk"

    def flow(*options, **environment):
        loud = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG", "PREFECT_LOGGING_LEVEL": "DEBUG"}
        given = os.environ | in_environment(options) | {"RAG_INDEX_CONFIG": str(project.config)} | loud | environment
        return subprocess.run(FLOW, env=given, capture_output=True, text=True, check=False)

    outputs = [
        flow("--workers 1", "--shard-documents 5", RAG_INDEX_STORE__API_KEY=secret),
        flow("--serial", RAG_INDEX_SOURCE__URL=url),
        project.cli("plan", "--json", RAG_INDEX_SOURCE__URL=url),
        flow("--serial", RAG_INDEX_LEDGER__URL=url),
        project.cli("--verbose", "--debug", "index-all", RAG_INDEX_SOURCE__URL=url),
    ]
    assert outputs[0].returncode == 0
    assert [ended.returncode for ended in outputs[1:]] == [1, 1, 1, 1]
    assert all(secret not in ended.stdout + ended.stderr for ended in outputs)
    kept = [*project.folder.rglob("*"), *Path(os.environ["PREFECT_HOME"]).rglob("*")]
    assert any(path.name == "prefect.db" for path in kept)
    found = [path for path in kept if path.is_file() and secret.encode() in path.read_bytes()]
    assert not found


def test_workers_of_a_dead_run_are_refused_by_the_collection(on_server):
    project = on_server.fill(10)
    project.run()
    page = DocumentBatch(["99"], ["late"], [b"{}"], [b"h"], [b"h"])
    late = EmbeddedShard("notes", 1, page, [ChunkedDocument(["late"])], np.ones((1, 256), np.float32), [], ShardStats())
    with project.store() as store:
        name = store.aliases()[project.settings.alias("notes")]
        epoch = store.metadata(name)["epoch"]
        project.run()
        with pytest.raises(IndexLocked, match="written by a later run"):
            write_shard(store, name, late, epoch=epoch)
        write_shard(store, name, late, epoch=epoch + 1)


@pytest.mark.long
def test_what_a_run_wrote_after_it_was_overtaken_is_found_by_the_next_one(on_server):
    project = on_server.fill(10)
    project.run()
    page = DocumentBatch(["7"], ["old"], [b"{}"], [b"h"], [b"h"])
    old = EmbeddedShard("notes", 1, page, [ChunkedDocument(["old"])], np.ones((1, 256), np.float32), [], ShardStats())

    with project.store() as store:
        name = store.aliases()[project.settings.alias("notes")]
        epoch = store.metadata(name)["epoch"]

        class Overtaken:
            """The store of a process that stands still between its look at the epoch and its first point."""

            def __getattr__(self, call):
                return getattr(store, call)

            def upsert(self, collection, batch):
                store.set_metadata(name, {"epoch": epoch + 1})
                store.upsert(collection, batch)

        with pytest.raises(IndexLocked, match="written by a later run"):
            write_shard(Overtaken(), name, old, epoch=epoch)
    assert project.texts()["7"] == ["old"]
    [outcome] = project.run().indexes
    assert "whose process had stood still; every point was compared: 1 document to index again" in outcome.message
    assert project.texts()["7"] != ["old"]
    assert project.run().indexes[0].message == ""
    assert printed(project, "doctor")["findings"] == []


@pytest.mark.long
def test_what_a_run_deleted_after_it_was_overtaken_is_found_by_the_next_one(on_server, monkeypatch):
    """It stood still before it deleted the points of a document that was there again when another run came by."""
    project = on_server.fill(10)
    project.run()
    project.execute("CREATE TABLE kept AS SELECT * FROM note WHERE id = 7")
    project.execute("DELETE FROM note WHERE id = 7")
    settings, delete = project.settings, commit_module.delete_chunks
    with begun_run(settings, RunOptions()) as (opened, scan, steps, record):
        index_pages(opened, scan, steps, record, AllDocuments())

        def stands_still(*wanted):
            opened.ledger.unmark_pending(scan.target.collection.id, known=["7"], new=[])
            with opened.ledger.transaction() as connection:
                connection.execute(leases.update().values(epoch=leases.c.epoch + 1, run_id=None))
            return delete(*wanted)

        monkeypatch.setattr(commit_module, "delete_chunks", stands_still)
        with pytest.raises(IndexLocked, match="another took over"):
            delete_gone(opened, scan, record)
    monkeypatch.undo()
    assert "7" not in project.texts()
    project.execute("INSERT INTO note SELECT * FROM kept")
    [outcome] = project.run().indexes
    assert "whose process had stood still; every point was compared: 1 document to index again" in outcome.message
    assert "7" in project.texts()
    assert printed(project, "doctor")["findings"] == []
