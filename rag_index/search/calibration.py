"""A calibrated score of hits, from 0 to 1, that means the same in every index: how likely a hit fits its query.

The score that orders hits cannot say that nothing fits: BM25 counts as a share of the query's best, so the best of a
nonsense query gets as much of it as the best of any other. Two things about a hit are absolute: its cosine, and how
little chance explains that it has these words of the query (`evidence`). A logistic regression makes one number of
them. Each collection has its own, since every embedder has other cosines: it is learned from queries whose answer is
known and from queries without one (`evaluation.calibrate`), and is kept in the collection's metadata. Only
scale and threshold are learned: weights learned from a collection's own texts were worse on test collections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders.bm25 import Bm25Encoder, QueryWord, is_pair, key_words, names_of
from rag_index.search.soft_match import near_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.search.question import Asked, IndexAnswer
    from rag_index.search.results import SearchHit

NEIGHBOURS = 2.5
"""The logarithm of the chance that two words of a text are neighbours."""
UNCOUNTED = 7.0
"""The idf of a word that was not counted, and the logarithm of the number of points."""
MIN_EVIDENCE = -1.2
BETWEEN, DOUBT, UNSURE = 1 / 6, -0.1, -0.9
"""Where between the cosines of nonsense and of known texts a hit begins to fit, and with which evidence; with less
where cosines tell nothing."""
FITS = 0.2
"""Nothing fits if no hit has this relevance. See benchmarks/README.md for how often that is wrong."""
COSINE, EVIDENCE, MIN_GAP = 1.6, 2.1, 0.12
"""The weight of the range of cosines between nonsense and known texts, that of evidence, and the range at least."""
BY_TEXT = "text"
"""The name by which hits of equal text are folded; any other is that of a payload field."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weights of a logistic regression."""

    bias: float
    cosine: float
    words: float
    trusted: bool = True
    """Whether meaning and words agree about the collection's own texts. If not, meaning counts less."""

    def relevance(self, cosine: float | None, words: float) -> float:
        """Return the score of a hit with this cosine, and this evidence of its words, from 0 to 1.

        If the cosine is not known, the words alone decide.
        """
        unknown = math.log(FITS / (1 - FITS)) + self.words * (words - DOUBT)
        return float(1 / (1 + np.exp(-(unknown if cosine is None else self.logit(cosine, words)))))

    def logit(self, cosine: float, words: float) -> float:
        """Return the logarithm of the odds that a hit fits."""
        return self.bias + self.cosine * cosine + self.words * words

    @classmethod
    def from_metadata(cls, recorded: Any, *, words: bool) -> Calibration:
        """Return the recorded weights, or those that stand for a collection without, which may have `words` or not."""
        try:
            return cls(**recorded)
        except TypeError:
            return WITH_WORDS if words else WITHOUT_WORDS

    @classmethod
    def learn(cls, known: Sequence[float], strange: Sequence[float], *, words: bool) -> Calibration:
        """Return the calibration of a collection, given the best cosine of each query of both kinds.

        Weights and threshold are those of test collections, between the collection's own cosines. Medians alone are
        learned: the quantiles of some dozen queries differ too much from one sample to another.
        """
        low, high = float(np.median(strange)), float(np.median(known))
        gap = high - low
        cosine = COSINE / gap if gap >= MIN_GAP else 0.0
        weights = cls(0.0, round(cosine if words else 2 * cosine, 4), EVIDENCE if words else 0.0)
        bound = weights.logit(low + BETWEEN * gap, DOUBT if cosine else UNSURE)
        return replace(weights, bias=round(math.log(FITS / (1 - FITS)) - bound, 4))


WITH_WORDS, WITHOUT_WORDS = Calibration(-3.7, 6.6, EVIDENCE), Calibration(-3.0, 6.5, 0.0)
"""About what the local embedder learns from test collections."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The words of a query as a collection has them, and what each hit has of them."""

    words: Mapping[str, QueryWord]
    weights: Mapping[str, float]
    encoder: Bm25Encoder
    points: int

    @classmethod
    def of(cls, asked: Asked, answer: IndexAnswer) -> Judge | None:
        """Return the judge of an answer's hits, None if the collection knows no words."""
        if answer.live.bm25 is None:
            return None
        words, counts = answer.words(asked.question.text), asked.counts
        weights = {
            name: max(asked.idf.get(one, UNCOUNTED) for one in word.known(counts.having))
            for name, word in words.items()
        }
        return cls(words, weights, Bm25Encoder(answer.live.bm25), counts.points or round(math.exp(UNCOUNTED)))

    def matched(self, hit: SearchHit) -> tuple[tuple[str, ...], float]:
        """Return the words of the query that a hit has, and the evidence that it has them not by chance."""
        text = "\n".join([names_of(hit.payload), key_words(hit.document_id), hit.title, hit.text])
        found = self.encoder.matched(self.words, text)
        own, weights = [word.dimensions for word in self.words.values()], list(self.weights.values())
        pairs = sum(map(is_pair, found))  # each has a character of the next, so that two say what one word says
        counts = len(found) > max(1, 2 * pairs)
        [near] = near_scores(self.encoder.model, own, weights, [text]) if counts else [0.0]
        rarity = sum(self.weights[name] / (2 if is_pair(name) else 1) for name in found)
        return found, evidence(len(own), len(found), rarity, near * (len(own) - 1), self.points)


def evidence(words: int, found: int, rarity: float, neighbours: float, points: int) -> float:
    """Return how unlikely it is that any point of an index has these words of a query by chance, from -1.2 to 4.

    `rarity` is the sum of the idf of the words that were `found`, each of which is the logarithm of a chance. There
    are points, and choices among the words of a long query, for as many chances; neighbours have one less. A query of
    one word asks for nothing else.
    """
    if words == found == 1:
        return 2.0
    chances = math.lgamma(words + 1) - math.lgamma(found + 1) - math.lgamma(words - found + 1) + math.log(points)
    return min(20.0, max(-6.0, rarity - chances + NEIGHBOURS * neighbours)) / 5


def with_relevance(hits: Iterable[SearchHit], asked: Asked) -> list[SearchHit]:
    """Return the hits with their relevance, and with the words of the query that each has, if words were searched."""
    judged = []
    judges = {one.index: Judge.of(asked, one) for one in asked.answered}
    for hit in hits:
        answer, judge = asked.answers[hit.index], judges[hit.index]
        found, known = tuple[str, ...](), MIN_EVIDENCE
        if judge and (hit.bm25 or not answer.hybrid):  # meaning alone may find the words as well
            found, known = judge.matched(hit)
        cosine = hit.cosine if answer.live.fingerprint in asked.vectors else None
        relevance = answer.live.calibration.relevance(*((1.0, 4.0) if hit.exact else (cosine, known)))
        judged.append(replace(hit, matched=found if answer.hybrid else (), relevance=round(relevance, 3)))
    return judged


def collapsed(hits: Iterable[SearchHit], by: str) -> list[SearchHit]:
    """Return the hits without those that repeat a better one, which says in `folded` how many it stands for.

    `by` is a payload field with equal values, or `BY_TEXT` for equal texts, whatever their spaces and capitals. A hit
    that does not have the field stands for itself.
    """
    kept: dict[Any, SearchHit] = {}
    for hit in hits:
        value = " ".join(hit.text.split()).casefold() if by == BY_TEXT else _value_of(hit.payload, by)
        key = (hit.index, hit.document_id) if value is None else repr(value)
        kept[key] = replace(kept[key], folded=kept[key].folded + 1) if key in kept else hit
    return list(kept.values())


def _value_of(payload: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field; dots lead into the columns of a join or a part. None if there is none."""
    if field in payload:
        return payload[field]
    name, _, inner = field.partition(".")
    return _value_of(payload[name], inner) if inner and isinstance(payload.get(name), dict) else None
