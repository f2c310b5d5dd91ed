"""Fusion: points become documents, and the documents of several indexes become one list.

A chunk of a **hybrid** search has two scores, the cosine c and the BM25 score b, which become one:
a·c + (1 - a)·b / B, where B is the best BM25 score that the query has in any of the indexes asked,
and a is `[retrieve] dense_weight`. Such a convex combination orders better than reciprocal ranks do
(Bruch, Gai and Ingber: An Analysis of Fusion Functions for Hybrid Retrieval, ACM TOIS 42, 2023),
and as B is one number for all indexes, so do the scores of different indexes. The best candidates
by this score are read. Their soft match s (`soft_match.py`) is added with a weight w, and the sum
divided by 1 + w, so that a score is at most about 1. With a of 0 or 1, only words or only meaning
count.

The weight a is for an embedder that knows the texts. One that does not would move noise before what
the words find. It shows: for most of the collection's own texts, none of the ten best chunks by
words is among its 25 best (`agree`). Then a is lowered in all searches of the collection.

There are two ways to fuse indexes. **Reciprocal rank** (Cormack, Clarke and Büttcher: Reciprocal
Rank Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR 2009): a document at
rank r of a list, counted from 1, scores 1 / (k + r) there, and the sum over all lists orders the
documents, with k = 60 as in the paper. It looks at ranks alone, so it works whatever the scores
mean. **Score**: the score itself, which is comparable only among vectors of one model, if all the
indexes are searched in the same way.

A document is in one index. So reciprocal rank puts the first hit of each index first, then the
second of each, and so on. Sorting is stable: equal hits keep the order in which the indexes were
asked, and their ranks within an index.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import time
from dataclasses import replace
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rag_index.core.documents.batches import LINK, PART, RESERVED_KEY, TITLE, StoredPoint
from rag_index.errors import RagIndexError, SearchFailed, SearchTimedOut
from rag_index.search.question import CHUNKS_PER_DOCUMENT, Asked, IndexAnswer, Question, Scoring
from rag_index.search.results import ChunkHit, SearchHit, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Scored = tuple[float, StoredPoint]
    Tier = tuple[bool, int, bool]
    from rag_index.core.settings.sections import RecencySettings

RANK_CONSTANT = 60
MAX_HIT_CHUNKS = 3
"""The chunks that a hit holds at most."""
MAX_SHORT_CHUNKS, SHORT_CHARS = 12, 2000
"""Chunks that a hit holds if they have no more characters together: the answer to a ticket is
seldom like the question, and stands in one of its remarks, as what one looks for in a recipe stands
in one of its steps."""

DISTRUST = 0.15
"""The share of the weight of meaning that is left where meaning and words agree about few of a
collection's texts."""
NAME_WEIGHT = 0.4
"""The weight of meaning at most in a search of source code for a name: words know its
definition."""
MIN_READ, MIN_READ_OF_PHRASE, READ_GROWTH = 50, 400, 4
"""Candidates read at least and compared by soft match, and how many times as many in each further
round."""
READ_BY_WORDS = 10
"""The best candidates by words that are read besides: where meaning weighs nine tenths, they may
stand far behind."""

MAX_SOFT, MIN_SOFT, SOFT_WORDS = 0.7, 0.3, 5.0
"""The weight of soft match beside the 1 that meaning and words share, which falls for queries of
more words."""

BEST_BY_WORDS, BEST_BY_MEANING = 10, 25
"""How many of the best chunks by words and by meaning have at least one in common. Random vectors
do so in a quarter of all searches of a thousand chunks, and in a fortieth of those of ten
thousand."""
SHARE = 0.1
"""The share of its score by which a document of today is lifted."""
MAX_SECONDS = 1e11
"""Greater numbers are milliseconds since 1970, or microseconds or nanoseconds: a time in one unit
is far from any in another."""
NUMBER = re.compile(r"(?!\d{8}$)-?\d{1,20}(\.\d{1,9})?")
"""A number in a text. Eight digits are a date."""


def score_of(point: StoredPoint, scoring: Scoring, *, soft: bool = True) -> float:
    """Return the score of a point, from -1 to about 1. Those that have no vector are ordered by
    their words alone.

    There is 1 more if one of its names is the query, and for each rare name of the query that it
    has.
    """
    if scoring.dense_weight == 1:
        return point.score
    words = point.bm25 / (scoring.best_bm25 or 1.0)
    score = scoring.dense_weight * point.score + (1 - scoring.dense_weight) * words
    weight = scoring.soft_weight if scoring.dense_weight else 0.0
    like = words if point.by_words else point.soft
    return (score + weight * (like if soft else 0.0)) / (1 + weight) + point.exact + point.names


def tier_of(point: StoredPoint, scoring: Scoring) -> Tier:
    """Return what orders points before their scores do: whether the query is their key or title,
    how many rare names of the query they have, and whether they have all of its rare plain words.
    By meaning alone, nothing does."""
    if scoring.dense_weight == 1:
        return False, 0, False
    return point.exact, point.names, point.has_words


def _place_of(point: StoredPoint, scoring: Scoring) -> tuple[Tier, float, float]:
    """Return what orders a candidate before its text is read."""
    return tier_of(point, scoring), score_of(point, scoring, soft=False), point.score


def agree(near: Sequence[StoredPoint], worded: Sequence[StoredPoint]) -> bool:
    """Return whether meaning and words agree about any chunk: those found by each are given, the
    best first."""
    best_by_words = {point.id for point in worded[:BEST_BY_WORDS]}
    return not best_by_words.isdisjoint(point.id for point in near[:BEST_BY_MEANING])


def compares_scores(answered: Sequence[IndexAnswer]) -> bool:
    """Return whether the hits of these indexes are fused by score, and not by rank.

    Scores of different models cannot be compared, and those of an index that was searched by words
    too cannot be compared with those of one that was not. Then each index orders its own hits, and
    takes turns with the others.
    """
    return len({(answer.live.fingerprint, answer.hybrid) for answer in answered}) <= 1


def scorings(answered: Sequence[IndexAnswer], question: Question) -> dict[str, Scoring]:
    """Return by index how the two scores of each of its candidates become one."""
    best = max([point.bm25 for answer in answered for point in answer.points], default=0.0)
    code = all(answer.live.encoder and answer.live.encoder.model.identifiers for answer in answered)
    most = NAME_WEIGHT if question.name and code else 1.0
    distrusts = any(answer.hybrid and not answer.live.calibration.trusted for answer in answered)
    share = DISTRUST if distrusts else 1.0  # one scale for all
    words = max([len(one.words) for one in answered if one.hybrid], default=0)
    # Beside a long query, its parts say less.
    soft = min(MAX_SOFT, max(MIN_SOFT, SOFT_WORDS / max(1, words)))
    if not (best or all(answer.live.english_alone for answer in answered)):
        # No word is there: the query may be in another language, whose words are like English
        # ones by chance.
        soft = 0.0
    weights = {
        answer.index: share * min(most, dense_weight(answer, question)) for answer in answered
    }
    return {
        one.index: Scoring(weights[one.index] if one.hybrid else 1.0, best, soft)
        for one in answered
    }


def dense_weight(answer: IndexAnswer, question: Question) -> float:
    """Return the weight of meaning that was asked for; else the one that fits the model of the live
    collection."""
    return answer.live.dense_weight if question.dense_weight is None else question.dense_weight


def best_candidates(
    answered: Sequence[IndexAnswer], question: Question, scoring: Mapping[str, Scoring]
) -> tuple[dict[str, list[StoredPoint]], set[str]]:
    """Return the candidates by index that a search would read and compare by soft match.

    With them come the indexes whose candidates, together with all that theirs are compared with,
    belong to fewer documents than are asked for.
    """
    best: dict[str, list[StoredPoint]] = {answer.index: [] for answer in answered}
    short: set[str] = set()
    for group in (
        [answered] if answered and compares_scores(answered) else [[answer] for answer in answered]
    ):
        scored = [
            (_place_of(point, scoring[answer.index]), answer.index, point)
            for answer in group
            for point in answer.points
        ]
        scored.sort(key=itemgetter(0), reverse=True)
        count = max(
            MIN_READ_OF_PHRASE if question.phrases else MIN_READ,
            question.limit * CHUNKS_PER_DOCUMENT,
        )
        while True:
            end = count
            while end < len(scored) and scored[end][0] == scored[count - 1][0]:
                end += 1
            documents = {(index, document_key(point)) for _, index, point in scored[:end]}
            if len(documents) >= question.limit or end >= len(scored):
                break
            count *= READ_GROWTH
        for _, index, point in scored[:end]:
            best[index].append(point)
        for index, point in _best_by_words(scored, end):
            best[index].append(point)
        if len(documents) < question.limit:
            short.update(answer.index for answer in group)
    return best, short


def _best_by_words(
    scored: Sequence[tuple[Any, str, StoredPoint]], end: int
) -> list[tuple[str, StoredPoint]]:
    """Return the candidates that are among the `READ_BY_WORDS` best by words, and not among the
    first `end`.

    Of equals at the last place, the better candidates are taken.
    """
    numbered = [number for number, (_, _, point) in enumerate(scored) if point.bm25 > 0]
    numbered.sort(key=lambda number: -scored[number][2].bm25)
    return [scored[number][1:] for number in numbered[:READ_BY_WORDS] if number >= end]


def order_answers(
    answered: Sequence[IndexAnswer],
    question: Question,
    scoring: Mapping[str, Scoring],
    known: Sequence[SearchHit] = (),
) -> list[SearchHit]:
    """Return the best hits of all indexes that answered, best first, to follow those that are
    `known`.

    `scoring` is that of all candidates; the answers may have only the best of them. Where the
    database says who may see a document, only the first `limit` are sure to come in this order,
    whatever the caller may not see.
    """
    by_score, keys = compares_scores(answered), {(hit.index, hit.key) for hit in known}
    documents = [
        (
            (
                tier_of(found[0][1], scoring[answer.index]),
                found[0][0] if by_score else 1 / (RANK_CONSTANT + rank),
            ),
            answer,
            rank,
            found,
        )
        for answer in answered
        for rank, found in enumerate(_documents(answer, scoring[answer.index]), 1)
    ]
    documents.sort(key=itemgetter(0), reverse=True)
    if any(answer.asks for answer in answered):
        del documents[question.limit :]
    new = [one for one in documents if (one[1].index, document_key(one[3][0][1])) not in keys]
    wanted = max(0, (question.hits or question.limit) - len(known))
    return [_hit(answer, rank, found, fused) for (_, fused), answer, rank, found in new[:wanted]]


def ranked(
    asked: Asked, weight: float | None = None, indexes: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Return index and document id of each hit of a search of these indexes (default: all), best
    first.

    The answers must be those of `Retriever.candidates`, and `weight` is that of meaning. Without
    one, it is a search that leaves the weight to the settings.
    """
    question = asked.question
    if weight is not None:
        question = replace(question, dense_weight=weight, name=False)
    chosen = [
        replace(answer, hybrid=answer.hybrid and question.dense_weight != 1)
        for answer in asked.answered
        if indexes is None or answer.index in indexes
    ]
    scoring = scorings(chosen, question)
    best, _ = best_candidates(chosen, question, scoring)
    chosen = [replace(answer, points=best[answer.index]) for answer in chosen]
    hits = order_answers(chosen, question, scoring)
    return [(hit.index, hit.document_id) for hit in hits]


def _documents(answer: IndexAnswer, scoring: Scoring) -> Iterable[list[Scored]]:
    """Return the scored points of the documents of an index, of the best document and point first.

    Points with equal scores are ordered by cosine, then by document and chunk number, so that the
    result does not depend on the order in which a store returns them.
    """
    scored = []
    for point in answer.points:
        chunk = point.payload.get(RESERVED_KEY, {}).get("chunk", 0)
        score = score_of(point, scoring)
        if answer.recency:
            point.recency = freshness(answer.recency, point.payload)
            score += SHARE * point.recency * max(0.0, score - point.exact - point.names)
        scored.append((document_key(point), chunk, score, point))
    # Two stable sorts: first what breaks ties, then tiers, scores and cosines, the greatest first.
    scored.sort(key=itemgetter(0, 1))
    scored.sort(key=lambda one: (tier_of(one[3], scoring), one[2], one[3].score), reverse=True)
    by_document: dict[str, list[Scored]] = {}
    for key, _, score, point in scored:
        by_document.setdefault(key, []).append((score, point))
    return by_document.values()


def document_key(point: StoredPoint) -> str:
    """Return the typed key of the document that a point is a chunk of; the point's id if its
    payload was not read."""
    return str(point.payload.get(RESERVED_KEY, {}).get("key", point.id))


def _shown_first(answer: IndexAnswer, scored: Sequence[Scored]) -> tuple[Sequence[Scored], bool]:
    """Return the scored points of a document, first the one whose text is shown, and whether that
    has query words.

    The title of a document stands before each of its chunks, so that the shortest part is the
    nearest to a query that is like the title, whatever the part says. So of a document with a
    title, the best chunk is shown with most names or, if none has a name, some words of the query
    in its own text; its first chunk, if none has any.
    """
    ours = [point.payload.get(RESERVED_KEY, {}) for _, point in scored]
    if ours[0].get("chunks", 1) < 2 or not ours[0].get(TITLE) or not answer.live.encoder:
        return scored, True
    texts = answer.reads(str(one.get("text", "")) for one in ours)
    found = answer.live.encoder.matched(answer.words, texts)
    said = [(point.names, bool(words)) for (_, point), words in zip(scored, found, strict=True)]
    best = (
        said.index(max(said))
        if any(map(any, said))
        else min(range(len(ours)), key=lambda n: ours[n].get("chunk", 0))
    )
    return [scored[best], *(one for one in scored if one is not scored[best])], any(map(any, said))


def _hit(answer: IndexAnswer, rank: int, scored: Sequence[Scored], fused: float) -> SearchHit:
    score, best = scored[0]
    scored, has_words = _shown_first(answer, scored)
    shown = scored[0][1].payload
    ours = shown.get(RESERVED_KEY, {})
    best_chunks = [
        (value, point.payload.get(RESERVED_KEY, {})) for value, point in scored[:MAX_SHORT_CHUNKS]
    ]
    chunks = [
        ChunkHit(own.get("chunk", 0), value, own.get("text", "")) for value, own in best_chunks
    ]
    together = accumulate(len(chunk.text) for chunk in chunks)
    kept = sum(
        number < MAX_HIT_CHUNKS or chars <= SHORT_CHARS for number, chars in enumerate(together)
    )
    return SearchHit(
        index=answer.index,
        document_id=str(ours.get("document_id", best.id)),
        citation="",  # until it is known what the answer is true of
        score=score,
        relevance=0.0,
        text=chunks[0].text,
        chunk=chunks[0].chunk,
        total_chunks=ours.get("chunks", 1),
        payload={name: value for name, value in shown.items() if name != RESERVED_KEY},
        title=ours.get(TITLE, ""),
        link=ours.get(LINK, ""),
        part=ours.get(PART, {}),
        rank=rank,
        fused=fused,
        cosine=best.score,
        bm25=best.bm25,
        soft=best.soft,
        chunks=tuple(chunks[:kept]),
        exact=best.exact,
        names=best.names,
        recency=best.recency if answer.recency else None,
        key=document_key(best),
        by_title=not has_words,
        text_hash=ours.get("text_hash", ""),
        by_words=best.by_words,
    )


def with_texts(
    hits: Iterable[SearchHit], answer: IndexAnswer, points: Iterable[StoredPoint]
) -> list[SearchHit]:
    """Return the hits; those of this index that are known by their title alone show the best of
    these points."""
    others: dict[str, list[Scored]] = {}
    for point in points:
        others.setdefault(document_key(point), []).append((0.0, point))
    found = []
    for hit in hits:
        scored = others.get(hit.key) if hit.by_title and hit.index == answer.index else None
        if scored and answer.live.encoder:
            shown = _shown_first(answer, scored)[0][0][1].payload
            ours, text = (
                shown.get(RESERVED_KEY, {}),
                str(shown.get(RESERVED_KEY, {}).get("text", "")),
            )
            marks = answer.live.encoder.highlights(answer.all_words, f"{hit.title}\n{text}")
            payload = {name: value for name, value in shown.items() if name != RESERVED_KEY}
            place = {"chunk": ours.get("chunk", 0), "part": ours.get(PART, {}), "payload": payload}
            found.append(replace(hit, text=text, highlights=marks, **place))
        else:
            found.append(hit)
    return found


def failure_of(asked: Asked) -> Exception:
    """Return the error that all indexes have in common, or else one with the reasons of all."""
    errors = [asked.errors[index] for index in asked.indexes if index in asked.errors]
    if len({(type(error), str(error)) for error in errors}) == 1 and not isinstance(
        errors[0], SearchTimedOut
    ):
        return errors[0]
    reasons = asked.reasons
    codes = {error.exit_code for error in errors if isinstance(error, RagIndexError)}
    all_reasons = "; ".join(f"{index}: {reason}" for index, reason in reasons.items())
    late = all(isinstance(error, SearchTimedOut) for error in errors)
    return SearchFailed(
        f"no index answered: {all_reasons}", reasons, codes.pop() if len(codes) == 1 else 1, late
    )


def freshness(recency: RecencySettings, payload: Mapping[str, Any]) -> float:
    """Return 1 for a document of now, 0.5 for one of the age of the half-life, and 0 for one
    without a time."""
    value = value_of(payload, recency.field)
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    moment = moment_of(value)
    return (
        0.0 if moment is None else math.pow(0.5, max(0.0, time.time() - moment) / recency.seconds)
    )


def moment_of(value: Any) -> float | None:
    """Return the time of a payload's value in seconds since 1970; None if it is none. Without a
    zone, it is UTC."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / next(
            (unit for unit in (1, 1e3, 1e6) if abs(value) <= MAX_SECONDS * unit), 1e9
        )
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def in_order(hits: Iterable[SearchHit], order: str, fits: float) -> list[SearchHit]:
    """Return the hits that fit, in the order of a field, the greatest first if `order` begins with
    a minus.

    `fits` is the relevance from which a hit does. Those without a value come last. If none fits,
    all are returned.
    """
    field, down = order.removeprefix("-"), order.startswith("-")
    every = list(hits)
    fitting = [hit for hit in every if hit.relevance >= fits] or every
    valued = [
        (value, hit) for hit in fitting if (value := value_of(hit.payload, field)) is not None
    ]
    keys: list[Any] = [value for value, _ in valued]
    if not all(isinstance(value, int | float) for value in keys):
        moments = [moment_of(value) for value in keys]
        keys = [str(value).casefold() for value in keys] if None in moments else moments
    ordered = sorted(
        zip(keys, range(len(valued)), strict=True), key=lambda one: one[0], reverse=down
    )
    return [
        *(valued[place][1] for _, place in ordered),
        *(one for one in fitting if value_of(one.payload, field) is None),
    ]
