"""Searching by meaning and by words at once, on each store."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rag_index.errors import SettingsError
from rag_index.retrieve.fusion import Scoring, document_hits
from tests.forked_program import run_program
from tests.retrieve.desk import Desk, found
from tests.retrieve.test_fusion import point

if TYPE_CHECKING:
    from rag_index.documents.batches import StoredPoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]

CODES = {
    "comments": [(n, f"The device reports error E-{4100 + n} and stops working after a while") for n in range(60)],
    "titles": [(n, f"A report on devices of building {n}") for n in range(60)],
}


@pytest.fixture
def codes(empty: Desk) -> Desk:
    """Texts that mean the same and differ in a code."""
    return empty.fill(CODES)


def test_a_code_is_found_by_its_words_in_a_default_search(codes: Desk) -> None:
    with codes.retriever() as retriever:
        hybrid = retriever.search_sync("what does E-4142 mean", limit=3)
        dense = retriever.search_sync("what does E-4142 mean", limit=3, dense_weight=1)
    assert found(hybrid)[0] == ("comments", "42")
    assert found(dense)[0] != ("comments", "42")
    assert hybrid.hits[0].matched == ("E-4142",)
    assert (hybrid.dense_weight, hybrid.fusion) == (0.7, "score")


def test_an_unspaced_phrase_finds_its_text_in_an_english_index(embedded: Desk) -> None:
    rows = [(1, "プリンターの検索機能が動きません"), (2, "打印机离线了怎么办"), (3, "The printer is offline")]
    embedded.fill({"comments": rows}, number=2)
    with embedded.retriever() as retriever:
        for query, first in (("検索", "1"), ("离线的打印机", "2"), ("printer 離線", "3")):
            hit = retriever.search_sync(query, indexes=["comments"], dense_weight=0).hits[0]
            assert (hit.document_id, hit.bm25 > 0) == (first, True)
        assert retriever.search_sync("离线的打印机", indexes=["comments"]).hits[0].matched == ("离线", "打印", "印机")


def test_a_score_is_the_weighted_mean_with_soft_match_and_bm25_as_a_share_of_the_best_of_all_indexes(
    codes: Desk,
) -> None:
    with codes.retriever() as retriever:
        for weight in (0.0, 0.3, 0.5, 0.99):
            result = retriever.search_sync("devices of building 7 with error E-4107", limit=100, dense_weight=weight)
            assert {hit.index for hit in result.hits} == {"comments", "titles"}
            best = max(hit.bm25 for hit in result.hits)
            for hit in result.hits:
                expected = weight * hit.cosine + (1 - weight) * hit.bm25 / best
                if weight:
                    expected = (expected + 0.6 * hit.soft) / 1.6
                assert hit.score == hit.fused == pytest.approx(expected, abs=1e-6)
            assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)


def test_with_the_whole_weight_on_meaning_the_order_is_that_of_a_dense_index(codes: Desk) -> None:
    dense = Desk(codes.folder / "dense", codes.store, codes.extra, project="dense_" + codes.project)
    dense.write(**dict.fromkeys(CODES, 'search = "dense"'))
    dense.fill(CODES)
    try:
        for query in ("error E-4107", "a report on the devices of a building"):
            with codes.retriever() as retriever:
                hybrid = retriever.search_sync(query, limit=30, dense_weight=1)
            with dense.retriever() as retriever:
                plain = retriever.search_sync(query, limit=30)
            assert found(hybrid) == found(plain)
            scores = [[(hit.score, hit.cosine, hit.bm25) for hit in result.hits] for result in (hybrid, plain)]
            assert scores[0] == [pytest.approx(one, abs=1e-6) for one in scores[1]]
            assert hybrid.dense_weight == plain.dense_weight == 1.0
    finally:
        for name in CODES:
            dense.drop(name, 1)


def test_an_index_without_words_takes_turns_with_one_that_has_them(empty: Desk) -> None:
    empty.write(titles='search = "dense"')
    empty.fill(CODES)
    with empty.retriever() as retriever:
        result = retriever.search_sync("E-4142", indexes=list(CODES), limit=4)
        assert result.fusion == "rank"
        assert [hit.index for hit in result.hits] == ["comments", "titles"] * 2
        assert found(result)[0] == ("comments", "42")
        assert not any(hit.bm25 for hit in result.hits if hit.index == "titles")
        with pytest.raises(SettingsError, match="searched by words too cannot be compared"):
            retriever.search_sync("E-4142", indexes=list(CODES), fusion="score")
        assert retriever.search_sync("E-4142", indexes=list(CODES), dense_weight=1).fusion == "score"


def test_a_query_is_taken_apart_as_the_collection_was_whatever_the_settings_say_now(empty: Desk) -> None:
    texts = {"comments": [(1, "Drucker sind kaputt"), (2, "Printers are broken")]}
    empty.write(comments='language = "german"')
    empty.fill(texts)
    empty.write(comments='language = "english"')
    with empty.retriever() as retriever:
        hits = retriever.search_sync("Druckern", indexes=["comments"]).hits
    assert {hit.document_id: hit.matched for hit in hits} == {"1": ("Druckern",), "2": ()}


def test_a_query_of_frequent_words_is_searched_by_meaning(codes: Desk) -> None:
    with codes.retriever() as retriever:
        result = retriever.search_sync("of the", limit=5)
    assert len(result.hits) == 5
    assert all(hit.bm25 == 0 and hit.matched == () for hit in result.hits)


def test_the_command_explains_what_meaning_and_words_gave(codes: Desk) -> None:
    search = ["--config", str(codes.config), "search", "error E-4142", "--limit", "1", "--explain"]
    printed = run_program(search, os.environ).stdout
    assert "comments: 42" in printed
    assert re.search(r"cosine \d\.\d+, BM25 \d+\.\d+ \(error, E-4142\), soft match 1\.\d+", printed)
    ended = run_program([*search, "--dense-weight", "1"], os.environ)
    assert (ended.returncode, "cosine" in ended.stdout, "BM25" in ended.stdout) == (0, True, False)


def test_the_best_chunk_of_a_document_is_the_one_with_the_best_score_of_both() -> None:
    near, worded = point("a", 0, 0.9), point("a", 1, 0.2)
    points = [near, _with_bm25(worded, 8.0), _with_bm25(point("b", 0, 0.6), 4.0)]
    first, second = document_hits("x", points, Scoring(0.5, 8.0))
    assert (first.document_id, first.text, first.score) == ("a", "a 1", pytest.approx(0.6 / 1.6))
    assert (first.cosine, first.bm25) == (0.2, 8.0)
    assert [chunk.score for chunk in first.chunks] == pytest.approx([0.6 / 1.6, 0.45 / 1.6])
    assert (second.document_id, second.score) == ("b", pytest.approx(0.55 / 1.6))


def _with_bm25(point: StoredPoint, bm25: float) -> StoredPoint:
    return replace(point, bm25=bm25)
