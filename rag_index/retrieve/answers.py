"""The answers of several indexes, made into the hits of one search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_index.embedders.bm25 import Bm25Encoder, names_of
from rag_index.errors import RagIndexError, SearchFailed, SearchTimedOut, SettingsError
from rag_index.retrieve.fusion import Scoring, by_rank, by_score, document_hits, trusted_weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.question import IndexAnswer, Question
    from rag_index.retrieve.results import SearchHit


@dataclass(frozen=True, slots=True)
class Ordered:
    """The hits of all indexes, best first, and what they are ordered by: score or rank.

    `dense_weight` is the weight of meaning that the scores have: see `fusion.trusted_weight`. It is 1 if words were not
    searched for, and the lowest if there are several models.
    """

    hits: list[SearchHit]
    fusion: str
    dense_weight: float


def fuse_answers(
    answered: Sequence[IndexAnswer], question: Question, fusion: str, scoring: Mapping[str, Scoring]
) -> Ordered:
    """Return what `order_answers` does, and in each hit the words of the query that it has. Raises as that."""
    ordered = order_answers(answered, question, fusion, scoring)
    return replace(ordered, hits=_with_matches(ordered.hits, answered, question.text))


def compares_scores(answered: Sequence[IndexAnswer], fusion: str) -> bool:
    """Return whether the hits of these indexes are fused by score, and not by rank.

    Scores of different models cannot be compared, and those of an index that was searched by words too cannot be
    compared with those of one that was not. `auto` then fuses by rank: each index orders its own hits, and takes turns
    with the others. Raises SettingsError if `fusion` is "score" nevertheless.
    """
    models = {answer.live.fingerprint: answer.live.embedder for answer in answered if answer.live}
    comparable = len(models) <= 1 and len({answer.hybrid for answer in answered}) <= 1
    if fusion == "score" and not comparable:
        if len(models) > 1:
            raise SettingsError(
                f"scores of different models cannot be compared ({'; '.join(models.values())}): fuse by rank"
            )
        raise SettingsError(
            "scores of indexes that are searched by words too cannot be compared with those of others: fuse by rank"
        )
    return fusion == "score" or (fusion == "auto" and comparable)


def scorings(answered: Sequence[IndexAnswer], dense_weight: float) -> dict[str, Scoring]:
    """Return by index how the two scores of each of its candidates become one."""
    best = max((point.bm25 for answer in answered for point in answer.points), default=0.0)
    weights = _weights(answered, dense_weight)
    return {answer.index: Scoring(weights.get(_model(answer), 1.0), best) for answer in answered}


def order_answers(
    answered: Sequence[IndexAnswer], question: Question, fusion: str, scoring: Mapping[str, Scoring] | None = None
) -> Ordered:
    """Return the best hits of all indexes that answered, fused by score or by rank. Raises as `compares_scores`.

    `scoring` is that of all candidates, if the answers have only the best of them.
    """
    together = compares_scores(answered, fusion)
    scoring = scorings(answered, question.dense_weight) if scoring is None else scoring
    lists = [
        document_hits(answer.index, answer.points, scoring[answer.index], limit=question.limit) for answer in answered
    ]
    hits = (by_score if together else by_rank)(lists, limit=question.limit)
    weight = min((scoring[answer.index].dense_weight for answer in answered), default=1.0)
    return Ordered(hits, "score" if together else "rank", weight)


def _weights(answered: Sequence[IndexAnswer], dense_weight: float) -> dict[str, float]:
    """Return the weight of meaning by model, for the indexes that were searched by words too."""
    points: dict[str, list[StoredPoint]] = {}
    for answer in answered:
        if answer.hybrid:
            points.setdefault(_model(answer), []).extend(answer.points)
    return {model: trusted_weight(found, dense_weight) for model, found in points.items()}


def _model(answer: IndexAnswer) -> str:
    return answer.live.fingerprint if answer.live and answer.hybrid else ""


def _with_matches(hits: list[SearchHit], answered: Sequence[IndexAnswer], query: str) -> list[SearchHit]:
    """Return the hits with the words of the query that each of them has."""
    encoders = {
        answer.index: Bm25Encoder(answer.live.bm25)
        for answer in answered
        if answer.hybrid and answer.live and answer.live.bm25
    }
    words = {index: encoder.words(query) for index, encoder in encoders.items()}
    return [
        replace(hit, matched=encoders[hit.index].matched(words[hit.index], f"{names_of(hit.payload)}\n{hit.text}"))
        if hit.index in encoders and hit.bm25
        else hit
        for hit in hits
    ]


def failure_of(answers: Sequence[IndexAnswer]) -> Exception:
    """Return the error that all indexes have in common, or else one with the reasons of all."""
    errors = [answer.error for answer in answers if answer.error is not None]
    if len({(type(error), str(error)) for error in errors}) == 1 and not isinstance(errors[0], SearchTimedOut):
        return errors[0]
    reasons = {answer.index: str(answer.error) for answer in answers}
    codes = {error.exit_code for error in errors if isinstance(error, RagIndexError)}
    all_reasons = "; ".join(f"{index}: {reason}" for index, reason in reasons.items())
    return SearchFailed(f"no index answered: {all_reasons}", reasons, codes.pop() if len(codes) == 1 else 1)
