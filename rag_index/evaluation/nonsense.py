"""What a collection answers to queries that fit something, and to queries that fit nothing: the lesson of its scores.

Both kinds are made of its own texts. A query that fits is some words of one text, a third of which are replaced, since
people use other words than the text. One that fits nothing has each of its words from another text, and some of them
are spelled backwards.
"""

from __future__ import annotations

import random
import re
from itertools import cycle, islice
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.keys import point_id
from rag_index.evaluation.gate import patient
from rag_index.retrieve import ALL_GROUPS, Retriever
from rag_index.retrieve.calibration import Calibration
from rag_index.stores.protocol import lend

if TYPE_CHECKING:
    from rag_index.ledger import Collection, Ledger
    from rag_index.retrieve.results import SearchHit
    from rag_index.settings import IndexSettings, Settings
    from rag_index.stores import Store

MIN_DOCUMENTS = 500
"""A smaller collection keeps the weights that stand for all: its texts are too few to be strangers to each other."""
QUERIES = 100
"""Queries of each kind."""
REPLACED, BACKWARDS = 0.3, 0.3
WORDS = (2, 3, 4, 5, 6, 8)
FIRST = 10
"""A text that its query does not find among the first is no example."""
LETTERS = re.compile(r"[^\W\d_]{3,}")


def learn_calibration(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, collection: Collection
) -> Calibration | None:
    """Return the calibration of a collection; None if it finds too few of its own texts.

    Raises what a search raises. The store stays open.
    """
    ids = [point_id(index.name, key, 0) for key in ledger.sample(collection.id, QUERIES)]
    texts = {}
    for point in store.retrieve(collection.name, ids):
        if len(words := LETTERS.findall(point.payload[RESERVED_KEY]["text"])) >= max(WORDS):
            texts[str(point.payload[RESERVED_KEY]["document_id"])] = words
    if len(texts) < QUERIES // 4:
        return None
    chance = random.Random(QUERIES)  # noqa: S311 - the same each time
    features: list[tuple[float, float]] = []
    fits: list[bool] = []
    patiently = patient(settings, index, [index.name], 2 * QUERIES)
    with Retriever(patiently, open_store=lambda: lend(store), collections={index.name: collection.name}) as retriever:

        def hits(query: str) -> tuple[SearchHit, ...]:
            return retriever.search_sync(query, indexes=[index.name], limit=FIRST, groups=ALL_GROUPS, rerank=False).hits

        for (document_id, words), length in zip(texts.items(), cycle(WORDS)):
            start = chance.randrange(len(words) - length + 1)
            query = [_other(chance, texts, one) for one in words[start : start + length]]
            own = next((hit for hit in hits(" ".join(query)) if hit.document_id == document_id), None)
            if own is not None:
                features.append((own.cosine, own.words))
                fits.append(True)
        if len(fits) < QUERIES // 8:
            return None
        for length in islice(cycle(WORDS), len(texts)):
            strange = [chance.choice(texts[one]) for one in chance.sample(sorted(texts), length)]
            query = [word[::-1] if chance.random() < BACKWARDS else word for word in strange]
            for hit in hits(" ".join(query))[:1]:
                features.append((hit.cosine, hit.words))
                fits.append(False)
    return None if all(fits) else Calibration.learn(features, fits)


def _other(chance: random.Random, texts: dict[str, list[str]], word: str) -> str:
    return chance.choice(texts[chance.choice(sorted(texts))]) if chance.random() < REPLACED else word
