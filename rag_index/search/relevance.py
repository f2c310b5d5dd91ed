"""The relevance of hits, from 0 to 1: how likely a hit fits its query. It means the same in every
index.

The score that orders hits cannot tell that nothing fits: BM25 is divided by the query's best BM25,
so the best hit of a nonsense query gets as much of it as the best of any other. Two properties of a
hit are absolute: its cosine, and how unlikely it is that it has these words of the query by chance
(`evidence`). A logistic regression makes one number of both.

Each collection has a regression of its own, because every embedder has other cosines. It is learned
from queries with a known answer and from queries without one (`evaluation.calibrate`), and is
stored in the collection's metadata. Only scale and threshold are learned: weights learned from a
collection's own texts were worse on test collections.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders.bm25 import key_words, names_of
from rag_index.components.embedders.tokenizer import (
    is_mostly_unspaced,
    is_pair,
    is_pair_of_sounds,
    normalized,
    overlapped,
)
from rag_index.search.fusion import document_key, order_answers
from rag_index.search.question import folded_text, spaced
from rag_index.search.results import value_of
from rag_index.search.soft_match import add_soft_match, near_scores, seems_foreign

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.components.embedders.bm25 import Bm25Encoder
    from rag_index.search.live_collections import Calibration
    from rag_index.search.question import Asked, IndexAnswer
    from rag_index.search.results import SearchHit

NEIGHBOUR_CHANCE = 2.5
"""Evidence of two neighbouring words of the query that are neighbours in a text, as the logarithm of
a chance. Chosen."""
UNCOUNTED = 7.0
"""The idf of a word that was not counted, and the logarithm of the number of points then. Chosen:
about a thousand points."""
ALL_NEIGHBOURS = 0.999
"""Share of neighbours from which all words of a query stand together. It is below 1 because of
rounding."""
MIN_EVIDENCE = -1.2
"""The least evidence."""
SURE = 2.0
"""Evidence of a hit with the whole query together, with a rare name, or with a phrase in quotes.
Chosen."""
CORRECTED_SHARE = 0.5
"""Share of its rarity that a word counts which corrects a typing error. Chosen."""
STEMMED_SHARE = 0.7
"""Share of its rarity that a word counts which stands in another form than was typed. Chosen."""
HALF_A_WORD = 0.5
"""Share of its rarity that a pair of characters of a script without spaces counts, because two pairs
share a character."""
MAX_CORRECTED_EVIDENCE = -0.5
"""Most evidence of a hit with corrected words: `scarf` is no typing error, and still finds `scars`.
With so much evidence, a hit of near meaning still fits."""
DOUBT = -0.1
"""The evidence from which a hit without a known cosine fits."""
FITS = 0.2
"""A hit of this relevance is likely to fit. A text may resemble its paraphrase as much as a question
about something else, so that no single threshold tells them apart: see `NEAR`. benchmarks/README.md
says how often both are wrong."""
NEAR = 0.015
"""If no hit has `FITS`, hits of this relevance may be the nearest in meaning. If none has this
either, nothing fits."""
THRESHOLD = math.log(FITS / (1 - FITS))
UNFIT = 0.01
"""Most relevance of a hit without a word of the query, if the embedder does not know the query's
language."""
EXACT_COSINE = 1.0
EXACT_EVIDENCE = 4.0
"""Cosine and evidence of a hit whose key or title is the query: the greatest there are."""
BY_TEXT = "text"
"""The `collapse` that means equal texts; any other is the name of a payload field."""


@dataclass(frozen=True, slots=True)
class JudgedHit:
    """The words of the query that a hit has, and the evidence that it does not have them by
    chance."""

    words: tuple[str, ...] = ()
    evidence: float = MIN_EVIDENCE


def relevance(weights: Calibration, cosine: float | None, words: float) -> float:
    """Return the relevance of a hit, from 0 to 1.

    Args:
        weights: The regression of the collection.
        cosine: The cosine of the hit, or None if it is not known.
        words: The evidence of its words.
    """
    # The cosine is not known: the words alone decide.
    if cosine is None and weights.cosine:
        log_odds = THRESHOLD + weights.words * (words - DOUBT)
    else:
        # A regression without a weight of the cosine has a scale of its own.
        log_odds = logit(weights, cosine or 0.0, words)
    return float(1 / (1 + np.exp(-log_odds)))


def logit(weights: Calibration, cosine: float, words: float) -> float:
    """Return the logarithm of the odds that a hit fits."""
    return weights.bias + weights.cosine * cosine + weights.words * words


def evidence(words: int, found: int, rarity: float, neighbours: float, points: int) -> float:
    """Return how unlikely it is that any point of an index has these words of a query by chance,
    from -1.2 to 4.

    Args:
        words: The number of words of the query.
        found: How many of them the text has.
        rarity: The sum of their idf, each of which is the logarithm of a chance.
        neighbours: How many pairs of neighbours of the query are neighbours in the text.
        points: The number of points of the indexes.
    """
    # All words stand together, which asks for nothing else.
    if words == found and neighbours > words - 1.001:
        return SURE
    # The more points there are, and the more ways to choose the words from a long query, the more
    # likely is a chance.
    ways = math.lgamma(words + 1) - math.lgamma(found + 1) - math.lgamma(words - found + 1)
    surprise = rarity - (ways + math.log(points)) + NEIGHBOUR_CHANCE * neighbours
    return min(20.0, max(-6.0, surprise)) / 5


def rank(asked: Asked) -> None:
    """Order the best candidates of all indexes, after soft match, and add them to the hits. Raises
    SearchTimedOut."""
    add_soft_match(asked)
    if remark := _language_remark(asked):
        asked.remark = remark
    began = time.perf_counter()
    hits = order_answers(asked.answered, asked.question, asked.scoring, asked.hits)
    asked.hits += with_relevance(hits, asked)
    documents = 0
    for answer in asked.answered:
        documents += len(set(map(document_key, answer.points)))
    asked.left = documents > len(asked.hits)
    asked.seconds["fuse"] += time.perf_counter() - began


def _language_remark(asked: Asked) -> str:
    """Return a note if the query is in a language that an embedder does not know; else an empty
    text."""
    question = asked.question
    english = [answer.live.identity.model for answer in asked.answered if answer.live.english_alone]
    uses_meaning = question.model is None and question.dense_weight != 0
    if not english or not uses_meaning or not seems_foreign(question.text):
        return ""
    models = ", ".join(dict.fromkeys(english))
    return (
        f"This embedder knows English: {models}. A query in another language finds by words alone."
    )


def with_relevance(hits: Sequence[SearchHit], asked: Asked) -> list[SearchHit]:
    """Return the hits with their relevance and, if words were searched for, the words of the query
    that each has."""
    judged: dict[int, JudgedHit] = {}
    for answer in asked.answered:
        encoder = answer.live.encoder
        if encoder is None:
            continue
        # In a hybrid search, a hit without BM25 has no word of the query. A search by meaning alone
        # may find words as well.
        own: list[SearchHit] = []
        for hit in hits:
            if hit.index == answer.index and (hit.bm25 or hit.names or not answer.hybrid):
                own.append(hit)
        if own:
            judged_own = _judge(own, asked, answer, encoder)
            judged |= zip(map(id, own), judged_own, strict=True)
    question = asked.question
    is_unspaced = question.model is None and is_mostly_unspaced(question.text)
    none = JudgedHit()
    return [
        _with_relevance(hit, judged.get(id(hit), none), asked, is_unspaced=is_unspaced)
        for hit in hits
    ]


def _with_relevance(
    hit: SearchHit, judged: JudgedHit, asked: Asked, *, is_unspaced: bool
) -> SearchHit:
    """Return a hit with its relevance, its words and its highlights.

    `is_unspaced` tells whether the query is in a script without spaces.
    """
    question = asked.question
    answer = asked.answers[hit.index]
    encoder = answer.live.encoder
    weights = answer.live.calibration
    text = f"{hit.title}\n{hit.text}"
    synonyms = answer.synonyms.phrases_in(text) if answer.synonyms else ()
    known = judged.evidence
    if hit.names or question.phrases:
        known = max(known, SURE)
    has_cosine = answer.live.fingerprint in asked.vectors and not hit.by_words
    cosine = hit.cosine if has_cosine else None
    # To a model of English, any two texts in Thai are alike: its cosine tells nothing.
    by_words_alone = is_unspaced and answer.live.english_alone and encoder is not None
    if by_words_alone:
        cosine = None

    likely = relevance(weights, cosine, known)
    if hit.exact:
        likely = relevance(weights, EXACT_COSINE, EXACT_EVIDENCE)
    if by_words_alone and known < SURE and not synonyms and not has_word(judged.words, text):
        likely = min(likely, UNFIT)
    # It has a name of the query, whatever its meaning.
    if hit.names:
        likely = max(likely, relevance(weights, None, known))

    matched = judged.words if answer.hybrid else ()
    highlights: tuple[str, ...] = ()
    if encoder is not None and (matched or hit.bm25):
        highlights = encoder.highlights(answer.all_words, text)
    return replace(
        hit,
        matched=matched,
        highlights=highlights,
        synonyms=synonyms,
        relevance=round(likely, 3),
    )


def _judge(
    hits: Sequence[SearchHit], asked: Asked, answer: IndexAnswer, encoder: Bm25Encoder
) -> list[JudgedHit]:
    """Judge the hits of an index by the words of the query that each has."""
    words = answer.words
    having = asked.counts.having
    rarities: dict[str, float] = {}
    for name, word in words.items():
        rarities[name] = max([asked.idf.get(known, UNCOUNTED) for known in word.known(having)])
    # Each pair of characters shares one with the next, so that two tell what one word tells.
    pairs = {name for name in words if is_pair(name)}
    texts = answer.add_synonyms(map(_compared_text, hits))
    matched = encoder.matched(words, texts)

    # All words of a query of several: it may stand in the text as it was typed.
    has_all = [len(found) == len(words) > 1 for found in matched]
    # More words than one, pairs of characters aside: neighbours of pairs tell nothing new.
    has_several = [len(found) > max(1, 2 * len(pairs.intersection(found))) for found in matched]
    compared: list[str] = []
    for text, is_all, is_several in zip(texts, has_all, has_several, strict=True):
        if is_all or is_several:
            compared.append(text)
    dimensions = [word.dimensions for word in words.values()]
    near = iter(near_scores(encoder, dimensions, list(rarities.values()), compared))

    points = asked.counts.points or round(math.exp(UNCOUNTED))
    corrected = set(asked.question.corrected.values())
    judged: list[JudgedHit] = []
    for found, is_all, is_several, text in zip(matched, has_all, has_several, texts, strict=True):
        share = next(near) if is_all or is_several else 0.0
        neighbours = 0.0
        if is_several or share > ALL_NEIGHBOURS:
            neighbours = share * (len(words) - 1)
        shares = _shares([name for name in found if name not in pairs], corrected, text)
        rarity = sum([rarities[name] * shares.get(name, HALF_A_WORD) for name in found])
        proof = evidence(len(words), len(found), rarity, neighbours, points)
        if not corrected.isdisjoint(found):
            proof = min(proof, MAX_CORRECTED_EVIDENCE)
        judged.append(JudgedHit(found, proof))
    return judged


def _compared_text(hit: SearchHit) -> str:
    """Return the text of a hit that is compared with the query."""
    texts = (names_of(hit.payload), key_words(hit.document_id), hit.title, hit.text)
    return "\n".join(filter(None, texts))


def _shares(found: Sequence[str], corrected: set[str], text: str) -> dict[str, float]:
    """Return how much each word counts as evidence: less if it does not stand in the text as it was
    typed.

    Args:
        found: The words of the query that the text has, without pairs of characters.
        corrected: The words that correct a typing error.
        text: The text.
    """
    spaced_text = spaced(text)
    shares: dict[str, float] = {}
    for word in found:
        if word in corrected:
            shares[word] = CORRECTED_SHARE
        # "printers" was typed, and the text has "printer".
        elif spaced(word) not in spaced_text:
            shares[word] = STEMMED_SHARE
        else:
            shares[word] = 1.0
    return shares


def has_word(matched: Sequence[str], text: str) -> bool:
    """Return whether these words of a query are more than pairs of sounds, which stand together by
    chance.

    In Chinese, Japanese and Korean, two characters are often a word. In Thai, three that stand
    together are one.
    """
    if not all(is_pair_of_sounds(word) for word in matched):
        return True
    if len(matched) < 2:
        return False
    plain = normalized(text)
    for word, following in pairwise(matched):
        three = overlapped(word, following)
        if three and three in plain:
            return True
    return False


def collapse_key(hit: SearchHit, by: str) -> Any:
    """Return the value that collapsed hits have in common: that of a field, or with `BY_TEXT` their
    text. A hit without the field has a key of its own."""
    value = folded_text(hit.text) if by == BY_TEXT else value_of(hit.payload, by)
    if value is None:
        return hit.index, hit.document_id
    return repr(value)


def collapsed(hits: Iterable[SearchHit], by: str) -> list[SearchHit]:
    """Return the first hit of each `collapse_key`. Its `collapsed` counts the others, which are left
    out."""
    first: dict[Any, SearchHit] = {}
    for hit in hits:
        key = collapse_key(hit, by)
        if key in first:
            first[key] = replace(first[key], collapsed=first[key].collapsed + 1)
        else:
            first[key] = hit
    return list(first.values())
