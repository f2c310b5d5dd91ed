"""Soft match: how well a chunk's words cover those of the query, where a word that means the same counts too.

It is a late interaction (Khattab and Zaharia: ColBERT, SIGIR 2020) over the best candidates: for each token of the
query the best cosine with any token of the chunk, weighted by the inverse document frequency of its word. The token
vectors are those of the local embedder's table, whichever embedder the index has. So "car" in a query counts 0.6 for a
chunk with "vehicle", and 1 for one with "car".

The table has no vector for a word of several tokens, as most words of other languages than English are: its pieces
stand in many words and mean nothing. So such a word is compared by its letters: "oslepeo" is like "oslepljen".
"""

from __future__ import annotations

import re
from functools import cache, lru_cache, partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rag_index.components.embedders.bm25 import key_words, split_identifiers, split_unspaced
from rag_index.components.embedders.local import load_table
from rag_index.core.documents.batches import RESERVED_KEY, TITLE
from rag_index.search.concurrency import Deadline, in_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.components.embedders.bm25 import Bm25Encoder
    from rag_index.search.question import Asked, IndexAnswer

NEAR_WEIGHT, NEAR_WORDS = 0.15, 3
"""How much the neighbours of a query count in soft match, and how far apart they may stand in a text."""
MAX_TOKENS = 96
"""Tokens of a query that are compared, about."""
MIN_TOKEN_COSINE = 0.2
"""Tokens that are less alike have nothing to do with each other."""
LETTER_SHARE, MIN_SHARED_LETTERS = 0.8, 0.3
"""How much the letters of a word of several tokens count beside these, and the share of them that another word has at
least."""
TOKEN_GROUPS = 2**16
"""Hash values for groups of three letters; few groups share one."""
TITLE_SHARE = 0.1
"""How much of the soft match of a chunk is that of its document's title, beside all of title and text."""
LENGTH_SHARE, LENGTH = 0.2, 75
"""How much a chunk's length counts, and the words of one whose score stays: a long one has more words that may fit."""
MAX_TOKENIZED = 100_000
"""Words whose tokens are remembered: some 20 MB."""
MAX_KEPT_TEXTS = 2000
"""Chunks whose tokens and letters are remembered, with their texts: some 6 MB, at most 40."""
MAX_COMPARED_CHARS = 4000
"""Characters of a chunk that are compared."""
ONE_THREAD = 2**18
"""Multiplications for which OpenBLAS wakes no other threads: these would cost more time than they save."""
_WORD = re.compile(r"\w+")


def add_soft_match(asked: Asked) -> None:
    """Give the candidates of hybrid answers the score of soft match, as far as they have texts.

    Raises SearchTimedOut.
    """
    by_model: dict[str, list[IndexAnswer]] = {}
    for answer in asked.answered:
        if answer.hybrid and answer.live.encoder:
            by_model.setdefault(answer.live.encoder.model.fingerprint, []).append(answer)
    for some in by_model.values():
        if (encoder := some[0].live.encoder) is None:
            continue
        words = {word: one.known(asked.counts.having) for word, one in some[0].words.items()}
        weights = {word: max(asked.idf.get(one, 1.0) for one in own) for word, own in words.items()}
        ours = [point.payload.get(RESERVED_KEY, {}) for answer in some for point in answer.points]
        titles, keys = [str(one.get(TITLE, "")) for one in ours], [str(one.get("document_id", "")) for one in ours]
        given = zip(map(key_words, keys), titles, [str(one.get("text", "")) for one in ours], strict=True)
        texts, limit = some[0].reads("\n".join(filter(None, one)) for one in given), asked.question.deadline
        soft = partial(soft_scores, weights, identifiers=encoder.model.identifiers, deadline=limit)
        near = near_scores(encoder, list(words.values()), list(weights.values()), texts, limit)
        points, of_titles = [point for answer in some for point in answer.points], soft(some[0].reads(titles))
        for point, title, one, own, other in zip(points, titles, soft(texts), of_titles, near, strict=True):
            point.soft = one + (TITLE_SHARE * (own - one) if title else 0.0) + NEAR_WEIGHT * other


def soft_scores(
    words: Mapping[str, float], texts: Sequence[str], *, identifiers: bool = False, deadline: Deadline | None = None
) -> list[float]:
    """Return the soft match of each text, from 0 to about 1.2, with words that have a weight each.

    With `identifiers`, names are compared in one spelling. Of many words, those of the most weight are compared.
    """
    if not words or not texts:
        return [0.0] * len(texts)
    table = _table()
    parts, ids, given = list[str](), list[tuple[int, ...]](), list[float]()
    for word, weight in sorted(words.items(), key=lambda one: -one[1])[:MAX_TOKENS]:
        for part in table.words(word, identifiers=identifiers):
            parts.append(part)
            ids.append(table.tokens(part))
            given.append(weight)
        if sum(map(len, ids)) >= MAX_TOKENS:
            break
    found = [table.text(text, identifiers) for some in in_time(texts, deadline) for text in some]
    filled = [one for one in found if one.words]
    if not parts or not filled:
        return [0.0] * len(texts)
    counts, weights = np.array(list(map(len, ids))), np.array(given)
    by_letters = np.where(counts > 1, LETTER_SHARE * weights, 0.0)
    alike = table.cosines(list(chain.from_iterable(ids)), [one.tokens for one in filled])
    alike[alike < MIN_TOKEN_COSINE] = 0
    scores = alike @ np.repeat((weights - by_letters) / counts, counts)
    if some := np.flatnonzero(by_letters).tolist():
        shared = shared_letters([spelled([parts[one]]) for one in some], [one.letters for one in filled])
        scores += by_letters[some] @ shared
    covered = iter((scores / weights.sum()).tolist())
    lengths = [(1 + LENGTH_SHARE) / (1 + LENGTH_SHARE * one.words / LENGTH) if one.words else 0.0 for one in found]
    return [next(covered) * length if length else 0.0 for length in lengths]


def shared_letters(words: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the share of each word's groups of three letters that one word of each text has, shape (words, texts).

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


def spelled(words: Sequence[str]) -> str:
    """Return words in small letters, each between two spaces; Chinese and Japanese in pairs of characters."""
    small = split_unspaced(" ".join(words)).lower().split()
    return f" {' '.join(small or words)} "


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
    """Return which share of the neighbours in a query are neighbours in each text, by the weights of the words.

    Neighbours in a text stand at most `NEAR_WORDS` words apart, in either order.
    """
    pairs = [one + other for one, other in pairwise(weights)]
    if not pairs:
        return [0.0] * len(texts)
    known, scores, places = dict[str, list[int]](), list[float](), dict[int, list[int]]()
    for number, some in enumerate(words):
        for one in some:
            places.setdefault(one, []).append(number)
    for few in in_time(texts, deadline):
        split = [_WORD.findall(text) for text in map(split_unspaced, [text[:MAX_COMPARED_CHARS] for text in few])]
        for word, own in encoder.dimensions_of(set(chain.from_iterable(split)) - known.keys()).items():
            known[word] = sorted({number for one in own for number in places.get(one, ())})
        scores += [_share_of_pairs([known[word] for word in text], pairs) for text in split]
    return scores


def _share_of_pairs(text: Sequence[Sequence[int]], pairs: Sequence[float]) -> float:
    """Return the share of pairs that stand near each other in a text, given the numbers of query words by place."""
    found, last = set[int](), list[tuple[int, int]]()
    for place, numbers in enumerate(text):
        for number in numbers:
            last = [one for one in last if place - one[0] <= NEAR_WORDS]
            found.update(min(number, other) for _, other in last if abs(number - other) == 1)
            last.append((place, number))
    return sum(pairs[number] for number in found) / sum(pairs)


def count_tokens(word: str) -> int:
    """Return how many tokens of the local embedder a word has. A frequent word is one token."""
    return len(_table().tokens(word))


class _Text(NamedTuple):
    """The distinct tokens of a text, how many words it has, and these in small letters between spaces."""

    tokens: NDArray[np.intp]
    words: int
    letters: str


class _TokenTable:
    """The local embedder's tokens with their vectors (32 MB), and the tokens (at least one) of words that were seen."""

    def __init__(self) -> None:
        self._tokenizer, self._vectors = load_table()
        self._lengths = np.maximum(np.linalg.norm(self._vectors, axis=1), 1e-9)
        self.tokens = lru_cache(MAX_TOKENIZED)(self._tokens)
        self.text = lru_cache(MAX_KEPT_TEXTS)(self._text)

    def words(self, text: str, *, identifiers: bool) -> list[str]:
        """Return the words of a text."""
        text = text[:MAX_COMPARED_CHARS]
        return _WORD.findall(split_identifiers(text) if identifiers else text, 0, MAX_COMPARED_CHARS)

    def _tokens(self, word: str) -> tuple[int, ...]:
        ids = self._tokenizer.encode_batch_fast([word], add_special_tokens=False)[0].ids
        return tuple(min(token, len(self._vectors) - 1) for token in ids or [0])

    def _text(self, text: str, identifiers: bool) -> _Text:
        words = self.words(text, identifiers=identifiers)
        tokens = np.array(sorted(set().union(*map(self.tokens, set(words)))), dtype=np.intp)
        return _Text(tokens, len(words), spelled(words))

    def cosines(self, tokens: Sequence[int], texts: Sequence[NDArray[np.intp]]) -> NDArray[np.float32]:
        """Return the best cosine of each token with any token of each text, shape (texts, tokens)."""
        every = np.concatenate(texts)
        place = np.zeros(len(self._vectors), dtype=np.intp)
        place[every] = 1
        unique = np.flatnonzero(place)
        place[unique] = np.arange(len(unique))
        asked = (self._vectors[tokens] / self._lengths[tokens, np.newaxis]).T
        alike = np.empty((len(unique), len(tokens)), dtype=np.float32)
        step = max(1, ONE_THREAD // asked.size)
        for start in range(0, len(unique), step):
            some = unique[start : start + step]
            np.matmul(self._vectors[some], asked, out=alike[start : start + step])
        alike /= self._lengths[unique, np.newaxis]
        starts = np.cumsum([0, *map(len, texts[:-1])])
        best: NDArray[np.float32] = np.maximum.reduceat(alike[place[every]], starts, axis=0)
        return best


@cache
def _table() -> _TokenTable:
    return _TokenTable()
