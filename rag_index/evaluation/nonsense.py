"""What a collection answers to queries that fit something, and to queries that fit nothing: the lesson of its scores.

The queries that fit also tell what meaning finds, what words find, and whether both together find as much as either.

Both kinds are made of its own texts. A query that fits is some words of one text, a third of which are replaced, since
people use other words than the text. One that fits nothing has each of its words from another text, and some of them
are spelled backwards.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.keys import point_id
from rag_index.embedders.bm25 import bm25_model
from rag_index.evaluation.asking import ask_collections
from rag_index.evaluation.measures import measure
from rag_index.evaluation.significance import chance_of_loss
from rag_index.ledger import Channels, Collection, Ledger
from rag_index.retrieve.calibration import Calibration, with_relevance
from rag_index.retrieve.fusion import ranked, reordered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learned of a collection: its calibration, if it finds enough of its own texts, and its channels."""

    calibration: Calibration | None = None
    channels: Channels | None = None
    """None if it has too few texts, or is not searched by words."""


def ask_own_texts(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, collection: Collection
) -> Lesson:
    """Ask a collection for its own texts, and for some that it does not have, and return what that taught.

    Raises what a search raises. The store stays open.
    """
    ids = [point_id(index.name, key, 0) for key in ledger.sample(collection.id, QUERIES)]
    texts = {}
    for point in store.retrieve(collection.name, ids):
        if len(words := LETTERS.findall(point.payload[RESERVED_KEY]["text"])) >= max(WORDS):
            texts[str(point.payload[RESERVED_KEY]["document_id"])] = words
    if len(texts) < QUERIES // 4:
        return Lesson()
    chance = random.Random(QUERIES)  # noqa: S311 - the same each time
    asked = _queries(chance, texts)
    [answers] = ask_collections(settings, index, store, [collection.name], asked, FIRST, texts=True)
    weights = [settings.dense_weight, *((1.0, 0.0) if bm25_model(index) else ())]
    features: list[tuple[float, float]] = []
    ranks: list[list[float]] = []
    for document_id, found in zip(texts, answers, strict=False):
        orders = [[name for _, name in ranked(found, weight)] for weight in weights]
        ranks.append([measure(f"MRR@{FIRST}", order, [document_id]) for order in orders])
        if best := [hit for hit in with_relevance(reordered(found), found) if hit.document_id == document_id]:
            features.append((best[0].cosine, best[0].words))
    channels = _channels(ranks, settings.dense_weight) if len(weights) > 1 else None
    if len(features) < QUERIES // 8:
        return Lesson(None, channels)
    fits = [True] * len(features)
    for found in answers[len(texts) :]:
        features += [(hit.cosine, hit.words) for hit in with_relevance(reordered(found)[:1], found)]
    fits += [False] * (len(features) - len(fits))
    return Lesson(None if all(fits) else Calibration.learn(features, fits), channels)


def _channels(ranks: list[list[float]], dense_weight: float) -> Channels:
    """Return the channels of a collection, given the reciprocal ranks of each query with both, meaning and words."""
    both, meaning, words = (list(column) for column in zip(*ranks, strict=True))
    better = max(meaning, words, key=sum)
    chance = chance_of_loss([ours - alone for ours, alone in zip(both, better, strict=True)])

    def mean(values: list[float]) -> float:
        return round(sum(values) / len(values), 4)

    return Channels(len(ranks), dense_weight, mean(both), mean(meaning), mean(words), round(chance, 4))


def _queries(chance: random.Random, texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a query for each text, of some of its words, and then as many that fit nothing.

    `texts` has the words of each text, by the id of its document.
    """
    queries, ids = [], sorted(texts)
    for words, length in zip(texts.values(), cycle(WORDS)):
        start = chance.randrange(len(words) - length + 1)
        own = words[start : start + length]
        some = [chance.choice(texts[chance.choice(ids)]) if chance.random() < REPLACED else word for word in own]
        queries.append(" ".join(some))
    for length in islice(cycle(WORDS), len(texts)):
        strange = [chance.choice(texts[one]) for one in chance.sample(ids, length)]
        queries.append(" ".join(word[::-1] if chance.random() < BACKWARDS else word for word in strange))
    return queries
