"""Calibration: the relation between scores and relevance, learned for each collection.

Two kinds of queries are made from the collection's own texts. A known query fits a text: it has
words of one text that are near each other, a third of them replaced, because people use other words
than the text. A strange query fits nothing: it has each of its words from another text, and some of
them are spelled backwards.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

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

    from rag_index.components.embedders import Embedder
    from rag_index.components.ledger import Collection, Ledger
    from rag_index.core.settings import IndexSettings

SAMPLES = 4
"""Samples of a collection. A single one may be wrong: on a desk of similar texts the gap was .076 to
.156 by sample."""
SAMPLED_TEXTS, KNOWN, STRANGE = 200, 25, 40
"""Texts of a sample, and its queries of both kinds."""
MOST_FOREIGN = 0.9
"""The quantile of the cosines of foreign queries that is nonsense to a small collection: a few of
their subjects may be its own."""
MIN_LEARNED_DOCUMENTS = 500
"""In a smaller collection only foreign queries are used: its own texts are too few to be strangers
to each other."""
REPLACED, BACKWARDS = 0.3, 0.3
"""The shares of words that are replaced in known queries and spelled backwards in strange ones."""
QUERY_LENGTHS, SHORT_LENGTHS, MIN_WORDS = (2, 3, 4, 6, 9, 14, 24, 40), 3, 8
"""Numbers of words of a query; how many of these are too short to identify a text; the least words
of a text."""
FITS_BETWEEN = 1 / 6
"""The place between the cosines of strange (0) and known queries (1) at which a hit begins to
fit."""
FITS_BY_WORDS, NEAR_BY_WORDS = 0.0, -0.2
"""If cosines say nothing: the evidence of words at which a hit begins to fit, and the evidence
below which nothing does."""
COSINE = 1.6
"""The weight of the cosine, for a gap of 1 between the cosines of strange and known queries."""
MIN_SEPARATION = 0.4
"""The least gap, as a share of the spread of the cosines of strange queries. Cosines of models
differ in scale: the gap was .05 with bge-small and .2 with wordllama. With random vectors, it is 0,
plus or minus .2."""
GAP_OF_ORDER, GAP_OF_TOKENS = 0.45, 1.0
"""The gap in a collection as a share of that in `ModelTraits`: for models that read the order of
words, and for others. Found with Cranfield, CISI and a desk, and three models."""
AGREEMENT = 0.5
"""The least share of queries for which meaning and words agree about the best chunks, if meaning is
to be trusted."""


@dataclass(frozen=True, slots=True)
class Learner:
    """Learns the calibration of a collection, with the embedder that made it."""

    index: IndexSettings
    ledger: Ledger
    store: Store
    collection: Collection
    embedder: Embedder

    def learn(self, documents: int) -> None:
        """Store the calibration in the metadata of the collection, which has so many `documents`.

        A small collection also stores their number: it learns again once it has grown. Raises what
        store and embedder raise; then nothing is stored.
        """
        learned = self.ask_own_texts() if documents >= MIN_LEARNED_DOCUMENTS else None
        is_small = learned is None
        if learned is None:
            learned = self.ask_foreign_texts()
        recorded: dict[str, Any] = {} if learned is None else asdict(learned)
        if is_small:
            recorded[UNLEARNED] = documents
        recorded["rule"] = CALIBRATION_RULE
        self.store.points(self.collection.name).set_metadata({CALIBRATION: recorded})

    def ask_own_texts(self) -> Calibration | None:
        """Return the calibration from known and strange queries; None if there are too few texts.

        Raises what store and embedder raise.
        """
        queries = list[Queries]()
        for number in range(SAMPLES):
            texts = self._words()
            if len(texts) < SAMPLED_TEXTS // 4:
                return None
            chance = random.Random(SAMPLED_TEXTS + number)  # noqa: S311 - the same each time
            queries.append(_queries(chance, texts))
        # All at once: a server takes one request for many texts.
        texts_to_embed = list[str]()
        for sampled in queries:
            texts_to_embed += [*sampled.known, *sampled.strange]
        vectors = _embedded(self.embedder, texts_to_embed)
        samples = [self._ask(sampled, vectors) for sampled in queries]
        # Without the samples for which a kind has no vectors.
        complete = [sample for sample in samples if sample.known and sample.strange]
        if not complete:
            return None
        agreed = list[bool]()
        for sample in complete:
            agreed += sample.agreed
        is_trusted = not agreed or sum(agreed) >= AGREEMENT * len(agreed)
        calibration = learn(complete, words=bm25_model(self.index) is not None)
        return replace(calibration, trusted=is_trusted)

    def ask_foreign_texts(self) -> Calibration | None:
        """Return the calibration of a small collection from foreign queries and the model's traits.

        Nearly all foreign queries are strange to the collection. The gap to known queries follows
        from the model's. Return None if the collection is empty, or if its model was not measured.
        """
        metadata = self.store.points(self.collection.name).metadata()
        traits = ModelTraits.from_metadata(metadata.get(TRAITS))
        if traits is None:
            return None
        vectors = _embedded(self.embedder, [query for query, _ in PAIRS])
        found = self._nearest(vectors, list(vectors))
        best = [points[0].score for points in found if points]
        if not best:
            return None
        share = GAP_OF_ORDER if traits.reads_order else GAP_OF_TOKENS
        strange = float(np.quantile(best, MOST_FOREIGN))
        known = strange + share * max(0.0, traits.known - traits.strange)
        sample = CosineSample(known=[known], strange=[strange])
        return learn([sample], words=bm25_model(self.index) is not None)

    def _ask(self, queries: Queries, vectors: Mapping[str, Any]) -> CosineSample:
        """Return the best cosines of both kinds of queries. A query without a vector is left
        out."""
        known = [query for query in queries.known if query in vectors]
        strange = [query for query in queries.strange if query in vectors]
        sample = CosineSample([], [])
        nearest = self._nearest(vectors, known, BEST_BY_MEANING)
        for points in nearest:
            if points:
                sample.known.append(max(point.score for point in points))
        model = bm25_model(self.index)
        if model:
            encoder = Bm25Encoder(model)
            by_words = [VectorQuery(None, BEST_BY_WORDS, encoder.query(query)) for query in known]
            for points, with_words in zip(nearest, self._found(by_words), strict=True):
                if points:
                    sample.agreed.append(agree(points, with_words))
        for points in self._nearest(vectors, strange):
            if points:
                sample.strange.append(points[0].score)
        return sample

    def _nearest(
        self, vectors: Mapping[str, Any], queries: Sequence[str], limit: int = 1
    ) -> list[list[StoredPoint]]:
        """Return the nearest points of each query, all of which have vectors."""
        by_meaning = [VectorQuery(vectors[query], limit) for query in queries]
        return self._found(by_meaning)

    def _found(self, queries: Sequence[VectorQuery]) -> list[list[StoredPoint]]:
        """Return for each query the points that a search would find, best first."""
        conditions = required_conditions(self.index)
        asked = [replace(query, conditions=conditions, payload=False) for query in queries]
        return self.store.points(self.collection.name).search_all(asked)

    def _words(self) -> dict[str, list[str]]:
        """Return the words of a sample of texts, by document id. Short texts are left out."""
        keys = self.ledger.sample(self.collection.id, SAMPLED_TEXTS)
        ids = [point_id(self.index.name, key, 0) for key in keys]
        texts = dict[str, list[str]]()
        for point in self.store.points(self.collection.name).retrieve(ids):
            ours = point.payload[RESERVED_KEY]
            words = SAMPLED.words_in(ours["text"])
            if len(words) >= MIN_WORDS:
                texts[str(ours["document_id"])] = words
        return texts


@dataclass(frozen=True, slots=True)
class CosineSample:
    """The results of the queries of one sample.

    Attributes:
        known: The best cosine of each known query.
        strange: The best cosine of each strange query.
        agreed: For each known query, whether words and meaning agree; empty without words.
    """

    known: list[float]
    strange: list[float]
    agreed: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries of one sample: those that fit a text, and those that fit none."""

    known: list[str]
    strange: list[str]


def learn(samples: Sequence[CosineSample], *, words: bool) -> Calibration:
    """Return the calibration that follows from samples of a collection.

    The other weights and the threshold are those of test collections, moved to between the
    collection's own cosines. Only medians are learned: the quantiles of some dozen queries differ
    too much between samples.

    Args:
        words: Whether the collection can be searched by words.
    """
    low = float(np.mean([np.median(sample.strange) for sample in samples]))
    high = float(np.mean([np.median(sample.known) for sample in samples]))
    strange = list(chain.from_iterable(sample.strange for sample in samples))
    spread = float(np.std(strange))
    gap = high - low
    separates = gap > MIN_SEPARATION * spread and gap > 0
    # Cosines say nothing, as those of a model that does not know the language.
    if words and not separates:
        return by_words_alone()
    cosine = COSINE / gap if separates else 0.0
    # Without words, the cosine has the weight of both.
    if words:
        weights = Calibration(0.0, round(cosine, 4), WITH_WORDS.words)
    else:
        weights = Calibration(0.0, round(2 * cosine, 4), 0.0)
    bound = logit(weights, low + FITS_BETWEEN * gap, DOUBT)
    return replace(weights, bias=round(THRESHOLD - bound, 4))


def by_words_alone() -> Calibration:
    """Return the calibration of a collection whose cosines say nothing, on a scale that reaches
    both thresholds."""
    near = math.log(NEAR / (1 - NEAR))
    weight = (THRESHOLD - near) / (FITS_BY_WORDS - NEAR_BY_WORDS)
    bias = THRESHOLD - weight * FITS_BY_WORDS
    return Calibration(round(bias, 4), 0.0, round(weight, 4))


def _embedded(embedder: Embedder, queries: Sequence[str]) -> dict[str, Any]:
    """Return the vector of each query that has one.

    A query that the model refuses has none. Raises the other errors of an embedder, such as an
    outage.
    """
    entries = dict(zip(queries, embedder.embed_queries(queries), strict=True))
    vectors = dict[str, Any]()
    for query, entry in entries.items():
        if isinstance(entry, BadVectors | TextRefused | TextTooLong):
            continue
        if isinstance(entry, RagIndexError):
            raise entry
        if not isinstance(entry, Exception):
            vectors[query] = entry
    return vectors


def _queries(chance: random.Random, texts: Mapping[str, Sequence[str]]) -> Queries:
    """Return known and strange queries.

    Args:
        texts: The words of each text, by the id of its document.
    """
    ids = sorted(texts)
    known = list[str]()
    sampled = chance.sample(ids, min(KNOWN, len(ids)))
    for document_id, length in zip(sampled, cycle(QUERY_LENGTHS[SHORT_LENGTHS:])):
        words = _nearby_words(chance, texts[document_id], length)
        replaced = list[str]()
        for word in words:
            if chance.random() < REPLACED:
                replaced.append(chance.choice(texts[chance.choice(ids)]))
            else:
                replaced.append(word)
        known.append(" ".join(replaced))
    # First all words, then the ones to turn: the order in which `chance` is used counts.
    mixed = list[list[str]]()
    for length in islice(cycle(QUERY_LENGTHS), STRANGE):
        sources = chance.choices(ids, k=length)
        mixed.append([chance.choice(texts[document_id]) for document_id in sources])
    strange = list[str]()
    for words in mixed:
        turned = [backwards(word) if chance.random() < BACKWARDS else word for word in words]
        strange.append(" ".join(turned))
    return Queries(known, strange)


def _nearby_words(chance: random.Random, words: Sequence[str], length: int) -> list[str]:
    """Return `length` words from a part of a text twice as long, in their order."""
    start = chance.randrange(max(1, len(words) - 2 * length))
    part = words[start : start + 2 * length]
    places = chance.sample(range(len(part)), min(length, len(part)))
    return [part[place] for place in sorted(places)]
