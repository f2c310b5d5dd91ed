"""Intervals: the same each time, and as wide as chance makes them."""

from __future__ import annotations

import numpy as np
import pytest

from rag_index.evaluation.significance import estimate


def test_equal_values_have_no_interval():
    assert estimate([0.5] * 30) == estimate([0.5])
    assert (estimate([0.5]).mean, estimate([0.5]).low, estimate([0.5]).high) == (0.5, 0.5, 0.5)


def test_the_interval_is_that_of_the_normal_distribution_and_the_same_each_time():
    values = [1.0] * 120 + [0.0] * 280
    one = estimate(values)
    assert one == estimate(values)
    assert one.mean == pytest.approx(0.3)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (one.low, one.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.008)


def test_nearly_all_intervals_hold_the_truth():
    random = np.random.default_rng(7)
    found = [estimate(random.random(60) ** 2) for _ in range(120)]
    assert 0.88 <= np.mean([one.low <= 1 / 3 <= one.high for one in found]) <= 0.99
