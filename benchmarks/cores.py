"""More workers and more cores: how a run grows with them, and what stops it.

    python benchmarks/cores.py curve [--workers 1,2,4,8,16,32] [--store server|embedded] [--text-seconds 0.01]
    python benchmarks/cores.py model [--documents 100000] [--repeat 3]

curve   Documents/s with an embedder whose time is sleep, as if it ran on another machine. Each worker gets the same
        work, so the efficiency is the time that this work takes over the time that the run takes. Both are differences
        between a long and a short run, without start-up. Also the CPU seconds of all processes for each second: where
        they reach the number of cores, the machine is full. The server is one on loopback that counts points.
model   The CPU time that a document takes in the flow's process, which alone writes the embedded store, on a worker
        without embedding, and in Prefect's server. From these, the documents/s of a machine with more cores; and the
        documents/s of this machine, predicted and measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.counting_qdrant import CountingQdrant, free_ports, store_settings
from local import HOOKS, Desk, prose
from throughput import run, running_prefect

from rag_index.machine.resources import cpu_count

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD_SECONDS = 2.5
"""The time of the embedder for one shard."""
SHORT, LONG = 2, 8
"""Shards for each worker in the short and in the long run."""
MANY = 1e9
"""Points a second that the server takes: as many as come."""
EMBED_SECONDS = 120e-6
"""CPU seconds of the local embedder for a text of 400 characters (`price.py` prints it)."""


class Cost(NamedTuple):
    """Seconds of a run, and CPU seconds of each kind of process."""

    seconds: float
    cpu: dict[str, float]

    def beyond(self, short: Cost) -> Cost:
        return Cost(
            self.seconds - short.seconds, {kind: cpu - short.cpu.get(kind, 0.0) for kind, cpu in self.cpu.items()}
        )


@contextmanager
def desk(documents: int, ports: tuple[int, int] | None) -> Iterator[Desk]:
    """Yield a desk, with a server on these ports as its store, or the embedded store."""
    with prose(documents) as made:
        if ports:
            made.config.write_text(made.config.read_text() + store_settings(ports))
        yield made


def first_run(made: Desk, ports: tuple[int, int] | None, *arguments: str, text_seconds: float = 0.0) -> Cost:
    hooked = {"PYTHONPATH": HOOKS, "BENCHMARK_AT_ONCE": "1", "BENCHMARK_TEXT_SECONDS": str(text_seconds)}
    server: dict[str, float] = {}
    with ExitStack() as stack:
        if ports:
            stack.enter_context(CountingQdrant(MANY, *ports))
        variables = stack.enter_context(running_prefect(server))
        report, _, watch = run(made.reset().config, *arguments, **hooked, **variables)
    return Cost(sum(one["seconds"] for one in report["indexes"]), watch.cpu | server)


def curve(given: argparse.Namespace) -> None:
    shard = max(1, round(SHARD_SECONDS / given.text_seconds))
    print(f"{given.store}, {given.text_seconds * 1000:g} ms a text, shards of {shard} texts, {cpu_count()} cores")
    ports = free_ports() if given.store == "server" else None
    for workers in map(int, given.workers.split(",")):
        costs = []
        for shards in (SHORT, LONG):
            with desk(workers * shards * shard, ports) as made:
                options = ("--workers", str(workers), "--shard-documents", str(shard))
                costs.append(first_run(made, ports, *options, text_seconds=given.text_seconds))
        more, documents = costs[1].beyond(costs[0]), workers * (LONG - SHORT) * shard
        ideal = documents * given.text_seconds / workers
        busy = ", ".join(f"{kind} {cpu / more.seconds:.2f}" for kind, cpu in sorted(more.cpu.items()))
        print(
            f"  {workers:2} workers {documents / more.seconds:8,.0f} documents/s, efficiency "
            f"{ideal / more.seconds:.2f}; "
            f"CPU a second: {busy}",
            flush=True,
        )


def model(given: argparse.Namespace) -> None:
    costs = []
    with desk(given.documents // 4, None) as few, desk(given.documents, None) as many:
        for _ in range(given.repeat):
            costs.append(first_run(many, None, "--workers", "1").beyond(first_run(few, None, "--workers", "1")))
    more = given.documents - given.documents // 4
    flow, worker, server = (
        median(cost.cpu.get(kind, 0.0) for cost in costs) / more for kind in ("flow", "worker", "Prefect server")
    )
    print(f"CPU for each document: flow {flow * 1e6:.0f} µs, worker without embedding {worker * 1e6:.0f} µs, "
          f"Prefect's server {server * 1e6:.0f} µs")  # fmt: skip
    measured = [more / cost.seconds for cost in costs]
    here = rate(cpu_count(), 1, flow, worker, server)
    print(f"this machine, one worker, an embedder that answers at once: predicted {here:,.0f} documents/s, measured "
          f"{median(measured):,.0f} ({min(measured):,.0f} to {max(measured):,.0f})")  # fmt: skip
    for cores in (4, 8, 32):
        now = rate(cores, cores - 1, flow, worker + EMBED_SECONDS, server)
        apart = rate(cores, cores, 0.0, worker + EMBED_SECONDS + flow, server)
        print(
            f"{cores:2} cores, the local embedder: {now:8,.0f} documents/s; "
            f"if workers wrote points, at most {apart:,.0f}"
        )


def rate(cores: int, workers: int, flow: float, worker: float, server: float) -> float:
    """Return the documents/s that the flow's process, the workers, or all cores allow, whichever is least."""
    limits = [workers / worker, cores / (flow + worker + server)]
    return min(limits + ([1 / flow] if flow else []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("curve", "model"))
    parser.add_argument("--workers", default="1,2,4,8,16,32")
    parser.add_argument("--store", choices=("server", "embedded"), default="server")
    parser.add_argument("--text-seconds", type=float, default=0.01)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(PREFECT_HOME=home, PREFECT_SERVER_ANALYTICS_ENABLED="false")
        (curve if given.command == "curve" else model)(given)


if __name__ == "__main__":
    main()
