"""Fusion: points become documents, and the documents of several indexes become one list.

A chunk of a **hybrid** search has two scores, the cosine c and the BM25 score b, which become one: a·c + (1 - a)·b / B,
where B is the best BM25 score that the query has in any of the indexes asked, and a is `[retrieve] dense_weight`. Such
a convex combination orders better than reciprocal ranks do (Bruch, Gai and Ingber: An Analysis of Fusion Functions for
Hybrid Retrieval, ACM TOIS 42, 2023), and as B is one number for all indexes, so do the scores of different indexes. The
best candidates by this score are read. Their soft match s (`soft_match.py`) is added with a weight w, and the sum
divided by 1 + w, so that a score is at most about 1. With a of 0 or 1, only words or only meaning count.

The weight a is for an embedder that knows the texts. One that does not would move noise before what the words find. It
shows: none of the ten best chunks by words is among its 25 best. Then a is lowered (`trusted_weight`). With random
vectors and thousands of chunks, that is the case in nearly every search; otherwise in few.

There are two ways to fuse indexes. **Reciprocal rank** (Cormack, Clarke and Büttcher: Reciprocal Rank Fusion
outperforms Condorcet and individual Rank Learning Methods, SIGIR 2009): a document at rank r of a list, counted from 1,
scores 1 / (k + r) there, and the sum over all lists orders the documents, with k = 60 as in the paper. It looks at
ranks alone, so it works whatever the scores mean. **Score**: the score itself, which is comparable only among vectors
of one model, if all the indexes are searched in the same way.

A document is in one index. So reciprocal rank puts the first hit of each index first, then the second of each, and so
on. Sorting is stable: equal hits keep the order in which the indexes were asked, and their ranks within an index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, islice, takewhile
from itertools import count as counted
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.layout import LINK, PART, TITLE
from rag_index.errors import RagIndexError, SearchFailed, SearchTimedOut, SettingsError
from rag_index.retrieve.results import ChunkHit, SearchHit
from rag_index.retrieve.soft_match import WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.question import IndexAnswer, Question

K = 60
MAX_CHUNKS = 3
"""Chunks that a hit holds, if it has so many."""
MAX_SHORT_CHUNKS, SHORT_CHARS = 5, 2000
"""Chunks that a hit holds if they have no more characters together: the answer to a ticket is seldom like the question,
and stands in one of its remarks."""

DISTRUST = 0.15
"""The share of the weight of meaning that is left where meaning and words agree about no chunk."""
NAME_WEIGHT = 0.4
"""The weight of meaning at most in a search of source code for a name: words know its definition."""
MORE = 4
"""How many times as many are read in each further round."""

BEST_BY_WORDS, BEST_BY_MEANING = 10, 25
"""The chunks of which at least one is expected to be in both. Random vectors have one in a quarter of all searches of
a thousand chunks, and in a fortieth of those of ten thousand."""


def by_rank(lists: Iterable[Sequence[SearchHit]], *, limit: int) -> list[SearchHit]:
    """Fuse by reciprocal rank: `fused` is 1 / (60 + rank)."""
    best = sorted((hit for hits in lists for hit in hits), key=lambda hit: hit.rank)[:limit]
    return [replace(hit, fused=1 / (K + hit.rank)) for hit in best]


def by_score(lists: Iterable[Sequence[SearchHit]], *, limit: int) -> list[SearchHit]:
    """Fuse by score: `fused` is the score. All lists must come from one model."""
    best = sorted((hit for hits in lists for hit in hits), key=lambda hit: -hit.score)[:limit]
    return [replace(hit, fused=hit.score) for hit in best]


@dataclass(frozen=True, slots=True)
class Scoring:
    """The one score of a chunk's two. `best_bm25` is the best BM25 score of all candidates; 0 if none has a word."""

    dense_weight: float = 1.0
    best_bm25: float = 0.0

    def scores(self, points: Iterable[StoredPoint]) -> list[float]:
        """Return the score of each point, from -1 to about 1: of cosine, BM25 score, and soft match if it has it."""
        if self.dense_weight == 1:
            return [point.score for point in points]
        best, meaning, words = self.best_bm25 or 1.0, self.dense_weight, 1 - self.dense_weight
        soft = WEIGHT if meaning else 0.0
        return [
            (meaning * point.score + words * (point.bm25 / best) + soft * point.soft) / (1 + soft) for point in points
        ]


BY_MEANING = Scoring()


def trusted_weight(points: Sequence[StoredPoint], dense_weight: float) -> float:
    """Return the weight of meaning, lowered if meaning and words agree about no chunk.

    `points` are the candidates of all indexes of one model, with both scores.
    """
    orders = [(-point.bm25, -point.score, place) for place, point in enumerate(points)]
    worded = {place for bm25, _, place in sorted(orders)[:BEST_BY_WORDS] if bm25 < 0}
    near = sorted((score, place) for _, score, place in orders)[:BEST_BY_MEANING]
    return dense_weight * DISTRUST if worded and worded.isdisjoint(place for _, place in near) else dense_weight


def document_hits(
    index: str, points: Sequence[StoredPoint], scoring: Scoring = BY_MEANING, *, limit: int | None = None
) -> list[SearchHit]:
    """Group the points of one index by document. Return each document once, best first, with its best chunks.

    At most `limit` documents are returned.

    Points with equal scores are ordered by cosine, then by document and chunk number, so that the result does not
    depend on the order in which a store returns them.
    """
    points_by_document: dict[str, list[tuple[float, StoredPoint]]] = {}
    scored = zip(scoring.scores(points), points, strict=True)
    for score, point in sorted(scored, key=_sort_key):
        points_by_document.setdefault(_document_key(point), []).append((score, point))
    best = islice(points_by_document.values(), limit)
    return [_hit(index, rank, found) for rank, found in enumerate(best, 1)]


def count_documents(points: Iterable[StoredPoint]) -> int:
    """Return the number of documents that these points are chunks of."""
    return len({_document_key(point) for point in points})


def _sort_key(scored: tuple[float, StoredPoint]) -> tuple[float, float, str, int]:
    score, point = scored
    ours = point.payload.get(RESERVED_KEY, {})
    return -score, -point.score, str(ours.get("key", point.id)), ours.get("chunk", 0)


def _document_key(point: StoredPoint) -> str:
    return str(point.payload.get(RESERVED_KEY, {}).get("key", point.id))


def _hit(index: str, rank: int, scored: Sequence[tuple[float, StoredPoint]]) -> SearchHit:
    score, best = scored[0]
    ours = best.payload.get(RESERVED_KEY, {})
    return SearchHit(
        index,
        str(ours.get("document_id", best.id)),
        score,
        rank,
        ours.get("text", ""),
        {name: value for name, value in best.payload.items() if name != RESERVED_KEY},
        _best_chunks([_chunk(score, point) for score, point in scored[:MAX_SHORT_CHUNKS]]),
        cosine=best.score,
        bm25=best.bm25,
        soft=best.soft,
        title=ours.get(TITLE, ""),
        link=ours.get(LINK, ""),
        part=ours.get(PART, {}),
        total_chunks=ours.get("chunks", 1),
    )


def _best_chunks(chunks: Sequence[ChunkHit]) -> tuple[ChunkHit, ...]:
    together = accumulate(len(chunk.text) for chunk in chunks)
    kept = sum(number < MAX_CHUNKS or chars <= SHORT_CHARS for number, chars in enumerate(together))
    return tuple(chunks[:kept])


def _chunk(score: float, point: StoredPoint) -> ChunkHit:
    ours = point.payload.get(RESERVED_KEY, {})
    return ChunkHit(ours.get("chunk", 0), score, ours.get("text", ""))


@dataclass(frozen=True, slots=True)
class Ordered:
    """The hits of all indexes, best first, and what they are ordered by: score or rank.

    `dense_weight` is the weight of meaning that the scores have: see `fusion.trusted_weight`. It is 1 if words were not
    searched for, and the lowest if there are several models.
    """

    hits: list[SearchHit]
    fusion: str
    dense_weight: float


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


def scorings(answered: Sequence[IndexAnswer], question: Question) -> dict[str, Scoring]:
    """Return by index how the two scores of each of its candidates become one."""
    best = max([point.bm25 for answer in answered for point in answer.points], default=0.0)
    weights = _weights(answered, question)
    return {answer.index: Scoring(weights.get(_model(answer), 1.0), best) for answer in answered}


def best_candidates(
    answered: Sequence[IndexAnswer], question: Question, fusion: str, scoring: Mapping[str, Scoring]
) -> dict[str, list[StoredPoint]]:
    """Return the candidates by index that a search would read and compare by soft match. Raises as `order_answers`.

    Those of indexes whose scores can be compared are in one order.
    """
    groups = [answered] if compares_scores(answered, fusion) else [[answer] for answer in answered]
    found: dict[str, list[StoredPoint]] = {}
    for group in groups:
        count = question.read
        total = sum(len(answer.points) for answer in group)
        while True:
            best = best_points(group, scoring, count)
            if count >= total or sum(map(count_documents, best.values())) >= question.limit:
                break
            count *= MORE
        found |= best
    return found


def best_points(
    answers: Sequence[IndexAnswer], scoring: Mapping[str, Scoring], count: int
) -> dict[str, list[StoredPoint]]:
    """Return the `count` best candidates of these indexes before soft match, and those that equal the last of them."""
    number = counted()  # so that points are never compared
    ordered = sorted(
        (-score, -point.score, place, next(number), point)
        for place, answer in enumerate(answers)
        for point in answer.points
        for score in scoring[answer.index].scores([replace(point, soft=0.0) if point.soft else point])
    )
    found: dict[str, list[StoredPoint]] = {answer.index: [] for answer in answers}
    last = ordered[count - 1 : count]
    equal = takewhile(lambda one: one[:2] == last[0][:2], ordered[count:])
    for _, _, place, _, point in [*ordered[:count], *equal]:
        found[answers[place].index].append(point)
    return found


def order_answers(
    answered: Sequence[IndexAnswer], question: Question, fusion: str, scoring: Mapping[str, Scoring]
) -> Ordered:
    """Return the best hits of all indexes that answered, fused by score or by rank. Raises as `compares_scores`.

    `scoring` is that of all candidates; the answers may have only the best of them.
    """
    together = compares_scores(answered, fusion)
    lists = [
        document_hits(answer.index, answer.points, scoring[answer.index], limit=question.limit) for answer in answered
    ]
    hits = (by_score if together else by_rank)(lists, limit=question.limit)
    weight = min((scoring[answer.index].dense_weight for answer in answered), default=1.0)
    return Ordered(hits, "score" if together else "rank", weight)


def _weights(answered: Sequence[IndexAnswer], question: Question) -> dict[str, float]:
    """Return the weight of meaning by model, for the indexes that were searched by words too."""
    code = all(answer.live and answer.live.bm25 and answer.live.bm25.identifiers for answer in answered)
    weight = min(question.dense_weight, NAME_WEIGHT) if question.name and code else question.dense_weight
    points: dict[str, list[StoredPoint]] = {}
    for answer in answered:
        if answer.hybrid:
            points.setdefault(_model(answer), []).extend(answer.points)
    return {model: trusted_weight(found, weight) for model, found in points.items()}


def _model(answer: IndexAnswer) -> str:
    return answer.live.fingerprint if answer.live and answer.hybrid else ""


def failure_of(answers: Sequence[IndexAnswer]) -> Exception:
    """Return the error that all indexes have in common, or else one with the reasons of all."""
    errors = [answer.error for answer in answers if answer.error is not None]
    if len({(type(error), str(error)) for error in errors}) == 1 and not isinstance(errors[0], SearchTimedOut):
        return errors[0]
    reasons = {answer.index: str(answer.error) for answer in answers}
    codes = {error.exit_code for error in errors if isinstance(error, RagIndexError)}
    all_reasons = "; ".join(f"{index}: {reason}" for index, reason in reasons.items())
    return SearchFailed(f"no index answered: {all_reasons}", reasons, codes.pop() if len(codes) == 1 else 1)
