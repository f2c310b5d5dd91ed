"""Digests of the source's rows: what a scan costs in which nothing changed, beyond the database's own query.

    python benchmarks/digest.py [postgresql|sqlite] [--rows 1000000] [--ledger sqlite|postgresql] [--only-digests]

The table is made by this script, with texts of about 400 characters, and the ledger as a first run leaves it, but
nothing is embedded and there is no store. Then follow, each with its seconds and the seconds of CPU of this process:

    everything read   the scan as it is without digests: every row is read and compared with the ledger (this is left
                      out with --only-digests)
    the query         the query of the digests alone, as the database answers it
    nothing changed   the scan with digests: the query, the comparison, the rest of a run's work on the ledger
    a few changed     the same after a change of 100 rows next to each other, and after one of 100 rows everywhere

For SQLite the query is computed in this process, so there is no line of its own.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.components.ledger import Ledger
from rag_index.components.sources import scan_settings
from rag_index.components.sources.digest import DigestSource
from rag_index.components.sources.engine import open_read_only
from rag_index.components.sources.scan_state import ScanState
from rag_index.components.sources.sql import SqlSource
from rag_index.core.database import database_url
from rag_index.core.reports.outcome import IndexOutcome
from rag_index.core.settings import IndexSettings
from rag_index.etl.delete_guard import DeleteGuard
from tests.live.postgres import PostgresServer, find_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from rag_index.components.ledger import Collection

PAGE_ROWS = 20_000
INDEX = IndexSettings(name="n", table="note", key="id", text=["title", "body"], payload=["author", "priority"])
BODY = "The printer on the third floor does not answer any more since the update of yesterday, please help us soon. "
EVERYWHERE, TOGETHER = 100, 100


class Timed:
    """The seconds of a block, and the seconds of CPU of this process in it."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def block(self, what: str, rows: int) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"  {what:<34} {self.wall:8.2f} s   CPU {self.cpu:8.2f} s   {self.wall / rows * 1e6:8.2f} µs a row",
              flush=True)  # fmt: skip


def fill_postgresql(server: PostgresServer, database: str, rows: int) -> URL:
    with server.connect(database) as connection:
        connection.execute(
            "CREATE TABLE note (id bigint PRIMARY KEY, title text, body text, author text, priority int)"
        )
        connection.execute(
            "INSERT INTO note SELECT i, 'Note ' || i, left(repeat(%s, 6), 200 + (i %% 400)::int) || i, "
            f"'author ' || i %% 7, i %% 3 FROM generate_series(1, {rows}) AS i",
            (BODY,),
        )
        connection.execute("VACUUM ANALYZE note")
    return server.url(database)


def fill_sqlite(file: Path, rows: int) -> URL:
    texts = [(BODY * 6)[: 200 + number] for number in range(400)]
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, body TEXT, author TEXT, priority INTEGER)")
        db.executemany(
            "INSERT INTO note VALUES (?, ?, ?, ?, ?)",
            ((i, f"Note {i}", f"{texts[i % 400]}{i}", f"author {i % 7}", i % 3) for i in range(1, rows + 1)),
        )
    return database_url(f"sqlite:///{file}", file.parent)


def pages(source: SqlSource) -> Iterator[Any]:
    cursor = None
    while True:
        page = source.page(cursor, PAGE_ROWS)
        yield page
        if (cursor := page.cursor) is None:
            return


def settings_of(url: URL) -> Any:
    """Return what a scan asks of the settings."""
    return SimpleNamespace(source_url=url)


def scan(url: URL, ledger: Ledger, collection: Collection, *, digests: bool, first: bool = False) -> tuple[int, int]:
    """Scan as a run does; return the number of rows that were read, and of those that had changed."""
    kind = DigestSource if digests else SqlSource
    with closing(kind(url, INDEX, timeout=3600)) as source:
        outcome = IndexOutcome("n")
        before = ledger.count_documents(collection)
        ledger.note_size(collection.id, before.whole)
        ledger.begin_scan("a")
        state = ScanState(INDEX, ledger, collection.id, settings=scan_settings(settings_of(url), INDEX), full=first)
        source.use_scan_state(state)
        source.count()
        read = changed = 0
        for page in pages(source):
            documents = page.documents
            state.see(page, outcome)
            state.note(page)
            known = ledger.known(collection.id, documents.keys)
            rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
            new = [row for row in rows if (k := known.get(row[0])) is None or (k.text_hash, k.payload_hash) != row[1:]]
            if new:
                ledger.mark_pending(collection.id, [row[0] for row in new])
                ledger.record(collection.id, [(*row, 1) for row in new])
            state.commit()
            read, changed = read + len(documents), changed + len(new)
        if ledger.find_gone(collection.id) or DeleteGuard(ledger, collection, 0.2, before=before).hold_back():
            sys.exit("the scan would delete documents, although the source has all of them")
        ledger.forget_unseen_failures(collection.id)
        with ledger.transaction():
            ledger.release(collection.id)
            ledger.note_whole(collection.id)
        ledger.totals(collection.id)
        if digests:
            state.complete()
        return read, changed


def query(url: URL, ledger: Ledger, collection: Collection) -> None:
    """Ask the database for the digests, and do nothing with them."""
    with closing(DigestSource(url, INDEX, timeout=3600)) as source:
        decides = scan_settings(settings_of(url), INDEX)
        source.use_scan_state(ScanState(INDEX, ledger, collection.id, settings=decides, full=True))
        source.count()
        statement, engine = source.digest_statement(), open_read_only(url)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            with Timed().block("the query", max(1, source.count())):
                found = connection.execute(statement).cursor
                while found is not None and found.fetchmany(10_000):
                    pass
        engine.dispose()


def change(url: URL, server: PostgresServer | None, where: str) -> None:
    statement = f"UPDATE note SET priority = priority + 1 WHERE {where}"
    if server is None:
        with closing(sqlite3.connect(str(url.database))) as db, db:
            db.execute(statement)
        return
    with server.connect(str(url.database)) as connection:
        connection.execute(statement)


def measure(given: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
    server = None
    if "postgresql" in (given.source, given.ledger):
        programs = find_postgres()
        if not isinstance(programs, Path):
            sys.exit(programs)
        server = stack.enter_context(PostgresServer(programs))
    on_server = server if given.source == "postgresql" else None
    if on_server is not None:
        url = fill_postgresql(on_server, stack.enter_context(on_server.database()), given.rows)
    else:
        url = fill_sqlite(folder / "source.db", given.rows)
    ledger_url = database_url(f"sqlite:///{folder}/ledger.db", folder)
    if given.ledger == "postgresql" and server is not None:
        ledger_url = server.url(stack.enter_context(server.database()))
    ledger = stack.enter_context(closing(Ledger(ledger_url)))
    values = {"embedder_fingerprint": "e", "embedder": "e", "chunking": "c", "dimension": 8, "state": "ready"}
    collection = ledger.add_collection(alias="a", name="a__1", store_id="s", **values)
    rows, everywhere = given.rows, max(1, given.rows // EVERYWHERE)

    print(f"{rows:,} rows in {given.source}, ledger in {given.ledger}", flush=True)
    timed = Timed()
    with timed.block("first scan, which fills the ledger", rows):
        scan(url, ledger, collection, digests=True, first=True)
    if not given.only_digests:
        with timed.block("everything read", rows):
            scan(url, ledger, collection, digests=False)
    for what, where, expected in (
        ("nothing changed", "1 = 0", 0),
        (f"{TOGETHER} changed together", f"id <= {TOGETHER}", TOGETHER),
        (f"{EVERYWHERE} changed everywhere", f"id % {everywhere} = 0", EVERYWHERE),
    ):
        if on_server is not None:
            query(url, ledger, collection)
        change(url, on_server, where)
        with timed.block(what, rows):
            read, changed = scan(url, ledger, collection, digests=True)
        print(f"{'':38}{read:,} rows were read, {changed:,} had changed")
        if changed != expected:
            sys.exit(f"{expected} rows had changed, {changed} were found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ledger", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--only-digests", action="store_true")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        measure(given, folder, stack)


if __name__ == "__main__":
    main()
