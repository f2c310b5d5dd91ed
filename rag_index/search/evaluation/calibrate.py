"""Calibration: what the scores of a collection mean, learned from queries that fit something and
others that do not.

Both kinds are made of its own texts. A query that fits is some words of one text that stand near
each other, a third of which are replaced, since people use other words than the text. One that fits
nothing has each of its words from another text, and some of them are spelled backwards.
"""

from __future__ import annotations

import math
import random
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders import EmbedderIdentity, open_embedder
from rag_index.components.embedders.bm25 import Bm25Encoder, bm25_model
from rag_index.components.embedders.tokenizer import SAMPLED, backwards
from rag_index.components.embedders.traits import PAIRS, ModelTraits
from rag_index.components.stores import CALIBRATION, CALIBRATION_RULE, TRAITS, UNLEARNED
from rag_index.components.stores.protocol import Store, VectorQuery
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.documents.keys import point_id
from rag_index.errors import BadVectors, RagIndexError, TextRefused, TextTooLong
from rag_index.search.filters import required_conditions
from rag_index.search.fusion import BEST_BY_MEANING, BEST_BY_WORDS, agree
from rag_index.search.live_collections import WITH_WORDS, Calibration
from rag_index.search.relevance import DOUBT, NEAR, THRESHOLD, logit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.core.reports.metrics import Stopwatch
    from rag_index.core.settings import IndexSettings, Settings

SAMPLES, SAMPLED_TEXTS, KNOWN, STRANGE = 4, 200, 25, 40
"""Samples, the texts of each that words are taken from, and its queries of both kinds. One sample
alone may be wrong: on a desk of similar texts the gap was .076 to .156 by sample."""
MOST_FOREIGN = 0.9
"""The share of foreign queries that are nonsense to a small collection: some subjects may be its
own."""
MIN_LEARNED_DOCUMENTS = 500
"""A smaller collection is asked foreign queries alone: its texts are too few to be strangers to
each other."""
REPLACED, BACKWARDS = 0.3, 0.3
QUERY_LENGTHS, SHORT_LENGTHS, MIN_WORDS = (2, 3, 4, 6, 9, 14, 24, 40), 3, 8
"""How long queries are; how many of these lengths are too short to tell a text that fits; the words
of a text at least.
"""
FITS_BETWEEN = 1 / 6
"""Where between the cosines of nonsense and of known texts a hit begins to fit."""
FITS_BY_WORDS, NEAR_BY_WORDS = 0.0, -0.2
"""Where cosines tell nothing: the evidence with which a hit begins to fit, and that below which
nothing does."""
COSINE = 1.6
"""The weight of the gap between the cosines of nonsense and of known texts."""
MIN_SEPARATION = 0.4
"""The gap at least, as a share of the spread of the cosines of nonsense. Cosines of models differ
in scale: the gap was .05 with bge-small and .2 with wordllama. Of random vectors it is 0, plus or
minus .2."""
GAP_OF_ORDER, GAP_OF_TOKENS = 0.45, 1.0
"""The gap in a collection beside that of `ModelTraits`, for models that read the order of words and
for others. Found with Cranfield, CISI and a desk, and three models."""
AGREEMENT = 0.5
"""The share of queries about whose best chunks meaning and words agree, where meaning is
trusted."""


@dataclass(frozen=True, slots=True)
class Learner:
    """Learns what the scores of a collection mean. `identity` names the embedder that made the
    collection."""

    settings: Settings
    index: IndexSettings
    ledger: Ledger
    store: Store
    collection: Collection
    identity: EmbedderIdentity

    def learn(self, documents: int, stopwatch: Stopwatch) -> None:
        """Record what the scores mean. A collection of few `documents` records that, too: it learns
        again later."""
        with stopwatch.stage("gate"), suppress(RagIndexError):
            learned = self.ask_own_texts() if documents >= MIN_LEARNED_DOCUMENTS else None
            recorded: dict[str, Any] = {} if learned is None else asdict(learned)
            if learned is None:
                standing = self.ask_foreign_texts()
                recorded = {} if standing is None else asdict(standing)
                recorded[UNLEARNED] = documents
            recorded["rule"] = CALIBRATION_RULE
            self.store.points(self.collection.name).set_metadata({CALIBRATION: recorded})

    def ask_own_texts(self) -> Calibration | None:
        """Ask the collection for texts that it has and for some that it lacks, and return the
        calibration.

        Returns None if it has too few texts. Raises what store and embedder raise.
        """
        queries = list[tuple[list[str], list[str]]]()
        for number in range(SAMPLES):
            texts = self._words()
            if len(texts) < SAMPLED_TEXTS // 4:
                return None
            queries.append(_queries(random.Random(SAMPLED_TEXTS + number), texts))  # noqa: S311 - the same each time
        # All at once: opening a model in the process takes longer than embedding the queries.
        every = list(chain.from_iterable(chain(own, strange) for own, strange in queries))
        vectors = _embedded(self.settings, self.identity, every)
        samples = [self._ask(own, strange, vectors) for own, strange in queries]
        asked = [sample for sample in samples if sample.known and sample.strange]
        if not asked:
            return None
        agreed = [one for sample in asked for one in sample.agreed]
        trusted = not agreed or sum(agreed) >= AGREEMENT * len(agreed)
        return replace(learn(asked, words=bm25_model(self.index) is not None), trusted=trusted)

    def ask_foreign_texts(self) -> Calibration | None:
        """Return the calibration of a collection too small to learn from: what it answers to
        queries about other things is nonsense, and known texts are as much nearer as the model's
        traits say. None if it has no points, or if its model was not measured."""
        metadata = self.store.points(self.collection.name).metadata()
        traits = ModelTraits.from_metadata(metadata.get(TRAITS))
        if traits is None:
            return None
        queries = [query for query, _ in PAIRS]
        vectors = _embedded(self.settings, self.identity, queries)
        best = [
            points[0].score
            for query in queries
            if query in vectors and (points := self._nearest(vectors[query]))
        ]
        if not best:
            return None
        share = GAP_OF_ORDER if traits.reads_order else GAP_OF_TOKENS
        strange = float(np.quantile(best, MOST_FOREIGN))
        known = strange + share * max(0.0, traits.known - traits.strange)
        return learn([Sample([known], [strange])], words=bm25_model(self.index) is not None)

    def _ask(
        self, own: Sequence[str], strange: Sequence[str], vectors: Mapping[str, Any]
    ) -> Sample:
        """Return the best cosine of each query of one sample: of its `own` texts, and of those that
        fit none."""
        model = bm25_model(self.index)
        encoder = Bm25Encoder(model) if model else None
        sample = Sample([], [])
        for query in own:
            points = self._nearest(vectors[query], BEST_BY_MEANING) if query in vectors else []
            if points:
                sample.known.append(max(point.score for point in points))
            if points and encoder:
                worded = self._found(VectorQuery(None, BEST_BY_WORDS, encoder.query(query)))
                sample.agreed.append(agree(points, worded))
        for query in strange:
            points = self._nearest(vectors[query]) if query in vectors else []
            if points:
                sample.strange.append(points[0].score)
        return sample

    def _nearest(self, vector: Any, limit: int = 1) -> list[StoredPoint]:
        return self._found(VectorQuery(vector, limit))

    def _found(self, wanted: VectorQuery) -> list[StoredPoint]:
        """Return the points that a search may find, the best first."""
        wanted = replace(wanted, conditions=required_conditions(self.index), payload=False)
        return self.store.points(self.collection.name).search(wanted)

    def _words(self) -> dict[str, list[str]]:
        """Return the words of some documents of the collection, by id; none of those with few."""
        ids = [
            point_id(self.index.name, key, 0)
            for key in self.ledger.sample(self.collection.id, SAMPLED_TEXTS)
        ]
        found = self.store.points(self.collection.name).retrieve(ids)
        ours = [point.payload[RESERVED_KEY] for point in found]
        texts = {str(one["document_id"]): SAMPLED.words_in(one["text"]) for one in ours}
        return {
            document_id: words for document_id, words in texts.items() if len(words) >= MIN_WORDS
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """What some queries found in a collection.

    Attributes:
        known: The best cosine of each query that fits a text.
        strange: The best cosine of each query that fits none.
        agreed: For each query that fits a text, whether words and meaning agree about it; empty
            without words.
    """

    known: list[float]
    strange: list[float]
    agreed: list[bool] = field(default_factory=list)


def learn(samples: Sequence[Sample], *, words: bool) -> Calibration:
    """Return the calibration of a collection that was asked these samples.

    Weights and threshold are those of test collections, between the collection's own cosines.
    Medians alone are learned: the quantiles of some dozen queries differ too much from one sample
    to another.
    """
    low = float(np.mean([np.median(sample.strange) for sample in samples]))
    high = float(np.mean([np.median(sample.known) for sample in samples]))
    spread = float(np.std([cosine for sample in samples for cosine in sample.strange]))
    gap = high - low
    separates = gap > MIN_SEPARATION * spread and gap > 0
    if words and not separates:
        return by_words_alone()
    cosine = COSINE / gap if separates else 0.0
    weights = Calibration(
        0.0, round(cosine if words else 2 * cosine, 4), WITH_WORDS.words if words else 0.0
    )
    bound = logit(weights, low + FITS_BETWEEN * gap, DOUBT)
    return replace(weights, bias=round(THRESHOLD - bound, 4))


def by_words_alone() -> Calibration:
    """Return the calibration of a collection whose cosines tell nothing, on a scale that reaches
    both thresholds."""
    between = THRESHOLD - math.log(NEAR / (1 - NEAR))
    weight = between / (FITS_BY_WORDS - NEAR_BY_WORDS)
    return Calibration(round(THRESHOLD - weight * FITS_BY_WORDS, 4), 0.0, round(weight, 4))


def _embedded(
    settings: Settings, identity: EmbedderIdentity, queries: Sequence[str]
) -> dict[str, Any]:
    """Return the vector of each query that has one. Raises what an embedder raises that is
    unavailable."""
    with closing(open_embedder(settings.embedder, expected=identity)) as embedder:
        entries = dict(zip(queries, embedder.embed_queries(queries), strict=True))
    for entry in entries.values():
        if isinstance(entry, RagIndexError) and not isinstance(
            entry, (BadVectors, TextRefused, TextTooLong)
        ):
            raise entry
    return {query: entry for query, entry in entries.items() if not isinstance(entry, Exception)}


def _queries(
    chance: random.Random, texts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Return a query for each of some texts, of some of its words; and some that fit nothing.

    `texts` has the words of each text, by the id of its document.
    """
    own, ids = list[str](), sorted(texts)
    for document_id, length in zip(
        chance.sample(ids, min(KNOWN, len(ids))), cycle(QUERY_LENGTHS[SHORT_LENGTHS:])
    ):
        words = texts[document_id]
        start = chance.randrange(max(1, len(words) - 2 * length))
        around = words[start : start + 2 * length]
        some = [
            around[place]
            for place in sorted(chance.sample(range(len(around)), min(length, len(around))))
        ]
        replaced = [
            chance.choice(texts[chance.choice(ids)]) if chance.random() < REPLACED else word
            for word in some
        ]
        own.append(" ".join(replaced))
    strange = [
        [chance.choice(texts[one]) for one in chance.choices(ids, k=length)]
        for length in islice(cycle(QUERY_LENGTHS), STRANGE)
    ]
    turned = [
        [backwards(word) if chance.random() < BACKWARDS else word for word in words]
        for words in strange
    ]
    return own, [" ".join(words) for words in turned]
