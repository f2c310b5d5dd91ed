"""What a worker process that waits for a service tells the run."""

import time

import pytest
from distributed import Client, LocalCluster

from rag_index.core.recovery import asking
from rag_index.core.reports.progress import RunRecord
from rag_index.errors import TransientError
from rag_index.orchestration import liveness
from rag_index.orchestration.liveness import Liveness
from tests.waiting import eventually


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr("rag_index.etl.embed._Process.worker", None)  # afterwards this process is no worker
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def wait_for_qdrant() -> None:
    with asking("Qdrant at h", patience=0.0):
        time.sleep(5)


def test_the_run_hears_what_a_worker_waits_for_until_the_workers_are_gone(client, monkeypatch) -> None:
    monkeypatch.setattr(liveness, "WORKERS_CHECK_SECONDS", 0.0)
    now = [0.0]
    alive = Liveness(client, RunRecord("notes"), clock=lambda: now[0])

    def is_told():  # beside what earlier tests of this process have given up
        return "Qdrant at h" in [one.service for one in alive.waits]

    waiting = client.submit(wait_for_qdrant, pure=False)
    eventually(is_told)
    waiting.result(60)
    eventually(lambda: not is_told())
    alive.tick()
    lost = client.submit(wait_for_qdrant, pure=False)
    eventually(is_told)
    client.cluster.scale(0)
    eventually(lambda: not client.nthreads())
    for now[0] in (1.0, 80.0, 160.0):
        alive.tick()
        assert not alive.waits, f"a worker that is gone waits for nothing, and {lost} for a worker"
    now[0] = 240.0
    with pytest.raises(TransientError, match=r"there has been no worker process for \d+ s"):
        alive.tick()
