"""Millions of documents: memory, pace and size of the ledger, and what each command needs on such an index.

    python benchmarks/scale.py [--documents 10000000] [--store server|embedded] [--ledger sqlite|postgresql]
                               [--commands plan,doctor,export,move,optimize]

The source is a table in PostgreSQL (`apt-get install postgresql`), made by the server itself; a text has ten words.
The embedder answers at once. With `--store server` points go over gRPC to a server on loopback that counts them and
keeps none, at most 20,000 a second. With `--store embedded` they are written to the real engine, and afterwards the
commands are measured: their seconds, and the peak of their private memory (RssAnon).

The first run prints documents/s in its first and last tenth, and the private memory in its first and last third. Then
follow the bytes of the ledger for each document, and a run in which nothing changed. Ten million documents take an
hour or more, and 60 GB of disk with `--store embedded`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.counting_qdrant import CountingQdrant
from throughput import PROGRAM, Watch, kind, run

from tests.live.postgres import PostgresServer, find_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOOKED = {"PYTHONPATH": str(Path(__file__).parent / "hooks"), "BENCHMARK_AT_ONCE": "1"}
"""The environment of every process: the embedder answers at once."""
POINTS_PER_SECOND = 20_000
WORDS = ("printer", "paper", "toner", "network", "cable", "router", "password", "account", "login", "server", "backup",
         "restore", "update", "driver", "screen", "keyboard", "mouse", "laptop", "battery", "charger", "phone",
         "mailbox", "calendar", "invoice", "order", "customer", "contract", "licence", "report")  # fmt: skip
SECONDS_BETWEEN_SAMPLES = 1.0
MB = 1 << 20


@contextmanager
def source(documents: int, database: str, server: PostgresServer) -> Iterator[str]:
    """Fill the table `ticket` with `documents` rows, and yield the URL of its database."""
    array = "ARRAY[" + ",".join(f"'{word}'" for word in WORDS) + "]"
    words = " || ' ' || ".join(
        f"({array})[1 + abs(hashint8(i * {prime})) % {len(WORDS)}]" for prime in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
    )
    with server.connect(database) as connection:
        connection.execute("CREATE TABLE ticket (id bigint PRIMARY KEY, priority text, body text)")
        connection.execute(
            f"INSERT INTO ticket SELECT i, 'p' || i % 4, {words} || ' ' || i FROM generate_series(1, {documents}) AS i"
        )
        connection.execute("ANALYZE ticket")
    yield server.url(database).render_as_string(hide_password=False)


def write_settings(config: Path, source_url: str, ledger_url: str | None, store: str) -> None:
    lines = [f'[source]\nurl = "{source_url}"\n']
    lines += [f'[ledger]\nurl = "{ledger_url}"\n'] if ledger_url else []
    lines += [f"[store]\n{store}\n"] if store else []
    lines += ['[[indexes]]\nname = "tickets"\ntable = "ticket"\nkey = "id"\ntext = "body"\npayload = ["priority"]\n']
    config.write_text("\n".join(lines))


class Samples(threading.Thread):
    """How many points the store has taken, and the private memory of the run's processes, second by second."""

    def __init__(self, count: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._count = count
        self._ended = threading.Event()
        self.rows: list[tuple[float, int, dict[str, float]]] = []

    def run(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            memory: dict[str, float] = {}
            for process in own.children(recursive=True):
                try:
                    name = kind(" ".join(process.cmdline()))
                    private = process.memory_info()
                except psutil.Error:
                    continue
                memory[name] = max(memory.get(name, 0.0), (private.rss - private.shared) / MB)
            self.rows.append((time.monotonic(), self._count(), memory))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def print(self, documents: int) -> None:
        tenths = [self._pace(documents * start // 10, documents * (start + 1) // 10) for start in (0, 9)]
        if all(tenths):
            first, last = tenths
            print(f"  documents/s in the first and the last tenth {first:9,.0f} {last:9,.0f}   {last / first:.2f}")
        busy = [row for row in self.rows if 0 < row[1] < documents]
        third = len(busy) // 3
        for name in sorted({name for _, _, memory in busy for name in memory}):
            early, late = (
                max((memory.get(name, 0.0) for _, _, memory in part), default=0.0)
                for part in (busy[:third], busy[-third:])
            )
            print(f"  memory of {name:<16} in the first and the last third {early:6.0f} {late:6.0f} MB")

    def _pace(self, start: int, end: int) -> float:
        """Return the points per second between two counts, 0 if there are too few samples."""
        inside = [(at, points) for at, points, _ in self.rows if start <= points <= end]
        if len(inside) < 2 or inside[-1][0] == inside[0][0]:
            return 0.0
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def command(config: Path, *arguments: str) -> None:
    """Run a command of rag-index, and print its seconds and its peak private memory."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*PROGRAM, "--config", str(config), *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **HOOKED},
    )  # fmt: skip
    watch = Watch(process.pid)
    watch.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    memory = ", ".join(f"{name} {peak:.0f} MB" for name, peak in sorted(watch.peaks.items()))
    failed = f"   exit code {process.returncode}: {errors.strip()[-300:]}" if process.returncode else ""
    print(
        f"  {arguments[0]:<10} {seconds:8.1f} s   CPU {sum(watch.cpu.values()):8.1f} s   {memory}{failed}", flush=True
    )


def print_cost(what: str, seconds: float, watch: Watch, more: str) -> None:
    print(f"  {what:<10} {seconds:8.1f} s   CPU {sum(watch.cpu.values()):8.1f} s   {more}", flush=True)


def measure(given: argparse.Namespace, folder: Path, server: PostgresServer, stack: ExitStack) -> None:
    documents, config = given.documents, folder / "rag-index.toml"
    rows = stack.enter_context(source(documents, stack.enter_context(server.database()), server))
    ledger_database = stack.enter_context(server.database()) if given.ledger == "postgresql" else None
    ledger = server.url(ledger_database).render_as_string(hide_password=False) if ledger_database else None
    counting = stack.enter_context(CountingQdrant(POINTS_PER_SECOND)) if given.store == "server" else None
    write_settings(config, rows, ledger, f'url = "{counting.url}"' if counting else 'hnsw = "never"')

    print(f"{documents:,} documents, {given.store} store, ledger in {given.ledger}", flush=True)
    samples = Samples(lambda: counting.points if counting else 0)
    samples.start()
    report, wall, watch = run(config, **HOOKED)
    samples.end()
    seconds = sum(one["seconds"] for one in report["indexes"])
    print(
        f"  first run  {wall:8.1f} s   CPU {sum(watch.cpu.values()):8.1f} s   {documents / seconds:9,.0f} documents/s"
    )
    if counting:
        samples.print(documents)
    for name, peak in sorted(watch.peaks.items()):
        print(f"  memory of {name:<16} at most {peak:6.0f} MB")
    print(f"  ledger     {ledger_bytes(folder, server, ledger_database) / documents:8.0f} bytes a document", flush=True)

    report, wall, watch = run(config, **HOOKED)
    if any(one["new"] or one["changed"] for one in report["indexes"]):
        sys.exit("the second run found changes, although nothing changed")
    memory = ", ".join(f"{name} {peak:.0f} MB" for name, peak in sorted(watch.peaks.items()))
    print_cost("unchanged", wall, watch, memory)
    if given.store == "embedded":
        arguments = {"export": ["tickets", "--out", "/dev/null"], "move": ["--to", str(folder / "moved")]}
        for name in filter(None, given.commands.split(",")):
            command(config, name, *arguments.get(name, []))


def ledger_bytes(folder: Path, server: PostgresServer, database: str | None) -> int:
    """Return the size of the ledger in bytes."""
    if database is None:
        return sum(path.stat().st_size for path in (folder / ".rag-index").glob("*.db*"))
    with server.connect(database) as connection:
        (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--store", choices=("server", "embedded"), default="server")
    parser.add_argument("--ledger", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--commands", default="plan,doctor,export,move,optimize")
    given = parser.parse_args()
    programs = find_postgres()
    if not isinstance(programs, Path):
        sys.exit(programs)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        measure(given, folder, stack.enter_context(PostgresServer(programs)), stack)


if __name__ == "__main__":
    main()
