"""Asking indexes many queries for which nobody waits: with more time for each, and again after a passing fault."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, TransientError
from rag_index.retrieve import ALL_GROUPS, Retriever
from rag_index.stores import lend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.retrieve.question import Asked
    from rag_index.settings import IndexSettings, Settings
    from rag_index.stores.protocol import Store

    Answer = Asked | RagIndexError
    """What a query finds, or why no index answers it."""

AT_ONCE = 8
PROBES = 3
"""Queries that are asked one after another, until one is answered: if none is, the others are not asked."""
TRIES, PAUSE = 3, 2.0
"""How often a query with a passing fault is asked, and the seconds before it is tried again."""
SECONDS = 120.0
"""How long one search may take, unless the settings give it longer."""


def ask_indexes(settings: Settings, queries: Sequence[str], indexes: Sequence[str], limit: int) -> list[Answer]:
    """Return what these indexes, searched together, have for each query, for `limit` documents.

    Raises the error of the first query if none of the first few is answered.
    """
    with Retriever(_patient(settings, len(queries))) as retriever:
        return retriever.run(_collect(retriever, queries, indexes, limit))


def ask_collections(
    settings: Settings,
    index: IndexSettings,
    store: Store,
    collections: Sequence[str],
    queries: Sequence[str],
    limit: int,
) -> list[list[Asked]]:
    """Return what each of these collections of an index has for each query. The store stays open.

    Raises what a search raises.
    """
    named = {f"collection {number}": name for number, name in enumerate(collections)}
    copies = [index.model_copy(update={"name": name}) for name in named]
    searched = _patient(settings, len(queries)).model_copy(update={"indexes": copies})

    with Retriever(searched, open_store=partial(lend, store), collections=named) as retriever:
        found = [retriever.run(_collect(retriever, queries, [name], limit)) for name in named]
    for error in (one for answers in found for one in answers if isinstance(one, RagIndexError)):
        raise error
    return [[one for one in answers if not isinstance(one, RagIndexError)] for answers in found]


def _patient(settings: Settings, queries: int) -> Settings:
    """Return settings for searches that have time, and keep the vectors of all queries."""
    limits = {name: max(SECONDS, getattr(settings.retrieve, name)) for name in ("timeout", "index_timeout")}
    changes = {**limits, "cache_size": queries}
    return settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update=changes)})


async def _collect(retriever: Retriever, queries: Sequence[str], indexes: Sequence[str], limit: int) -> list[Answer]:
    """Ask each query, again if its fault may pass. Documents are found whoever they are for."""
    free = asyncio.Semaphore(AT_ONCE)

    async def ask(query: str) -> Answer:
        async with free:
            for tried in range(1, TRIES + 1):
                found: Answer
                try:
                    found = await retriever.candidates(query, indexes=indexes, limit=limit, groups=ALL_GROUPS)
                except RagIndexError as error:
                    found = error
                if not isinstance(found, TransientError) or tried == TRIES:
                    break
                await asyncio.sleep(PAUSE * tried)
        return found

    first: list[Answer] = []
    while len(first) < min(PROBES, len(queries)) and all(isinstance(one, RagIndexError) for one in first):
        first.append(await ask(queries[len(first)]))
    if first and isinstance(first[-1], RagIndexError):
        raise next(one for one in first if isinstance(one, RagIndexError))
    return [*first, *await asyncio.gather(*map(ask, queries[len(first) :]))]
