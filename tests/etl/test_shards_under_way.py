"""The window keeps a bounded number of shards under way, and loses none, whatever becomes of one of them."""

from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rag_index.errors import EmbedderUnavailable, ProcessDied, StoreError, TransientError
from rag_index.etl import shards_under_way as module
from rag_index.etl.shards_under_way import ShardsUnderWay
from rag_index.etl.steps import Steps
from tests.etl.test_child import shard_of


class Manual(Steps):
    """Takes shards, by number, and is done with them when told to."""

    check = fetch = end = None

    def __init__(self, size: int = 2, why: str = "") -> None:
        self.size, self.futures, self.alone, self._why = size, {}, [], why

    def start(self):
        super().start()
        return self._why

    def write(self, job, to):
        number = job.shard.number
        self.futures[number] = Future()
        return self.futures[number]

    def write_alone(self, job, to):
        number = job.shard.number
        self.alone.append(number)
        return -number

    def tick(self):
        raise TransientError("no worker")

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self.futures[number].set_result(-number)

    def fail(self, number: int, error: Exception) -> None:
        self.futures[number].set_exception(error)


class Run(SimpleNamespace):
    """As much of a run as a window asks."""

    has_much, committer = False, SimpleNamespace(destination=None)

    def __init__(self) -> None:
        self.counts, self.said = [], []
        progress = SimpleNamespace(
            under_way=lambda shards, workers: self.counts.append(shards), tick=lambda: None, say=self.said.append
        )
        self.settings = SimpleNamespace(parallel=SimpleNamespace(serial=False), embedder=None)
        self.index = SimpleNamespace(kind="sql", parts=(), has_files=False, search="dense")
        self.metrics, self.outcome, self.progress = (
            SimpleNamespace(workers=1),
            SimpleNamespace(say=self.said.append),
            progress,
        )
        self.stopwatch = SimpleNamespace(stage=lambda name: nullcontext())
        self.logger = self.chunker = self.identity = None
        self.ledger = self.store = None
        self.rebuild = self.had_documents = False


Manual.__abstractmethods__ = frozenset()


def shard(number: int, **changed):
    return replace(shard_of("text"), number=number, **changed)


def filled(steps: Manual, *numbers: int) -> tuple[ShardsUnderWay, Run]:
    run = Run()
    window = ShardsUnderWay(run, steps)
    for number in numbers:
        assert not list(window.push(shard(number)))
    return window, run


@pytest.mark.parametrize(
    ("fills", "much", "begun"),
    [
        ([1], False, []),
        ([1, 1], False, [1, 2]),
        ([0.6] * 3, False, []),
        ([0.6] * 4, False, [1, 2, 3, 4]),
        ([1], True, [1]),
    ],
    ids=["one shard", "two", "not two full ones", "two full ones", "a first one of many"],
)
def test_workers_start_once_there_are_two_full_shards_or_much_is_to_come(fills, much, begun):
    steps, run = Manual(size=9), Run()
    run.has_much = much
    window = ShardsUnderWay(run, steps)
    for number, fill in enumerate(fills, 1):
        assert not list(window.push(shard(number, fill=fill)))
    assert (steps.started, list(steps.futures)) == (bool(begun), begun)


def test_one_shard_is_embedded_without_workers():
    alone = Manual()
    alone.write = lambda job, to: Future()
    window, run = filled(alone, 1)
    with pytest.raises(TransientError):
        list(window.rest())
    assert (alone.started, run.counts) == (False, [1])


def test_after_an_error_no_shard_is_begun_that_was_kept():
    steps = Manual()
    window, _ = filled(steps, 1)
    list(window.push(shard(2, fill=0.5)))
    write = steps.write

    def fail(job, to):
        future = write(job, to)
        steps.fail(job.shard.number, EmbedderUnavailable("down"))
        return future

    steps.write, steps.size = fail, 1
    with pytest.raises(EmbedderUnavailable):
        list(window.rest())
    assert (list(window.rest()), list(steps.futures)) == ([], [1])


def test_a_run_without_workers_says_so_and_goes_on():
    steps = Manual(size=3, why="the worker processes do not start")
    _, run = filled(steps, 1, 2)
    assert "it was indexed in one process: the worker processes do not start" in run.said
    assert list(steps.futures) == [1, 2]


def test_no_more_shards_are_under_way_than_there_is_room_for():
    steps, run, found = Manual(), Run(), []
    window = ShardsUnderWay(run, steps)
    list(window.push(shard(0)))
    steps.write = lambda job, to: done(job.shard.number)

    def done(number):
        future = Future()
        future.set_result(-number)
        return future

    for number in range(1, 10):
        found += window.push(shard(number))
    found += window.rest()
    assert (sorted(found), max(run.counts), run.counts[-1]) == ([*range(-9, 1)], 2, 0)


def test_the_first_error_of_several_is_told_and_nothing_stays_under_way():
    steps, found = Manual(4), []
    window, run = filled(steps, 1, 2, 3)
    steps.fail(1, EmbedderUnavailable("down"))
    steps.finish(2)
    steps.fail(3, EmbedderUnavailable("later"))
    write = steps.write

    def finished(job, to):
        future = write(job, to)
        future.set_result(-job.shard.number)
        return future

    steps.write = finished
    with pytest.raises(EmbedderUnavailable, match="down"):
        found.extend(window.push(shard(4)))  # a list keeps what comes before the error
    assert (found, run.counts[-1], list(window.rest())) == ([-2, -4], 0, [])


def test_there_is_room_for_a_shard_before_the_next_one_is_asked_for(monkeypatch):
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    steps = Manual(2)
    window, _ = filled(steps, 1)
    with pytest.raises(TransientError, match="no worker"):  # it waits until one of two is done
        list(window.push(shard(2)))
    assert list(steps.futures) == [1, 2]


def test_a_shard_that_is_written_is_committed_although_there_is_room_for_more():
    steps = Manual(9)
    window, _ = filled(steps, 1, 2)
    steps.finish(1)
    assert list(window.push(shard(3))) == [-1]


def test_an_error_of_the_store_is_raised_at_once():
    steps = Manual(4)
    window, _ = filled(steps, 1, 2)
    steps.fail(1, StoreError("the disk is full"))
    with pytest.raises(StoreError):
        list(window.rest())
    assert not steps.futures[2].done()


def test_a_shard_whose_process_dies_is_written_alone_once_the_others_are_done():
    steps = Manual(4)
    window, _ = filled(steps, 1, 2)
    steps.fail(1, ProcessDied("it died"))
    steps.finish(2)
    written = window.rest()
    assert (next(written), steps.alone) == (-2, [])
    assert (list(written), steps.alone) == ([-1], [1])


def test_a_suspect_is_written_alone_at_once():
    steps = Manual()
    window, _ = filled(steps)
    assert list(window.push(shard(1, suspect=True))) == [-1]
    assert (steps.alone, steps.futures) == ([1], {})
