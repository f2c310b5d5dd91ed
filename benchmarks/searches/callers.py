"""Many callers at once on one Retriever."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from typing import TYPE_CHECKING

from benchmarks.searches.printing import line, memory, percentiles
from benchmarks.searches.project import desk_queries, program, service_desk
from rag_index import Retriever
from rag_index.settings import Settings, load_settings

if TYPE_CHECKING:
    import argparse


def callers(arguments: argparse.Namespace) -> None:
    queries = desk_queries(5000)
    with service_desk(arguments.documents, arguments.folder) as config:
        program(config, "optimize", "--json")
        asyncio.run(_calls(load_settings(config), queries, arguments.callers, arguments.seconds))


async def _calls(settings: Settings, queries: list[str], count: int, seconds: float) -> None:
    totals: list[float] = []
    errors: list[str] = []
    samples: list[float] = []

    async def caller(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            started = time.perf_counter()
            try:
                result = await retriever.search(chance.choice(queries))
                errors.extend(result.errors.values())
            except Exception as exc:  # noqa: BLE001 - this counts errors of any kind
                errors.append(repr(exc))
            totals.append(time.perf_counter() - started)

    async def watch() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(seconds / 12)
            gc.collect()
            samples.append(memory()["RssAnon"])

    async with Retriever(settings) as retriever:
        await retriever.warm_up()
        started = time.monotonic()
        until = started + seconds
        await asyncio.gather(*(caller(number) for number in range(count)), watch())
        took = time.monotonic() - started
        threads = threading.active_count()
    print(f"{count} callers at once for {took:.0f} s on five embedded collections, {len(queries):,} different queries")
    line("errors", str(len(errors)), *errors[:3])
    line("searches per second", f"{len(totals) / took:.0f}")
    line("a search", *percentiles(totals))
    line("private memory after a sixth, half, all of the time", *(f"{samples[i]:.0f} MB" for i in (1, 5, -1)))
    line("threads", str(threads))
