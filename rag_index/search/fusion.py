"""Fusion: points become documents, and the documents of several indexes become one list.

A chunk of a **hybrid** search has two scores, the cosine c and the BM25 score b, which become one:
a·c + (1 - a)·b / B. B is the best BM25 score of the query in any searched index, and a is
`[retrieve] dense_weight`. Such a convex combination orders better than reciprocal ranks do (Bruch,
Gai and Ingber: An Analysis of Fusion Functions for Hybrid Retrieval, ACM TOIS 42, 2023). As B is
one number for all indexes, their scores can be compared. The best candidates by this score are
read. Their soft match s (`soft_match.py`) is added with a weight w, and the sum divided by 1 + w,
so that a score without names is at most about 1. With an a of 0 or 1, only words or only meaning count.

The weight a is for an embedder that knows the texts. Another one would put noise before what the
words find. That is the case if, for most of the collection's own texts, none of the ten best chunks
by words is among the 25 best by meaning (`agree`). Then a is lowered in all searches of the
collection.

There are two ways to fuse indexes. **Reciprocal rank** (Cormack, Clarke and Büttcher: Reciprocal
Rank Fusion outperforms Condorcet and individual Rank Learning Methods, SIGIR 2009): a document at
rank r of a list, counted from 1, scores 1 / (k + r) there, and the sum over all lists orders the
documents, with k = 60 as in the paper. It uses ranks alone, so it works with any scores. **Score**:
the score itself, which can be compared only among vectors of one model, if all indexes are searched
in the same way.

A document is in one index. So reciprocal rank puts the first hit of each index first, then the
second of each, and so on. Sorting is stable: equal hits keep the order in which the indexes were
asked, and their ranks within an index.

Before its score, a **tier** orders a document (`tier_of`): whether the query is its key or title,
how many rare names of the query it has, and whether it has all rare plain words of the query.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from rag_index.core.documents.batches import LINK, PART, RESERVED_KEY, TITLE, StoredPoint
from rag_index.errors import RagIndexError, SearchFailed, SearchTimedOut, StoreBusy
from rag_index.search.question import CHUNKS_PER_DOCUMENT, Asked, IndexAnswer, Question, Scoring
from rag_index.search.results import ChunkHit, SearchHit, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.core.settings.sections import RecencySettings

RANK_CONSTANT = 60
"""The k of reciprocal rank fusion, from the paper."""
MAX_HIT_CHUNKS = 3
"""Chunks that a hit holds at most. Chosen."""
MAX_SHORT_CHUNKS = 12
"""Chunks that a hit holds at most if they are short: see `SHORT_CHARS`."""
SHORT_CHARS = 2000
"""Chunks are short if they have at most this many characters together. The answer to a ticket seldom
resembles the question: it is one of the ticket's comments, as the answer to a question about a
recipe is one of its steps. Chosen."""

UNTRUSTED_SHARE = 0.15
"""Share of the dense weight that remains if meaning and words agree about few of a collection's
texts. Chosen."""
NAME_WEIGHT = 0.4
"""Highest dense weight in a search of source code for a name, whose definition BM25 finds.
Chosen."""
MIN_READ = 50
"""Candidates that are read and compared by soft match at least. Chosen."""
MIN_READ_OF_PHRASE = 400
"""The same for a query with phrases in quotes. Chosen."""
READ_GROWTH = 4
"""Growth of the number of read candidates in each further round. Chosen."""
READ_BY_WORDS = 10
"""Best candidates by words that are read in addition. With a dense weight of 0.9, they may be far
down. Chosen."""

MAX_SOFT = 0.7
"""Weight of soft match, beside the 1 that meaning and words share, in a query of up to 7 words."""
MIN_SOFT = 0.3
"""The same in a query of 17 words and more, because each of its words tells less. Chosen."""
SOFT_WORDS = 5.0
"""The weight of soft match is this number divided by the number of words, between the two."""

BEST_BY_WORDS = 10
"""Chunks that `agree` compares with those of `BEST_BY_MEANING`."""
BEST_BY_MEANING = 25
"""Random vectors have a chunk in common with the 10 best by words in a quarter of all searches of a
thousand chunks, and in a fortieth of those of ten thousand."""
RECENCY_SHARE = 0.1
"""Share of its score by which a document of today is lifted. Chosen."""
MAX_SECONDS = 1e11
"""A greater number is no time in seconds since 1970, but in milliseconds, microseconds or
nanoseconds. The ranges of plausible times do not overlap."""
NUMBER = re.compile(r"(?!\d{8}$)-?\d{1,20}(\.\d{1,9})?")
"""A number in a text. Eight digits are a date, such as 20260131."""


class Tier(NamedTuple):
    """The order of points before their scores count, greatest first."""

    exact: bool = False
    """The query is the key or the title."""
    names: int = 0
    """How many rare names of the query it has."""
    has_words: bool = False
    """It has all rare plain words of the query."""


NO_TIER = Tier()


Place = tuple[Tier, float, float]
"""The order of a point, greatest first: its tier, its score and its cosine. It is a plain tuple, as
thousands are made and sorted in a search."""


@dataclass(slots=True)
class ComparedPoint:
    """A point of one of several indexes that are compared with each other."""

    place: Place
    index: str
    point: StoredPoint


@dataclass(slots=True)
class ScoredPoint:
    """A point with its fused score, and what orders points of equal scores."""

    point: StoredPoint
    score: float
    place: Place
    key: str
    chunk: int


@dataclass(slots=True)
class RankedDocument:
    """A document of an answer."""

    answer: IndexAnswer
    rank: int
    """Its rank within its index, counted from 1."""
    points: Sequence[ScoredPoint]
    """Its points, best first."""
    fused: float
    """The score or reciprocal rank that orders it within its tier."""

    @property
    def order(self) -> tuple[Tier, float]:
        """The order among the documents of all indexes, greatest first."""
        return self.points[0].place[0], self.fused


def score_of(point: StoredPoint, scoring: Scoring, *, soft: bool = True) -> float:
    """Return the fused score of a point, from -1 to about 1, plus 1 if the query is its key or title
    and 1 for each rare name of the query that it has.

    Args:
        point: The point.
        scoring: The weights.
        soft: Whether the soft match counts, which only points that were read have.
    """
    # By meaning alone.
    dense_weight = scoring.dense_weight
    if dense_weight == 1:
        return point.score
    words = point.bm25 / (scoring.best_bm25 or 1.0)
    score = dense_weight * point.score + (1 - dense_weight) * words
    # By words alone, soft match does not count, because it compares by meaning.
    soft_weight = scoring.soft_weight if dense_weight else 0.0
    soft_score = 0.0
    if soft:
        # A point without a vector has no cosine: its words stand in for its soft match.
        soft_score = words if point.by_words else point.soft
    return (score + soft_weight * soft_score) / (1 + soft_weight) + point.exact + point.names


def tier_of(point: StoredPoint, scoring: Scoring) -> Tier:
    """Return the tier of a point. By meaning alone, all points have the same."""
    has_tier = point.exact or point.names or point.has_words
    if scoring.dense_weight == 1 or not has_tier:
        return NO_TIER
    return Tier(point.exact, point.names, point.has_words)


def agree(near: Sequence[StoredPoint], by_words: Sequence[StoredPoint]) -> bool:
    """Return whether some chunk is among the best by meaning and among the best by words.

    Args:
        near: The chunks found by meaning, best first.
        by_words: The chunks found by words, best first.
    """
    best_by_words = {point.id for point in by_words[:BEST_BY_WORDS]}
    return not best_by_words.isdisjoint(point.id for point in near[:BEST_BY_MEANING])


def compares_scores(answered: Sequence[IndexAnswer]) -> bool:
    """Return whether the hits of these indexes are fused by score, and not by rank.

    Scores of different models cannot be compared, nor those of a hybrid search with those of a
    search by meaning alone. Then each index orders its own hits, and the indexes take turns.
    """
    kinds = {(answer.live.fingerprint, answer.hybrid) for answer in answered}
    return len(kinds) <= 1


def scorings(answered: Sequence[IndexAnswer], question: Question) -> dict[str, Scoring]:
    """Return by index how the scores of each of its candidates become one."""
    best_bm25 = 0.0
    for answer in answered:
        best_bm25 = max([best_bm25, *[point.bm25 for point in answer.points]])
    soft_weight = _soft_weight(answered, has_bm25=best_bm25 != 0)
    most = 1.0
    # A name in source code, such as `parse_url`: BM25 finds its definition.
    if question.name and all(map(_is_source_code, answered)):
        most = NAME_WEIGHT
    share = 1.0
    # One collection with an embedder that does not know its texts lowers the weight of all, so that
    # scores can be compared.
    if any(answer.hybrid and not answer.live.calibration.trusted for answer in answered):
        share = UNTRUSTED_SHARE
    result: dict[str, Scoring] = {}
    for answer in answered:
        weight = share * min(most, dense_weight(answer, question))
        result[answer.index] = Scoring(weight if answer.hybrid else 1.0, best_bm25, soft_weight)
    return result


def _is_source_code(answer: IndexAnswer) -> bool:
    encoder = answer.live.encoder
    return encoder is not None and bool(encoder.model.identifiers)


def _soft_weight(answered: Sequence[IndexAnswer], *, has_bm25: bool) -> float:
    # No candidate has a word of the query: it may be in another language, whose words resemble
    # English ones by chance.
    if not has_bm25 and not all(answer.live.english_alone for answer in answered):
        return 0.0
    words = max([len(answer.words) for answer in answered if answer.hybrid], default=0)
    weight = SOFT_WORDS / max(1, words)
    return min(MAX_SOFT, max(MIN_SOFT, weight))


def dense_weight(answer: IndexAnswer, question: Question) -> float:
    """Return the dense weight of the question, or else the one that fits the index's model."""
    if question.dense_weight is None:
        return answer.live.dense_weight
    return question.dense_weight


def best_candidates(
    answered: Sequence[IndexAnswer], question: Question, scoring: Mapping[str, Scoring]
) -> tuple[dict[str, list[StoredPoint]], set[str]]:
    """Return by index the candidates that a search reads and compares by soft match.

    The second value names the indexes whose candidates, together with those that they are compared
    with, belong to fewer documents than are requested.
    """
    best: dict[str, list[StoredPoint]] = {answer.index: [] for answer in answered}
    few: set[str] = set()
    for group in _comparable_groups(answered):
        candidates = _ordered_candidates(group, scoring)
        count = _count_to_read(candidates, question)
        chosen = candidates[:count]
        if _count_documents(chosen) < question.limit:
            few.update(answer.index for answer in group)
        for candidate in (*chosen, *_best_by_words(candidates, count)):
            best[candidate.index].append(candidate.point)
    return best, few


def _comparable_groups(answered: Sequence[IndexAnswer]) -> list[Sequence[IndexAnswer]]:
    if answered and compares_scores(answered):
        return [answered]
    return [[answer] for answer in answered]


def _ordered_candidates(
    answers: Iterable[IndexAnswer], scoring: Mapping[str, Scoring]
) -> list[ComparedPoint]:
    """Return the candidates of these indexes, best first. Their soft match is not known yet."""
    candidates: list[ComparedPoint] = []
    for answer in answers:
        own = scoring[answer.index]
        for point in answer.points:
            score = score_of(point, own, soft=False)
            place = tier_of(point, own), score, point.score
            candidates.append(ComparedPoint(place, answer.index, point))
    candidates.sort(key=attrgetter("place"), reverse=True)
    return candidates


def _count_to_read(candidates: Sequence[ComparedPoint], question: Question) -> int:
    """Return how many of the best candidates are read: enough for the requested documents, if there
    are as many."""
    minimum = MIN_READ_OF_PHRASE if question.phrases else MIN_READ
    count = max(minimum, question.limit * CHUNKS_PER_DOCUMENT)
    while True:
        end = count
        # Candidates equal to the last one are read too, so that the store's order does not matter.
        while end < len(candidates) and candidates[end].place == candidates[count - 1].place:
            end += 1
        if end >= len(candidates) or _count_documents(candidates[:end]) >= question.limit:
            return end
        # Many chunks of few documents, such as 50 chunks of one long report.
        count *= READ_GROWTH


def _count_documents(candidates: Iterable[ComparedPoint]) -> int:
    return len({(candidate.index, document_key(candidate.point)) for candidate in candidates})


def _best_by_words(candidates: Sequence[ComparedPoint], end: int) -> list[ComparedPoint]:
    """Return the candidates among the `READ_BY_WORDS` best by words that are not among the first
    `end` candidates. Of equals at the last place, the better candidates are taken."""
    numbers = [number for number, found in enumerate(candidates) if found.point.bm25 > 0]
    numbers.sort(key=lambda number: -candidates[number].point.bm25)
    return [candidates[number] for number in numbers[:READ_BY_WORDS] if number >= end]


def order_answers(
    answered: Sequence[IndexAnswer],
    question: Question,
    scoring: Mapping[str, Scoring],
    known: Sequence[SearchHit] = (),
) -> list[SearchHit]:
    """Return the best hits of all indexes, best first, without those that are `known`.

    If the database decides what the caller may see, only the first `limit` documents are certain to
    come in this order, whatever the caller may not see.

    Args:
        answered: The answers, which may have only the best candidates.
        question: The question.
        scoring: The scoring by index, from all candidates.
        known: Hits that these hits follow.
    """
    documents = _ranked_documents(answered, scoring)
    documents.sort(key=attrgetter("order"), reverse=True)
    if any(answer.asks for answer in answered):
        del documents[question.limit :]
    known_keys = {(hit.index, hit.key) for hit in known}
    new: list[RankedDocument] = []
    for document in documents:
        if (document.answer.index, document.points[0].key) not in known_keys:
            new.append(document)
    wanted = (question.hits or question.limit) - len(known)
    return [_hit(document) for document in new[: max(0, wanted)]]


def _ranked_documents(
    answered: Sequence[IndexAnswer], scoring: Mapping[str, Scoring]
) -> list[RankedDocument]:
    """Return the documents of all answers, index by index and best first."""
    by_score = compares_scores(answered)
    documents: list[RankedDocument] = []
    for answer in answered:
        points_by_document = _points_by_document(answer, scoring[answer.index])
        for rank, points in enumerate(points_by_document.values(), 1):
            fused = points[0].score if by_score else 1 / (RANK_CONSTANT + rank)
            documents.append(RankedDocument(answer, rank, points, fused))
    return documents


def ranked(
    asked: Asked, weight: float | None = None, indexes: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Return index and document id of each hit of a search, best first.

    Args:
        asked: The answers of `Retriever.candidates`.
        weight: The dense weight; None for that of the settings, or else of each model.
        indexes: The indexes to search; by default all.
    """
    question = asked.question
    if weight is not None:
        question = replace(question, dense_weight=weight, name=False)
    chosen: list[IndexAnswer] = []
    for answer in asked.answered:
        if indexes is None or answer.index in indexes:
            hybrid = answer.hybrid and question.dense_weight != 1
            chosen.append(replace(answer, hybrid=hybrid))
    scoring = scorings(chosen, question)
    best, _ = best_candidates(chosen, question, scoring)
    read = [replace(answer, points=best[answer.index]) for answer in chosen]
    hits = order_answers(read, question, scoring)
    return [(hit.index, hit.document_id) for hit in hits]


def _points_by_document(answer: IndexAnswer, scoring: Scoring) -> dict[str, list[ScoredPoint]]:
    """Return the points of an index by the key of their document: the best document first, and the
    best point of each first.

    Points of equal scores are ordered by cosine, then by document and chunk number, so that the
    result does not depend on the order in which a store returns them.
    """
    scored = [_scored(point, answer, scoring) for point in answer.points]
    # Two stable sorts: first by what orders equals, then by place, the greatest first.
    scored.sort(key=attrgetter("key", "chunk"))
    scored.sort(key=attrgetter("place"), reverse=True)
    by_document: dict[str, list[ScoredPoint]] = {}
    for found in scored:
        by_document.setdefault(found.key, []).append(found)
    return by_document


def _scored(point: StoredPoint, answer: IndexAnswer, scoring: Scoring) -> ScoredPoint:
    score = score_of(point, scoring)
    if answer.recency:
        point.recency = freshness(answer.recency, point.payload)
        # A name counts as much in an old document.
        without_names = max(0.0, score - point.exact - point.names)
        score += RECENCY_SHARE * point.recency * without_names
    place = tier_of(point, scoring), score, point.score
    chunk = point.payload.get(RESERVED_KEY, {}).get("chunk", 0)
    return ScoredPoint(point, score, place, document_key(point), chunk)


def document_key(point: StoredPoint) -> str:
    """Return the typed key of a point's document, or the point's id if its payload was not read."""
    ours = point.payload.get(RESERVED_KEY, {})
    return str(ours.get("key", point.id))


def _columns(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name != RESERVED_KEY}


@dataclass(frozen=True, slots=True)
class DisplayedChunk:
    """The number of the point of a document whose text a hit shows."""

    number: int = 0
    has_query_words: bool = True
    """Whether its own text has words or names of the query. If not, the document was found by its
    title."""


def _displayed_chunk(answer: IndexAnswer, points: Sequence[StoredPoint]) -> DisplayedChunk:
    """Choose the chunk of a document that a hit shows. The points are ordered, best first.

    The title of a document stands before each of its chunks. So if the query resembles the title,
    the shortest chunk has the best score, whatever it says. Therefore the words in the chunk's own
    text decide.
    """
    encoder = answer.live.encoder
    ours = [point.payload.get(RESERVED_KEY, {}) for point in points]
    # One chunk, no title, or no words to compare: the best score decides.
    if ours[0].get("chunks", 1) < 2 or not ours[0].get(TITLE) or not encoder:
        return DisplayedChunk()

    texts = answer.add_synonyms([str(payload.get("text", "")) for payload in ours])
    matched = encoder.matched(answer.words, texts)
    evidence: list[tuple[int, bool]] = []
    for point, words in zip(points, matched, strict=True):
        evidence.append((point.names, bool(words)))
    best = max(evidence)
    # Some chunk has a rare name or a word of the query: most names first, then any word, then the
    # best score.
    if any(best):
        return DisplayedChunk(evidence.index(best))
    # The title alone matches: the document is shown from its beginning.
    chunks = [payload.get("chunk", 0) for payload in ours]
    return DisplayedChunk(chunks.index(min(chunks)), has_query_words=False)


def _hit(document: RankedDocument) -> SearchHit:
    answer = document.answer
    # The scores are those of the best point, although another one may be shown.
    best = document.points[0].point
    displayed = _displayed_chunk(answer, [scored.point for scored in document.points])
    points = list(document.points)
    points.insert(0, points.pop(displayed.number))
    chunks = _chunks_of_hit(points)
    payload = points[0].point.payload
    ours = payload.get(RESERVED_KEY, {})
    return SearchHit(
        index=answer.index,
        document_id=str(ours.get("document_id", best.id)),
        citation="",  # set once it is known up to when the answer is complete
        score=document.points[0].score,
        relevance=0.0,
        text=chunks[0].text,
        chunk=chunks[0].chunk,
        total_chunks=ours.get("chunks", 1),
        payload=_columns(payload),
        title=ours.get(TITLE, ""),
        link=ours.get(LINK, ""),
        part=ours.get(PART, {}),
        rank=document.rank,
        fused=document.fused,
        cosine=best.score,
        bm25=best.bm25,
        soft=best.soft,
        chunks=tuple(chunks),
        exact=best.exact,
        names=best.names,
        recency=best.recency if answer.recency else None,
        key=document.points[0].key,
        by_title=not displayed.has_query_words,
        text_hash=ours.get("text_hash", ""),
        by_words=best.by_words,
    )


def _chunks_of_hit(points: Sequence[ScoredPoint]) -> list[ChunkHit]:
    """Return the first chunks: three of any length, or up to twelve that are short together."""
    chunks: list[ChunkHit] = []
    chars = 0
    for scored in points[:MAX_SHORT_CHUNKS]:
        ours = scored.point.payload.get(RESERVED_KEY, {})
        text = ours.get("text", "")
        chars += len(text)
        if len(chunks) >= MAX_HIT_CHUNKS and chars > SHORT_CHARS:
            break
        chunks.append(ChunkHit(ours.get("chunk", 0), scored.score, text))
    return chunks


def with_texts(
    hits: Iterable[SearchHit], answer: IndexAnswer, points: Iterable[StoredPoint]
) -> list[SearchHit]:
    """Return the hits. Those of this index that were found by their title alone show the best of the
    points.

    Args:
        hits: The hits of all indexes.
        answer: The answer of the index of the points.
        points: Further chunks of the documents that were found by their title alone.
    """
    points_by_key: dict[str, list[StoredPoint]] = {}
    for point in points:
        points_by_key.setdefault(document_key(point), []).append(point)
    result: list[SearchHit] = []
    for hit in hits:
        is_by_title = hit.by_title and hit.index == answer.index
        if is_by_title and hit.key in points_by_key:
            result.append(_with_text(hit, answer, points_by_key[hit.key]))
        else:
            result.append(hit)
    return result


def _with_text(hit: SearchHit, answer: IndexAnswer, points: Sequence[StoredPoint]) -> SearchHit:
    encoder = answer.live.encoder
    if encoder is None:
        return hit
    payload = points[_displayed_chunk(answer, points).number].payload
    ours = payload.get(RESERVED_KEY, {})
    text = str(ours.get("text", ""))
    return replace(
        hit,
        text=text,
        highlights=encoder.highlights(answer.all_words, f"{hit.title}\n{text}"),
        chunk=ours.get("chunk", 0),
        part=ours.get(PART, {}),
        payload=_columns(payload),
    )


def failure_of(asked: Asked) -> Exception:
    """Return the error that all indexes have in common, or one that lists all reasons."""
    errors = [asked.errors[index] for index in asked.indexes if index in asked.errors]
    distinct = {(type(error), str(error)) for error in errors}
    # One reason for all, such as a store that is unavailable. A timeout lists the indexes in any
    # case.
    if len(distinct) == 1 and not isinstance(errors[0], SearchTimedOut):
        return errors[0]
    reasons = asked.reasons
    # Other processes write all of them. The reason of the first one names its process, and what to
    # do; the reasons of the others differ only in the name of the collection.
    if all(isinstance(error, StoreBusy) for error in errors):
        return StoreBusy(f"indexes {', '.join(reasons)} are busy: {errors[0]}")
    listed = "; ".join(f"{index}: {reason}" for index, reason in reasons.items())
    codes = {error.exit_code for error in errors if isinstance(error, RagIndexError)}
    exit_code = codes.pop() if len(codes) == 1 else 1
    is_late = all(isinstance(error, SearchTimedOut) for error in errors)
    return SearchFailed(f"no index answered: {listed}", reasons, exit_code, is_late)


def freshness(recency: RecencySettings, payload: Mapping[str, Any]) -> float:
    """Return 1 for a document of now, 0.5 at the age of the half-life, and 0 without a time."""
    value = value_of(payload, recency.field)
    # A number in a column of texts: "1767225600".
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    moment = moment_of(value)
    if moment is None:
        return 0.0
    # A time in the future counts as now.
    age = max(0.0, time.time() - moment)
    return math.pow(0.5, age / recency.seconds)


def moment_of(value: Any) -> float | None:
    """Return the time of a payload's value in seconds since 1970, or None if it is no time."""
    # A number: 1767225600 (seconds), 1767225600000 (milliseconds), and so on.
    if isinstance(value, int | float) and not isinstance(value, bool):
        for unit in (1, 1e3, 1e6):
            if abs(value) <= MAX_SECONDS * unit:
                return value / unit
        return value / 1e9
    # ISO 8601: "2026-01-31", "20260131", "2026-01-31T12:00:00+01:00". Without a zone, it is UTC.
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()


def in_order(hits: Iterable[SearchHit], order: str, fits: float) -> list[SearchHit]:
    """Return the hits that fit, or all if none does, in the order of a field. Hits without a value
    come last.

    Args:
        hits: The hits.
        order: The field, such as "created_at". After a minus, the greatest value comes first.
        fits: The relevance from which a hit fits.
    """
    field = order.removeprefix("-")
    all_hits = list(hits)
    fitting = [hit for hit in all_hits if hit.relevance >= fits]
    with_value: list[SearchHit] = []
    without_value: list[SearchHit] = []
    values: list[Any] = []
    for hit in fitting or all_hits:
        value = value_of(hit.payload, field)
        if value is None:
            without_value.append(hit)
        else:
            with_value.append(hit)
            values.append(value)
    pairs = zip(_sort_keys(values), with_value, strict=True)
    ordered = sorted(pairs, key=itemgetter(0), reverse=order.startswith("-"))
    return [hit for _, hit in ordered] + without_value


def _sort_keys(values: list[Any]) -> list[Any]:
    """Return keys that can be compared, because the values of a field may have several types."""
    # Numbers alone.
    if all(isinstance(value, int | float) for value in values):
        return values
    # Times alone, in any form: "2026-01-31", 1767225600.
    moments = [moment_of(value) for value in values]
    if None not in moments:
        return moments
    return [str(value).casefold() for value in values]
