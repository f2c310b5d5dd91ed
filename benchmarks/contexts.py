"""The cost of contexts beyond the model. Answers take a fixed time, from a server in a process of
its own.

python benchmarks/contexts.py [--chunks 20] [--seconds 0.2] [--concurrency 10] [--repeat 15]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy.engine import make_url

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.components.chunking.context import ContextChunker, Recipe
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.ledger import Ledger
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.canonical import hash_text
from rag_index.core.settings import EmbedderSettings
from tests.fakes.ollama import FakeOllama

MODEL = "fake-talk"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=15)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    address, finished = context.Queue(), context.Event()
    server = context.Process(target=serve, args=(given.seconds, address, finished))
    server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="contexts-") as folder:
            measure(make_chunker(address.get(timeout=60), given.concurrency, Path(folder)), given)
    finally:
        finished.set()
        server.join()


def serve(seconds: float, address: Any, finished: Any) -> None:
    with FakeOllama(model=MODEL) as fake:
        fake.seconds_per_answer = seconds
        address.put(fake.url)
        finished.wait()


def make_chunker(url: str, concurrency: int, folder: Path) -> ContextChunker:
    servers = EmbedderSettings(
        kind="ollama", hosts=[url], model=MODEL, timeout=60, requests_in_flight=concurrency
    )
    recipe = Recipe(FakeOllama.digest, 4096)
    Ledger(make_url(ledger := f"sqlite:///{folder / 'ledger.db'}")).close()
    return ContextChunker(TextChunker(40, 0), servers, recipe, SecretStr(ledger))


def measure(chunker: ContextChunker, given: argparse.Namespace) -> None:
    chunker.chunk(documents("warm up", 2))  # imports and connections
    wall, processor = [], []
    for attempt in range(given.repeat):
        page = documents(f"attempt {attempt}", given.chunks)
        started, work = time.perf_counter(), time.process_time()
        chunker.chunk(page)
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - work)
    minimum = math.ceil(given.chunks / given.concurrency) * given.seconds
    print(
        f"{given.chunks} chunks at {given.seconds:g} s, concurrency {given.concurrency} (at least"
        f" {minimum:g} s): minimum {min(wall):.3f} s, median of {given.repeat}"
        f" {statistics.median(wall):.3f} s;"
        f" {1000 * statistics.median(processor) / given.chunks:.1f} ms of processor time per chunk"
    )
    started = time.perf_counter()
    chunker.chunk(page)
    print(f"the same from the cache: {1000 * (time.perf_counter() - started):.1f} ms")


def documents(name: str, chunks: int) -> DocumentBatch:
    """Return one document with this many chunks."""
    text = "\n\n".join(f"This is {name}, sentence {number:03}." for number in range(chunks))
    return DocumentBatch(["1"], [text], [b"{}"], [hash_text(text)], [b""])


if __name__ == "__main__":
    main()
