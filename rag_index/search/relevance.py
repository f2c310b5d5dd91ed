"""The relevance of hits, from 0 to 1, that means the same in every index: how likely a hit fits its
query.

The score that orders hits cannot say that nothing fits: BM25 counts as a share of the query's best,
so the best of a nonsense query gets as much of it as the best of any other. Two things about a hit
are absolute: its cosine, and how little chance explains that it has these words of the query
(`evidence`). A logistic regression makes one number of them. Each collection has its own, since
every embedder has other cosines: it is learned from queries whose answer is known and from queries
without one (`evaluation.calibrate`), and is kept in the collection's metadata. Only scale and
threshold are learned: weights learned from a collection's own texts were worse on test collections.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import compress, pairwise
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
"""The logarithm of the chance that two words of a text are neighbours."""
UNCOUNTED = 7.0
"""The idf of a word that was not counted, and the logarithm of the number of points."""
WHOLE = 0.999
"""The share of neighbours from which all words of a query stand together, whatever is lost by
rounding."""
MIN_EVIDENCE, SURE = -1.2, 2.0
"""The least evidence, and that of a hit that has the whole query together, or a rare name or a
quotation of it."""
CORRECTED_SHARE, STEMMED_SHARE = 0.5, 0.7
"""How much the rarity of a word counts that a hit has only as another spelling, or in another form,
than was typed."""
HALF_A_WORD = 0.5
"""How much a pair of characters of a script without spaces counts: two of them share a
character."""
MAX_CORRECTED_EVIDENCE = -0.5
"""The evidence at most of a hit that has corrected words: `scarf` is no typing error, and still
`scars` is found by it. With so much evidence, a hit whose meaning is near still fits."""
DOUBT = -0.1
"""The evidence with which a hit begins to fit."""
FITS, NEAR = 0.2, 0.015
"""A hit of the first relevance is likely to fit. If none has it, the hits may be the nearest in
meaning; if none has the second either, nothing fits. A text may be as like its paraphrase as a
question about something else, so that no one threshold tells them apart. See benchmarks/README.md
for how often each is wrong."""
THRESHOLD = math.log(FITS / (1 - FITS))
UNFIT = 0.01
"""The relevance at most of a hit without a word of a query in a language that the embedder does not
know."""
BY_TEXT = "text"
"""The name by which hits of equal text are collapsed; any other is that of a payload field."""


def relevance(weights: Calibration, cosine: float | None, words: float) -> float:
    """Return the relevance of a hit with this cosine, and this evidence of its words, from 0 to 1.

    If the cosine is not known, the words alone decide.
    """
    if cosine is None and weights.cosine:
        odds = THRESHOLD + weights.words * (words - DOUBT)
    else:  # Weights of words alone have a scale of their own.
        odds = logit(weights, cosine or 0.0, words)
    return float(1 / (1 + np.exp(-odds)))


def logit(weights: Calibration, cosine: float, words: float) -> float:
    """Return the logarithm of the odds that a hit fits."""
    return weights.bias + weights.cosine * cosine + weights.words * words


def evidence(words: int, found: int, rarity: float, neighbours: float, points: int) -> float:
    """Return how unlikely it is that any point of an index has these words of a query by chance,
    from -1.2 to 4.

    `rarity` is the sum of the idf of the words that were `found`; each idf is the logarithm of a
    chance. The number of points, and of ways to choose words of a long query, raises the chance
    again. Neighbours lower it. A query whose words all stand together asks for nothing else.
    """
    if words == found and neighbours > words - 1.001:
        return SURE
    chances = (
        math.lgamma(words + 1)
        - math.lgamma(found + 1)
        - math.lgamma(words - found + 1)
        + math.log(points)
    )
    return min(20.0, max(-6.0, rarity - chances + NEIGHBOUR_CHANCE * neighbours)) / 5


def rank(asked: Asked) -> None:
    """Put the best candidates of all indexes in order, after soft match, behind known hits. Raises
    SearchTimedOut."""
    add_soft_match(asked)
    question, english = (
        asked.question,
        [one.live.identity.model for one in asked.answered if one.live.english_alone],
    )
    if (
        english
        and not question.model
        and question.dense_weight != 0
        and seems_foreign(question.text)
    ):
        known = ", ".join(dict.fromkeys(english))
        asked.remark = (
            f"This embedder knows English: {known}. A query in another language finds by words"
            " alone."
        )
    began = time.perf_counter()
    hits = order_answers(asked.answered, asked.question, asked.scoring, asked.hits)
    asked.hits += with_relevance(hits, asked)
    asked.left = sum(len(set(map(document_key, one.points))) for one in asked.answered) > len(
        asked.hits
    )
    asked.seconds["fuse"] += time.perf_counter() - began


def with_relevance(hits: Sequence[SearchHit], asked: Asked) -> list[SearchHit]:
    """Return the hits with their relevance, and with the words of the query that each has, if words
    were searched."""
    judged: dict[int, tuple[tuple[str, ...], float]] = {}
    for answer in asked.answered:
        # where words were searched for, a hit without any has no BM25; meaning alone may find the
        # words as well
        own = [
            hit
            for hit in hits
            if hit.index == answer.index and (hit.bm25 or hit.names or not answer.hybrid)
        ]
        if own and answer.live.encoder:
            judged |= zip(
                map(id, own), _judged(own, asked, answer, answer.live.encoder), strict=True
            )
    judged_hits, question = [], asked.question
    without_spaces = question.model is None and is_mostly_unspaced(question.text)
    for hit in hits:
        answer = asked.answers[hit.index]
        encoder = answer.live.encoder
        matched, known = judged.get(id(hit), ((), MIN_EVIDENCE))
        known = max(known, SURE) if hit.names or question.phrases else known
        cosine = (
            hit.cosine if answer.live.fingerprint in asked.vectors and not hit.by_words else None
        )
        text = f"{hit.title}\n{hit.text}"
        beside = answer.synonyms.said(text) if answer.synonyms else ()
        weights, words_alone = (
            answer.live.calibration,
            without_spaces and answer.live.english_alone and encoder,
        )
        if words_alone:
            cosine = (
                None  # it tells nothing: to a model of English, any two texts in Thai are alike
            )
        likely = relevance(weights, *((1.0, 4.0) if hit.exact else (cosine, known)))
        if words_alone and known < SURE and not (beside or has_word(matched, text)):
            likely = min(likely, UNFIT)
        if hit.names:  # it is what was asked for, whatever it means
            likely = max(likely, relevance(weights, None, known))
        said, marks = matched if answer.hybrid else (), tuple[str, ...]()
        if (said or hit.bm25) and encoder:
            marks = encoder.highlights(answer.all_words, text)
        made = replace(
            hit, matched=said, highlights=marks, synonyms=beside, relevance=round(likely, 3)
        )
        judged_hits.append(made)
    return judged_hits


def _judged(
    hits: Sequence[SearchHit], asked: Asked, answer: IndexAnswer, encoder: Bm25Encoder
) -> list[tuple[tuple[str, ...], float]]:
    """Return the words of the query that each hit of an index has, and the evidence that it is not
    by chance."""
    words, counts = answer.words, asked.counts
    known = {name: word.known(counts.having) for name, word in words.items()}
    weights = {
        name: max([asked.idf.get(one, UNCOUNTED) for one in some]) for name, some in known.items()
    }
    pairs = {
        name for name in words if is_pair(name)
    }  # each has a character of the next: two say what one word says
    names, keys = (
        [names_of(hit.payload) for hit in hits],
        [key_words(hit.document_id) for hit in hits],
    )
    given = zip(names, keys, [hit.title for hit in hits], [hit.text for hit in hits], strict=True)
    texts = answer.reads("\n".join(filter(None, one)) for one in given)
    matched = encoder.matched(words, texts)
    # neighbours of pairs tell nothing new, unless the whole query stands there as it was typed
    is_whole = [len(found) == len(words) > 1 for found in matched]
    is_counted = [len(found) > max(1, 2 * len(pairs.intersection(found))) for found in matched]
    counting = [counted or whole for counted, whole in zip(is_counted, is_whole, strict=True)]
    own = [word.dimensions for word in words.values()]
    near = iter(near_scores(encoder, own, list(weights.values()), [*compress(texts, counting)]))
    points, judged = counts.points or round(math.exp(UNCOUNTED)), []
    corrected = set(asked.question.corrected.values())
    for found, counts_near, counted, text in zip(matched, counting, is_counted, texts, strict=True):
        shares = _shares([name for name in found if name not in pairs], corrected, text)
        rarity = sum([weights[name] * shares.get(name, HALF_A_WORD) for name in found])
        share = next(near) if counts_near else 0.0
        neighbours = share * (len(own) - 1) if counted or share > WHOLE else 0.0
        proof = evidence(len(own), len(found), rarity, neighbours, points)
        if not corrected.isdisjoint(found):
            proof = min(proof, MAX_CORRECTED_EVIDENCE)
        judged.append((found, proof))
    return judged


def _shares(found: Sequence[str], corrected: set[str], text: str) -> dict[str, float]:
    """Return how much each word counts as evidence that a text was asked for: less if it was not
    typed as it stands.

    `found` has no pairs of characters of a script without spaces.
    """
    as_typed = spaced(text)
    shares = dict[str, float]()
    for word in found:
        if word in corrected:
            shares[word] = CORRECTED_SHARE
        elif spaced(word) not in as_typed:
            shares[word] = STEMMED_SHARE  # "printers", and the text has "printer"
        else:
            shares[word] = 1.0
    return shares


def has_word(matched: Sequence[str], text: str) -> bool:
    """Return whether words of a query that a text has are more than two sounds, which stand
    together by chance.

    Two characters are often a word of Chinese, Japanese and Korean. In Thai, three that stand
    together are one.
    """
    if not all(is_pair_of_sounds(word) for word in matched):
        return True
    plain = normalized(text) if len(matched) > 1 else ""
    return any(
        overlapped(one, other) in plain
        for one, other in pairwise(matched)
        if overlapped(one, other)
    )


def collapse_key(hit: SearchHit, by: str) -> Any:
    """Return what hits have in common that are collapsed: a value of a field, or `BY_TEXT` their
    text."""
    value = folded_text(hit.text) if by == BY_TEXT else value_of(hit.payload, by)
    return (hit.index, hit.document_id) if value is None else repr(value)


def collapsed(hits: Iterable[SearchHit], by: str) -> list[SearchHit]:
    """Return the hits without those that repeat a better one, which says in `collapsed` how many it
    stands for.

    `by` is a payload field with equal values, or `BY_TEXT` for equal texts, whatever their spaces
    and capitals. A hit that does not have the field stands for itself.
    """
    kept: dict[Any, SearchHit] = {}
    for hit in hits:
        key = collapse_key(hit, by)
        kept[key] = replace(kept[key], collapsed=kept[key].collapsed + 1) if key in kept else hit
    return list(kept.values())
