"""What a collection answers to queries that fit something, and to queries that fit nothing: the lesson of its scores.

Both kinds are made of its own texts. A query that fits is some words of one text that stand near each other, a third of
which are replaced, since people use other words than the text. One that fits nothing has each of its words from another
text, and some of them are spelled backwards.
"""

from __future__ import annotations

import random
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.keys import point_id
from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import RagIndexError
from rag_index.evaluation.asking import ask_collections
from rag_index.retrieve.calibration import Calibration
from rag_index.retrieve.fusion import agree, reordered
from rag_index.stores import CALIBRATION, UNLEARNED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.ledger import Collection, Ledger
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


def calibrate(
    settings: Settings,
    index: IndexSettings,
    ledger: Ledger,
    store: Store,
    collection: Collection,
    stopwatch: Stopwatch,
) -> None:
    """Learn what the scores of a collection mean, again once one without a result has doubled.

    Before, the weights of others stand.
    """
    known = store.metadata(collection.name).get(CALIBRATION, {UNLEARNED: 0})
    documents = ledger.totals(collection.id).documents
    if UNLEARNED not in known or documents < max(MIN_DOCUMENTS, 2 * known[UNLEARNED]):
        return
    with stopwatch.stage("gate"), suppress(RagIndexError):
        learned = ask_own_texts(settings, index, ledger, store, collection)
        recorded = {UNLEARNED: documents} if learned is None else learned.to_metadata()
        store.set_metadata(collection.name, {CALIBRATION: recorded})


def ask_own_texts(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, collection: Collection
) -> Calibration | None:
    """Ask a collection for its own texts, and for some that it does not have, and return what that taught.

    That is None if its texts are too few. Raises what a search raises. The store stays open.
    """
    ids = [point_id(index.name, key, 0) for key in ledger.sample(collection.id, TEXTS)]
    texts = {}
    for point in store.retrieve(collection.name, ids):
        if len(words := LETTERS.findall(point.payload[RESERVED_KEY]["text"])) >= MIN_WORDS:
            texts[str(point.payload[RESERVED_KEY]["document_id"])] = words
    if len(texts) < TEXTS // 4:
        return None
    chance = random.Random(TEXTS)  # noqa: S311 - the same each time
    own, strange = _queries(chance, texts)
    ask = partial(ask_collections, settings, index, store, [collection.name], texts=True)
    [answers], [none] = ask(list(own.values()), limit=FIRST), ask(strange, limit=1, dense_weight=1.0)
    hybrid = [answer.points for found in answers for answer in found.answered if answer.hybrid]
    trusted = not hybrid or sum(map(agree, hybrid)) >= AGREEMENT * len(hybrid)
    long = [one for query, one in zip(own.values(), answers, strict=True) if len(query.split()) > SHORT]
    best = [[max(hit.cosine for hit in hits) for one in some if (hits := reordered(one))] for some in (none, long)]
    if not all(best):
        return None
    return replace(Calibration.learn(best[1], best[0], words=bm25_model(index) is not None), trusted=trusted)


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
