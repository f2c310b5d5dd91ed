"""Points grouped by document, and several lists fused to one."""

import random
from dataclasses import replace

import pytest

from rag_index.core.documents.batches import StoredPoint
from rag_index.search.concurrency import Deadline
from rag_index.search.fusion import agree, best_candidates, order_answers, scorings
from rag_index.search.live_collections import WITH_WORDS, LiveCollection
from rag_index.search.question import IndexAnswer, Question, Scoring

BY_MEANING = Scoring()


def point(key: str, chunk: int, score: float, bm25: float = 0.0) -> StoredPoint:
    ours = {"key": f'"{key}"', "document_id": key, "chunk": chunk, "text": f"{key} {chunk}"}
    return StoredPoint(f"{key}-{chunk}", {"_rag": ours, "column": key.upper()}, score=score, bm25=bm25)


def answers(points, *, models=False):
    return [
        IndexAnswer(name, LiveCollection(name, name, name if models else "", "", None), (), hybrid=False, points=some)
        for name, some in points.items()
    ]


def ordered(limit=1000, *, models=False, scoring=BY_MEANING, **points):
    question = Question("q", limit, (), Deadline.after(9))
    return order_answers(answers(points, models=models), question, dict.fromkeys(points, scoring))


def names(hits) -> list[str]:
    return [f"{hit.index}{hit.document_id}" for hit in hits]


A = [point("a", 0, 0.9), point("b", 0, 0.5), point("a", 3, 0.8), point("a", 2, 0.7), point("a", 1, 0.6)]


def test_a_document_appears_once_with_its_best_chunks():
    first, second = ordered(x=A)
    assert (first.document_id, first.score, first.rank, first.text) == ("a", 0.9, 1, "a 0")
    assert [(chunk.chunk, chunk.score, chunk.text) for chunk in first.chunks] == [
        (0, 0.9, "a 0"), (3, 0.8, "a 3"), (2, 0.7, "a 2"), (1, 0.6, "a 1"),
    ]  # fmt: skip
    assert first.payload == {"column": "A"}
    assert (second.document_id, second.rank) == ("b", 2)
    (hit,) = ordered(x=[StoredPoint("id", {"a": 1}, score=0.1)])
    assert (hit.document_id, hit.text, hit.payload) == ("id", "", {"a": 1}), "a point that rag-index did not write"


def test_equal_scores_have_one_order_whatever_order_the_store_returns():
    points = [point(key, chunk, 0.5) for key in "cab" for chunk in (1, 0)]
    expected = ordered(x=points)
    assert names(expected) == ["xa", "xb", "xc"]
    for seed in range(10):
        random.Random(seed).shuffle(points)
        assert ordered(x=points) == expected
    worded, near = point("a", 0, 0.2, bm25=0.8), point("b", 0, 0.8, bm25=0.2)
    assert names(ordered(x=[worded, near], scoring=Scoring(0.5, 1.0))) == ["xb", "xa"], "by cosine"


def test_indexes_of_several_models_are_fused_by_reciprocal_rank_which_is_one_over_sixty_plus_rank():
    """Cormack, Clarke and Büttcher 2009: the sum of 1 / (60 + r); a document is in one list here."""
    lists = {"x": A, "y": [point("c", 0, 0.1)]}
    hits = ordered(models=True, **lists)
    assert names(hits) == ["xa", "yc", "xb"]
    assert [hit.fused for hit in hits] == pytest.approx([1 / 61, 1 / 61, 1 / 62])
    assert [hit.score for hit in hits] == [0.9, 0.1, 0.5]
    assert names(ordered(2, models=True, **dict(reversed(lists.items())))) == ["yc", "xa"]


def test_by_score_orders_all_by_score_and_ties_by_the_order_asked():
    lists = {name: [point("d", 0, 0.5), point("e", 0, score)] for name, score in (("x", 0.4), ("y", 0.6))}
    hits = ordered(**lists)
    assert names(hits) == ["ye", "xd", "yd", "xe"]
    assert [hit.fused for hit in hits] == [0.6, 0.5, 0.5, 0.4]
    assert names(ordered(1, **lists)) == ["ye"]
    assert ordered() == ordered(x=[]) == []


def test_the_best_chunk_of_a_document_is_the_one_with_the_best_score_of_both() -> None:
    points = [point("a", 0, 0.9), point("a", 1, 0.2, bm25=8.0), point("b", 0, 0.6, bm25=4.0)]
    first, second = ordered(x=points, scoring=Scoring(0.5, 8.0, 0.6))
    assert (first.document_id, first.text, first.score) == ("a", "a 1", pytest.approx(0.6 / 1.6))
    assert (first.cosine, first.bm25) == (0.2, 8.0)
    assert [chunk.score for chunk in first.chunks] == pytest.approx([0.6 / 1.6, 0.45 / 1.6])
    assert (second.document_id, second.score) == ("b", pytest.approx(0.55 / 1.6))


def test_what_is_read_are_the_best_chunks_those_equal_to_the_last_and_more_if_they_are_of_few_documents():
    question = Question("q", 3, (), Deadline.after(9))

    def read(*points):
        return best_candidates(answers({"x": list(points)}), question, {"x": BY_MEANING})[0]["x"]

    others = [point(f"other {n}", 0, 0.8 - n / 1000) for n in range(500)]
    assert read(*others) == others[:50]
    assert len(read(*others[:49], *(point(f"equal {n}", 0, 0.1) for n in range(9)), point("last", 0, 0.05))) == 58
    long = [point("long", n, 0.9) for n in range(100)]
    assert read(*long, *others) == [*long, *others[:100]], "50 and then 200"


def points_with(bm25: dict[int, float], count: int = 100) -> list[StoredPoint]:
    """Return points of which each is farther away than the one before, and some have words."""
    return [replace(point(str(n), 0, 1 - n / count), bm25=bm25.get(n, 0.0)) for n in range(count)]


@pytest.mark.parametrize(
    ("bm25", "agreed"),
    [
        (dict.fromkeys([24, *range(40, 60)], 5.0), True),
        (dict.fromkeys(range(25, 60), 5.0), False),
        ({0: 1.0, 1: 1.0} | dict.fromkeys(range(40, 50), 5.0), False),  # near, but not among the ten best by words
        ({0: 1.0}, True),
        ({90: 1.0}, False),  # the only one with the words
    ],
)
def test_meaning_and_words_agree_if_a_chunk_is_among_the_best_of_both(bm25: dict[int, float], agreed: bool) -> None:
    candidates = points_with(bm25)
    assert agree(candidates) is agree(candidates[::-1]) is agreed


def test_meaning_counts_less_in_a_collection_where_it_agrees_with_words_about_few_texts() -> None:
    one = answers({"x": points_with({})})[0]
    question = Question("q", 3, (), Deadline.after(9), dense_weight=0.4)
    for trusted, weight in ((True, 0.4), (False, 0.06)):
        live = replace(one.live, calibration=replace(WITH_WORDS, trusted=trusted))
        found = scorings([replace(one, hybrid=True, live=live)], question)
        assert found["x"].dense_weight == pytest.approx(weight)
