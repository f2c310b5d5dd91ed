"""What a worker process keeps open from shard to shard, and what it tells the run."""

import time

import pytest
from distributed import Client, LocalCluster
from qdrant_client import models

from rag_index.core.documents.batches import DocumentBatch, EmbeddedShard, ShardStats
from rag_index.core.recovery import asking
from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import StoreSettings
from rag_index.errors import IndexLocked, TransientError
from rag_index.etl.commit import WorkerDestination
from rag_index.orchestration import liveness
from rag_index.orchestration.liveness import Liveness, RunPlugin
from tests.fakes.qdrant import FakeQdrant
from tests.waiting import eventually


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr("rag_index.etl.embed._Process.worker", None)  # afterwards this process is no worker
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def connections(qdrant: FakeQdrant) -> int:
    """Return how often the server was asked for its version, with which each connection begins."""
    return sum(seen == "GET /" for seen in qdrant.seen)


def write(to: WorkerDestination) -> int:
    return to.write(EmbeddedShard("notes", 1, DocumentBatch.empty(), [], None, [], ShardStats())).number


def test_shards_share_a_connection_to_each_server(client) -> None:
    client.register_plugin(RunPlugin())
    with FakeQdrant() as qdrant, FakeQdrant() as other:
        for server in (qdrant, other):
            vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
            server.client.create_collection("notes__1", vectors_config=vectors, metadata={"epoch": 7})
        to = WorkerDestination(StoreSettings(url=qdrant.url), "notes__1", 7)
        for _ in range(3):
            assert client.submit(write, to, pure=False).result(60) == 1
        assert connections(qdrant) == 1
        with pytest.raises(IndexLocked, match="is written by a later run"):
            client.submit(write, WorkerDestination(to.settings, to.collection, 6), pure=False).result(60)
        assert client.submit(write, to, pure=False).result(60) == 1
        client.submit(write, WorkerDestination(StoreSettings(url=other.url), "notes__1", 7), pure=False).result(60)
        assert (connections(qdrant), connections(other)) == (1, 1)


def wait_for_qdrant() -> None:
    with asking("Qdrant at h", patience=0.0):
        time.sleep(5)


def test_the_run_hears_what_a_worker_waits_for_until_the_workers_are_gone(client, monkeypatch) -> None:
    monkeypatch.setattr(liveness, "WORKERS_CHECK_SECONDS", 0.0)
    record, now = RunRecord("notes"), [0.0]
    progress, alive = record.progress, Liveness(client, record, clock=lambda: now[0])
    waiting = client.submit(wait_for_qdrant, pure=False)
    eventually(lambda: [one.service for one in progress.outages] == ["Qdrant at h"])
    waiting.result(60)
    eventually(lambda: not progress.outages)
    alive.tick()
    client.cluster.scale(0)
    eventually(lambda: not client.nthreads())
    for now[0] in (1.0, 80.0, 160.0):
        alive.tick()
    now[0] = 240.0
    with pytest.raises(TransientError, match=r"there has been no worker process for \d+ s"):
        alive.tick()
