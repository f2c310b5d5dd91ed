"""Documents that cannot be indexed are listed and harm no other; a run that finds another at work says so."""

from __future__ import annotations

import sys
import time

import dask
import psutil
import pytest
from distributed import LocalCluster

from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.orchestration.cluster import Workers
from tests.dask_workers import workers_among
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually, when


@pytest.fixture
def project(tmp_path, prefect_server, fake) -> Project:
    return Project(tmp_path / "project", extra=fake.settings + "wait_for_recovery = 5\n").fill(80)


def listed(project: Project) -> dict[str, tuple[str, int]]:
    return {one["document_id"]: (one["reason"], one["tries"]) for one in project.json("failed")["failed"]}


@pytest.mark.long
def test_a_refused_text_is_found_listed_and_tried_again_by_hand(project, fake):
    project.execute("UPDATE note SET body = 'POISON here' WHERE id IN (17, 40)")
    fake.fault("status", code=400, marker="POISON", words="cannot embed this")
    report = project.index(serial=True)
    assert (report.state, report.indexes[0].failed, report.indexes[0].new) == ("partial", 2, 78)
    assert listed(project).keys() == {"17", "40"}
    assert "cannot embed this" in listed(project)["17"][0]
    fake.clear()
    retried = project.json("retry-failed", "--serial")
    assert retried["indexes"][0]["state"] == "completed"
    assert retried["indexes"][0]["new"] == 2
    assert listed(project) == {}
    assert project.cli("retry-failed").stdout == "No documents are listed as failed.\n"


def test_a_failed_document_that_is_gone_is_no_failure(project, fake):
    project.execute("UPDATE note SET body = 'POISON' WHERE id = 3")
    fake.fault("status", code=400, marker="POISON")
    project.run()
    project.execute("DELETE FROM note WHERE id = 3")
    assert project.run().state == "completed"
    assert listed(project) == {}


def test_few_failures_are_tolerated_where_the_settings_say_so(project, fake):
    project.write_settings(project.config.read_text() + "\n[run]\ntolerate_failed = 0.05\n")
    project.execute("UPDATE note SET body = 'POISON' WHERE id = 3")
    fake.fault("status", code=400, marker="POISON")
    report = project.run()
    assert (report.state, report.exit_code, report.indexes[0].failed) == ("completed", 0, 1)


@pytest.mark.long
def test_a_document_that_kills_its_worker_is_found_and_the_rest_is_indexed(project, fake):
    project.fill(720, first=81)  # 80 are embedded in the flow's process
    project.execute("UPDATE note SET body = 'KILLS' WHERE id = 33")
    fake.fault("kill_client", marker="KILLS")
    report = project.index()
    assert (report.state, report.indexes[0].failed, report.indexes[0].new) == ("partial", 1, 799)
    assert listed(project).keys() == {"33"}
    assert "worker process dies" in listed(project)["33"][0]
    assert len(project.texts()) == 799


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 9])
def test_workers_that_do_not_start_are_started_once_more_before_the_run_does_without(project, monkeypatch, times):
    start, left = Workers._local_cluster, [RuntimeError("Nanny failed to start.")] * times

    def failing(workers, count):
        if left:
            raise RuntimeError("Cluster failed to start") from left.pop()
        return start(workers, count)

    monkeypatch.setattr(Workers, "_local_cluster", failing)
    report = project.index(workers=2, shard_documents=40)
    assert report.state == "completed", report.sentence()
    assert len(project.texts()) == 80
    message = report.indexes[0].message
    if times == 1:
        assert not message
    else:
        assert "in one process: the worker processes do not start (Nanny failed to start.)" in message


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked only on Linux")
def test_a_run_survives_the_death_of_the_process_that_workers_are_forked_from(project, fake):
    fake.fault("hang", seconds=0.3)
    with Victim(project, "--workers", "2", "--shard-documents", "10") as run:
        eventually(lambda: len(fake.embeds()) >= 3, lambda: run.output)  # the first are the flow's health check
        [parent] = run.fork_servers()
        parent.kill()
        assert run.process.wait(200) == 0, run.output
        assert "Traceback" not in run.output
        assert run.seconds_until_gone(60) is not None
    assert len(project.texts()) == 80


@pytest.mark.long
def test_a_worker_that_is_killed_as_it_starts_does_not_stop_the_run(project, fake):
    with Victim(project, "--workers", "2", "--shard-documents", "10") as run:
        eventually(run.workers, lambda: run.output)[0].kill()
        assert run.process.wait(200) == 0, run.output
        assert "Traceback" not in run.output
    assert len(project.texts()) == 80


@pytest.mark.long
def test_a_signal_while_workers_start_ends_the_run(project, fake):
    with Victim(project, "--workers", "2", "--shard-documents", "10") as run:
        eventually(run.workers, lambda: run.output)
        run.process.terminate()
        assert run.process.wait(200) == 130, run.output
        assert "Traceback" not in run.output
        assert run.seconds_until_gone(60) is not None, run.processes()
    assert project.index(serial=True).state == "completed"


@pytest.mark.long
def test_an_embedder_that_dies_ends_the_run_and_keeps_finished_work(project, fake):
    fake.seconds_per_text = 0.02

    def last_shard_begun() -> bool:
        return any("ticket 65" in text for request in fake.embeds() for text in request.texts)

    with when(last_shard_begun, fake.stop_listening):
        report = project.index(workers=1, shard_documents=20)
    assert report.state == "failed"
    assert fake.url.removeprefix("http://") in report.indexes[0].message
    kept = len(project.texts())
    assert kept >= 40
    fake.listen()
    resumed = project.index(serial=True).indexes[0]
    assert (resumed.state, resumed.unchanged) == ("completed", kept)
    assert len(project.texts()) == 80


def test_a_lease_of_another_machine_is_kept_for_a_minute_and_then_taken_over(tmp_path):
    project = Project(tmp_path / "p")
    now = 1_000_000.0
    ledger = Ledger(project.settings.ledger_url, clock=lambda: now)
    lease = IndexLease(ledger, "test_notes", "elsewhere")
    lease.__enter__()
    with ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE rag_index_leases SET host = 'another machine'")
    here = Ledger(project.settings.ledger_url, clock=lambda: now + 59)
    with pytest.raises(Exception, match="another machine since 1970-01-12 13:46:40 UTC"):
        IndexLease(here, "test_notes", "me").__enter__()
    here.clock = lambda: now + 61
    with IndexLease(here, "test_notes", "me") as mine:
        assert mine.epoch == 2
    lease._stop.set()


def test_a_worker_that_restarts_slowly_is_not_given_up(project):
    def workers() -> set[psutil.Process]:
        return set(workers_among(psutil.Process().children(recursive=True))) - earlier

    earlier: set[psutil.Process] = set()  # those of another test, which are on their way out
    earlier = workers()
    with (
        dask.config.set(
            {"distributed.deploy.lost-worker-timeout": "1ms"}
        ),  # stands for a restart that takes longer than Dask's 15 s
        Workers(project.settings.parallel.model_copy(update={"workers": 1})) as pool,
        pool.cluster(),
    ):
        for _ in range(2):
            [before] = workers()
            before.kill()
            eventually(lambda before=before: workers() - {before}, "the worker never came back")
            time.sleep(2)  # a spawned worker takes a moment to register


@pytest.mark.long
def test_a_run_without_any_worker_left_ends_and_says_so(project, fake, monkeypatch):
    monkeypatch.setattr("rag_index.orchestration.window.CHECK_SECONDS", 0.2)
    monkeypatch.setattr("rag_index.orchestration.window.GONE_SECONDS", 4.0)
    fake.fault("hang", seconds=2.0)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        project.write_settings(f'{project.config.read_text()}\n[parallel]\naddress = "{cluster.scheduler_address}"\n')

        with when(fake.embeds, lambda: cluster.scale(0)):
            report = project.index(shard_documents=10)
        assert (report.state, report.exit_code) == ("failed", 1)
        assert "there has been no worker process for" in report.indexes[0].message
    project.write_settings(project.config.read_text().rpartition("[parallel]")[0])
    fake.clear()
    assert project.run().state == "completed"
    assert len(project.texts()) == 80
