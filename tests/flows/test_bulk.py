"""Loading in bulk: the search index is off meanwhile, on again in any case, and the collection is then published."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from qdrant_client import QdrantClient

from rag_index.care.doctor import examine
from rag_index.components.stores import BULK
from rag_index.components.stores.server import ServerStore
from rag_index.components.stores.server.server_collection import ServerCollection
from rag_index.errors import RagIndexError
from tests.etl.plain import run_plain
from tests.fakes.qdrant import FakeQdrant
from tests.forked_program import run_code
from tests.project import Project

ALIAS = "test_notes"


@pytest.fixture
def qdrant() -> Iterator[FakeQdrant]:
    with FakeQdrant() as fake:
        fake.threshold = 10  # kilobytes: 10 vectors
        yield fake


@pytest.fixture
def project(tmp_path: Path, qdrant: FakeQdrant) -> Project:
    extra = f'[store]\nurl = "{qdrant.url}"\n[store.server]\ngrpc_port = 0\nbulk = true\n'
    return Project(tmp_path / "project", extra=extra).fill(60)


def threshold(qdrant: FakeQdrant, name: str) -> int | None:
    with closing(QdrantClient(qdrant.url, check_compatibility=False)) as client:
        found = client.get_collection(name)
    assert (BULK in (found.config.metadata or {})) == (found.config.optimizer_config.indexing_threshold == 0)
    return found.config.optimizer_config.indexing_threshold


def aliases(project: Project) -> dict[str, str]:
    with project.store() as store:
        return store.aliases()


def test_a_first_load_builds_its_search_index_at_the_end_and_is_published_then(project, qdrant, monkeypatch):
    seen = []
    resume, wait = ServerCollection.resume_indexing, ServerStore.optimize

    def look() -> None:
        name = f"{ALIAS}__1"
        seen.append((threshold(qdrant, name), qdrant.indexed.get(name, 0) >= 60, aliases(project)))

    monkeypatch.setattr(ServerCollection, "resume_indexing", lambda *given: (look(), resume(*given)))
    monkeypatch.setattr(ServerStore, "optimize", lambda *given: (wait(*given), look()))
    run_plain(project)
    assert seen[:2] == [(0, False, {}), (10, True, {})]
    assert aliases(project) == {ALIAS: f"{ALIAS}__1"}
    before = qdrant.requests("PATCH")
    assert run_plain(project).message == ""
    assert threshold(qdrant, f"{ALIAS}__1") == 10
    assert qdrant.requests("PATCH") == before + 1, "the epoch alone is written when nothing changed"


def test_a_rebuild_is_loaded_in_bulk_and_the_live_collection_is_not(project, qdrant, monkeypatch):
    run_plain(project)
    qdrant.configs.clear()  # as if nothing had ever been set by hand
    project.fill(40, first=100)
    seen, wait = [], ServerStore.optimize
    monkeypatch.setattr(ServerStore, "optimize", lambda store, name: (seen.append(name), wait(store, name)))
    run_plain(project)
    assert not seen, "people search the live collection"
    assert threshold(qdrant, f"{ALIAS}__1") == 10
    run_plain(project, full=True)
    assert seen == [f"{ALIAS}__2"]
    assert aliases(project) == {ALIAS: f"{ALIAS}__2"}
    assert threshold(qdrant, f"{ALIAS}__2") == 10


@pytest.mark.parametrize("bulk", ["true", "false"])
def test_an_error_in_the_middle_turns_the_search_index_on_and_without_bulk_it_never_was_off(
    project, qdrant, monkeypatch, bulk
):
    project.write_settings(project.config.read_text().replace("bulk = true", f"bulk = {bulk}"))
    live = {ALIAS: f"{ALIAS}__1"}
    with monkeypatch.context() as patch:
        patch.setattr("tests.etl.plain.delete_gone", mock.Mock(side_effect=RagIndexError("the network is gone")))
        with pytest.raises(RagIndexError, match="the network is gone"):
            run_plain(project)
    assert aliases(project) == ({} if bulk == "true" else live), "people search a first collection from the start"
    assert threshold(qdrant, f"{ALIAS}__1") == 10
    run_plain(project)
    assert aliases(project) == live


def test_a_first_load_is_published_although_documents_failed_because_nothing_better_is_live(project):
    project.execute("UPDATE note SET body = x'0001' WHERE id = 7")
    assert run_plain(project).failed == 1
    assert aliases(project) == {ALIAS: f"{ALIAS}__1"}


KILLED = """
import os, signal
from pathlib import Path
from tests.etl import plain
from tests.reliability.victim import project_in

plain.delete_gone = lambda _: os.kill(os.getpid(), signal.SIGKILL)
plain.run_plain(project_in(Path(folder)), full=True)
"""


def test_the_next_run_restores_what_a_killed_rebuild_left_off(project, qdrant):
    run_plain(project)
    ended = run_code(f"folder = {str(project.folder)!r}\n{KILLED}", os.environ)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert threshold(qdrant, f"{ALIAS}__2") == 0
    run_plain(project)
    assert threshold(qdrant, f"{ALIAS}__2") == 10
    assert aliases(project) == {ALIAS: f"{ALIAS}__1"}


def test_a_collection_that_is_not_indexed_is_not_published(project, qdrant, monkeypatch):
    qdrant.stuck = True
    monkeypatch.setattr("rag_index.components.stores.server.server_collection.BUSY_WAIT", 0.0)
    with pytest.raises(RagIndexError, match=f"the search index of {ALIAS}__1 did not grow"):
        run_plain(project)
    assert aliases(project) == {}
    assert threshold(qdrant, f"{ALIAS}__1") == 10
    with pytest.raises(RagIndexError, match=f"the search index of {ALIAS}__1 did not grow"):
        run_plain(project)
    assert aliases(project) == {}, "the next run waits again, although the search index is on"
    qdrant.stuck = False
    pauses = []
    monkeypatch.setattr(ServerCollection, "pause_indexing", lambda *given: pauses.append(given))
    run_plain(project)
    assert aliases(project) == {ALIAS: f"{ALIAS}__1"}
    assert not pauses, "turning the search index off would wait for what the server builds"


def test_a_grpc_port_that_does_not_answer_is_said_by_runs_and_doctor_and_rest_alone_is_not(project, qdrant):
    settings = project.config.read_text()
    assert run_plain(project).message == ""
    port = int(qdrant.url.rpartition(":")[2])
    said = f"does not answer gRPC on port {port}, so"
    project.write_settings(settings.replace("grpc_port = 0", f"grpc_port = {port}"))
    assert said in run_plain(project).message
    (advice,) = examine(project.settings).advice
    assert said in advice.message
    assert "grpc_port" in advice.message
    project.write_settings(settings)
    assert not examine(project.settings).advice
