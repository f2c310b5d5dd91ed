"""Measures: against ir-measures on random lists."""

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.errors import SettingsError
from rag_index.evaluation.measures import Metric, measure, parse_metric

THEIRS = {"recall": "R", "precision": "P", "success": "Success", "MRR": "RR", "nDCG": "nDCG"}


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
    names = {
        "recall@10": "recall@10", "RECALL@5": "recall@5", "R@100": "recall@100", "mrr@10": "MRR@10",
        "p@1": "precision@1",
    }  # fmt: skip
    names |= {"RR@1000": "MRR@1000", " ndcg @ 3 ": "nDCG@3", "success@5": "success@5"}
    assert {text: str(parse_metric(text)) for text in names} == names
    for text, message in (
        ("recall", "metric 'recall' needs a number of hits: write it as recall@10"),
        ("@10", "needs a number of hits"),
        ("recall@ten", "needs a number of hits"),
        ("recall@0", "looks at 0 hits, and a search returns 1 to 1,000"),
        ("recall@1001", "looks at 1,001 hits"),
        ("recal@10", "metric 'recal@10' is not one of recall@k, precision@k, success@k, MRR@k, nDCG@k"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_metric(text)
