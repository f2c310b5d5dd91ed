"""Workers that a run starts or finds: which are used, what they are given and bring back, and where
it is written."""

import os
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest import mock

import distributed.comm.tcp
import pytest
from distributed import LocalCluster
from distributed.utils import nbytes
from prefect import flow, task
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.index_collection import index_collection
from rag_index.core.settings import ParallelSettings, run_settings
from rag_index.errors import TerminalError
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions
from rag_index.orchestration.cluster import count_workers, run_workers
from rag_index.orchestration.launch import run_locally
from rag_index.orchestration.prefect_api import api_settings, why_no_api
from rag_index.orchestration.task_steps import flow_client
from tests.fakes.ollama import FakeOllama
from tests.live.qdrant import SERVERS, project_on
from tests.ports import free_port
from tests.project import Project
from tests.reliability.victim import FLOW, Victim, in_environment, ledger_rows
from tests.waiting import eventually

DIMENSION = 1024
DOCUMENTS = 600
UPSERT = "PUT /collections/test_notes__1/points"
SHARD, IN_FLIGHT = 20, 3


@pytest.mark.long
def test_a_cluster_that_starts_its_workers_once_there_is_work_is_used(tmp_path, prefect_server):
    with LocalCluster(
        n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
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
        return run_locally(settings, settings.indexes, RunOptions(**options))

    one, three = first_shards(tmp_path, index)
    assert [(metrics["shards"], metrics["workers"]) for metrics in (one, three)] == [(1, 1), (3, 2)]


@pytest.mark.long
def test_a_flow_embeds_on_its_workers_from_the_first_shard(tmp_path, prefect_server):
    one, three = first_shards(tmp_path, lambda project, **options: project.index(**options))
    assert [(metrics["shards"], metrics["workers"]) for metrics in (one, three)] == [(1, 2), (3, 2)]
    assert all("workers" in metrics["stages"] for metrics in (one, three))


@pytest.mark.long
def test_workers_that_do_not_reach_prefect_are_found_before_the_run_and_told_what_to_set(
    prefect_server,
):
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        settings = ParallelSettings(address=cluster.scheduler_address)
        assert count_workers(settings) == 1
        away = f"http://127.0.0.1:{free_port()}/api"
        with (
            temporary_settings({PREFECT_API_URL: away}),
            pytest.raises(
                TerminalError,
                match=rf"worker tcp://.* does not reach .* at {away} .*: set PREFECT_API_URL",
            ),
        ):
            count_workers(settings)


def test_a_key_that_prefect_refuses_is_told(prefect_server):
    assert why_no_api(api_settings()) == ""
    with temporary_settings({PREFECT_API_AUTH_STRING: "rag-index:wrong"}):
        assert "(401): set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING" in why_no_api(
            api_settings()
        )


@pytest.mark.long
def test_vectors_go_from_the_workers_to_a_qdrant_server_and_never_to_the_flow(
    prefect_server, on_server
):
    vectors = DOCUMENTS * DIMENSION * 4
    received, read = [0], distributed.comm.tcp.from_frames

    async def count(frames, *given, **options):
        received[0] += sum(map(nbytes, frames))  # of all that Dask brings to this process
        return await read(frames, *given, **options)

    with (
        FakeOllama(dimension=DIMENSION) as ollama,
        mock.patch.object(distributed.comm.tcp, "from_frames", count),
    ):
        on_server.write_settings(
            on_server.config.read_text().replace("[[indexes]]", f"{ollama.settings}[[indexes]]")
        )
        report = on_server.fill(DOCUMENTS).index(shard_documents=50)
    assert (report.state, report.indexes[0].new) == ("completed", DOCUMENTS), report.sentence()
    assert received[0] < vectors / 2, (
        "the documents went to the scheduler, which is in this process, and no vectors"
    )


@pytest.mark.parametrize(
    ("given", "serial", "workers"), [(4, False, 4), (1, False, 1), (4, True, 1)]
)
def test_there_are_as_many_processes_as_the_settings_say_whatever_embeds(
    tmp_path, given, serial, workers
):
    parallel = f"[parallel]\nworkers = {given}\nserial = {str(serial).lower()}\n"
    settings = Project(
        tmp_path / "project", f'[embedder]\nkind = "ollama"\nmodel = "m"\n{parallel}'
    ).settings
    with closing(LocalSteps(settings)) as steps:
        assert steps.workers == workers


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
        assert written[point] == (payload, pytest.approx(vector, abs=1e-5))
    project.execute("UPDATE note SET body = 'short' WHERE id = 10")
    project.execute("DELETE FROM note WHERE id = 11")
    report = project.index(workers=1, shard_documents=30).indexes[0]
    assert (report.changed, report.deleted, report.unchanged) == (1, 1, 198)
    assert project.texts()["10"] == ["Note 10\nshort"]


@pytest.mark.long
def test_secrets_are_written_nowhere(tmp_path, prefect_server, qdrant):
    """They are not in the output (even in full), in Prefect's database or in the ledger."""
    secret = "hunter2-correct-horse"
    project = Project(
        tmp_path / "p", extra=f'[store]\nurl = "{qdrant.url}"\n[run]\nwait_for_recovery = 1\n'
    ).fill(10)
    url = f"postgresql+psycopg://reader:{secret}@127.0.0.1:9/desk"

    def flow(*options, **environment):
        loud = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG", "PREFECT_LOGGING_LEVEL": "DEBUG"}
        given = (
            os.environ
            | in_environment(options)
            | {"RAG_INDEX_CONFIG": str(project.config)}
            | loud
            | environment
        )
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
    assert not [path for path in kept if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.long
def test_a_worker_embeds_before_the_server_acknowledges_and_its_death_loses_nothing(
    tmp_path, prefect_server, qdrant
):
    """It embeds a second shard before the first is answered. Three are begun, and nothing is
    committed."""
    project = Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"').fill(100)
    # Without words nothing is written by words first, as a slow machine would.
    settings = project.config.read_text()
    project.write_settings(settings.replace('name = "notes"', 'name = "notes"\nsearch = "dense"'))
    qdrant.break_next(UPSERT)  # the mark with which a run begins its writes is answered
    held = qdrant.break_next(UPSERT, times=None, together=1_000_000)
    with Victim(project, "--workers", "1", "--shard-documents", str(SHARD)) as victim:
        eventually(
            lambda: (
                (held.met == 2 and len(ledger_rows(project)) >= IN_FLIGHT * SHARD) or victim.ended
            )
        )
        assert held.met == 2, victim.output
        rows = ledger_rows(project)
        assert len(rows) == IN_FLIGHT * SHARD, "a window of shards is begun, and no more"
        assert all(row.pending for row in rows.values()), (
            "documents are committed whose points are not acknowledged"
        )
        [worker] = victim.workers()
        worker.kill()
        held.crowded.set()
        assert victim.process.wait() == 0, victim.output
    assert len(project.texts()) == len(ledger_rows(project)) == 100
    assert not any(row.pending for row in ledger_rows(project).values())


@task
def added() -> int:
    return os.getpid()


@pytest.mark.long
def test_a_task_that_is_submitted_runs_on_the_workers_that_embed(tmp_path, prefect_server):
    settings = Project(tmp_path / "project").settings
    settings = settings.model_copy(
        update={"parallel": settings.parallel.model_copy(update={"workers": 1})}
    )

    @flow(task_runner=index_collection.task_runner.duplicate())
    def enlarged() -> tuple[int, dict[str, int]]:
        with run_workers(settings):
            return added.submit().result(), flow_client().run(os.getpid)

    submitted, embedding = enlarged()
    assert [submitted] == list(embedding.values())
    assert submitted != os.getpid()
