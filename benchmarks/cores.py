"""More workers: how a run grows with them, and what stops it.

    python benchmarks/cores.py [--workers 1,2,4,8,16,32] [--store server|embedded] [--text-seconds
                               0.01] [--shard-seconds 10]

Documents/s with an embedder whose time is sleep, as if it ran on another machine. Only the steady
state counts: from the moment in which every worker has its second shard until the first worker has
none left. The efficiency is the share of that time in which the embedder of a worker was busy. Also
the CPU seconds of all processes for each second; where they reach the number of cores, this machine
is full, and with CPU seconds for each shard, the number of workers that it and each single process
would bear. The server is one on loopback that counts points and keeps none.
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

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.counting_qdrant import CountingQdrant, free_ports, store_settings
from local import HOOKS, Desk, prose
from throughput import Watch, kind, run, running_prefect

from rag_index.core.machine.resources import detect_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARDS = 7
"""Shards for each worker in a run of `curve`."""
MANY = 1e9
"""Points a second that the server takes: as many as come."""
LOOK_SECONDS = 1.0
FLOW, WORKER, PREFECT, QDRANT = "flow", "worker", "Prefect server", "Qdrant server"
Ports = tuple[int, int] | None
Costs = dict[str, float]


class Steady(NamedTuple):
    """The steady state of a run: its seconds, the share in which embedders were busy, and CPU
    seconds by process.

    `pauses` are the seconds of each worker between two shards.
    """

    seconds: float
    efficiency: float
    cpu: Costs
    pauses: list[float]


@contextmanager
def desk(documents: int, ports: Ports) -> Iterator[Desk]:
    """Yield a desk, with a server on these ports as its store, or the embedded store."""
    with prose(documents) as made:
        store = store_settings(ports) if ports else ""
        made.config.write_text(f"{made.config.read_text()}{store}")
        yield made


@contextmanager
def servers(ports: Ports) -> Iterator[tuple[dict[str, str], dict[str, Watch]]]:
    """Start Prefect's server and, if there are ports, a Qdrant server; yield the variables and a
    watch of each."""
    with ExitStack() as stack:
        watches = {}
        if ports:
            watches[QDRANT] = Watch(
                stack.enter_context(CountingQdrant(MANY, *ports)).pid, LOOK_SECONDS
            )
        variables = stack.enter_context(running_prefect({}))
        (prefect,) = (
            one for one in psutil.Process().children() if kind(" ".join(one.cmdline())) == PREFECT
        )
        watches[PREFECT] = Watch(prefect.pid, LOOK_SECONDS)
        for watch in watches.values():
            watch.start()
        yield variables, watches


def cpu_of(watch: Watch, begin: float, end: float, name: str = "") -> Costs:
    """Return the CPU seconds between two times by kind of process, or all under one `name`."""
    times = [time for time, _ in watch.course]
    costs: Costs = {}
    for one in watch.cpu:
        at = np.interp([begin, end], times, [cpu.get(one, 0.0) for _, cpu in watch.course])
        costs[name or one] = costs.get(name or one, 0.0) + float(at[1] - at[0])
    return costs


def steady_run(made: Desk, ports: Ports, workers: int, shard: int, text_seconds: float) -> Steady:
    """Make a first run and return its steady state."""
    with servers(ports) as (variables, watches), tempfile.TemporaryDirectory() as spans:
        sleeping = {
            "BENCHMARK_AT_ONCE": "1",
            "BENCHMARK_TEXT_SECONDS": str(text_seconds),
            "BENCHMARK_SPANS": spans,
        }
        arguments = ("--workers", str(workers), "--shard-documents", str(shard))
        variables |= {"PYTHONPATH": HOOKS, **sleeping}
        _, _, watches[FLOW] = run(
            made.reset().config, *arguments, interval=LOOK_SECONDS, **variables
        )
        busy = [np.loadtxt(file, ndmin=2) for file in Path(spans).iterdir()]
    if len(busy) != workers:
        sys.exit(f"{len(busy)} of {workers} workers embedded something")
    begin, end = (
        max(one[1, 0] for one in busy),
        min(one[-1, 1] for one in busy),
    )  # with its first, a worker warms up
    asleep = sum(
        float(np.maximum(0, np.minimum(one[:, 1], end) - np.maximum(one[:, 0], begin)).sum())
        for one in busy
    )
    cpu: Costs = {}
    for name, watch in watches.items():
        cpu |= cpu_of(watch, begin, end, "" if name == FLOW else name)
    pauses = np.concatenate([one[2:, 0] - one[1:-1, 1] for one in busy]).tolist()
    return Steady(end - begin, asleep / workers / (end - begin), cpu, pauses)


def curve(given: argparse.Namespace) -> None:
    shard = max(1, round(given.shard_seconds / given.text_seconds))
    ports = free_ports() if given.store == "server" else None
    cores = detect_machine().processors
    print(
        f"{given.store}, {given.text_seconds * 1000:g} ms a text, shards of {shard} texts, {cores}"
        " cores"
    )
    each: Costs = {}
    for workers in map(int, given.workers.split(",")):
        with desk(workers * SHARDS * shard, ports) as made:
            steady = steady_run(made, ports, workers, shard, given.text_seconds)
        rate = steady.efficiency * workers / given.text_seconds
        each = {name: cpu / (rate * steady.seconds / shard) for name, cpu in steady.cpu.items()}
        busy = ", ".join(
            f"{name} {cpu / steady.seconds:.2f}" for name, cpu in sorted(steady.cpu.items())
        )
        print(
            f"  {workers:2} workers {rate:8,.0f} documents/s, efficiency {steady.efficiency:.2f} in"
            f" {steady.seconds:.0f} s, {median(steady.pauses):.2f} s between two shards of a worker"
            f" (up to {max(steady.pauses):.2f}); CPU a second: all"
            f" {sum(steady.cpu.values()) / steady.seconds:.2f}, {busy}",
            flush=True,
        )
    costs = ", ".join(f"{name} {cpu * 1000:.0f} ms" for name, cpu in sorted(each.items()))
    print(f"  CPU for each shard with {workers} workers: {costs}")
    seconds, whole = shard * given.text_seconds, sum(each.values())
    print(
        "  full with these shards: this machine at"
        f" {detect_machine().processors * seconds / whole:.0f} workers, the flow's process at"
        f" {seconds / each[FLOW]:.0f}, Prefect's server at {seconds / each[PREFECT]:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="1,2,4,8,16,32")
    parser.add_argument("--store", choices=("server", "embedded"), default="server")
    parser.add_argument("--text-seconds", type=float, default=0.01)
    parser.add_argument("--shard-seconds", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(PREFECT_HOME=home, PREFECT_SERVER_ANALYTICS_ENABLED="false")
        curve(given)


if __name__ == "__main__":
    main()
