"""What asking for contexts costs beyond the model: answers take a set time, on a server in a process apart.

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

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.chunking.context import ContextChunker, Recipe, Servers
from rag_index.chunking.context.prompt import DEFAULT_PROMPT
from rag_index.chunking.text import TextChunker
from rag_index.documents.batches import DocumentBatch
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
    address, over = context.Queue(), context.Event()
    server = context.Process(target=serve, args=(given.seconds, address, over))
    server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="contexts-") as folder:
            measure(chunker_of(address.get(timeout=60), given.concurrency, Path(folder)), given)
    finally:
        over.set()
        server.join()


def serve(seconds: float, address: Any, over: Any) -> None:
    with FakeOllama(model=MODEL) as fake:
        fake.seconds_per_answer = seconds
        address.put(fake.url)
        over.wait()


def chunker_of(url: str, concurrency: int, folder: Path) -> ContextChunker:
    servers = Servers((url,), MODEL, 60.0, "5m", concurrency, None, 0.0, 4096)
    recipe = Recipe(FakeOllama.digest, DEFAULT_PROMPT, 300, 4096)
    return ContextChunker(TextChunker(40, 0), servers, recipe, SecretStr(f"sqlite:///{folder / 'contexts.db'}"), False)


def measure(chunker: ContextChunker, given: argparse.Namespace) -> None:
    chunker.chunk(documents("warm up", 2))  # imports and connections
    took, worked = [], []
    for attempt in range(given.repeat):
        page = documents(f"attempt {attempt}", given.chunks)
        began, work = time.perf_counter(), time.process_time()
        chunker.chunk(page)
        took.append(time.perf_counter() - began)
        worked.append(time.process_time() - work)
    least = math.ceil(given.chunks / given.concurrency) * given.seconds
    print(
        f"{given.chunks} chunks at {given.seconds:g} s, concurrency {given.concurrency} (at least {least:g} s): "
        f"{min(took):.3f} s at best, {statistics.median(took):.3f} s in the middle of {given.repeat}; "
        f"{1000 * statistics.median(worked) / given.chunks:.1f} ms of processor time a chunk"
    )
    began = time.perf_counter()
    chunker.chunk(page)
    print(f"the same from the cache: {1000 * (time.perf_counter() - began):.1f} ms")


def documents(name: str, chunks: int) -> DocumentBatch:
    """One document that is cut into so many chunks."""
    text = "\n\n".join(f"This is {name}, sentence {number:03}." for number in range(chunks))
    return DocumentBatch(["1"], [text], [b"{}"], [b""], [b""])


if __name__ == "__main__":
    main()
