"""The price of a document: CPU time of all processes of a first run, for each chunk, beyond the bare embedder's.

    python benchmarks/price.py [--documents 64000] [--store embedded,server] [--search hybrid,dense] [--workers N]
                               [--repeat 3] [--stages]

Each figure is the difference between two first runs, over all documents and over a quarter of them, divided by the
difference in chunks, so start-up is in none of them. Both are the flow from the start, with a Prefect server. The
documents are excerpts of prose as in `local.py`. The store's server is one on loopback that counts points and keeps
none: its own CPU time is not counted. The bare embedder is ours (`throughput.embed`), and its CPU time is measured on
the same texts in the same run, after start-up. A search by words needs a sparse vector for each chunk, so `hybrid` and
`dense` have prices of their own. With `--stages`, also the CPU time of each stage of the same first run in one process,
by the plain driver: what is missing there is the price of flow, workers and Prefect's server. `--repeat 0 --stages`
measures the stages alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.counting_qdrant import CountingQdrant, free_ports, store_settings
from local import Desk, prose
from throughput import bare, embed, run, running_prefect, texts_of

from rag_index.components.chunking import open_chunker
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import identify
from rag_index.components.embedders.bm25 import Bm25Encoder
from rag_index.components.embedders.local import LocalEmbedder
from rag_index.components.stores.edge import edge_collection as edge
from rag_index.components.stores.server import server_collection as server
from rag_index.core.machine import collect_seldom
from rag_index.core.machine.resources import WORKER_MEMORY, detect_machine
from rag_index.core.reports.metrics import Stopwatch
from rag_index.core.reports.record import RunRecord
from rag_index.core.settings import load_settings
from rag_index.etl.changed import serially
from rag_index.etl.deletes import delete_gone
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.plain import Plainly
from rag_index.etl.publish import publish
from rag_index.etl.run import AllDocuments, index_pages
from rag_index.etl.scan import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MICRO = 1e6
MANY = 1e9
"""Points a second that the server on loopback takes: as many as come."""


def embed_and_clock(texts: list[str]) -> float:
    """Embed and discard. Return the seconds of CPU that it took."""
    before = time.process_time()
    embed(texts)
    return time.process_time() - before


def bare_seconds(texts: list[str], workers: int) -> float:
    """Return the CPU seconds of the bare embedder for these texts."""
    seconds: list[float] = []
    bare([texts], workers, embed_and_clock, seconds.append)
    return sum(seconds)


@contextmanager
def desks(documents: int, search: str, store: str) -> Iterator[tuple[Desk, Desk]]:
    """Yield a desk of a quarter of the documents and one of all, whose settings end with `store`."""
    with prose(documents // 4) as few, prose(documents) as many:
        for made in (few, many):
            text = made.config.read_text() + f'search = "{search}"\n'
            made.config.write_text(text + store)
        yield few, many


def cpu(made: Desk, workers: int) -> dict[str, float]:
    """Make a first run, and return the CPU seconds of each kind of process."""
    server: dict[str, float] = {}
    with running_prefect(server) as variables:
        _, _, watch = run(made.reset().config, "--workers", str(workers), **variables)
    return watch.cpu | server


STAGES = (
    (TextChunker, "chunk", "chunks"),
    (LocalEmbedder, "embed_documents", "embedder"),
    (Bm25Encoder, "documents", "words"),
    (edge, "engine_points", "points for the engine"),
    (edge.EdgeCollection, "_write", "engine"),
    (server, "_upsert", "requests"),
)
"""Calls that are stages of their own here; the rest of what calls them counts for the stage of the run around them."""


class OneByOne(Plainly):
    """Steps with one shard after the other, or stages would overlap."""

    shards_per_worker = 1


def stages(made: Desk) -> None:
    """Print the CPU time of each stage of a first run in this process."""
    settings, watch = load_settings(made.reset().config), Stopwatch(time.process_time)

    def timed(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            with watch.stage(name):
                return call(*arguments, **named)

        return wrapper

    with ExitStack() as stack:
        stack.enter_context(collect_seldom())
        identity = identify(settings.embedder)
        for owner, name, stage in STAGES:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), stage)))
        name, run_id = settings.indexes[0].name, str(uuid.uuid4())
        opened, record = stack.enter_context(open_index(settings, name, RunOptions(), run_id=run_id)), RunRecord(name)
        record.stopwatch = watch
        scan = begin(opened, record, identity, open_chunker(settings, opened.index))
        before = dict(watch.seconds)
        steps = stack.enter_context(closing(OneByOne(serially(settings))))
        index_pages(opened, scan, steps, record, AllDocuments())
        delete_gone(opened, scan, record)
        publish(opened, scan, record)
        chunks = record.metrics.chunks
        spent = {stage: seconds - before.get(stage, 0.0) for stage, seconds in watch.seconds.items()}
    print(f"  the same in one process, {sum(spent.values()) / chunks * MICRO:.0f} µs a chunk:")
    for stage, seconds in spent.items():
        print(f"    {stage:<21} {seconds / chunks * MICRO:6.1f} µs a chunk")


def measure(given: argparse.Namespace, store: str, search: str) -> None:
    prices: list[float] = []
    ratios: list[float] = []
    kinds: dict[str, list[float]] = defaultdict(list)
    ports = free_ports()
    with ExitStack() as stack:
        few, many = stack.enter_context(
            desks(given.documents, search, store_settings(ports) if store == "server" else "")
        )
        chunks = [[text for part in texts_of(load_settings(made.config)) for text in part] for made in (few, many)]
        more = len(chunks[1]) - len(chunks[0])
        for _ in range(given.repeat):
            alone = (bare_seconds(chunks[1], given.workers) - bare_seconds(chunks[0], given.workers)) / more
            costs = []
            for made in (few, many):
                with ExitStack() as server:
                    if store == "server":
                        server.enter_context(CountingQdrant(MANY, *ports))
                    costs.append(cpu(made, given.workers))
            spent = {kind: (costs[1][kind] - costs[0].get(kind, 0.0)) / more for kind in costs[1]}
            for kind, seconds in spent.items():
                kinds[kind].append(seconds)
            prices.append(sum(spent.values()) - alone)
            ratios.append(sum(spent.values()) / alone)
            kinds["bare embedder"].append(alone)
        print(f"\n{store}, {search}: {more:,} chunks more, {given.workers} worker{'s' if given.workers > 1 else ''}")
        if prices:
            for kind, seconds in sorted(kinds.items()):
                print(f"  {kind:<16} {median(seconds) * MICRO:8.0f} µs a chunk")
            spread = f"{min(prices) * MICRO:.0f} to {max(prices) * MICRO:.0f}"
            print(f"  price            {median(prices) * MICRO:8.0f} µs a chunk ({spread}); goal: at most 150")
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"  all CPU over the bare embedder's {median(ratios):.2f} ({spread}); goal: 1.5")
        sys.stdout.flush()
        if given.stages:
            with CountingQdrant(MANY, *ports) if store == "server" else ExitStack():
                stages(many)
            sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=64_000)
    parser.add_argument("--store", default="embedded,server")
    parser.add_argument("--search", default="hybrid,dense")
    parser.add_argument("--workers", type=int, default=detect_machine().max_workers(WORKER_MEMORY["local"]))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--stages", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(PREFECT_HOME=home, PREFECT_SERVER_ANALYTICS_ENABLED="false")
        for store in given.store.split(","):
            for search in given.search.split(","):
                measure(given, store, search)


if __name__ == "__main__":
    main()
