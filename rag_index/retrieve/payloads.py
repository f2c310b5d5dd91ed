"""The second half of a hybrid search: reading the payloads of the best candidates alone.

Meaning and words propose up to sixty chunks in each index, of which ten documents are shown. Their order needs no
payload, and reading one takes longer than finding it. So the candidates come with their scores alone, are put in order
over all indexes, and the payloads of the first are read, until they belong to as many documents as wanted.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from rag_index.errors import BadVectors, FingerprintChanged, StoreBusy, StoreError
from rag_index.retrieve.answers import compares_scores, scorings
from rag_index.retrieve.fusion import count_documents
from rag_index.retrieve.index_reader import CHUNKS_PER_DOCUMENT, MIN_CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.fan_out import FanOut
    from rag_index.retrieve.fusion import Scoring
    from rag_index.retrieve.question import IndexAnswer, Question

MIN_READ = 30
"""Payloads read at least in one round: reading a few more is cheaper than another round."""
MORE = 4
"""How many times as many are read in each further round."""

Best = dict[str, list["StoredPoint"]]
"""The best candidates by index."""


async def load_payloads(
    fan_out: FanOut, question: Question, answers: Sequence[IndexAnswer], fusion: str
) -> Mapping[str, Scoring]:
    """Reduce the answers to the candidates that can be among the hits, with their payloads, and return the scoring.

    The scoring is that of all candidates, by index. An index whose payloads cannot be read, because its collection
    changed meanwhile, is asked again. One that does not answer then gets an error. Raises SettingsError if scores
    cannot be compared and `fusion` is "score".
    """
    while True:
        asked = [answer for answer in answers if answer.error is None]
        together = compares_scores(asked, fusion)
        scoring = scorings(asked, question.dense_weight)
        if all(answer.whole for answer in asked):
            return scoring
        groups = [asked] if together else [[answer] for answer in asked]
        found = await asyncio.gather(*(_load_best(fan_out, question, group, scoring) for group in groups))
        if None not in found:
            read = {index: points for best in found if best for index, points in best.items()}
            for answer in asked:
                answer.points = read[answer.index]
            return scoring


async def _load_best(
    fan_out: FanOut, question: Question, answers: Sequence[IndexAnswer], scoring: Mapping[str, Scoring]
) -> Best | None:
    """Return the best candidates, read, of indexes whose candidates are in one order; None if one was asked again."""
    count = max(MIN_READ, question.limit * CHUNKS_PER_DOCUMENT)
    total = sum(len(answer.points) for answer in answers)
    while True:
        best = _best(answers, scoring, count)
        found = await asyncio.gather(*(_read(fan_out, question, answer, best[answer.index]) for answer in answers))
        if not all(found):
            return None
        read = {answer.index: _with_payload(answer.points, best[answer.index]) for answer in answers}
        if sum(count_documents(points) for points in read.values()) >= question.limit:
            return read
        if count >= total:
            short = [answer for answer in answers if _has_more(answer, question)]
            await asyncio.gather(*(fan_out.ask_again(question, answer) for answer in short))
            return None if short else read
        count *= MORE


def _best(answers: Sequence[IndexAnswer], scoring: Mapping[str, Scoring], count: int) -> Best:
    """Return the `count` best candidates of these indexes, and those that are as good as the last of them."""
    ordered = sorted(
        (
            (-scoring[answer.index].score(point), -point.score, place, point)
            for place, answer in enumerate(answers)
            for point in answer.points
        ),
        key=lambda one: one[:3],
    )
    found: Best = {answer.index: [] for answer in answers}
    last = ordered[count - 1 : count]
    equal = takewhile(lambda one: one[:2] == last[0][:2], ordered[count:])
    for _, _, place, point in [*ordered[:count], *equal]:
        found[answers[place].index].append(point)
    return found


async def _read(fan_out: FanOut, question: Question, answer: IndexAnswer, best: Sequence[StoredPoint]) -> bool:
    """Read the payloads that are missing, and drop points that are gone. Return False if the index was asked again."""
    missing = [point.id for point in best if not point.payload] if not answer.whole else []
    if not missing:
        return True
    try:
        payloads = await fan_out.payloads(question, answer, missing)
    except StoreBusy as exc:
        answer.error = exc
    except (StoreError, FingerprintChanged, BadVectors):
        await fan_out.ask_again(question, answer)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
        answer.error = exc
    else:
        wanted = set(missing)
        answer.points = [
            replace(point, payload=payloads[point.id]) if point.id in payloads else point
            for point in answer.points
            if point.id not in wanted or point.id in payloads
        ]
        return True
    return False


def _with_payload(points: Sequence[StoredPoint], best: Sequence[StoredPoint]) -> list[StoredPoint]:
    ids = {point.id for point in best}
    return [point for point in points if point.id in ids]


def _has_more(answer: IndexAnswer, question: Question) -> bool:
    """Return whether an index may have documents that its candidates, all of them read, leave no room for."""
    asked = max(MIN_CANDIDATES, question.limit * CHUNKS_PER_DOCUMENT)
    few = count_documents(answer.points) < question.limit
    return not answer.whole and few and len(answer.points) >= asked
