"""The window of submitted shards is bounded and refilled while results are dealt with; killers are kept aside."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from distributed.scheduler import KilledWorker
from prefect.logging import disable_run_logger
from prefect.states import Completed, Failed

from rag_index.errors import EmbedderUnavailable, ProcessDied
from rag_index.orchestration.window import Window


class DaskFuture(Future):
    """A future as Dask's: it is released once its result was taken."""

    def release(self) -> None: ...


class Cluster:
    """Takes items, is done with them when told to, and counts what the window says meanwhile."""

    def __init__(self) -> None:
        self.futures: dict[int, DaskFuture] = {}
        self.counts: list[int] = []
        self.ends_alone = None
        """What is done with an item as soon as it is submitted, if anything."""

    def submit(self, item: int) -> SimpleNamespace:
        self.futures[item] = DaskFuture()
        if self.ends_alone:
            self.ends_alone(item)
        return SimpleNamespace(wrapped_future=self.futures[item])

    def finish(self, *items: int) -> None:
        for item in items:
            self.futures[item].set_result(Completed(data=-item))

    def fail(self, item: int, error: Exception) -> None:
        self.futures[item].set_result(Failed(data=error))

    def kill(self, item: int) -> None:
        self.futures[item].set_exception(KilledWorker("embed", SimpleNamespace(address="tcp://127.0.0.1:1"), 1))

    def window(self, size: int, *items: int) -> Window[int, int]:
        """Return a window to which these items were submitted."""
        window: Window[int, int] = Window(self.submit, size, self)
        for item in items:
            assert list(window.put(item)) == []
        return window

    # As a monitor

    def waiting(self):
        return nullcontext()

    def tick(self) -> None:
        raise EmbedderUnavailable("no worker")

    def in_flight(self, shards: int) -> None:
        self.counts.append(shards)


@pytest.fixture
def cluster():
    return Cluster()


def test_at_most_two_results_are_dealt_with_before_the_next_item_is_submitted(cluster):
    window = cluster.window(4, 1, 2, 3, 4)
    cluster.finish(1, 2, 3)
    results = window.put(5)
    assert next(results) == -1
    assert 5 not in cluster.futures, "what is in flight or being written is never more than the window"
    assert next(results) == -2
    assert 5 in cluster.futures
    assert list(results) == [], "the third waits until there is another item"
    assert list(window.put(6)) == [-3]
    assert 6 in cluster.futures
    cluster.finish(4, 5, 6)
    assert sorted(window.drain()) == [-6, -5, -4]


def test_no_more_items_are_in_flight_than_the_size_of_the_window(cluster):
    window = cluster.window(2)
    for item in range(10):
        list(window.put(item))
        assert sum(not future.done() for future in cluster.futures.values()) <= 2
        cluster.finish(item)
    assert len(list(window.drain())) > 0
    assert max(cluster.counts) == 2
    assert cluster.counts[-1] == 0


def test_an_error_is_raised_only_after_the_results_of_all_others(cluster):
    window = cluster.window(3, 1, 2, 3)
    cluster.fail(1, EmbedderUnavailable("down"))
    cluster.finish(2, 3)
    found = []
    with pytest.raises(EmbedderUnavailable, match="down"):
        found.extend(window.drain())  # a list keeps what comes before the error
    assert sorted(found) == [-3, -2]
    assert cluster.counts[-1] == 0


def test_what_the_watcher_raises_while_nothing_comes_ends_the_waiting(cluster, monkeypatch):
    monkeypatch.setattr("rag_index.orchestration.window.TICK_SECONDS", 0.01)
    with pytest.raises(EmbedderUnavailable, match="no worker"):
        list(cluster.window(1, 1).drain())


def test_an_item_whose_workers_die_is_kept_aside_and_run_alone(cluster):
    window = cluster.window(2, 1, 2)
    cluster.kill(1)
    cluster.finish(2)
    with disable_run_logger():
        assert list(window.drain()) == [-2]
        assert window.died == [1]
        cluster.ends_alone = cluster.finish
        assert window.run_alone(1) == -1
        cluster.ends_alone = cluster.kill
        with pytest.raises(ProcessDied):
            window.run_alone(1)
