"""The cost and the quality of searching several indexes at once. docs/retrieval.md quotes the results.

    python benchmarks/retrieval.py parallel [--repeat 20]            five indexes of 100 ms each, at once and in turn
    python benchmarks/retrieval.py overhead [--repeat 300]           fan-out, fusion and metrics beyond embed and store
    python benchmarks/retrieval.py desk [--documents 20000] [--queries 1000] [--folder DIR]
                                                                     five embedded collections: scanned, then with HNSW
    python benchmarks/retrieval.py callers [--documents 20000] [--callers 50] [--seconds 60] [--folder DIR]
    python benchmarks/retrieval.py known-item [--documents 1000] [--model wordllama|minilm]

`desk --documents 214072` is the whole service desk. With `--folder`, existing indexes in the folder are used again.
`known-item --model minilm` needs an Ollama server (found or built as for the tests) and the package index.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index import Retriever
from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.embedders import EmbedderIdentity, open_embedder
from rag_index.samples import pydocs, servicedesk
from rag_index.settings import Settings, load_settings
from rag_index.stores import open_store
from tests.fakes.qdrant import FakeQdrant
from tests.retrieve.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rag_index.settings import EmbedderSettings

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
FIVE = ("comments", "descriptions", "solutions", "titles", "worklogs")
PLURAL = {"module": "modules", "class": "classes", "function": "functions", "method": "methods", "topic": "topics"}
UNION = " UNION ALL ".join(f"SELECT '{name}/' || name AS id, body FROM \"{table}\"" for table, name in PLURAL.items())
EVERYTHING = f'''
[[indexes]]
name = "everything"
query = """{UNION}"""
key = "id"
text = "body"
'''
"""A single index of all documents."""
ANSWER = 0.1
"""Seconds that the loopback store takes for each query."""


def line(what: str, *values: str) -> None:
    print(f"  {what:<58}{'  '.join(values)}")


def percentiles(seconds: Sequence[float]) -> list[str]:
    return [f"p{q} {1000 * np.percentile(seconds, q):.1f} ms" for q in (50, 95, 99)]


def memory() -> dict[str, float]:
    """Return the MB of this process: private (RssAnon), and with the mapped files of the store (VmRSS)."""
    status = Path("/proc/self/status").read_text()
    return {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("RssAnon", "VmRSS")}


# Five indexes of 100 ms each


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
    print(f"\nfive indexes on a loopback store that takes {1000 * ANSWER:.0f} ms a query, {arguments.repeat} times")
    line("at once over one after another", f"{median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")
    line("at once over one of them alone", f"{median(over_one):.3f} ({min(over_one):.3f} to {max(over_one):.3f})")


def search_seconds(retriever: Retriever, query: str, indexes: list[str] | None, **options: Any) -> float:
    started = time.perf_counter()
    result = retriever.search_sync(query, indexes=indexes, **options)
    seconds = time.perf_counter() - started
    if result.errors:
        sys.exit(f"not all indexes answered: {result.errors}")
    return seconds


# The cost of the Retriever itself


class TimedStore:
    """A store that answers after 20 ms, and keeps the time of each call."""

    embedded = False

    def __init__(self, identity: EmbedderIdentity, aliases: list[str]) -> None:
        self.identity, self.names = identity, aliases
        self.calls: list[float] = []

    def aliases(self) -> dict[str, str]:
        return {alias: f"{alias}__1" for alias in self.names}

    def metadata(self, _: str) -> dict[str, Any]:
        return {
            "embedder_fingerprint": self.identity.fingerprint,
            "embedder_identity": {name: getattr(self.identity, name) for name in EmbedderIdentity.__slots__},
        }

    def search(self, name: str, *_: Any, limit: int, **__: Any) -> list[StoredPoint]:
        started = time.perf_counter()
        time.sleep(0.02)
        payload = {"author": "a", "priority": "high", "created_at": "2024-01-01T00:00:00Z"}
        found = [
            StoredPoint(
                f"{name}{n}", {**payload, RESERVED_KEY: {"key": str(n // 2), "chunk": n % 2, "text": "t" * 400}},
                score=random.random(),
            )
            for n in range(limit)
        ]  # fmt: skip
        self.calls.append(time.perf_counter() - started)
        return found

    def close(self) -> None:
        pass


def overhead(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Desk(Path(folder), names=FIVE).settings
        with closing(open_embedder(settings.embedder)) as embedder:
            identity = embedder.identity()
        store = TimedStore(identity, [settings.alias(name) for name in FIVE])
        beyond = asyncio.run(_overheads(settings, store, arguments.repeat))
    print(f"\nsearches of five indexes whose store takes 20 ms, {arguments.repeat} times, one after another")
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


# The service desk


@contextmanager
def service_desk(documents: int, folder: Path | None) -> Iterator[Path]:
    """Yield the settings file of an indexed service desk."""
    with ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = where / "rag-index.toml"
        if not config.exists():
            where.mkdir(parents=True, exist_ok=True)
            servicedesk.write(where / "desk.db", documents=documents)
            config.write_text(servicedesk.scaffold("desk.db"))
        started = time.perf_counter()
        program(config, "index-all", "--json")
        print(f"\nservice desk in {where}, indexed (or checked) in {time.perf_counter() - started:.0f} s")
        yield config


def program(config: Path, *arguments: str) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RAG_INDEX_"))}
    done = subprocess.run(
        [*PROGRAM, "--config", str(config), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {done.stdout}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def desk_queries(count: int) -> list[str]:
    """Return distinct texts as users write them: titles and sentences from another service desk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "other.db"
        servicedesk.write(path, documents=max(200, count * 6), seed=4711)
        with closing(sqlite3.connect(path)) as db:
            rows = db.execute("SELECT title FROM title UNION SELECT symptom FROM solution").fetchall()
    texts = sorted({" ".join((text or "").split())[:200] for (text,) in rows} - {""})
    random.Random(1).shuffle(texts)
    return texts[:count]


def desk(arguments: argparse.Namespace) -> None:
    queries = desk_queries(arguments.queries)
    with service_desk(arguments.documents, arguments.folder) as config:
        settings = load_settings(config)
        with closing(open_store(settings.store)) as store:
            points = sum(store.count(settings.alias(name)) for name in FIVE)
            built = all(store.indexed(settings.alias(name)) for name in FIVE)
        print(f"{points:,} points in five embedded collections, {len(queries):,} distinct queries, warm")
        if not built:
            timed(settings, queries, "scanned")
        done = program(config, "optimize", "--json")
        line("building HNSW for all five", f"{sum(one['seconds'] for one in done['indexes']):.0f} s")
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
        retriever.reset_metrics()
        totals = [search_seconds(retriever, query, None, dense_weight=dense_weight) for query in queries]
        used = memory()
        stages = retriever.metrics().stages
    line(f"a query in all five, {how}", *percentiles(totals))
    line("  of this, embedding", f"p95 {stages['embed'].p95_ms:.2f} ms")
    line("  memory of the process", f"{used['RssAnon']:.0f} MB private, {used['VmRSS']:.0f} MB with mapped files")


def recall(settings: Settings, queries: list[str]) -> None:
    """Print the recall at 10 of the default search against the exact one. Equal scores (exact duplicates) count."""
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
                    found[exact] = store.search(settings.alias(name), vector, limit=10, exact=exact)
                    seconds[exact] += time.perf_counter() - started
                min_score = found[True][-1].score - 1e-6
                shares.append(sum(point.score >= min_score for point in found[False]) / len(found[True]))
            all_shares += shares
            line(f"recall at 10 of {name}", f"{np.mean(shares):.4f}")
    line("recall at 10, all five", f"{np.mean(all_shares):.4f}")
    line("exact search over default search, seconds", f"{seconds[True] / seconds[False]:.1f} times")


# Fifty callers


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


# Known items


def known_item(arguments: argparse.Namespace) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "rag-index.toml"
        pydocs.write(folder / "pydocs.db")
        items = known_items(folder / "pydocs.db", arguments.documents)
        extra = embedder_settings(arguments.model, stack, folder)
        text = pydocs.scaffold("pydocs.db").replace('text = ["summary", "body"]', 'text = "body"')
        config.write_text(f"{text}\n{EVERYTHING}\n{extra}")
        started = time.perf_counter()
        program(config, "index-all", "--json")
        seconds = time.perf_counter() - started
        print(f"{arguments.model}, indexed in {seconds:.0f} s: recall at 10, mean reciprocal rank")
        with Retriever.from_settings(config) as retriever:
            print_ranks(retriever, items)
        print("with random vectors for the queries, so that meaning is noise:")
        with Retriever(load_settings(config), open_embedder=NoiseEmbedder) as retriever:
            print_weights(retriever, items, "everything")


def embedder_settings(model: str, stack: ExitStack, folder: Path) -> str:
    """Return the TOML of the embedder. For MiniLM, start a real server."""
    if model == "wordllama":
        return ""
    from benchmarks.minilm import minilm_gguf
    from tests.live.ollama_server import OllamaServer, find_ollama

    ollama = find_ollama()
    if not isinstance(ollama, Path):
        sys.exit(ollama)
    server = stack.enter_context(OllamaServer(ollama))
    server.create("all-minilm-l6", minilm_gguf(folder / "minilm.gguf"))
    return f'[embedder]\nkind = "ollama"\nmodel = "all-minilm-l6"\nhosts = ["{server.url}"]\nnum_thread = 1\n'


def known_items(database: Path, count: int) -> list[tuple[str, str, str]]:
    """Return (index, document id, query) of `count` documents, and delete all others from the database.

    The query is the summary of a docstring, and only its body is indexed.
    """
    with closing(sqlite3.connect(database)) as db, db:
        items = [
            (table, name, summary)
            for table in pydocs.TABLES
            for name, summary in db.execute(
                f'SELECT name, summary FROM "{table}" WHERE length(body) >= 40 ORDER BY name'
            )
        ]
        chosen = random.Random(1).sample(items, min(count, len(items)))
        for table in pydocs.TABLES:
            names = json.dumps([name for where, name, _ in chosen if where == table])
            db.execute(f'DELETE FROM "{table}" WHERE name NOT IN (SELECT value FROM json_each(?))', [names])
    print(
        f"\nknown items: {len(chosen):,} documents in five indexes, bodies of docstrings, each searched by its summary"
    )
    return [(PLURAL[table], name, summary) for table, name, summary in chosen]


WEIGHTS = (1.0, 0.7, 0.5, 0.3, 0.0)


class NoiseEmbedder:
    """An embedder whose vectors have nothing to do with the query."""

    def __init__(self, settings: EmbedderSettings, *, expected: EmbedderIdentity) -> None:
        self._identity = expected
        self._chance = np.random.default_rng(1)

    def identity(self) -> EmbedderIdentity:
        return self._identity

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = self._chance.normal(size=self._identity.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def close(self) -> None:
        pass


def print_ranks(retriever: Retriever, items: list[tuple[str, str, str]]) -> None:
    five = sorted(PLURAL.values())
    print_weights(retriever, items, "right")
    print_weights(retriever, items, "everything")
    for fusion in ("score", "rank"):
        for weight in WEIGHTS:
            found = [
                find_place(retriever, query, five, index, name, fusion=fusion, dense_weight=weight)
                for index, name, query in items
            ]
            print_rank(f"all five, fused by {fusion}, dense_weight {weight}", found)


def print_weights(retriever: Retriever, items: list[tuple[str, str, str]], which: str) -> None:
    """Print the ranks in one index: the right one, or the one that holds everything."""
    for weight in WEIGHTS:
        if which == "right":
            found = [
                find_place(retriever, query, [index], index, name, dense_weight=weight) for index, name, query in items
            ]
        else:
            found = [
                find_place(retriever, query, [which], which, f"{index}/{name}", dense_weight=weight)
                for index, name, query in items
            ]
        print_rank(f"{which} index, dense_weight {weight}", found)


def find_place(retriever: Retriever, query: str, indexes: list[str], index: str, name: str, **options: Any) -> int:
    """Return the place of a document among ten hits, from 1, or 0 if it is not among them."""
    hits = retriever.search_sync(query, indexes=indexes, limit=10, **options).hits
    return next((place for place, hit in enumerate(hits, 1) if (hit.index, hit.document_id) == (index, name)), 0)


def print_rank(what: str, places: list[int]) -> None:
    reciprocal = np.mean([1 / place if place else 0.0 for place in places])
    line(what, f"{100 * np.mean([place > 0 for place in places]):.1f} %", f"{reciprocal:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("parallel", parallel), ("overhead", overhead), ("desk", desk), ("callers", callers)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--repeat", type=int, default=20 if name == "parallel" else 300)
        command.add_argument("--documents", type=int, default=20_000)
        command.add_argument("--queries", type=int, default=1000)
        command.add_argument("--callers", type=int, default=50)
        command.add_argument("--seconds", type=float, default=60)
        command.add_argument("--folder", type=Path)
    command = commands.add_parser("known-item")
    command.set_defaults(run=known_item)
    command.add_argument("--documents", type=int, default=1000)
    command.add_argument("--model", choices=["wordllama", "minilm"], default="wordllama")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
