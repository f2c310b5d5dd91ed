from __future__ import annotations

import pytest

from rag_index.documents.batches import ShardStats
from rag_index.reports.metrics import Figures, Stopwatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_inner_stage_is_not_counted_twice():
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now = 5
    with watch.stage("plan"):
        clock.now = 7
        with watch.stage("fetch"):
            clock.now = 10
        clock.now = 11
    clock.now = 100
    assert watch.seconds == {"plan": 3, "fetch": 3}


def test_figures_add_up_over_shards_and_workers():
    figures = Figures(seconds=10, workers=2, first_shard_after=2.0)
    for worker in ("a:1", "a:2", "a:1"):
        stats = ShardStats(seconds=4.0, texts=3, chars=10, requests=1, worker=worker, host_seconds={"http://h": 3.0})
        figures.add(stats, chunks=5)
    assert (figures.shards, figures.chunks, figures.texts, figures.chars, figures.requests) == (3, 15, 9, 30, 3)
    assert figures.by_worker == {"a:1": 8.0, "a:2": 4.0}
    assert figures.by_host == {"http://h": 9.0}
    assert figures.utilisation == pytest.approx(12 / 16)
