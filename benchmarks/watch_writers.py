"""What following changes costs those who write the source. README.md quotes the results.

    python benchmarks/watch_writers.py [--rounds 5] [--transactions 10000] [--rows 50000]

Writes a table of tickets without being followed, with the log being followed (`changes = "wal"`), and with triggers
(`changes = "queue"`), in turn and several times: transactions of one row, and one statement for many rows. Prints the
median CPU time of the writer's process relative to not being followed, and the bytes of log. The servers do not wait
for a disk (fsync is off), so a real server's ratios are nearer to 1. `notify` is the queue with a NOTIFY for each
statement, which the project does not use.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.components.ledger import Ledger
from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.queues import open_queue
from rag_index.watch.changes.rows import WatchedTable
from rag_index.watch.changes.wal import WalFeed
from tests.live.postgres import PostgresServer, find_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.watch.changes.rows import RowFeed

BODY = "The printer on floor two is offline since the last update of its driver. " * 6
TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "subject", "body"}))
PROJECT = "bench"
Measured = dict[str, tuple[float, float]]
"""CPU seconds and bytes of log by kind of work."""
TABLE = "CREATE TABLE ticket (id bigint PRIMARY KEY, subject text, body text, seen integer DEFAULT 0)"
EXISTING = 20_000
NOTIFY = """
CREATE FUNCTION rag_index.wake() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NOTIFY bench; RETURN NULL; END';
CREATE TRIGGER wake AFTER INSERT ON rag_index.rag_index_bench FOR EACH STATEMENT EXECUTE FUNCTION rag_index.wake()
"""


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, more exactly than in ticks of its clock (Linux)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def loop(statement: str, count: int) -> str:
    """Return a block that runs a statement in `count` transactions; `i` counts them."""
    return f"DO $$ BEGIN FOR i IN 1..{count} LOOP {statement}; COMMIT; END LOOP; END $$"


def postgres_work(transactions: int, rows: int) -> dict[str, str]:
    """Return what is written: names and statements. The first ids are those of rows that exist."""
    first = EXISTING + 1
    span = f"generate_series({first}, {EXISTING + rows})"
    return {
        "insert, a row a transaction": loop(
            f"INSERT INTO ticket VALUES (100000000 + i, 'new', '{BODY}')", transactions
        ),
        "update, a row a transaction": loop(
            f"UPDATE ticket SET body = '{BODY}' || i || clock_timestamp() WHERE id = 1 + i % {EXISTING}", transactions
        ),
        "update of another column": loop(
            f"UPDATE ticket SET seen = seen + 1 WHERE id = 1 + i % {EXISTING}", transactions
        ),
        "delete, a row a transaction": loop("DELETE FROM ticket WHERE id = 100000000 + i", transactions),
        "insert, one statement": f"INSERT INTO ticket SELECT i, 'new', '{BODY}' FROM {span} i",
        "update, one statement": f"UPDATE ticket SET body = body || 'x' WHERE id >= {first} AND id < 100000000",
        "delete, one statement": f"DELETE FROM ticket WHERE id >= {first} AND id < 100000000",
    }


@contextmanager
def reading(feed: RowFeed) -> Iterator[None]:
    """Receive and acknowledge in a thread, as a watch does."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            received = feed.receive(5000)
            feed.acknowledge(received)
            if not received.more:
                feed.wait(0.5)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        feed.close()


def postgres_round(server: PostgresServer, way: str, work: dict[str, str]) -> Measured:
    """Return CPU seconds and bytes of log for each kind of work."""
    measured = {}
    with ExitStack() as stack:
        name = stack.enter_context(server.database())
        connection = stack.enter_context(server.connect(name))
        connection.execute(TABLE)
        connection.execute(f"INSERT INTO ticket SELECT i, 'old', '{BODY}' FROM generate_series(1, {EXISTING}) i")
        url = server.url(name)
        if way != "none":
            for step in setup_for(url, "wal" if way == "wal" else "queue", [TICKET], PROJECT).steps:
                connection.execute(step.sql)
            if way == "notify":
                connection.execute(NOTIFY)
                listener = stack.enter_context(server.connect(name))
                listener.execute("LISTEN bench")
            if way == "wal":
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                ledger = stack.enter_context(closing(Ledger(URL.create("sqlite", database=f"{folder}/ledger.db"))))
                stack.callback(connection.execute, "SELECT pg_drop_replication_slot('rag_index_bench')")
                stack.enter_context(reading(WalFeed(url, [TICKET], PROJECT, ledger=ledger)))
            else:
                stack.enter_context(reading(open_queue(url, [TICKET], PROJECT)))
        connection.execute("CHECKPOINT")
        [process] = connection.execute("SELECT pg_backend_pid()").fetchone()
        for kind, statement in work.items():
            [log] = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            before = cpu_seconds(process)
            connection.execute(statement)
            after = cpu_seconds(process)
            [size] = connection.execute("SELECT pg_current_wal_insert_lsn() - %s", [log]).fetchone()
            measured[kind] = (after - before, float(size))
    return measured


def sqlite_round(way: str, transactions: int, rows: int) -> Measured:
    """Return CPU seconds for each kind of work; a transaction waits for no disk."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")
            db.execute(TABLE)
            db.execute("BEGIN")
            db.executemany("INSERT INTO ticket VALUES (?, 'old', ?, 0)", ((i, BODY) for i in range(1, EXISTING)))
            db.execute("COMMIT")
            if way == "queue":
                for step in setup_for(URL.create("sqlite", database=str(path)), "queue", [TICKET], PROJECT).steps:
                    db.execute(step.sql)

            def measure(kind: str, statement: str, values: list[Any], *, once: bool = False) -> None:
                before = time.process_time()
                if once:
                    db.execute("BEGIN")
                    db.executemany(statement, values)
                    db.execute("COMMIT")
                else:
                    for value in values:
                        db.execute(statement, value)
                measured[kind] = (time.process_time() - before, 0.0)

            new = [(100_000_000 + i, BODY) for i in range(transactions)]
            many = [(200_000_000 + i, BODY) for i in range(rows)]
            old = [(f"{BODY}{i}", 1 + i % EXISTING) for i in range(transactions)]
            measure("insert, a row a transaction", "INSERT INTO ticket VALUES (?, 'new', ?, 0)", new)
            measure("update, a row a transaction", "UPDATE ticket SET body = ? WHERE id = ?", old)
            seen = [(key,) for _, key in old]
            measure("update of another column", "UPDATE ticket SET seen = seen + 1 WHERE id = ?", seen)
            measure("delete, a row a transaction", "DELETE FROM ticket WHERE id = ?", [(key,) for key, _ in new])
            measure("insert, one transaction", "INSERT INTO ticket VALUES (?, 'new', ?, 0)", many, once=True)
    return measured


def report(title: str, rounds: list[dict[str, Measured]], per: Callable[[str], int]) -> None:
    """Print medians relative to `none`; `rounds` has the measurements of each round by way."""
    print(f"\n{title}")
    ways = list(rounds[0])
    for kind in rounds[0]["none"]:
        cells = []
        for way in ways:
            ratios = [one[way][kind][0] / max(one["none"][kind][0], 1e-9) for one in rounds]
            size = statistics.median(one[way][kind][1] for one in rounds) / per(kind)
            spread = "" if way == "none" else f" ({min(ratios):.2f} to {max(ratios):.2f})"
            cpu = statistics.median(one[way][kind][0] for one in rounds) / per(kind) * 1e6
            value = f"{cpu:6.1f} µs" if way == "none" else f"x{statistics.median(ratios):.2f}{spread}"
            cells.append(f"{way} {value}{f', {size:.0f} bytes of log' if size else ''}")
        print(f"  {kind}: {'; '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transactions", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=50_000)
    given = parser.parse_args()
    work = postgres_work(given.transactions, given.rows)

    def per(kind: str) -> int:
        return given.rows if "one " in kind else given.transactions

    sqlite_rounds = [
        {way: sqlite_round(way, given.transactions, given.rows) for way in ("none", "queue")}
        for _ in range(given.rounds)
    ]
    report("SQLite, CPU of the writer a row", sqlite_rounds, per)
    programs = find_postgres()
    if not isinstance(programs, Path):
        sys.exit(programs)
    with (
        PostgresServer(programs, "wal_level=replica") as plain,
        PostgresServer(programs, "wal_level=logical") as logical,
    ):
        servers = {"none": plain, "wal": logical, "queue": plain, "notify": plain}
        rounds = [
            {way: postgres_round(server, way, work) for way, server in servers.items()} for _ in range(given.rounds)
        ]
    report("PostgreSQL, CPU of the writer's process a row", rounds, per)


if __name__ == "__main__":
    main()
