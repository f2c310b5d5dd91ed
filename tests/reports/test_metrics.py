"""The metrics of a run, and the stopwatch of its stages."""

import pytest

from rag_index.documents.batches import ShardStats, WrittenShard
from rag_index.reports.metrics import RunMetrics, Stopwatch
from tests.test_outages import Clock


def test_metrics_add_up_over_shards_and_workers():
    metrics = RunMetrics(seconds=10, workers=2, first_shard_after=2.0)
    for _ in range(3):
        stats = ShardStats(seconds=4.0, texts=3, chars=10, requests=1, host_seconds={"http://h": 3.0})
        metrics.add(WrittenShard(1, [], [], [], [2, 3], [], stats), documents=4, dimension=8)
    work = metrics.work
    assert (metrics.shards, metrics.chunks, work.texts, work.chars, work.requests) == (3, 15, 9, 30, 3)
    assert metrics.work.host_seconds == {"http://h": 9.0}
    assert (metrics.shard_documents, metrics.vector_bytes) == (12, 3 * 5 * 8 * 4)
    assert metrics.utilisation == pytest.approx(12 / 16)


def test_the_stages_add_up_to_the_whole_run_and_an_inner_one_is_not_counted_twice():
    clock = Clock()
    clock.now = 0
    watch = Stopwatch(clock)
    clock.now = 3
    with watch.stage("diff"):
        clock.now = 4
        with watch.stage("fetch"):
            clock.now = 6
        clock.now = 7
    watch.count_rest("start")
    clock.now = 8
    with watch.stage("wait"):
        clock.now = 18
    clock.now = 22
    metrics = RunMetrics(workers=2, first_shard_after=8.0, shards=1, work=ShardStats(seconds=18.0))
    metrics.end(22.0, watch)
    assert list(metrics.stages.items()) == [("start", 3), ("fetch", 2), ("diff", 2), ("wait", 10), ("other", 5)]
    assert metrics.utilisation == pytest.approx(18 / 28)
