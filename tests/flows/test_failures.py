"""Documents that cannot be indexed are listed and harm no other, also if they kill the process that
embeds them; processes that die or do not start stop no run."""

import datetime as dt
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from distributed import Client, LocalCluster
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.states import Running

from flows.index_all import index_all
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.orchestration.cluster import Workers
from rag_index.orchestration.task_steps import NOT_BEGUN
from tests.dask_workers import workers_among
from tests.etl.plain import printed
from tests.fakes.qdrant import FakeQdrant
from tests.live.qdrant import STORES, project_on
from tests.ports import free_port
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually, when

HUNGRY = """
import numpy as np
from rag_index.components.embedders import EmbedderIdentity
from rag_index.core.documents.work import Work

class Hungry:
    def __init__(self, settings, **_): self.stats = Work()
    def identity(self): return EmbedderIdentity(kind="hungry", model="hungry", digest="1", dimension=4)
    def embed_documents(self, texts):
        if any("EATS" in text for text in texts): bytearray(1 << 60)
        return np.asarray([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)
    def embed_query(self, text): return self.embed_documents([text])[0]
    def close(self): pass
"""
HUNGRY_SETTINGS = (
    '[embedder]\nkind = "hungry"\nmodel = "hungry"\ndocument_prefix = ""\nquery_prefix = ""\n'
)
KILLED = -9


@pytest.fixture
def project(request, tmp_path, fake) -> Iterator[Project]:
    """80 notes; a parameter is one of `STORES`."""
    kind, extra = (
        getattr(request, "param", "embedded"),
        f"{fake.settings}[run]\nwait_for_recovery = 5\n",
    )
    with project_on(kind, lambda store: Project(tmp_path / "project", extra + store)) as project:
        yield project.fill(80)


def listed(project: Project, what: str = "reason") -> dict[str, Any]:
    return {
        one["document_id"]: one[what] for one in printed(project, "status", "--failed")["failed"]
    }


@pytest.mark.long
def test_a_refused_text_is_tried_again_by_hand_and_is_no_failure_once_it_is_gone(project, fake):
    project.write_settings(
        project.config.read_text().replace("[run]\n", "[run]\ntolerate_failed = 0.025\n")
    )
    project.execute("UPDATE note SET body = 'POISON here' WHERE id IN (17, 40, 41)")
    fake.fault("status", code=400, marker="POISON", words="cannot embed this")
    assert (project.run().state, listed(project).keys()) == ("partial", {"17", "40", "41"})
    project.execute("UPDATE note SET id = 81 WHERE id = 41")
    project.execute("UPDATE note SET body = 'harmless' WHERE id = 81")
    report = project.run()
    assert (report.state, report.exit_code, report.indexes[0].failed) == (
        "completed",
        0,
        2,
    ), "2 of 80 are tolerated"
    assert "cannot embed this" in listed(project)["17"]
    fake.clear()
    retried = printed(project, "index-all", "--retry-failed", "--serial")["indexes"][0]
    assert (retried["state"], retried["new"], listed(project)) == ("completed", 2, {})


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 9])
def test_workers_that_do_not_start_are_started_once_more_or_done_without(
    project, prefect_server, monkeypatch, times
):
    start, left = Workers._local_cluster, [RuntimeError("Nanny failed to start.")] * times

    def failing(workers, count):
        if left:
            raise RuntimeError("Cluster failed to start") from left.pop()
        return start(workers, count)

    monkeypatch.setattr(Workers, "_local_cluster", failing)
    report = project.index(workers=2, shard_documents=40)
    assert report.state == "completed", report.sentence()
    assert len(project.texts()) == 80
    alone = (
        "in one process: the worker processes do not start (Nanny failed to start.)"
        in report.indexes[0].message
    )
    assert alone == (times > 1)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked only on Linux")
def test_a_worker_that_is_killed_as_it_starts_does_not_stop_the_run(project, prefect_server, fake):
    """Nor does the death of the process that workers are forked from."""
    fake.fault("hang", seconds=0.3)
    with Victim(project, "--workers", "2", "--shard-documents", "10") as run:
        eventually(run.workers, lambda: run.output)[0].kill()
        eventually(
            lambda: len(fake.embeds()) >= 3, lambda: run.output
        )  # the first are the flow's health check
        [parent] = run.fork_servers()
        parent.kill()
        assert run.process.wait(200) == 0, run.output
        assert "Traceback" not in run.output
        eventually(run.gone, seconds=60)
    assert len(project.texts()) == 80


@pytest.mark.long
def test_a_run_without_any_worker_left_ends_and_says_so(project, prefect_server, fake, monkeypatch):
    monkeypatch.setattr("rag_index.orchestration.liveness.WORKERS_CHECK_SECONDS", 0.2)
    monkeypatch.setattr("rag_index.orchestration.liveness.GONE_SECONDS", 4.0)
    fake.fault("hang", seconds=2.0)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        project.write_settings(
            f'{project.config.read_text()}\n[parallel]\naddress = "{cluster.scheduler_address}"\n'
        )
        with when(fake.embeds, lambda: cluster.scale(0)):
            report = project.index(shard_documents=10)
    assert (report.state, report.exit_code) == ("failed", 1)
    assert "there has been no worker process for" in report.indexes[0].message


@pytest.mark.long
def test_a_scheduler_that_dies_is_named(project, prefect_server, fake, tmp_path):
    fake.fault("hang", seconds=1.0)
    with dask_in(tmp_path) as (address, scheduler):
        project.write_settings(f'{project.config.read_text()}\n[parallel]\naddress = "{address}"\n')
        with when(lambda: len(fake.embeds()) > 1, scheduler.kill):
            report = project.index(shard_documents=10)
    assert (report.state, report.exit_code) == ("failed", 1)
    assert f"the Dask scheduler at {address} is gone" in report.indexes[0].message
    assert "Traceback" not in report.indexes[0].message


@contextmanager
def dask_in(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a scheduler and a worker of Dask as other processes, and give the scheduler's address and
    process."""
    address = f"tcp://127.0.0.1:{free_port()}"
    dask, host = [sys.executable, "-m", "dask"], address.rpartition(":")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    begin = [*dask, "scheduler", "--host", host[0], "--port", host[2], "--no-dashboard"]
    with ExitStack() as stack:
        scheduler = stack.enter_context(subprocess.Popen(begin, **quiet))
        stack.callback(scheduler.kill)
        worker = stack.enter_context(
            subprocess.Popen([*dask, "worker", address, "--no-dashboard"], **quiet)
        )
        stack.callback(worker.kill)
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        yield address, scheduler


@pytest.mark.long
@pytest.mark.parametrize("project", STORES, indirect=True)
def test_a_worker_that_dies_under_a_document_is_told_in_one_sentence(
    project, prefect_server, fake, monkeypatch
):
    """What kills it from outside when it has no more memory is a signal, as here."""
    monkeypatch.setattr(
        "rag_index.orchestration.task_steps.UNREPORTED_SECONDS", 30.0
    )  # a busy server learns late
    project.execute("UPDATE note SET body = 'KILLS' WHERE id = 7")
    fake.fault("kill_client", marker="KILLS")
    began = dt.datetime.now(dt.UTC)  # the server has the runs of other tests, too
    report = project.index(shard_documents=20, workers=2)
    assert (report.state, report.indexes[0].failed, len(project.texts())) == ("partial", 1, 79)
    died = "the worker died (out of memory, or a crash) under shard "

    def told() -> list[str] | None:
        """Return what crashed tasks say, as soon as Prefect knows of the worker's and of one
        alone."""
        runs = [run for run in task_runs_since(began) if run.state.is_crashed()]
        found = [run.state.message for run in runs]
        known = any(said.startswith(died) for said in found) and any(
            run.name.endswith(" alone") for run in runs
        )
        return found if known else None

    crashed = eventually(
        told, lambda: [(run.name, run.state) for run in task_runs_since(began)], every=0.25
    )
    for said in crashed:
        assert "`rag-index status notes --failed` lists" in said
        assert "\n" not in said


def task_runs_since(began: dt.datetime) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(limit=200, sort=TaskRunSort.EXPECTED_START_TIME_DESC)
    return [run for run in runs if (run.start_time or run.expected_start_time) > began]


@pytest.mark.long
def test_a_worker_that_was_killed_once_is_told_and_counted(project, prefect_server, fake, caplog):
    """Dask gives its shards to another one, without a word."""
    fake.seconds_per_text = 0.1

    def kill_one() -> None:
        workers_among(psutil.Process().children(recursive=True))[0].kill()

    with when(lambda: len(fake.embeds()) > 4, kill_one):  # the first text is the check at the start
        report = project.index(shard_documents=10, workers=2)
    assert report.state == "completed", report.sentence()
    assert len(project.texts()) == 80
    assert caplog.text.count("a worker process died (killed, out of memory, or a crash)") == 1
    [run] = printed(project, "status", "--report")["runs"]
    assert run["metrics"]["workers_died"] == 1


@pytest.mark.long
def test_a_task_that_had_failed_documents_has_a_state_of_its_own(project, prefect_server, fake):
    project.execute("UPDATE note SET body = 'POISON' WHERE id = 7")
    fake.fault("status", code=400, marker="POISON")
    began = dt.datetime.now(dt.UTC)
    assert project.index(serial=True, shard_documents=20).indexes[0].failed == 1
    embeds = lambda: [run for run in task_runs_since(began) if run.name.startswith("embed")]  # noqa: E731
    eventually(lambda: len(embeds()) == 4, "the server knows all tasks", every=0.25)
    named = [
        (run.state.name, run.state.message) for run in embeds() if run.state.name != "Completed"
    ]
    assert named == [("Partial", "1 document failed")]


def test_a_flow_run_that_died_is_marked_by_the_next_one(project, prefect_server):
    """Prefect takes a part of a run for one that runs for ever, if its process was killed."""
    settings = project.settings
    names = (
        settings.alias("notes"),
        f"{settings.project} index-all",
        f"{settings.project} index-all next",
    )
    with get_client(sync_client=True) as client, closing(Ledger(settings.ledger_url)) as ledger:
        died = [client.create_flow_run(index_all, state=Running()).id for _ in names]
        for name, run in zip(names, died, strict=True):
            lease = IndexLease(ledger, name, str(run)).__enter__()
            lease._stop.set()
        with ledger.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE rag_index_leases SET process_started = 0, renewed_at = 0"
            )
        assert project.index(serial=True).state == "completed"
        states = [client.read_flow_run(run).state for run in died]
    assert [state.name for state in states] == ["Crashed"] * 3
    assert states[0].message.startswith("its process died; what was committed is kept")


@pytest.mark.long
def test_no_upsert_waits_for_ever_for_what_was_not_embedded(
    tmp_path, prefect_server, fake, monkeypatch
):
    monkeypatch.setattr(
        "rag_index.orchestration.task_steps.UNREPORTED_SECONDS", 30.0
    )  # a busy server learns late
    set_state, asked = SyncPrefectClient.set_task_run_state, set()

    def answer_late(client, run, *given, **named):
        if run not in asked:
            asked.add(run)
            raise httpx.ReadTimeout("busy")
        return set_state(client, run, *given, **named)

    monkeypatch.setattr(SyncPrefectClient, "set_task_run_state", answer_late)
    with FakeQdrant() as qdrant:
        extra = f'{fake.settings}[run]\nwait_for_recovery = 0.2\n[store]\nurl = "{qdrant.url}"\n'
        project = Project(tmp_path / "project", extra=extra).fill(80)
        began = dt.datetime.now(dt.UTC)
        with when(lambda: fake.embeds()[1:], fake.stop_listening):
            report = project.index(shard_documents=10, workers=2)
    assert report.state == "failed"
    upserts = []

    def all_ended() -> bool:  # a busy server learns of it late
        upserts[:] = [run.state for run in task_runs_since(began) if run.name.startswith("upsert")]
        said = {state.message for state in upserts if state.is_cancelled()}
        return said == {NOT_BEGUN} and not any(state.is_pending() for state in upserts)

    eventually(all_ended, lambda: str(upserts), every=0.5)


@pytest.fixture
def killed(tmp_path, fake) -> Project:
    """200 notes are indexed; then one that kills and a good one are added."""
    project = Project(
        tmp_path / "project", extra=fake.settings + "[run]\nwait_for_recovery = 5\n"
    ).fill(200)
    assert project.run().state == "completed"
    project.execute(
        "INSERT INTO note (id, title, body) VALUES (900, 'bad', 'KILLS'), (901, 'good', 'harmless')"
    )
    fake.fault("kill_client", marker="KILLS")
    return project


def kinds(project: Project) -> set[str]:
    return {finding["kind"] for finding in printed(project, "doctor", code=3)["findings"]}


@pytest.mark.long
def test_the_next_run_finds_it_and_indexes_the_rest(killed):
    assert killed.cli("index-all").returncode == KILLED
    assert "901" not in killed.texts()
    answer = killed.json("index-all", code=3)["indexes"][0]
    assert (answer["failed"], answer["new"]) == (1, 1), answer
    assert killed.texts()["901"] == ["good\nharmless"]
    assert listed(killed, "tries") == {"900": 2}, "the run that died was a try as well"
    assert killed.json("index-all", code=3)["indexes"][0]["failed"] == 1
    assert (listed(killed, "tries"), kinds(killed)) == ({"900": 3}, {"failed_documents"})


@pytest.mark.long
def test_single_documents_as_well(killed):
    """Where a changed document keeps what it had, since the run that died had written nothing."""
    before = killed.texts()["7"]
    killed.execute("UPDATE note SET body = 'KILLS' WHERE id = 7")
    assert killed.cli("index", "notes", "--id", "7").returncode == KILLED
    answer = killed.json("index", "notes", "--id", "7", "--id", "901", code=3)["indexes"][0]
    assert (answer["failed"], answer["new"]) == (1, 1), answer
    assert listed(killed, "tries") == {"7": 2}
    assert (killed.texts()["7"], killed.texts()["901"]) == (before, ["good\nharmless"])
    assert "pending_documents" not in kinds(killed)


@pytest.mark.long
def test_a_worker_without_memory_is_told_in_a_sentence_with_its_shard(tmp_path, prefect_server):
    info = tmp_path / "site" / "hungry-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "hungry.py").write_text(HUNGRY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hungry\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rag_index.embedders]\nhungry = hungry:Hungry\n")
    project, path = (
        Project(tmp_path / "project", HUNGRY_SETTINGS).fill(8),
        {"PYTHONPATH": str(info.parent)},
    )
    project.execute("UPDATE note SET body = 'EATS' WHERE id = 5")
    began = dt.datetime.now(dt.UTC)  # the server has the runs of other tests, too
    with Victim(project, "--workers", "1", "--shard-documents", "2", **path) as run:
        assert run.process.wait(240) == 3, run.output
    answer = project.json("status", "--report", **path)["runs"][0]
    assert (answer["failed"], answer["new"]) == (1, 7), answer
    assert [one["document_id"] for one in project.json("status", "--failed", **path)["failed"]] == [
        "5"
    ]
    said = "the process had no more memory ([parallel] worker_memory) under shard 3 of notes: "
    parts = (
        "its 2 documents are tried in parts, and `rag-index status notes --failed` lists any that"
        " does it again"
    )
    alone = "`rag-index status notes --failed` lists its document, unless another try succeeds"
    found = defaultdict(set)
    for task in task_runs_since(began):
        if task.state_type in ("FAILED", "CRASHED") and task.name.startswith(("embed", "upsert")):
            found[task.name].add(task.state.message)
    assert found == {
        "embed notes 3": {said + parts},
        "embed notes 3 alone": {said + parts, said + alone},
    }
