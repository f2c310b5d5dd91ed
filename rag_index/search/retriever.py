"""Searching several indexes at once, from asynchronous code, from threads, or from a script."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from rag_index.components.stores import open_reader
from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.documents.keys import point_id
from rag_index.core.machine import EventLoopThread
from rag_index.core.settings import Settings, run_settings
from rag_index.errors import DocumentNotFound, RagIndexError, SettingsError, StoreError
from rag_index.search.access import ALL_GROUPS, AccessRules, Caller, Groups, caller_of
from rag_index.search.concurrency import CLOSED, Deadline
from rag_index.search.fan_out import FanOut
from rag_index.search.filters import Filter, check_field, check_fields, conditions_of
from rag_index.search.fusion import compares_scores, failure_of, in_order
from rag_index.search.options import DEFAULT_LIMIT, MAX_HITS, PythonOptions, SearchOptions
from rag_index.search.positions import Known, Positions, age_seconds, find_too_old
from rag_index.search.question import (
    LIKE_CHARS,
    Asked,
    LikeDocument,
    Question,
    like_question,
    make_question,
    names_document,
)
from rag_index.search.relevance import BY_TEXT, FITS, NEAR, collapsed
from rag_index.search.rerankers import Reranker, Reranking, make_reranker
from rag_index.search.results import (
    NOTHING_KNOWN,
    AsOf,
    Citation,
    Document,
    Facets,
    SearchResult,
    Verified,
    count_values,
    facet_fields,
    missing_text,
    read_document,
)
from rag_index.search.soft_match import add_soft_match

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path

    from rag_index.components.embedders import Embedder
    from rag_index.components.stores.protocol import StoreReader
    from rag_index.search.live_collections import LiveCollection
    from rag_index.search.results import SearchHit
    from rag_index.search.why import Why

T = TypeVar("T")
logger = logging.getLogger(__name__)

BOTH_WEIGHT = 0.5
"""A weight with which an index is asked for candidates by meaning and by words."""
RERANK_TOP = 50
"""How many of the best documents a reranker reads."""
UNFILLED = {
    "running": "is still being filled",
    "failed": "was never filled, since its last run failed",
    "interrupted": "was never filled, since its last run died",
}
"""What is said of an index that was never complete, by the state of its last run."""
SEARCH_BUCKETS = tuple(
    float(f"{size}e{power}") for power in range(-4, 2) for size in (1, 1.5, 2, 3, 5, 7)
)
"""The bounds of the times that are counted together, in seconds."""
CHUNK_PLACE = ("key", "document_id", "chunk")
"""What is kept of a chunk's payload where thousands of queries are in memory: its place, but no
texts."""
WIDER = 3
"""Documents asked for, for each that is wanted, where some may be collapsed."""
FURTHER = "There may be documents further down that no search reaches: narrow it to see them."
REQUEST_SHARE = 0.5
"""The share of a search's time that one request to the store may take, so that the search can say
what is wrong."""
REQUEST_PATIENCE = 2.0
"""Seconds for which a request is retried after a passing fault, such as connections that a restart
broke."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """What is shown of the hits of a search: those that are relevant enough, the best of equal
    ones, in an order."""

    model: LikeDocument | None
    min_relevance: float
    collapse: str | None
    order: str | None

    def shown(self, hits: Iterable[SearchHit]) -> list[SearchHit]:
        """Return the hits that are shown."""
        shown = [hit for hit in hits if hit.relevance >= self.min_relevance]
        shown = [hit for hit in shown if not self.model.is_same(hit)] if self.model else shown
        shown = collapsed(shown, self.collapse) if self.collapse else shown
        return in_order(shown, self.order, FITS) if self.order else shown

    def ends(self, hits: Iterable[SearchHit]) -> bool:
        """Return whether some hits are left out for their relevance. Those of documents further
        down would be, too."""
        least = max(self.min_relevance, FITS if self.order else 0.0)
        return any(hit.relevance < least for hit in hits)


class Retriever:
    """A searcher of the indexes of a project.

        async with Retriever.from_settings("rag-index.toml") as retriever:
            result = await retriever.search("printer offline", indexes=["comments", "solutions"])

    One object serves any number of callers at once: `search` in any event loop, `search_sync` in
    any thread. Store and models are opened when they are first needed. An embedded store may be
    written by another process at any time. It is closed after five minutes without a search, and
    the next search opens it again. `close` (or the end of the `with` block) closes everything.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_store: Callable[[], StoreReader] | None = None,
        open_embedder: Callable[..., Embedder] | None = None,
        collections: Mapping[str, str] | None = None,
        open_reranker: Callable[[], Reranker] | None = None,
    ) -> None:
        """Check each `required_filter`. Nothing is opened yet.

        `open_store`, `open_embedder` and `open_reranker` replace those that the settings name.
        `collections` names a collection by index, which is searched in place of the live one.
        Raises SettingsError.
        """
        self._settings = settings
        self._registry = registry = CollectorRegistry()
        timed = partial(Histogram, buckets=SEARCH_BUCKETS, registry=registry)
        self._stages = timed("rag_index_search_seconds", "Time of a search stage.", ["stage"])
        for stage in ("embed", "fuse", "total"):
            self._stages.labels(stage)
        self._seconds = timed(
            "rag_index_search_index_seconds", "Response time of an index.", ["index"]
        )
        told = "Searches that an index failed to answer."
        self._errors = Counter("rag_index_search_errors", told, ["index"], registry=registry)
        self._access = AccessRules(settings)
        self._fan_out = FanOut(
            settings,
            self._access,
            registry,
            open_store=open_store
            or partial(
                open_reader,
                settings.store,
                wait=settings.run.wait,
                timeout=min(settings.store.timeout, REQUEST_SHARE * settings.retrieve.timeout),
                patience=REQUEST_PATIENCE,
            ),
            open_embedder=open_embedder,
            collections=collections,
        )
        opener = open_reranker or partial(make_reranker, settings)
        asks_reranker = open_reranker is not None or settings.retrieve.reranker is not None
        self._reranking = Reranking(opener, RERANK_TOP) if asks_reranker else None
        self._background = EventLoopThread("rag-index-search")
        # of another store, or of other collections than the live ones, the ledger says nothing
        self._positions = None if open_store or collections else Positions(settings)

    @classmethod
    def from_settings(
        cls, config: str | Path | Settings | None = None, *, wait: float | None = None
    ) -> Retriever:
        """Make a Retriever from settings, or from a file (RAG_INDEX_CONFIG, or rag-index.toml here
        or above).

        `wait` is how many seconds to wait for a collection that another process writes in an
        embedded store and does not let go of, by default none. Raises SettingsError.
        """
        return cls(config if isinstance(config, Settings) else run_settings(config, wait=wait))

    @property
    def reranks(self) -> bool:
        """Return whether there is a reranker."""
        return self._reranking is not None

    async def search(self, query: str = "", **options: Unpack[SearchOptions]) -> SearchResult:
        """Return the documents that fit a query best, by meaning and words, from all indexes or
        those that are named.

            result = await retriever.search("printer offline", indexes=["comments"],
            filter={"priority": "high"}) result = await retriever.search(like="comments/4711")

        The options are those of `SearchOptions`. Each passage has every `"phrase in quotes"` of the
        query, and no word that stands after a minus (`-word`). Indexes that fail are in `errors`.

        Raises:
            SettingsError: the query is empty, an index or a field does not exist, a filter or limit
                is not valid, or `rerank` is True and there is no reranker.
            DocumentNotFound: there is no document that others should be like, or the caller may not
                see it.
            IndexBehind: an index is older than `max_age`, or its age is unknown.
            SearchFailed: no index answered. If all failed for the same reason, that error is raised
                instead.
        """
        began = time.perf_counter()
        chosen = PythonOptions.of(options)
        collapse, like, order, offset = chosen.collapse, chosen.like, chosen.order, chosen.offset
        if chosen.rerank and self._reranking is None:
            raise SettingsError(
                "there is no reranker: set [retrieve] reranker, or leave rerank out"
            )
        reranking = None if chosen.rerank is False else self._reranking
        question, names = make_question(self._settings, query, chosen)
        if collapse and collapse != BY_TEXT:
            check_field(collapse, self._settings.named(names), "collapse")
        if order:
            check_field(order.removeprefix("-"), self._settings.named(names), "order")
        if like:
            question = like_question(question, await self._model(like, question))
        end, top = offset + question.limit, reranking.top if reranking else 0
        sifted = bool(collapse or like or order)  # how many of them are shown is known then only
        depth = max(DEFAULT_LIMIT, question.limit) * (
            WIDER if sifted else 1
        )  # and so the same for each page
        wanted = None if sifted else max(end, top)
        question = replace(question, limit=min(MAX_HITS, max(depth, top)), hits=wanted)
        max_age = chosen.max_age
        asked, as_of = await self._ask_as_of(
            question, names, None if max_age is None else age_seconds(max_age)
        )
        seals = {index: answer.live.seal for index, answer in asked.answers.items()}
        sieve = Sieve(question.model, chosen.min_relevance or 0.0, collapse, order)
        await self._fill(asked, sieve, end, further=offset > 0)
        result = await self._result(asked, reranking, sieve)
        result = _page(asked, sieve, result, offset, end)
        cited = ((hit, Citation.of(hit, as_of[hit.index], seals[hit.index])) for hit in result.hits)
        hits = tuple(replace(hit, citation=str(citation)) for hit, citation in cited)
        closed = {*self.closed(question.caller)} if result.nothing_fits or result.unsure else set()
        if question.model or (closed and (names is None or not closed.isdisjoint(names))):
            result = replace(result, nothing_fits=False, unsure=False)
        return replace(
            result,
            hits=hits,
            as_of=as_of,
            timings_ms=self._timings(asked, time.perf_counter() - began),
        )

    async def candidates(self, query: str, **options: Unpack[SearchOptions]) -> Asked:
        """Return what `search` would choose from, by meaning and by words, to be put in order with
        any weight.

        `rag_index.search.fusion.ranked` does so. Raises as `search`. It counts as no search in the
        metrics.
        """
        question, names = make_question(self._settings, query, PythonOptions.of(options))
        both = replace(question, dense_weight=BOTH_WEIGHT, every=True)
        asked = await self._fan_out.ask(both, names, {}, add_soft_match)
        if asked.errors and not asked.answers:
            raise failure_of(asked)
        asked.question = replace(asked.question, dense_weight=question.dense_weight)
        for answer in asked.answered:
            for point in answer.points:
                ours = point.payload.get(RESERVED_KEY, {})
                point.payload = {
                    RESERVED_KEY: {name: ours[name] for name in CHUNK_PLACE if name in ours}
                }
        return asked

    def search_sync(self, query: str = "", **options: Unpack[SearchOptions]) -> SearchResult:
        """Call `search` and wait for it, from any thread: `retriever.search_sync("printer offline",
        limit=5)`."""
        return self.run(self.search(query, **options))

    async def _model(self, like: str, question: Question) -> LikeDocument:
        """Return a document that the caller may see, with the mean of its vectors. Raises as
        `document`."""
        index, _, document_id = like.partition("/")
        found = await self.document(
            index, document_id, groups=question.caller, max_chars=LIKE_CHARS
        )
        ids = [point_id(index, found.key, chunk.chunk) for chunk in found.chunks]

        def read(store: StoreReader, live: LiveCollection) -> LikeDocument:
            points = store.points(live.collection).retrieve(ids, vectors=True)
            vectors = np.asarray(
                [one.vector for one in points if one.vector is not None], dtype=np.float32
            )
            if points and not len(vectors):
                raise StoreError(
                    f"{like} has no vector yet, since its index is being filled: search for its"
                    " words"
                )
            if not len(vectors):  # it was deleted just now
                raise DocumentNotFound(f"index {index} has no document {document_id!r}")
            text, mean = found.chunks[0].text, vectors.mean(axis=0)
            return LikeDocument(index, document_id, found.title, text, live.fingerprint, mean)

        return await self._fan_out.read(
            index, question.deadline, read, (await self._known()).problems
        )

    async def document(
        self,
        index: str,
        document_id: str,
        *,
        groups: Groups = None,
        timeout: float | None = None,
        choose: Callable[[Sequence[int]], Sequence[int]] | None = None,
        max_chars: int | None = None,
    ) -> Document:
        """Return a document of the live collection of an index: its chunks in order, and its
        payload.

            document = await retriever.document("comments", "17")

        Of a long document, `choose` and `max_chars` spare reading all chunks: it gets the numbers
        of all, and returns those that are wanted, the most wanted first. As many whole ones come as
        fit into `max_chars`, one at least.

        A document that the index's `required_filter` keeps from searches is not found here either,
        and one that none of the caller's `groups` may see looks as if it were not there.

        Raises:
            UnknownIndex: the settings have no index of this name.
            SettingsError: a group is not a text, or the key has several columns and the id is no
                array of them.
            DocumentNotFound: the index has no such document.
            StoreError: the index is empty, or the store refuses.
        """
        given = caller_of(groups)
        found, _, _ = await self._read(
            index, document_id, given, timeout, choose=choose, max_chars=max_chars
        )
        if found is None:
            raise DocumentNotFound(f"index {index} has no document {document_id!r}")
        return found

    async def verify(
        self, citation: str | Citation, *, groups: Groups = None, timeout: float | None = None
    ) -> Verified:
        """Return whether a cited document is unchanged, changed or deleted, and up to which
        position that is known.

            verified = await retriever.verify(hit.citation)

        Whether it was deleted is told only where nothing is kept from the caller. Raises
        SettingsError if the text is no citation, and what `document` raises but for
        DocumentNotFound.
        """
        cited = Citation.parse(citation) if isinstance(citation, str) else citation
        found, as_of, key = await self._read(
            cited.index,
            cited.document_id,
            caller_of(groups),
            timeout,
            choose=lambda numbers: [cited.chunk] if cited.chunk in numbers else numbers[:1],
        )
        if not cited.is_sealed(key):
            return Verified(str(cited), "unknown", as_of)
        if found is None:
            return Verified(str(cited), "deleted", as_of, cited.at)
        [chunk] = found.chunks
        if chunk.chunk == cited.chunk and found.text_hash.startswith(cited.text_hash):
            return Verified(str(cited), "unchanged", as_of)
        return Verified(str(cited), "changed", as_of, cited.at, chunk.text, found.citation)

    def verify_sync(self, citation: str | Citation, *, groups: Groups = None) -> Verified:
        """Call `verify` and wait for it, as `run` does."""
        return self.run(self.verify(citation, groups=groups))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work of this object, from any thread. An event loop that runs the calling code
        stands still."""
        try:
            return self._background.run(work)
        except CancelledError:
            raise StoreError(CLOSED) from None

    async def _read(
        self, index: str, document_id: str, caller: Caller, timeout: float | None, **part: Any
    ) -> tuple[Document | None, AsOf, str]:
        """Return a document, if the caller may see it, what that is true of, and what its citations
        are sealed with.

        The last is "" where there is no document and the caller may not be told why. `part` says
        which chunks, as for `read_document`. Raises as `document`.
        """
        settings, known = self._settings.index(index), await self._known()

        def read(store: StoreReader, live: LiveCollection) -> tuple[Document | None, AsOf, str]:
            points = store.points(live.collection)
            # What is read below is not older: these points stay as they are.
            as_of = known.as_of(index, known.claim(index, live, points.seen_commits()))
            conditions = self._access.conditions(live, caller)
            found = read_document(points, settings, document_id, conditions, **part)
            if self._access.asks(
                index, caller
            ):  # also if there is none: the time that it takes tells nothing
                keys = [found.key] if found else []
                found = (
                    found if self._access.permitted(index, caller, keys, deadline.left) else None
                )
            if found is None:
                return None, as_of, "" if self._access.restricts(live, caller) else live.seal
            cited = str(Citation.of(found, as_of, live.seal))
            return replace(found, as_of=as_of, citation=cited, seal_key=live.seal), as_of, live.seal

        if not self._access.is_open(index, caller):
            return None, NOTHING_KNOWN, ""
        deadline = Deadline.after(timeout or self._settings.retrieve.timeout)
        return await self._fan_out.read(index, deadline, read, known.problems)

    async def why(
        self,
        query: str,
        document: str,
        *,
        all_groups: bool = False,
        **options: Unpack[SearchOptions],
    ) -> Why:
        """Return why a search with these options does not find a document, such as "comments/4711",
        and what helps.

            why = await retriever.why("printer offline", "comments/4711", all_groups=True)

        With `all_groups`, the asker may learn of documents that the `groups` may not see. Without,
        such a document is unknown, whatever the reason; in an index without rights, everything is
        told. Raises as `search`.
        """
        from rag_index.search.why import Inquiry  # here: no search needs the source

        index, _, document_id = document.partition("/")
        if not names_document(document):
            raise SettingsError(f"name a document such as comments/4711, not {document!r}")
        settings = self._settings.index(index)
        if all_groups and options.get("groups") is None:
            options["groups"] = ALL_GROUPS
        asks = (self._settings, self.search, self.document, self._fan_out, self._access)
        return await Inquiry(*asks, query, settings, document_id, options, all_groups).answer()

    def why_sync(self, query: str, document: str, **options: Any) -> Why:
        """Call `why` and wait for it, as `run` does."""
        return self.run(self.why(query, document, **options))

    def closed(self, groups: Groups) -> list[str]:
        """Return the indexes that answer nothing to a caller, who has no groups, or no role."""
        given = caller_of(groups)
        return [
            index.name
            for index in self._settings.indexes
            if not self._access.is_open(index.name, given)
        ]

    async def facets(
        self,
        fields: Sequence[str] | None = None,
        *,
        indexes: Sequence[str] | None = None,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        groups: Groups = None,
        timeout: float | None = None,
    ) -> Facets:
        """Return the most frequent values of keyword fields, with about how many documents have
        each.

            facets = await retriever.facets(["priority"], filter={"author": "ann"})

        All documents that meet the filter count, of those that a search may find for the caller:
        `groups` and `required_filter` apply as in `search`. Of source code, chunks count. `fields`
        are by default all that have a keyword index in `payload_indexes`. An index that fails is in
        `errors`. So is one with `access = "database"`, since the values of what the caller may not
        see would count.

        Raises:
            SettingsError: an index does not exist, a field has no keyword index, or the filter is
                not valid.
        """
        searched, given = self._settings.named(indexes), caller_of(groups)
        conditions = conditions_of(filter, searched)
        check_fields(conditions, searched)
        known = await self._known()
        deadline = Deadline.after(timeout or self._settings.retrieve.timeout)

        async def count(index: str, wanted: Sequence[str]) -> dict[str, dict[str, int]]:
            if self._access.asks(index, given):
                raise StoreError(
                    f"index {index} counts no values, since its database says who sees what"
                )

            def read(store: StoreReader, live: LiveCollection) -> dict[str, dict[str, int]]:
                own = self._access.conditions(live, given)
                points = store.points(live.collection)
                conditions_of_all = (*own, *conditions)
                return count_values(points, self._settings.index(index), wanted, conditions_of_all)

            return await self._fan_out.read(index, deadline, read, known.problems)

        wanted = {
            name: of
            for name, of in facet_fields(searched, fields).items()
            if of and self._access.is_open(name, given)
        }
        counted = await asyncio.gather(
            *(count(*one) for one in wanted.items()), return_exceptions=True
        )
        return Facets.of(dict(zip(wanted, counted, strict=True)), limit)

    async def checked(self, *, counts: bool = False) -> Known:
        """Return what ledger and store say of the indexes, looked at within the last seconds.
        Raises what both raise.

        With `counts`, it has how much is in them.
        """
        return await self._positions.checked(counts=counts) if self._positions else Known()

    async def warm_up(self) -> None:
        """Load models and open collections, so that the first search does not have to.

        Counts as no search in the metrics, and raises nothing.
        """
        deadline = Deadline.after(self._settings.retrieve.timeout)
        with suppress(RagIndexError):
            question = Question("warm up", 1, (), deadline, caller=caller_of(ALL_GROUPS))
            await self._fan_out.ask(question, None, {})
        if self._reranking:
            try:
                await self._reranking.load()
            except Exception as exc:  # noqa: BLE001 - each search says so too
                logger.warning("searches are not reranked: %s", exc)

    def metrics(self) -> CollectorRegistry:
        """Return how often and how long embed, each index, fuse and total took so far, as
        prometheus_client has it."""
        return self._registry

    def close(self) -> None:
        """Close store, models and threads; searches under way end with an error. A second call does
        nothing."""
        self._background.stop()
        if self._positions:
            self._positions.close()
        self._fan_out.close()
        if self._reranking:
            self._reranking.close()

    async def aclose(self) -> None:
        """Close without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Retriever:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask_as_of(
        self, question: Question, names: list[str] | None, max_age: float | None
    ) -> tuple[Asked, dict[str, AsOf]]:
        """Ask the indexes, if none is older than `max_age` seconds; return what they answer, and
        what that is true of.

        The position is read before the store is asked. The store's reader may have loaded an older
        state, whose age then counts. Raises as `search`.
        """
        wanted = names or [index.name for index in self._settings.indexes]
        wanted = [name for name in wanted if self._access.is_open(name, question.caller)]
        known = await self._known()
        if max_age is not None:
            known = await self._require_age(known, question, wanted, max_age)
        asked = await self._ask(question, names, wanted, known)
        answers = asked.answers.values()
        claims = {one.index: known.claim(one.index, one.live, one.commits) for one in answers}
        if max_age is not None and (too_old := find_too_old(claims, known, max_age)):
            raise too_old
        return asked, {index: known.as_of(index, claim) for index, claim in claims.items()}

    async def _known(self) -> Known:
        return await self._positions.current() if self._positions else Known()

    async def _require_age(
        self, known: Known, question: Question, wanted: Sequence[str], max_age: float
    ) -> Known:
        """Return what is known, if no wanted index is older than `max_age` seconds. Raises
        IndexBehind."""
        if self._positions is None:
            raise SettingsError("max_age needs the ledger, which knows only the live collections")
        newest = {index: known.newest(index) for index in wanted}
        if find_too_old(newest, known, max_age) is None:
            return known
        # a run may have ended since the ledger was read
        known = await self._positions.read_again(question.deadline.left)
        newest = {index: known.newest(index) for index in wanted}
        if too_old := find_too_old(newest, known, max_age):
            raise too_old
        return known

    async def _ask(
        self, question: Question, names: list[str] | None, wanted: Sequence[str], known: Known
    ) -> Asked:
        """Ask the indexes that are open to the caller, and count their answers. Raises as `search`,
        if none answers."""
        if not wanted:
            return Asked(question, [])
        filling = frozenset(name for name in wanted if known.state_of(name) == "running")
        try:
            asked = await self._fan_out.ask(
                replace(question, filling=filling), names, known.problems
            )
        except RagIndexError:
            for name in wanted:
                self._errors.labels(name).inc()
            raise
        for answer in asked.answers.values():
            self._seconds.labels(answer.index).observe(answer.seconds)
        for name in asked.errors:
            self._errors.labels(name).inc()
        if asked.errors and not asked.answers:
            raise failure_of(asked)
        for index in wanted:
            state, by_words = known.state_of(index), asked.lacking.get(index, "")
            if index not in asked.indexes or state in UNFILLED:
                said = UNFILLED.get(state, "is not indexed yet")
                if index in known.totals and (findable := known.totals[index].findable):
                    said += f": {findable}"
                asked.lacking[index] = f"{said}. It {by_words}" if by_words else said
        return asked

    def _timings(self, asked: Asked, total: float) -> dict[str, float]:
        """Count how long each stage of a search took, and return that in milliseconds."""
        stages = asked.seconds
        stages["other"] = max(0.0, total - asked.searched - sum(stages.values()))
        stages["total"] = total
        for name in stages:
            self._stages.labels(name).observe(stages[name])
        indexes = {answer.index: answer.seconds for answer in asked.answered}
        ordered = {
            "embed": stages["embed"],
            **indexes,
            **{name: one for name, one in stages.items() if one},
        }
        return {name: round(1000 * seconds, 3) for name, seconds in ordered.items()}

    async def _fill(self, asked: Asked, sieve: Sieve, end: int, *, further: bool) -> None:
        """Search deeper until `end` hits are shown, or a step adds none. The order of a field is
        that of one step.

        A `further` page also looks whether others follow: the first is not to cost that.
        """
        count = len(sieve.shown(asked.hits))
        while (
            (count < end or (further and count == end and not asked.left))
            and not (sieve.order or sieve.ends(asked.hits))
            and await self._fan_out.deepen(asked)
        ):
            before, count = count, len(sieve.shown(asked.hits))
            if count == before:
                break

    async def _result(
        self, asked: Asked, reranking: Reranking | None, sieve: Sieve
    ) -> SearchResult:
        """Return all that the indexes found, best first."""
        question, answered = asked.question, asked.answered
        errors = asked.reasons
        lacks = errors or asked.lacking
        missing = (
            missing_text(errors, asked.lacking, [one.index for one in answered]) if lacks else ""
        )
        missing = (
            f"{asked.synonyms_failure} {missing}".strip() if asked.synonyms_failure else missing
        )
        hits, failure = [hit for hit in asked.hits if hit.relevance >= sieve.min_relevance], ""
        best = max([hit.relevance for hit in asked.hits], default=0.0)
        if reranking and hits:
            hits, failure, asked.seconds["rerank"] = await reranking.rerank(
                question.text_with_synonyms, hits, question.deadline
            )
        return SearchResult(
            tuple(sieve.shown(hits)),
            {},
            question.corrected,
            {
                typed: tuple(b for a, b in question.synonyms if a == typed)
                for typed, _ in question.synonyms
            },
            unsure=bool(asked.hits) and not missing and NEAR <= best < FITS,
            nothing_fits=bool(asked.hits) and not missing and best < NEAR,
            remark=asked.remark,
            missing=missing,
            errors=errors,
            fusion="score" if compares_scores(answered) else "rank",
            dense_weight=min(
                (asked.scoring[answer.index].dense_weight for answer in answered), default=1.0
            ),
            collections={answer.index: answer.live.collection for answer in answered},
            reranked="rerank" in asked.seconds and not failure,
            rerank_error=failure,
        )


def _page(asked: Asked, sieve: Sieve, result: SearchResult, offset: int, end: int) -> SearchResult:
    """Return a page of a result, with where the next one begins, or why documents that there may be
    are not shown."""
    left, ended = asked.left or asked.unranked, sieve.ends(asked.hits)
    deeper = asked.left or (asked.deeper and asked.question.limit < MAX_HITS and not sieve.order)
    more = len(result.hits) > end or (len(result.hits) == end and deeper and not ended)
    following, missing = end if more and end < MAX_HITS else None, result.missing
    if following is None and left and not ended:
        missing = f"{missing} {FURTHER}".strip()
    return replace(
        result, hits=result.hits[offset:end], offset=offset, next_offset=following, missing=missing
    )
