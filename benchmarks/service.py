"""Callers of `rag-index serve` over HTTP, next to the same callers of a Retriever. Quoted in
README.md.

    python benchmarks/service.py [--documents 20000] [--callers 50] [--seconds 60] [--pause 3.0]
    [--folder DIR]

Each caller waits `--pause` seconds on average between an answer and its next search, as people and
programs do. With 0 it asks at once, which measures how much one process can answer. With
`--folder`, an existing index is used again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.searches.printing import line, percentiles
from benchmarks.searches.project import PROGRAM, build_indexes, desk_queries, service_desk
from rag_index import Retriever
from rag_index.core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

WARM_SEARCHES = 50


@dataclass
class Measured:
    """What callers met: the seconds of each answer, and errors."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    cpu: float = 0.0
    """Seconds of processor time of the process that searches, in all."""

    def p95(self) -> float:
        return 1000 * float(np.percentile(self.seconds, 95))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=3.0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    queries = desk_queries(5000)
    with service_desk(arguments.documents, arguments.folder) as config:
        build_indexes(config)
        print(
            f"{arguments.callers} callers for {arguments.seconds:g} s, {len(queries):,} different"
            " queries"
        )
        retriever = asyncio.run(_of_retriever(config, queries, arguments))
        service, told, samples = _of_service(config, queries, arguments)
    for name, measured in (("Retriever", retriever), ("service", service)):
        line(f"{name}: errors", str(len(measured.errors)), *measured.errors[:3])
        line(f"{name}: searches per second", f"{len(measured.seconds) / arguments.seconds:.0f}")
        line(f"{name}: a search", *percentiles(measured.seconds))
        line(
            f"{name}: processor time of a search",
            f"{1000 * measured.cpu / len(measured.seconds):.1f} ms",
        )
    line("service: the search alone, as /metrics has it", *told)
    line(
        "p95 of the service beyond that of the Retriever",
        f"{service.p95() - retriever.p95():.1f} ms",
    )
    line(
        "service: private memory after a sixth, half, all",
        *(f"{samples[i]:.0f} MB" for i in (1, 5, -1)),
    )


async def _call(
    ask: Callable[[str], Awaitable[list[str]]],
    number: int,
    queries: list[str],
    pause: float,
    until: float,
) -> Measured:
    """Ask again and again. A caller begins at a random moment of its pause, so that they do not
    march in step."""
    chance, measured = random.Random(number), Measured()
    await asyncio.sleep(chance.random() * pause)
    while time.monotonic() < until:
        started = time.perf_counter()
        try:
            measured.errors += await ask(chance.choice(queries))
        except Exception as exc:  # noqa: BLE001 - this counts errors of any kind
            measured.errors.append(repr(exc))
        measured.seconds.append(time.perf_counter() - started)
        await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
    return measured


async def _all(callers: list[Awaitable[Measured]]) -> Measured:
    found = await asyncio.gather(*callers)
    return Measured(
        [s for one in found for s in one.seconds], [e for one in found for e in one.errors]
    )


async def _of_retriever(
    config: Path, queries: list[str], arguments: argparse.Namespace
) -> Measured:
    async with Retriever(load_settings(config)) as retriever:

        async def ask(query: str) -> list[str]:
            return list((await retriever.search(query)).errors.values())

        for number in range(WARM_SEARCHES):
            await ask(f"warm up {number}")
        until, before = time.monotonic() + arguments.seconds, time.process_time()
        found = await _all(
            [_call(ask, n, queries, arguments.pause, until) for n in range(arguments.callers)]
        )
        found.cpu = time.process_time() - before
        return found


def _of_service(
    config: Path, queries: list[str], arguments: argparse.Namespace
) -> tuple[Measured, list[str], list[float]]:
    with _serving(config) as (process, port):
        return asyncio.run(_ask_service(process.pid, port, queries, arguments))


@contextmanager
def _serving(config: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [*PROGRAM, "--config", str(config), "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


async def _ask_service(
    pid: int, port: int, queries: list[str], arguments: argparse.Namespace
) -> tuple[Measured, list[str], list[float]]:
    first = await _Connection.open(port)
    for number in range(WARM_SEARCHES):
        await first.search(f"warm up {number}")
    until = time.monotonic() + arguments.seconds
    samples: list[float] = []

    async def watch() -> Measured:
        while time.monotonic() < until:
            await asyncio.sleep(arguments.seconds / 12)
            samples.append(_private_megabytes(pid))
        return Measured()

    connections = [await _Connection.open(port) for _ in range(arguments.callers)]
    calls = [
        _call(one.search, n, queries, arguments.pause, until) for n, one in enumerate(connections)
    ]
    before = sum(psutil.Process(pid).cpu_times()[:2])
    measured = await _all([*calls, watch()])
    measured.cpu = sum(psutil.Process(pid).cpu_times()[:2]) - before
    last = await _Connection.open(port)  # the service has closed the first meanwhile
    _, text = await last.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    found = re.findall(
        r'rag_index_search_seconds\{quantile="([\d.]+)",stage="total"\} (\S+)', text.decode()
    )
    return (
        measured,
        [f"p{100 * float(q):.0f} {1000 * float(seconds):.1f} ms" for q, seconds in found],
        samples,
    )


class _Connection:
    """A connection that is kept open: a client whose own work is next to nothing, as it shares the
    processors."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> _Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))

    async def search(self, query: str) -> list[str]:
        """Return the errors of a search."""
        body = json.dumps({"query": query}).encode()
        head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        status, answer = await self.ask(
            f"{head}Content-Type: application/json\r\n\r\n".encode() + body
        )
        return [] if status == 200 and b'"errors"' not in answer else [f"{status} {answer[:200]!r}"]

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
        return int(head[9:12]), await self._reader.readexactly(int(length))


def _private_megabytes(pid: int) -> float:
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


if __name__ == "__main__":
    main()
