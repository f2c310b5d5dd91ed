"""The searcher of several indexes, for asynchronous code, threads and scripts."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
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
from rag_index.search.fusion import failure_of
from rag_index.search.options import PythonOptions, SearchOptions
from rag_index.search.pages import RerankedHits, Sieve, cut_page, make_result, with_depth
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
from rag_index.search.relevance import BY_TEXT
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
    read_document,
)
from rag_index.search.soft_match import add_soft_match

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path

    from rag_index.components.embedders import Embedder
    from rag_index.components.ledger import Reached
    from rag_index.components.stores.protocol import StoreReader
    from rag_index.search.live_collections import LiveCollection
    from rag_index.search.results import SearchHit
    from rag_index.search.why import Why

T = TypeVar("T")
logger = logging.getLogger(__name__)

BOTH_WEIGHT = 0.5
"""The dense weight with which `candidates` searches: any between 0 and 1 finds by meaning and by
words."""
RERANK_TOP = 50
"""How many of the best documents a reranker reads. Chosen; its time grows with each."""
UNFILLED = {
    "running": "is still being filled",
    "failed": "was never filled, since its last run failed",
    "interrupted": "was never filled, since its last run died",
}
"""What an answer lacks of an index that was never complete, by the state of its last run."""
SEARCH_BUCKETS = tuple(
    float(f"{size}e{power}") for power, size in product(range(-4, 2), (1, 1.5, 2, 3, 5, 7))
)
"""The upper bounds of the buckets of the metrics, in seconds."""
CHUNK_PLACE = ("key", "document_id", "chunk")
"""What `candidates` keeps of a payload: the chunk's place. The texts of thousands of queries would
fill the memory."""
REQUEST_SHARE = 0.5
"""Share of a search's time that one request to the store may take, so that the search can still
report the error. Chosen."""
REQUEST_PATIENCE = 2.0
"""Seconds for which a request is retried after a passing error, such as connections that a restart
of the server broke. Chosen."""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document as `Retriever._read` found it.

    Attributes:
        document: The document; None if there is none that the caller may see.
        as_of: The position up to which that is true.
        seal: The key of its citations. It is empty if there is no document and the caller may not
            learn why.
    """

    document: Document | None
    as_of: AsOf
    seal: str


class SearchMetrics:
    """How often and how long searches, their stages and their indexes took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        timed = partial(Histogram, buckets=SEARCH_BUCKETS, registry=registry)
        self._stages = timed("rag_index_search_seconds", "Time of a search stage.", ["stage"])
        # These stages are listed from the start, before any search.
        for stage in ("embed", "fuse", "total"):
            self._stages.labels(stage)
        self._indexes = timed(
            "rag_index_search_index_seconds", "Response time of an index.", ["index"]
        )
        self._errors = Counter(
            "rag_index_search_errors",
            "Searches that an index failed to answer.",
            ["index"],
            registry=registry,
        )

    def count_errors(self, indexes: Iterable[str]) -> None:
        """Count an error of each index."""
        for index in indexes:
            self._errors.labels(index).inc()

    def observe_indexes(self, asked: Asked) -> None:
        """Count the times and errors of the indexes."""
        for answer in asked.answers.values():
            self._indexes.labels(answer.index).observe(answer.seconds)
        self.count_errors(asked.errors)

    def observe_stages(self, asked: Asked, total: float) -> dict[str, float]:
        """Count the times of the stages, and return those that took time, and those of the indexes,
        in milliseconds."""
        stages = asked.seconds
        stages["other"] = max(0.0, total - asked.searched - sum(stages.values()))
        stages["total"] = total
        for name, seconds in stages.items():
            self._stages.labels(name).observe(seconds)
        ordered = {"embed": stages["embed"]}
        ordered |= {answer.index: answer.seconds for answer in asked.answered}
        ordered |= {name: seconds for name, seconds in stages.items() if seconds}
        return {name: round(1000 * seconds, 3) for name, seconds in ordered.items()}


class Retriever:
    """A searcher of the indexes of a project.

        async with Retriever.from_settings("rag-index.toml") as retriever:
            result = await retriever.search("printer offline", indexes=["comments", "solutions"])

    One object serves any number of callers at once: `search` in any event loop, `search_sync` in
    any thread. Store and models are opened when they are first needed. An embedded store may be
    written by another process at any time. It is closed after five minutes without a search, and
    the next search opens it again. `close`, or the end of the `with` block, closes everything.
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

        Args:
            settings: The settings of the project.
            open_store: Opens a store in place of the one that the settings name.
            open_embedder: Opens an embedder in place of that of the settings.
            collections: By index: a collection that is searched in place of the live one.
            open_reranker: Opens a reranker in place of that of the settings.

        Raises:
            SettingsError: a `required_filter` is not valid.
        """
        self._settings = settings
        self._registry = CollectorRegistry()
        self._metrics = SearchMetrics(self._registry)
        self._access = AccessRules(settings)
        self._fan_out = FanOut(
            settings,
            self._access,
            self._registry,
            open_store=open_store or partial(_open_store, settings),
            open_embedder=open_embedder,
            collections=collections,
        )
        opener = open_reranker or partial(make_reranker, settings)
        has_reranker = open_reranker is not None or settings.retrieve.reranker is not None
        self._reranking = Reranking(opener, RERANK_TOP) if has_reranker else None
        self._background = EventLoopThread("rag-index-search")
        # The ledger has no positions of another store, nor of other collections than the live ones.
        self._positions = None if open_store or collections else Positions(settings)

    @classmethod
    def from_settings(
        cls, config: str | Path | Settings | None = None, *, wait: float | None = None
    ) -> Retriever:
        """Make a Retriever from settings, or from a file (RAG_INDEX_CONFIG, or rag-index.toml in
        this folder or above).

        Args:
            config: The settings or the file.
            wait: Seconds for which to wait for another process that is writing a collection of an
                embedded store; by default none.

        Raises:
            SettingsError: the settings are not valid.
        """
        if not isinstance(config, Settings):
            config = run_settings(config, wait=wait)
        return cls(config)

    @property
    def reranks(self) -> bool:
        """Whether there is a reranker."""
        return self._reranking is not None

    async def search(self, query: str = "", **options: Unpack[SearchOptions]) -> SearchResult:
        """Return the documents that fit a query best, by meaning and words, from all indexes or
        those that are named.

            result = await retriever.search("printer offline", filter={"priority": "high"})
            result = await retriever.search(like="comments/4711")

        The options are those of `SearchOptions`. Each passage has every `"phrase in quotes"` of the
        query, and no word that stands after a minus (`-word`). Indexes that fail are in `errors`.

        Raises:
            SettingsError: the query is empty, an index or a field does not exist, a filter or limit
                is not valid, or `rerank` is True and there is no reranker.
            DocumentNotFound: there is no document that others should be like, or the caller may not
                see it.
            IndexBehind: an index is older than `max_age`, or its age is unknown.
            SearchFailed: no index answered. If all failed for the same reason, such as a StoreBusy,
                that error is raised instead.
        """
        began = time.perf_counter()
        chosen = PythonOptions.of(options)
        reranking = self._reranking_of(chosen)
        question, names = make_question(self._settings, query, chosen)
        self._check_fields(chosen, names)
        if chosen.like:
            question = like_question(question, await self._model(chosen.like, question))
        sieve = Sieve(question.model, chosen.min_relevance or 0.0, chosen.collapse, chosen.order)
        end = chosen.offset + question.limit
        question = with_depth(question, sieve, end, reranking.top if reranking else 0)
        max_age = None if chosen.max_age is None else age_seconds(chosen.max_age)
        asked, as_of = await self._ask_as_of(question, names, max_age)
        # Later, an index may fail whose hits stay.
        seals = {index: answer.live.seal for index, answer in asked.answers.items()}
        await self._fill(asked, sieve, end, further=chosen.offset > 0)

        result = make_result(asked, await self._rerank(asked, sieve, reranking), sieve)
        result = cut_page(asked, sieve, result, chosen.offset, end)
        hits: list[SearchHit] = []
        for hit in result.hits:
            citation = Citation.of(hit, as_of[hit.index], seals[hit.index])
            hits.append(replace(hit, citation=str(citation)))
        if not self._may_judge(question, names):
            result = replace(result, nothing_fits=False, unsure=False)
        timings = self._metrics.observe_stages(asked, time.perf_counter() - began)
        return replace(result, hits=tuple(hits), as_of=as_of, timings_ms=timings)

    async def candidates(self, query: str, **options: Unpack[SearchOptions]) -> Asked:
        """Return the candidates of a search, by meaning and by words, which can be ordered with any
        dense weight: see `rag_index.search.fusion.ranked`.

        Raises as `search`. The metrics do not count it.
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
                place = {name: ours[name] for name in CHUNK_PLACE if name in ours}
                point.payload = {RESERVED_KEY: place}
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
            vectors = [point.vector for point in points if point.vector is not None]
            if points and not vectors:
                raise StoreError(
                    f"{like} has no vector yet, since its index is being filled: search for its"
                    " words"
                )
            # It was deleted meanwhile.
            if not vectors:
                raise DocumentNotFound(f"index {index} has no document {document_id!r}")
            mean = np.asarray(vectors, dtype=np.float32).mean(axis=0)
            text = found.chunks[0].text
            return LikeDocument(index, document_id, found.title, text, live.fingerprint, mean)

        known = await self._known()
        return await self._fan_out.read(index, question.deadline, read, known.problems)

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
        """Return a document of the live collection of an index: its payload, and its chunks in
        order.

            document = await retriever.document("comments", "17")

        A document that the index's `required_filter` excludes from searches is not found, and
        neither is one that none of the caller's `groups` may see.

        Args:
            index: The name of the index.
            document_id: The id of the document.
            groups: The groups of the caller.
            timeout: The time limit in seconds; by default that of `[retrieve]`.
            choose: Gets the numbers of all chunks, and returns those that are wanted, the most
                wanted first. The others are not read.
            max_chars: How many characters the wanted chunks have together at most. At least one
                chunk is returned.

        Raises:
            UnknownIndex: the settings have no index of this name.
            SettingsError: a group is not a text, or the key has several columns and the id is no
                array of them.
            DocumentNotFound: the index has no such document.
            StoreError: the index is empty, or the store refuses.
        """
        found = await self._read(
            index, document_id, caller_of(groups), timeout, choose=choose, max_chars=max_chars
        )
        if found.document is None:
            raise DocumentNotFound(f"index {index} has no document {document_id!r}")
        return found.document

    async def verify(
        self, citation: str | Citation, *, groups: Groups = None, timeout: float | None = None
    ) -> Verified:
        """Return whether a cited document is unchanged, changed or deleted, and up to which
        position that is known.

            verified = await retriever.verify(hit.citation)

        Whether it was deleted is reported only if nothing is hidden from the caller. Raises
        SettingsError if the text is no citation, and what `document` raises but for
        DocumentNotFound.
        """
        cited = Citation.parse(citation) if isinstance(citation, str) else citation

        def choose(numbers: Sequence[int]) -> Sequence[int]:
            return [cited.chunk] if cited.chunk in numbers else numbers[:1]

        found = await self._read(
            cited.index, cited.document_id, caller_of(groups), timeout, choose=choose
        )
        document, as_of = found.document, found.as_of
        # We never gave this citation, or the caller may not learn about the document.
        if not cited.is_sealed(found.seal):
            return Verified(str(cited), "unknown", as_of)
        if document is None:
            return Verified(str(cited), "deleted", as_of, cited.at)
        [chunk] = document.chunks
        if chunk.chunk == cited.chunk and document.text_hash.startswith(cited.text_hash):
            return Verified(str(cited), "unchanged", as_of)
        return Verified(str(cited), "changed", as_of, cited.at, chunk.text, document.citation)

    def verify_sync(self, citation: str | Citation, *, groups: Groups = None) -> Verified:
        """Call `verify` and wait for it, as `run` does."""
        return self.run(self.verify(citation, groups=groups))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of this object, and wait for it, from any thread. An event loop of the
        calling thread is blocked."""
        try:
            return self._background.run(work)
        except CancelledError:
            raise StoreError(CLOSED) from None

    async def _read(
        self, index: str, document_id: str, caller: Caller, timeout: float | None, **part: Any
    ) -> ReadDocument:
        """Return a document if the caller may see it. `part` chooses chunks, as for
        `read_document`. Raises as `document`."""
        settings = self._settings.index(index)
        known = await self._known()

        def read(store: StoreReader, live: LiveCollection) -> ReadDocument:
            points = store.points(live.collection)
            # The position is read first: the points below are at least as new.
            position = known.claim(index, live, points.seen_commits())
            as_of = known.as_of(index, position)
            conditions = self._access.conditions(live, caller)
            found = read_document(points, settings, document_id, conditions, **part)
            # The database is asked even without a document, so that the time reveals nothing.
            if self._access.asks(index, caller):
                keys = [found.key] if found else []
                if not self._access.permitted(index, caller, keys, deadline.left):
                    found = None
            if found is None:
                may_learn_why = not self._access.restricts(live, caller)
                return ReadDocument(None, as_of, live.seal if may_learn_why else "")
            citation = str(Citation.of(found, as_of, live.seal))
            found = replace(found, as_of=as_of, citation=citation, seal_key=live.seal)
            return ReadDocument(found, as_of, live.seal)

        if not self._access.is_open(index, caller):
            return ReadDocument(None, NOTHING_KNOWN, "")
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

        With `all_groups`, the caller may learn of documents that the `groups` may not see. Without,
        such a document is unknown, whatever the reason. An index without rights hides nothing.
        Raises as `search`.
        """
        from rag_index.search.why import Inquiry  # not at the top: no search needs the source

        index, _, document_id = document.partition("/")
        if not names_document(document):
            raise SettingsError(f"name a document such as comments/4711, not {document!r}")
        settings = self._settings.index(index)
        if all_groups and options.get("groups") is None:
            options["groups"] = ALL_GROUPS
        own = (self._settings, self.search, self.document, self._fan_out, self._access)
        inquiry = Inquiry(*own, query, settings, document_id, options, all_groups)
        return await inquiry.answer()

    def why_sync(self, query: str, document: str, **options: Any) -> Why:
        """Call `why` and wait for it, as `run` does."""
        return self.run(self.why(query, document, **options))

    def closed(self, groups: Groups) -> list[str]:
        """Return the indexes that are closed to a caller without groups, or without a role."""
        caller = caller_of(groups)
        names = [index.name for index in self._settings.indexes]
        return [name for name in names if not self._access.is_open(name, caller)]

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

        All documents that a search may find for the caller and that meet the filter count: `groups`
        and `required_filter` apply as in `search`. Of source code, chunks count. `fields` are by
        default all that have a keyword index in `payload_indexes`. An index that fails is in
        `errors`. So is one with `access = "database"`, because the values of hidden documents would
        count.

        Raises:
            SettingsError: an index does not exist, a field has no keyword index, or the filter is
                not valid.
        """
        searched = self._settings.named(indexes)
        caller = caller_of(groups)
        conditions = conditions_of(filter, searched)
        check_fields(conditions, searched)
        known = await self._known()
        deadline = Deadline.after(timeout or self._settings.retrieve.timeout)

        async def count(index: str, wanted: Sequence[str]) -> dict[str, dict[str, int]]:
            if self._access.asks(index, caller):
                raise StoreError(
                    f"index {index} counts no values, since its database says who sees what"
                )

            def read(store: StoreReader, live: LiveCollection) -> dict[str, dict[str, int]]:
                own = self._access.conditions(live, caller)
                points = store.points(live.collection)
                conditions_of_all = (*own, *conditions)
                return count_values(points, self._settings.index(index), wanted, conditions_of_all)

            return await self._fan_out.read(index, deadline, read, known.problems)

        wanted: dict[str, Sequence[str]] = {}
        for name, fields_of_index in facet_fields(searched, fields).items():
            if fields_of_index and self._access.is_open(name, caller):
                wanted[name] = fields_of_index
        calls = [count(name, fields_of_index) for name, fields_of_index in wanted.items()]
        counted = await asyncio.gather(*calls, return_exceptions=True)
        return Facets.of(dict(zip(wanted, counted, strict=True)), limit)

    async def checked(self, *, counts: bool = False) -> Known:
        """Return a snapshot of what ledger and store record of the indexes, taken within the last
        seconds. With `counts`, it has their sizes. Raises what both raise."""
        if self._positions is None:
            return Known()
        return await self._positions.checked(counts=counts)

    async def warm_up(self) -> None:
        """Load models and open collections, so that the first search does not have to. Raises
        nothing. The metrics do not count it."""
        deadline = Deadline.after(self._settings.retrieve.timeout)
        with suppress(RagIndexError):
            question = Question("warm up", 1, (), deadline, caller=caller_of(ALL_GROUPS))
            await self._fan_out.ask(question, None, {})
        if self._reranking:
            try:
                await self._reranking.load()
            except Exception as exc:  # noqa: BLE001 - each search reports it too
                logger.warning("searches are not reranked: %s", exc)

    def metrics(self) -> CollectorRegistry:
        """Return the registry of the metrics, for prometheus_client."""
        return self._registry

    def close(self) -> None:
        """Close store, models and threads. Searches under way end with an error. A second call does
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

    def _reranking_of(self, chosen: PythonOptions) -> Reranking | None:
        """Return the reranker that the options choose. Raises SettingsError."""
        if chosen.rerank and self._reranking is None:
            raise SettingsError(
                "there is no reranker: set [retrieve] reranker, or leave rerank out"
            )
        return None if chosen.rerank is False else self._reranking

    def _check_fields(self, chosen: PythonOptions, names: list[str] | None) -> None:
        """Check the fields by which hits are collapsed and ordered. Raises SettingsError."""
        searched = self._settings.named(names)
        if chosen.collapse and chosen.collapse != BY_TEXT:
            check_field(chosen.collapse, searched, "collapse")
        if chosen.order:
            check_field(chosen.order.removeprefix("-"), searched, "order")

    async def _ask_as_of(
        self, question: Question, names: list[str] | None, max_age: float | None
    ) -> tuple[Asked, dict[str, AsOf]]:
        """Ask the indexes if none is older than `max_age` seconds. Return the answers, and the
        position of each index. Raises as `search`.

        The position is read before the store is asked, so that the answer is at least as new. But
        the store's reader may have loaded an older state, which has an older position.
        """
        wanted = names or [index.name for index in self._settings.indexes]
        wanted = [name for name in wanted if self._access.is_open(name, question.caller)]
        known = await self._known()
        if max_age is not None:
            known = await self._require_age(known, question, wanted, max_age)
        asked = await self._ask(question, names, wanted, known)
        claims: dict[str, Reached | None] = {}
        for answer in asked.answers.values():
            claims[answer.index] = known.claim(answer.index, answer.live, answer.commits)
        if max_age is not None:
            too_old = find_too_old(claims, known, max_age)
            if too_old is not None:
                raise too_old
        as_of = {index: known.as_of(index, claim) for index, claim in claims.items()}
        return asked, as_of

    async def _known(self) -> Known:
        if self._positions is None:
            return Known()
        return await self._positions.current()

    async def _require_age(
        self, known: Known, question: Question, wanted: Sequence[str], max_age: float
    ) -> Known:
        """Return a snapshot in which no wanted index is older than `max_age` seconds: `known`, or a
        new one. Raises IndexBehind."""
        if self._positions is None:
            raise SettingsError("max_age needs the ledger, which knows only the live collections")
        newest = {index: known.newest(index) for index in wanted}
        if find_too_old(newest, known, max_age) is None:
            return known
        # A run may have ended since the ledger was read.
        known = await self._positions.read_again(question.deadline.left)
        newest = {index: known.newest(index) for index in wanted}
        too_old = find_too_old(newest, known, max_age)
        if too_old is not None:
            raise too_old
        return known

    async def _ask(
        self, question: Question, names: list[str] | None, wanted: Sequence[str], known: Known
    ) -> Asked:
        """Ask the indexes that are open to the caller, and count their answers. Raises as `search`
        if none answers."""
        # All indexes are closed to the caller.
        if not wanted:
            return Asked(question, [])
        filling = frozenset(name for name in wanted if known.state_of(name) == "running")
        question = replace(question, filling=filling)
        try:
            asked = await self._fan_out.ask(question, names, known.problems)
        except RagIndexError:
            self._metrics.count_errors(wanted)
            raise
        self._metrics.observe_indexes(asked)
        if asked.errors and not asked.answers:
            raise failure_of(asked)
        for index in wanted:
            unfilled = _unfilled(index, asked, known)
            if unfilled:
                by_words = asked.lacking.get(index)
                asked.lacking[index] = f"{unfilled}. It {by_words}" if by_words else unfilled
        return asked

    async def _fill(self, asked: Asked, sieve: Sieve, end: int, *, further: bool) -> None:
        """Search deeper until `end` hits are shown, or a step adds none.

        Args:
            asked: The answers.
            sieve: What is shown.
            end: The number of hits up to the end of the page.
            further: Whether the page is not the first. Then the search also looks for a next page,
                which would make the first one slower.
        """
        # A deeper search would change the places of hits that are ordered by a field.
        if sieve.order:
            return
        count = len(sieve.shown(asked.hits))
        while count <= end and not sieve.ends(asked.hits):
            looks_for_next = further and not asked.left
            if count == end and not looks_for_next:
                return
            if not await self._fan_out.deepen(asked):
                return
            before = count
            count = len(sieve.shown(asked.hits))
            if count == before:
                return

    async def _rerank(
        self, asked: Asked, sieve: Sieve, reranking: Reranking | None
    ) -> RerankedHits:
        """Return the relevant hits, reranked if there is a reranker."""
        question = asked.question
        hits = [hit for hit in asked.hits if hit.relevance >= sieve.min_relevance]
        if reranking is None or not hits:
            return RerankedHits(hits)
        hits, error, seconds = await reranking.rerank(
            question.text_with_synonyms, hits, question.deadline
        )
        asked.seconds["rerank"] = seconds
        return RerankedHits(hits, is_reranked=not error, error=error)

    def _may_judge(self, question: Question, names: list[str] | None) -> bool:
        """Return whether a search may report that nothing fits.

        It may not if it is for similar documents, nor if an index is closed to the caller, which
        might have what fits.
        """
        if question.model:
            return False
        closed = self.closed(question.caller)
        if names is None:
            return not closed
        return set(names).isdisjoint(closed)


def _open_store(settings: Settings) -> StoreReader:
    timeout = min(settings.store.timeout, REQUEST_SHARE * settings.retrieve.timeout)
    wait = settings.run.wait
    return open_reader(settings.store, wait=wait, timeout=timeout, patience=REQUEST_PATIENCE)


def _unfilled(index: str, asked: Asked, known: Known) -> str:
    """Return what an answer lacks because an index was never complete; empty if it was."""
    state = known.state_of(index)
    if index in asked.indexes and state not in UNFILLED:
        return ""
    text = UNFILLED.get(state, "is not indexed yet")
    totals = known.totals.get(index)
    if totals is not None and totals.findable:
        text += f": {totals.findable}"
    return text
