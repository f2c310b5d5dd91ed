"""The question that a search asks its indexes, and the answer of each index."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.components.embedders.bm25 import QueryWord, is_compound_name, names_of
from rag_index.components.embedders.tokenizer import OF_PHRASES, folded, is_excludable
from rag_index.components.stores.protocol import NO_WORDS, PayloadCondition, WordCounts
from rag_index.core.documents.batches import RESERVED_KEY, TITLE, StoredPoint
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import SearchTimedOut, SettingsError
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

T = TypeVar("T")
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("\u201e", "\u201c\u201d"), ("\u300c", "\u300d"))
"""Opening quotation marks with the marks that close them."""
_QUOTED = re.compile(
    "|".join(f"(?<!\\d){begin}([^{begin}{end}]+)[{end}]" for begin, end in _QUOTES)
)
"""A phrase in quotes. After a digit, a quote is a unit: 19" is a size."""
_MINUS = re.compile(r"(?<!\S)-([^\s\"]+)")
LIKE_CHARS = 500
"""Length of the text that a search for similar documents takes from a document, in characters.
Chosen; the mean of the vectors stands for the rest."""
MAX_TYPED = 12
"""A query of more words is a pasted text, whose quotes and minuses are no operators. Chosen."""
CHUNKS_PER_DOCUMENT = 3
"""Chunks requested for each document, because several chunks of one document may match. Chosen; a
search that gets too few documents requests more chunks."""
MIN_CANDIDATES = 50
"""Chunks that each vector of a hybrid search requests at least. Chosen: the best chunks by both
scores may be far down in the list of each."""


@dataclass(frozen=True, slots=True)
class LikeDocument:
    """The document of a search for similar documents: its first text, and the mean vector of its
    first chunks."""

    index: str
    document_id: str
    title: str
    text: str
    fingerprint: str
    vector: NDArray[np.float32]

    def is_same(self, hit: SearchHit) -> bool:
        """Return whether a hit is this document, or has the same text."""
        if (hit.index, hit.document_id) == (self.index, self.document_id):
            return True
        return folded_text(hit.text) == folded_text(self.text)


def folded_text(text: str) -> str:
    """Return a text with single spaces and without capitals, for comparing texts."""
    words = text.split()
    return " ".join(words).casefold()


def like_question(question: Question, model: LikeDocument) -> Question:
    """Return the question for documents similar to `model`.

    Its text is the title and the first words of the document, in which nothing is an operator.
    """
    text = f"{model.title}\n{model.text}"[:LIKE_CHARS]
    return replace(
        question, text=text, phrases=(), excluded=(), exact=True, name=False, model=model
    )


@dataclass(frozen=True, slots=True)
class Question:
    """A validated search."""

    text: str
    limit: int
    """The number of documents for which the indexes are searched. It determines how many candidates
    are compared."""
    conditions: tuple[PayloadCondition, ...]
    """The filter of the caller. Each index adds its own conditions."""
    deadline: Deadline
    dense_weight: float | None = None
    """The weight of meaning. With 1, words are not searched for. If it is None, the weight that
    fits the model of each index applies."""
    name: bool = False
    """Whether the query is one compound name, and neither the caller nor the settings chose a
    weight. Source code is then searched with `fusion.NAME_WEIGHT`."""
    caller: Caller = NOBODY
    every: bool = False
    """Whether all candidates are kept, so that they can be ordered with any weight."""
    phrases: tuple[str, ...] = ()
    """Phrases that a chunk must have, as `spaced` writes them."""
    excluded: tuple[str, ...] = ()
    """Words that a chunk must not have, as `spaced` writes them."""
    exact: bool = False
    """Whether typing errors are left as they are, and synonyms are not searched for."""
    corrected: Mapping[str, str] = field(default_factory=dict)
    """The typing errors of the query with the words that are searched for in their place: see
    `spelling`."""
    synonyms: Sequence[Pair] = ()
    """Phrases of the query, each with one of its synonyms: see `synonyms`."""
    hits: int | None = None
    """The number of documents that become hits; by default `limit`."""
    model: LikeDocument | None = None
    """In a search for similar documents: the document. Nothing is embedded then, and an index of
    another model is searched by words."""
    filling: frozenset[str] = frozenset()
    """The indexes that their first run fills at the moment. Their embedder is busy, so that the
    search waits only briefly for a vector."""

    def quotes(self, word: str) -> bool:
        """Return whether a word is part of a phrase in quotes."""
        return any(spaced(word) in phrase for phrase in self.phrases)

    @property
    def text_with_synonyms(self) -> str:
        """The text, followed by the same text with its synonyms, for models that read it."""
        if not self.synonyms:
            return self.text
        return f"{self.text}\n{Phrases(self.synonyms, None).read(self.text)}"

    def admits(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a chunk has all phrases in quotes, and no excluded word."""
        # Most queries have neither.
        if not self.phrases and not self.excluded:
            return True
        text = spaced(text_of(payload))
        has_phrases = all(phrase in text for phrase in self.phrases)
        return has_phrases and not any(word in text for word in self.excluded)


@dataclass(frozen=True, slots=True)
class Scoring:
    """The weights with which the scores of a chunk become one: see `fusion.score_of`."""

    dense_weight: float = 1.0
    best_bm25: float = 0.0
    """The best BM25 of all candidates; 0 if none has a word of the query."""
    soft_weight: float = 0.0


@dataclass(slots=True)
class IndexAnswer:
    """The candidates of one index, in any order.

    In a hybrid search, each candidate has a cosine and a BM25 score. The latter has the inverse
    document frequencies (idf) of all searched indexes together.
    """

    index: str
    live: LiveCollection
    own: tuple[PayloadCondition, ...]
    """The index's own conditions: those of its settings and those for the caller's groups."""
    hybrid: bool
    """Whether it is searched by words as well."""
    asks: bool = False
    """Whether the database decides which of the candidates the caller may see."""
    enough: bool = True
    """Whether the caller may see enough of the candidates, if the database decides."""
    words: Mapping[str, QueryWord] = field(default_factory=dict)
    """The words of the question, as the collection's encoder splits it."""
    synonym_words: Mapping[str, QueryWord] = field(default_factory=dict)
    """The words of the question's synonyms."""
    synonyms: Phrases | None = None
    """Finds the question's synonyms in texts."""
    counts: WordCounts = NO_WORDS
    points: list[StoredPoint] = field(default_factory=list)
    recency: RecencySettings | None = None
    """How newer documents are lifted."""
    limit: int = 0
    """The number of points that the last search requested by each vector; 0 before the first."""
    full: bool = False
    """Whether the store returned as many points as were requested, so that there may be more."""
    commits: int | None = None
    """The commit mark of the state that the search read; None if it read the latest one."""
    seconds: float = 0.0
    """How long the store was asked."""

    @property
    def all_words(self) -> Mapping[str, QueryWord]:
        """The words of the question and of its synonyms."""
        return {**self.synonym_words, **self.words}

    def first_limit(self, question: Question) -> int:
        """Return how many points the first search requests by each vector."""
        minimum = MIN_CANDIDATES if self.hybrid else 0
        return max(question.limit * CHUNKS_PER_DOCUMENT, minimum)

    def set_words(self, question: Question) -> None:
        """Set the words of the question and of its synonyms, as the collection's encoder has
        them."""
        encoder = self.live.encoder
        # The index is searched by meaning alone.
        if encoder is None:
            self.words = {}
            return
        words = encoder.words(question.text)
        if question.synonyms:
            # "IT" is no word of English for the encoder, so its synonyms stand for it.
            without_words = [pair for pair in question.synonyms if not encoder.words(pair[0])]
            words = {**words_beside(without_words, encoder), **words}
            self.synonym_words = words_beside(question.synonyms, encoder)
            reverse = [(other, typed) for typed, other in question.synonyms]
            self.synonyms = Phrases(reverse, encoder)
        self.words = words

    def add_synonyms(self, texts: Iterable[str]) -> list[str]:
        """Return texts as they are compared with the question: what was typed follows each of its
        synonyms."""
        if self.synonyms is None:
            return list(texts)
        return [self.synonyms.read(text) for text in texts]

    def weigh(self, all_counts: WordCounts, idf: Mapping[int, float]) -> dict[int, float]:
        """Return the weight of each dimension of the question's words: how often the word stands in
        the question, times its idf in all indexes."""
        weights = dict[int, float]()
        for word in (*self.words.values(), *self.synonym_words.values()):
            # A compound has the dimensions of all of it and of its parts.
            for dimension in word.known(all_counts.having):
                weight = word.count * idf.get(dimension, 1.0)
                weights[dimension] = weights.get(dimension, 0.0) + weight
        return weights

    def query(self, weights: Mapping[int, float], idf: Mapping[int, float]) -> SparseVector:
        """Return the sparse vector that finds the best points by words of these weights."""
        own_idf = {**idf, **idf_of(self.counts)}
        values: dict[int, float] = {}
        for dimension in sorted(weights):
            # The store multiplies by the idf in this index, which is therefore divided out.
            values[dimension] = weights[dimension] / own_idf.get(dimension, 1.0)
        return SparseVector(tuple(values), tuple(values.values()))


@dataclass(slots=True)
class Asked:
    """A question with the answers of its indexes: the candidates of each, or its error."""

    question: Question
    indexes: list[str]
    """The searched indexes, in the order in which they are asked."""
    answers: dict[str, IndexAnswer] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    """By index: what its answer lacks and why, such as "was searched by words alone, since …"."""
    synonyms_failure: str = ""
    """Why the synonyms of the settings could not be read; empty if they were."""
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """The vector of the question, by the fingerprint of the model."""
    counts: WordCounts = NO_WORDS
    """How many chunks of all indexes together have each word."""
    idf: Mapping[int, float] = field(default_factory=dict)
    scoring: Mapping[str, Scoring] = field(default_factory=dict)
    hits: list[SearchHit] = field(default_factory=list)
    """The best hits of all indexes, once they are ranked."""
    unranked: bool = False
    """Whether there are, or may be, candidates that were not ranked."""
    deeper: bool = False
    """Whether a deeper search would rank some of them."""
    left: bool = False
    """Whether some ranked documents are no hits."""
    remark: str = ""
    """A note that the question seems to be in a language that the embedder does not know."""
    searched: float = 0.0
    """The seconds for which indexes were searched: those of the slowest, as all are searched at
    once."""
    seconds: defaultdict[str, float] = field(default_factory=partial(defaultdict, float))
    """The seconds of each stage, besides the searches of the indexes."""
    clock: float = field(default_factory=time.perf_counter)
    """When the last stage ended (`time.perf_counter`)."""

    @property
    def answered(self) -> list[IndexAnswer]:
        """The answers in the order in which the indexes were asked."""
        return [self.answers[index] for index in self.indexes if index in self.answers]

    @property
    def reasons(self) -> dict[str, str]:
        """The errors as texts, in the order in which the indexes were asked."""
        reasons: dict[str, str] = {}
        for index in self.indexes:
            if index in self.errors:
                reasons[index] = str(self.errors[index])
        return reasons

    def fail(self, index: str, error: Exception) -> None:
        """Replace the answer of an index by an error."""
        self.errors[index] = error
        self.answers.pop(index, None)

    def fail_late(self, index: str, during: str) -> None:
        """Let an index fail that was not done in time, such as `during` "being searched"."""
        seconds = self.question.deadline.seconds
        remedy = "search again in a moment, or allow more time ([retrieve] timeout)"
        self.fail(index, SearchTimedOut(f"still {during} after {seconds:g} s; {remedy}"))

    def take_results(
        self, indexes: Iterable[str], found: Mapping[str, T | Exception], during: str
    ) -> dict[str, T]:
        """Return the results that are no errors. An index with an error fails, and so does one
        without a result, which is late."""
        results: dict[str, T] = {}
        for index in indexes:
            # It was not done in time.
            if index not in found:
                self.fail_late(index, during)
                continue
            result = found[index]
            if isinstance(result, Exception):
                self.fail(index, result)
            else:
                results[index] = result
        return results

    def end_stage(self, name: str, apart: float = 0.0) -> None:
        """Add the time since the end of the last stage to this one, without the `apart` seconds
        that are counted elsewhere."""
        now = time.perf_counter()
        self.seconds[name] += max(0.0, now - self.clock - apart)
        self.clock = now


def sum_counts(counts: Iterable[WordCounts]) -> WordCounts:
    """Return the counts of all collections together."""
    points = 0
    having = Counter[int]()
    for count in counts:
        points += count.points
        having.update(count.having)
    return WordCounts(points, having)


def idf_of(counts: WordCounts) -> dict[int, float]:
    """Return the inverse document frequency of each dimension, as the store computes it.

    With n points, of which m have the word, it is ln((n - m + 0.5) / (m + 0.5) + 1).
    """
    idf: dict[int, float] = {}
    for dimension, having in counts.having.items():
        without = max(counts.points - having, 0)
        idf[dimension] = math.log((without + 0.5) / (having + 0.5) + 1)
    return idf


def add_bm25(points: Iterable[StoredPoint], weights: Mapping[int, float]) -> None:
    """Set the BM25 score of points, which have their sparse vectors, for words of these weights."""
    dimensions = frozenset(weights)
    for point in points:
        if point.sparse is None:
            continue
        indices, values = point.sparse.indices, point.sparse.values
        # A chunk has a hundred words, of which the query has few: a dictionary of all of them would
        # take twice the time.
        shared = sorted(dimensions.intersection(indices))
        point.bm25 = sum(weights[word] * values[indices.index(word)] for word in shared)


def text_of(payload: Mapping[str, Any]) -> str:
    """Return the text of a chunk in which words are looked for: the names of a definition, the id,
    the title and the text."""
    ours = payload.get(RESERVED_KEY, {})
    texts = [str(ours.get(name, "")) for name in ("document_id", TITLE, "text")]
    return "\n".join([names_of(payload), *texts])


def spaced(text: str) -> str:
    """Return the words of a text, folded for searches and with their signs, each between spaces.

    A text that is written without spaces, such as Chinese, is divided, so that a phrase may begin
    anywhere in it.
    """
    words = OF_PHRASES.words_in(folded(text))
    return f" {' '.join(words)} "


@dataclass(frozen=True, slots=True)
class TypedQuery:
    """A query with its operators taken out.

    Attributes:
        text: What is searched for, the phrases included.
        phrases: The phrases in quotes, as `spaced` writes them.
        excluded: The words after a minus, as `spaced` writes them.
    """

    text: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def parse_query(query: str) -> TypedQuery:
    """Take the operators out of a query.

    Example:
        parse_query('"paper jam" printer -laser')
        # TypedQuery("paper jam printer", (" paper jam ",), (" laser ",))
    """
    # A longer text, whose quotes are its own.
    if len(query.split()) > MAX_TYPED:
        return TypedQuery(query)
    # A letter and its accent become one character, and wide signs become narrow ones.
    normal = unicodedata.normalize("NFKC", query)

    phrases: list[str] = []
    for groups in _QUOTED.findall(normal):
        phrase = spaced("".join(groups))
        if phrase.strip():
            phrases.append(phrase)
    without_phrases = _QUOTED.sub(" ", normal)
    minuses = _MINUS.findall(without_phrases)
    excluded = [spaced(word) for word in minuses if is_excludable(word)]

    unquoted = _QUOTED.sub(lambda found: f" {found[0][1:-1]} ", normal)
    text = _MINUS.sub(lambda found: " " if is_excludable(found[1]) else found[0], unquoted)
    text = " ".join(text.split())
    # No operator, such as a quote without its end, or nothing but words after a minus.
    if not (phrases or excluded) or not spaced(text).strip():
        return TypedQuery(query)
    return TypedQuery(text, tuple(phrases), tuple(excluded))


def names_document(text: str) -> bool:
    """Return whether a text has the form INDEX/ID. The id may be empty, as keys may be:
    `comments/`."""
    index, slash, _ = text.partition("/")
    return bool(index and slash)


def make_question(
    settings: Settings, query: str, options: PythonOptions
) -> tuple[Question, list[str] | None]:
    """Return the question of a search, and the names of the indexes that the options name (None for
    all).

    Raises:
        SettingsError: an option is not valid.
    """
    _check_options(query, options)
    indexes = options.indexes
    searched = settings.named([indexes] if isinstance(indexes, str) else indexes)
    conditions: tuple[PayloadCondition, ...] = ()
    if options.filter is not None:
        conditions = conditions_of(options.filter, searched)
        check_fields(conditions, searched)

    # The weight of the search counts, then that of the settings, then that of each model.
    retrieve = settings.retrieve
    weight = retrieve.dense_weight if options.dense_weight is None else options.dense_weight
    typed = parse_query(query)
    question = Question(
        typed.text,
        options.limit,
        conditions,
        Deadline.after(options.timeout or retrieve.timeout),
        weight,
        name=weight is None and is_compound_name(query),
        caller=caller_of(options.groups),
        phrases=typed.phrases,
        excluded=typed.excluded,
        exact=options.exact,
    )
    return question, [index.name for index in searched] if indexes else None


def _check_options(query: str, options: PythonOptions) -> None:
    like = options.like
    # "comments" instead of "comments/4711", or a query beside it.
    if like is not None and (query or not names_document(like)):
        raise SettingsError(
            "like is a document such as comments/4711, and stands in place of a query, not"
            f" {like!r}"
        )
    if not query.strip() and like is None:
        raise SettingsError("the query is empty")
    last_offset = MAX_HITS - options.limit
    if options.offset > last_offset:
        reach = f"a search goes {MAX_HITS:,} documents deep"
        raise SettingsError(
            f"offset is from 0 to {last_offset:,}, not {options.offset}: {reach}, so narrow it"
            " instead"
        )
    if options.indexes is not None and not options.indexes:
        raise SettingsError(
            "`indexes` names no index: name those to search, or leave it out to search all"
        )
