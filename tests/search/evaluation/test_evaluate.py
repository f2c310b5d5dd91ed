"""Evaluations: they measure what searches return, one index at a time and all at once."""

from contextlib import closing

import pytest

from rag_index.components.stores import open_store
from rag_index.errors import SettingsError, UnknownIndex
from rag_index.search.evaluation import gate
from rag_index.search.evaluation.evaluation import Place, evaluate
from rag_index.search.evaluation.golden import GoldenQuery
from rag_index.search.evaluation.measures import measure, parse_metric
from tests.search.desk import Desk

OPTIONS = (parse_metric("recall@5"), parse_metric("MRR@10"))
BOTH = ["comments", "titles"]
GOLDEN = [
    *[GoldenQuery(f"what does E-{4100 + n} mean", {str(n): 1}, "comments") for n in range(0, 60, 4)],
    *[GoldenQuery(f"help with E-{7100 + n}", {str(n): 1}, "titles") for n in range(0, 60, 5)],
    GoldenQuery("printer", {"0": 2, "10": 1}, "comments"),
    GoldenQuery("printer", {"20": 1}, "titles"),
]


def means(scope):
    return {(way.way, metric): one.mean for way in scope.ways for metric, one in way.metrics.items()}


def searched(retriever, indexes, weight):
    """Return the mean measures of real searches."""
    totals: dict[str, list[float]] = {"recall@5": [], "MRR@10": []}
    relevant: dict[str, dict[tuple[str, str], int]] = {}
    for one in GOLDEN:
        if one.index in indexes:
            relevant.setdefault(one.query, {}).update({(one.index, document): 1 for document in one.relevant})
    for query, wanted in relevant.items():
        result = retriever.search_sync(query, indexes=indexes, limit=10, dense_weight=weight)
        found = [(hit.index, hit.document_id) for hit in result.hits]
        for metric, values in totals.items():
            values.append(measure(parse_metric(metric), found, wanted))
    return {metric: sum(values) / len(values) for metric, values in totals.items()}


@pytest.mark.long
def test_each_way_has_the_measures_of_searches_of_each_index_and_of_all(codes_desk):
    settings = codes_desk.settings
    settings = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update={"dense_weight": 1.0})})
    evaluation = evaluate(settings, GOLDEN, BOTH, OPTIONS)
    found = {scope.index: scope for scope in evaluation.scopes}
    assert [(one.index, one.queries) for one in evaluation.scopes] == [("comments", 16), ("titles", 13), (None, 28)]
    with codes_desk.retriever() as retriever:
        for name, indexes in {"comments": ["comments"], None: BOTH}.items():
            for way, weight in {"dense": 1.0, "sparse": 0.0}.items():
                expected = searched(retriever, indexes, weight)
                assert {metric: means(found[name])[way, metric] for metric in expected} == pytest.approx(expected)
    assert means(found[None])["sparse", "recall@5"] > means(found[None])["dense", "recall@5"] + 0.3
    for scope in evaluation.scopes:
        dense, _, hybrid = scope.ways
        assert hybrid.metrics == dense.metrics, "the settings give words no weight"
    assert (evaluation.errors, evaluation.exit_code) == ({}, 0)


def test_the_worst_queries_come_first_and_right_ones_not_at_all(codes_desk):
    golden = [
        GoldenQuery("E-4101", {"1": 1}),  # without an index, it belongs to the only one
        GoldenQuery("E-4102", {"7": 1}),
        GoldenQuery("E-4103", {"3": 1, "9": 1}),
    ]
    [scope] = evaluate(codes_desk.settings, golden, ["comments"], (parse_metric("recall@1"),)).scopes
    assert scope.queries == 3
    assert [(one.query, dict(one.metrics)) for one in scope.worst] == [
        ("E-4102", {"recall@1": 0.0}),
        ("E-4103", {"recall@1": 0.5}),
    ]
    assert scope.worst[0].relevant == (Place("comments", "7"),)
    assert scope.worst[0].found == (Place("comments", "2", 1),)


def test_queries_that_do_not_fit_the_indexes_are_refused(codes_desk):
    for golden, indexes, kind, message in (
        (GoldenQuery("E-4101", {"1": 1}), BOTH, SettingsError, "query 'E-4101' names no index, but 2 are evaluated"),
        (GoldenQuery("x", {"1": 1}, "title"), BOTH, UnknownIndex, "did you mean 'titles'"),
        (GoldenQuery("x", {"1": 1}, "comments"), ["titles"], SettingsError, "no query has a relevant document in ti"),
    ):
        with pytest.raises(kind, match=message):
            evaluate(codes_desk.settings, [golden], indexes, OPTIONS)


def test_documents_are_found_whoever_they_are_for(tmp_path):
    """A gate that finds nothing would let everything pass."""
    access = 'access = "acl"\n[indexes.gate]\nqueries = "golden.jsonl"\n'
    desk = Desk(tmp_path, names=("comments",), more={"comments": access})
    desk.fill({"comments": [(n, "mailbox full", {"_rag": {"groups": some}}) for n, some in enumerate((["staff"], []))]})
    settings, query = desk.settings, GoldenQuery("mailbox full", {"1": 1})
    with closing(open_store(settings.store)) as store:
        live = store.aliases()[settings.alias("comments")]
        found = gate.ask(settings, settings.index("comments"), [query], store, [live, live])
    assert [sorted(one["search"][0]) for one in found] == [["0", "1"], ["0", "1"]]
    assert evaluate(settings, [query], ["comments"], OPTIONS).scopes[0].ways[-1].metrics["recall@5"].mean == 1
