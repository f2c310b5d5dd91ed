"""The window of submitted shards: workers have the next one before results of others are dealt with."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

from prefect.states import Completed

from tasks.window import Window


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


def test_an_item_is_submitted_before_the_results_of_others_are_dealt_with():
    cluster = Cluster()
    window = opened(cluster, 4)
    for item in (1, 2, 3, 4):
        assert list(window.put(item)) == []
    cluster.done(1, 2, 3)
    results = window.put(5)
    assert next(results) == -1
    assert 5 in cluster.there, "workers have it while the first result is written"
    assert list(results) == [-2], "and one more that was done; the third waits until there is another item"
    cluster.done(4, 5)
    assert sorted(window.drain()) == [-5, -4, -3]


def test_no_more_are_under_way_than_its_size():
    cluster = Cluster()
    window = opened(cluster, 2)
    for item in range(10):
        list(window.put(item))
        open_ = [future for future in cluster.there.values() if not future.done()]
        assert len(open_) <= 2
        cluster.done(item)
    assert len(list(window.drain())) > 0
