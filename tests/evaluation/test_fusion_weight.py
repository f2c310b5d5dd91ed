"""The weight of fusion: found where there is a better one, left alone where there is none."""

import numpy as np
import pytest

from rag_index.errors import SettingsError
from rag_index.evaluation.evaluation import choose_weight


def measures(seed, *, peak=None, noise=0.3, queries=100):
    """Return a function from a weight to the measure of each query, best at `peak`, with luck for each pair."""
    random = np.random.default_rng(seed)
    luck = {}

    def values(weight):
        weight = 0.4 if weight is None else weight
        if weight not in luck:
            luck[weight] = random.normal(0, noise, queries)
        return list(0.5 - (0 if peak is None else abs(weight - peak)) + luck[weight])

    return values


def test_a_better_weight_is_found_and_its_gain_is_the_held_out_one():
    found = choose_weight(measures(1, peak=0.8), 0.4, "nDCG@10")
    assert found.best_weight == pytest.approx(0.8, abs=0.1)
    assert found.worthwhile
    assert found.gain.mean == pytest.approx(0.4, abs=0.12)
    assert found.gain.mean == pytest.approx(found.best.mean - found.present.mean)
    assert (found.metric, found.queries, found.folds, found.present_weight) == ("nDCG@10", 100, 5, 0.4)


def test_luck_is_not_taken_for_a_gain():
    choices = [choose_weight(measures(seed), 0.4, "nDCG@10") for seed in range(40)]
    assert sum(one.worthwhile for one in choices) <= 3
    assert np.mean([one.gain.mean for one in choices]) == pytest.approx(0, abs=0.02)


def test_where_no_weight_matters_the_present_one_stays():
    for present in (0.4, 0.37, 0.0, 1.0):
        found = choose_weight(lambda _: [1.0, 0.0] * 20, present, "recall@10")
        assert found.best_weight == pytest.approx(present, abs=0.026)
        assert (found.worthwhile, found.gain.low, found.gain.high) == (False, 0, 0)
    peaks = {0.2: 0.6, 0.65: 0.5, 0.7: 0.55, 0.75: 0.5}
    found = choose_weight(lambda weight: [peaks.get(weight, 0.3)] * 40, 0.4, "x")
    assert found.best_weight == 0.7, "a peak of one weight alone is not chosen"
    with pytest.raises(SettingsError, match="a weight cannot be chosen with 19 queries: at least 20 are needed"):
        choose_weight(lambda _: [1.0] * 19, 0.4, "recall@10")
