"""How soon a change is found, and how long a search takes that waits for its own write.

    python benchmarks/fresh.py [--ways postgresql-wal postgresql-queue mariadb-queue sqlite-queue sqlite-poll]
                               [--rate 100] [--seconds 60] [--documents 2000] [--burst 0] [--qdrant URL] [--ollama]

A thread changes tickets of a service desk, `--rate` a second, each in a transaction of its own, while `rag-index watch`
follows. Once a second one more ticket is changed, and looked for: in turn by one search that demands the position of
its commit, and by searches without a demand, ten a second, until it is found. Both times begin when the commit has
returned. `sqlite-poll` has a table of its own and demands the time of its commit.

With `--burst` the last so many tickets are changed instead, a thousand in each transaction, and single changes are
looked for without a demand until a search with the position of the end of the burst is answered.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.watch import PATIENCE, ollama_settings, spread
from benchmarks.watching.places import Command
from rag_index.components.stores import open_store
from rag_index.core.settings import load_settings
from rag_index.search import Retriever
from tests.reliability.chaos.desk import open_desk
from tests.reliability.chaos.watcher import whole_run

if TYPE_CHECKING:
    from rag_index.core.settings import Settings
    from tests.reliability.chaos.desk import Desk

WAYS = ("postgresql-wal", "postgresql-queue", "mariadb-queue", "sqlite-queue", "sqlite-poll")
POLLED = """\
project = "polled"
[source]
url = "sqlite:///source.db"
changes = "poll"
{services}
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
text = "body"
changed_since = "at"
"""


class Writer:
    """A session that changes tickets one by one, each to a text of its own."""

    def __init__(self, desk: Desk | SimpleNamespace, name: str) -> None:
        self._desk, self._name, self._count = desk, name, 0
        self._run: Any = desk.session().run if desk.position else None

    def change(self, number: int) -> str:
        """Change a ticket, and return its text."""
        self._count += 1
        text = f"{self._name} {self._count}"
        if self._desk.position:
            self._run(f"UPDATE ticket SET body = '{text}' WHERE id = {number}")
            return text
        with closing(sqlite3.connect(self._desk.folder / "source.db", timeout=30)) as db, db:
            db.execute("UPDATE ticket SET body = ?, at = ? WHERE id = ?", (text, _now(), number))
        return text

    def change_many(self, numbers: range) -> None:
        """Change tickets, a thousand in each transaction."""
        for first in numbers[::1000]:
            last = min(first + 1000, numbers.stop)
            self._run(f"UPDATE ticket SET body = 'burst' WHERE id >= {first} AND id < {last}")

    def position(self) -> str:
        """Return the position of what was committed last, as an application learns it."""
        return str(self._run(self._desk.position)[0][0]) if self._desk.position else _now()


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def polled_desk(folder: Path, documents: int, services: str) -> SimpleNamespace:
    """Return a table with times, and its settings."""
    with closing(sqlite3.connect(folder / "source.db")) as db, db:
        db.execute("CREATE TABLE ticket (id INTEGER PRIMARY KEY, body TEXT, at TEXT)")
        db.execute("CREATE INDEX ticket_at ON ticket (at)")
        db.executemany("INSERT INTO ticket VALUES (?, 'first', ?)", ((number, _now()) for number in range(documents)))
    config = folder / "rag-index.toml"
    config.write_text(POLLED.format(services=services))
    return SimpleNamespace(folder=folder, config=config, position="")


def look_for(retriever: Retriever, writer: Writer, number: int, *, demand: bool) -> float:
    """Change a ticket, and return how many seconds after its commit a search found it."""
    text = writer.change(number)
    began = time.monotonic()
    after = writer.position() if demand else None
    while time.monotonic() - began < PATIENCE:
        found = retriever.search_sync(text, indexes=["tickets"], limit=20, after=after, timeout=PATIENCE)
        if any(hit.document_id == str(number) and text in hit.text for hit in found.hits):
            return time.monotonic() - began
        assert not demand, f"{text} of ticket {number} was demanded and is not found"
        time.sleep(0.1)
    raise AssertionError(f"{text} of ticket {number} was not found")


def measure(way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one way."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        services = ollama_settings(stack, folder) if given.ollama else ""
        services += f'[store]\nurl = "{given.qdrant}"\n' if given.qdrant else ""
        if way == "sqlite-poll":
            desk: Any = polled_desk(folder, given.documents, services)
        else:
            desk, _ = open_desk(stack, folder, way, tickets=given.documents, services=services, batch=5000)
            desk.config.write_text(desk.config.read_text().replace("poll_seconds = 0.2\n", ""))
        settings = load_settings(desk.config)
        if given.qdrant:
            stack.callback(drop_all, settings)
        for index in settings.indexes:
            whole_run(settings, index.name)
        watch = Command(desk)
        stack.callback(watch.end)
        retriever, writer = stack.enter_context(Retriever(settings)), Writer(desk, "looked for")
        look_for(retriever, writer, 0, demand=True)  # the first comes with an ordinary run
        stop = threading.Event()
        burst: list[float] = []
        work = partial(_burst, settings, burst) if given.burst else _write
        load = threading.Thread(target=work, args=(Writer(desk, "change"), given, stop))
        load.start()
        took: dict[bool, list[float]] = {True: [], False: []}
        end = time.monotonic() + given.seconds
        for number in range(1, given.documents, 2):
            if stop.is_set() or (time.monotonic() >= end and not given.burst):
                break
            demand = number % 4 == 1 and not given.burst
            took[demand].append(look_for(retriever, writer, number, demand=demand))
            time.sleep(1)
        stop.set()
        load.join()
    given_so = {"rate": given.rate, "server": bool(given.qdrant), "ollama": given.ollama}
    figures: dict[str, Any] = {"found_s": spread(took[False])}
    figures |= {"burst_s": burst[0]} if burst else {"own_write_s": spread(took[True])}
    return {"way": way, **given_so, **figures}


def drop_all(settings: Settings) -> None:
    """Drop what was written to the server, so that the next way begins with nothing."""
    with closing(open_store(settings.store)) as store:
        for name in store.collections():
            if name.startswith(f"{settings.project}_"):
                store.drop(name)


def _burst(
    settings: Settings, took: list[float], writer: Writer, given: argparse.Namespace, stop: threading.Event
) -> None:
    """Change the last tickets, and append how many seconds that took until all of them were found."""
    began = time.monotonic()
    writer.change_many(range(given.documents - given.burst, given.documents))
    with Retriever(settings) as retriever:
        retriever.search_sync("burst", indexes=["tickets"], after=writer.position(), timeout=3600)
    took.append(round(time.monotonic() - began, 1))
    stop.set()


def _write(writer: Writer, given: argparse.Namespace, stop: threading.Event) -> None:
    """Change the tickets with even numbers, `--rate` a second."""
    began, count = time.monotonic(), 0
    while not stop.wait(max(0.0, began + count / given.rate - time.monotonic()) if given.rate else None):
        writer.change(count * 14 % given.documents // 2 * 2)
        count += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--burst", type=int, default=0)
    parser.add_argument("--qdrant", help="a Qdrant server to write to, in place of the embedded store")
    parser.add_argument("--ollama", action="store_true", help="A real Ollama with a tiny model.")
    given = parser.parse_args()
    for way in given.ways:
        print(json.dumps(measure(way, given)), flush=True)


if __name__ == "__main__":
    main()
