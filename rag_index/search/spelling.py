"""Typing errors: a word that no chunk has is replaced by a similar word that chunks have.

Similar words are at one edit from each other. An edit leaves out a letter, adds one, replaces one,
or swaps two neighbours, as most typing errors do (Damerau: A Technique for Computer Detection and
Correction of Spelling Errors, CACM 7, 1964). A letter that was left out or doubled, and swapped
letters, are likelier than another letter; the first letter is seldom wrong.

The words of an index are hashed stems, which cannot be listed. So all spellings at one edit are
made into such stems, and the store counts them under the conditions of the caller: a word is known
only from documents that the caller may see. Of several spellings, the one in most chunks counts,
above all in chunks with other words of the query.

A few documents may have the same error. So a word of few chunks is also replaced if another word of
the same letters, in another order or number, has a hundred times as many chunks. A word that the
local embedder has a token for is no typing error, even if no document has it: soft match finds
words of the same meaning. Neither is a word with digits, nor one in quotes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.components.embedders.bm25 import split_identifiers
from rag_index.components.embedders.tokenizer import LETTERS_ALONE, is_unspaced
from rag_index.search.question import IndexAnswer, text_of
from rag_index.search.soft_match import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.components.stores.protocol import StoreReader

MIN_WORD_LETTERS = 5
"""Letters of a word that is corrected at least. Chosen; a shorter word has too many neighbours."""
MAX_WORD_LETTERS = 30
"""Letters of a word that is corrected at most. Chosen; a longer one is no word."""
MAX_ERRORS = 5
"""Chunks that may have the same typing error. Chosen."""
RARER = 100
"""The right word has at least this many times as many chunks as the error. Chosen."""
LIKELY = 10.0
"""Likelihood of a missing, doubled or swapped letter. Chosen."""
EXCHANGED = 1.0
"""Likelihood of another letter, the unit of the others."""
BESIDE_OTHERS = 10
"""Weight of a chunk that also has other words of the query, where other chunks have 1. Chosen."""
MAX_CORRECTED = 3
"""Words of a query that are corrected at most. Chosen; a query with more unknown words is in another
language."""
ALPHABET_BLOCK = 32
"""Characters in a block: the small letters of an alphabet are in one or two blocks of Unicode of
this size."""
MAX_BLOCKS = 3
"""Blocks of the letters of a word at most. Chosen; a script with more blocks is no alphabet."""
READ_CHUNKS = 20
"""Chunks that are read for each stem, to see how its words are written. Chosen."""
_ACCENTS = re.compile("[\u0300-\u036f]")


@dataclass(frozen=True, slots=True)
class SpellingCount:
    """About how many chunks of an index have a spelling.

    Attributes:
        chunks: All chunks with the spelling.
        beside_others: Those that also have other words of the query.
        written: The spelling as a chunk has it, in small letters: with its accents.
    """

    chunks: int
    beside_others: int
    written: str


def suspects(answers: Iterable[IndexAnswer]) -> dict[str, int]:
    """Return the words of a query, in order, that may be typing errors, with the number of chunks
    that have each."""
    answers = list(answers)
    found = Counter[str]()
    for answer in answers:
        having = answer.counts.having
        for word, own in answer.words.items():
            if MIN_WORD_LETTERS <= len(word) <= MAX_WORD_LETTERS and _is_spelled(word):
                found[word] += max([having.get(dimension, 0) for dimension in own.full], default=0)
    points = sum(answer.counts.points for answer in answers)
    # An older server counts all documents, also those that the caller may not see.
    if any(answer.own for answer in answers):
        points = 0
    suspected: dict[str, int] = {}
    for word, count in found.items():
        if count <= MAX_ERRORS and count * RARER <= points:
            suspected[word] = count
    return suspected


def _is_spelled(word: str) -> bool:
    """Return whether a word has letters alone. In a script without spaces, words are pairs of
    characters, which have no spelling."""
    return LETTERS_ALONE.of(word).fullmatch(word) is not None and not is_unspaced(word)


def possible_spellings(typed: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return the possible spellings of words, each with its likelihood. A word with a token of its
    own has none.

    The first call loads the tokens of the local embedder.

    Args:
        typed: The number of chunks that have each word.
    """
    errors = [word for word in typed if min(count_tokens(word), count_tokens(word.lower())) > 1]
    possible: dict[str, dict[str, float]] = {}
    for word in errors[:MAX_CORRECTED]:
        similar = spellings(word.lower())
        # Some chunks have the word: only spellings with the same letters are likely enough.
        if typed[word]:
            letters = set(word.lower())
            similar = {
                spelling: likelihood
                for spelling, likelihood in similar.items()
                if set(spelling) == letters
            }
        possible[word] = similar
    return possible


def spellings(word: str) -> dict[str, float]:
    """Return all spellings at one edit from a word in small letters, each with the likelihood of its
    edit."""
    letters = _alphabet_of(word)
    found: dict[str, float] = {}
    parts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    # Another letter, but not in place of the first.
    for begin, end in parts[1:-1]:
        found.update({begin + letter + end[1:]: EXCHANGED for letter in letters})
    # A letter too many.
    found.update({begin + end[1:]: LIKELY for begin, end in parts[:-1]})
    # A missing letter.
    for begin, end in parts:
        found.update({begin + letter + end: LIKELY for letter in letters})
    # Swapped letters.
    found.update({begin + end[1] + end[0] + end[2:]: LIKELY for begin, end in parts[:-2]})
    found.pop(word, None)
    return found


def _alphabet_of(word: str) -> list[str]:
    """Return the small letters of the word's alphabet; none if its script is no alphabet."""
    blocks = {ord(letter) // ALPHABET_BLOCK for letter in word}
    if len(blocks) > MAX_BLOCKS:
        return []
    letters: list[str] = []
    for block in sorted(blocks):
        start = block * ALPHABET_BLOCK
        for letter in map(chr, range(start, start + ALPHABET_BLOCK)):
            if LETTERS_ALONE.of(letter).match(letter) and letter == letter.lower():
                letters.append(letter)
    return letters


def count_spellings(
    store: StoreReader, answer: IndexAnswer, words: Iterable[str]
) -> dict[str, SpellingCount]:
    """Count the chunks of a collection that have each of these words. Words that it does not have
    are left out.

    Several words have the same stem: "holdes" has the stem of "hold", and is none of its forms. So
    some of the chunks with the stem are read, and the share of them that have the word is counted.
    """
    encoder = answer.live.encoder
    if encoder is None:
        return {}
    stems = encoder.dimensions_of(words)
    collection = store.points(answer.live.collection)
    places = collection.find_words(sorted(set().union(*stems.values())), answer.own)
    samples = {stem: ids[:READ_CHUNKS] for stem, ids in places.items()}
    sampled = sorted(set().union(*samples.values()))
    written: dict[str, dict[str, str]] = {}
    for point in collection.retrieve(sampled, conditions=answer.own):
        text = text_of(point.payload)
        written[point.id] = _written_words(text, identifiers=encoder.model.identifiers)
    # An older server also counts documents that the caller may not see.
    totals = {} if answer.own else collection.word_counts(sorted(samples)).having
    others = {_plain(word) for word in answer.words}

    counts: dict[str, SpellingCount] = {}
    for word, own in stems.items():
        plain = _plain(word)
        for stem in own & samples.keys():
            texts = [written[sample] for sample in samples[stem] if sample in written]
            having = [words_of_text for words_of_text in texts if plain in words_of_text]
            if having:
                total = max(totals.get(stem, 0), len(places[stem]))
                share = total / len(samples[stem])
                beside = sum(not others.isdisjoint(words_of_text) for words_of_text in having)
                counts[word] = SpellingCount(
                    math.ceil(share * len(having)),
                    math.ceil(share * beside),
                    having[0][plain].lower(),
                )
    return counts


def _written_words(text: str, *, identifiers: bool) -> dict[str, str]:
    """Return the words of a text as they are written, by their form without capitals and accents."""
    if identifiers:
        text = split_identifiers(text)
    text = unicodedata.normalize("NFC", text)
    return {_plain(word): word for word in LETTERS_ALONE.words_in(text)}


def chosen_spellings(
    possible: Mapping[str, Mapping[str, float]],
    typed: Mapping[str, int],
    counts: Iterable[Mapping[str, SpellingCount]],
) -> dict[str, str]:
    """Return the likeliest spelling of each typing error that has one.

    Args:
        possible: The possible spellings of each word, with the likelihood of each.
        typed: The number of chunks that have each word as it was typed.
        counts: The counts of the spellings in each index.
    """
    chunks = Counter[str]()
    weights = Counter[str]()
    written: dict[str, str] = {}
    for counts_of_index in counts:
        for spelling, count in counts_of_index.items():
            chunks[spelling] += count.chunks
            weights[spelling] += count.chunks + BESIDE_OTHERS * count.beside_others
            written.setdefault(spelling, count.written)

    chosen: dict[str, str] = {}
    for word, likelihoods in possible.items():
        # No chunk has the word: any spelling will do.
        least, min_likelihood = 1, EXCHANGED
        # A few chunks have it: the right word must be much more frequent, and its edit likely.
        if typed[word]:
            least, min_likelihood = RARER * typed[word], LIKELY
        found: list[str] = []
        for spelling, likelihood in likelihoods.items():
            if chunks[spelling] >= least and likelihood >= min_likelihood:
                found.append(spelling)
        if found:
            best = _likeliest(found, likelihoods, weights)
            chosen[word] = _in_case_of(word, written[best])
    return chosen


def _likeliest(
    found: Sequence[str], likelihoods: Mapping[str, float], weights: Mapping[str, int]
) -> str:
    """Return the likeliest of these spellings; of equals, the one with the fewest tokens."""
    return max(
        found,
        key=lambda spelling: (likelihoods[spelling] * weights[spelling], -count_tokens(spelling)),
    )


def _in_case_of(typed: str, word: str) -> str:
    """Return a word in the case of what was typed, because embedders read a name differently from a
    word."""
    if typed.isupper():
        return word.upper()
    if typed[0].isupper():
        return word.capitalize()
    return word


def _plain(text: str) -> str:
    """Return a text without capitals and accents."""
    decomposed = unicodedata.normalize("NFKD", text)
    return _ACCENTS.sub("", decomposed).lower()
