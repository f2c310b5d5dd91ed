"""The metrics of a run, and the stopwatch of its stages."""

from __future__ import annotations

import pytest

from rag_index.documents.batches import ShardStats
from rag_index.reports.metrics import RunMetrics, Stopwatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_inner_stage_is_not_counted_twice():
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now = 5
    with watch.stage("diff"):
        clock.now = 7
        with watch.stage("fetch"):
            clock.now = 10
        clock.now = 11
    clock.now = 100
    assert watch.seconds == {"diff": 3, "fetch": 3}


def test_metrics_add_up_over_shards_and_workers():
    metrics = RunMetrics(seconds=10, workers=2, first_shard_after=2.0)
    for worker in ("a:1", "a:2", "a:1"):
        stats = ShardStats(seconds=4.0, texts=3, chars=10, requests=1, worker=worker, host_seconds={"http://h": 3.0})
        metrics.add(stats, documents=4, chunks=5, dimension=8)
    assert (metrics.shards, metrics.chunks, metrics.texts, metrics.chars, metrics.requests) == (3, 15, 9, 30, 3)
    assert metrics.by_worker == {"a:1": 8.0, "a:2": 4.0}
    assert metrics.by_host == {"http://h": 9.0}
    assert (metrics.shard_documents, metrics.vector_bytes) == (12, 3 * 5 * 8 * 4)
    assert metrics.utilisation == pytest.approx(12 / 16)


def test_the_stages_add_up_to_the_whole_run():
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now = 3
    with watch.stage("fetch"):
        clock.now = 5
    watch.count_rest("start")
    clock.now = 6
    with watch.stage("wait"):
        clock.now = 16
    clock.now = 20
    metrics = RunMetrics(workers=2, first_shard_after=6.0, shards=1, worker_seconds=18.0)
    metrics.end(20.0, watch)
    assert metrics.stages == {"start": 3, "fetch": 2, "wait": 10, "other": 5}
    assert list(metrics.stages) == ["start", "fetch", "wait", "other"]
    assert metrics.idle_seconds == pytest.approx(2 * 14 - 18)
