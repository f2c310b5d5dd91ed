"""Comparing two sets of points."""

import numpy as np
import pytest

from rag_index.care.benchmark import Vectors, parity


def vectors(count=60, seed=1, dimension=16) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return Vectors([f"p{i}" for i in range(count)], rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_the_same_points_in_another_order_are_equal():
    one = vectors()
    order = np.random.default_rng(2).permutation(60)
    found = parity(one, Vectors([one.ids[i] for i in order], one.matrix[order]))
    assert (found.same_ids, found.largest_difference, found.recall) == (True, 0.0, 1.0)


def test_changed_vectors_are_detected():
    one = vectors()
    other = one.matrix.copy()
    other[3, 5] += 0.25
    found = parity(one, Vectors(one.ids, other))
    assert found.largest_difference == pytest.approx(0.25)
    assert 0.9 < found.recall < 1.0
    found = parity(one, vectors(seed=9))
    assert (found.same_ids, found.recall < 0.5) == (True, True)
    assert not parity(one, Vectors(one.ids[:-1], one.matrix[:-1])).same_ids


def test_it_does_not_matter_which_of_equal_neighbours_is_found():
    one = vectors(5)
    many = Vectors([f"p{i}" for i in range(50)], np.repeat(one.matrix, 10, axis=0))
    shuffled = np.random.default_rng(3).permutation(50)
    assert parity(many, Vectors([many.ids[i] for i in shuffled], many.matrix[shuffled])).recall == 1.0
