"""A search as the indexes are asked it, and what each of them answers."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.components.embedders.bm25 import QueryWord, is_compound_name, names_of
from rag_index.components.embedders.tokenizer import OF_PHRASES, folded, is_excludable
from rag_index.components.stores.protocol import NO_WORDS, Condition, WordCounts
from rag_index.core.documents.batches import RESERVED_KEY, TITLE, StoredPoint
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import SettingsError
from rag_index.search.access import NOBODY, Caller, caller_of
from rag_index.search.concurrency import Deadline
from rag_index.search.filters import check_fields, conditions_of
from rag_index.search.options import MAX_HITS, PythonOptions
from rag_index.search.synonyms import Pair, Phrases, words_beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.settings import Settings
    from rag_index.core.settings.sections import RecencySettings
    from rag_index.search.live_collections import LiveCollection
    from rag_index.search.results import SearchHit

_MARKS = (('"', '"'), ("\u201c", "\u201d"), ("\u201e", "\u201c\u201d"), ("\u300c", "\u300d"))
_QUOTED = re.compile("|".join(f"(?<!\\d){begin}([^{begin}{end}]+)[{end}]" for begin, end in _MARKS))
_MINUS = re.compile(r"(?<!\S)-([^\s\"]+)")
LIKE_CHARS = 500
"""Characters of a document whose words are searched for in others."""
MAX_TYPED = 12
"""Words of a query at most in which quotes and minuses say what must be there."""
CHUNKS_PER_DOCUMENT = 3
"""Chunks requested for each document wanted, since several chunks of one document may match."""
MIN_CANDIDATES = 50
"""Chunks requested at least by each vector of a hybrid search: the best of both together may be far
down in each."""


@dataclass(frozen=True, slots=True)
class LikeDocument:
    """A document that others are to be like: its first text, and the mean of the vectors of its
    first chunks."""

    index: str
    document_id: str
    title: str
    text: str
    fingerprint: str
    vector: NDArray[np.float32]

    def is_same(self, hit: SearchHit) -> bool:
        """Return whether a hit is this document, or repeats its text."""
        own = (hit.index, hit.document_id) == (self.index, self.document_id)
        return own or folded_text(hit.text) == folded_text(self.text)


def folded_text(text: str) -> str:
    """Return a text without what makes no difference where texts are compared: spaces and
    capitals."""
    return " ".join(text.split()).casefold()


def like_question(question: Question, model: LikeDocument) -> Question:
    """Return the question for documents like one, by its title and its first words. None of them is
    an operator."""
    text = f"{model.title}\n{model.text}"[:LIKE_CHARS]
    return replace(
        question, text=text, phrases=(), excluded=(), exact=True, name=False, model=model
    )


@dataclass(frozen=True, slots=True)
class Question:
    """A validated search. `conditions` are the caller's; each index adds its own, by the caller's
    groups.

    With a `dense_weight` of 1, words are not searched for; if it is None, the weight of each
    index's model holds. `name` says that the query is one compound name, and that neither the
    caller nor the settings chose a weight: source code is then searched with `fusion.NAME_WEIGHT`.
    """

    text: str
    limit: int
    """How many documents the indexes are searched for: it decides how many candidates are
    compared."""
    conditions: tuple[Condition, ...]
    deadline: Deadline
    dense_weight: float | None = None
    name: bool = False
    caller: Caller = NOBODY
    every: bool = False
    """Whether all candidates are kept, to be put in order with any weight."""
    phrases: tuple[str, ...] = ()
    """What a passage must have, as words in small letters between spaces."""
    excluded: tuple[str, ...] = ()
    exact: bool = False
    corrected: Mapping[str, str] = field(default_factory=dict)
    """What is searched for in place of words of the query that no index has: see `spelling`."""
    synonyms: Sequence[Pair] = ()
    """What the query has, each time with another phrase that means the same: see `synonyms`."""
    hits: int | None = None
    """How many of the documents that are found become hits; by default `limit`."""
    model: LikeDocument | None = None
    """The document that others are to be like: nothing is embedded, and an index of another model
    finds by words."""
    filling: frozenset[str] = frozenset()
    """The indexes that a first run fills now: their embedder is busy, so that a vector is not
    waited for long."""

    def quotes(self, word: str) -> bool:
        """Return whether a word stands in quotes."""
        return any(spaced(word) in phrase for phrase in self.phrases)

    @property
    def meant(self) -> str:
        """Return the text with the synonyms of its phrases, for models that read it."""
        return (
            f"{self.text}\n{Phrases(self.synonyms, None).read(self.text)}"
            if self.synonyms
            else self.text
        )

    def admits(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a passage has all phrases, and none of the words that it must not have."""
        if not (self.phrases or self.excluded):
            return True
        text = spaced(text_of(payload))
        return all(one in text for one in self.phrases) and not any(
            one in text for one in self.excluded
        )


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a chunk's two scores become one. `best_bm25` is the best BM25 of all candidates; 0 if
    none has a word."""

    dense_weight: float = 1.0
    best_bm25: float = 0.0
    soft_weight: float = 0.0


@dataclass(slots=True)
class IndexAnswer:
    """The candidates of one index, in any order.

    If it is searched by words too (`hybrid`), every candidate has both scores, the one by words
    with the inverse document frequency in all the indexes asked.
    """

    index: str
    live: LiveCollection
    own: tuple[Condition, ...]
    """The conditions that the settings and the caller's groups add."""
    hybrid: bool
    asks: bool = False
    """Whether the database says which of the candidates the caller may see."""
    enough: bool = True
    """Whether it shows enough of them, if it does."""
    words: Mapping[str, QueryWord] = field(default_factory=dict)
    """The words of the question as the collection has them."""
    beside: Mapping[str, QueryWord] = field(default_factory=dict)
    """The words of its synonyms."""
    synonyms: Phrases | None = None
    """What finds the synonyms in texts."""
    counts: WordCounts = NO_WORDS
    points: list[StoredPoint] = field(default_factory=list)
    recency: RecencySettings | None = None
    """How newer documents are lifted."""
    limit: int = 0
    """How many points were asked for by each vector."""
    full: bool = False
    """Whether there were as many, so that there may be more."""
    commits: int | None = None
    """The number of the last commit that the search saw; None if it saw all."""
    seconds: float = 0.0

    @property
    def all_words(self) -> Mapping[str, QueryWord]:
        """Return the words of the question and of its synonyms."""
        return {**self.beside, **self.words}

    def first(self, question: Question) -> int:
        """Return how many points are asked for at first by each vector, and are enough if all of
        them may be seen."""
        return max(question.limit * CHUNKS_PER_DOCUMENT, MIN_CANDIDATES if self.hybrid else 0)

    def understand(self, question: Question) -> None:
        """Take the words of a question, and those of its synonyms, which are to be counted."""
        encoder = self.live.encoder
        self.words = encoder.words(question.text) if encoder else {}
        if encoder and question.synonyms:
            silent = [
                pair for pair in question.synonyms if not encoder.words(pair[0])
            ]  # as "IT" in English
            self.words = {**words_beside(silent, encoder), **self.words}
            self.beside = words_beside(question.synonyms, encoder)
            self.synonyms = Phrases([(other, typed) for typed, other in question.synonyms], encoder)

    def reads(self, texts: Iterable[str]) -> list[str]:
        """Return texts as they are compared with the question: with what was typed behind each of
        its synonyms."""
        return [self.synonyms.read(text) for text in texts] if self.synonyms else [*texts]

    def weigh(self, all_counts: WordCounts, idf: Mapping[int, float]) -> dict[int, float]:
        """Return what each word of the question counts: how often it stands there, times its idf in
        all indexes."""
        weights = dict[int, float]()
        for word in (*self.words.values(), *self.beside.values()):
            for one in word.known(all_counts.having):
                weights[one] = weights.get(one, 0.0) + word.count * idf.get(one, 1.0)
        return weights

    def query(self, weights: Mapping[int, float], idf: Mapping[int, float]) -> SparseVector:
        """Return the sparse vector that finds the best points by words of these weights.

        The store multiplies it by the idf in this index alone, which is therefore taken out of the
        weights.
        """
        own = {**idf, **idf_of(self.counts)}
        values = {word: weights[word] / own.get(word, 1.0) for word in sorted(weights)}
        return SparseVector(tuple(values), tuple(values.values()))


@dataclass(slots=True)
class Asked:
    """A question on its way to indexes, and what each of these `indexes` answers: candidates, or an
    error."""

    question: Question
    indexes: list[str]
    answers: dict[str, IndexAnswer] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    """What is missing of an index, and why, although it is no error that it is."""
    unread: str = ""
    """Why the synonyms of the settings are not known; "" if they are."""
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """The vector of the question, by the fingerprint of the model."""
    counts: WordCounts = NO_WORDS
    """The words of the question as all indexes together count them."""
    idf: Mapping[int, float] = field(default_factory=dict)
    scoring: Mapping[str, Scoring] = field(default_factory=dict)
    hits: list[SearchHit] = field(default_factory=list)
    """The best hits of all indexes, once they are ranked."""
    unranked: bool = False
    """Whether there are candidates, or may be, that were not ranked."""
    deeper: bool = False
    """Whether a deeper search would rank some of them."""
    left: bool = False
    """Whether there are documents that were ranked, and are no hits."""
    remark: str = ""
    """That the question seems to be in a language that the embedder does not know."""
    searched: float = 0.0
    """For how long indexes were searched: all of them together, or the slowest of those that were
    searched at once."""
    seconds: defaultdict[str, float] = field(default_factory=partial(defaultdict, float))
    """How long each stage took, beside the searches of the indexes."""
    clock: float = field(default_factory=time.perf_counter)
    """When the last stage ended."""

    @property
    def answered(self) -> list[IndexAnswer]:
        """Return the answers in the order in which the indexes were asked."""
        return [self.answers[index] for index in self.indexes if index in self.answers]

    @property
    def reasons(self) -> dict[str, str]:
        """Return why indexes failed, in the order in which they were asked."""
        return {index: str(self.errors[index]) for index in self.indexes if index in self.errors}

    def fail(self, index: str, error: Exception) -> None:
        """Take an error for the answer of an index."""
        self.errors[index] = error
        self.answers.pop(index, None)


def together(counts: Iterable[WordCounts]) -> WordCounts:
    """Return what all these collections together count."""
    points, having = 0, Counter[int]()
    for one in counts:
        points += one.points
        having.update(one.having)
    return WordCounts(points, having)


def idf_of(counts: WordCounts) -> dict[int, float]:
    """Return the inverse document frequency of each word, as the store computes it.

    With n points, m of them with the word, that is ln((n - m + 0.5) / (m + 0.5) + 1).
    """
    return {
        word: math.log((max(counts.points - count, 0) + 0.5) / (count + 0.5) + 1)
        for word, count in counts.having.items()
    }


def add_bm25(points: Iterable[StoredPoint], weights: Mapping[int, float]) -> None:
    """Give points, which have their sparse vectors, the BM25 score of words of these weights."""
    asked = frozenset(weights)
    for point in points:
        if point.sparse is None:
            continue
        indices, values = point.sparse.indices, point.sparse.values
        # Of a hundred words of a chunk, few are asked for: this is half the time of a dictionary of
        # all.
        words = sorted(asked.intersection(indices))
        point.bm25 = sum(weights[word] * values[indices.index(word)] for word in words)


def text_of(payload: Mapping[str, Any]) -> str:
    """Return all of a chunk that words are looked for in: the names of a definition, its id, title
    and text."""
    ours = payload.get(RESERVED_KEY, {})
    return "\n".join(
        [names_of(payload), *(str(ours.get(name, "")) for name in ("document_id", TITLE, "text"))]
    )


def spaced(text: str) -> str:
    """Return the words of a text as they are folded for searches, with their signs, each between
    two spaces.

    What is written without spaces, such as Chinese, is taken apart, so that a phrase may begin
    anywhere in it.
    """
    return f" {' '.join(OF_PHRASES.words_in(folded(text)))} "


def taken_apart(query: str) -> tuple[str, list[str], list[str]]:
    """Return what is to be searched for, the phrases in quotes, and the words after a minus.

    A query of nothing but minuses is searched for as it stands, and so are a quote without its end
    and a longer text, whose quotes are its own.
    """
    if len(query.split()) > MAX_TYPED:
        return query, [], []
    given, query = (
        query,
        unicodedata.normalize("NFKC", query),
    )  # a letter and its accent are one, and so are wide signs
    phrases = [one for found in _QUOTED.findall(query) if (one := spaced("".join(found))).strip()]
    rest = _QUOTED.sub(" ", query)
    excluded = [spaced(word) for word in _MINUS.findall(rest) if is_excludable(word)]
    unquoted = _QUOTED.sub(lambda one: f" {one[0][1:-1]} ", query)
    text = " ".join(
        _MINUS.sub(lambda one: one[0] if not is_excludable(one[1]) else " ", unquoted).split()
    )
    return (
        (text, phrases, excluded)
        if spaced(text).strip() and (phrases or excluded)
        else (given, [], [])
    )


def names_document(text: str) -> bool:
    """Return whether a text has the form INDEX/ID. The id may be empty, as a key may be:
    `comments/`."""
    index, slash, _ = text.partition("/")
    return bool(index and slash)


def make_question(
    settings: Settings, query: str, options: PythonOptions
) -> tuple[Question, list[str] | None]:
    """Return the question that the arguments of a search make, and the indexes that it names, if it
    names any.

    Raises SettingsError for an option that is not valid.
    """
    indexes, limit, offset, like = options.indexes, options.limit, options.offset, options.like
    if like is not None and (query or not names_document(like)):
        raise SettingsError(
            "like is a document such as comments/4711, and stands in place of a query, not"
            f" {like!r}"
        )
    if not query.strip() and like is None:
        raise SettingsError("the query is empty")
    if offset > MAX_HITS - limit:
        reach = f"a search goes {MAX_HITS:,} documents deep"
        raise SettingsError(
            f"offset is from 0 to {MAX_HITS - limit:,}, not {offset}: {reach}, so narrow it instead"
        )
    if indexes is not None and not indexes:
        raise SettingsError(
            "`indexes` names no index: name those to search, or leave it out to search all"
        )
    searched = settings.named([indexes] if isinstance(indexes, str) else indexes)
    conditions: tuple[Condition, ...] = ()
    if options.filter is not None:
        conditions = conditions_of(options.filter, searched)
        check_fields(conditions, searched)
    retrieve = settings.retrieve
    weight = retrieve.dense_weight if options.dense_weight is None else options.dense_weight
    name = (
        options.dense_weight is None and retrieve.dense_weight is None and is_compound_name(query)
    )
    deadline = Deadline.after(options.timeout or retrieve.timeout)
    text, phrases, excluded = taken_apart(query)
    question = Question(
        text,
        limit,
        conditions,
        deadline,
        weight,
        name,
        caller_of(options.groups),
        phrases=tuple(phrases),
        excluded=tuple(excluded),
        exact=options.exact,
    )
    return question, [index.name for index in searched] if indexes else None
