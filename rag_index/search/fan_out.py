"""One question to several indexes, step by step: which collections are live, how often they have its words, its vector,
the search itself, and the payloads of the best candidates.

An index that fails or is too slow gets an error, and the others go on: all are asked at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rag_index.components.embedders.bm25 import name_dimension
from rag_index.components.stores.protocol import NO_WORDS, StoreReader, VectorQuery, WordCounts
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.documents.keys import point_id
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    EmbedderWithdrawn,
    FingerprintChanged,
    RagIndexError,
    SearchBusy,
    SearchTimedOut,
    StoreBusy,
    StoreError,
    StoreMismatch,
)
from rag_index.search.concurrency import Deadline, StoreThreads
from rag_index.search.fusion import MAX_SHORT_CHUNKS, best_candidates, document_key, scorings, with_texts
from rag_index.search.live_collections import LiveCollection, LiveCollections
from rag_index.search.names import NameLookup, exact_first, runs_of_keys
from rag_index.search.options import MAX_HITS
from rag_index.search.query_model import EMBED_LANE, EMBED_REQUESTS, QueryVectors
from rag_index.search.question import (
    Asked,
    IndexAnswer,
    Question,
    idf_of,
    together,
    without_lift,
)  # fmt: skip
from rag_index.search.relevance import UNCOUNTED, rank
from rag_index.search.spelling import chosen_spellings, count_spellings, possible_spellings, suspects
from rag_index.search.synonyms import Synonyms

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from rag_index.components.embedders import Embedder
    from rag_index.core.settings import Settings
    from rag_index.search.access import AccessRules

T = TypeVar("T")
X = TypeVar("X")

MAX_MODEL_LOAD_SECONDS = 300.0
FILLING_SECONDS = 1.0
"""How long a vector is waited for while an index is being filled: its embedder is busy with documents."""
COUNT_SHARE = 0.25
"""The share of its time that an index has to count words, and another to look for typing errors. The words of one that
is slower are not in the idf."""
READ_SHARE = 0.2
"""The share of the time that is kept to read what was found, should an index take all the rest."""
MAX_POINTS, MAX_OF_PHRASE, POINTS_GROWTH = 10_000, 2000, 4
"""Points requested at most, and how many times as many, if the chunks of long documents fill the answer."""
IDLE_SECONDS = 300.0
"""How long after the last search an embedded store is closed; ten if a run wants to write."""
REQUESTS = 32
"""Requests to the store at a time, over all searches. Each index has its share, and one at least."""
ALIASES, WORDS_LANE = "the aliases", "words"
"""Lanes of threads besides those of the indexes; those for words compute in this process."""


class FanOut:
    """The store, embedders and threads of a Retriever. Safe to use from several threads and event loops."""

    def __init__(
        self,
        settings: Settings,
        access: AccessRules,
        registry: CollectorRegistry,
        *,
        open_store: Callable[[], StoreReader],
        open_embedder: Callable[..., Embedder] | None,
        collections: Mapping[str, str] | None = None,
    ) -> None:
        retrieve, self._embedded = settings.retrieve, settings.store.url is None
        self._wait = settings.run.wait if self._embedded else 0.0
        self._access, self._open_store = access, open_store
        self._recency = {index.name: index.recency for index in settings.indexes}
        self._live = LiveCollections(settings, pinned=collections)
        share = max(1, REQUESTS // max(1, len(settings.indexes)))
        widths = {index.name: share for index in settings.indexes} | {
            ALIASES: 2, WORDS_LANE: 2, EMBED_LANE: EMBED_REQUESTS,
        }  # fmt: skip
        idle = IDLE_SECONDS if self._embedded else None
        self._threads = StoreThreads(self._open_afresh, widths, idle=idle)
        self._synonyms = Synonyms(settings) if retrieve.synonyms else None
        self._vectors = QueryVectors(settings, registry, self._threads, opener=open_embedder)

    async def ask(
        self,
        question: Question,
        indexes: Sequence[str] | None,
        problems: Mapping[str, str],
        finish: Callable[[Asked], None] = rank,
    ) -> Asked:
        """Return the candidates of the indexes; the best of them alone, unless the question is for all `payloads`.

        If `indexes` is None, all that hold something are asked. Those that are closed to the caller are left
        out. `problems` is why an index must not be asked, by its name. One that fails is asked once more, since its
        live collection may be another one by now. `finish` computes with what all have answered.

        Raises only if none can be asked: StoreError if nothing is indexed yet, and whatever error the store raises
        instead of answering.
        """
        began = time.perf_counter()
        names = await self._names(question.deadline) or await self._names(question.deadline, fresh=True)
        wanted = [one for one in indexes or names if self._access.is_open(one, question.caller)]
        if indexes is None and not wanted:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        asked = Asked(question, wanted, clock=began)
        for index in problems.keys() & wanted:
            asked.fail(index, StoreMismatch(problems[index]))
        await self._ask(asked, [index for index in wanted if index not in problems], names)
        failed = [
            name
            for name, error in asked.errors.items()
            if name not in problems
            and isinstance(error, StoreError | FingerprintChanged | BadVectors)
            and not isinstance(error, StoreBusy)
        ]
        if failed:  # their live collections may be others by now
            with suppress(RagIndexError):
                names = await self._names(question.deadline, fresh=True)
            self._live.forget(failed)
            for index in failed:
                del asked.errors[index]
            await self._ask(asked, failed, names)
        await self._rank(asked, finish)
        return asked

    async def deepen(self, asked: Asked) -> bool:
        """Search deeper, for documents that follow the hits that there are. Return whether that was possible.

        Hits that were found before keep their places: what a search returns first does not depend on how deep it goes.
        """
        question = asked.question
        if not (asked.deeper or asked.left) or question.limit >= MAX_HITS:
            return False
        asked.question = replace(question, limit=min(MAX_HITS, question.limit * POINTS_GROWTH))
        await self._find(asked, [self._search(asked, asked.answered)])
        await self._rank(asked, rank)
        return True

    async def read(
        self,
        index: str,
        deadline: Deadline,
        call: Callable[[StoreReader, LiveCollection], T],
        problems: Mapping[str, str],
    ) -> T:
        """Return what a function returns that gets the store and the index's live collection.

        It runs in a thread of the index. Raises StoreMismatch if the index has one of the `problems`, StoreError if it
        is empty, SearchTimedOut, and what the function raises.
        """
        if index in problems:
            raise StoreMismatch(problems[index])
        names = await self._names(deadline)

        def read(store: StoreReader) -> T:
            live = self._live.cached(index, names.get(index)) or self._load(store, (index, names.get(index)))
            return call(store, live)

        limit = Deadline(deadline.seconds, deadline.at + self._wait)
        return await self._threads.run(index, limit, self._threads.ask, read)

    def close(self) -> None:
        """Close the store and the embedders, and start no more calls; those already running finish."""
        self._vectors.close()
        self._threads.close()
        self._access.close()

    # The steps of a search

    async def _ask(self, asked: Asked, indexes: Sequence[str], names: Mapping[str, str]) -> None:
        """Ask these indexes for candidates, and read the best of all.

        A writer that is waited for may take as long as `--wait` says, which does not count.
        """
        question, deadline, began = asked.question, asked.question.deadline, time.monotonic()
        live = {index: self._live.cached(index, names.get(index)) for index in indexes}
        unknown = {index: (index, names.get(index)) for index, known in live.items() if known is None}
        if unknown:
            until = _before_reading(deadline) + self._wait
            loaded = await self._each(unknown, self._load, until)
            live |= self._settled(asked, unknown, loaded, "being opened")
            deadline.at += time.monotonic() - began if self._wait else 0.0
        for index, collection in live.items():
            if collection is not None:
                try:
                    own = self._access.conditions(collection, question.caller)
                except StoreError as exc:
                    asked.fail(index, exc)
                else:
                    hybrid = collection.encoder is not None and question.dense_weight != 1
                    asks = self._access.asks(index, question.caller)
                    recency = self._recency.get(index)
                    asked.answers[index] = IndexAnswer(index, collection, own, hybrid, asks, recency=recency)
        _end_stage(asked, "open")
        await self._understand(asked)
        await self._count_words(asked)
        if await self._correct(asked):
            await self._understand(asked)
            await self._count_words(asked)
        _end_stage(asked, "words")
        by_model: dict[str, list[IndexAnswer]] = {}
        for answer in (asked.answers[index] for index in indexes if index in asked.answers):
            by_model.setdefault(answer.live.fingerprint, []).append(answer)
        search = self._search_like if question.model else self._embed_and_search
        await self._find(asked, [search(asked, answers) for answers in by_model.values()])

    async def _find(self, asked: Asked, searches: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Await searches for candidates, and read the best of these."""
        before = self._asking(asked)
        await _all(searches)
        _end_stage(asked, "wait", (between := self._asking(asked)) - before)
        await self._read_best(asked)
        _end_stage(asked, "read", self._asking(asked) - between)

    async def _rank(self, asked: Asked, finish: Callable[[Asked], None]) -> None:
        """Put candidates in order, and read what is shown of those that become hits."""
        known, fused = len(asked.hits), asked.seconds["fuse"]
        await self._think(asked.question, finish, asked)
        _end_stage(asked, "compare", asked.seconds["fuse"] - fused)
        await self._read_shown(asked, known)
        _end_stage(asked, "show")

    def _asking(self, asked: Asked) -> float:
        """Return for how long the embedder, indexes and the database were asked."""
        asked.searched = max([0.0, *[one.seconds for one in asked.answers.values()]])
        return asked.seconds["embed"] + asked.seconds["access"] + asked.searched

    async def _understand(self, asked: Asked) -> None:
        """Look for the words of the question, and for their synonyms, as each collection has them."""
        question, answered = asked.question, asked.answers.values()
        if self._synonyms and not question.exact:
            encoders = {one.live.encoder.model if one.live.encoder else None: one.live.encoder for one in answered}
            found = await self._think(question, self._synonyms.find, question.text, encoders.values())
            asked.unread = self._synonyms.failure
            pairs = [(typed, other) for typed, other in found if not question.quotes(typed)]
            asked.question = question = replace(question, synonyms=pairs)
        for answer in answered:
            answer.understand(question)

    async def _count_words(self, asked: Asked) -> None:
        """Count the words of the question in each index that has not done so. The idf is that of all together.

        Where the database hides documents, the rarity of a word in the others is unknown: such an index does not count.
        """
        question = asked.question
        hybrid = {one.index: one for one in asked.answers.values() if one.hybrid and one.counts is NO_WORDS}

        def count(store: StoreReader, answer: IndexAnswer) -> WordCounts:
            words = {one for word in answer.all_words.values() for one in word.dimensions}
            names = map(name_dimension, [question.text, *runs_of_keys(question.text)])
            words.update(name for name in names if name is not None)
            return store.word_counts(answer.live.collection, sorted(words), answer.own)

        if hybrid:
            until = time.monotonic() + COUNT_SHARE * question.deadline.seconds
            for index, counts in (await self._each(hybrid, count, until)).items():
                if isinstance(counts, Exception):
                    if not isinstance(counts, SearchBusy):
                        asked.fail(index, counts)
                else:
                    hybrid[index].counts = counts
            answered = asked.answers.values()
            hidden = {word: UNCOUNTED for one in answered if one.asks for word in one.counts.having}
            asked.counts = together([answer.counts for answer in answered if not answer.asks])
            asked.idf = hidden | idf_of(asked.counts)
        for one in hybrid.values():  # its store would weigh words by those that the caller may not see
            one.hybrid = not (one.asks and one.counts is NO_WORDS)

    async def _correct(self, asked: Asked) -> bool:
        """Replace words of the question that are typing errors, and return whether there are any.

        The question stays as it is if an index does not say in time what it has, may not say it, or fails.
        """
        question, answered = asked.question, asked.answers.values()
        hybrid = {one.index: one for one in answered if one.hybrid}
        counted = not asked.errors and all(answer.counts is not NO_WORDS for answer in hybrid.values())
        silent = question.exact or any(answer.asks for answer in answered)
        typed = suspects(hybrid.values()) if counted and not silent else {}
        known = [word for phrase, _ in question.synonyms for word in phrase.split()]
        typed = {word: count for word, count in typed.items() if word not in known and not question.quotes(word)}
        possible = await self._think(question, possible_spellings, typed) if typed else {}
        words = list(dict.fromkeys(spelling for some in possible.values() for spelling in some))
        if not words:
            return False

        def count(store: StoreReader, answer: IndexAnswer) -> Mapping[str, tuple[int, int, str]]:
            return count_spellings(store, answer, words)

        until = time.monotonic() + COUNT_SHARE * question.deadline.seconds
        found = await self._each(hybrid, count, until)
        counts = [one for one in found.values() if not isinstance(one, Exception)]
        corrected = chosen_spellings(possible, typed, counts) if len(counts) == len(hybrid) else {}
        if corrected:
            text = reduce(lambda text, word: text.replace(*word), corrected.items(), question.text)
            asked.question = replace(question, text=text, corrected=corrected)
            for answer in answered:
                answer.counts = NO_WORDS
        return bool(corrected)

    async def _embed_and_search(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Make the vector of the question for the indexes of one model, and search them; by words alone without it.

        Loading a model into this process does not count in the time of the search.
        """
        live, text, deadline, began = answers[0].live, asked.question.meant, asked.question.deadline, time.monotonic()
        filling = [one.index for one in answers if one.index in asked.question.filling]
        busy = bool(filling) and all(answer.hybrid for answer in answers)
        try:
            loaded = self._vectors.loaded(live)
            limit = Deadline(deadline.seconds, _before_reading(deadline))
            if busy and loaded:
                limit = Deadline(FILLING_SECONDS, min(limit.at, began + FILLING_SECONDS))
            elif not loaded:
                limit = Deadline.after(MAX_MODEL_LOAD_SECONDS)
            vector = await self._vectors.get(live, text, limit)
            took = time.monotonic() - began
            deadline.at += 0.0 if loaded else took
        except Exception as exc:  # noqa: BLE001 - whatever it is, the indexes of other models answer
            absent = isinstance(exc, EmbedderUnavailable | SearchTimedOut | SearchBusy)
            withdrawn = isinstance(exc, EmbedderWithdrawn)
            why = str(exc) if withdrawn else f"its embedder fails: {exc}"
            if busy and isinstance(exc, SearchTimedOut | SearchBusy):
                why = f"its embedder is busy with documents of {filling[0]}"
            for answer in answers:
                by_words = withdrawn or (absent and (busy or asked.question.dense_weight == 0))
                if by_words and answer.hybrid:
                    asked.lacking[answer.index] = f"was searched by words alone, since {why}"
                else:
                    asked.fail(answer.index, exc)
            took = time.monotonic() - began if busy else 0.0
        else:
            asked.vectors[live.fingerprint] = vector
        if answers := [one for one in answers if one.index in asked.answers]:
            asked.seconds["embed"] = max(asked.seconds["embed"], took)
            await self._search(asked, answers)

    async def _search_like(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Search the indexes of one model for what is like a document; by its words alone if it has another model."""
        model, fingerprint = asked.question.model, answers[0].live.fingerprint
        if model and model.fingerprint == fingerprint:
            asked.vectors[fingerprint] = model.vector
        for answer in answers:
            if fingerprint not in asked.vectors and not answer.hybrid:
                asked.fail(answer.index, StoreError("has vectors of another model than the document, and no words"))
        if found := [one for one in answers if one.index in asked.answers]:
            await self._search(asked, found)

    async def _search(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Search indexes for candidates, for more than before if that was done."""
        question = asked.question
        for answer in answers:
            first = answer.first(question) * (POINTS_GROWTH if answer.asks else 1)
            answer.limit = min(MAX_POINTS, answer.limit * POINTS_GROWTH or first)

        def search(store: StoreReader, answer: IndexAnswer) -> tuple[list[StoredPoint], int | None, float]:
            sparse, named, began = None, math.inf, time.perf_counter()
            if answer.hybrid:
                sparse, named = answer.query(question.text, asked.counts, asked.idf)
            vector, conditions = asked.vectors.get(answer.live.fingerprint), (*answer.own, *question.conditions)
            any_vector = np.ones(answer.live.identity.dimension, dtype=np.float32) if vector is None else vector
            whole = question.payloads or answer.asks
            query = VectorQuery(any_vector, answer.limit, sparse, conditions, payload=whole, corpus=answer.own)
            found = store.search(answer.live.collection, query)
            answer.full = len(found) >= answer.limit
            if sparse and not question.model:
                look_up = NameLookup(store, answer.live.collection, conditions, vector, sparse, idf_of(answer.counts))
                found = exact_first(look_up, answer, question.text, asked.counts, found)
            points = [one for one in found if answer.asks or not one.payload or question.admits(one.payload)]
            for point in points:
                if named < point.bm25:
                    point.bm25, point.exact = without_lift(point.bm25, named), True
                if vector is None:
                    point.score = 0.0
            if vector is None and question.filling:
                points = [point for point in points if point.bm25 > 0 or point.exact or point.names]
            return points, store.seen_commits(answer.live.collection), time.perf_counter() - began

        searched = {answer.index: answer for answer in answers}
        found = await self._each(searched, search, _before_reading(question.deadline))
        for index, result in self._settled(asked, searched, found).items():
            answer = searched[index]
            answer.points, answer.commits, seconds = result
            answer.seconds += seconds
            answer.whole = question.payloads or (not answer.asks and all(point.payload for point in answer.points))
        await self._ask_database(asked, [one for one in answers if one.asks and one.index in asked.answers])

    async def _ask_database(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Leave the candidates that the caller may see, in time for reading them. An index that cannot ask fails.

        How many documents the database is asked for, and how often, depends on the meaning of the query, and not on the
        words that documents have: the time that it takes would tell of words in those that the caller may not see.
        """
        question, began = asked.question, time.perf_counter()
        until = _before_reading(question.deadline)

        def ask(_: StoreReader, answer: IndexAnswer) -> set[str]:
            return self._access.permitted(
                answer.index, question.caller, _documents_to_ask(answer), until - time.monotonic()
            )

        asking = {answer.index: answer for answer in answers}
        permitted = await self._each(asking, ask, until) if asking else {}
        asked.seconds["access"] += time.perf_counter() - began if asking else 0.0
        for index, keys in self._settled(asked, asking, permitted, "waiting for its database").items():
            answer = asking[index]
            seen = [key for point in _nearest(answer, _always_asked(answer)) if (key := document_key(point)) in keys]
            answer.enough = len(seen) >= answer.first(question) and len(set(seen)) >= question.limit
            answer.points = [one for one in answer.points if document_key(one) in keys and question.admits(one.payload)]

    async def _read_best(self, asked: Asked) -> None:
        """Read the payloads of the best candidates, and ask for more where these belong to too few documents.

        The answers are left with the best alone, unless all came with their payloads.
        """
        question, missing = asked.question, dict[str, set[str]]()
        most = MAX_OF_PHRASE if question.phrases else MAX_POINTS

        def read(store: StoreReader, answer: IndexAnswer) -> dict[str, dict[str, Any]]:
            conditions = (*answer.own, *question.conditions)
            points = store.retrieve(answer.live.collection, list(missing[answer.index]), conditions=conditions)
            return {one.id: one.payload or {RESERVED_KEY: {}} for one in points if question.admits(one.payload)}

        answered = asked.answered
        asked.scoring = scorings(answered, question)
        while True:
            best, few = best_candidates(answered, question, asked.scoring)
            whole = all(one.whole for one in answered)
            missing = {index: {point.id for point in points if not point.payload} for index, points in best.items()}
            unread = {} if whole else {answer.index: answer for answer in answered if missing[answer.index]}
            if unread:
                found = await self._each(unread, read, question.deadline.at)
                for index, payloads in self._settled(asked, unread, found).items():
                    for point in unread[index].points:
                        point.payload = payloads.get(point.id, point.payload)
                    gone = missing[index] - payloads.keys()  # or not what is asked for
                    unread[index].points = [one for one in unread[index].points if one.id not in gone]
                answered = asked.answered
                continue
            short = [
                answer
                for answer in answered
                if (whole or answer.asks or answer.index in few)
                and answer.full
                and answer.limit < most
                and not (answer.enough if answer.asks and not question.phrases else _has_documents(answer, question))
            ]
            if not short:
                break
            await self._search(asked, short)
            answered = asked.answered
            asked.scoring = scorings(answered, question)
        rest = not whole and any(len(best[one.index]) < len(one.points) for one in answered)
        asked.deeper = rest or any(one.full and one.limit < most for one in answered)
        asked.unranked = asked.deeper or (not question.phrases and any(one.full for one in answered))
        for answer in answered if not whole else ():
            answer.points = best[answer.index]

    async def _read_shown(self, asked: Asked, known: int) -> None:
        """Show of hits that have the words of the query in their title alone a chunk that has some, or the first one.

        Chunks that were not found are read for that, but for hits that are `known`. Order and scores stay.
        """
        hits = [hit for hit in asked.hits[known:] if hit.by_title]
        wanted = {index: asked.answers[index] for index in {hit.index for hit in hits}}

        def read(store: StoreReader, answer: IndexAnswer) -> list[StoredPoint]:
            own = [hit for hit in hits if hit.index == answer.index]
            ids = [
                point_id(hit.index, hit.key, n) for hit in own for n in range(min(hit.total_chunks, MAX_SHORT_CHUNKS))
            ]
            return store.retrieve(answer.live.collection, ids, conditions=(*answer.own, *asked.question.conditions))

        found = await self._each(wanted, read, asked.question.deadline.at) if wanted else {}
        for index, points in found.items():
            if not isinstance(points, Exception):  # what was found is shown
                admitted = [one for one in points if asked.question.admits(one.payload)]
                asked.hits = with_texts(asked.hits, wanted[index], admitted)

    # What the steps are made of

    async def _each(
        self, targets: Mapping[str, X], call: Callable[[StoreReader, X], T], until: float
    ) -> dict[str, T | Exception]:
        """Return what a call returns or raises for the target of each index, if it is done `until` a monotonic time.

        Each index has a thread of its own.
        """
        found: dict[str, T | Exception] = {}

        async def turn(index: str, target: X) -> None:
            try:
                limit = Deadline(until - time.monotonic(), until)
                found[index] = await self._threads.run(index, limit, self._threads.ask, call, target)
            except SearchTimedOut:
                pass  # what there is not is late
            except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
                found[index] = exc

        await _all(turn(*one) for one in targets.items())
        return found

    def _settled(
        self, asked: Asked, indexes: Iterable[str], found: Mapping[str, T | Exception], during: str = "being searched"
    ) -> dict[str, T]:
        """Return what was found in time, by index; the others get an error."""
        seconds = asked.question.deadline.seconds
        remedy = "search again in a moment, or allow more time ([retrieve] timeout)"
        settled = {}
        for index in indexes:
            late = index not in found
            result = SearchTimedOut(f"still {during} after {seconds:g} s; {remedy}") if late else found[index]
            if isinstance(result, Exception):
                asked.fail(index, result)
            else:
                settled[index] = result
        return settled

    async def _think(self, question: Question, call: Callable[..., T], *args: Any) -> T:
        """Return the result of a call that computes, by the deadline. Raises SearchBusy and SearchTimedOut."""
        try:
            return await self._threads.run(WORDS_LANE, question.deadline, call, *args)
        except asyncio.CancelledError:
            question.deadline.at = -math.inf  # the result is not needed any more
            raise

    async def _names(self, deadline: Deadline, *, fresh: bool = False) -> Mapping[str, str]:
        """Return the name of each index's live collection, read now if `fresh`."""
        since = time.monotonic() - (0 if fresh else self._live.seconds)
        if (known := self._live.names(since)) is not None:
            return known
        during, read = " while the store was opened: search again in a moment", self._live.read_names
        return await self._threads.run(ALIASES, deadline, self._threads.ask, read, since, during=during)

    def _open_afresh(self) -> StoreReader:
        store = self._open_store()
        self._live.forget()  # another process may have changed anything while the store was closed
        return store

    def _load(self, store: StoreReader, named: tuple[str, str | None]) -> LiveCollection:
        index, name = named
        if name is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")
        return self._live.load(store, index, name)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of these, at once; one alone needs no task of its own."""
    some = list(work)
    await (some[0] if len(some) == 1 else asyncio.gather(*some))


def _end_stage(asked: Asked, name: str, apart: float = 0.0) -> None:
    """Add the time since the last stage ended to this one, but for what counts `apart`."""
    now = time.perf_counter()
    asked.seconds[name] += max(0.0, now - asked.clock - apart)
    asked.clock = now


def _has_documents(answer: IndexAnswer, question: Question) -> bool:
    """Return whether the candidates belong to as many documents as are asked for."""
    return len(set(map(document_key, answer.points))) >= question.limit


def _nearest(answer: IndexAnswer, count: int) -> list[StoredPoint]:
    return sorted(answer.points, key=lambda point: -point.score)[:count]


def _always_asked(answer: IndexAnswer) -> int:
    return answer.limit * 3 // 4


def _documents_to_ask(answer: IndexAnswer) -> list[str]:
    """Return the typed keys of as many documents as the nearest candidates have, whatever the others are.

    Three quarters of these candidates come first, then the best by words, and then the rest.
    """
    near, worded = _nearest(answer, answer.limit), [one for one in answer.points if one.exact or one.bm25 > 0]
    worded.sort(key=lambda point: (-point.exact, -point.bm25))
    ordered = [*near[: _always_asked(answer)], *worded, *near]
    return list(dict.fromkeys(map(document_key, ordered)))[: len(set(map(document_key, near)))]


def _before_reading(deadline: Deadline) -> float:
    """Return the moment by which candidates have to be there, if one index takes all the time that there is."""
    return deadline.at - READ_SHARE * (deadline.at - time.monotonic())
