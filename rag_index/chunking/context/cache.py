"""A cache of the contexts that were written before: a database table that processes share and fill as answers arrive.

Deleting it costs time and nothing else. If it cannot be read or written, contexts are requested from the model all the
same, and one warning says so.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc

from rag_index.database.private import private_file
from rag_index.database.sqlite import set_pragmas
from rag_index.database.upsert import insert_for
from rag_index.database.urls import first_line, is_file, redacted_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Connection

__all__ = ["FILE_NAME", "ContextCache", "cache_url"]

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

    def known(self, document: bytes) -> dict[bytes, str]:
        """Return the contexts of a document's chunks, by the hash of the chunk."""
        c = contexts.c
        statement = sa.select(c.chunk, c.context).where(c.document == document, c.recipe == self._recipe)
        none: dict[bytes, str] = {}
        return self._in_transaction(
            lambda connection: {bytes(chunk): context for chunk, context in connection.execute(statement)}, none
        )

    def put(self, document: bytes, chunk: bytes, context: str) -> None:
        """Write a context at once, unless there is one for this chunk already."""
        row = {"document": document, "chunk": chunk, "recipe": self._recipe}
        values = {**row, "context": context, "made_at": self._clock()}

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
                self._engine = _open_engine(self._url)
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
    """Return an engine for the database, in which the table exists."""
    if is_file(url):
        private_file(Path(str(url.database)))
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = sa.create_engine(url, connect_args={} if is_sqlite else {"connect_timeout": CONNECT_SECONDS})
    if is_sqlite:
        event.listen(engine, "connect", _set_pragmas)
    try:
        _create_table(engine)
    except (exc.IntegrityError, exc.ProgrammingError):  # another process created it at the same moment
        _create_table(engine)
    return engine


def _create_table(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateTable(contexts, if_not_exists=True))


def _set_pragmas(connection: Any, _record: object) -> None:
    set_pragmas(connection, ("journal_mode=WAL", "synchronous=NORMAL"))
