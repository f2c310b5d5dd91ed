"""The window of submitted shards: bounded, and refilled while results are dealt with."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

from prefect.states import Completed

from rag_index.orchestration.window import Window


class Cluster:
    """Takes items and is done with them when told to."""

    def __init__(self) -> None:
        self.there: dict[int, Future] = {}

    def submit(self, item: int) -> SimpleNamespace:
        self.there[item] = Future()
        return SimpleNamespace(wrapped_future=self.there[item])

    def done(self, *items: int) -> None:
        for item in items:
            self.there[item].set_result(Completed(data=-item))


def opened(cluster: Cluster, size: int) -> Window[int, int]:
    return Window(cluster.submit, size, split=lambda item: [item], give_up=lambda item: item)


def test_no_more_than_two_results_are_dealt_with_before_the_next_item_is_submitted():
    cluster = Cluster()
    window = opened(cluster, 4)
    for item in (1, 2, 3, 4):
        assert list(window.put(item)) == []
    cluster.done(1, 2, 3)
    results = window.put(5)
    assert next(results) == -1
    assert 5 not in cluster.there, "what is under way or being written is never more than the window"
    assert next(results) == -2
    assert 5 in cluster.there
    assert list(results) == [], "the third waits until there is another item"
    assert list(window.put(6)) == [-3]
    assert 6 in cluster.there
    cluster.done(4, 5, 6)
    assert sorted(window.drain()) == [-6, -5, -4]


def test_no_more_are_under_way_than_its_size():
    cluster = Cluster()
    window = opened(cluster, 2)
    for item in range(10):
        list(window.put(item))
        open_ = [future for future in cluster.there.values() if not future.done()]
        assert len(open_) <= 2
        cluster.done(item)
    assert len(list(window.drain())) > 0
