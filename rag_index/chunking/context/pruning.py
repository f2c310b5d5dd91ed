"""The deletion of contexts that nobody needs any longer from the cache.

A context is needed as long as a document of its text is indexed with its recipe, however long ago it was used: without
it, a rebuild asks the model again. Others are kept for some time, because a text may come back.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.chunking.context.cache import contexts, day_of, open_engine
from rag_index.database.upsert import insert_for
from rag_index.database.urls import first_line, is_file, redacted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

__all__ = ["count_contexts", "prune_contexts", "recipe_in"]

MAX_ROWS = 10_000
"""Rows that are deleted in a transaction, so that processes that write contexts do not wait for long."""

log = logging.getLogger("rag_index.chunking.context")

_indexed = sa.Table(
    "rag_index_indexed_texts",
    sa.MetaData(),
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("document", sa.LargeBinary, primary_key=True),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,
)


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
    """Delete the contexts that were not used since the time `before` and that no indexed document needs.

    `indexed` yields recipes with text hashes of documents; it is called if something may have to be deleted. What it
    raises is raised here, before anything is deleted. Return how many contexts are deleted; a fault of the database is
    logged and left to the next run. Contexts that are needed count as used today, so that they are not looked at again
    for some time.
    """
    old = contexts.c.used_day < day_of(before)
    c = contexts.c
    deleted = 0
    try:
        with _opened(url) as connection:
            if connection is None or not connection.scalar(sa.select(sa.exists().where(old))):
                return 0
            connection.rollback()  # no snapshot is held while the ledger is read
            _note(connection, indexed())
            same = sa.exists().where(_indexed.c.recipe == c.recipe, _indexed.c.document == c.document)
            with connection.begin():
                connection.execute(contexts.update().where(old, same).values(used_day=day_of(clock())))
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


def count_contexts(url: URL) -> int:
    """Count the contexts of a cache; 0 if there is none, or if it cannot be read."""
    try:
        with _opened(url) as connection:
            if connection is None:
                return 0
            return int(connection.scalar(sa.select(sa.func.count()).select_from(contexts)) or 0)
    except (exc.SQLAlchemyError, OSError, ImportError):
        return 0


@contextmanager
def _opened(url: URL) -> Iterator[Connection | None]:
    """Connect to the cache; None if there is none, which is not made then."""
    if is_file(url) and not Path(str(url.database)).is_file():
        yield None
        return
    engine = open_engine(url, create=False)
    try:
        with engine.connect() as connection:
            there = sa.inspect(connection).has_table(contexts.name)
            connection.rollback()
            yield connection if there else None
    finally:
        engine.dispose()


def _note(connection: Connection, indexed: Iterable[tuple[str, Sequence[bytes]]]) -> None:
    """Write the recipes and text hashes into a temporary table, which ends with the connection."""
    with connection.begin():
        connection.execute(sa.schema.CreateTable(_indexed))
    insert = insert_for(connection.dialect)(_indexed).on_conflict_do_nothing()
    for recipe, documents in indexed:
        if documents:
            with connection.begin():
                connection.execute(insert, [{"recipe": recipe, "document": one} for one in documents])
