"""More workers and more cores: how a run grows with them, and what stops it.

    python benchmarks/cores.py curve [--workers 1,2,4,8,16,32] [--store server|embedded] [--text-seconds 0.01]
                                     [--shard-seconds 10]
    python benchmarks/cores.py model [--documents 100000] [--repeat 2]
    python benchmarks/cores.py acknowledge [--milliseconds 50] [--repeat 2]

curve   Documents/s with an embedder whose time is sleep, as if it ran on another machine. Only the steady state counts:
        from the moment in which every worker has its second shard until the first worker has none left. The efficiency
        is the share of that time in which the embedder of a worker was busy. Also the CPU seconds of all processes for
        each second; where they reach the number of cores, this machine is full, and with CPU seconds for each shard,
        the number of workers that it and each single process would bear. The server is one on loopback that counts
        points and keeps none.
model   The CPU time that a document takes in the flow's process, on a worker without embedding, and in Prefect's
        server, with the embedded store, which the flow alone writes, and with a server, which workers write. From
        these, the documents/s of a machine with more cores; and the documents/s of this machine with one and two
        workers, predicted and measured. If workers wrote the embedded store, in segments of their own, the flow would
        have to do what it does with a server.
acknowledge  Documents/s of one worker in the steady state, with an embedder that sleeps and a server that takes its
        time to acknowledge each request: if the worker waits for that before it embeds more, and as it is. Also with
        a server that acknowledges at once.
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
from price import bare_seconds
from throughput import Watch, kind, run, running_prefect, texts_of

from rag_index.core.machine.resources import cpu_count
from rag_index.core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARDS = 7
"""Shards for each worker in a run of `curve`."""
ACKNOWLEDGED_SHARD, ACKNOWLEDGED_TEXT_SECONDS = 5000, 0.0002
"""The texts of a shard, and the embedder's time for each: embedding takes as long as 50 ms for each request."""
MANY = 1e9
"""Points a second that the server takes: as many as come."""
LOOK_SECONDS = 1.0
MICRO = 1e6
FLOW, WORKER, PREFECT, QDRANT = "flow", "worker", "Prefect server", "Qdrant server"
Ports = tuple[int, int] | None
Costs = dict[str, float]


class Steady(NamedTuple):
    """The steady state of a run: its seconds, the share in which embedders were busy, and CPU seconds by process.

    `pauses` are the seconds of each worker between two shards.
    """

    seconds: float
    efficiency: float
    cpu: Costs
    pauses: list[float]


class FirstRun(NamedTuple):
    """Seconds of a first run without start-up, and CPU seconds by process; `beyond` subtracts a smaller run."""

    seconds: float
    cpu: Costs

    def beyond(self, small: FirstRun) -> FirstRun:
        return FirstRun(
            self.seconds - small.seconds, {kind: cpu - small.cpu.get(kind, 0.0) for kind, cpu in self.cpu.items()}
        )


@contextmanager
def desk(documents: int, ports: Ports, search: str = "hybrid") -> Iterator[Desk]:
    """Yield a desk, with a server on these ports as its store, or the embedded store."""
    with prose(documents) as made:
        store = store_settings(ports) if ports else ""
        made.config.write_text(f'{made.config.read_text()}search = "{search}"\n{store}')
        yield made


@contextmanager
def servers(ports: Ports, acknowledge: float = 0.0) -> Iterator[tuple[dict[str, str], dict[str, Watch]]]:
    """Start Prefect's server and, if there are ports, a Qdrant server; yield the variables and a watch of each."""
    with ExitStack() as stack:
        watches = {}
        if ports:
            watches[QDRANT] = Watch(
                stack.enter_context(CountingQdrant(MANY, *ports, acknowledge=acknowledge)).pid, LOOK_SECONDS
            )
        variables = stack.enter_context(running_prefect({}))
        (prefect,) = (one for one in psutil.Process().children() if kind(" ".join(one.cmdline())) == PREFECT)
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


def steady_run(
    made: Desk, ports: Ports, workers: int, shard: int, text_seconds: float, acknowledge: float = 0.0, **hooks: str
) -> Steady:
    """Make a first run and return its steady state."""
    with servers(ports, acknowledge) as (variables, watches), tempfile.TemporaryDirectory() as spans:
        sleeping = {"BENCHMARK_AT_ONCE": "1", "BENCHMARK_TEXT_SECONDS": str(text_seconds), "BENCHMARK_SPANS": spans}
        arguments = ("--workers", str(workers), "--shard-documents", str(shard))
        variables |= {"PYTHONPATH": HOOKS, **sleeping, **hooks}
        _, _, watches[FLOW] = run(made.reset().config, *arguments, interval=LOOK_SECONDS, **variables)
        busy = [np.loadtxt(file, ndmin=2) for file in Path(spans).iterdir()]
    if len(busy) != workers:
        sys.exit(f"{len(busy)} of {workers} workers embedded something")
    begin, end = max(one[1, 0] for one in busy), min(one[-1, 1] for one in busy)  # with its first, a worker warms up
    asleep = sum(float(np.maximum(0, np.minimum(one[:, 1], end) - np.maximum(one[:, 0], begin)).sum()) for one in busy)
    cpu: Costs = {}
    for name, watch in watches.items():
        cpu |= cpu_of(watch, begin, end, "" if name == FLOW else name)
    pauses = np.concatenate([one[2:, 0] - one[1:-1, 1] for one in busy]).tolist()
    return Steady(end - begin, asleep / workers / (end - begin), cpu, pauses)


def curve(given: argparse.Namespace) -> None:
    shard = max(1, round(given.shard_seconds / given.text_seconds))
    ports = free_ports() if given.store == "server" else None
    print(f"{given.store}, {given.text_seconds * 1000:g} ms a text, shards of {shard} texts, {cpu_count()} cores")
    each: Costs = {}
    for workers in map(int, given.workers.split(",")):
        with desk(workers * SHARDS * shard, ports) as made:
            steady = steady_run(made, ports, workers, shard, given.text_seconds)
        rate = steady.efficiency * workers / given.text_seconds
        each = {name: cpu / (rate * steady.seconds / shard) for name, cpu in steady.cpu.items()}
        busy = ", ".join(f"{name} {cpu / steady.seconds:.2f}" for name, cpu in sorted(steady.cpu.items()))
        print(
            f"  {workers:2} workers {rate:8,.0f} documents/s, efficiency {steady.efficiency:.2f} in "
            f"{steady.seconds:.0f} s, {median(steady.pauses):.2f} s between two shards of a worker (up to "
            f"{max(steady.pauses):.2f}); CPU a second: all {sum(steady.cpu.values()) / steady.seconds:.2f}, {busy}",
            flush=True,
        )
    costs = ", ".join(f"{name} {cpu * 1000:.0f} ms" for name, cpu in sorted(each.items()))
    print(f"  CPU for each shard with {workers} workers: {costs}")
    seconds, whole = shard * given.text_seconds, sum(each.values())
    print(
        f"  full with these shards: this machine at {cpu_count() * seconds / whole:.0f} workers, "
        f"the flow's process at {seconds / each[FLOW]:.0f}, Prefect's server at {seconds / each[PREFECT]:.0f}"
    )


def first_run(made: Desk, ports: Ports, workers: int) -> FirstRun:
    """Make a first run with an embedder that answers at once."""
    hooked = {"PYTHONPATH": HOOKS, "BENCHMARK_AT_ONCE": "1"}
    with servers(ports) as (variables, watches):
        report, _, watch = run(made.reset().config, "--workers", str(workers), **hooked, **variables)
        others = {name: sum(one.cpu.values()) - sum(one.course[0][1].values()) for name, one in watches.items()}
    return FirstRun(sum(one["seconds"] for one in report["indexes"]), watch.cpu | others)


def price_of(given: argparse.Namespace, search: str, ports: Ports, workers: int) -> tuple[Costs, list[float]]:
    """Return the CPU seconds of a document in each kind of process, and the documents/s of each repetition."""
    documents = given.documents // 4, given.documents
    more = documents[1] - documents[0]
    with desk(documents[0], ports, search) as few, desk(documents[1], ports, search) as many:
        runs = []
        for _ in range(given.repeat):
            small = first_run(few, ports, workers)
            runs.append(first_run(many, ports, workers).beyond(small))
    costs = {name: median(one.cpu.get(name, 0.0) for one in runs) / more for name in runs[0].cpu}
    return costs, [more / one.seconds for one in runs]


def acknowledge(given: argparse.Namespace) -> None:
    ports, seconds = free_ports(), given.milliseconds / 1000
    ways: dict[str, tuple[float, dict[str, str]]] = {
        "at once": (0.0, {}),
        "in turn": (seconds, {"BENCHMARK_IN_TURN": "1"}),
        "meanwhile": (seconds, {}),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    shard, text_seconds = ACKNOWLEDGED_SHARD, ACKNOWLEDGED_TEXT_SECONDS
    print(f"{seconds * 1000:g} ms to acknowledge each request, {text_seconds * 1000:g} ms a text, one worker")
    with desk(SHARDS * shard, ports) as made:
        for _ in range(given.repeat):
            for way, (delay, hook) in ways.items():
                steady = steady_run(made, ports, 1, shard, text_seconds, delay, **hook)
                rates[way].append(steady.efficiency / text_seconds)
                print(f"  {way:<9} {rates[way][-1]:8,.0f} documents/s in {steady.seconds:.0f} s", flush=True)
    for way in ("in turn", "at once"):
        ratios = [now / other for now, other in zip(rates["meanwhile"], rates[way], strict=True)]
        print(f"  meanwhile over {way}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def model(given: argparse.Namespace) -> None:
    ports = free_ports()
    with prose(given.documents // 4) as made:
        texts = [text for part in texts_of(load_settings(made.config)) for text in part]
        embed = bare_seconds(texts, 1) / len(texts)
    print(f"the bare embedder takes {embed * MICRO:.0f} µs of CPU a text")
    for search in given.search.split(","):
        stores = {}
        for store, workers in (("embedded", 2), ("embedded", 1), ("server", 1)):
            costs, rates = price_of(given, search, ports if store == "server" else None, workers)
            stores[store] = costs
            each = ", ".join(f"{name} {cpu * MICRO:.0f}" for name, cpu in sorted(costs.items()))
            print(
                f"{search}, {store}, {workers} worker{'s' if workers > 1 else ''}, an embedder that answers at once: "
                f"µs of CPU a document: {each}; predicted {rate(cpu_count(), workers, costs):,.0f} documents/s, "
                f"measured {median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
                flush=True,
            )
        predict(stores["embedded"], stores["server"], embed)


def predict(embedded: Costs, server: Costs, embed: float) -> None:
    """Print what machines with more cores should reach with the local embedder."""
    own = {**server, WORKER: embedded[WORKER] + max(0.0, embedded[FLOW] - server[FLOW]), QDRANT: 0.0}
    for cores in (4, 8, 32):
        one, two, three = (
            rate(cores, cores - 1, {**costs, WORKER: costs[WORKER] + embed, QDRANT: 0.0})
            for costs in (embedded, server, own)
        )
        slow = (cores - 1) * embedded[FLOW] - embedded[WORKER]
        print(
            f"  {cores:2} cores, the local embedder: {one:,.0f} documents/s with the embedded store, at most "
            f"{three:,.0f} if workers wrote segments of it, {two:,.0f} with a server elsewhere; the writer of the "
            f"embedded store is not the limit where a text takes a worker more than {slow * 1000:.2f} ms"
        )


def rate(cores: int, workers: int, costs: Costs) -> float:
    """Return the documents/s that the flow's process, the workers, or all cores allow, whichever is least."""
    return min(1 / costs[FLOW], workers / costs[WORKER], cores / sum(costs.values()))


COMMANDS = {"curve": curve, "model": model, "acknowledge": acknowledge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--workers", default="1,2,4,8,16,32")
    parser.add_argument("--store", choices=("server", "embedded"), default="server")
    parser.add_argument("--text-seconds", type=float, default=0.01)
    parser.add_argument("--shard-seconds", type=float, default=10.0)
    parser.add_argument("--search", default="hybrid,dense")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--milliseconds", type=float, default=50.0)
    parser.add_argument("--repeat", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(PREFECT_HOME=home, PREFECT_SERVER_ANALYTICS_ENABLED="false")
        COMMANDS[given.command](given)


if __name__ == "__main__":
    main()
