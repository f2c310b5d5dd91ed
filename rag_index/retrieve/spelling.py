"""Typing errors: a word of a query that nothing has is searched for as the word at one edit that most chunks have.

An edit leaves out a letter, adds one, replaces one, or swaps two neighbours: that is what most typing errors are
(Damerau: A Technique for Computer Detection and Correction of Spelling Errors, CACM 7, 1964). The words of an index are
hashed stems that nobody can list. So all spellings at one edit are made into such stems, and the store is asked which
of them it has, under the conditions of the caller: a word is known only from documents that the caller may see.

A word that the local embedder has a token for is no typing error, even if no document has it: soft match finds others
of the same meaning. Nor is a word with digits.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY, TITLE
from rag_index.embedders.bm25 import Bm25Encoder, names_of, split_identifiers
from rag_index.retrieve.soft_match import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.retrieve.question import IndexAnswer
    from rag_index.stores import StoreReader

MIN_LETTERS, MAX_LETTERS = 5, 30
"""A shorter word has too many others at one edit, and a longer one is no word."""
MAX_WORDS = 3
"""Words of a query that are corrected at most: one of many unknown words is in another language."""
BLOCK, MAX_BLOCKS = 32, 3
"""The small letters of an alphabet stand in one or two blocks of this many characters. A script of more has none."""
SAMPLE = 20
"""Chunks that are read to see how a word is written."""
_ACCENTS, _LETTERS = re.compile("[\u0300-\u036f]"), re.compile(r"[^\W\d_]+")


def missing_words(text: str, answers: Iterable[IndexAnswer]) -> list[str]:
    """Return the words of a query, in order, that none of these indexes has and that may be typing errors."""
    missing: dict[str, bool] = {}
    for answer in answers:
        for word, own in Bm25Encoder(answer.live.bm25).words(text).items() if answer.live.bm25 else ():
            if MIN_LETTERS <= len(word) <= MAX_LETTERS and word.isalpha():
                missing[word] = missing.get(word, True) and not any(answer.counts.having.get(one) for one in own)
    return [word for word, is_missing in missing.items() if is_missing]


def possible_spellings(missing: Sequence[str]) -> dict[str, list[str]]:
    """Return the spellings at one edit of those words that have no token of their own, which may load the tokens."""
    errors = [word for word in missing if min(count_tokens(word), count_tokens(word.lower())) > 1]
    return {word: spellings(word.lower()) for word in errors[:MAX_WORDS]}


def spellings(word: str) -> list[str]:
    """Return all spellings at one edit from a word in small letters: swaps, then additions, omissions, replacements."""
    blocks = sorted({ord(letter) // BLOCK * BLOCK for letter in word})
    alphabet = (
        [chr(code) for block in blocks for code in range(block, block + BLOCK)] if len(blocks) <= MAX_BLOCKS else []
    )
    letters = [letter for letter in alphabet if letter.isalpha() and letter == letter.lower()]
    parts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    found = [begin + end[1] + end[0] + end[2:] for begin, end in parts if len(end) > 1]
    found += [begin + letter + end for begin, end in parts for letter in letters]
    found += [begin + end[1:] for begin, end in parts if end]
    found += [begin + letter + end[1:] for begin, end in parts if end for letter in letters]
    return [one for one in dict.fromkeys(found) if one != word]


def count_spellings(store: StoreReader, answer: IndexAnswer, words: Sequence[str]) -> dict[str, int]:
    """Return in about how many chunks of an index each of these words stands, at least 1 for one that is there.

    Some of the chunks that have its stem are read: "holdes" has the stem of "hold", and is none of its forms.
    """
    live = answer.live
    stems = {word: set(answer.words(word).indices) for word in words}
    places = store.find_words(live.collection, sorted(set().union(*stems.values())), answer.own)
    samples = {stem: ids[:SAMPLE] for stem, ids in places.items()}
    points = store.retrieve(live.collection, sorted(set().union(*samples.values())), conditions=answer.own)
    identifiers = live.bm25 is not None and live.bm25.identifiers
    texts: dict[str, set[str]] = {}
    for point in points:  # its words, as they are written but for case and accents
        ours = point.payload.get(RESERVED_KEY, {})
        fields = (str(ours.get(name, "")) for name in ("document_id", TITLE, "text"))
        text = "\n".join([names_of(point.payload), *fields])
        texts[point.id] = set(_LETTERS.findall(_plain(split_identifiers(text) if identifiers else text)))
    counts: dict[str, int] = {}
    for word, own in stems.items():
        plain = _plain(word)
        for stem in own & samples.keys():
            having = sum(plain in texts.get(one, ()) for one in samples[stem])
            counts[word] = max(counts.get(word, 0), math.ceil(len(places[stem]) * having / len(samples[stem])))
    return counts


def chosen_spellings(possible: Mapping[str, Sequence[str]], counts: Iterable[Mapping[str, int]]) -> dict[str, str]:
    """Return for each typing error the spelling that most chunks have, as the indexes counted them, if one has any."""
    total, chosen = sum(map(Counter, counts), Counter[str]()), {}
    for typed, some in possible.items():
        if known := [spelling for spelling in some if total[spelling]]:
            word = max(known, key=lambda spelling: (total[spelling], -count_tokens(spelling)))
            # in the case of what was typed: embedders take a name for something else than a word
            chosen[typed] = word.upper() if typed.isupper() else word.capitalize() if typed[0].isupper() else word
    return chosen


def _plain(text: str) -> str:
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", text)).lower()
