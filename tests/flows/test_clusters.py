"""Workers that others have started, or that a run starts as it needs them: which are used, and what comes back."""

from contextlib import closing, contextmanager

import distributed.comm.tcp
import pytest
from distributed import LocalCluster
from distributed.utils import nbytes
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from rag_index.core.settings import ParallelSettings, run_settings
from rag_index.errors import TerminalError
from rag_index.etl.opened import RunOptions
from rag_index.etl.plain import Plainly
from rag_index.orchestration.cluster import count_workers
from rag_index.orchestration.launch import run_plainly
from rag_index.orchestration.prefect_api import api_settings, why_no_api
from tests.fakes.ollama import FakeOllama
from tests.flows.test_with_servers import OLLAMA, on_server
from tests.ports import free_port
from tests.project import Project

__all__ = ["on_server"]
DIMENSION = 1024
DOCUMENTS = 600


@pytest.mark.long
def test_a_cluster_that_starts_its_workers_once_there_is_work_is_used(tmp_path, prefect_server):
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        cluster.adapt(minimum=0, maximum=2, interval="200ms")
        extra = f'[parallel]\naddress = "{cluster.scheduler_address}"\n'
        report = Project(tmp_path / "project", extra).fill(60).index(shard_documents=10)
        assert (report.state, report.indexes[0].new) == ("completed", 60), report.sentence()


def first_shards(tmp_path, index) -> tuple[dict, dict]:
    """Return the metrics of a run with one shard, and of one with three."""
    found = []
    with FakeOllama() as fake:
        project = Project(tmp_path / "project", f"{fake.settings}[parallel]\nworkers = 2\n").fill(3)
        for documents in (10, 1):
            assert index(project, shard_documents=documents, full=bool(found)).state == "completed"
            found.append(project.json("status", "--report")["runs"][0]["metrics"])
    return found[0], found[1]


def test_a_plain_run_embeds_its_first_shard_itself_and_further_ones_in_children(tmp_path):
    def index(project, **options):
        settings = run_settings(project.config, shard_documents=options["shard_documents"])
        return run_plainly(settings, settings.indexes, RunOptions(**options))

    one, three = first_shards(tmp_path, index)
    assert [(metrics["shards"], metrics["workers"]) for metrics in (one, three)] == [(1, 1), (3, 2)]


@pytest.mark.long
def test_a_flow_embeds_on_its_workers_from_the_first_shard(tmp_path, prefect_server):
    one, three = first_shards(tmp_path, lambda project, **options: project.index(**options))
    assert [(metrics["shards"], metrics["workers"]) for metrics in (one, three)] == [(1, 2), (3, 2)]
    assert all("workers" in metrics["stages"] for metrics in (one, three))


@pytest.mark.long
def test_workers_that_do_not_reach_prefect_are_found_before_the_run_and_told_what_to_set(prefect_server):
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        settings = ParallelSettings(address=cluster.scheduler_address)
        assert count_workers(settings) == 1
        away = f"http://127.0.0.1:{free_port()}/api"
        with (
            temporary_settings({PREFECT_API_URL: away}),
            pytest.raises(TerminalError, match=rf"worker tcp://.* does not reach .* at {away} .*: set PREFECT_API_URL"),
        ):
            count_workers(settings)


def test_a_key_that_prefect_refuses_is_told(prefect_server):
    assert why_no_api(api_settings()) == ""
    with temporary_settings({PREFECT_API_AUTH_STRING: "rag-index:wrong"}):
        assert "(401): set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING" in why_no_api(api_settings())


@contextmanager
def counted(monkeypatch):
    """Count the bytes of the messages that Dask brings to this process."""
    received = [0]
    read = distributed.comm.tcp.from_frames

    async def count(frames, *given, **options):
        received[0] += sum(map(nbytes, frames))
        return await read(frames, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(distributed.comm.tcp, "from_frames", count)
        yield received


@pytest.mark.long
def test_vectors_go_from_the_workers_to_a_qdrant_server_and_never_to_the_flow(prefect_server, on_server, monkeypatch):
    vectors = DOCUMENTS * DIMENSION * 4
    with FakeOllama(dimension=DIMENSION) as ollama, counted(monkeypatch) as received:
        embedder = OLLAMA.format(model=ollama.model, url=ollama.url)
        on_server.write_settings(on_server.config.read_text().replace("[[indexes]]", f"{embedder}[[indexes]]"))
        report = on_server.fill(DOCUMENTS).index(shard_documents=50)
    assert (report.state, report.indexes[0].new) == ("completed", DOCUMENTS), report.sentence()
    assert received[0] < vectors / 2, "the documents went to the scheduler, which is in this process, and no vectors"


@pytest.mark.parametrize(("given", "serial", "workers"), [(4, False, 4), (1, False, 1), (4, True, 1)])
def test_there_are_as_many_processes_as_the_settings_say_whatever_embeds(tmp_path, given, serial, workers):
    parallel = f"[parallel]\nworkers = {given}\nserial = {str(serial).lower()}\n"
    settings = Project(tmp_path / "project", f'[embedder]\nkind = "ollama"\nmodel = "m"\n{parallel}').settings
    with closing(Plainly(settings)) as steps:
        assert steps.workers == workers
