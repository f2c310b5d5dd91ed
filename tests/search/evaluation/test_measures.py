"""Measures against ir-measures on random lists; the test of the gate, and how seldom it takes chance for a loss."""

import itertools
from math import comb

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.errors import SettingsError
from rag_index.search.evaluation.measures import (
    LEVEL,
    Estimate,
    Metric,
    chance_of_loss,
    estimate,
    measure,
    parse_metric,
)

THEIRS = {"recall": "R", "MRR": "RR", "nDCG": "nDCG"}

documents = st.lists(st.integers(0, 12), unique=True, max_size=12)
grades = st.dictionaries(st.integers(0, 15), st.integers(1, 3), min_size=1, max_size=8)


@settings(max_examples=60)
@given(ranked=documents, relevant=grades, cutoff=st.integers(1, 12))
def test_all_measures_are_those_of_ir_measures(ranked, relevant, cutoff):
    judged = [ir_measures.Qrel("q", str(document), grade) for document, grade in relevant.items()]
    run = [ir_measures.ScoredDoc("q", str(document), -rank) for rank, document in enumerate(ranked)]
    theirs = {name: ir_measures.parse_measure(f"{short}@{cutoff}") for name, short in THEIRS.items()}
    computed = ir_measures.calc_aggregate(theirs.values(), judged, run)
    for name, other in theirs.items():
        assert measure(Metric(name, cutoff), ranked, relevant) == pytest.approx(computed[other], abs=1e-6), name


def test_names_of_metrics():
    names = {"recall@10": "recall@10", "RECALL@5": "recall@5", "mrr@1000": "MRR@1000", " ndcg @ 3 ": "nDCG@3"}
    assert {text: str(parse_metric(text)) for text in names} == names
    for text, message in (
        ("recall", "metric 'recall' needs a number of hits: write it as recall@10"),
        ("@10", "needs a number of hits"),
        ("recall@ten", "needs a number of hits"),
        ("recall@0", "looks at 0 hits, and a search returns 1 to 1,000"),
        ("recall@1001", "looks at 1,001 hits"),
        ("recal@10", "metric 'recal@10' is not one of recall@k, MRR@k, nDCG@k"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_metric(text)


def exact(worse: int, better: int) -> float:
    """Return the probability of at least `worse` heads, if each changed query is a coin."""
    changed = worse + better
    return sum(comb(changed, heads) for heads in range(worse, changed + 1)) / 2**changed


def changes(worse: int, better: int, queries: int = 300) -> list[float]:
    return [-1.0] * worse + [1.0] * better + [0.0] * (queries - worse - better)


def test_what_was_lost_and_gained_is_as_probable_as_coins():
    for worse, better in [(9, 0), (4, 0), (12, 5), (7, 7), (0, 9), (30, 20)]:
        assert chance_of_loss(changes(worse, better)) == pytest.approx(exact(worse, better), abs=0.005)
    differences = [-0.61, -0.37, -0.5, 0.07, -0.37, 0.2, -0.11, 0.5, -0.25, -0.63]
    sums = [np.dot(signs, np.abs(differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    expected = np.mean(np.array(sums) <= sum(differences) + 1e-9)
    assert chance_of_loss(differences) == pytest.approx(expected, abs=0.005)
    for changed in (5, 25):  # of all ways in which so many answers can change if nothing is lost
        taken = [worse for worse in range(changed + 1) if chance_of_loss(changes(worse, changed - worse)) <= LEVEL]
        assert 0 < sum(comb(changed, worse) for worse in taken) / 2**changed <= LEVEL


def test_the_interval_is_that_of_the_normal_distribution_and_the_same_each_time():
    values = [1.0] * 120 + [0.0] * 280
    one = estimate(values)
    assert one == estimate(values)
    assert one.mean == pytest.approx(0.3)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (one.low, one.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.008)
    assert estimate([0.5] * 30) == estimate([0.5]) == Estimate(0.5, 0.5, 0.5)
