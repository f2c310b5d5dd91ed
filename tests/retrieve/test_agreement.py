"""The weight of meaning falls where meaning and words disagree: an embedder that knows nothing costs nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rag_index import Retriever
from rag_index.retrieve.fusion import trusted_weight
from tests.retrieve.desk import Desk, found
from tests.retrieve.test_fusion import point

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_index.documents.batches import StoredPoint
    from rag_index.embedders import EmbedderIdentity
    from rag_index.settings import EmbedderSettings


def points(bm25: dict[int, float], count: int = 100) -> list[StoredPoint]:
    """Return points of which each is farther away than the one before, and some have words."""
    return [replace(point(str(n), 0, 1 - n / count), bm25=bm25.get(n, 0.0)) for n in range(count)]


@pytest.mark.parametrize(
    ("bm25", "weight"),
    [
        (dict.fromkeys([24, *range(40, 60)], 5.0), 0.4),
        (dict.fromkeys(range(25, 60), 5.0), 0.06),
        ({0: 1.0, 1: 1.0} | dict.fromkeys(range(40, 50), 5.0), 0.06),  # near, but not among the ten best by words
        ({0: 1.0}, 0.4),
        ({90: 1.0}, 0.06),  # the only one with the words
        ({}, 0.4),
    ],
)
def test_the_weight_falls_if_no_chunk_is_among_the_best_of_both(bm25: dict[int, float], weight: float) -> None:
    candidates = points(bm25)
    assert trusted_weight(candidates, 0.4) == pytest.approx(weight)
    assert trusted_weight(candidates[::-1], 0.4) == pytest.approx(weight)
    assert trusted_weight(candidates, 0.0) == 0
    assert trusted_weight([], 0.4) == 0.4


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
    folder: Path = tmp_path_factory.mktemp("desk")
    return Desk(folder, names=tuple(rows)).fill(rows)


def questions(desk: Desk) -> list[tuple[str, str]]:
    """Return some words of a text, and its id."""
    with desk.retriever() as retriever:
        hits = retriever.search_sync("barn felt", limit=60).hits
    return [(" ".join(hit.text.split()[:5]), hit.document_id) for hit in hits]


def places(retriever: Retriever, asked: list[tuple[str, str]], **options) -> list[bool]:
    return [
        wanted in [document for _, document in found(retriever.search_sync(query, limit=3, **options))]
        for query, wanted in asked
    ]


def test_random_vectors_find_what_words_alone_find(desk: Desk) -> None:
    asked = questions(desk)
    with Retriever(desk.settings, open_embedder=NoiseEmbedder) as retriever:
        both, words = places(retriever, asked), places(retriever, asked, dense_weight=0)
        weights = [retriever.search_sync(query).dense_weight for query, _ in asked]
    assert sum(words) >= 50
    assert sum(both) >= sum(words) - 1
    assert {round(one, 3) for one in weights} == {0.105, 0.7}
    assert weights.count(0.7) < len(weights) / 2


def test_an_embedder_that_knows_the_texts_keeps_its_weight_and_the_result_says_so(desk: Desk) -> None:
    with desk.retriever() as retriever:
        results = [retriever.search_sync(query) for query, _ in questions(desk)]
    assert sum(result.dense_weight == 0.7 for result in results) > len(results) / 2
    for result in results:
        assert result.hits[0].score == max(hit.score for hit in result.hits)
