"""An embedder that knows nothing of the texts costs nothing: meaning weighs less where words disagree with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rag_index import Retriever
from tests.retrieve.desk import Desk, found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_index.embedders import EmbedderIdentity
    from rag_index.settings import EmbedderSettings


class NoiseEmbedder:
    """An embedder whose vectors have nothing to do with the query."""

    def __init__(self, settings: EmbedderSettings, *, expected: EmbedderIdentity) -> None:
        self._identity, self._chance = expected, np.random.default_rng(1)

    def identity(self) -> EmbedderIdentity:
        return self._identity

    def embed_queries(self, texts: list[str]) -> list[NDArray[np.float32]]:
        vectors = self._chance.normal(size=(len(texts), self._identity.dimension))
        return list((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Two indexes of texts that share words: each is best found by all of its own."""
    words = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("arn", "elt", "ird", "omp", "uss")]
    chance = np.random.default_rng(2)
    texts = [" ".join(chance.choice(words, 8, replace=False)) for _ in range(800)]
    rows = {name: [(n, texts[n]) for n in range(place, 800, 2)] for place, name in enumerate(("comments", "titles"))}
    return Desk(tmp_path_factory.mktemp("desk"), names=tuple(rows)).fill(rows)


def test_random_vectors_find_what_words_alone_find_and_vectors_of_the_texts_keep_their_weight(desk: Desk) -> None:
    with desk.retriever() as retriever:
        hits = retriever.search_sync("barn felt", limit=40).hits
        asked = [(" ".join(hit.text.split()[:5]), hit.document_id) for hit in hits]
        known = [retriever.search_sync(query) for query, _ in asked]

    def found_by(retriever: Retriever, **options) -> int:
        return sum(
            wanted in [document for _, document in found(retriever.search_sync(query, limit=3, **options))]
            for query, wanted in asked
        )

    with Retriever(desk.settings, open_embedder=NoiseEmbedder) as retriever:
        both, words = found_by(retriever), found_by(retriever, dense_weight=0)
        weights = [retriever.search_sync(query).dense_weight for query, _ in asked]
    assert words >= 33
    assert both >= words - 1
    assert {round(one, 3) for one in weights} == {0.105, 0.7}
    assert weights.count(0.7) < len(weights) / 2
    assert sum(result.dense_weight == 0.7 for result in known) > len(known) / 2
    assert all(result.hits[0].score == max(hit.score for hit in result.hits) for result in known)
