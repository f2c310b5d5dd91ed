"""The gate's verdict on two rankings of the same queries, and the checks of its golden file."""

import numpy as np
import pytest

from rag_index.core.reports.outcome import MEANING, SEARCH, WORDS
from rag_index.core.settings import GateSettings
from rag_index.search.evaluation.gate import WAYS, check_gate, judge
from rag_index.search.evaluation.golden import GoldenQuery
from tests.project import Project

FOUND, LOST = ("right", "other"), ("other",)


def golden(count: int) -> list[GoldenQuery]:
    return [GoldenQuery(f"query {number}", {"right": 1}) for number in range(count)]


def verdict_on(before, after, **settings):
    gate = GateSettings(queries="golden.jsonl", **settings)
    return judge(gate, golden(len(before)), {SEARCH: before}, {SEARCH: after})


def changed(worse: int, better: int = 0, queries: int = 300):
    """Rankings of which so many lose and gain their right answer; half of the others have it before and after."""
    same = queries - worse - better
    rest = [FOUND] * (same - same // 2) + [LOST] * (same // 2)
    return [FOUND] * worse + [LOST] * better + rest, [LOST] * worse + [FOUND] * better + rest


def test_three_points_of_300_queries_are_caught_and_told():
    verdict = verdict_on(*changed(9))
    assert (verdict.passed, verdict.search.loss) == (False, pytest.approx(0.03))
    assert [one.query for one in verdict.search.worse] == [f"query {number}" for number in range(9)]
    assert {one.lost for one in verdict.search.worse} == {("right",)}
    refusal = verdict.refusal("p_notes__2", "notes")
    assert "recall@10 of 300 golden queries fell from 0.51" in refusal
    assert "worse: 'query 0', 'query 1', 'query 2' and 6 more" in refusal
    assert "rag-index rebuild notes --allow-loss" in refusal
    shown = verdict_on(*changed(9, 1)).to_json()
    keys = {"metric", "queries", "before", "after", "max_loss", "p", "passed", "better", "worse", "gone"}
    assert shown.keys() >= keys
    assert shown["ways"]["search"]["worse"] == 9
    assert (shown["passed"], shown["better"], len(shown["worse"])) == (False, 1, 9)
    assert shown["worse"][0] == {"query": "query 0", "before": 1.0, "after": 0.0, "lost": ("right",)}


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (6, 0), (9, 3), (0, 9), (40, 40), (3, 90)])
def test_a_loss_of_no_more_than_max_loss_is_let_through(worse, better):
    assert verdict_on(*changed(worse, better)).passed


def test_a_loss_that_chance_explains_is_let_through_and_told_unless_none_is_allowed():
    verdict = verdict_on(*changed(30, 20))
    assert (verdict.passed, verdict.search.loss) == (True, pytest.approx(10 / 300))
    chance, few = verdict.notes()
    assert chance.startswith("the gate took a loss of 0.033 for chance (p = 0.1")
    assert few.startswith("300 golden queries would not stop a loss of 0.04 (twice max_loss) 9 times in 10")
    strict = verdict_on(*changed(1), max_loss=0)
    assert (strict.passed, strict.too_few) == (False, ""), "no number of queries would do"


def test_few_queries_let_a_small_loss_through_and_say_how_many_would_not():
    verdict = verdict_on(*changed(3, queries=20))
    assert verdict.passed, "coins explain it one time in eight"
    assert "would not stop a loss of 0.04 (twice max_loss) 9 times in 10" in verdict.too_few
    assert verdict_on(*changed(0, queries=215)).too_few == ""
    assert verdict_on(*changed(0, queries=214)).too_few.endswith("it takes 215")
    assert not verdict_on(*changed(5, queries=20)).passed


def test_a_rank_that_falls_counts_before_the_answer_is_lost():
    """Six answers of 150 are lost and two gained, which may be chance. That twenty others fell to rank 3 is not."""
    before, after = changed(6, 2, queries=150)
    assert verdict_on(before, after).passed
    assert not verdict_on(before, [*after[:8], *[("x", "y", "right")] * 20, *after[28:]]).passed


@pytest.mark.parametrize("way", [MEANING, WORDS])
def test_what_one_way_of_searching_loses_is_not_hidden_by_the_other(way):
    gate, (before, after) = GateSettings(queries="golden.jsonl"), changed(30)
    same = dict.fromkeys((SEARCH, MEANING, WORDS), before)
    verdict = judge(gate, golden(300), same, {**same, way: after})
    assert not verdict.passed
    assert (verdict.search.passed, verdict.poorest.way) == (True, way)
    assert f"recall@10 by {way} alone of 300 golden queries fell from" in verdict.refusal("p_notes__2", "notes")
    without = judge(gate, golden(300), same, {SEARCH: before, MEANING: before})
    assert [one.way for one in without.ways] == [SEARCH, MEANING], "what one of them does not have is not compared"


def test_a_harmless_rebuild_is_refused_at_most_once_in_twenty():
    """All three ways change answers and ranks at random, independently of each other: the worst case for their sum."""
    random, gate, refused = np.random.default_rng(3), GateSettings(queries="golden.jsonl"), 0
    places = [("right",), ("x", "right"), ("x", "y", "right"), ("x",)]
    for _ in range(60):
        drawn = random.integers(0, 4, (2, 3, 40))
        before, after = (
            {way: [places[place] for place in row] for way, row in zip(WAYS, one, strict=True)} for one in drawn
        )
        refused += not judge(gate, golden(40), before, after).passed
    assert refused <= 6, "3 are expected at most"


def test_queries_that_find_nothing_in_either_collection_prove_nothing():
    verdict = verdict_on([LOST] * 300, [LOST] * 300)
    assert not verdict.passed
    assert "none of 300 golden queries finds a relevant document" in verdict.refusal("p_notes__2", "notes")
    assert verdict_on([LOST] * 300, [FOUND] * 300).passed, "what was empty may be filled"


def queries_of(project: Project, content: str | None):
    if content is not None:
        (project.folder / "golden.jsonl").write_text(content)
    gate = '[indexes.gate]\nqueries = "golden.jsonl"\n'
    project.write_settings(project.config.read_text() + gate)
    index = project.settings.index("notes")
    return check_gate(project.settings, index, index.gate)


LINE = '{"query": "printer", "relevant": ["1"]}\n'
OTHER = '{"query": "vpn", "relevant": ["2"], "index": "solutions"}\n'


def test_the_queries_of_an_index_are_its_own_and_those_of_no_index(project):
    own = '{"query": "disk", "relevant": ["3"], "index": "notes"}\n'
    assert [one.query for one in queries_of(project, LINE + OTHER + own)] == ["printer", "disk"]


def test_equal_queries_are_one_with_all_their_documents_as_evaluate_takes_them(project):
    again = '{"query": "printer", "relevant": {"7": 2}, "index": "notes"}\n'
    [one] = queries_of(project, LINE + again)
    assert (one.query, one.relevant) == ("printer", {"1": 1, "7": 2})
