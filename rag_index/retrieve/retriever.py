"""Searching several indexes at once, from asynchronous code, from threads, or from a script."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from rag_index.errors import DocumentNotFound, RagIndexError, SettingsError, StoreError, StoreMismatch
from rag_index.hosts.loop import EventLoopThread
from rag_index.rerankers import reranker_opener
from rag_index.retrieve.access import ALL_GROUPS, AccessRules, caller_groups
from rag_index.retrieve.as_of import Demand, Known, Positions, behind, not_met
from rag_index.retrieve.calibration import BY_TEXT, FITS, collapsed, with_relevance
from rag_index.retrieve.concurrency import CLOSED
from rag_index.retrieve.fan_out import FanOut, load_payloads
from rag_index.retrieve.filters import check_collapse, check_fields, conditions_of
from rag_index.retrieve.fusion import failure_of, order_answers
from rag_index.retrieve.index_reader import Candidates
from rag_index.retrieve.metrics import Metrics, MetricsSnapshot
from rag_index.retrieve.question import MAX_HITS, IndexAnswer, Question, make_question
from rag_index.retrieve.reranking import Reranked, Reranking
from rag_index.retrieve.results import MAX_FACET_VALUES, Facets, SearchResult, facet_fields, read_document
from rag_index.retrieve.spelling import ask_corrected
from rag_index.settings import Settings, run_settings
from rag_index.settings.index import CHUNK_FIELD, CODE, SQL
from rag_index.stores import Condition, open_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from rag_index.embedders import Embedder
    from rag_index.rerankers import Reranker
    from rag_index.retrieve.access import CallerGroups, Groups
    from rag_index.retrieve.as_of import AsOf
    from rag_index.retrieve.filters import Filter
    from rag_index.retrieve.fusion import Scoring
    from rag_index.retrieve.live import LiveCollection
    from rag_index.retrieve.results import Document
    from rag_index.settings import IndexSettings
    from rag_index.stores import StoreReader

Fusion = Literal["auto", "rank", "score"]

HYBRID = 0.5
"""A weight with which an index is asked for candidates by meaning and by words."""
STAGES = ("embed", "fuse", "rerank", "total")
MIN_SECONDS = 0.001
RETRY_SECONDS = 0.02
"""Between two searches of a reader that has loaded an older state than is demanded."""
WIDER = 3
"""Documents asked for, for each that is wanted, where some may be folded."""
REQUEST_PATIENCE = 2.0
"""Seconds for which a request is retried after a passing fault, such as connections that a restart broke."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the indexes answer to a question, as it was corrected, and up to where each of them is complete."""

    question: Question
    answers: list[IndexAnswer]
    scoring: Mapping[str, Scoring]
    embed_seconds: float
    as_of: dict[str, AsOf]


class Retriever:
    """A searcher of the indexes of a project.

        async with Retriever.from_settings("rag-index.toml") as retriever:
            result = await retriever.search("printer offline", indexes=["comments", "solutions"])

    One object serves any number of callers at once: `search` in any event loop, `search_sync` in any thread. Store
    and models are opened when they are first needed. An embedded store may be written by another process at any time.
    It is closed after `[retrieve] idle_seconds` without a search, and the next search opens it again. `close` (or the
    end of the `with` block) closes everything.
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
        """Check each `required_filter` and that the reranker's library is installed. Nothing is opened yet.

        `open_store`, `open_embedder` and `open_reranker` replace those that the settings name. `collections` names a
        collection by index, which is searched in place of the live one. Raises SettingsError.
        """
        self._settings = settings
        self._metrics = Metrics()
        self._access = AccessRules(settings)
        self._fan_out = FanOut(
            settings,
            self._access,
            self._metrics,
            open_store=open_store or _store_opener(settings),
            open_embedder=open_embedder,
            collections=collections,
        )
        opener = open_reranker or reranker_opener(settings)
        self._reranking = Reranking(opener, settings.retrieve.rerank_top) if opener else None
        self._background = EventLoopThread("rag-index-search")
        # of another store, or of other collections than the live ones, the ledger says nothing
        self._positions = None if open_store or collections else Positions(settings)

    @classmethod
    def from_settings(
        cls,
        config: str | Path | Settings | None = None,
        *,
        wait: float | None = None,
        open_reranker: Callable[[], Reranker] | None = None,
    ) -> Retriever:
        """Make a Retriever from settings, or from a file (RAG_INDEX_CONFIG, or rag-index.toml here or above).

        `wait` is how many seconds to wait for a collection that another process writes in an embedded store and does
        not let go of, by default `[run] wait`. `open_reranker` replaces the reranker that the settings name. Raises
        SettingsError.
        """
        settings = config if isinstance(config, Settings) else run_settings(config, wait=wait)
        return cls(settings, open_reranker=open_reranker)

    @property
    def reranks(self) -> bool:
        """Return whether there is a reranker."""
        return self._reranking is not None

    async def search(
        self,
        query: str,
        *,
        indexes: Sequence[str] | None = None,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        groups: Groups = None,
        timeout: float | None = None,
        fusion: Fusion | None = None,
        dense_weight: float | None = None,
        rerank: bool | None = None,
        after: str | None = None,
        max_age: float | str | None = None,
        min_score: float | None = None,
        collapse: str | None = None,
    ) -> SearchResult:
        """Return the documents that fit a query best, by meaning and words, from the named indexes (default: all).

        `filter` narrows the search by payload fields (see `rag_index.retrieve.filters`); an index's `required_filter`
        applies in any case. An index with `access` answers with documents that one of the caller's `groups` may see,
        and with nothing to a caller without groups; `ALL_GROUPS` sees all. `timeout` is for the whole search, in
        seconds; each index has `[retrieve] index_timeout` within it. `fusion` is "score", "rank" (reciprocal rank), or
        "auto": score if all indexes that answered have vectors of one model and are searched in the same way, else
        rank. `dense_weight` is the weight of meaning against words, 1 for meaning alone. `rerank` is False to leave the
        reranker out. `min_score` leaves out hits of a lower `relevance`, from 0 to 1. `collapse` folds hits with the
        same value of a payload field, or with the same "text", into the best. Indexes that fail are in `errors`.

        `after` is a position of the source (a place in PostgreSQL's log, a number of the queue, or a time): the search
        waits, within the time limit, until each index has everything that was committed by then. `max_age` is how many
        seconds an index may be behind, or a text such as "10 s".

        Raises:
            SettingsError: the query is empty, an index or a field does not exist, a filter or limit is not valid, or
                `rerank` is True and there is no reranker.
            IndexBehind: an index did not reach `after`, or is older than `max_age`.
            SearchFailed: no index answered. If all failed for the same reason, that error is raised instead.
        """
        began = time.perf_counter()
        reranking = self._chosen_reranking(rerank)
        question, names = make_question(self._settings, query, indexes, limit, filter, timeout, dense_weight, groups)
        if collapse and collapse != BY_TEXT:
            check_collapse(collapse, self._settings.named(names))
        question = replace(question, limit=self._wider(limit, reranking, min_score, collapse), payloads=False)
        fusion = self._fusion(fusion)
        found = await self._demanded(question, names, fusion, Demand.of(self._settings, after, max_age))
        result = await self._result(found, fusion, reranking, min_score or 0, began)
        hits = collapsed(result.hits, collapse) if collapse else result.hits
        return replace(result, hits=tuple(hits[:limit]))

    async def candidates(
        self,
        query: str,
        *,
        indexes: Sequence[str] | None = None,
        limit: int = 10,
        groups: Groups = None,
        texts: bool = False,
    ) -> Candidates:
        """Return what `search` would choose from, by meaning and by words, to be put in order with any weight.

        They have `texts` if asked for. Raises as `search`. It counts as no search in the metrics.
        """
        question, names = make_question(self._settings, query, indexes, limit, None, None, None, groups)
        asked, answers, _ = await ask_corrected(self._fan_out, replace(question, dense_weight=HYBRID), names)
        if answers and all(answer.error is not None for answer in answers):
            raise failure_of(answers)
        asked = replace(asked, dense_weight=question.dense_weight)
        return Candidates.of(asked, answers, self._settings.retrieve.fusion, texts=texts)

    def search_sync(
        self,
        query: str,
        *,
        indexes: Sequence[str] | None = None,
        limit: int = 10,
        filter: Filter | None = None,  # noqa: A002
        groups: Groups = None,
        timeout: float | None = None,
        fusion: Fusion | None = None,
        dense_weight: float | None = None,
        rerank: bool | None = None,
        after: str | None = None,
        max_age: float | str | None = None,
        min_score: float | None = None,
        collapse: str | None = None,
    ) -> SearchResult:
        """Call `search` and wait for it, from any thread. An event loop that runs the calling code stands still."""
        search = self.search(
            query,
            indexes=indexes,
            limit=limit,
            filter=filter,
            groups=groups,
            timeout=timeout,
            fusion=fusion,
            dense_weight=dense_weight,
            rerank=rerank,
            after=after,
            max_age=max_age,
            min_score=min_score,
            collapse=collapse,
        )
        try:
            return self._background.run(search)
        except CancelledError:
            raise StoreError(CLOSED) from None

    async def document(
        self, index: str, document_id: str, *, groups: Groups = None, timeout: float | None = None
    ) -> Document:
        """Return a document of the live collection of an index: its chunks in order, and its payload.

        A document that the index's `required_filter` keeps from searches is not found here either, and one that none
        of the caller's `groups` may see looks as if it were not there.

        Raises:
            UnknownIndex: the settings have no index of this name.
            SettingsError: a group is not a text, or the key has several columns and the id is no array of them.
            DocumentNotFound: the index has no such document.
            StoreError: the index is empty, or the store refuses.
        """
        settings, given = self._settings.index(index), caller_groups(groups)
        known = await self._positions.current() if self._positions else Known()
        if index in known.problems:
            raise StoreMismatch(known.problems[index])

        def read(store: StoreReader, live: LiveCollection) -> Document | None:
            conditions = self._access.conditions(live, given)
            if conditions is None:
                return None
            store.prepare(live.collection)  # what is read then is not older
            claim = known.claim(index, live, store.seen_commits(live.collection))
            found = read_document(store, live.collection, settings, document_id, conditions)
            return replace(found, as_of=known.as_of(index, claim)) if found else None

        timeout = timeout or self._settings.retrieve.index_timeout
        found = await self._fan_out.read(index, timeout, read) if self._access.is_open(index, given) else None
        if found is None:
            raise DocumentNotFound(f"index {index} has no document {document_id!r}")
        return found

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
        """Return the most frequent values of keyword fields, with about how many documents have each.

        All documents that meet the filter count, of those that a search may find for the caller: `groups` and
        `required_filter` apply as in `search`. Of source code, chunks count. `fields` are by default all that have a
        keyword index in `payload_indexes`. An index that fails is in `errors`.

        Raises:
            SettingsError: an index does not exist, a field has no keyword index, or the filter is not valid.
        """
        searched, conditions, given = self._settings.named(indexes), conditions_of(filter), caller_groups(groups)
        check_fields(conditions, searched)
        wanted = {name: of for name, of in facet_fields(searched, fields).items() if of}
        known = await self._positions.current() if self._positions else Known()
        seconds = min(timeout or self._settings.retrieve.timeout, self._settings.retrieve.index_timeout)
        counting = [
            self._count_values(known, self._settings.index(name), of, conditions, given, time.monotonic() + seconds)
            for name, of in wanted.items()
        ]
        return Facets.of(dict(zip(wanted, await asyncio.gather(*counting, return_exceptions=True), strict=True)), limit)

    async def checked(self, *, counts: bool = False) -> Known:
        """Return what ledger and store say of the indexes, looked at within the last seconds. Raises what both raise.

        With `counts`, it has how much is in them.
        """
        return await self._positions.checked(counts=counts) if self._positions else Known()

    async def warm_up(self) -> None:
        """Load models and open collections, so that the first search does not have to.

        Counts as no search in the metrics, and raises nothing.
        """
        question = Question("warm up", 1, (), self._settings.retrieve.timeout, groups=ALL_GROUPS)
        with suppress(RagIndexError):
            await self._fan_out.ask(question, None)
        if self._reranking:
            with suppress(Exception):  # the first search says what is wrong
                await self._reranking.load()

    def metrics(self) -> MetricsSnapshot:
        """Return count, mean, p50, p95 and p99 so far of embed, each index, fuse and total."""
        return self._metrics.snapshot()

    def reset_metrics(self) -> None:
        """Set all metrics to zero."""
        self._metrics.reset()

    def close(self) -> None:
        """Close store, models and threads; searches under way end with an error. A second call does nothing."""
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Retriever:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _demanded(
        self, question: Question, names: list[str] | None, fusion: Fusion, demand: Demand | None
    ) -> _Found:
        """Ask the indexes once they have what is demanded; return what they answer, and what that is true of.

        The position is read before the store is asked. If the store's reader had loaded an older state, it is asked
        again. Raises as `search`.
        """
        until, too_old = time.monotonic() + question.timeout, None
        while True:
            known = await self._known(question, names, demand, until)
            asked = replace(question, timeout=max(MIN_SECONDS, until - time.monotonic())) if demand else question
            try:
                corrected, answers, scoring, seconds = await self._answers(asked, names, fusion, known)
            except RagIndexError as error:
                raise too_old or error from None
            answered = [answer for answer in answers if answer.error is None]
            claims = {one.index: known.claim(one.index, one.live, one.commits) for one in answered}
            as_of = {index: known.as_of(index, claim) for index, claim in claims.items()}
            too_old = None
            for index, claim in claims.items():
                if demand and not demand.is_met(claim, of_source=self._settings.index(index).kind == SQL):
                    too_old = not_met(demand, index, as_of[index], question.timeout)
            if too_old is None:
                return _Found(corrected, answers, scoring, seconds, as_of)
            if time.monotonic() >= until:
                raise too_old
            await asyncio.sleep(RETRY_SECONDS)

    async def _count_values(
        self,
        known: Known,
        index: IndexSettings,
        fields: Sequence[str],
        conditions: tuple[Condition, ...],
        groups: CallerGroups,
        until: float,
    ) -> dict[str, dict[str, int]]:
        """Count the values of each field in one index, until a moment of time.monotonic(). Raises what the store does.

        A document counts by its first chunk; of source code, each chunk does, since fields are those of a definition.
        """
        if index.name in known.problems:
            raise StoreMismatch(known.problems[index.name])
        first = () if index.kind == CODE else (Condition(CHUNK_FIELD, "eq", 0),)

        def read(field: str, store: StoreReader, live: LiveCollection) -> dict[str, int]:
            own = self._access.conditions(live, groups)
            if own is None:
                return {}
            counted = (*own, *conditions, *first)
            try:
                return store.facet(live.collection, field, limit=MAX_FACET_VALUES, conditions=counted)
            except StoreError as exc:
                if field in (store.metadata(live.collection).get("payload_indexes") or {}):
                    raise
                missing = f"field {field} has no keyword index yet: run `rag-index index {index.name}`, which makes it"
                raise StoreError(missing) from exc

        found = {}
        for field in fields:
            left = max(MIN_SECONDS, until - time.monotonic())
            found[field] = await self._fan_out.read(index.name, left, partial(read, field))
        return found

    async def _known(self, question: Question, names: list[str] | None, demand: Demand | None, until: float) -> Known:
        """Return what is known of positions, once it is what is demanded. Raises IndexBehind."""
        if self._positions is None:
            if demand:
                raise SettingsError("after and max_age need the ledger, which knows only the live collections")
            return Known()
        known = await self._positions.current()
        if demand is None:
            return known
        wanted = names or [index.name for index in self._settings.indexes]
        asked = [name for name in wanted if self._access.is_open(name, question.groups)]
        find = partial(behind, self._settings, demand, indexes=asked, seconds=question.timeout)
        known = await self._positions.wait(lambda now: find(now) is None, until - time.monotonic())
        if error := find(known):
            raise error
        return known

    async def _answers(
        self, question: Question, names: list[str] | None, fusion: Fusion, known: Known
    ) -> tuple[Question, list[IndexAnswer], Mapping[str, Scoring], float]:
        """Ask the indexes that are open to the caller, and count their answers. One with a problem has its error.

        Return the question as it was corrected, the answers with the best candidates, the scoring of all by index, and
        the seconds of embed. Raises as `search`, if no index answers.
        """
        all_names = [index.name for index in self._settings.indexes]
        asked = [name for name in names or all_names if self._access.is_open(name, question.groups)]
        try:
            answers: list[IndexAnswer] = []
            embed_seconds = 0.0
            if asked:
                question, answers, embed_seconds = await ask_corrected(self._fan_out, question, names)
            for answer in answers:
                if answer.index in known.problems:
                    answer.error = StoreMismatch(known.problems[answer.index])
            scoring = await load_payloads(self._fan_out, question, answers, fusion)
        except RagIndexError:
            self._metrics.add_answers(dict.fromkeys(asked))
            raise
        self._metrics.add_answers(
            {answer.index: answer.seconds if answer.error is None else None for answer in answers}
        )
        if answers and all(answer.error is not None for answer in answers):
            raise failure_of(answers)
        return question, answers, scoring, embed_seconds

    async def _result(
        self,
        found: _Found,
        fusion: Fusion,
        reranking: Reranking | None,
        min_score: float,
        began: float,
    ) -> SearchResult:
        """Return all that the indexes found, best first; `began` is when the search did, of time.perf_counter()."""
        question = found.question
        answered = [answer for answer in found.answers if answer.error is None]
        fusing = time.perf_counter()
        ordered = order_answers(answered, question, fusion, found.scoring)
        judged = with_relevance(ordered.hits, answered, question.text)
        reranked = Reranked([hit for hit in judged if hit.relevance >= min_score])
        stages = {"embed": found.embed_seconds, "fuse": time.perf_counter() - fusing}
        if reranking and reranked.hits:
            last = max(answer.until for answer in found.answers)
            reranked = await reranking.rerank(question.text, reranked.hits, until=last, timeout=question.timeout)
            stages["rerank"] = reranked.seconds
        stages["total"] = time.perf_counter() - began
        self._metrics.add_search(stages)
        return SearchResult(
            tuple(reranked.hits),
            {answer.index: str(answer.error) for answer in found.answers if answer.error is not None},
            _timings(stages, answered),
            ordered.fusion,
            ordered.dense_weight,
            {answer.index: answer.live.collection for answer in answered if answer.live},
            "rerank" in stages and not reranked.error,
            reranked.error,
            nothing_fits=bool(judged) and all(hit.relevance < FITS for hit in judged),
            as_of=found.as_of,
            corrected=question.corrected,
        )

    def _chosen_reranking(self, rerank: bool | None) -> Reranking | None:
        if rerank and self._reranking is None:
            raise SettingsError("there is no reranker: set [retrieve] reranker, or leave rerank out")
        return None if rerank is False else self._reranking

    @staticmethod
    def _wider(limit: int, reranking: Reranking | None, min_score: float | None, collapse: str | None) -> int:
        """Return how many documents to ask for. Raises SettingsError if `min_score` is not from 0 to 1."""
        if min_score is not None and not 0 <= min_score <= 1:
            raise SettingsError(f"min_score is from 0 to 1, not {min_score!r}")
        wider = max(reranking.top if reranking else 0, limit * WIDER if collapse else 0)
        return max(limit, min(wider, MAX_HITS))

    def _fusion(self, given: Fusion | None) -> Fusion:
        fusion = given or self._settings.retrieve.fusion
        if fusion not in ("auto", "rank", "score"):
            raise SettingsError(f"fusion is auto, rank or score, not {fusion!r}")
        return fusion


def _store_opener(settings: Settings) -> Callable[[], StoreReader]:
    """Return a function that opens the store. A request to a server may take no longer than an index may."""
    timeout = min(settings.store.timeout, settings.retrieve.index_timeout)
    return lambda: open_reader(settings.store, wait=settings.run.wait, timeout=timeout, patience=REQUEST_PATIENCE)


def _timings(stages: dict[str, float], answered: Sequence[IndexAnswer]) -> dict[str, float]:
    timings = {"embed": 1000 * stages["embed"]}
    for answer in answered:
        timings[f"index {answer.index}" if answer.index in STAGES else answer.index] = 1000 * answer.seconds
    return timings | {stage: 1000 * seconds for stage, seconds in stages.items()}
