"""One question to several indexes, step by step: which collections are live, how often they have
its words, its vector, and the search itself, which is one request to each index.

An index that fails or is too slow gets an error, and the others go on: all are asked at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.components.embedders.bm25 import name_dimension
from rag_index.components.stores.protocol import NO_WORDS, StoreReader, VectorQuery, WordCounts
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
from rag_index.search.fusion import (
    MAX_SHORT_CHUNKS,
    best_candidates,
    document_key,
    scorings,
    with_texts,
)
from rag_index.search.live_collections import LiveCollection, LiveCollections
from rag_index.search.names import SoughtNames, runs_of_keys
from rag_index.search.options import MAX_HITS
from rag_index.search.query_model import EMBED_LANE, EMBED_REQUESTS, QueryVectors
from rag_index.search.question import Asked, IndexAnswer, Question, add_bm25, idf_of, together
from rag_index.search.relevance import UNCOUNTED, rank
from rag_index.search.spelling import (
    chosen_spellings,
    count_spellings,
    possible_spellings,
    suspects,
)
from rag_index.search.synonyms import Synonyms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from prometheus_client import CollectorRegistry

    from rag_index.components.embedders import Embedder
    from rag_index.core.documents.batches import StoredPoint
    from rag_index.core.settings import Settings
    from rag_index.search.access import AccessRules

T = TypeVar("T")
X = TypeVar("X")

MAX_MODEL_LOAD_SECONDS = 300.0
FILLING_SECONDS = 1.0
"""How long a vector is waited for while an index is being filled: its embedder is busy with
documents."""
COUNT_SHARE = 0.25
"""The share of its time that an index has to count words, and another to look for typing errors.
The words of one that is slower are not in the idf."""
READ_SHARE = 0.2
"""The share of the time that is kept to read what was found, should an index take all the rest."""
MAX_POINTS, MAX_OF_PHRASE, POINTS_GROWTH = 10_000, 2000, 4
"""Points requested at most, and how many times as many, if the chunks of long documents fill the
answer."""
IDLE_SECONDS = 300.0
"""How long after the last search an embedded store is closed; ten if a run wants to write."""
REQUESTS = 32
"""Requests to the store at a time, over all searches. Each index has its share, and one at
least."""
ALIASES, WORDS_LANE = "the aliases", "words"
"""Lanes of threads besides those of the indexes; those for words compute in this process."""


@dataclass(frozen=True, slots=True)
class Found:
    """The candidates of one index.

    Attributes:
        points: The candidates, in any order.
        commits: The number of the last commit that the search saw; None if it saw all.
        seconds: How long the store was asked.
    """

    points: list[StoredPoint]
    commits: int | None
    seconds: float


class FanOut:
    """The store, embedders and threads of a Retriever. Safe to use from several threads and event
    loops."""

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
            ALIASES: 2,
            WORDS_LANE: 2,
            EMBED_LANE: EMBED_REQUESTS,
        }
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
        """Return the candidates of the indexes; the best of them alone, unless the question is for
        `every` one.

        If `indexes` is None, all that hold something are asked. Those that are closed to the caller
        are left out. `problems` is why an index must not be asked, by its name. One that fails is
        asked once more, since its live collection may be another one by now. `finish` computes with
        what all have answered.

        Raises only if none can be asked: StoreError if nothing is indexed yet, and whatever error
        the store raises instead of answering.
        """
        began = time.perf_counter()
        names = await self._names(question.deadline) or await self._names(
            question.deadline, fresh=True
        )
        wanted = [one for one in indexes or names if self._access.is_open(one, question.caller)]
        if indexes is None and not wanted:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        asked = Asked(question, wanted, clock=began)
        for index in problems.keys() & wanted:
            asked.fail(index, StoreMismatch(problems[index]))
        todo, is_first = [index for index in wanted if index not in problems], True
        while todo:
            await self._open(asked, todo, names)
            await self._read_words(asked)
            await self._find(
                asked, [asked.answers[index] for index in todo if index in asked.answers]
            )
            failed = [
                name
                for name, error in asked.errors.items()
                if name not in problems and _may_pass(error)
            ]
            if not (is_first and failed):
                break
            # Their live collections may be others by now: they are asked once more.
            with suppress(RagIndexError):
                names = await self._names(question.deadline, fresh=True)
            self._live.forget(failed)
            for index in failed:
                del asked.errors[index]
            todo, is_first = failed, False
        await self._rank(asked, finish)
        return asked

    async def deepen(self, asked: Asked) -> bool:
        """Search deeper, for documents that follow the hits that there are. Return whether that was
        possible.

        Hits that were found before keep their places: what a search returns first does not depend
        on how deep it goes.
        """
        question = asked.question
        if not (asked.deeper or asked.left) or question.limit >= MAX_HITS:
            return False
        asked.question = replace(question, limit=min(MAX_HITS, question.limit * POINTS_GROWTH))
        await self._find(asked, asked.answered)
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

        It runs in a thread of the index. Raises StoreMismatch if the index has one of the
        `problems`, StoreError if it is empty, SearchTimedOut, and what the function raises.
        """
        if index in problems:
            raise StoreMismatch(problems[index])
        names = await self._names(deadline)

        def read() -> T:
            with self._threads.store() as store:
                live = self._live.cached(index, names.get(index)) or self._load(
                    store, (index, names.get(index))
                )
                return call(store, live)

        limit = Deadline(deadline.seconds, deadline.at + self._wait)
        return await self._threads.run(index, limit, read)

    def close(self) -> None:
        """Close the store and the embedders, and start no more calls; those already running
        finish."""
        self._vectors.close()
        self._threads.close()
        self._access.close()

    # The steps of a search

    async def _open(self, asked: Asked, indexes: Sequence[str], names: Mapping[str, str]) -> None:
        """Load the live collections of these indexes, and what the caller may see of them.

        A writer that is waited for may take as long as `--wait` says, which does not count.
        """
        question, deadline, began = asked.question, asked.question.deadline, time.monotonic()
        live = {index: self._live.cached(index, names.get(index)) for index in indexes}
        unknown = {
            index: (index, names.get(index)) for index, known in live.items() if known is None
        }
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
                    asked.answers[index] = IndexAnswer(
                        index, collection, own, hybrid, asks, recency=recency
                    )
        _end_stage(asked, "open")

    async def _read_words(self, asked: Asked) -> None:
        """Count the words of the question in each index, and replace those that are typing
        errors."""
        await self._understand(asked)
        await self._count_words(asked)
        if await self._correct(asked):
            await self._understand(asked)
            await self._count_words(asked)
        _end_stage(asked, "words")

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
        """Look for the words of the question, and for their synonyms, as each collection has
        them."""
        question, answered = asked.question, asked.answers.values()
        if self._synonyms and not question.exact:
            encoders = {
                one.live.encoder.model if one.live.encoder else None: one.live.encoder
                for one in answered
            }
            found = await self._think(
                question, self._synonyms.find, question.text, encoders.values()
            )
            asked.unread = self._synonyms.failure
            pairs = [(typed, other) for typed, other in found if not question.quotes(typed)]
            asked.question = question = replace(question, synonyms=pairs)
        for answer in answered:
            answer.understand(question)

    async def _count_words(self, asked: Asked) -> None:
        """Count the words of the question in each index that has not done so. The idf is that of
        all together.

        Where the database hides documents, the rarity of a word in the others is unknown: such an
        index does not count.
        """
        question = asked.question
        hybrid = {
            one.index: one
            for one in asked.answers.values()
            if one.hybrid and one.counts is NO_WORDS
        }

        def count(store: StoreReader, answer: IndexAnswer) -> WordCounts:
            words = {one for word in answer.all_words.values() for one in word.dimensions}
            names = map(name_dimension, [question.text, *runs_of_keys(question.text)])
            words.update(name for name in names if name is not None)
            return store.points(answer.live.collection).word_counts(sorted(words), answer.own)

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
        for (
            one
        ) in hybrid.values():  # its store would weigh words by those that the caller may not see
            one.hybrid = not (one.asks and one.counts is NO_WORDS)

    async def _correct(self, asked: Asked) -> bool:
        """Replace words of the question that are typing errors, and return whether there are any.

        The question stays as it is if an index does not say in time what it has, may not say it, or
        fails.
        """
        question, answered = asked.question, asked.answers.values()
        hybrid = {one.index: one for one in answered if one.hybrid}
        counted = not asked.errors and all(
            answer.counts is not NO_WORDS for answer in hybrid.values()
        )
        silent = question.exact or any(answer.asks for answer in answered)
        typed = suspects(hybrid.values()) if counted and not silent else {}
        known = [word for phrase, _ in question.synonyms for word in phrase.split()]
        typed = {
            word: count
            for word, count in typed.items()
            if word not in known and not question.quotes(word)
        }
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

    async def _find(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Search indexes for candidates, for more than before if that was done, or if they are of
        too few documents.

        Each index is searched as soon as its model has embedded the question, whatever other models
        do. The answers are left with the best of all candidates, unless the question is for `every`
        one.
        """
        question, before = asked.question, self._asking(asked)
        most = MAX_OF_PHRASE if question.phrases else MAX_POINTS
        embeddings = self._embed(asked, answers)
        while True:
            await asyncio.gather(*[self._search(asked, answer, embeddings) for answer in answers])
            await self._ask_database(
                asked, [one for one in answers if one.asks and one.index in asked.answers]
            )
            answered = asked.answered
            asked.scoring = scorings(answered, question)
            for answer in answered:
                answer.points = [one for one in answer.points if question.admits(one.payload)]
            best, few = best_candidates(answered, question, asked.scoring)
            unfinished = [answer for answer in answered if answer.full and answer.limit < most]
            answers = [answer for answer in unfinished if _is_short(answer, question, few)]
            if not answers:
                break
        rest = not question.every and any(
            len(best[one.index]) < len(one.points) for one in answered
        )
        asked.deeper = rest or bool(unfinished)
        asked.unranked = asked.deeper or (
            not question.phrases and any(one.full for one in answered)
        )
        if not question.every:
            for answer in answered:
                answer.points = best[answer.index]
        _end_stage(asked, "wait", self._asking(asked) - before)

    def _embed(self, asked: Asked, answers: Iterable[IndexAnswer]) -> dict[str, asyncio.Task[None]]:
        """Begin to embed the question with each model that has not done so. Return the tasks by
        fingerprint."""
        by_model: dict[str, list[IndexAnswer]] = {}
        for answer in answers:
            fingerprint = answer.live.fingerprint
            if fingerprint not in asked.vectors and not answer.limit:
                by_model.setdefault(fingerprint, []).append(answer)
        embed = self._take_vector if asked.question.model else self._embed_question
        return {
            fingerprint: asyncio.create_task(embed(asked, some))
            for fingerprint, some in by_model.items()
        }

    async def _embed_question(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Make the vector of the question for the indexes of one model, which are searched by words
        alone without it.

        Loading a model into this process does not count in the time of the search.
        """
        live, text, deadline, began = (
            answers[0].live,
            asked.question.meant,
            asked.question.deadline,
            time.monotonic(),
        )
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
        if any(answer.index in asked.answers for answer in answers):
            asked.seconds["embed"] = max(asked.seconds["embed"], took)

    async def _take_vector(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Let the indexes of one model be searched for what is like a document; by its words if it
        has another one."""
        model, fingerprint = asked.question.model, answers[0].live.fingerprint
        if model and model.fingerprint == fingerprint:
            asked.vectors[fingerprint] = model.vector
            return
        for answer in answers:
            if not answer.hybrid:
                asked.fail(
                    answer.index,
                    StoreError("has vectors of another model than the document, and no words"),
                )

    async def _search(
        self, asked: Asked, answer: IndexAnswer, embeddings: Mapping[str, asyncio.Task[None]]
    ) -> None:
        """Search one index for candidates once its vector is there. If it fails, it has an error
        for its answer."""
        question, fingerprint = asked.question, answer.live.fingerprint
        if fingerprint in embeddings:
            await embeddings[fingerprint]
        if answer.index not in asked.answers:  # its embedder has failed
            return
        first = answer.first(question) * (POINTS_GROWTH if answer.asks else 1)
        if answer.asks and question.phrases:
            # all at once: how often is searched would depend on words of hidden documents, which
            # come before the caller's own
            first = max(first, MAX_OF_PHRASE)
        answer.limit = min(MAX_POINTS, answer.limit * POINTS_GROWTH or first)
        until = _before_reading(question.deadline)
        search = partial(self._candidates, asked, answer, asked.vectors.get(fingerprint))
        try:
            found = await self._threads.run(
                answer.index, Deadline(until - time.monotonic(), until), search
            )
        except SearchTimedOut:
            asked.fail(answer.index, _late(question, "being searched"))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
            asked.fail(answer.index, exc)
        else:
            answer.points, answer.commits = found.points, found.commits
            answer.full = len(found.points) >= answer.limit
            answer.seconds += found.seconds

    def _candidates(
        self, asked: Asked, answer: IndexAnswer, vector: NDArray[np.float32] | None
    ) -> Found:
        """Ask the store for the candidates of an index: the nearest, the best by words, and what
        has a name."""
        question, collection, began = asked.question, answer.live.collection, time.perf_counter()
        conditions, names = (*answer.own, *question.conditions), SoughtNames()
        query = VectorQuery(vector, answer.limit, conditions=conditions, corpus=answer.own)
        weights = answer.weigh(asked.counts, asked.idf) if answer.hybrid else {}
        if answer.hybrid:
            names = (
                SoughtNames()
                if question.model
                else SoughtNames.of(answer, question.text, asked.counts)
            )
            query = replace(query, sparse=answer.query(weights, asked.idf), names=names.sparse)
        with self._threads.store() as store:
            points = store.points(collection)
            found = points.search(query)
            commits = points.seen_commits()
        add_bm25(found, weights)
        names.mark(found)
        for point in found:
            point.sparse = None  # it is not needed any more
            point.score = 0.0 if vector is None else point.score
        return Found(found, commits, time.perf_counter() - began)

    async def _ask_database(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Leave the candidates that the caller may see, in time for reading them. An index that
        cannot ask fails.

        How many documents the database is asked for, and how often, depends on the meaning of the
        query, and not on the words that documents have: the time that it takes would tell of words
        in those that the caller may not see.
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
        for index, keys in self._settled(
            asked, asking, permitted, "waiting for its database"
        ).items():
            answer = asking[index]
            seen = [
                key
                for point in _nearest(answer, _always_asked(answer))
                if (key := document_key(point)) in keys
            ]
            answer.enough = len(seen) >= answer.first(question) and len(set(seen)) >= question.limit
            answer.points = [
                one
                for one in answer.points
                if document_key(one) in keys and question.admits(one.payload)
            ]

    async def _read_shown(self, asked: Asked, known: int) -> None:
        """Show of hits that have the words of the query in their title alone a chunk that has some,
        or the first one.

        Chunks that were not found are read for that, but for hits that are `known`. Order and
        scores stay.
        """
        hits = [hit for hit in asked.hits[known:] if hit.by_title]
        wanted = {index: asked.answers[index] for index in {hit.index for hit in hits}}

        def read(store: StoreReader, answer: IndexAnswer) -> list[StoredPoint]:
            own = [hit for hit in hits if hit.index == answer.index]
            ids = [
                point_id(hit.index, hit.key, n)
                for hit in own
                for n in range(min(hit.total_chunks, MAX_SHORT_CHUNKS))
            ]
            conditions = (*answer.own, *asked.question.conditions)
            return store.points(answer.live.collection).retrieve(ids, conditions=conditions)

        found = await self._each(wanted, read, asked.question.deadline.at) if wanted else {}
        for index, points in found.items():
            if not isinstance(points, Exception):  # what was found is shown
                admitted = [one for one in points if asked.question.admits(one.payload)]
                asked.hits = with_texts(asked.hits, wanted[index], admitted)

    # What the steps are made of

    async def _each(
        self, targets: Mapping[str, X], call: Callable[[StoreReader, X], T], until: float
    ) -> dict[str, T | Exception]:
        """Return what a call returns or raises for the target of each index, if it is done `until`
        a monotonic time.

        Each index has a thread of its own.
        """
        found: dict[str, T | Exception] = {}

        def ask(target: X) -> T:
            with self._threads.store() as store:
                return call(store, target)

        async def turn(index: str, target: X) -> None:
            try:
                limit = Deadline(until - time.monotonic(), until)
                found[index] = await self._threads.run(index, limit, ask, target)
            except SearchTimedOut:
                pass  # what there is not is late
            except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
                found[index] = exc

        await asyncio.gather(*[turn(*one) for one in targets.items()])
        return found

    def _settled(
        self, asked: Asked, indexes: Iterable[str], found: Mapping[str, T | Exception], during: str
    ) -> dict[str, T]:
        """Return what was found in time, by index; the others get an error."""
        settled = {}
        for index in indexes:
            result = found[index] if index in found else _late(asked.question, during)
            if isinstance(result, Exception):
                asked.fail(index, result)
            else:
                settled[index] = result
        return settled

    async def _think(self, question: Question, call: Callable[..., T], *args: Any) -> T:
        """Return the result of a call that computes, by the deadline. Raises SearchBusy and
        SearchTimedOut."""
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

        def read() -> Mapping[str, str]:
            with self._threads.store() as store:
                return self._live.read_names(store, since)

        during = " while the store was opened: search again in a moment"
        return await self._threads.run(ALIASES, deadline, read, during=during)

    def _open_afresh(self) -> StoreReader:
        store = self._open_store()
        self._live.forget()  # another process may have changed anything while the store was closed
        return store

    def _load(self, store: StoreReader, named: tuple[str, str | None]) -> LiveCollection:
        index, name = named
        if name is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")
        return self._live.load(store, index, name)


def _may_pass(error: Exception) -> bool:
    """Return whether an index that failed so may answer if its live collection is another one by
    now."""
    return isinstance(error, StoreError | FingerprintChanged | BadVectors) and not isinstance(
        error, StoreBusy
    )


def _late(question: Question, during: str) -> SearchTimedOut:
    """Return the error of an index that is not done in time."""
    remedy = "search again in a moment, or allow more time ([retrieve] timeout)"
    return SearchTimedOut(f"still {during} after {question.deadline.seconds:g} s; {remedy}")


def _end_stage(asked: Asked, name: str, apart: float = 0.0) -> None:
    """Add the time since the last stage ended to this one, but for what counts `apart`."""
    now = time.perf_counter()
    asked.seconds[name] += max(0.0, now - asked.clock - apart)
    asked.clock = now


def _is_short(answer: IndexAnswer, question: Question, few: set[str]) -> bool:
    """Return whether an index should be searched for more candidates: these belong to too few
    documents.

    `few` are the indexes whose candidates, with those that they are compared with, do so.
    """
    if answer.asks:
        return not answer.enough
    if question.every or answer.index in few:
        return len(set(map(document_key, answer.points))) < question.limit
    return False


def _nearest(answer: IndexAnswer, count: int) -> list[StoredPoint]:
    return sorted(answer.points, key=lambda point: -point.score)[:count]


def _always_asked(answer: IndexAnswer) -> int:
    return answer.limit * 3 // 4


def _documents_to_ask(answer: IndexAnswer) -> list[str]:
    """Return the typed keys of as many documents as the nearest candidates have, whatever the
    others are.

    Three quarters of these candidates come first, then the best by words, and then the rest.
    """
    near, worded = (
        _nearest(answer, answer.limit),
        [one for one in answer.points if one.exact or one.bm25 > 0],
    )
    worded.sort(key=lambda point: (-point.exact, -point.bm25))
    ordered = [*near[: _always_asked(answer)], *worded, *near]
    return list(dict.fromkeys(map(document_key, ordered)))[: len(set(map(document_key, near)))]


def _before_reading(deadline: Deadline) -> float:
    """Return the moment by which candidates have to be there, if one index takes all the time that
    there is."""
    return deadline.at - READ_SHARE * (deadline.at - time.monotonic())
