"""The pool keeps a bounded number of shards in flight, and loses none, whatever becomes of one of them."""

from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rag_index.errors import EmbedderUnavailable, ProcessDied
from rag_index.indexing import pipeline
from rag_index.indexing.pipeline import Pool
from rag_index.indexing.step_retries import call_plainly
from tests.indexing.test_child import shard_of


class Place:
    """Takes shards, by number, and is done with them when told to."""

    def __init__(self, size: int = 2) -> None:
        self.size, self.futures = size, {}

    def ends(self, number: int) -> None:
        """Do at once with a shard what a test wants, if it does."""

    def embed(self, number, call):
        self.futures[number] = Future()
        self.ends(number)
        return self.futures[number]

    def tick(self) -> None:
        raise EmbedderUnavailable("no worker")

    def close(self) -> None:
        self.size = 0

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self.futures[number].set_result(-number)

    def fail(self, number: int, error: Exception) -> None:
        self.futures[number].set_exception(error)


class Scan(SimpleNamespace):
    """As much of a scan as a pool asks."""

    has_much = False

    def __init__(self) -> None:
        self.counts = []
        progress = SimpleNamespace(under_way=lambda shards, workers: self.counts.append(shards), tick=lambda: None)
        self.run = SimpleNamespace(
            settings=SimpleNamespace(parallel=SimpleNamespace(serial=False, address="any")), progress=progress,
            metrics=SimpleNamespace(workers=1), logger=None,
            stopwatch=SimpleNamespace(stage=lambda name: nullcontext()),
        )  # fmt: skip

    def job(self, shard) -> int:
        return shard.number


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    monkeypatch.setattr(pipeline, "in_thread", lambda embed, name: embed())


@contextmanager
def pooled(place: Place, *numbers: int):
    scan = Scan()
    with Pool(scan, call_plainly, grow=lambda scan: place) as pool:
        for number in numbers:
            pool.submit(replace(shard_of("text"), number=number))
        yield pool, scan


def test_no_more_shards_are_in_flight_than_there_is_room_for():
    place = Place()
    with pooled(place) as (pool, scan):
        for number in range(10):
            pool.submit(replace(shard_of("text"), number=number))
            place.finish(*[number - 1] * (number > 0))
            list(pool.ready())
        place.finish(9)
        list(pool.rest())
        assert (max(scan.counts), scan.counts[-1]) == (2, 0)


def test_an_error_is_raised_only_after_the_results_of_all_others():
    place, found = Place(3), []
    with pooled(place, 1, 2, 3) as (pool, scan):
        place.fail(1, EmbedderUnavailable("down"))
        place.finish(2, 3)
        with pytest.raises(EmbedderUnavailable, match="down"):
            found.extend(pool.ready())  # a list keeps what comes before the error
        assert (sorted(found), scan.counts[-1], list(pool.rest())) == ([-3, -2], 0, [])


def test_what_a_place_raises_while_nothing_comes_ends_the_waiting(monkeypatch):
    monkeypatch.setattr(pipeline, "TICK_SECONDS", 0.01)
    place = Place()
    with pooled(place, 1) as (pool, _), pytest.raises(EmbedderUnavailable, match="no worker"):
        list(pool.rest())
    assert place.size == 0, "the shard in flight is not ended"


def test_a_shard_whose_process_dies_is_embedded_again_alone_and_the_others_go_on():
    place = Place()
    with pooled(place, 1, 2) as (pool, _):
        place.fail(1, ProcessDied("it died"))
        place.finish(2)
        results = pool.rest()
        assert next(results) == -2
        place.ends = place.finish
        assert list(results) == [-1]


def test_where_much_is_to_come_the_place_is_there_before_the_first_shard():
    scan, asked = Scan(), []
    scan.has_much = True
    with Pool(scan, call_plainly, grow=lambda scan: asked.append(scan) or Place()):
        assert asked == [scan]
