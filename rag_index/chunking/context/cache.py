"""Contexts that were written before, in a table of its own: shared by processes, written as answers come.

It is a help and no record: whoever deletes it loses time. Where it cannot be read or written, contexts are asked for
all the same, and a warning says so once.
"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite

from rag_index.database.sqlite import set_pragmas
from rag_index.database.urls import first_line, is_file, redacted_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Connection

__all__ = ["FILE_NAME", "ContextCache", "cache_url", "hash_of"]

FILE_NAME = "contexts.db"
CONNECT_SECONDS = 10

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
    sqlite_with_rowid=False,
)


def hash_of(text: str) -> bytes:
    """What stands for a document or a chunk (16 bytes)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def cache_url(ledger: URL) -> URL:
    """Where contexts are kept: a file beside the ledger's, or the ledger's database where that is a server."""
    return ledger.set(database=str(Path(str(ledger.database)).parent / FILE_NAME)) if is_file(ledger) else ledger


class ContextCache:
    """Contexts of one recipe. Safe to share between threads; raises nothing that the database raises."""

    def __init__(self, url: URL, recipe: str, *, clock: Callable[[], float] = time.time) -> None:
        self._url, self._recipe, self._clock = url, recipe, clock
        self._engine: sa.Engine | None = None
        self._lost = False

    def known(self, document: bytes) -> dict[bytes, str]:
        """The contexts of a document's chunks, by the chunks' hashes."""
        c = contexts.c
        statement = sa.select(c.chunk, c.context).where(c.document == document, c.recipe == self._recipe)
        nothing: dict[bytes, str] = {}
        return self._in_transaction(
            lambda connection: {bytes(chunk): context for chunk, context in connection.execute(statement)}, nothing
        )

    def put(self, document: bytes, chunk: bytes, context: str) -> None:
        """Keep a context, at once; one that is there already stays."""
        row = {"document": document, "chunk": chunk, "recipe": self._recipe}
        values = {**row, "context": context, "made_at": self._clock()}

        def insert(connection: Connection) -> None:
            statement: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(contexts)
            connection.execute(statement.on_conflict_do_nothing(), values)

        self._in_transaction(insert, None)

    def close(self) -> None:
        """Give back connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _in_transaction(self, work: Callable[[Connection], T], otherwise: T) -> T:
        """What the work gives; `otherwise` where the database is lost, now or since before."""
        if self._lost:
            return otherwise
        try:
            if self._engine is None:
                self._engine = _opened(self._url)
            with self._engine.begin() as connection:
                return work(connection)
        except (exc.SQLAlchemyError, OSError, ImportError) as error:
            self._lost = True
            said = (redacted_url(self._url), first_line(error, self._url))
            log.warning("contexts are not kept for the next run, %s cannot be used: %s", *said)
            return otherwise


def _opened(url: URL) -> sa.Engine:
    """The engine, with the table made."""
    if is_file(url):
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = sa.create_engine(url, connect_args={} if is_sqlite else {"connect_timeout": CONNECT_SECONDS})
    if is_sqlite:
        event.listen(engine, "connect", _pragmas)
    try:
        _make_table(engine)
    except (exc.IntegrityError, exc.ProgrammingError):  # another process made it in the same moment
        _make_table(engine)
    return engine


def _make_table(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateTable(contexts, if_not_exists=True))


def _pragmas(connection: Any, _record: object) -> None:
    set_pragmas(connection, ("journal_mode=WAL", "synchronous=NORMAL"))
