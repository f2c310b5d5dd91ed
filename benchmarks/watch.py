"""How soon a watch has indexed a change, how fast it works through a burst, and what it costs while nothing changes.

    python benchmarks/watch.py [--ways sqlite-queue postgresql-wal postgresql-queue] [--rates 1 10 100] [--seconds 30]
                               [--documents 20000] [--burst 5000] [--idle 60] [--ollama] [--reader]

Starts `rag-index watch` on a service desk whose tickets show their customers, with the embedded store, and with the
embedder in the process or a real Ollama server (`--ollama`: a tiny model). Tickets are then changed one by one at each
rate, each in a transaction of its own. A change counts as indexed when the ledger has its text as committed, which is
after the store has acknowledged it; the ledger is looked at every 20 ms, and in a burst every 250 ms. A burst is one
transaction. It is compared with a run in one process over the same number of changes. Idle time is CPU time and memory
of the process and its children.

With `--reader`, a change counts once a search finds its text: a Retriever of this process is open beside the watch, and
asked for the oldest change that was not found yet, again and again. Of more than ten changes a second it looks for ten.
Neither a burst nor an idle time is measured then.
"""

from __future__ import annotations

import argparse
import json
import math
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.watching.places import Command
from rag_index.core.documents.canonical import hash_text
from rag_index.core.machine import collect_seldom
from rag_index.core.settings import load_settings
from rag_index.core.settings.sections import WatchSettings
from rag_index.search import Retriever
from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import OllamaServer, find_ollama
from tests.reliability.chaos.desk import WAYS, open_desk
from tests.reliability.chaos.watcher import whole_run

if TYPE_CHECKING:
    import psutil

    from tests.reliability.chaos.desk import Desk

LOOK_SECONDS = 0.02
BURST_LOOK_SECONDS = 0.25
"""Between two looks during a burst, so that looking takes next to nothing from the watch."""
PATIENCE = 300.0
"""Seconds after which a change that is not indexed ends the benchmark."""


class Searcher:
    """A Retriever that is open beside a watch, and how long its searches take, in seconds."""

    def __init__(self, desk: Desk) -> None:
        self._retriever = Retriever.from_settings(desk.config)
        self.took: list[float] = []

    def finds(self, text: str, key: str) -> bool:
        """Return whether a search for the text of a ticket finds the ticket with this text."""
        began = time.monotonic()
        hits = self._retriever.search_sync(text, indexes=["tickets"], limit=20).hits
        self.took.append(time.monotonic() - began)
        return any((hit.document_id, hit.text.strip()) == (key, text) for hit in hits)

    def close(self) -> None:
        self._retriever.close()


class Watched:
    """A desk with a watch, and the ledger or the searcher by which its progress is seen."""

    def __init__(self, desk: Desk, searcher: Searcher | None = None) -> None:
        self.desk = desk
        self.searcher = searcher
        self.every = 1
        """Which part of the changes is looked for."""
        self._session = desk.session()
        self._ledger = sqlite3.connect(
            f"file:{desk.folder}/.rag-index/ledger.db?mode=ro", uri=True, timeout=30, isolation_level=None
        )
        self.watch: Command | None = Command(desk)
        self._version = 0
        for _ in range(2):  # the first comes with an overflow, since nobody knows what was before; the second opens all
            self.change([0])
            self.follow()

    def end(self) -> None:
        """End the watch, and change on without it."""
        if self.watch is not None:
            self.watch.end()
        self.watch = None

    def close(self) -> None:
        self.end()
        self._session.close()
        self._ledger.close()

    def change(self, numbers: list[int]) -> None:
        """Change these tickets in one transaction, and wait for them in `follow`."""
        self._version += 1
        self._session.run(self.desk.begin)
        for number in numbers:
            self._session.run(f"UPDATE ticket SET body = 'version {self._version}' WHERE id = {number}")
        self._session.run("COMMIT")
        now = time.monotonic()
        for number in numbers:
            customer = number % self.desk.customers
            if self._version % self.every == 0:
                self._waiting[str(number)] = f"customer {customer}: version {self._version} of ticket {number}", now

    _waiting: dict[str, tuple[str, float]] = {}  # noqa: RUF012 - one watch at a time
    delays: list[float] = []  # noqa: RUF012

    def look(self) -> None:
        """Take what is committed, or found, from what is waited for."""
        if self.searcher is None:
            self._read_ledger()
            return
        for key, (text, since) in list(self._waiting.items()):  # oldest first
            if not self.searcher.finds(text, key):
                break
            self.delays.append(time.monotonic() - since)
            del self._waiting[key]

    def _read_ledger(self) -> None:
        keys = list(self._waiting)
        for first in range(0, len(keys), 500):
            some = keys[first : first + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, text_hash FROM rag_index_documents WHERE pending = 0 AND key IN ({marks})"
            rows = self._ledger.execute(query, some).fetchall()
            now = time.monotonic()
            for key, text_hash in rows:
                if key in self._waiting and hash_text(self._waiting[key][0]) == bytes(text_hash):
                    self.delays.append(now - self._waiting.pop(key)[1])
            if any(key in self._waiting for key in some):  # of a burst, no more is looked at than has to be
                break

    def follow(self, every: float = LOOK_SECONDS) -> list[float]:
        """Wait until everything is indexed, looking so often, and return the delays since the last call."""
        deadline = time.monotonic() + PATIENCE
        while self._waiting:
            assert time.monotonic() < deadline, self.watch and self.watch.log.read_text()[-3000:]
            self.look()
            time.sleep(every)
        found = list(self.delays)
        self.delays.clear()
        return found


def latency(watched: Watched, rate: int, seconds: float, documents: int) -> dict[str, Any]:
    """Change tickets at a rate, and return how long each took."""
    watched.every = max(1, rate // 10) if watched.searcher else 1
    began = time.monotonic()
    for number in range(round(rate * seconds)):
        while time.monotonic() < began + number / rate:
            watched.look()
            time.sleep(min(LOOK_SECONDS, max(0.0, began + number / rate - time.monotonic())))
        watched.change([number * 7 % documents])
    found = {"rate": rate, **spread(watched.follow())}
    if watched.searcher:
        found["searches_ms"] = spread([1000 * one for one in watched.searcher.took])
        watched.searcher.took.clear()
    return found


def spread(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    return {
        "count": len(ordered), "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[math.ceil(len(ordered) * 0.95) - 1], 2), "max": round(ordered[-1], 2),
    }  # fmt: skip


def burst(watched: Watched, count: int) -> dict[str, Any]:
    """Return the seconds for a burst by the watch, and by an ordinary run in one process after it is stopped."""
    watched.change(list(range(count)))
    began = time.monotonic()  # the commit: the watch sees nothing before
    watched.follow(BURST_LOOK_SECONDS)
    by_watch = time.monotonic() - began
    watched.end()
    watched.change(list(range(count)))
    began = time.monotonic()
    with collect_seldom():  # as a command does
        outcome = whole_run(load_settings(watched.desk.config), "tickets")
    by_run = time.monotonic() - began
    watched._waiting.clear()
    assert outcome.changed == count, outcome
    return {"changes": count, "watch_per_s": round(count / by_watch), "run_per_s": round(count / by_run)}


def idle(watched: Watched, seconds: float) -> dict[str, Any]:
    """Return CPU share and growth of memory while nothing changes."""
    assert watched.watch is not None
    time.sleep(5)
    cpu, memory = _used(watched.watch.process)
    time.sleep(seconds)
    cpu_after, memory_after = _used(watched.watch.process)
    return {
        "seconds": seconds, "cpu_percent": round(100 * (cpu_after - cpu) / seconds, 2),
        "grown_mb": round((memory_after - memory) / 1e6, 1), "memory_mb": round(memory_after / 1e6),
    }  # fmt: skip


def _used(process: psutil.Process) -> tuple[float, int]:
    """Return processor seconds and resident bytes of a process and its children."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family), sum(one.memory_info().rss for one in family)


def ollama_settings(stack: ExitStack, folder: Path) -> str:
    """Start a real Ollama with a tiny model, and return the settings of an embedder that asks it."""
    program = find_ollama()
    assert isinstance(program, Path), program
    server = stack.enter_context(OllamaServer(program, folder / "ollama"))
    model = server.create("tiny-embed", write_embedding_gguf(folder / "tiny.gguf"))
    return f'[embedder]\nkind = "ollama"\nmodel = "{model}"\nhosts = ["{server.url}"]\n'


def measure(way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one way."""
    folder = Path(tempfile.mkdtemp(prefix="watch-"))
    with ExitStack() as stack:
        services = ollama_settings(stack, folder) if given.ollama else ""
        batch = WatchSettings().batch_documents
        desk, _ = open_desk(stack, folder, way, tickets=given.documents, services=services, batch=batch)
        settings = load_settings(desk.config)
        for index in settings.indexes:
            whole_run(settings, index.name)
        searcher = stack.enter_context(closing(Searcher(desk))) if given.reader else None
        watched = stack.enter_context(closing(Watched(desk, searcher)))
        rates = [latency(watched, rate, given.seconds, given.documents) for rate in given.rates]
        given_so = {"ollama": given.ollama, "reader": given.reader}
        figures = {"way": way, "documents": given.documents, **given_so}
        if given.reader:
            return {**figures, "rates": rates}
        still = idle(watched, given.idle)
        return {**figures, "rates": rates, "idle": still, "burst": burst(watched, given.burst)}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["sqlite-queue", "postgresql-wal", "postgresql-queue"]
    )
    parser.add_argument("--rates", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--burst", type=int, default=5_000)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--ollama", action="store_true")
    parser.add_argument("--reader", action="store_true", help="Count what a search finds, with a Retriever open.")
    given = parser.parse_args()
    for way in given.ways:
        print(json.dumps(measure(way, given)), flush=True)


if __name__ == "__main__":
    main()
