"""What asking several indexes at once costs: five of 100 ms each, and the Retriever itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.searches.printing import line, percentiles
from benchmarks.searches.project import FIVE, search_seconds
from rag_index import Retriever
from rag_index.components.embedders import EmbedderIdentity, open_embedder
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from tests.fakes.qdrant import FakeQdrant
from tests.search.desk import Desk

if TYPE_CHECKING:
    import argparse

    from rag_index.components.stores.protocol import VectorQuery
    from rag_index.core.settings import Settings

ANSWER = 0.1
"""Seconds that the loopback store takes for each query."""


def serve(pipe: Any) -> None:
    """Run a loopback store in this process."""
    with FakeQdrant() as qdrant:
        pipe.send(qdrant.url)
        pipe.recv()
        qdrant.break_next("/points/query", times=None, hang=ANSWER)
        pipe.send("slow")
        pipe.recv()


def parallel(arguments: argparse.Namespace) -> None:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = here.recv()
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder), f'[store]\nurl = "{url}"', names=FIVE)
        desk.fill({name: [(n, f"printer {n} of {name}") for n in range(50)] for name in FIVE})
        with desk.retriever() as retriever:
            retriever.search_sync("warm up")
            here.send("now")
            here.recv()
            ratios, over_one = [], []
            for n in range(arguments.repeat):
                one = [search_seconds(retriever, f"printer {n}", [name]) for name in FIVE]
                together = search_seconds(retriever, f"printer {n}", None)
                ratios.append(sum(one) / together)
                over_one.append(together / median(one))
    server.terminate()
    print(
        f"\nfive indexes on a loopback store that takes {1000 * ANSWER:.0f} ms a query,"
        f" {arguments.repeat} times"
    )
    line(
        "at once over one after another",
        f"{median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})",
    )
    line(
        "at once over one of them alone",
        f"{median(over_one):.3f} ({min(over_one):.3f} to {max(over_one):.3f})",
    )


class TimedStore:
    """A store that answers after 20 ms, and keeps the time of each call."""

    embedded = False

    def __init__(self, identity: EmbedderIdentity, aliases: list[str]) -> None:
        self.identity, self.names = identity, aliases
        self.calls: list[float] = []

    def aliases(self) -> dict[str, str]:
        return {alias: f"{alias}__1" for alias in self.names}

    def find(self, _: str) -> None:
        return None

    def points(self, name: str) -> TimedPoints:
        return TimedPoints(self, name)

    def close(self) -> None:
        pass


class TimedPoints:
    """The points of one collection of a `TimedStore`."""

    def __init__(self, store: TimedStore, name: str) -> None:
        self._store, self._name = store, name

    def metadata(self) -> dict[str, Any]:
        identity = self._store.identity
        return {
            "embedder_fingerprint": identity.fingerprint,
            "embedder_identity": {
                name: getattr(identity, name) for name in EmbedderIdentity.__slots__
            },
        }

    def prepare(self) -> None:
        pass

    def seen_commits(self) -> None:
        return None

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        started = time.perf_counter()
        time.sleep(0.02)
        payload = {"author": "a", "priority": "high", "created_at": "2024-01-01T00:00:00Z"}
        found = [
            StoredPoint(
                f"{self._name}{n}",
                {**payload, RESERVED_KEY: {"key": str(n // 2), "chunk": n % 2, "text": "t" * 400}},
                score=random.random(),
            )
            for n in range(query.limit)
        ]
        self._store.calls.append(time.perf_counter() - started)
        return found


def overhead(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Desk(
            Path(folder), '[store]\nurl = "http://127.0.0.1:1"', names=FIVE
        ).settings  # searched at once
        with closing(open_embedder(settings.embedder)) as embedder:
            identity = embedder.identity()
        store = TimedStore(identity, [settings.alias(name) for name in FIVE])
        beyond = asyncio.run(_overheads(settings, store, arguments.repeat))
    print(
        f"\nsearches of five indexes whose store takes 20 ms, {arguments.repeat} times, one after"
        " another"
    )
    line("total beyond embed and the slowest call of the store", *percentiles(beyond))


async def _overheads(settings: Settings, store: TimedStore, repeat: int) -> list[float]:
    beyond = []
    async with Retriever(settings, open_store=lambda: store) as retriever:
        await retriever.warm_up()
        for n in range(repeat):
            store.calls.clear()
            result = await retriever.search(f"printer {n} does not print")
            total, embed = result.timings_ms["total"], result.timings_ms["embed"]
            beyond.append(total / 1000 - embed / 1000 - max(store.calls))
    return beyond
