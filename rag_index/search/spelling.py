"""Typing errors: a word of a query that nothing has is searched for as a word at one edit that
chunks have.

An edit leaves out a letter, adds one, replaces one, or swaps two neighbours: that is what most
typing errors are (Damerau: A Technique for Computer Detection and Correction of Spelling Errors,
CACM 7, 1964). A letter that was left out or doubled, and swapped ones, are likelier than another
letter; the first letter is seldom wrong. The words of an index are hashed stems that cannot be
listed. So all spellings at one edit are made into such stems, and the store is asked which of them
it has, under the conditions of the caller: a word is known only from documents that the caller may
see. Of several, the one counts that most chunks have, above all those that have other words of the
query.

A few documents may have the same error: a word is also replaced if another of the same letters, in
another order or number, has a hundred times as many chunks. A word that the local embedder has a
token for is no typing error, even if no document has it: soft match finds others of the same
meaning. Nor is a word with digits, or one that stands in quotes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from rag_index.components.embedders.bm25 import split_identifiers
from rag_index.components.embedders.tokenizer import LETTERS_ALONE, is_unspaced
from rag_index.search.question import IndexAnswer, text_of
from rag_index.search.soft_match import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.components.stores.protocol import StoreReader

MIN_WORD_LETTERS, MAX_WORD_LETTERS = 5, 30
"""A shorter word has too many others at one edit, and a longer one is no word."""
MAX_ERRORS, RARER = 5, 100
"""Chunks that may have the same error, and how many times as many have the right word then."""
LIKELY, EXCHANGED = 10.0, 1.0
"""How likely it is that letters are missing, doubled or swapped, beside that one is another."""
BESIDE_OTHERS = 10
"""How many times a chunk counts that has other words of the query."""
MAX_CORRECTED = 3
"""Words of a query that are corrected at most: one of many unknown words is in another language."""
ALPHABET_BLOCK, MAX_BLOCKS = 32, 3
"""The small letters of an alphabet stand in one or two blocks of this many characters. A script of
more has none."""
READ_CHUNKS = 20
"""Chunks that are read to see how a word is written."""
_ACCENTS = re.compile("[\u0300-\u036f]")


def suspects(answers: Iterable[IndexAnswer]) -> dict[str, int]:
    """Return the words of a query, in order, that may be typing errors, with the number of chunks
    that have each."""
    found = Counter[str]()
    answers = list(answers)
    for answer in answers:
        for word, own in answer.words.items():
            if MIN_WORD_LETTERS <= len(word) <= MAX_WORD_LETTERS and _is_spelled(word):
                found[word] += max(
                    [answer.counts.having.get(one, 0) for one in own.whole], default=0
                )
    # an older server counts all documents, which says nothing where the caller may not see some
    points = (
        0
        if any(answer.own for answer in answers)
        else sum(answer.counts.points for answer in answers)
    )
    return {
        word: count
        for word, count in found.items()
        if count <= MAX_ERRORS and count * RARER <= points
    }


def _is_spelled(word: str) -> bool:
    """Return whether a word has letters alone, and is none of a script without spaces, where pairs
    are words."""
    return LETTERS_ALONE.of(word).fullmatch(word) is not None and not is_unspaced(word)


def possible_spellings(typed: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return the spellings, with weights, of words without a token of their own, which may load the
    tokens.

    Words that some chunks have get those alone that have the same letters.
    """
    errors = [word for word in typed if min(count_tokens(word), count_tokens(word.lower())) > 1]
    return {
        word: {
            one: weight
            for one, weight in spellings(word.lower()).items()
            if not typed[word] or set(one) == set(word.lower())
        }
        for word in errors[:MAX_CORRECTED]
    }


def spellings(word: str) -> dict[str, float]:
    """Return all spellings at one edit from a word in small letters, with how likely each edit is
    beside others."""
    blocks = sorted({ord(letter) // ALPHABET_BLOCK * ALPHABET_BLOCK for letter in word})
    alphabet = (
        [chr(code) for block in blocks for code in range(block, block + ALPHABET_BLOCK)]
        if len(blocks) <= MAX_BLOCKS
        else []
    )
    letters = [
        letter
        for letter in alphabet
        if LETTERS_ALONE.of(letter).match(letter) and letter == letter.lower()
    ]
    parts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    exchanged = [
        begin + letter + end[1:] for begin, end in parts if begin and end for letter in letters
    ]
    found = dict.fromkeys(exchanged, EXCHANGED)
    found |= dict.fromkeys((begin + end[1:] for begin, end in parts if end), LIKELY)
    found |= dict.fromkeys(
        (begin + letter + end for begin, end in parts for letter in letters), LIKELY
    )
    found |= dict.fromkeys(
        (begin + end[1] + end[0] + end[2:] for begin, end in parts if len(end) > 1), LIKELY
    )
    return {one: weight for one, weight in found.items() if one != word}


def count_spellings(
    store: StoreReader, answer: IndexAnswer, words: Iterable[str]
) -> dict[str, tuple[int, int, str]]:
    """Count, for each of these words that the collection has, about how many chunks have it, and
    other query words too.

    With the counts comes the word as a chunk has it. Some of the chunks that have its stem are
    read: "holdes" has the stem of "hold", and is none of its forms.
    """
    live = answer.live
    if live.encoder is None:
        return {}
    stems = live.encoder.dimensions_of(words)
    collection = store.points(live.collection)
    places = collection.find_words(sorted(set().union(*stems.values())), answer.own)
    samples = {stem: ids[:READ_CHUNKS] for stem, ids in places.items()}
    sampled = sorted(set().union(*samples.values()))
    points = collection.retrieve(sampled, conditions=answer.own)
    written: dict[str, dict[str, str]] = {}
    for point in points:  # its words, by what they are but for case and accents
        found = text_of(point.payload)
        found = split_identifiers(found) if live.encoder.model.identifiers else found
        found = unicodedata.normalize("NFC", found)
        written[point.id] = {_plain(word): word for word in LETTERS_ALONE.words_in(found)}
    others = {_plain(word) for word in answer.words}
    # an older server also counts documents that the caller may not see
    total = {} if answer.own else collection.word_counts(sorted(samples)).having
    counts: dict[str, tuple[int, int, str]] = {}
    for word, own in stems.items():
        plain = _plain(word)
        for stem in own & samples.keys():
            having = [written[one] for one in samples[stem] if plain in written.get(one, ())]
            if having:
                share = max(total.get(stem, 0), len(places[stem])) / len(samples[stem])
                beside = sum(not others.isdisjoint(one) for one in having)
                counts[word] = (
                    math.ceil(share * len(having)),
                    math.ceil(share * beside),
                    having[0][plain].lower(),
                )
    return counts


def chosen_spellings(
    possible: Mapping[str, Mapping[str, float]],
    known: Mapping[str, int],
    counts: Iterable[Mapping[str, tuple[int, int, str]]],
) -> dict[str, str]:
    """Return for each typing error the likeliest spelling, as the indexes counted them, if there is
    one.

    `known` is how many chunks have the word as it was typed.
    """
    chunks, weights, written, chosen = (
        Counter[str](),
        Counter[str](),
        dict[str, str](),
        dict[str, str](),
    )
    for one in counts:
        for spelling, (having, beside, word) in one.items():
            chunks[spelling] += having
            weights[spelling] += having + BESIDE_OTHERS * beside
            written.setdefault(spelling, word)
    for typed, some in possible.items():
        least, edit = (RARER * known[typed], LIKELY) if known[typed] else (1, EXCHANGED)
        found = [one for one, weight in some.items() if chunks[one] >= least and weight >= edit]
        if found:
            best = written[
                max(found, key=lambda one: (some[one] * weights[one], -count_tokens(one)))
            ]
            # in the case of what was typed: embedders take a name for something else than a word
            chosen[typed] = (
                best.upper()
                if typed.isupper()
                else best.capitalize()
                if typed[0].isupper()
                else best
            )
    return chosen


def _plain(text: str) -> str:
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", text)).lower()
