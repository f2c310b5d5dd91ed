"""The words of a question: their synonyms, how many chunks have each, and which are typing errors.

They must be read before the candidates are searched for, because the weight of each word depends on
its frequency in all searched indexes together.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_index.components.embedders.bm25 import name_dimension
from rag_index.components.stores.protocol import NO_WORDS, StoreReader, WordCounts
from rag_index.errors import SearchBusy
from rag_index.search.names import runs_of_keys
from rag_index.search.question import Asked, IndexAnswer, idf_of, sum_counts
from rag_index.search.relevance import UNCOUNTED
from rag_index.search.spelling import (
    SpellingCount,
    chosen_spellings,
    count_spellings,
    possible_spellings,
    suspects,
)
from rag_index.search.synonyms import Synonyms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.core.settings import Settings
    from rag_index.search.concurrency import StoreThreads

COUNT_SHARE = 0.25
"""Share of a search's time in which an index must count words, and again in which it must count
possible spellings. Chosen; the words of a slower index are not part of the idf."""


class QuestionWords:
    """Reads the words of questions. Safe to use from several threads and event loops."""

    def __init__(self, settings: Settings, threads: StoreThreads) -> None:
        self._threads = threads
        self._synonyms = Synonyms(settings) if settings.retrieve.synonyms else None

    async def read(self, asked: Asked) -> None:
        """Set the words of each answer and their frequencies, and replace typing errors in the
        question.

        An index whose store cannot count the words fails; one that is busy or late is searched
        without counts.
        """
        await self._set_words(asked)
        await self._count(asked)
        if await self._correct(asked):
            await self._set_words(asked)
            await self._count(asked)
        asked.end_stage("words")

    async def _set_words(self, asked: Asked) -> None:
        """Set the words of the question and of its synonyms in each answer."""
        answers = asked.answers.values()
        if self._synonyms is not None and not asked.question.exact:
            await self._find_synonyms(self._synonyms, asked)
        for answer in answers:
            answer.set_words(asked.question)

    async def _find_synonyms(self, synonyms: Synonyms, asked: Asked) -> None:
        question = asked.question
        # Indexes with the same language have the same encoder.
        encoders = {}
        for answer in asked.answers.values():
            encoder = answer.live.encoder
            encoders[encoder.model if encoder else None] = encoder
        found = await self._threads.compute(
            question.deadline, synonyms.find, question.text, encoders.values()
        )
        asked.synonyms_failure = synonyms.failure
        pairs = [(typed, other) for typed, other in found if not question.quotes(typed)]
        asked.question = replace(question, synonyms=pairs)

    async def _count(self, asked: Asked) -> None:
        """Count the words in each hybrid index that has not done so, and set their idf in all
        indexes together."""
        question = asked.question
        uncounted: dict[str, IndexAnswer] = {}
        for answer in asked.answers.values():
            if answer.hybrid and answer.counts is NO_WORDS:
                uncounted[answer.index] = answer
        if not uncounted:
            return

        def count(store: StoreReader, answer: IndexAnswer) -> WordCounts:
            dimensions = _dimensions_to_count(answer, question.text)
            return store.points(answer.live.collection).word_counts(dimensions, answer.own)

        until = time.monotonic() + COUNT_SHARE * question.deadline.seconds
        counted = await self._threads.run_each(uncounted, count, until)
        for index, counts in counted.items():
            # A busy index is searched without counts.
            if isinstance(counts, SearchBusy):
                continue
            if isinstance(counts, Exception):
                asked.fail(index, counts)
            else:
                uncounted[index].counts = counts
        _set_idf(asked)

        for answer in uncounted.values():
            # Without counts, the store would weigh the words by all documents, also by those that
            # the caller may not see.
            if answer.asks and answer.counts is NO_WORDS:
                answer.hybrid = False

    async def _correct(self, asked: Asked) -> bool:
        """Replace the typing errors in the question, and return whether there are any.

        If an index is late, fails, or may not reveal its words, the question stays as it is.
        """
        question = asked.question
        typed = _possible_errors(asked)
        if not typed:
            return False
        possible = await self._threads.compute(question.deadline, possible_spellings, typed)
        words = _all_spellings(possible.values())
        if not words:
            return False

        def count(store: StoreReader, answer: IndexAnswer) -> Mapping[str, SpellingCount]:
            return count_spellings(store, answer, words)

        hybrid = _hybrid_answers(asked)
        until = time.monotonic() + COUNT_SHARE * question.deadline.seconds
        found = await self._threads.run_each(hybrid, count, until)
        counts = [result for result in found.values() if not isinstance(result, Exception)]
        if len(counts) < len(hybrid):
            return False
        corrected = chosen_spellings(possible, typed, counts)
        if not corrected:
            return False

        text = question.text
        for word, spelling in corrected.items():
            text = text.replace(word, spelling)
        asked.question = replace(question, text=text, corrected=corrected)
        for answer in asked.answers.values():
            answer.counts = NO_WORDS
        return True


def _dimensions_to_count(answer: IndexAnswer, text: str) -> list[int]:
    """Return the dimensions of the question's words, of its synonyms, and of the keys and titles
    that it may name."""
    dimensions = set[int]()
    for word in answer.all_words.values():
        dimensions.update(word.dimensions)
    for name in (text, *runs_of_keys(text)):
        dimension = name_dimension(name)
        if dimension is not None:
            dimensions.add(dimension)
    return sorted(dimensions)


def _set_idf(asked: Asked) -> None:
    answered = asked.answers.values()
    idf: dict[int, float] = {}
    # Where the database hides documents, a word's frequency in the others is unknown: its rarity is
    # assumed, and the index does not count.
    for answer in answered:
        if answer.asks:
            idf.update(dict.fromkeys(answer.counts.having, UNCOUNTED))
    asked.counts = sum_counts([answer.counts for answer in answered if not answer.asks])
    asked.idf = idf | idf_of(asked.counts)


def _hybrid_answers(asked: Asked) -> dict[str, IndexAnswer]:
    answered = asked.answers.values()
    return {answer.index: answer for answer in answered if answer.hybrid}


def _possible_errors(asked: Asked) -> dict[str, int]:
    """Return the words that may be typing errors, with the number of chunks that have each."""
    question = asked.question
    hybrid = _hybrid_answers(asked).values()
    if question.exact or asked.errors or any(answer.counts is NO_WORDS for answer in hybrid):
        return {}
    # A correction would reveal words of documents that the caller may not see.
    if any(answer.asks for answer in asked.answers.values()):
        return {}
    words_with_synonyms = " ".join(phrase for phrase, _ in question.synonyms).split()
    typed: dict[str, int] = {}
    for word, count in suspects(hybrid).items():
        if word not in words_with_synonyms and not question.quotes(word):
            typed[word] = count
    return typed


def _all_spellings(possible: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the spellings of all words, each once."""
    words: dict[str, None] = {}
    for spellings in possible:
        words.update(dict.fromkeys(spellings))
    return list(words)
