"""Soft match: how well a chunk's words cover those of the query, where a word that means the same
counts too.

It is a late interaction (Khattab and Zaharia: ColBERT, SIGIR 2020) over the best candidates: for
each token of the query the best cosine with any token of the chunk, weighted by the inverse
document frequency of its word. The token vectors are those of the local embedder's table, whichever
embedder the index has. So "car" in a query counts 0.6 for a chunk with "vehicle", and 1 for one
with "car".

The table has no vector for a word of several tokens, as most words of other languages than English
are: its pieces stand in many words and mean nothing. So such a word is compared by its letters:
"oslepeo" is like "oslepljen".
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rag_index.components.embedders.bm25 import key_words, leaves_out, split_identifiers
from rag_index.components.embedders.local import load_table
from rag_index.components.embedders.tokenizer import LETTERS, divided, is_simple, normalized
from rag_index.core.documents.batches import RESERVED_KEY, TITLE
from rag_index.search.concurrency import Deadline, in_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.components.embedders.bm25 import Bm25Encoder
    from rag_index.search.question import Asked, IndexAnswer

NEAR_WEIGHT, NEAR_WORDS = 0.15, 3
"""How much the neighbours of a query count in soft match, and how far apart they may stand in a
text."""
MAX_TOKENS = 96
"""Tokens of a query that are compared, about."""
MIN_TOKEN_COSINE = 0.2
"""Tokens that are less alike have nothing to do with each other."""
SAME_MEANING, MAX_PIECES = 0.4, 2
"""The cosine from which two words may be named as synonyms, and the tokens of a word that has a
meaning."""
LETTER_SHARE, MIN_SHARED_LETTERS = 0.8, 0.3
"""How much the letters of a word of several tokens count beside these, and the share of them that
another word has at least."""
TOKEN_GROUPS = 2**16
"""Hash values for groups of three letters; few groups share one."""
TITLE_SHARE = 0.1
"""How much of the soft match of a chunk is that of its document's title, beside all of title and
text."""
LENGTH_SHARE, LENGTH = 0.2, 75
"""How much a chunk's length counts, and the words of one whose score stays: a long one has more
words that may fit."""
MAX_COMPARED_CHARS = 4000
"""Characters of a chunk that are compared."""
ONE_THREAD = 2**18
"""Multiplications for which OpenBLAS wakes no other threads: these would cost more time than they
save."""
LATIN, MIN_FOREIGN, MIN_STRANGE = 0x24F, 3, 4
"""The last letter of Latin alphabets, the fewest words that tell a language, and letters of one
that may be English."""
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
"""Languages of Latin letters whose frequent words are known."""


def add_soft_match(asked: Asked) -> None:
    """Give the candidates of hybrid answers the score of soft match, as far as they have texts.

    Raises SearchTimedOut.
    """
    by_encoder: dict[Bm25Encoder, list[IndexAnswer]] = {}
    for answer in asked.answered:
        if answer.hybrid and answer.live.encoder:
            by_encoder.setdefault(answer.live.encoder, []).append(answer)
    for encoder, some in by_encoder.items():
        words = {word: one.known(asked.counts.having) for word, one in some[0].words.items()}
        weights = {word: max(asked.idf.get(one, 1.0) for one in own) for word, own in words.items()}
        ours = [point.payload.get(RESERVED_KEY, {}) for answer in some for point in answer.points]
        titles, keys = (
            [str(one.get(TITLE, "")) for one in ours],
            [str(one.get("document_id", "")) for one in ours],
        )
        given = zip(
            map(key_words, keys), titles, [str(one.get("text", "")) for one in ours], strict=True
        )
        texts, limit = ["\n".join(filter(None, one)) for one in given], asked.question.deadline
        both = some[0].reads(
            [*texts, *titles]
        )  # together, so that words which several have are compared once
        soft = soft_scores(weights, both, identifiers=encoder.model.identifiers, deadline=limit)
        near = near_scores(encoder, list(words.values()), list(weights.values()), both, limit)
        points, of_titles = (
            [point for answer in some for point in answer.points],
            soft[len(texts) :],
        )
        for point, title, one, own, other in zip(
            points, titles, soft, of_titles, near, strict=False
        ):
            point.soft = one + (TITLE_SHARE * (own - one) if title else 0.0) + NEAR_WEIGHT * other


def soft_scores(
    words: Mapping[str, float],
    texts: Sequence[str],
    *,
    identifiers: bool = False,
    deadline: Deadline | None = None,
) -> list[float]:
    """Return the soft match of each text, from 0 to about 1.2, with words that have a weight each.

    With `identifiers`, names are compared in one spelling. Of many words, those of the most weight
    are compared.
    """
    table = _table()
    parts, ids, given = list[str](), list[list[int]](), list[float]()
    for word, weight in sorted(words.items(), key=lambda one: -one[1])[:MAX_TOKENS]:
        for part in _split(word, identifiers):
            parts.append(part)
            ids.append(table.tokens(part))
            given.append(weight)
        if sum(map(len, ids)) >= MAX_TOKENS:
            break
    if not parts:
        return [0.0] * len(texts)
    counts, weights, scores = np.array(list(map(len, ids))), np.array(given), list[float]()
    by_letters = np.where(counts > 1, LETTER_SHARE * weights, 0.0)
    asked, by_tokens = (
        list(chain.from_iterable(ids)),
        np.repeat((weights - by_letters) / counts, counts),
    )
    spelt = np.flatnonzero(by_letters).tolist()
    for few in in_time(texts, deadline):
        found = _words_of(tuple(few), identifiers)[0]
        alike = table.cosines(asked, [table.tokens(word) for word in found.distinct])
        alike[alike < MIN_TOKEN_COSINE] = 0
        covered = found.best(alike) @ by_tokens
        if spelt and found.distinct:
            shared = shared_letters(
                [spelled(parts[one]) for one in spelt], list(map(spelled, found.distinct))
            )
            covered += found.best(shared.T) @ by_letters[spelt]
        lengths = (1 + LENGTH_SHARE) / (1 + LENGTH_SHARE * found.counts / LENGTH)
        scores += (covered / weights.sum() * lengths).tolist()
    return scores


class _Words(NamedTuple):
    """The words of some texts: each once, which of these the texts have, one after the other, and
    how many each has."""

    distinct: list[str]
    numbers: NDArray[np.intp]
    counts: NDArray[np.intp]

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> _Words:
        """Return the words of texts that were split."""
        every = list(chain.from_iterable(texts))
        known = {word: number for number, word in enumerate(dict.fromkeys(every))}
        return cls(
            list(known),
            np.array([known[word] for word in every], dtype=np.intp),
            np.array([*map(len, texts)]),
        )

    def best(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the greatest values that the words of each text have, of those of the distinct
        words; 0 for none."""
        found = np.zeros((len(self.counts), values.shape[1]), dtype=values.dtype)
        if filled := np.flatnonzero(self.counts).tolist():
            found[filled] = np.maximum.reduceat(
                values[self.numbers], (np.cumsum(self.counts) - self.counts)[filled]
            )
        return found


@lru_cache(maxsize=2)
def _words_of(texts: Sequence[str], identifiers: bool) -> tuple[_Words, _Words]:
    """Return the words of texts, and those by which neighbours are found: whole names, and pairs of
    characters.

    They are remembered from the first of two comparisons to the second.
    """
    plain = [normalized(text[:MAX_COMPARED_CHARS]) for text in texts]
    own = _Words.of([_split(text, identifiers) for text in plain])
    if not identifiers and all(map(is_simple, plain)):
        return own, own
    return own, _Words.of([LETTERS.words_in(divided(text)) for text in plain])


def _split(text: str, identifiers: bool) -> list[str]:
    """Return the words of a normalized text, without dividing one that has no spaces."""
    return LETTERS.words_in(split_identifiers(text)[:MAX_COMPARED_CHARS] if identifiers else text)


def shared_letters(words: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the share of each word's groups of three letters that one word of each text has, shape
    (words, texts).

    All words are small and stand between spaces, which count as letters. No text is empty.
    """
    groups, starts = groups_of("".join(texts))
    firsts = np.searchsorted(starts, np.cumsum([0, *map(len, texts[:-1])]))
    shares = np.empty((len(words), len(texts)))
    for share, word in zip(shares, words, strict=True):
        asked = np.zeros(TOKEN_GROUPS, dtype=np.uint8)
        asked[groups_of(word)[0]] = 1
        counts = np.add.reduceat(asked[groups], starts, dtype=np.int32)
        share[:] = np.minimum(1.0, np.maximum.reduceat(counts, firsts) / asked.sum())
    shares[shares < MIN_SHARED_LETTERS] = 0
    return shares


def spelled(word: str) -> str:
    """Return a word in small letters between two spaces; one of a script without spaces in pairs of
    characters."""
    return (
        f" {word.lower() if word.isascii() else ' '.join(divided(word).lower().split()) or word} "
    )


def groups_of(text: str) -> tuple[NDArray[np.uint16], NDArray[np.intp]]:
    """Return a number for every three neighbours in a text, and where one begins with a space."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    groups = (codes[:-2] * 31 + codes[1:-1]) * 31 + codes[2:]
    return groups.astype(np.uint16), np.flatnonzero(codes[:-2] == ord(" "))


def near_scores(
    encoder: Bm25Encoder,
    words: Sequence[frozenset[int]],
    weights: Sequence[float],
    texts: Sequence[str],
    deadline: Deadline | None = None,
) -> list[float]:
    """Return which share of the neighbours in a query are neighbours in each text, by the weights
    of the words.

    Neighbours in a text stand at most `NEAR_WORDS` words apart, in either order.
    """
    pairs = [one + other for one, other in pairwise(weights)]
    if not pairs:
        return [0.0] * len(texts)
    places, scores = dict[int, set[int]](), list[float]()
    for number, some in enumerate(words):
        for one in some:
            places.setdefault(one, set()).add(number)
    for few in in_time(texts, deadline):
        found = _words_of(tuple(few), encoder.model.identifiers)[1]
        known = {
            number: {place for one in own for place in places.get(one, ())}
            for number, own in enumerate(encoder.dimensions_of(found.distinct).values())
            if not places.keys().isdisjoint(own)
        }
        asked = np.zeros(len(found.distinct), dtype=np.bool_)
        asked[list(known)] = True
        spots = np.flatnonzero(asked[found.numbers])
        there = [
            (spot, known[number])
            for spot, number in zip(spots.tolist(), found.numbers[spots].tolist(), strict=True)
        ]
        bounds = np.searchsorted(spots, [0, *np.cumsum(found.counts)]).tolist()
        scores += [_share_of_pairs(there[start:end], pairs) for start, end in pairwise(bounds)]
    return scores


def _share_of_pairs(spots: Sequence[tuple[int, set[int]]], pairs: Sequence[float]) -> float:
    """Return the share of pairs that stand near each other in a text, by the places of words and
    their numbers."""
    found, last = set[int](), list[tuple[int, int]]()
    for place, numbers in spots:
        last = [one for one in last if place - one[0] <= NEAR_WORDS]
        for number in numbers:
            found.update([min(number, other) for _, other in last if abs(number - other) == 1])
            last.append((place, number))
    return sum([pairs[number] for number in found]) / sum(pairs) if found else 0.0


@lru_cache(maxsize=256)
def seems_foreign(text: str) -> bool:
    """Return whether a query seems to be in another language than English; names and single words
    are in none.

    Most of its letters are of another script, or it has words that another language leaves out and
    English does not: two of them, or one beside words that are mostly no words of English.
    """
    letters = [ord(letter) for letter in text if letter.isalpha()]
    if sum(one > LATIN for one in letters) > len(letters) / 2:
        return True
    runs = [run.strip(".,;:!?").lower() for run in text.split()]
    words = [run for run in runs if run.isalpha() and len(run) > 1]
    own = sum(leaves_out("english", word) for word in words)
    others = [word for word in words if not leaves_out("english", word)]
    other = max(sum(leaves_out(language, word) for word in others) for language in OTHER_LANGUAGES)
    strange = sum(count_tokens(word) > 1 for word in others if len(word) >= MIN_STRANGE) * 2 > len(
        others
    )
    return len(words) >= MIN_FOREIGN and other > own and (other > 1 or strange)


def count_tokens(word: str) -> int:
    """Return how many tokens of the local embedder a word has. A frequent word is one token."""
    return len(_table().tokens(word))


def nearest_word(word: str, others: Sequence[str]) -> str:
    """Return the word that means most nearly the same; "" if none does."""
    table = _table()
    known = [one for one in others if len(table.tokens(one)) <= MAX_PIECES]
    if not known or len(table.tokens(word)) > MAX_PIECES:
        return ""
    own, *vectors = [table.meaning(one) for one in (word, *known)]
    alike = np.stack(vectors) @ own
    return known[int(alike.argmax())] if alike.max() >= SAME_MEANING else ""


class _TokenTable:
    """The local embedder's tokens with their vectors (32 MB)."""

    def __init__(self) -> None:
        self._tokens, self._vectors = load_table()
        self._lengths = np.maximum(np.linalg.norm(self._vectors, axis=1), 1e-9)

    def tokens(self, word: str) -> list[int]:
        """Return the tokens of a word, one at least."""
        return self._tokens[f" {word}"] or [0]

    def meaning(self, word: str) -> NDArray[np.float32]:
        """Return the vector of a word, of length 1."""
        vector = self._vectors[np.minimum(self.tokens(word), len(self._vectors) - 1)].mean(axis=0)
        return np.asarray(vector / max(1e-9, float(np.linalg.norm(vector))), dtype=np.float32)

    def cosines(self, tokens: Sequence[int], words: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the best cosine of each token with any token of each word, shape (words,
        tokens)."""
        last = len(self._vectors) - 1
        every, own = (
            np.minimum(some, last)
            for some in (np.array([*chain.from_iterable(words)], np.intp), tokens)
        )
        place = np.zeros(len(self._vectors), dtype=np.intp)
        place[every] = 1
        unique = np.flatnonzero(place)
        place[unique] = np.arange(len(unique))
        asked = (self._vectors[own] / self._lengths[own, np.newaxis]).T
        alike = np.empty((len(unique), len(tokens)), dtype=np.float32)
        step = max(1, ONE_THREAD // asked.size)
        for start in range(0, len(unique), step):
            some = unique[start : start + step]
            np.matmul(self._vectors[some], asked, out=alike[start : start + step])
        alike /= self._lengths[unique, np.newaxis]
        starts = np.cumsum([0, *map(len, words)])[:-1]
        best: NDArray[np.float32] = (
            np.maximum.reduceat(alike[place[every]], starts, axis=0) if words else alike
        )
        return best


@cache
def _table() -> _TokenTable:
    return _TokenTable()
