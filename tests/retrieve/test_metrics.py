"""Search metrics: accurate to a percent, from any thread, as JSON and as Prometheus reads them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rag_index.retrieve.metrics import Metrics


def filled(seconds) -> Metrics:
    metrics = Metrics()
    for one in seconds:
        metrics.add_search({"total": one})
    return metrics


def test_percentiles_are_accurate_to_a_percent():
    seconds = np.random.default_rng(0).lognormal(-4, 1.5, 5000)
    found = filled(seconds).snapshot().stages["total"]
    assert found.count == 5000
    assert found.mean_ms == pytest.approx(1000 * seconds.mean())
    for quantile, value in ((0.5, found.p50_ms), (0.95, found.p95_ms), (0.99, found.p99_ms)):
        exact = 1000 * np.quantile(seconds, quantile, method="inverted_cdf")
        assert value == pytest.approx(exact, rel=0.011)


def test_nothing_is_lost_between_threads():
    metrics = Metrics()

    def work(_):
        for _ in range(500):
            metrics.add_search({"embed": 0.001, "total": 0.002})
            metrics.add_answers({"a": 0.001, "b": None})
            metrics.count_vector(made=False)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    found = metrics.snapshot().to_json()
    assert found["embed"]["count"] == found["indexes"]["a"]["count"] == found["errors"]["b"] == 4000
    assert (found["total"]["mean_ms"], found["query_vectors"]) == (2.0, {"asked": 4000, "made": 0})
    metrics.reset()
    assert metrics.snapshot().stages["embed"].count == 0


def test_prometheus_text_is_that_of_the_documentation():
    metrics = filled([0.5])
    metrics.count_vector(made=False)
    metrics.add_answers({'we"ird\\': 0.25, "dead": None})
    text = metrics.snapshot().to_prometheus()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in families.values() for s in family.samples}
    assert samples["rag_index_search_seconds", ("quantile", "0.95"), ("stage", "total")] == 0.5
    assert samples["rag_index_search_seconds_sum", ("stage", "total")] == 0.5
    assert samples["rag_index_search_seconds_count", ("stage", "total")] == 1
    assert samples["rag_index_search_index_seconds_count", ("index", 'we"ird\\')] == 1
    assert samples["rag_index_search_errors_total", ("index", "dead")] == 1
    assert samples["rag_index_query_vectors_total",] == 1
    assert samples["rag_index_query_embeds_total",] == 0
    kinds = {name: family.type for name, family in families.items()}
    assert kinds == dict.fromkeys(["rag_index_search_seconds", "rag_index_search_index_seconds"], "summary") | (
        dict.fromkeys(["rag_index_search_errors", "rag_index_query_vectors", "rag_index_query_embeds"], "counter")
    )
    assert "rag_index_search" not in generate_latest().decode(), "nothing is in the registry of the process"
    documentation = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(rag_index_\w+)`", documentation))
    assert documented == set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
