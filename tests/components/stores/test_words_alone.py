"""Points without a dense vector: found by their words, counted, copied, and replaced."""

import numpy as np
import pytest

from rag_index.components.stores.queries import VectorQuery
from rag_index.core.documents.batches import PointBatch
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from tests.components.stores.test_contract import new_name, store

__all__ = ["store"]

IDS = [f"00000000-0000-5000-8000-00000000000{number}" for number in range(4)]
WORDS = [SparseVector((1,), (1.0,)), SparseVector((1, 2), (1.0, 1.0)), SparseVector((2,), (3.0,)), SparseVector((), ())]
NEAR, FAR = [1.0, 0.0], [-0.6, 0.8]


def batch(rows, vectors):
    payloads = [{"_rag": {"key": str(row), "chunk": 0}} for row in rows]
    given = None if vectors is None else np.asarray(vectors, dtype=np.float32)
    return PointBatch(
        [IDS[row] for row in rows], given, payloads, SparseVectors.from_rows([WORDS[row] for row in rows])
    )


@pytest.fixture
def name(store):
    """A collection of two points with vectors, and two without; the last has no words either."""
    name = new_name()
    store.create(name, 2, {}, sparse=True)
    store.upsert(name, batch([0, 1], [NEAR, FAR]))
    store.upsert(name, batch([2, 3], None))
    store.flush(name)
    return name


def found(store, name):
    query = VectorQuery(np.asarray(NEAR, dtype=np.float32), 10, SparseVector((1, 2), (1.0, 1.0)))
    return {IDS.index(point.id): point for point in store.search(name, query)}


def test_a_missing_vector_is_the_lowest_cosine_of_the_candidates(store, name):
    points = found(store, name)
    assert points.keys() == {0, 1, 2}
    assert [points[n].score for n in (0, 1, 2)] == pytest.approx([1.0, -0.6, -0.6], abs=1e-5)
    assert [points[n].by_words for n in (0, 1, 2)] == [False, False, True]
    assert points[2].bm25 > points[1].bm25 > 0
    assert [point.id for point in store.search(name, VectorQuery(np.asarray(NEAR, dtype=np.float32), 10))] == IDS[:2]


def test_they_are_counted_read_and_replaced(store, name):
    assert store.count(name) == 4
    assert [point.vector is None for point in store.scroll(name, vectors=True)] == [False, False, True, True]
    store.update_payloads(name, [(IDS[2], {"_rag": {"key": "2", "chunk": 0, "groups": ["staff"]}})])
    store.upsert(name, batch([2, 3], [NEAR, FAR]))
    assert store.count(name) == 4
    assert not any(point.by_words for point in found(store, name).values())
