"""One document of an index, read back from the store by the id that people see."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.keys import key_parts, point_id, possible_keys
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
    from rag_index.settings import IndexSettings
    from rag_index.stores import Condition, StoreReader


@dataclass(frozen=True, slots=True)
class DocumentChunk:
    """A chunk of a document. `payload` holds the fields that the chunk has for itself, as those of source code have."""

    chunk: int
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the index holds it: its chunks in order, and its payload."""

    index: str
    document_id: str
    chunks: tuple[DocumentChunk, ...]
    payload: Mapping[str, Any] = field(default_factory=dict)
    collection: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `GET /documents/{index}/{id}` answers."""
        return {
            "index": self.index,
            "document_id": self.document_id,
            "payload": dict(self.payload),
            "chunks": [
                {
                    "chunk": chunk.chunk,
                    "text": chunk.text,
                    **({"payload": dict(chunk.payload)} if chunk.payload else {}),
                }
                for chunk in self.chunks
            ],
        }


def read_document(
    store: StoreReader, collection: str, index: IndexSettings, document_id: str, conditions: Sequence[Condition] = ()
) -> Document | None:
    """Return the document of this id with the chunks that meet the conditions; None if there are none.

    Chunks are read by the ids of their points, as many as the first one says, which needs no search. Raises
    SettingsError if the id cannot be one of this index, because its key has several columns, and what the store raises.
    """
    keys = _keys(index, document_id)
    firsts = {
        key: point
        for point in store.retrieve(collection, [point_id(index.name, key, 0) for key in keys])
        if (key := str(_ours(point).get("key"))) in keys and _ours(point).get("document_id") == document_id
    }
    for key in keys:
        count = int(_ours(firsts[key]).get("chunks", 1)) if key in firsts else 0
        ids = [point_id(index.name, key, number) for number in range(count)]
        points = store.retrieve(collection, ids, conditions=conditions) if ids else []
        if points:
            return _document(index.name, document_id, collection, points)
    return None


def _keys(index: IndexSettings, document_id: str) -> list[str]:
    """Return the typed keys that the id may stand for."""
    try:
        document_id.encode()
    except UnicodeEncodeError:
        return []
    if index.key_columns:
        return possible_keys(key_parts(document_id, index.key_columns))
    keys = possible_keys([document_id])
    if document_id.startswith("["):  # a source of its own may have keys of several columns
        with suppress(ValueError):
            parts = json.loads(document_id)
            if parts and all(isinstance(part, str | int | float) for part in parts):
                keys += possible_keys(parts)
    return keys


def _document(index: str, document_id: str, collection: str, points: Sequence[StoredPoint]) -> Document:
    own = {name for point in points for name in _ours(point).get("own", ())}
    chunks = tuple(
        DocumentChunk(
            int(_ours(point).get("chunk", 0)),
            str(_ours(point).get("text", "")),
            {name: value for name, value in point.payload.items() if name in own},
        )
        for point in sorted(points, key=lambda point: int(_ours(point).get("chunk", 0)))
    )
    shared = {name: value for name, value in points[0].payload.items() if name != RESERVED_KEY and name not in own}
    return Document(index, document_id, chunks, shared, collection)


def _ours(point: StoredPoint) -> Mapping[str, Any]:
    found = point.payload.get(RESERVED_KEY)
    return found if isinstance(found, dict) else {}


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
