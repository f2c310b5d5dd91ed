"""Evaluations and the gate: golden files, measures of what searches return, and the verdict on two
rankings."""

import asyncio
from collections import defaultdict

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.core.settings import GateSettings, load_settings
from rag_index.errors import (
    RagIndexError,
    RerankerError,
    SettingsError,
    StoreUnavailable,
    UnknownIndex,
)
from rag_index.search.evaluation import evaluation, gate, measures
from rag_index.search.evaluation.evaluation import Place, ask_all, evaluate
from rag_index.search.evaluation.gate import Compared, check_gate, judge
from rag_index.search.evaluation.golden import GoldenQuery, read_golden
from rag_index.search.evaluation.measures import Estimate, Metric, estimate, measure
from tests.search.desk import Desk, found
from tests.search.test_reranking import RerankingServer

TOPICS = "printer network password invoice keyboard server monitor license update backup".split()
OPTIONS = (measures.parse_metric("recall@5"), measures.parse_metric("MRR@10"))
BOTH = ["comments", "titles"]
GOLDEN = [
    *[
        GoldenQuery(f"what does E-{4100 + n} mean", {str(n): 1}, "comments")
        for n in range(0, 60, 4)
    ],
    *[GoldenQuery(f"help with E-{7100 + n}", {str(n): 1}, "titles") for n in range(0, 60, 5)],
    GoldenQuery("printer", {"0": 2, "10": 1}, "comments"),
    GoldenQuery("printer", {"20": 1}, "titles"),
]
THEIRS = {"recall": "R", "MRR": "RR", "nDCG": "nDCG"}
rankings = st.lists(st.integers(0, 12), unique=True, max_size=12)
grades = st.dictionaries(st.integers(0, 15), st.integers(1, 3), min_size=1, max_size=8)
FOUND, LOST = ("right", "other"), ("other",)
MANY = 30
"""More documents than a search shows."""


def codes(kind, offset):
    """Return documents that mean nearly the same and differ in a code."""
    return [
        (n, f"The {TOPICS[n % 10]} {kind} reports error E-{offset + n} and stops after a while")
        for n in range(60)
    ]


@pytest.fixture(scope="module")
def codes_desk(tmp_path_factory):
    """Two indexes of 60 documents that are found by their codes, and hardly by their meaning."""
    desk = Desk(tmp_path_factory.mktemp("codes"), names=("comments", "titles"))
    return desk.fill({"comments": codes("upstairs", 4100), "titles": codes("downstairs", 7100)})


def means(scope):
    return {
        (way.way, metric): one.mean for way in scope.ways for metric, one in way.metrics.items()
    }


def searched(retriever, indexes, weight):
    """Return the mean measures of real searches."""
    values, relevant = defaultdict(list), defaultdict(dict)
    for one in GOLDEN:
        if one.index in indexes:
            relevant[one.query].update({(one.index, document): 1 for document in one.relevant})
    for query, wanted in relevant.items():
        hits = found(retriever.search_sync(query, indexes=indexes, limit=10, dense_weight=weight))
        for metric in OPTIONS:
            values[str(metric)].append(measure(metric, hits, wanted))
    return {metric: sum(some) / len(some) for metric, some in values.items()}


@pytest.mark.long
def test_each_way_has_the_measures_of_searches_of_each_index_and_of_all(codes_desk):
    settings = codes_desk.settings
    settings = settings.model_copy(
        update={"retrieve": settings.retrieve.model_copy(update={"dense_weight": 1.0})}
    )
    result = evaluate(settings, GOLDEN, BOTH, OPTIONS)
    scopes = {scope.index: scope for scope in result.scopes}
    assert [(one.index, one.queries) for one in result.scopes] == [
        ("comments", 16),
        ("titles", 13),
        (None, 28),
    ]
    with codes_desk.retriever() as retriever:
        for name, indexes in {"comments": ["comments"], None: BOTH}.items():
            for way, weight in {"dense": 1.0, "sparse": 0.0}.items():
                expected = searched(retriever, indexes, weight)
                assert {
                    metric: means(scopes[name])[way, metric] for metric in expected
                } == pytest.approx(expected)
    assert (
        means(scopes[None])["sparse", "recall@5"] > means(scopes[None])["dense", "recall@5"] + 0.3
    )
    for scope in result.scopes:
        dense, _, hybrid = scope.ways
        assert hybrid.metrics == dense.metrics, "the settings give words no weight"
    assert (result.errors, result.exit_code) == ({}, 0)


def test_the_worst_queries_come_first_and_right_ones_not_at_all(codes_desk):
    golden = [
        GoldenQuery("E-4101", {"1": 1}),  # without an index, it belongs to the only one
        GoldenQuery("E-4102", {"7": 1}),
        GoldenQuery("E-4103", {"3": 1, "9": 1}),
    ]
    [scope] = evaluate(
        codes_desk.settings, golden, ["comments"], (measures.parse_metric("recall@1"),)
    ).scopes
    assert scope.queries == 3
    worst = [(one.query, dict(one.metrics)) for one in scope.worst]
    assert worst == [("E-4102", {"recall@1": 0.0}), ("E-4103", {"recall@1": 0.5})]
    assert scope.worst[0].relevant == (Place("comments", "7"),)
    assert scope.worst[0].found == (Place("comments", "2", 1),)


def test_queries_that_do_not_fit_the_indexes_are_refused(codes_desk):
    for golden, indexes, kind, message in (
        (
            GoldenQuery("E-4101", {"1": 1}),
            BOTH,
            SettingsError,
            "query 'E-4101' names no index, but 2 are evaluated",
        ),
        (GoldenQuery("x", {"1": 1}, "title"), BOTH, UnknownIndex, "did you mean 'titles'"),
        (
            GoldenQuery("x", {"1": 1}, "comments"),
            ["titles"],
            SettingsError,
            "no query has a relevant document in ti",
        ),
    ):
        with pytest.raises(kind, match=message):
            evaluate(codes_desk.settings, [golden], indexes, OPTIONS)


def ask_gate(settings, store, *queries):
    """Ask the live collection, and once more as if it were a rebuilt one."""
    live = gate.Searched(store, store.aliases()[settings.alias("comments")])
    return gate.ask(settings, settings.index("comments"), queries, live=live, rebuilt=live)


def test_documents_are_found_whoever_they_are_for(tmp_path):
    """A gate that finds nothing would let everything pass."""
    access = 'access = "acl"\n[indexes.gate]\nqueries = "golden.jsonl"\n'
    desk = Desk(tmp_path, names=("comments",), more={"comments": access})
    desk.fill(
        {
            "comments": [
                (n, "mailbox full", {"_rag": {"groups": some}})
                for n, some in enumerate((["staff"], []))
            ]
        }
    )
    settings, query = desk.settings, GoldenQuery("mailbox full", {"1": 1})
    with desk.opened() as store:
        [compared] = ask_gate(settings, store, query)
    assert sorted(compared.live) == sorted(compared.rebuilt) == ["0", "1"]
    assert (
        evaluate(settings, [query], ["comments"], OPTIONS)
        .scopes[0]
        .ways[-1]
        .metrics["recall@5"]
        .mean
        == 1
    )


def test_the_gate_finds_what_a_search_finds_with_the_reranker_of_the_settings(tmp_path):
    desk = Desk(tmp_path, names=("comments",))
    desk.fill({"comments": [(n, f"printer {'offline ' * (MANY - n)}") for n in range(MANY)]})
    server = RerankingServer("/v1/rerank")
    settings = load_settings(desk.config, retrieve={"reranker": server.url}, run={"wait": 30})
    query = GoldenQuery("printer offline", {"1": 1})
    with desk.opened() as store:
        [compared] = ask_gate(settings, store, query)
        server.shutdown()
        server.server_close()
        with pytest.raises(RerankerError, match="the hits are not reranked: the reranker at"):
            ask_gate(settings, store, query)
    assert compared.live == compared.rebuilt
    assert compared.live == tuple(str(MANY - 1 - rank) for rank in range(10)), (
        "it likes short texts"
    )


def test_a_passing_fault_of_one_query_is_tried_again_and_another_is_its_answer(monkeypatch):
    monkeypatch.setattr(evaluation, "PAUSE", 0.0)
    tries = defaultdict(int)

    async def ask(query):
        tries[query] += 1
        if query == "late" and tries[query] < evaluation.TRIES:
            raise StoreUnavailable("it starts")
        if query == "refused":
            raise SettingsError("no")
        return query

    answers = asyncio.run(ask_all(ask, ["fine", "late", "refused"]))
    assert [str(answer) for answer in answers] == ["fine", "late", "no"]
    assert tries == {"fine": 1, "late": evaluation.TRIES, "refused": 1}


def test_an_index_that_answers_none_of_the_first_queries_is_not_asked_the_others(monkeypatch):
    monkeypatch.setattr(evaluation, "PAUSE", 0.0)
    asked = []

    async def ask(query):
        asked.append(query)
        raise SettingsError(f"no {query}")

    with pytest.raises(RagIndexError, match="no 0"):
        asyncio.run(ask_all(ask, [str(number) for number in range(50)]))
    assert asked == ["0", "1", "2"]
    assert asyncio.run(ask_all(ask, [])) == []


def test_queries_of_a_file_that_was_edited_elsewhere(tmp_path):
    path = tmp_path / "golden.jsonl"
    path.write_text(
        '\ufeff{"query": "größe", "relevant": [118, -3, "7"]}\r\n\r\n '
        ' \n{"query":"b","relevant":["[1,2]"],"index":"x"}\n{"query": "q", "relevant": {"a": 1,'
        ' "b": 3, "none": 0}}\n{"query": "q", "relevant": ["c"], "index": "x"}\n{"query": "q",'
        ' "relevant": {"a": 2, "b": 1, "d": 1}, "note": "asked on the phone"}\n',
        newline="",
    )
    assert read_golden(path) == [
        GoldenQuery("größe", {"118": 1, "-3": 1, "7": 1}),
        GoldenQuery("b", {"[1,2]": 1}, "x"),
        GoldenQuery("q", {"a": 2, "b": 3, "d": 1}),
        GoldenQuery("q", {"c": 1}, "x"),
    ]


def test_a_wrong_line_is_named_with_its_number_and_value(tmp_path):
    for line, message in (
        ('{"query": "q", "relevant": ["1"]', "Invalid JSON"),
        ('["q"]', "it is '[\"q\"]': Input should be an object; write {"),
        ('{"relevant": ["1"]}', "query is missing"),
        ('{"query": " ", "relevant": ["1"]}', "query is ''"),
        ('{"query": "q", "relevant": []}', "relevant is '[]'"),
        ('{"query": "q", "relevant": ["1", true]}', "True is no document's id"),
        ('{"query": "q", "relevant": [1.5, ""]}', "1.5 is no document's id"),
        ('{"query": "q", "relevant": {"a": -1}}', "relevant.a is '-1'"),
        ('{"query": "q", "relevant": {"a": 0}}', "no document with a grade above 0"),
        ('{"query": "q", "relevant": ["1"], "index": ""}', "index is ''"),
        ('{"query": "q", "relevant": ["1"], "indx": "x"}', "indx is 'x'"),
    ):
        path = tmp_path / "golden.jsonl"
        path.write_text(f'{{"query": "fine", "relevant": ["1"]}}\n\n{line}\n')
        with pytest.raises(SettingsError) as refused:
            read_golden(path)
        said = str(refused.value).removeprefix(f"{path}, line 3: ")
        assert message in said
        assert len(said) < 250
        assert said != str(refused.value)


@settings(max_examples=60)
@given(ranked=rankings, relevant=grades, cutoff=st.integers(1, 12))
def test_all_measures_are_those_of_ir_measures(ranked, relevant, cutoff):
    judged = [ir_measures.Qrel("q", str(document), grade) for document, grade in relevant.items()]
    run = [ir_measures.ScoredDoc("q", str(document), -rank) for rank, document in enumerate(ranked)]
    theirs = {
        name: ir_measures.parse_measure(f"{short}@{cutoff}") for name, short in THEIRS.items()
    }
    computed = ir_measures.calc_aggregate(theirs.values(), judged, run)
    for name, other in theirs.items():
        assert measure(Metric(name, cutoff), ranked, relevant) == pytest.approx(
            computed[other], abs=1e-6
        ), name


def test_names_of_metrics():
    names = {
        "recall@10": "recall@10",
        "RECALL@5": "recall@5",
        "mrr@1000": "MRR@1000",
        " ndcg @ 3 ": "nDCG@3",
    }
    assert {text: str(measures.parse_metric(text)) for text in names} == names
    for text, message in (
        ("recall", "metric 'recall' needs a number of hits: write it as recall@10"),
        ("@10", "needs a number of hits"),
        ("recall@ten", "needs a number of hits"),
        ("recall@0", "looks at 0 hits, and a search returns 1 to 1,000"),
        ("recall@1001", "looks at 1,001 hits"),
        ("recal@10", "metric 'recal@10' is not one of recall@k, MRR@k, nDCG@k"),
    ):
        with pytest.raises(SettingsError, match=message):
            measures.parse_metric(text)


def test_the_interval_is_that_of_the_normal_distribution_and_the_same_each_time():
    values = [1.0] * 120 + [0.0] * 280
    one = estimate(values)
    assert one == estimate(values)
    assert one.mean == pytest.approx(0.3)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (one.low, one.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.008)
    assert estimate([0.5] * 30) == estimate([0.5]) == Estimate(0.5, 0.5, 0.5)


def verdict_on(before, after, gone=(), **settings):
    found = [
        Compared(GoldenQuery(f"query {number}", {"right": 1}), *rankings)
        for number, rankings in enumerate(zip(before, after, strict=True))
    ]
    return judge(GateSettings(queries="golden.jsonl", **settings), found, gone)


def rankings_of(worse: int, better: int = 0, queries: int = 300):
    """Rankings of which so many lose and gain their right answer; half of the others have it before
    and after."""
    same = queries - worse - better
    rest = [FOUND] * (same - same // 2) + [LOST] * (same // 2)
    return [FOUND] * worse + [LOST] * better + rest, [LOST] * worse + [FOUND] * better + rest


def test_a_loss_of_more_than_max_loss_is_refused_with_what_lost_and_how_many_gained():
    verdict = verdict_on(*rankings_of(9, 2))
    assert (verdict.passed, verdict.loss) == (False, pytest.approx(7 / 300))
    assert [one.query for one in verdict.worse] == [f"query {number}" for number in range(9)]
    assert {one.lost for one in verdict.worse} == {("right",)}
    refusal = verdict.refusal("p_notes__2", "notes")
    assert "recall@10 of 300 golden queries fell from 0.51" in refusal
    assert (
        "by more than max_loss (0.02); 2 better, 9 worse: 'query 0', 'query 1', 'query 2' and 6"
        " more (" in refusal
    )
    assert ", so the rebuilt p_notes__2 was not published" in refusal
    assert "rag-index rebuild notes --allow-loss" in refusal
    shown = verdict.to_json()
    assert (shown["passed"], shown["better"], len(shown["worse"])) == (False, 2, 9)
    assert shown["worse"][0] == {
        "query": "query 0",
        "before": 1.0,
        "after": 0.0,
        "lost": ("right",),
    }


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (6, 0), (9, 3), (0, 9), (40, 40), (3, 90)])
def test_a_loss_of_no_more_than_max_loss_is_let_through(worse, better):
    verdict = verdict_on(*rankings_of(worse, better))
    assert verdict.passed
    assert list(verdict.notes()) == []


def test_a_single_query_that_loses_is_let_through_and_named_unless_no_loss_is_allowed():
    verdict = verdict_on(*rankings_of(1, queries=10))
    assert (verdict.passed, verdict.loss) == (True, pytest.approx(0.1))
    assert list(verdict.notes()) == [
        "the gate took a loss of 0.100, since a single query got worse: 'query 0'"
    ]
    assert not verdict_on(*rankings_of(2, queries=10)).passed
    assert not verdict_on(*rankings_of(1, queries=10), max_loss=0).passed
    assert not verdict_on(*rankings_of(1), max_loss=0).passed, "one of 300 is enough"
    assert verdict_on(*rankings_of(1, 1), max_loss=0).passed, "the mean did not fall"


def test_the_queries_that_lost_most_come_first_and_other_ranks_are_no_loss():
    relevant = {"a": 1, "b": 1}
    found = [
        Compared(GoldenQuery("half", relevant), ("a", "b"), ("b", "x")),
        Compared(GoldenQuery("all", relevant), ("a", "b"), ("x", "y")),
        Compared(GoldenQuery("rank", relevant), ("a", "b"), ("x", "y", "b", "a")),
    ]
    verdict = judge(GateSettings(queries="golden.jsonl"), found)
    assert [(one.query, one.before, one.after, one.lost) for one in verdict.worse] == [
        ("all", 1.0, 0.0, ("a", "b")),
        ("half", 1.0, 0.5, ("a",)),
    ]
    assert (verdict.before, verdict.after, verdict.better) == (1.0, pytest.approx(0.5), 0)


def test_documents_that_the_source_lacks_are_told():
    [note] = verdict_on(*rankings_of(0), gone=("5", "6", "7", "8")).notes()
    assert note.startswith(
        "the source does not have 4 documents of the golden file (5, 6, 7 and 1 more)"
    )


def test_queries_that_find_nothing_in_either_collection_prove_nothing():
    verdict = verdict_on([LOST] * 300, [LOST] * 300)
    assert not verdict.passed
    assert "none of 300 golden queries finds a relevant document" in verdict.refusal(
        "p_notes__2", "notes"
    )
    assert verdict_on([LOST] * 300, [FOUND] * 300).passed, "what was empty may be filled"


def test_the_queries_of_an_index_are_its_own_and_those_of_no_index_and_equal_ones_are_one(project):
    """As `evaluate` takes them."""
    lines = (
        '{"query": "printer", "relevant": ["1"]}',
        '{"query": "vpn", "relevant": ["2"], "index": "solutions"}',
        '{"query": "disk", "relevant": ["3"], "index": "notes"}',
        '{"query": "printer", "relevant": {"7": 2}, "index": "notes"}',
    )
    (project.folder / "golden.jsonl").write_text("\n".join(lines))
    project.write_settings(
        f'{project.config.read_text()}[indexes.gate]\nqueries = "golden.jsonl"\n'
    )
    index = project.settings.index("notes")
    found = check_gate(project.settings, index, index.gate)
    assert [(one.query, one.relevant) for one in found] == [
        ("printer", {"1": 1, "7": 2}),
        ("disk", {"3": 1}),
    ]
