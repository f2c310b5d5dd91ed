"""A cache of the contexts that were written before: a database table that processes share and fill as answers arrive.

Deleting it costs time and nothing else. If it cannot be read or written, contexts are requested from the model all the
same, and one warning says so. Rows that nobody needs are pruned some time after they were written (`prune_contexts`).
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc

from rag_index.database.drivers import connect_options, first_line, insert_for, is_file, redacted_url, set_pragmas
from rag_index.database.files import private_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

FILE_NAME = "contexts.db"
DAY = 86_400.0
T = TypeVar("T")
log = logging.getLogger("rag_index.chunking.context")
_metadata = sa.MetaData()
contexts = sa.Table(
    "rag_index_contexts",
    _metadata,
    sa.Column("document", sa.LargeBinary, primary_key=True),
    sa.Column("chunk", sa.LargeBinary, primary_key=True),
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("used_day", sa.Integer, nullable=False),  # written, or found to be needed when old rows were pruned
    sqlite_with_rowid=False,
)

sa.Index("rag_index_contexts_by_use", contexts.c.used_day)
MAX_ROWS = 10_000
"""Rows that are deleted in a transaction, so that processes that write contexts do not wait for long."""


def _day_of(time: float) -> int:
    return int(time // DAY)


def cache_url(ledger: URL) -> URL:
    """Return where contexts are kept: in a file beside the ledger, or in the ledger's database if that is a server."""
    return ledger.set(database=str(Path(str(ledger.database)).parent / FILE_NAME)) if is_file(ledger) else ledger


class ContextCache:
    """The contexts of one recipe. Documents and chunks are given by their hashes (`canonical.hash_text`).

    It is safe to share between threads, and does not raise the errors of the database.
    """

    def __init__(self, url: URL, recipe: str, *, clock: Callable[[], float] = time.time) -> None:
        self._url, self._recipe, self._clock = url, recipe, clock
        self._engine: sa.Engine | None = None
        self._unusable = False

    def known(self, documents: Collection[bytes]) -> dict[bytes, dict[bytes, str]]:
        """Return the contexts of each document's chunks, by the hash of the chunk."""
        c = contexts.c
        statement = sa.select(c.chunk, c.context).where(c.document == sa.bindparam("wanted"), c.recipe == self._recipe)

        def read(connection: Connection) -> dict[bytes, dict[bytes, str]]:
            return {
                one: {bytes(chunk): text for chunk, text in connection.execute(statement, {"wanted": one})}
                for one in documents
            }

        return self._in_transaction(read, {one: {} for one in documents})

    def put(self, document: bytes, chunk: bytes, context: str) -> None:
        """Write a context at once, unless there is one for this chunk already."""
        row = {"document": document, "chunk": chunk, "recipe": self._recipe}
        now = self._clock()
        values = {**row, "context": context, "made_at": now, "used_day": _day_of(now)}

        def insert(connection: Connection) -> None:
            connection.execute(insert_for(connection.dialect)(contexts).on_conflict_do_nothing(), values)

        self._in_transaction(insert, None)

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _in_transaction(self, work: Callable[[Connection], T], default: T) -> T:
        """Return the result of the work, or `default` if the database cannot be used or could not be used before."""
        if self._unusable:
            return default
        try:
            if self._engine is None:
                if is_file(self._url):
                    private_file(Path(str(self._url.database)))
                self._engine = _open_engine(self._url)
                _create_table(self._engine)
            with self._engine.begin() as connection:
                return work(connection)
        except (exc.SQLAlchemyError, OSError, ImportError) as error:
            self._unusable = True
            log.warning(
                "contexts are not kept for the next run: %s cannot be used: %s",
                redacted_url(self._url),
                first_line(error, self._url),
            )
            return default


def _open_engine(url: URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args=connect_options(url))
    if is_file(url):

        @event.listens_for(engine, "connect")
        def set_up(connection: Any, _record: object) -> None:
            set_pragmas(connection, ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"))

    return engine


def _create_table(engine: sa.Engine) -> None:
    """Create what is missing, also if another process creates it at the same moment."""
    indexes: list[Any] = [sa.schema.CreateIndex(index, if_not_exists=True) for index in contexts.indexes]
    for last in (False, True):
        try:
            with engine.begin() as connection:
                for statement in (sa.schema.CreateTable(contexts, if_not_exists=True), *indexes):
                    connection.execute(statement)
            return
        except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError):
            if last:
                raise


def recipe_in(chunking: str) -> str:
    """Return the fingerprint of the recipe that the fingerprint of a chunker names; "" if no model writes contexts."""
    found = re.search(r"/context-([0-9a-f]{16})(?=/|$)", chunking)
    return found[1] if found else ""


def prune_contexts(
    url: URL,
    before: float,
    indexed: Callable[[], Iterable[tuple[str, Sequence[bytes]]]],
    *,
    clock: Callable[[], float] = time.time,
) -> int:
    """Delete the contexts that were written before a time and that no indexed document needs.

    `indexed` yields recipes with text hashes of documents; it is called if something may have to be deleted. What it
    raises is raised here, before anything is deleted. Return how many contexts are deleted; a fault of the database is
    logged and left to the next run. Contexts that are needed count as written today, so that they are not looked at
    again for some time.
    """
    c = contexts.c
    old = c.used_day < _day_of(before)
    needed = contexts.update().where(old, c.recipe == sa.bindparam("in_use"), c.document == sa.bindparam("indexed"))
    needed = needed.values(used_day=_day_of(clock()))
    deleted = 0
    try:
        with _opened(url) as connection:
            if connection is None or not connection.scalar(sa.select(sa.exists().where(old))):
                return 0
            connection.rollback()  # no snapshot is held while the ledger is read
            for recipe, documents in indexed():
                if documents:
                    with connection.begin():
                        connection.execute(needed, [{"in_use": recipe, "indexed": one} for one in documents])
            key = (c.document, c.chunk, c.recipe)
            some = sa.select(*key).where(old).limit(MAX_ROWS)
            more = MAX_ROWS
            while more == MAX_ROWS:
                with connection.begin():
                    more = connection.execute(contexts.delete().where(sa.tuple_(*key).in_(some))).rowcount
                deleted += more
    except (exc.SQLAlchemyError, OSError, ImportError) as error:
        log.warning("old contexts were not deleted from %s: %s", redacted_url(url), first_line(error, url))
    return deleted


@contextmanager
def _opened(url: URL) -> Iterator[Connection | None]:
    """Connect to the cache; None if there is none, which is not made then."""
    if is_file(url) and not Path(str(url.database)).is_file():
        yield None
        return
    engine = _open_engine(url)
    try:
        with engine.connect() as connection:
            there = sa.inspect(connection).has_table(contexts.name)
            connection.rollback()
            yield connection if there else None
    finally:
        engine.dispose()
