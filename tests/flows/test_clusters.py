"""Workers that others have started, or that a run starts as it needs them: which are used, and what comes back."""

import os
from contextlib import contextmanager

import distributed.comm.tcp
import pytest
from distributed import LocalCluster
from distributed.utils import nbytes
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from rag_index.core.documents.batches import ShardStats, WrittenShard
from rag_index.core.settings import ParallelSettings, run_settings
from rag_index.errors import TerminalError
from rag_index.etl.plain import Plainly
from rag_index.etl.run import RunOptions
from rag_index.etl.steps import BUSY
from rag_index.orchestration.cluster import Workers, count_workers
from rag_index.orchestration.launch import run_plainly
from rag_index.orchestration.prefect_api import api_settings, why_no_api
from tests.fakes.ollama import FakeOllama
from tests.flows.test_with_servers import OLLAMA, on_server
from tests.ports import free_port
from tests.project import WORDS, Project

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


@pytest.mark.parametrize("prefect", [False, pytest.param(True, id="a flow", marks=pytest.mark.long)])
def test_two_small_shards_start_no_worker_and_two_full_ones_do(tmp_path, request, prefect):
    def metrics_of(**options):
        if prefect:
            request.getfixturevalue("prefect_server")
            assert project.index(**options).state == "completed"
        else:
            settings = run_settings(project.config, shard_documents=options.get("shard_documents"))
            assert run_plainly(settings, settings.indexes, RunOptions(**options)).state == "completed"
        return project.json("report")["runs"][0]["metrics"]

    with FakeOllama() as fake:
        project = Project(tmp_path / "project", fake.settings)
        for number in (1, 2, 3):
            text = " ".join(f"{word}{number}" for word in WORDS * 40)
            project.execute("INSERT INTO note VALUES (?, ?, ?, ?, ?)", number, "", text, "", 0)
        small = metrics_of()
        assert (small["shards"], "workers" in small["stages"]) == (2, False)
        full = metrics_of(full=True, shard_documents=1)
        assert (full["shards"], "workers" in full["stages"]) == (3, True)


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


def servers(workers):
    parallel = f"[parallel]\nworkers = {workers}\n"
    return f'[embedder]\nkind = "ollama"\nmodel = "m"\n{parallel}'


@pytest.mark.parametrize("given", [4, 3, 1])
def test_more_processes_ask_servers_only_once_those_there_are_compute_all_the_time(tmp_path, given):
    steps = Plainly(Project(tmp_path / "project", servers(given)).settings)
    steps.start()
    began, counts = steps.size, []
    for load in (0.1, BUSY - 0.01, BUSY, 0.1, 1.0, 1.0):
        steps.observe(WrittenShard(1, [], [], [], [], [], ShardStats(process_load=load)))
        counts.append(steps.workers)
    assert counts == [1, 1, min(2, given), min(2, given), given, given]
    assert steps.size == began + 3 * (given - 1)
    steps.close()


def test_a_serial_run_stays_one_process_whatever_that_has_to_do(tmp_path):
    steps = Plainly(Project(tmp_path / "project", servers(4) + "serial = true\n").settings)
    steps.start()
    steps.observe(WrittenShard(1, [], [], [], [], [], ShardStats(process_load=1.0)))
    assert (steps.workers, steps.size) == (1, 2)
    steps.close()


@pytest.mark.long
def test_a_cluster_for_servers_begins_with_one_worker_and_doubles_up_to_the_most():
    with Workers(ParallelSettings(workers=3), on_servers=True) as workers:
        client = distributed.Client(workers.cluster())
        client.wait_for_workers(1, timeout=120)
        assert len(client.run(os.getpid)) == workers.count == 1
        assert [workers.grow(), workers.grow(), workers.grow()] == [2, 3, 3]
        client.wait_for_workers(3, timeout=120)
