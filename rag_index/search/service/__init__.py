"""The service: one process over one `Retriever`, for programs over HTTP, for agents, and for people
with a page in the browser.

`SearchService` is what all three call; HTTP is in the modules beside it. The package may import
`rag_index.search` and what that may import. The command line alone imports it. These orders hold:

- A request passes the guard before any route: host, origin, caller, size, place
  (`guard.py`; tests/search/service/test_guard.py fails otherwise).
- The caller is found before the body is read, and each call of `SearchService` names it. A document
  that is hidden from the caller answers exactly like one that does not exist
  (tests/search/service/test_access.py, tests/search/test_access.py, tests/search/test_rights.py).
- What HTTP and MCP offer is held by tests/search/service/interface.json.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.components.embedders.bm25 import Bm25Model, encoder_of
from rag_index.core.files import unwritable
from rag_index.core.query_log import query_log
from rag_index.core.settings.index import CODE
from rag_index.errors import NotAllowed, RagIndexError, SettingsError, StoreError, StoreMismatch
from rag_index.search import Caller, Citation, Document, Retriever, SearchResult, Verified
from rag_index.search.access import AllGroups
from rag_index.search.json_answers import AsOfAnswer
from rag_index.search.results import DocumentChunk
from rag_index.search.service.models import DocumentQuery, FieldInfo, IndexInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.search.positions import Known
    from rag_index.search.results import FacetValue
    from rag_index.search.why import Why

__all__ = ["Caller", "SearchService"]

logger = logging.getLogger(__name__)
COMMONEST = 5
"""Values of a field that `list_indexes` names. Chosen; nothing depends on it."""
COUNT_SECONDS = 2.0
"""Time limit for counting these values. Without them the answer is still useful, so it is short."""


def _order(wanted: DocumentQuery, numbers: Sequence[int]) -> list[int]:
    """Return the numbers of the chunks to read, the most wanted first.

    Args:
        numbers: The chunks of the document, ascending, at least one.

    Raises:
        SettingsError: The document has no such chunk.
    """
    center = wanted.around
    last = numbers[-1]
    for name, first in (("first_chunk", wanted.first_chunk), ("around", center or 0)):
        if first > last:
            raise SettingsError(
                f"{name} is {first}, but the chunks of the document are 0 to {last}"
            )
    # Around chunk 7: 7, 8, 6, 9, 5, and so on.
    if center is not None:
        return sorted(numbers, key=lambda number: (abs(number - center), number < center))
    # From chunk 20 on: 20, 21, 22, and so on.
    return [number for number in numbers if number >= wanted.first_chunk]


def _find(document: Document, words: str, max_chars: int | None, index: IndexSettings) -> Document:
    """Return the document with those of its chunks that have the most of these words.

    As many chunks as fit into `max_chars` characters are returned, and at least one chunk if any
    has a word. Raises SettingsError if `words` has no word to search for.
    """
    encoder = encoder_of(Bm25Model(index.language, identifiers=index.kind == CODE))
    wanted = encoder.words(words)
    if not wanted:
        raise SettingsError(f"find has no word that could be looked for: {words!r}")
    matching = list[DocumentChunk]()
    matched_words = encoder.matched(wanted, [chunk.text for chunk in document.chunks])
    for chunk, matched in zip(document.chunks, matched_words, strict=True):
        if matched:
            matching.append(replace(chunk, matched=matched))
    matching.sort(key=lambda chunk: -len(chunk.matched))
    fitting = _fitting(matching, max_chars)
    chunks = tuple(sorted(fitting, key=lambda chunk: chunk.chunk))
    part = replace(document, chunks=chunks, matching_chunks=len(matching))
    # The citation is of the first returned chunk. Without a chunk, it stays that of the document.
    if not chunks:
        return part
    citation = Citation.of(part, part.as_of, part.seal_key)
    return replace(part, citation=str(citation))


def _fitting(chunks: Sequence[DocumentChunk], max_chars: int | None) -> list[DocumentChunk]:
    """Return the first of these chunks that fit into `max_chars` characters, at least one."""
    if max_chars is None:
        return list(chunks)
    fitting = list[DocumentChunk]()
    left = max_chars
    for chunk in chunks:
        left -= len(chunk.text)
        if left < 0 and fitting:
            break
        fitting.append(chunk)
    return fitting


class SearchService:
    """One retriever for all callers. Each call names its caller and returns only what that caller
    may see.

    It belongs to one event loop.
    """

    def __init__(self, settings: Settings, retriever: Retriever) -> None:
        self.settings = settings
        self.retriever = retriever
        self._log = query_log(settings.serve)
        self._log_failure = ""

    async def search(self, query: str, caller: Caller, **options: Any) -> SearchResult:
        """Return the documents that fit a query best, of those that the caller may see.

        `options` are those of `Retriever.search`, without the groups. Raises what that raises:
        SettingsError for a mistake of the caller.
        """
        found = await self.retriever.search(query, groups=caller, **options)
        like = options.get("like")
        question = {"like": like} if like else {"query": query}
        every_index = [index.name for index in self.settings.indexes]
        relevances = {f"{hit.index}/{hit.document_id}": hit.relevance for hit in found.hits}
        has_documents = bool(found.hits or found.offset)
        await self._log_query(
            caller,
            **question,
            indexes=options.get("indexes") or every_index,
            hits=relevances,
            nothing_fits=found.nothing_fits,
            found=has_documents and not found.nothing_fits,
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
        """Return why a search does not find a document.

        Args:
            groups: Ask for a person with these groups; by default for the caller.

        Raises:
            NotAllowed: The caller does not have all rights, and what `Retriever.why` raises.
        """
        # Only a caller who sees every document may ask for other groups: nobody may claim groups.
        is_allowed = caller.has_all_rights if groups is None else caller.sees_all
        if not is_allowed:
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
        """Return the wanted chunks of a document that the caller may see.

        Args:
            opened: The query whose hit a person opens; the log of queries records it.

        Raises:
            UnknownIndex: The settings have no such index.
            DocumentNotFound: There is no such document, or the caller may not see it.
            SettingsError: The document has no such chunk, or `find` has no word.
            RagIndexError: The index cannot be read.
        """
        if wanted.find is not None:
            complete = await self.retriever.document(index, document_id, groups=caller)
            settings = self.settings.index(index)
            # In a thread: a long document takes seconds.
            found = await asyncio.to_thread(
                _find, complete, wanted.find, wanted.max_chars, settings
            )
        else:
            found = await self.retriever.document(
                index,
                document_id,
                groups=caller,
                choose=partial(_order, wanted),
                max_chars=wanted.max_chars,
            )
        # Logged last: a document that the caller may not see was not opened.
        if opened is not None:
            await self._log_query(caller, query=opened, opened=f"{index}/{document_id}")
        return found

    async def _log_query(self, caller: Caller, **entry: Any) -> None:
        """Add an entry to the log of queries, if there is one.

        If the log cannot be written, the caller still gets an answer.
        """
        if self._log is None:
            return
        groups = ["all groups"] if isinstance(caller.groups, AllGroups) else sorted(caller.groups)
        try:
            await asyncio.to_thread(self._log.add, {"groups": groups, **entry})
        except OSError as error:
            reason = unwritable(self._log.path, error, "name another file")
            # A warning for each reason, not for each search.
            if reason != self._log_failure:
                logger.warning("[serve] query_log %s", reason)
            self._log_failure = reason

    async def verify(self, caller: Caller, citations: Sequence[str]) -> list[Verified]:
        """Return the state of each citation. Raises what `Retriever.verify` raises."""
        return [await self.retriever.verify(citation, groups=caller) for citation in citations]

    async def indexes(self, caller: Caller) -> list[IndexInfo]:
        """Return the indexes of the settings. Raises what ledger and store raise."""
        known = await self.retriever.checked(counts=True)
        closed = self.retriever.closed(caller)
        return [_info(index, known, closed=index.name in closed) for index in self.settings.indexes]

    async def commonest_values(
        self, caller: Caller, index: str
    ) -> Mapping[str, Sequence[FacetValue]]:
        """Return the commonest values of keyword fields among the documents that the caller may
        see.

        A field whose values are all different is left out. If they cannot be counted in time, the
        result is empty.
        """
        try:
            found = await self.retriever.facets(
                indexes=[index], groups=caller, limit=COMMONEST, timeout=COUNT_SECONDS
            )
        except RagIndexError:
            return {}
        return {
            name: values
            for name, values in found.fields.items()
            if values and values[0].documents > 1
        }

    async def check_ready(self) -> None:
        """Raise an error unless at least one index can be searched.

        Raises:
            StoreError: No index is live.
            StoreMismatch: The store is not the one of the ledger.
            RagIndexError: The ledger or the store is unavailable.
        """
        known = await self.retriever.checked()
        if not known.live:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        for problem in known.problems.values():
            raise StoreMismatch(problem)


def _info(index: IndexSettings, known: Known, *, closed: bool) -> IndexInfo:
    """Describe an index for callers."""
    live = index.name in known.live and index.name not in known.problems
    fields: list[FieldInfo] | None = None
    if index.fields is not None:
        kinds = index.indexed_fields
        fields = [
            FieldInfo(name=name, kind=kinds.get(name), label=index.labels.get(name, ""))
            for name in index.fields
        ]
    counted = known.totals.get(index.name)
    documents: int | None = None
    chunks: int | None = None
    # With access rights there are no counts: they include documents that the caller may not see.
    if index.access is None:
        if counted is not None:
            documents, chunks = counted.documents, counted.points
        # Before the first run. A live index that the ledger does not know has no counts.
        elif not live:
            documents, chunks = 0, 0
    as_of = known.as_of(index.name, known.newest(index.name))
    return IndexInfo(
        name=index.name,
        kind=index.kind,
        language=index.language,
        search=index.search,
        fields=fields,
        live=live,
        documents=documents,
        chunks=chunks,
        as_of=AsOfAnswer.model_validate(as_of),
        closed=closed,
    )
