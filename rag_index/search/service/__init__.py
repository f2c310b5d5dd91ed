"""The service: one process over one `Retriever`, asked over HTTP, by agents and from a page in a
browser.

`SearchService` is what all of them call; it knows nothing of HTTP. `app.make_app` puts it on the
web.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rag_index.components.embedders.bm25 import Bm25Model, encoder_of
from rag_index.core.files import unwritable
from rag_index.core.query_log import query_log
from rag_index.core.settings.index import CODE
from rag_index.errors import NotAllowed, RagIndexError, SettingsError, StoreError, StoreMismatch
from rag_index.search import Caller, Citation, Document, Retriever, SearchResult, Verified
from rag_index.search.access import AllGroups
from rag_index.search.json_answers import AsOfAnswer
from rag_index.search.service.models import DocumentQuery, FieldInfo, IndexInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.search.positions import Known
    from rag_index.search.results import FacetValue
    from rag_index.search.why import Why

__all__ = ["Caller", "SearchService"]

logger = logging.getLogger(__name__)
COMMONEST, COUNT_SECONDS = 5, 2.0
"""How many values of a field are named, and how long it may take to count them."""


def _order(wanted: DocumentQuery, numbers: Sequence[int]) -> list[int]:
    """Return the numbers of the chunks from which those that are wanted are taken, the most wanted
    first."""
    for name, first in (("first_chunk", wanted.first_chunk), ("around", wanted.around or 0)):
        if first > numbers[-1]:
            raise SettingsError(
                f"{name} is {first}, but the chunks of the document are 0 to {numbers[-1]}"
            )
    if wanted.around is not None:
        at = wanted.around
        return sorted(numbers, key=lambda number: (abs(number - at), number < at))
    return [number for number in numbers if number >= wanted.first_chunk]


def _find(document: Document, words: str, max_chars: int | None, index: IndexSettings) -> Document:
    """Return the chunks that have the most of the words, as many whole ones as fit, and one at
    least."""
    encoder = encoder_of(Bm25Model(index.language, identifiers=index.kind == CODE))
    wanted = encoder.words(words)
    if not wanted:
        raise SettingsError(f"find has no word that could be looked for: {words!r}")
    matched = encoder.matched(wanted, [chunk.text for chunk in document.chunks])
    judged = [
        replace(chunk, matched=own)
        for chunk, own in zip(document.chunks, matched, strict=True)
        if own
    ]
    found = sorted(judged, key=lambda chunk: -len(chunk.matched))
    sizes = accumulate(len(chunk.text) for chunk in found)
    fitting = sum(max_chars is None or size <= max_chars for size in sizes)
    chunks = tuple(sorted(found[: max(1, fitting)], key=lambda chunk: chunk.chunk))
    part = replace(document, chunks=chunks, matching_chunks=len(found))
    return (
        replace(part, citation=str(Citation.of(part, part.as_of, part.seal_key)))
        if chunks
        else part
    )


class SearchService:
    """One retriever for all callers. Each call names its caller, who sees no more than they may.

    It belongs to one event loop.
    """

    def __init__(self, settings: Settings, retriever: Retriever) -> None:
        self.settings, self.retriever = settings, retriever
        self._log, self._log_failure = query_log(settings.serve), ""

    async def search(self, query: str, caller: Caller, **options: Any) -> SearchResult:
        """Return the documents that fit a query best, of those that the caller may see.

        `options` are those of `Retriever.search`, without the groups. Raises what that raises:
        SettingsError for what the caller got wrong.
        """
        found = await self.retriever.search(query, groups=caller, **options)
        like, indexes = options.get("like"), options.get("indexes")
        await self._note(
            caller,
            **({"like": like} if like else {"query": query}),
            indexes=indexes or [index.name for index in self.settings.indexes],
            hits={f"{hit.index}/{hit.document_id}": hit.relevance for hit in found.hits},
            nothing_fits=found.nothing_fits,
            found=bool(found.hits or found.offset) and not found.nothing_fits,
        )
        return found

    async def why(
        self,
        caller: Caller,
        query: str,
        document: str,
        groups: list[str] | None = None,
        **options: Any,
    ) -> Why:
        """Return why a search does not find a document. Raises NotAllowed, and what `Retriever.why`
        raises."""
        if not (
            caller.has_all_rights if groups is None else caller.sees_all
        ):  # no one claims groups for himself
            remedy = "`rag-index serve --new-token NAME --all-groups` makes a token"
            raise NotAllowed(
                f"why a document is not found is told to callers with all rights: {remedy}"
            )
        asked_for = caller if groups is None else groups
        return await self.retriever.why(
            query, document, all_groups=caller.sees_all, groups=asked_for, **options
        )

    async def document(
        self,
        index: str,
        document_id: str,
        caller: Caller,
        wanted: DocumentQuery,
        *,
        opened: str | None = None,
    ) -> Document:
        """Return the chunks that are wanted of a document that the caller may see; `opened` is the
        query that found it.

        Raises UnknownIndex, DocumentNotFound (also for a document that is not for the caller),
        SettingsError if the document has no such chunk or `find` no word, and other RagIndexError.
        """
        if wanted.find is not None:
            found = await self.retriever.document(index, document_id, groups=caller)
            settings = self.settings.index(index)
            found = await asyncio.to_thread(
                _find, found, wanted.find, wanted.max_chars, settings
            )  # may take seconds
        else:
            found = await self.retriever.document(
                index,
                document_id,
                groups=caller,
                choose=partial(_order, wanted),
                max_chars=wanted.max_chars,
            )
        if opened is not None:
            await self._note(caller, query=opened, opened=f"{index}/{document_id}")
        return found

    async def _note(self, caller: Caller, **entry: Any) -> None:
        """Write an entry into the log of queries, if there is one. A log that cannot be written
        costs no answer."""
        if self._log is None:
            return
        groups = ["all groups"] if isinstance(caller.groups, AllGroups) else sorted(caller.groups)
        try:
            await asyncio.to_thread(self._log.add, {"groups": groups, **entry})
        except OSError as error:
            if (
                reason := unwritable(self._log.path, error, "name another file")
            ) != self._log_failure:
                logger.warning("[serve] query_log %s", reason)
            self._log_failure = reason

    async def verify(self, caller: Caller, citations: Sequence[str]) -> list[Verified]:
        """Return what became of each citation. Raises what `Retriever.verify` raises."""
        return [await self.retriever.verify(one, groups=caller) for one in citations]

    async def indexes(self, caller: Caller) -> list[IndexInfo]:
        """Return the indexes of the settings. Raises what ledger and store raise."""
        known, closed = await self.retriever.checked(counts=True), self.retriever.closed(caller)
        return [_info(index, known, closed=index.name in closed) for index in self.settings.indexes]

    async def commonest_values(
        self, caller: Caller, index: str
    ) -> Mapping[str, Sequence[FacetValue]]:
        """Return the commonest values of keyword fields among the documents that the caller may
        see.

        A field whose values are all different is left out. There are none where they cannot be
        counted at once.
        """
        with suppress(RagIndexError):
            found = await self.retriever.facets(
                indexes=[index], groups=caller, limit=COMMONEST, timeout=COUNT_SECONDS
            )
            return {
                name: some for name, some in found.fields.items() if some and some[0].documents > 1
            }
        return {}

    async def check_ready(self) -> None:
        """Raise StoreError if no index can be searched, and what ledger and store raise if they do
        not answer.

        Raises StoreMismatch if the store is not the one of the ledger.
        """
        known = await self.retriever.checked()
        if not known.live:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        for problem in known.problems.values():
            raise StoreMismatch(problem)


def _info(index: IndexSettings, known: Known, *, closed: bool) -> IndexInfo:
    """Return what the service says of an index. One with access rights has no counts."""
    kinds, counted = index.indexed_fields, known.totals.get(index.name)
    live = index.name in known.live and index.name not in known.problems
    fields = (
        None
        if index.fields is None
        else [
            FieldInfo(name=name, kind=kinds.get(name), label=index.labels.get(name, ""))
            for name in index.fields
        ]
    )
    documents, chunks = (
        (counted.documents, counted.points) if counted else (None, None) if live else (0, 0)
    )
    if index.access is not None:
        documents, chunks = None, None
    return IndexInfo(
        name=index.name,
        kind=index.kind,
        language=index.language,
        search=index.search,
        fields=fields,
        live=live,
        documents=documents,
        chunks=chunks,
        as_of=AsOfAnswer.model_validate(known.as_of(index.name, known.newest(index.name))),
        closed=closed,
    )
