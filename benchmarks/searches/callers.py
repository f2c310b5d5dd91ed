"""Many callers at once on one Retriever: queries embedded together, and one at a time, in turn."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.searches.printing import line, memory, percentiles
from benchmarks.searches.project import build_indexes, desk_queries, service_desk
from benchmarks.searches.queries import OneAtATime
from rag_index import Retriever
from rag_index.components.embedders import open_embedder
from rag_index.core.settings import Settings, load_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rag_index.components.embedders import Embedder

TURNS = 3
"""How often each way is measured. Whatever else the machine does meets both."""


@dataclass
class Measured:
    """What the callers met in all turns of one way."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    megabytes: list[tuple[float, float]] = field(default_factory=list)
    threads: int = 0


def callers(arguments: argparse.Namespace) -> None:
    queries = desk_queries(5000)
    ways: dict[str, Callable[..., Embedder]] = {"together": open_embedder, "one at a time": OneAtATime}
    found = {name: Measured() for name in ways}
    with service_desk(arguments.documents, arguments.folder) as config:
        build_indexes(config)
        settings, turn = load_settings(config), arguments.seconds / TURNS
        for _ in range(TURNS):
            for name, opener in ways.items():
                asyncio.run(_calls(settings, opener, queries, arguments.callers, turn, found[name]))
    count = f"{arguments.callers} callers at once, {TURNS} times {turn:.0f} s each"
    print(f"{count}, on five embedded collections, {len(queries):,} different queries")
    for name, measured in found.items():
        line(f"{name}: errors", str(len(measured.errors)), *measured.errors[:3])
        line(f"{name}: searches per second, median", f"{median(measured.rates):.0f}")
        line(f"{name}: a search", *percentiles(measured.seconds))
        grown = (f"{first:.0f} to {last:.0f} MB" for first, last in measured.megabytes)
        line(f"{name}: private memory, a sixth to the end of each turn", *grown)
        line(f"{name}: threads", str(measured.threads))
    ratios = [new / old for new, old in zip(*(measured.rates for measured in found.values()), strict=True)]
    line("searches per second, together over one at a time", *(f"{one:.2f}" for one in sorted(ratios)))


async def _calls(
    settings: Settings,
    opener: Callable[..., Embedder],
    queries: list[str],
    count: int,
    seconds: float,
    measured: Measured,
) -> None:
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        chance = random.Random(number)
        while time.monotonic() < until:
            started = time.perf_counter()
            try:
                result = await retriever.search(chance.choice(queries))
                measured.errors.extend(result.errors.values())
            except Exception as exc:  # noqa: BLE001 - this counts errors of any kind
                measured.errors.append(repr(exc))
            measured.seconds.append(time.perf_counter() - started)
            done += 1

    async def early() -> float:
        await asyncio.sleep(seconds / 6)
        gc.collect()
        return memory()["RssAnon"]

    async with Retriever(settings, open_embedder=opener) as retriever:
        await retriever.warm_up()
        started = time.monotonic()
        until = started + seconds
        first, *_ = await asyncio.gather(early(), *(caller(number) for number in range(count)))
        measured.rates.append(done / (time.monotonic() - started))
        gc.collect()
        measured.megabytes.append((first, memory()["RssAnon"]))
        measured.threads = threading.active_count()
