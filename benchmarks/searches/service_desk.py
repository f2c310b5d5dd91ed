"""Searches of the service desk in five embedded collections: their time, memory and recall."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.searches.printing import line, memory, percentiles
from benchmarks.searches.project import (
    FIVE,
    build_indexes,
    desk_queries,
    search_seconds,
    service_desk,
)
from rag_index import Retriever
from rag_index.components.embedders import open_embedder
from rag_index.components.stores import open_store
from rag_index.components.stores.protocol import VectorQuery
from rag_index.core.settings import Settings, load_settings

if TYPE_CHECKING:
    import argparse


def desk(arguments: argparse.Namespace) -> None:
    queries = desk_queries(arguments.queries)
    with service_desk(arguments.documents, arguments.folder) as config:
        settings = load_settings(config)
        with closing(open_store(settings.store)) as store:
            points = sum(store.points(settings.alias(name)).count() for name in FIVE)
            built = all(store.points(settings.alias(name)).indexed() for name in FIVE)
        print(
            f"{points:,} points in five embedded collections, {len(queries):,} distinct queries,"
            " warm"
        )
        if not built:
            timed(settings, queries, "scanned")
        line("building HNSW for all five", f"{build_indexes(config):.0f} s")
        timed(settings, queries, "with HNSW")
        recall(settings, queries)


def timed(settings: Settings, queries: list[str], how: str) -> None:
    """Print the time of searches by meaning alone, and of hybrid ones."""
    for weight, name in ((1.0, "by meaning"), (None, "hybrid")):
        _timed(settings, queries, f"{how}, {name}", weight)


def _timed(settings: Settings, queries: list[str], how: str, dense_weight: float | None) -> None:
    with Retriever(settings) as retriever:
        for query in queries[:50]:
            retriever.search_sync(f"warm up {query}", dense_weight=dense_weight)
        totals = [
            search_seconds(retriever, query, None, dense_weight=dense_weight) for query in queries
        ]
        used = memory()
        total, count = (
            retriever.metrics().get_sample_value(
                f"rag_index_search_seconds_{what}", {"stage": "embed"}
            )
            or 0.0
            for what in ("sum", "count")
        )
    line(f"a query in all five, {how}", *percentiles(totals))
    line("  of this, embedding", f"mean {1000 * total / max(1, count):.2f} ms")
    line(
        "  memory of the process",
        f"{used['RssAnon']:.0f} MB private, {used['VmRSS']:.0f} MB with mapped files",
    )


def recall(settings: Settings, queries: list[str]) -> None:
    """Print the recall at 10 of the default search against the exact one. Equal scores (exact
    duplicates) count."""
    with closing(open_embedder(settings.embedder)) as embedder:
        vectors = [embedder.embed_query(query) for query in queries]
    all_shares, seconds = [], {True: 0.0, False: 0.0}
    with closing(open_store(settings.store)) as store:
        for name in FIVE:
            shares = []
            for vector in vectors:
                found = {}
                for exact in (True, False):
                    started = time.perf_counter()
                    found[exact] = store.points(settings.alias(name)).search(
                        VectorQuery(vector, 10, exact=exact)
                    )
                    seconds[exact] += time.perf_counter() - started
                min_relevance = found[True][-1].score - 1e-6
                shares.append(
                    sum(point.score >= min_relevance for point in found[False]) / len(found[True])
                )
            all_shares += shares
            line(f"recall at 10 of {name}", f"{np.mean(shares):.4f}")
    line("recall at 10, all five", f"{np.mean(all_shares):.4f}")
    line("exact search over default search, seconds", f"{seconds[True] / seconds[False]:.1f} times")
