"""A calibrated score of hits, from 0 to 1, that means the same in every index: how likely a hit fits its query.

The score that orders hits cannot say that nothing fits: BM25 counts as a share of the query's best, so the best of a
nonsense query gets as much of it as the best of any other. Two things about a hit are absolute, its cosine and the
share of the query's words that it has. A logistic regression makes one number of them. Each collection has its own,
since every embedder has other cosines: it is learned from queries whose answer is known and from queries without one
(`rag_index.evaluation.nonsense`), and is recorded in the collection's metadata.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.embedders.bm25 import Bm25Encoder, key_words, names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.retrieve.question import Asked
    from rag_index.retrieve.results import SearchHit

FITS = 0.2
"""Nothing fits if no hit has this relevance. See docs/evaluation.md for how often that is wrong."""
STEPS = 30
RIDGE = 0.05
"""Keeps the weights finite where cosine or words alone tell every answer."""
BY_TEXT = "text"
"""The name by which hits of equal text are folded; any other is that of a payload field."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weights of a logistic regression."""

    bias: float
    cosine: float
    words: float

    def relevance(self, cosine: float, words: float) -> float:
        """Return the score of a hit with this cosine, and this share of the query's words, from 0 to 1."""
        return float(1 / (1 + np.exp(-(self.bias + self.cosine * cosine + self.words * words))))

    def to_metadata(self) -> dict[str, float]:
        """Return the weights as a collection's metadata record them."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, recorded: Any, *, words: bool) -> Calibration:
        """Return the recorded weights, or those that stand for a collection without, which may have `words` or not."""
        try:
            return cls(**recorded)
        except TypeError:
            return WITH_WORDS if words else WITHOUT_WORDS

    @classmethod
    def learn(cls, features: Sequence[tuple[float, float]], fits: Sequence[bool]) -> Calibration:
        """Fit the weights to hits, each with its cosine and its share of words, by Newton's method with a small ridge.

        A weight that would be negative counts nothing. Both kinds of hits weigh the same, however many there are.
        """
        x = np.column_stack([np.ones(len(features)), np.asarray(features, dtype=np.float64)])
        y = np.asarray(fits, dtype=np.float64)
        share = np.where(y == 1, 0.5 / max(1.0, y.sum()), 0.5 / max(1.0, (1 - y).sum())) * len(y)
        used = [0, 1, 2]
        while True:
            weights, some = np.zeros(3), x[:, used]
            ridge = np.diag([0.0] + [RIDGE] * (len(used) - 1))
            for _ in range(STEPS):
                p = 1 / (1 + np.exp(-np.clip(some @ weights[used], -30, 30)))
                slope = some.T @ (share * (p - y)) + ridge @ weights[used]
                curve = (some * (share * p * (1 - p))[:, None]).T @ some + ridge + 1e-9 * np.eye(len(used))
                weights[used] -= np.linalg.solve(curve, slope)
            negative = [column for column in used[1:] if weights[column] < 0]
            if not negative:
                return cls(*(round(float(weight), 4) for weight in weights))
            used.remove(min(negative, key=lambda column: float(weights[column])))


WITH_WORDS, WITHOUT_WORDS = Calibration(-5.0, 5.0, 5.0), Calibration(-3.0, 6.5, 0.0)
"""About what the local embedder learns from Python's documentation."""


def with_relevance(hits: Iterable[SearchHit], asked: Asked) -> list[SearchHit]:
    """Return the hits with their relevance, and with the words of the query that each has, if words were searched."""
    judged = []
    encoders = {one.index: Bm25Encoder(one.live.bm25) for one in asked.answered if one.live.bm25 is not None}
    for hit in hits:
        answer, encoder = asked.answers[hit.index], encoders.get(hit.index)
        found, share = tuple[str, ...](), 0.0
        if encoder and (hit.bm25 or not answer.hybrid):  # meaning alone may find the words as well
            words = encoder.words(asked.question.text)
            text = "\n".join([names_of(hit.payload), key_words(hit.document_id), hit.title, hit.text])
            found = encoder.matched(words, text)
            share = len(found) / len(words) if words else 0.0
        relevance = answer.live.calibration.relevance(hit.cosine, share)
        judged.append(replace(hit, matched=found if answer.hybrid else (), words=share, relevance=relevance))
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
