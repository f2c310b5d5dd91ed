"""Soft match: how well the words of a chunk cover those of the query, where words of similar meaning
count too.

It is a late interaction (Khattab and Zaharia: ColBERT, SIGIR 2020) over the best candidates: for
each token of the query, the best cosine with any token of the chunk, weighted by the inverse
document frequency of its word. The token vectors are those of the local embedder's table, whichever
embedder the index has. So "car" in a query counts 0.6 for a chunk with "vehicle", and 1 for one
with "car".

A word of several tokens has no vector in the table, because its tokens are parts of many words and
have no meaning of their own. Most words of other languages than English are such words. They are
compared by their letters: "oslepeo" resembles "oslepljen".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders.bm25 import key_words, leaves_out, split_identifiers
from rag_index.components.embedders.local import load_table
from rag_index.components.embedders.tokenizer import LETTERS, divided, is_simple, normalized
from rag_index.core.documents.batches import RESERVED_KEY, TITLE
from rag_index.search.concurrency import Deadline, in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.components.embedders.bm25 import Bm25Encoder
    from rag_index.core.documents.batches import StoredPoint
    from rag_index.search.question import Asked, IndexAnswer

NEAR_WEIGHT = 0.15
"""Weight of the share of neighbours beside the soft match, which has 1. Chosen."""
NEAR_WORDS = 3
"""Neighbours in a text stand at most this many words apart. Chosen."""
MAX_TOKENS = 96
"""About how many tokens of a query are compared. Chosen; the time grows with each."""
MIN_TOKEN_COSINE = 0.2
"""Tokens with a lower cosine count as unrelated. Chosen."""
SAME_MEANING = 0.4
"""The cosine from which two words may be named as synonyms. Chosen."""
MAX_MEANING_TOKENS = 2
"""Tokens of a word that has a meaning at most. Chosen."""
LETTER_SHARE = 0.8
"""Share of the weight of a word of several tokens that its letters get; its tokens get the rest.
Chosen."""
MIN_SHARED_LETTERS = 0.3
"""Words with a smaller share of common letters count as unrelated. Chosen."""
TOKEN_GROUPS = 2**16
"""Hash values for groups of three letters: so many that few groups share one."""
TITLE_SHARE = 0.1
"""Share of a chunk's soft match that is that of its document's title alone; the rest is that of
title and text. Chosen."""
LENGTH_SHARE = 0.2
"""How much the length of a chunk counts. A long chunk has more words that may match. Chosen."""
LENGTH = 75
"""Words of a chunk whose score does not change with its length. Chosen."""
MAX_COMPARED_CHARS = 4000
"""Characters of a chunk that are compared. Chosen; the time grows with each."""
ONE_THREAD = 2**18
"""Most multiplications of a matrix product for which OpenBLAS starts no threads. Threads would cost
more time than they save here."""
LATIN = 0x24F
"""The last code point of the Latin alphabets."""
MIN_FOREIGN = 3
"""Words that a query needs to be in a language. Chosen."""
MIN_STRANGE = 4
"""Letters of a word whose number of tokens tells whether it is English. Chosen."""
OTHER_LANGUAGES = (
    "german",
    "french",
    "spanish",
    "italian",
    "portuguese",
    "dutch",
    "swedish",
    "danish",
    "norwegian",
    "finnish",
    "hungarian",
    "romanian",
    "turkish",
)
"""Languages with Latin letters whose frequent words are known."""


def add_soft_match(asked: Asked) -> None:
    """Set the soft match of the candidates of hybrid answers. Raises SearchTimedOut."""
    by_encoder: dict[Bm25Encoder, list[IndexAnswer]] = {}
    for answer in asked.answered:
        if answer.hybrid and answer.live.encoder:
            by_encoder.setdefault(answer.live.encoder, []).append(answer)
    for encoder, answers in by_encoder.items():
        _add_soft_match(asked, encoder, answers)


def _add_soft_match(asked: Asked, encoder: Bm25Encoder, answers: Sequence[IndexAnswer]) -> None:
    """Set the soft match of the candidates of the answers with one encoder."""
    first = answers[0]
    deadline = asked.question.deadline
    dimensions: list[frozenset[int]] = []
    weights: dict[str, float] = {}
    for name, word in first.words.items():
        known = word.known(asked.counts.having)
        dimensions.append(known)
        weights[name] = max([asked.idf.get(dimension, 1.0) for dimension in known])

    points: list[StoredPoint] = []
    for answer in answers:
        points += answer.points
    titles = [str(point.payload.get(RESERVED_KEY, {}).get(TITLE, "")) for point in points]
    texts = [_compared_text(point, title) for point, title in zip(points, titles, strict=True)]
    # Texts and titles are compared in one call, so that words that several have are compared once.
    compared = first.add_synonyms([*texts, *titles])
    identifiers = encoder.model.identifiers
    scores = soft_scores(weights, compared, identifiers=identifiers, deadline=deadline)
    near = near_scores(encoder, dimensions, list(weights.values()), compared, deadline)
    of_titles = scores[len(points) :]
    for number, point in enumerate(points):
        soft = scores[number]
        if titles[number]:
            soft += TITLE_SHARE * (of_titles[number] - soft)
        point.soft = soft + NEAR_WEIGHT * near[number]


def _compared_text(point: StoredPoint, title: str) -> str:
    ours = point.payload.get(RESERVED_KEY, {})
    key = key_words(str(ours.get("document_id", "")))
    texts = (key, title, str(ours.get("text", "")))
    return "\n".join(filter(None, texts))


def soft_scores(
    words: Mapping[str, float],
    texts: Sequence[str],
    *,
    identifiers: bool = False,
    deadline: Deadline | None = None,
) -> list[float]:
    """Return the soft match of each text, from 0 to about 1.2.

    Args:
        words: The words of a query, each with its weight. Of many words, those of the greatest
            weight are compared.
        texts: The texts.
        identifiers: Whether names of source code are compared in one spelling.
        deadline: When to give up.

    Raises:
        SearchTimedOut: the deadline has passed.
    """
    query = _ComparedQuery.of(words, identifiers=identifiers)
    if query is None:
        return [0.0] * len(texts)
    scores: list[float] = []
    for batch in in_time(texts, deadline):
        found = _words_of(tuple(batch), identifiers).own
        scores += query.scores(found).tolist()
    return scores


@dataclass(frozen=True, slots=True)
class _ComparedQuery:
    """The words of a query, as they are compared with those of texts."""

    tokens: list[int]
    """The tokens of all words."""
    token_weights: NDArray[np.float64]
    """The weight of each token, shape (tokens,)."""
    spelled: list[str]
    """The words of several tokens, as `spelled` writes them."""
    letter_weights: NDArray[np.float64]
    """The weight of the letters of each of these, shape (spelled,)."""
    total: float
    """The weight of all words."""

    @classmethod
    def of(cls, words: Mapping[str, float], *, identifiers: bool) -> _ComparedQuery | None:
        """Return the words of the greatest weight with `MAX_TOKENS` tokens together, about. Return
        None if there are none."""
        table = _table()
        parts: list[str] = []
        tokens: list[list[int]] = []
        weights_of_parts: list[float] = []
        heaviest = sorted(words.items(), key=lambda word: -word[1])
        for word, weight in heaviest[:MAX_TOKENS]:
            for part in _split(word, identifiers):
                parts.append(part)
                tokens.append(table.tokens(part))
                weights_of_parts.append(weight)
            if sum(map(len, tokens)) >= MAX_TOKENS:
                break
        if not parts:
            return None
        counts = np.array(list(map(len, tokens)))
        weights = np.array(weights_of_parts)
        # Of a word of several tokens, the letters count most.
        by_letters = np.where(counts > 1, LETTER_SHARE * weights, 0.0)
        by_tokens = np.repeat((weights - by_letters) / counts, counts)
        places = np.flatnonzero(by_letters).tolist()
        return cls(
            list(chain.from_iterable(tokens)),
            by_tokens,
            [spelled(parts[place]) for place in places],
            by_letters[places],
            weights.sum(),
        )

    def scores(self, texts: _Words) -> NDArray[np.float64]:
        """Return the soft match of each text, shape (texts,)."""
        table = _table()
        similar = table.cosines(self.tokens, [table.tokens(word) for word in texts.distinct])
        similar[similar < MIN_TOKEN_COSINE] = 0
        covered = texts.best(similar) @ self.token_weights
        # Words of several tokens are compared by their letters as well.
        if self.spelled and texts.distinct:
            shared = shared_letters(self.spelled, list(map(spelled, texts.distinct)))
            covered += texts.best(shared.T) @ self.letter_weights
        # A chunk of 75 words keeps its score, and one of 500 gets about half of it.
        lengths = (1 + LENGTH_SHARE) / (1 + LENGTH_SHARE * texts.counts / LENGTH)
        scores: NDArray[np.float64] = covered / self.total * lengths
        return scores


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of several texts."""

    distinct: list[str]
    """Each word once."""
    numbers: NDArray[np.intp]
    """The number in `distinct` of each word of all texts, one text after the other."""
    counts: NDArray[np.intp]
    """How many words each text has."""

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> _Words:
        """Return the words of texts that were split."""
        words = list(chain.from_iterable(texts))
        numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
        numbers_of_words = np.array([numbers[word] for word in words], dtype=np.intp)
        counts = np.array([*map(len, texts)])
        return cls(list(numbers), numbers_of_words, counts)

    def best(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the greatest value of the words of each text; 0 for a text without words.

        Args:
            values: Values of the distinct words, shape (distinct, n).

        Returns:
            An array of shape (texts, n).
        """
        best = np.zeros((len(self.counts), values.shape[1]), dtype=values.dtype)
        with_words = np.flatnonzero(self.counts).tolist()
        if with_words:
            starts = (np.cumsum(self.counts) - self.counts)[with_words]
            best[with_words] = np.maximum.reduceat(values[self.numbers], starts)
        return best


@dataclass(frozen=True, slots=True)
class _SplitTexts:
    """The words of texts, in two ways of splitting."""

    own: _Words
    """Words as soft match compares them."""
    neighbours: _Words
    """Words among which neighbours are found: whole names, and pairs of characters in scripts
    without spaces."""


@lru_cache(maxsize=2)
def _words_of(texts: Sequence[str], identifiers: bool) -> _SplitTexts:
    """Split texts. The result is cached from `soft_scores` to `near_scores`, which split the same
    texts."""
    plain = [normalized(text[:MAX_COMPARED_CHARS]) for text in texts]
    own = _Words.of([_split(text, identifiers) for text in plain])
    # The two ways give the same words.
    if not identifiers and all(map(is_simple, plain)):
        return _SplitTexts(own, own)
    neighbours = _Words.of([LETTERS.words_in(divided(text)) for text in plain])
    return _SplitTexts(own, neighbours)


def _split(text: str, identifiers: bool) -> list[str]:
    """Return the words of a normalized text. A text without spaces is not divided."""
    if identifiers:
        text = split_identifiers(text)[:MAX_COMPARED_CHARS]
    return LETTERS.words_in(text)


def shared_letters(words: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the share of each word's groups of three letters that the best word of each text has.

    Args:
        words: Words as `spelled` writes them. The spaces count as letters.
        texts: Texts of one or more such words, none of them empty.

    Returns:
        An array of shape (words, texts). A share below `MIN_SHARED_LETTERS` is 0.
    """
    groups, starts = groups_of("".join(texts))
    ends = np.cumsum([0, *map(len, texts[:-1])])
    first_words = np.searchsorted(starts, ends)
    shares = np.empty((len(words), len(texts)))
    for share, word in zip(shares, words, strict=True):
        is_in_word = np.zeros(TOKEN_GROUPS, dtype=np.uint8)
        is_in_word[groups_of(word)[0]] = 1
        counts = np.add.reduceat(is_in_word[groups], starts, dtype=np.int32)
        best = np.maximum.reduceat(counts, first_words)
        share[:] = np.minimum(1.0, best / is_in_word.sum())
    shares[shares < MIN_SHARED_LETTERS] = 0
    return shares


def spelled(word: str) -> str:
    """Return a word in small letters between two spaces. A word of a script without spaces becomes
    pairs of characters."""
    if word.isascii():
        return f" {word.lower()} "
    # A word of a script without spaces becomes several: " 打印 印机 ".
    pairs = divided(word).lower().split()
    return f" {' '.join(pairs) or word} "


def groups_of(text: str) -> tuple[NDArray[np.uint16], NDArray[np.intp]]:
    """Return a hash of every three neighbouring letters of a text, and the places of those that
    begin with a space."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    first, second, third = codes[:-2], codes[1:-1], codes[2:]
    hashes = (first * 31 + second) * 31 + third
    return hashes.astype(np.uint16), np.flatnonzero(first == ord(" "))


def near_scores(
    encoder: Bm25Encoder,
    words: Sequence[frozenset[int]],
    weights: Sequence[float],
    texts: Sequence[str],
    deadline: Deadline | None = None,
) -> list[float]:
    """Return the share of the neighbours in a query that are neighbours in each text as well.

    Neighbours in a text stand at most `NEAR_WORDS` words apart, in either order.

    Args:
        encoder: The encoder of the texts.
        words: The dimensions of each word of the query.
        weights: The weight of each word.
        texts: The texts.
        deadline: When to give up.

    Raises:
        SearchTimedOut: the deadline has passed.
    """
    pairs = [weight + following for weight, following in pairwise(weights)]
    # A single word has no neighbours.
    if not pairs:
        return [0.0] * len(texts)
    places: dict[int, set[int]] = {}
    for place, dimensions in enumerate(words):
        for dimension in dimensions:
            places.setdefault(dimension, set()).add(place)
    scores: list[float] = []
    for batch in in_time(texts, deadline):
        found = _words_of(tuple(batch), encoder.model.identifiers).neighbours
        for words_of_text in _query_words_of(found, encoder, places):
            scores.append(_share_of_pairs(words_of_text, pairs))
    return scores


def _query_words_of(
    texts: _Words, encoder: Bm25Encoder, places: Mapping[int, set[int]]
) -> Iterator[list[tuple[int, set[int]]]]:
    """Yield the words of each text that are words of the query, in order: the position of each among
    the words of the texts, and its places in the query.

    Args:
        texts: The words of the texts.
        encoder: Gives the dimensions of each word.
        places: The places in the query of each dimension.
    """
    known: dict[int, set[int]] = {}
    for number, dimensions in enumerate(encoder.dimensions_of(texts.distinct).values()):
        if not places.keys().isdisjoint(dimensions):
            known[number] = set().union(*[places.get(dimension, ()) for dimension in dimensions])
    is_known = np.zeros(len(texts.distinct), dtype=np.bool_)
    is_known[list(known)] = True
    positions = np.flatnonzero(is_known[texts.numbers])
    places_at = [known[number] for number in texts.numbers[positions].tolist()]
    words = list(zip(positions.tolist(), places_at, strict=True))
    bounds = np.searchsorted(positions, [0, *np.cumsum(texts.counts)]).tolist()
    for start, end in pairwise(bounds):
        yield words[start:end]


def _share_of_pairs(words: Sequence[tuple[int, set[int]]], pairs: Sequence[float]) -> float:
    """Return the share of the neighbours in the query that stand near each other in a text.

    Args:
        words: The words of the query that the text has: position and places in the query of each.
        pairs: The weights of the neighbours in the query, by the place of the first.
    """
    found: set[int] = set()
    # The positions and places of the words just before.
    last: list[tuple[int, int]] = []
    for position, places in words:
        last = [before for before in last if position - before[0] <= NEAR_WORDS]
        for place in places:
            for _, other in last:
                if abs(place - other) == 1:
                    found.add(min(place, other))
            last.append((position, place))
    if not found:
        return 0.0
    return sum([pairs[place] for place in found]) / sum(pairs)


@lru_cache(maxsize=256)
def seems_foreign(text: str) -> bool:
    """Return whether a query seems to be in another language than English. Names and single words
    are in no language."""
    letters = [ord(letter) for letter in text if letter.isalpha()]
    # Most letters are of another script.
    not_latin = sum(letter > LATIN for letter in letters)
    if not_latin > len(letters) / 2:
        return True

    runs = [run.strip(".,;:!?").lower() for run in text.split()]
    words = [run for run in runs if run.isalpha() and len(run) > 1]
    if len(words) < MIN_FOREIGN:
        return False
    # "der" is frequent in German and no word of English, as "the" is in English.
    others = [word for word in words if not leaves_out("english", word)]
    english = len(words) - len(others)
    foreign = 0
    for language in OTHER_LANGUAGES:
        foreign = max(foreign, sum(leaves_out(language, word) for word in others))
    if foreign <= english:
        return False
    # Two frequent words of another language, or one beside words that are mostly not English.
    strange = [word for word in others if len(word) >= MIN_STRANGE and count_tokens(word) > 1]
    return foreign > 1 or len(strange) * 2 > len(others)


def count_tokens(word: str) -> int:
    """Return the number of tokens of the local embedder for a word. A frequent word has one."""
    return len(_table().tokens(word))


def nearest_word(word: str, others: Sequence[str]) -> str:
    """Return the word of the most similar meaning; an empty text if none is similar enough."""
    table = _table()
    known = [other for other in others if len(table.tokens(other)) <= MAX_MEANING_TOKENS]
    # A word of many tokens, such as a name, has no meaning in the table.
    if not known or len(table.tokens(word)) > MAX_MEANING_TOKENS:
        return ""
    vectors = np.stack([table.meaning(other) for other in known])
    cosines = vectors @ table.meaning(word)
    if cosines.max() < SAME_MEANING:
        return ""
    return known[int(cosines.argmax())]


class _TokenTable:
    """The local embedder's tokens with their vectors (32 MB)."""

    def __init__(self) -> None:
        self._tokens, self._vectors = load_table()
        lengths = np.linalg.norm(self._vectors, axis=1)
        # A token without a vector has length 0, by which nothing can be divided.
        self._lengths = np.maximum(lengths, 1e-9)

    def tokens(self, word: str) -> list[int]:
        """Return the tokens of a word, at least one."""
        return self._tokens[f" {word}"] or [0]

    def meaning(self, word: str) -> NDArray[np.float32]:
        """Return the vector of a word, normalized to length 1."""
        tokens = np.minimum(self.tokens(word), len(self._vectors) - 1)
        vector = self._vectors[tokens].mean(axis=0)
        length = max(1e-9, float(np.linalg.norm(vector)))
        return np.asarray(vector / length, dtype=np.float32)

    def cosines(self, tokens: Sequence[int], words: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the best cosine of each token with any token of each word.

        Args:
            tokens: The tokens.
            words: The tokens of each word.

        Returns:
            An array of shape (words, tokens).
        """
        last = len(self._vectors) - 1
        of_query = np.minimum(tokens, last)
        of_words = np.minimum(np.array([*chain.from_iterable(words)], np.intp), last)
        # Each token of the words once, and the row of each in the product.
        row = np.zeros(len(self._vectors), dtype=np.intp)
        row[of_words] = 1
        unique = np.flatnonzero(row)
        row[unique] = np.arange(len(unique))

        query = (self._vectors[of_query] / self._lengths[of_query, np.newaxis]).T
        cosines = np.empty((len(unique), len(tokens)), dtype=np.float32)
        step = max(1, ONE_THREAD // query.size)
        for start in range(0, len(unique), step):
            rows = unique[start : start + step]
            np.matmul(self._vectors[rows], query, out=cosines[start : start + step])
        cosines /= self._lengths[unique, np.newaxis]
        # The texts have no words.
        if not words:
            return cosines
        # Of a word of several tokens, the nearest counts.
        starts = np.cumsum([0, *map(len, words)])[:-1]
        best: NDArray[np.float32] = np.maximum.reduceat(cosines[row[of_words]], starts, axis=0)
        return best


@cache
def _table() -> _TokenTable:
    return _TokenTable()
