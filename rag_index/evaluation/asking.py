"""Asking an index, or several at once, the queries of a golden file. Each query is embedded and asked once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, SettingsError
from rag_index.retrieve import ALL_GROUPS, Retriever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.evaluation.golden import GoldenQuery
    from rag_index.retrieve.index_reader import Candidates
    from rag_index.settings import Settings

Document = tuple[str, str]
"""An index and the id of a document in it."""

AT_ONCE = 8
"""Queries that are under way at once."""
PROBES = 3
"""Queries that are asked one after another, until one is answered: if none is, the others are not asked."""
MIN_TIMEOUT, MIN_INDEX_TIMEOUT = 120.0, 60.0
"""Time limits of a search here, in seconds, unless the settings have longer ones: nobody waits for a single answer."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query, and the grade of each document that it should find."""

    query: str
    relevant: Mapping[Document, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A query with its candidates, or with the reason why there are none at all."""

    wanted: Wanted
    candidates: Candidates | None
    error: str = ""


def wanted_of(golden: Iterable[GoldenQuery], indexes: Sequence[str], settings: Settings) -> list[Wanted]:
    """Return the queries whose documents are in these indexes. Equal queries become one with all their documents.

    Raises SettingsError if a query names an unknown index, or none although there are several, or if no query is left.
    """
    found: dict[str, dict[Document, int]] = {}
    for one in golden:
        if one.index is None and len(indexes) > 1:
            raise SettingsError(
                f'the query {one.query!r} names no index, but {len(indexes)} are evaluated: add "index" to its line, '
                f"or name one index with --index"
            )
        index = indexes[0] if one.index is None else settings.index(one.index).name
        if index in indexes:
            relevant = found.setdefault(one.query, {})
            relevant.update({(index, document_id): grade for document_id, grade in one.relevant.items()})
    if not found:
        raise SettingsError(
            f"no query has a relevant document in {', '.join(indexes)}: name other indexes with --index"
        )
    return [Wanted(query, relevant) for query, relevant in found.items()]


def ask(
    settings: Settings,
    wanted: Sequence[Wanted],
    indexes: Sequence[str],
    limit: int,
    on_answer: Callable[[int], None] = lambda _: None,
) -> list[Asked]:
    """Ask these indexes all queries, for `limit` documents each. `on_answer` gets the number of queries done.

    Raises the error of the first query if no index answers any of the first few.
    """
    return asyncio.run(_ask(_patient(settings), wanted, indexes, limit, on_answer))


async def _ask(
    settings: Settings, wanted: Sequence[Wanted], indexes: Sequence[str], limit: int, on_answer: Callable[[int], None]
) -> list[Asked]:
    done = 0
    errors: list[RagIndexError] = []
    free = asyncio.Semaphore(AT_ONCE)

    async def ask_one(one: Wanted) -> Asked:
        nonlocal done
        async with free:
            try:
                found = await retriever.candidates(one.query, indexes=indexes, limit=limit, groups=ALL_GROUPS)
                asked = Asked(one, found)
            except RagIndexError as exc:
                errors.append(exc)
                asked = Asked(one, None, str(exc))
        done += 1
        on_answer(done)
        return asked

    async with Retriever(settings) as retriever:
        first: list[Asked] = []
        while len(first) < min(PROBES, len(wanted)) and all(one.candidates is None for one in first):
            first.append(await ask_one(wanted[len(first)]))
        if all(one.candidates is None for one in first):
            raise errors[0]
        return [*first, *await asyncio.gather(*map(ask_one, wanted[len(first) :]))]


def _patient(settings: Settings) -> Settings:
    """Return the settings with time limits for a search that nobody waits for."""
    retrieve = settings.retrieve
    limits = {
        "timeout": max(retrieve.timeout, MIN_TIMEOUT),
        "index_timeout": max(retrieve.index_timeout, MIN_INDEX_TIMEOUT),
    }
    return settings.model_copy(update={"retrieve": retrieve.model_copy(update=limits)})
