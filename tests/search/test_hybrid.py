"""Searching by meaning and by words at once, on each store."""

from pathlib import Path

import pytest

from rag_index.search.fusion import ranked
from tests.search.desk import Desk, found

CODES = {
    "comments": [(n, f"The device reports error E-{4100 + n} and stops working after a while") for n in range(60)],
    "titles": [(n, f"A report on devices of building {n}") for n in range(60)],
}


@pytest.fixture
def codes(blank: Desk) -> Desk:
    """Texts that mean the same and differ in a code."""
    return blank.fill(CODES)


def test_words_find_a_code_and_the_score_is_the_weighted_mean_with_bm25_as_a_share_of_the_best_and_soft_match(
    codes: Desk,
) -> None:
    with codes.retriever() as retriever:
        hybrid = retriever.search_sync("what does E-4142 mean", limit=3)
        dense = retriever.search_sync("what does E-4142 mean", limit=3, dense_weight=1)
        assert found(hybrid)[0] == ("comments", "42") != found(dense)[0]
        assert hybrid.hits[0].matched == ("E-4142",)
        assert (hybrid.dense_weight, hybrid.fusion) == (0.7, "score")
        for weight in (0.0, 0.3, 0.99):
            result = retriever.search_sync("devices of building 7 with error E-4107", limit=100, dense_weight=weight)
            assert {hit.index for hit in result.hits} == {"comments", "titles"}
            best = max(hit.bm25 for hit in result.hits)
            for hit in result.hits:
                expected = weight * hit.cosine + (1 - weight) * hit.bm25 / best
                expected = (expected + 0.7 * hit.soft) / 1.7 if weight else expected
                assert hit.score == hit.fused == pytest.approx(expected + hit.names, abs=1e-6)
            assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
        nothing = retriever.search_sync("of the", limit=5)
        assert len(nothing.hits) == 5
        assert all(hit.bm25 == 0 and hit.matched == () for hit in nothing.hits), "frequent words are not searched for"


def test_an_index_without_words_takes_turns_with_one_that_has_them(blank: Desk) -> None:
    blank.write(titles='search = "dense"')
    blank.fill(CODES)
    with blank.retriever() as retriever:
        result = retriever.search_sync("E-4142", indexes=list(CODES), limit=4)
        assert result.fusion == "rank"
        assert [hit.fused for hit in result.hits] == pytest.approx([1 / 61] * 2 + [1 / 62] * 2)
        assert [hit.index for hit in result.hits] == ["comments", "titles"] * 2
        assert found(result)[0] == ("comments", "42")
        assert not any(hit.bm25 for hit in result.hits if hit.index == "titles")
        assert retriever.search_sync("E-4142", indexes=list(CODES), dense_weight=1).fusion == "score"


def test_a_query_is_taken_apart_as_the_collection_was_whatever_the_settings_say_now(tmp_path: Path) -> None:
    desk = Desk(tmp_path, names=("comments",), more={"comments": 'language = "german"'})
    desk.fill({"comments": [(1, "Drucker sind kaputt"), (2, "Printers are broken")]})
    desk.write(comments='language = "english"')
    with desk.retriever() as retriever:
        hits = retriever.search_sync("Druckern").hits
    assert {hit.document_id: hit.matched for hit in hits} == {"1": ("Druckern",), "2": ()}


WORDS = "printer network password invoice keyboard server monitor license update backup account mail".split()


def texts(seed: int) -> list[tuple[int, str]]:
    """Return 150 documents of few words, some of several chunks, so that no search sees all chunks."""
    return [
        (n, " ".join(WORDS[(n * seed + k * (n % 5 + 1)) % len(WORDS)] for k in range(60 if n % 9 == 0 else 7)))
        for n in range(150)
    ]


@pytest.mark.long
def test_the_order_is_that_of_a_search_with_the_same_weight(embedded: Desk) -> None:
    embedded.fill({"comments": texts(3), "titles": texts(7)}, number=2)
    with embedded.retriever() as retriever:
        for query in ("printer offline", "backup of the mail server", "license", "nothing of the kind"):
            for indexes in (None, ["titles"], ["titles", "comments"]):
                candidates = retriever.run(retriever.candidates(query, indexes=indexes, limit=10))
                kept = [point.payload["_rag"] for answer in candidates.answered for point in answer.points]
                assert not any("text" in one for one in kept)
                for weight in (1.0, 0.99, 0.4, 0.05, 0.0):
                    searched = retriever.search_sync(query, indexes=indexes, limit=10, dense_weight=weight)
                    assert ranked(candidates, weight, indexes) == found(searched), (query, indexes, weight)
                    assert len(searched.hits) == 10
