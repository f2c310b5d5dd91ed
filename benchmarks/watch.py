"""How soon a search finds a single change, from its commit, and what the watch costs then and while
nothing changes.

    python benchmarks/watch.py [--ways postgresql sqlite mariadb] [--documents 60000] [--changes 40]
                               [--idle 60] [--qdrant URL] [--alone]

Starts `rag-index watch` on a service desk whose tickets show their customers, embedder in the
process, with the embedded store or a Qdrant server. A ticket is changed, and looked for until a
search finds its new text; then the next one, after a pause by chance. The processor time is that of
the watch, for each change; and idle for each hour, of the watch and of the database's processes, if
the benchmark has started them. With `--alone` nobody searches: the embedded store is then written
in place, and the seconds are those until the watch says what it has written.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.core.settings import load_settings
from rag_index.search import Retriever
from tests.project import PROGRAM
from tests.reliability.chaos.desk import WAYS, Desk, open_desk
from tests.reliability.chaos.watcher import whole_run

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 300.0
"""Seconds after which a change that is not found ends the benchmark."""
LOOK_SECONDS = 0.05
SETTLE_SECONDS, REST_SECONDS = 20.0, 150.0
"""Before changes are counted, and before an idle watch is: PostgreSQL analyses by itself what has
changed."""


@contextmanager
def watch_of(desk: Desk) -> Iterator[psutil.Process]:
    """Run `rag-index watch` for the time of the block."""
    with (desk.folder / "watch.log").open("wb") as log:
        running = subprocess.Popen(
            [*PROGRAM, "--config", str(desk.config), "watch"], stdout=log, stderr=log
        )
    try:
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(timeout=60)


def cpu_of(process: psutil.Process | None) -> float:
    """Return the processor seconds of a process and its children."""
    family = [process, *process.children(recursive=True)] if process else []
    return sum(sum(one.cpu_times()[:2]) for one in family)


def found_after(desk: Desk, retriever: Retriever, number: int, version: int) -> float:
    """Change a ticket, and return the seconds from its commit until a search finds it."""
    with closing(desk.session()) as session:
        session.run(f"UPDATE ticket SET body = 'version {version}' WHERE id = {number}")
    began, text = (
        time.monotonic(),
        f"customer {number % desk.customers}: version {version} of ticket {number}",
    )
    while time.monotonic() < began + PATIENCE:
        hits = retriever.search_sync(text, indexes=["tickets"], limit=20).hits
        if any((hit.document_id, hit.text.strip()) == (str(number), text) for hit in hits):
            return time.monotonic() - began
        time.sleep(LOOK_SECONDS)
    raise TimeoutError((desk.folder / "watch.log").read_text()[-3000:])


def written_after(desk: Desk, number: int, version: int) -> float:
    """Change a ticket, and return the seconds from its commit until the watch says that a document
    has changed."""
    log = desk.folder / "watch.log"
    before = log.read_text().count(" changed")
    with closing(desk.session()) as session:
        session.run(f"UPDATE ticket SET body = 'version {version}' WHERE id = {number}")
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        if log.read_text().count(" changed") > before:
            return time.monotonic() - began
        time.sleep(LOOK_SECONDS)
    raise TimeoutError(log.read_text()[-3000:])


def measure(way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one way."""
    chance, took = random.Random(1), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        services = f'[store]\nurl = "{given.qdrant}"\n' if given.qdrant else ""
        desk, what = open_desk(stack, folder, way, tickets=given.documents, services=services)
        settings = load_settings(desk.config)
        for index in settings.indexes:
            whole_run(settings, index.name)
            drop = [*PROGRAM, "--config", str(desk.config), "drop", index.name, "--yes"]
            stack.callback(subprocess.run, drop, check=True, stdout=subprocess.DEVNULL)
        server = what.get("server")
        database = psutil.Process(server._process.pid) if server else None
        watch = stack.enter_context(watch_of(desk))
        if given.alone:
            changed = partial(written_after, desk)
        else:
            changed = partial(
                found_after, desk, stack.enter_context(Retriever.from_settings(desk.config))
            )
        changed(0, 0)
        time.sleep(SETTLE_SECONDS)
        before = cpu_of(watch)
        for version in range(1, given.changes + 1):
            took.append(changed(version * 7 % given.documents, version))
            time.sleep(chance.uniform(2.0, 8.0))
        cpu = (cpu_of(watch) - before) / given.changes
        time.sleep(REST_SECONDS)
        idle = cpu_of(watch), cpu_of(database)
        time.sleep(given.idle)
        hour = 3600 / given.idle
        return {
            "way": way,
            "documents": given.documents,
            "store": "server" if given.qdrant else "embedded",
            "searches": not given.alone,
            "p50": round(statistics.median(took), 2),
            "p95": round(sorted(took)[math.ceil(len(took) * 0.95) - 1], 2),
            "max": round(max(took), 2),
            "cpu_s_a_change": round(cpu, 2),
            "idle_cpu_s_an_hour": round((cpu_of(watch) - idle[0]) * hour, 1),
            "database_idle_cpu_s_an_hour": round((cpu_of(database) - idle[1]) * hour, 1)
            if database
            else None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["postgresql", "sqlite", "mariadb"]
    )
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument(
        "--qdrant", help="a Qdrant server to write to, in place of the embedded store"
    )
    parser.add_argument("--alone", action="store_true", help="without searches beside the watch")
    given = parser.parse_args()
    for way in given.ways:
        print(json.dumps(measure(way, given)), flush=True)


if __name__ == "__main__":
    main()
