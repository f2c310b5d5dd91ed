"""What a worker process keeps open from shard to shard."""

import threading

import pytest
from distributed import Client, LocalCluster

from rag_index.errors import StoreError
from rag_index.orchestration.worker import begin_next, process_store
from rag_index.settings import StoreSettings
from tests.fakes.qdrant import FakeQdrant


def connections(qdrant: FakeQdrant) -> int:
    """Return how often the server was asked for its version, with which each connection begins."""
    return sum(seen == "GET /" for seen in qdrant.seen)


def test_shards_share_a_connection_until_there_is_an_error() -> None:
    with FakeQdrant() as qdrant, FakeQdrant() as other:
        settings = StoreSettings(url=qdrant.url)
        for _ in range(3):
            with process_store(settings) as store:
                store.aliases()
        assert connections(qdrant) == 1
        with pytest.raises(StoreError), process_store(settings):
            raise StoreError("refused")
        with process_store(settings) as store:
            store.aliases()
        assert connections(qdrant) == 2
        with process_store(StoreSettings(url=other.url)) as store:
            store.aliases()
        assert (connections(qdrant), connections(other)) == (2, 1)


SECOND_BEGAN, THIRD_BEGAN = threading.Event(), threading.Event()
"""Set by tasks that run in this process: the threads of a cluster without processes."""


def wait_for_the_second() -> bool:
    begin_next()
    begin_next()
    return SECOND_BEGAN.wait(60)


def hold_the_only_thread() -> bool:
    SECOND_BEGAN.set()
    return THIRD_BEGAN.wait(0.5)


def begin_third() -> None:
    THIRD_BEGAN.set()


def test_a_worker_with_one_thread_begins_the_next_task_beside_one_that_waits() -> None:
    """Asking twice, as a task that is tried again does, gives away no second thread."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        in_order = [wait_for_the_second, hold_the_only_thread, begin_third]  # Dask keeps none among equals
        tasks = [client.submit(one, priority=-number) for number, one in enumerate(in_order)]
        assert [task.result(60) for task in tasks] == [True, False, None]
