"""Points grouped by document, and several lists fused to one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rag_index.documents.batches import StoredPoint
from rag_index.retrieve.fusion import Scoring, by_rank, by_score, document_hits


def point(key: str, chunk: int, score: float) -> StoredPoint:
    ours = {"key": f'"{key}"', "document_id": key, "chunk": chunk, "text": f"{key} {chunk}"}
    return StoredPoint(f"{key}-{chunk}", {"_rag": ours, "column": key.upper()}, score=score)


def names(hits) -> list[str]:
    return [f"{hit.index}{hit.document_id}" for hit in hits]


A = [point("a", 0, 0.9), point("b", 0, 0.5), point("a", 3, 0.8), point("a", 2, 0.7), point("a", 1, 0.6)]


def test_a_document_appears_once_with_its_best_chunks():
    first, second = document_hits("x", A)
    assert (first.document_id, first.score, first.rank, first.text) == ("a", 0.9, 1, "a 0")
    assert [(chunk.chunk, chunk.score, chunk.text) for chunk in first.chunks] == [
        (0, 0.9, "a 0"),
        (3, 0.8, "a 3"),
        (2, 0.7, "a 2"),
        (1, 0.6, "a 1"),
    ]
    assert first.payload == {"column": "A"}
    assert (second.document_id, second.rank) == ("b", 2)


@pytest.mark.parametrize(("chars", "shown"), [(400, 5), (500, 4), (600, 3), (2000, 3)])
def test_a_document_shows_five_chunks_if_they_are_short(chars: int, shown: int) -> None:
    points = [point("a", number, 1 - number / 10) for number in range(6)]
    for one in points:
        one.payload["_rag"]["text"] = "x" * chars
    (hit,) = document_hits("x", points)
    assert [chunk.chunk for chunk in hit.chunks] == list(range(shown))


def test_equal_scores_have_one_order_whatever_order_the_store_returns():
    points = [point(key, chunk, 0.5) for key in "cab" for chunk in (1, 0)]
    expected = document_hits("x", points)
    assert names(expected) == ["xa", "xb", "xc"]
    for seed in range(10):
        shuffled = points[:]
        random.Random(seed).shuffle(shuffled)
        assert document_hits("x", shuffled) == expected


def test_points_that_rag_index_did_not_write_are_document_hits_their_own():
    (hit,) = document_hits("x", [StoredPoint("id", {"a": 1}, score=0.1)])
    assert (hit.document_id, hit.text, hit.payload) == ("id", "", {"a": 1})


def test_reciprocal_rank_is_one_over_sixty_plus_rank():
    """Cormack, Clarke and Büttcher 2009: the sum of 1 / (60 + r); a document is in one list here."""
    lists = [document_hits("x", A), document_hits("y", [point("c", 0, 0.1)])]
    hits = by_rank(lists, limit=10)
    assert names(hits) == ["xa", "yc", "xb"]
    assert [hit.fused for hit in hits] == pytest.approx([1 / 61, 1 / 61, 1 / 62])
    assert [hit.score for hit in hits] == [0.9, 0.1, 0.5]
    assert names(by_rank(reversed(lists), limit=2)) == ["yc", "xa"]


def test_by_score_orders_all_by_score_and_ties_by_the_order_asked():
    lists = [
        document_hits(name, [point("d", 0, 0.5), point("e", 0, score)]) for name, score in (("x", 0.4), ("y", 0.6))
    ]
    hits = by_score(lists, limit=10)
    assert names(hits) == ["ye", "xd", "yd", "xe"]
    assert [hit.fused for hit in hits] == [0.6, 0.5, 0.5, 0.4]
    assert names(by_score(lists, limit=1)) == ["ye"]
    assert by_score([], limit=3) == by_rank([[]], limit=3) == []


def test_equal_scores_are_ordered_by_cosine():
    worded, near = replace(point("a", 0, 0.2), bm25=0.8), replace(point("b", 0, 0.8), bm25=0.2)
    assert names(document_hits("x", [worded, near], Scoring(0.5, 1.0))) == ["xb", "xa"]
