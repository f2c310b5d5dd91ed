"""What a collection answers to queries that fit something, and to queries that fit nothing: the lesson of its scores.

The queries that fit also tell what meaning finds, what words find, and whether both together find as much as either.

Both kinds are made of its own texts. A query that fits is some words of one text that stand near each other, a third of
which are replaced, since people use other words than the text. One that fits nothing has each of its words from another
text, and some of them are spelled backwards.
"""

from __future__ import annotations

import random
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.keys import point_id
from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import RagIndexError
from rag_index.evaluation.asking import ask_collections
from rag_index.evaluation.measures import chance_of_loss, measure
from rag_index.ledger import Channels, Collection, Ledger
from rag_index.retrieve.calibration import Calibration
from rag_index.retrieve.fusion import agree, ranked, reordered
from rag_index.stores import CALIBRATION, UNLEARNED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.reports.metrics import Stopwatch
    from rag_index.settings import IndexSettings, Settings
    from rag_index.stores.protocol import Store

MIN_DOCUMENTS = 500
"""A smaller collection keeps the weights that stand for all: its texts are too few to be strangers to each other."""
TEXTS, KNOWN, STRANGE = 200, 32, 48
"""Texts that words are taken from, and queries of both kinds. Those that fit nothing ask for the nearest alone."""
REPLACED, BACKWARDS = 0.3, 0.3
WORDS, MIN_WORDS = (2, 3, 4, 6, 9, 14, 24, 40), 8
"""How long queries are, and a text at least."""
SHORT = 4
"""Words of a query that fits whose cosines tell little."""
FIRST = 10
"""A text that its query does not find among the first is no example."""
LETTERS = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]{2,4}|[^\W\d_]{3,}")
"""A word, or a piece of a text without spaces."""
AGREEMENT = 0.5
"""The share of queries about whose best chunks meaning and words agree, where meaning is trusted."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learned of a collection: its calibration, if it has enough texts, and its channels."""

    calibration: Calibration | None = None
    channels: Channels | None = None
    """None if it has too few texts, or is not searched by words."""


def calibrate(
    settings: Settings,
    index: IndexSettings,
    ledger: Ledger,
    store: Store,
    collection: Collection,
    stopwatch: Stopwatch,
) -> None:
    """Learn what the scores of a collection mean and what its channels find. Before, the weights of others stand.

    Calibrate again when a collection without a result has doubled, or when `dense_weight` has changed. If that gives no
    result, the former one stays.
    """
    known = store.metadata(collection.name).get(CALIBRATION, {UNLEARNED: 0})
    channels, documents = Channels.decode(collection.channels), ledger.totals(collection.id).documents
    other_weight = bm25_model(index) and (channels is None or channels.dense_weight != settings.dense_weight)
    due = other_weight or UNLEARNED in known
    if not due or documents < max(MIN_DOCUMENTS, 2 * known.get(UNLEARNED, 0)):
        return
    with stopwatch.stage("gate"), suppress(RagIndexError):
        lesson = ask_own_texts(settings, index, ledger, store, collection)
        if lesson.calibration is not None:
            store.set_metadata(collection.name, {CALIBRATION: lesson.calibration.to_metadata()})
        elif UNLEARNED in known:
            store.set_metadata(collection.name, {CALIBRATION: {UNLEARNED: documents}})
        if lesson.channels is not None:
            ledger.update_collection(collection.id, channels=lesson.channels.encode())


def ask_own_texts(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, collection: Collection
) -> Lesson:
    """Ask a collection for its own texts, and for some that it does not have, and return what that taught.

    Raises what a search raises. The store stays open.
    """
    ids = [point_id(index.name, key, 0) for key in ledger.sample(collection.id, TEXTS)]
    texts = {}
    for point in store.retrieve(collection.name, ids):
        if len(words := LETTERS.findall(point.payload[RESERVED_KEY]["text"])) >= MIN_WORDS:
            texts[str(point.payload[RESERVED_KEY]["document_id"])] = words
    if len(texts) < TEXTS // 4:
        return Lesson()
    chance = random.Random(TEXTS)  # noqa: S311 - the same each time
    own, strange = _queries(chance, texts)
    ask = partial(ask_collections, settings, index, store, [collection.name], limit=FIRST, texts=True)
    [answers], [none] = ask(list(own.values())), ask(strange, dense_weight=1.0)
    weights = [settings.dense_weight, *((1.0, 0.0) if bm25_model(index) else ())]
    ranks: list[list[float]] = []
    for document_id, found in zip(own, answers, strict=False):
        orders = [[name for _, name in ranked(found, weight)] for weight in weights]
        ranks.append([measure(f"MRR@{FIRST}", order, [document_id]) for order in orders])
    hybrid = [answer.points for found in answers for answer in found.answered if answer.hybrid]
    trusted = not hybrid or sum(map(agree, hybrid)) >= AGREEMENT * len(hybrid)
    long = [one for query, one in zip(own.values(), answers, strict=True) if len(query.split()) > SHORT]
    best = [[max(hit.cosine for hit in hits) for one in some if (hits := reordered(one))] for some in (none, long)]
    calibration = Calibration.learn(best[1], best[0], words=len(weights) > 1) if all(best) else None
    channels = _channels(ranks, settings.dense_weight) if len(weights) > 1 else None
    return Lesson(calibration and replace(calibration, trusted=trusted), channels)


def _channels(ranks: list[list[float]], dense_weight: float) -> Channels:
    """Return the channels of a collection, given the reciprocal ranks of each query with both, meaning and words."""
    both, meaning, words = (list(column) for column in zip(*ranks, strict=True))
    better = max(meaning, words, key=sum)
    chance = chance_of_loss([ours - alone for ours, alone in zip(both, better, strict=True)])

    def mean(values: list[float]) -> float:
        return round(sum(values) / len(values), 4)

    return Channels(len(ranks), dense_weight, mean(both), mean(meaning), mean(words), round(chance, 4))


def _queries(chance: random.Random, texts: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], list[str]]:
    """Return a query for each of some texts, of some of its words, by document; and as many that fit nothing.

    `texts` has the words of each text, by the id of its document.
    """
    own, ids = dict[str, str](), sorted(texts)
    for document_id, length in zip(chance.sample(ids, min(KNOWN, len(ids))), cycle(WORDS)):
        words = texts[document_id]
        start = chance.randrange(max(1, len(words) - 2 * length))
        around = words[start : start + 2 * length]
        some = [around[place] for place in sorted(chance.sample(range(len(around)), min(length, len(around))))]
        own[document_id] = " ".join(
            chance.choice(texts[chance.choice(ids)]) if chance.random() < REPLACED else word for word in some
        )
    strange = [
        [chance.choice(texts[one]) for one in chance.choices(ids, k=length)] for length in islice(cycle(WORDS), STRANGE)
    ]
    return own, [" ".join(word[::-1] if chance.random() < BACKWARDS else word for word in words) for words in strange]
