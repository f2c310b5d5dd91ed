"""Calibration: what the scores of a collection mean, learned from queries that fit something and others that do not.

Both kinds are made of its own texts. A query that fits is some words of one text that stand near each other, a third of
which are replaced, since people use other words than the text. One that fits nothing has each of its words from another
text, and some of them are spelled backwards.
"""

from __future__ import annotations

import random
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders import EmbedderIdentity, open_embedder
from rag_index.components.embedders.bm25 import Bm25Encoder, bm25_model
from rag_index.components.embedders.tokenizer import backwards, sample_words
from rag_index.components.stores import CALIBRATION, UNLEARNED
from rag_index.components.stores.protocol import Store, VectorQuery
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.documents.keys import point_id
from rag_index.errors import BadVectors, RagIndexError, TextRefused, TextTooLong
from rag_index.search.filters import required_conditions
from rag_index.search.fusion import BEST_BY_MEANING, agree
from rag_index.search.live_collections import WITH_WORDS, Calibration
from rag_index.search.relevance import DOUBT, THRESHOLD, logit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.core.documents.vectors import SparseVector
    from rag_index.core.reports.metrics import Stopwatch
    from rag_index.core.settings import IndexSettings, Settings

SAMPLED_TEXTS, KNOWN, STRANGE = 200, 25, 40
"""Texts that words are taken from, and queries of both kinds."""
REPLACED, BACKWARDS = 0.3, 0.3
QUERY_LENGTHS, SHORT_LENGTHS, MIN_WORDS = (2, 3, 4, 6, 9, 14, 24, 40), 3, 8
"""How long queries are; how many of these lengths are too short to tell a text that fits; the words of a text at least.
"""
FITS_BETWEEN, UNSURE = 1 / 6, -0.9
"""Where between the cosines of nonsense and of known texts a hit begins to fit, and the evidence that it needs where
cosines tell nothing."""
COSINE, MIN_GAP = 1.6, 0.12
"""The weight of the range of cosines between nonsense and known texts, and that range at least."""
AGREEMENT = 0.5
"""The share of queries about whose best chunks meaning and words agree, where meaning is trusted."""


@dataclass(frozen=True, slots=True)
class Learner:
    """Learns what the scores of a collection mean. `identity` names the embedder that made the collection."""

    settings: Settings
    index: IndexSettings
    ledger: Ledger
    store: Store
    collection: Collection
    identity: EmbedderIdentity

    def learn(self, documents: int, stopwatch: Stopwatch) -> None:
        """Record what the scores mean, or that so many `documents` did not tell."""
        with stopwatch.stage("gate"), suppress(RagIndexError):
            learned = self.ask_own_texts()
            recorded = {UNLEARNED: documents} if learned is None else asdict(learned)
            self.store.set_metadata(self.collection.name, {CALIBRATION: recorded})

    def ask_own_texts(self) -> Calibration | None:
        """Ask the collection for texts that it has and for some that it lacks, and return the calibration.

        Returns None if it has too few texts. Raises what store and embedder raise.
        """
        own, strange, vectors = _embedded(self.settings, self.identity, self._words())
        model, conditions = bm25_model(self.index), required_conditions(self.index)
        encoder = Bm25Encoder(model) if model else None

        def nearest(query: str, limit: int, words: SparseVector | None = None) -> list[StoredPoint]:
            wanted = VectorQuery(vectors[query], limit, words, conditions, payload=False)
            return self.store.search(self.collection.name, wanted)

        asked_for = [query for query in own if query in vectors]
        found = [nearest(query, BEST_BY_MEANING, encoder.query(query) if encoder else None) for query in asked_for]
        known = [max(one.score for one in points) for points in found if points]
        nothing = [points[0].score for query in strange if query in vectors and (points := nearest(query, 1))]
        if not (known and nothing):
            return None
        trusted = encoder is None or sum(map(agree, found)) >= AGREEMENT * len(found)
        return replace(learn(known, nothing, words=encoder is not None), trusted=trusted)

    def _words(self) -> dict[str, list[str]]:
        """Return the words of some documents of the collection, by id; none of those with few."""
        ids = [point_id(self.index.name, key, 0) for key in self.ledger.sample(self.collection.id, SAMPLED_TEXTS)]
        ours = [point.payload[RESERVED_KEY] for point in self.store.retrieve(self.collection.name, ids)]
        texts = {str(one["document_id"]): sample_words(one["text"]) for one in ours}
        return {document_id: words for document_id, words in texts.items() if len(words) >= MIN_WORDS}


def learn(known: Sequence[float], strange: Sequence[float], *, words: bool) -> Calibration:
    """Return the calibration of a collection, given the best cosine of each query of both kinds.

    Weights and threshold are those of test collections, between the collection's own cosines. Medians alone are
    learned: the quantiles of some dozen queries differ too much from one sample to another.
    """
    low, high = float(np.median(strange)), float(np.median(known))
    gap = high - low
    cosine = COSINE / gap if gap >= MIN_GAP else 0.0
    weights = Calibration(0.0, round(cosine if words else 2 * cosine, 4), WITH_WORDS.words if words else 0.0)
    bound = logit(weights, low + FITS_BETWEEN * gap, DOUBT if cosine else UNSURE)
    return replace(weights, bias=round(THRESHOLD - bound, 4))


def _embedded(
    settings: Settings, identity: EmbedderIdentity, texts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return queries that fit these texts, queries that fit none, and the vectors of both; nothing if texts are few."""
    if len(texts) < SAMPLED_TEXTS // 4:
        return [], [], {}
    own, strange = _queries(random.Random(SAMPLED_TEXTS), texts)  # noqa: S311 - the same each time
    with closing(open_embedder(settings.embedder, expected=identity)) as embedder:
        entries = dict(zip([*own, *strange], embedder.embed_queries([*own, *strange]), strict=True))
    for entry in entries.values():
        if isinstance(entry, RagIndexError) and not isinstance(entry, (BadVectors, TextRefused, TextTooLong)):
            raise entry  # a server that is down teaches nothing
    return own, strange, {query: entry for query, entry in entries.items() if not isinstance(entry, Exception)}


def _queries(chance: random.Random, texts: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return a query for each of some texts, of some of its words; and some that fit nothing.

    `texts` has the words of each text, by the id of its document.
    """
    own, ids = list[str](), sorted(texts)
    for document_id, length in zip(chance.sample(ids, min(KNOWN, len(ids))), cycle(QUERY_LENGTHS[SHORT_LENGTHS:])):
        words = texts[document_id]
        start = chance.randrange(max(1, len(words) - 2 * length))
        around = words[start : start + 2 * length]
        some = [around[place] for place in sorted(chance.sample(range(len(around)), min(length, len(around))))]
        replaced = [chance.choice(texts[chance.choice(ids)]) if chance.random() < REPLACED else word for word in some]
        own.append(" ".join(replaced))
    strange = [
        [chance.choice(texts[one]) for one in chance.choices(ids, k=length)]
        for length in islice(cycle(QUERY_LENGTHS), STRANGE)
    ]
    turned = [[backwards(word) if chance.random() < BACKWARDS else word for word in words] for words in strange]
    return own, [" ".join(words) for words in turned]
