"""Millions of documents: memory, pace and size of the ledger, and what each command needs on such
an index.

    python benchmarks/scale.py [--documents 10000000[,…]] [--store server|embedded] [--ledger
                               sqlite|postgresql] [--commands plan,doctor,export]

The source is a table in PostgreSQL (`apt-get install postgresql`), made by the server itself; a
text has ten words. The embedder answers at once. With `--store server` points go over gRPC to a
server on loopback that counts them and keeps none, at most 20,000 a second. With `--store embedded`
they are written to the real engine, and afterwards the commands are measured: their seconds, and
the peak of their private memory (RssAnon).

The first run prints a line for each tenth of the documents: documents/s, the CPU seconds of all
processes of the run for each document (which hardly depend on what else the machine does), and the
private memory of each process. Then follow the bytes of the ledger for each document, and runs in
which nothing changed. Ten million documents take an hour or more, and 60 GB of disk with `--store
embedded`. SIGTERM ends the first run, and prints the tenth that was under way. With several numbers
of documents, each is measured with a source, a ledger and a store of its own, and at the end stands
the memory of each command with the last number over that with the first. The embedded engine keeps
the ids and the words of a collection without a search index (HNSW) in memory; "engine alone" is a
process that opens it, counts and reads a page, and nothing else. The first run builds it from 256
MB of vectors on, which takes many minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.counting_qdrant import CountingQdrant, free_ports, store_settings
from throughput import PROGRAM, Watch, run

from tests.live.postgres import PostgresServer, find_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HOOKED = {"PYTHONPATH": str(Path(__file__).parent / "hooks"), "BENCHMARK_AT_ONCE": "1"}
"""The environment of every process: the embedder answers at once."""
POINTS_PER_SECOND = 20_000
SECONDS_BETWEEN_LOOKS = 1.0
WORDS = (
    "printer",
    "paper",
    "toner",
    "network",
    "cable",
    "router",
    "password",
    "account",
    "login",
    "server",
    "backup",
    "restore",
    "update",
    "driver",
    "screen",
    "keyboard",
    "mouse",
    "laptop",
    "battery",
    "charger",
    "phone",
    "mailbox",
    "calendar",
    "invoice",
    "order",
    "customer",
    "contract",
    "licence",
    "report",
)
ENGINE = """\
import sys, time
import qdrant_edge as e
shard = e.EdgeShard.load(sys.argv[1])
shard.count(e.CountRequest(exact=True))
shard.scroll(e.ScrollRequest(limit=1000, with_payload=True, with_vector=True))
time.sleep(1)
"""
"""A program that opens a shard, counts its points and reads some."""


class Stopped(BaseException):
    """SIGTERM or Ctrl-C: what was measured so far is printed."""


def stop(*_: object) -> None:
    raise Stopped


@contextmanager
def source(documents: int, database: str, server: PostgresServer) -> Iterator[str]:
    """Fill the table `ticket` with `documents` rows, and yield the URL of its database."""
    array = "ARRAY[" + ",".join(f"'{word}'" for word in WORDS) + "]"
    words = " || ' ' || ".join(
        f"({array})[1 + abs(hashint8(i * {prime})) % {len(WORDS)}]"
        for prime in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
    )
    with server.connect(database) as connection:
        connection.execute("CREATE TABLE ticket (id bigint PRIMARY KEY, priority text, body text)")
        connection.execute(
            f"INSERT INTO ticket SELECT i, 'p' || i % 4, {words} || ' ' || i FROM"
            f" generate_series(1, {documents}) AS i"
        )
        connection.execute("ANALYZE ticket")
    yield server.url(database).render_as_string(hide_password=False)


def write_settings(config: Path, source_url: str, ledger_url: str | None, store: str) -> None:
    lines = [f'[source]\nurl = "{source_url}"\n']
    lines += [f'[ledger]\nurl = "{ledger_url}"\n'] if ledger_url else []
    lines += [store]
    lines += [
        '[[indexes]]\nname = "tickets"\ntable = "ticket"\nkey = "id"\ntext = "body"',
        'payload = ["priority"]\n',
    ]
    config.write_text("\n".join(lines))


class Tenths(Watch):
    """A watch of the first run which prints a line for each tenth of the documents, as soon as the
    store has it.

    CPU is that of all processes of the run, so without the database, the server on loopback and
    this benchmark. The first tenth begins with the first point, so it is without the start of the
    processes.
    """

    def __init__(self, pid: int, count: Callable[[], int], documents: int) -> None:
        super().__init__(pid, SECONDS_BETWEEN_LOOKS)
        self._count, self._documents = count, documents
        self._begun: tuple[float, int, float] | None = None
        self._memory: dict[str, float] = {}
        self.rows: list[tuple[float, float, dict[str, float]]] = []
        """Documents/s, CPU seconds of a document and the highest memory of each tenth."""

    def looked(self) -> None:
        points = self._count()
        if not points:
            return
        self._memory = {
            name: max(self._memory.get(name, 0.0), now) for name, now in self.now.items()
        }
        if self._begun is None:
            self._begun = (time.monotonic(), points, sum(self.cpu.values()))
        elif points >= self._documents * (len(self.rows) + 1) // 10:
            self.end_tenth()

    def end_tenth(self) -> None:
        """Print the line of a tenth that is over, or of as much of it as there is."""
        if self._begun is None:
            return
        now = (time.monotonic(), self._count(), sum(self.cpu.values()))
        seconds, points, cpu = (one - other for one, other in zip(now, self._begun, strict=True))
        if not points:
            return
        self.rows.append((points / seconds, cpu / points, self._memory))
        memory = ", ".join(f"{name} {peak:.0f}" for name, peak in sorted(self._memory.items()))
        print(
            f"  {now[1]:12,} documents   {points / seconds:8,.0f} a second   CPU"
            f" {cpu / points * 1e6:6.0f} µs each   {memory} MB",
            flush=True,
        )
        self._begun, self._memory = now, {}

    def compare(self) -> None:
        """Print how the last whole tenth compares with the first."""
        if len(self.rows) < 2:
            return
        first, last = self.rows[0], self.rows[-1]
        print(
            f"  last line over the first: documents/s {last[0] / first[0]:.2f}, "
            f"CPU of a document {last[1] / first[1]:.2f}",
            flush=True,
        )


def command(config: Path, *arguments: str) -> float:
    """Run a command of rag-index, and print its seconds and its peak private memory. Return the
    memory in MB."""
    return measured(arguments[0], [*PROGRAM, "--config", str(config), *arguments])


def measured(what: str, program: Sequence[str]) -> float:
    """Run a program, and print its seconds and its peak private memory. Return the memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        program,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **HOOKED},
    )
    watch = Watch(process.pid)
    watch.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    failed = (
        f"   exit code {process.returncode}: {errors.strip()[-300:]}" if process.returncode else ""
    )
    return print_cost(what, seconds, watch, memory_of(watch) + failed)


def unchanged(what: str, config: Path) -> float:
    """Measure a run in which nothing changed. Return its memory in MB."""
    report, wall, watch = run(config, **HOOKED)
    if any(one["new"] or one["changed"] for one in report["indexes"]):
        sys.exit("a run found changes, although nothing changed")
    return print_cost(what, wall, watch, memory_of(watch))


def memory_of(watch: Watch) -> str:
    return ", ".join(f"{name} {peak:.0f} MB" for name, peak in sorted(watch.peaks.items()))


def print_cost(what: str, seconds: float, watch: Watch, more: str) -> float:
    print(
        f"  {what:<10} {seconds:8.1f} s   CPU {sum(watch.cpu.values()):8.1f} s   {more}", flush=True
    )
    return sum(watch.peaks.values())


def measure(
    given: argparse.Namespace,
    documents: int,
    folder: Path,
    server: PostgresServer,
    stack: ExitStack,
) -> dict[str, float]:
    """Measure one number of documents. Return the peak memory of the runs and the commands."""
    config, peaks = folder / "rag-index.toml", {}
    rows = stack.enter_context(source(documents, stack.enter_context(server.database()), server))
    ledger_database = (
        stack.enter_context(server.database()) if given.ledger == "postgresql" else None
    )
    ledger = (
        server.url(ledger_database).render_as_string(hide_password=False)
        if ledger_database
        else None
    )
    ports = free_ports()
    counting = (
        stack.enter_context(CountingQdrant(POINTS_PER_SECOND, *ports))
        if given.store == "server"
        else None
    )
    write_settings(config, rows, ledger, store_settings(ports) if counting else "")

    print(f"{documents:,} documents, {given.store} store, ledger in {given.ledger}", flush=True)
    tenths: list[Tenths] = []

    def watching(pid: int) -> Watch:
        tenths.append(Tenths(pid, lambda: counting.points if counting else 0, documents))
        return tenths[0]

    try:
        report, wall, watch = run(config, watching=watching, **HOOKED)
    except Stopped:
        tenths[0].end_tenth()
        tenths[0].compare()
        sys.exit("stopped in the first run")
    if len(tenths[0].rows) < 10:
        tenths[0].end_tenth()
    tenths[0].compare()
    seconds = sum(one["seconds"] for one in report["indexes"])
    peaks["first run"] = print_cost(
        "first run", wall, watch, f"{documents / seconds:,.0f} documents/s, {memory_of(watch)}"
    )
    print(
        f"  ledger     {ledger_bytes(folder, server, ledger_database) / documents:8.0f} bytes a"
        " document",
        flush=True,
    )

    peaks["unchanged"] = unchanged("unchanged", config)
    if given.store == "embedded":
        [shard] = (folder / ".rag-index" / "qdrant" / "collections").iterdir()
        peaks["engine alone"] = measured("engine alone", [sys.executable, "-c", ENGINE, str(shard)])
        arguments = {"export": ["tickets", "--out", "/dev/null"]}
        for name in filter(None, given.commands.split(",")):
            peaks[name] = command(config, name, *arguments.get(name, []))
    return peaks


def ledger_bytes(folder: Path, server: PostgresServer, database: str | None) -> int:
    """Return the size of the ledger in bytes."""
    if database is None:
        return sum(path.stat().st_size for path in (folder / ".rag-index").glob("*.db*"))
    with server.connect(database) as connection:
        (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", default="10000000")
    parser.add_argument("--store", choices=("server", "embedded"), default="server")
    parser.add_argument("--ledger", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--commands", default="plan,doctor,export")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    programs = find_postgres()
    if not isinstance(programs, Path):
        sys.exit(programs)
    sizes, peaks = [int(size) for size in given.documents.split(",")], []
    for size in sizes:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            peaks.append(
                measure(given, size, folder, stack.enter_context(PostgresServer(programs)), stack)
            )
    if len(sizes) > 1:
        print(f"memory with {sizes[-1]:,} documents over that with {sizes[0]:,}")
        for name, before in peaks[0].items():
            print(f"  {name:<24} {peaks[-1][name] / before:.2f}")


if __name__ == "__main__":
    main()
