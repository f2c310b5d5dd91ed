"""Names first: chunks that have a rare name of the query come before all that lack it.

A name is a word that looks like one (`QueryWord.like_name`) and stands in few chunks: a host, an error code, a version,
a file. So is an address of several words, such as anna@shop.example or /etc/hosts: its rarest word finds the chunks,
and their texts say whether they have all of it. Whoever types a name wants the documents that have it, but meaning and
BM25 may rank a long chunk with the name behind short ones without it. So chunks are looked up by the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.search.question import NAMING, IndexAnswer, spaced, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rag_index.components.stores.protocol import Condition, StoreReader
    from rag_index.core.documents.batches import StoredPoint

RARE = 50
"""Chunks at most that have a rare name."""
PART_OF_ADDRESS = 0.5
"""What a name counts in a chunk that has it, but not the address of which it is a part."""
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class RareName:
    """A name of a query, by the dimensions of its rarest word."""

    dimensions: frozenset[int]
    address: str = ""
    """All words of an address, as `spaced` has them; "" for a single word."""
    part: float = 1.0
    """What it counts in a chunk that has the word, but not the address."""


def rare_names(answer: IndexAnswer, text: str, having: Mapping[int, int]) -> list[RareName]:
    """Return the names of a text that at most `RARE` chunks have. `having` counts the chunks of each dimension.

    If the database says what the caller may see, there are none: to read more where a name is would tell of it.
    """
    found, encoder = list[RareName](), answer.live.encoder
    if encoder is None or not answer.hybrid or answer.asks:
        return found
    for run in filter(NAMING.search, text.split()):
        words = encoder.words(run).values()
        named = any(word.like_name for word in words) or (_DIGIT.search(run) and _LETTER.search(run))
        address = spaced(run) if len(words) > 1 and named else ""
        counted = [
            (max(having.get(one, 0) for one in word.whole), word)
            for word in words
            if word.whole and (address or word.like_name)
        ]
        count, rarest = min([one for one in counted if one[0]], key=lambda one: one[0], default=(0, None))
        if rarest and count <= RARE:
            part = PART_OF_ADDRESS * rarest.like_name if address else 1.0
            found.append(RareName(rarest.whole, address, part))
    return found


def add_named(
    store: StoreReader,
    answer: IndexAnswer,
    names: Sequence[RareName],
    found: Sequence[StoredPoint],
    conditions: Sequence[Condition],
    vector: NDArray[Any] | None,
) -> list[StoredPoint]:
    """Return the points that were found, and all others that have one of the names; each knows what these count."""
    collection, points = answer.live.collection, {point.id: point for point in found}
    places = store.find_words(collection, sorted({one for name in names for one in name.dimensions}), conditions)
    having = [{id_ for one in name.dimensions for id_ in places.get(one, ())} for name in names]
    lowest = min([one.score for one in found], default=0.0)
    for point in store.retrieve(collection, sorted(set().union(*having)), vectors=True, conditions=conditions):
        text = spaced(text_of(point.payload))
        counts = [1.0 if name.address in text else name.part for name in names]
        point.names = sum(count for count, some in zip(counts, having, strict=True) if point.id in some)
        if point.id in points:
            points[point.id].names = point.names
        elif point.names:
            point.by_words, point.score = point.vector is None, lowest
            if point.vector is not None and vector is not None:
                own = np.asarray(point.vector, dtype=np.float32)
                point.score = float(own @ vector / max(1e-9, float(np.linalg.norm(own) * np.linalg.norm(vector))))
            point.vector = point.sparse = None
            points[point.id] = point
    return list(points.values())
