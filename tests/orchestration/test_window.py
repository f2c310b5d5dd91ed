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


class Cluster:
    """Takes items, and is done with them when told to."""

    def __init__(self) -> None:
        self.futures: dict[int, Future] = {}

    def submit(self, item: int) -> SimpleNamespace:
        self.futures[item] = Future()
        return SimpleNamespace(wrapped_future=self.futures[item])

    def finish(self, *items: int) -> None:
        for item in items:
            self.futures[item].set_result(Completed(data=-item))

    def fail(self, item: int, error: Exception) -> None:
        self.futures[item].set_result(Failed(data=error))

    def kill(self, item: int) -> None:
        self.futures[item].set_exception(KilledWorker("embed", SimpleNamespace(address="tcp://127.0.0.1:1"), 1))


class Watcher:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.ticks = 0
        self.counts: list[int] = []

    def waiting(self):
        return nullcontext()

    def tick(self) -> None:
        self.ticks += 1

    def in_flight(self, shards: int) -> None:
        self.counts.append(shards)


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def watcher():
    return Watcher()


def test_at_most_two_results_are_dealt_with_before_the_next_item_is_submitted(cluster, watcher):
    window: Window[int, int] = Window(cluster.submit, 4, watcher)
    for item in (1, 2, 3, 4):
        assert list(window.put(item)) == []
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


def test_no_more_items_are_in_flight_than_the_size_of_the_window(cluster, watcher):
    window: Window[int, int] = Window(cluster.submit, 2, watcher)
    for item in range(10):
        list(window.put(item))
        assert sum(not future.done() for future in cluster.futures.values()) <= 2
        cluster.finish(item)
    assert len(list(window.drain())) > 0
    assert max(watcher.counts) == 2
    assert watcher.counts[-1] == 0


def test_an_error_is_raised_only_after_the_results_of_all_others(cluster, watcher):
    window: Window[int, int] = Window(cluster.submit, 3, watcher)
    for item in (1, 2, 3):
        list(window.put(item))
    cluster.fail(1, EmbedderUnavailable("down"))
    cluster.finish(2, 3)
    found = []
    with pytest.raises(EmbedderUnavailable, match="down"):
        found.extend(window.drain())  # a list keeps what comes before the error
    assert sorted(found) == [-3, -2]
    assert watcher.counts[-1] == 0


def test_what_the_watcher_raises_while_nothing_comes_ends_the_waiting(cluster, watcher, monkeypatch):
    monkeypatch.setattr("rag_index.orchestration.window.TICK_SECONDS", 0.01)
    window: Window[int, int] = Window(cluster.submit, 1, watcher)
    list(window.put(1))

    def nobody_left():
        raise EmbedderUnavailable("no worker")

    watcher.tick = nobody_left
    with pytest.raises(EmbedderUnavailable, match="no worker"):
        list(window.drain())


def test_an_item_whose_workers_die_is_kept_aside_and_run_alone(cluster, watcher):
    window: Window[int, int] = Window(cluster.submit, 2, watcher)
    for item in (1, 2):
        list(window.put(item))
    cluster.kill(1)
    cluster.finish(2)
    with disable_run_logger():
        assert list(window.drain()) == [-2]
    assert window.died == [1]

    def submit_and_finish(item: int) -> SimpleNamespace:
        submitted = Cluster.submit(cluster, item)
        cluster.finish(item)
        return submitted

    window._submit = submit_and_finish
    assert window.run_alone(1) == -1


def test_an_item_that_kills_its_workers_alone_as_well_is_reported(cluster, watcher):
    window: Window[int, int] = Window(cluster.submit, 2, watcher)

    def submit_and_kill(item: int) -> SimpleNamespace:
        submitted = Cluster.submit(cluster, item)
        cluster.kill(item)
        return submitted

    window._submit = submit_and_kill
    with pytest.raises(ProcessDied):
        window.run_alone(1)
