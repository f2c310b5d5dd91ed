"""Points grouped by document, and several lists fused to one, by meaning, by words and by age."""

import datetime as dt
import random
from dataclasses import replace

import pytest

from rag_index.core.documents.batches import StoredPoint
from rag_index.core.settings.sections import RecencySettings
from rag_index.search.concurrency import Deadline
from rag_index.search.fusion import (
    agree,
    best_candidates,
    freshness,
    order_answers,
    ranked,
    scorings,
)
from rag_index.search.json_answers import ExplainedHit
from rag_index.search.live_collections import WITH_WORDS, LiveCollection
from rag_index.search.question import IndexAnswer, Question, Scoring
from tests.project import WORDS
from tests.search.desk import Desk, found

CODES = {
    "comments": [
        (n, f"The device reports error E-{4100 + n} and stops working after a while")
        for n in range(60)
    ],
    "titles": [(n, f"A report on devices of building {n}") for n in range(60)],
}
NOW = dt.datetime.now(dt.UTC)
RECENCY = 'recency = {field = "created_at", half_life = "180d"}'


def point(key: str, chunk: int, score: float, bm25: float = 0.0) -> StoredPoint:
    ours = {"key": f'"{key}"', "document_id": key, "chunk": chunk, "text": f"{key} {chunk}"}
    return StoredPoint(
        f"{key}-{chunk}", {"_rag": ours, "column": key.upper()}, score=score, bm25=bm25
    )


def answers(points, *, models=False):
    return [
        IndexAnswer(
            name,
            LiveCollection(name, name, name if models else "", "", None),
            (),
            hybrid=False,
            points=some,
        )
        for name, some in points.items()
    ]


def ordered(limit=1000, *, models=False, scoring=None, **points):
    question = Question("q", limit, (), Deadline.after(9))
    return order_answers(
        answers(points, models=models), question, dict.fromkeys(points, scoring or Scoring())
    )


def names(hits) -> list[str]:
    return [f"{hit.index}{hit.document_id}" for hit in hits]


A = [
    point("a", 0, 0.9),
    point("b", 0, 0.5),
    point("a", 3, 0.8),
    point("a", 2, 0.7),
    point("a", 1, 0.6),
]


def test_a_document_appears_once_with_its_best_chunks():
    first, second = ordered(x=A)
    assert (first.document_id, first.score, first.rank, first.text) == ("a", 0.9, 1, "a 0")
    assert [(chunk.chunk, chunk.score, chunk.text) for chunk in first.chunks] == [
        (0, 0.9, "a 0"),
        (3, 0.8, "a 3"),
        (2, 0.7, "a 2"),
        (1, 0.6, "a 1"),
    ]
    assert first.payload == {"column": "A"}
    assert (second.document_id, second.rank) == ("b", 2)
    (hit,) = ordered(x=[StoredPoint("id", {"a": 1}, score=0.1)])
    assert (hit.document_id, hit.text, hit.payload) == (
        "id",
        "",
        {"a": 1},
    ), "a point that rag-index did not write"


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
    """Cormack, Clarke and Büttcher 2009: the sum of 1 / (60 + r); a document is in one list
    here."""
    lists = {"x": A, "y": [point("c", 0, 0.1)]}
    hits = ordered(models=True, **lists)
    assert names(hits) == ["xa", "yc", "xb"]
    assert [hit.fused for hit in hits] == pytest.approx([1 / 61, 1 / 61, 1 / 62])
    assert [hit.score for hit in hits] == [0.9, 0.1, 0.5]
    assert names(ordered(2, models=True, **dict(reversed(lists.items())))) == ["yc", "xa"]


def test_by_score_orders_all_by_score_and_ties_by_the_order_asked():
    lists = {
        name: [point("d", 0, 0.5), point("e", 0, score)] for name, score in (("x", 0.4), ("y", 0.6))
    }
    hits = ordered(**lists)
    assert names(hits) == ["ye", "xd", "yd", "xe"]
    assert [hit.fused for hit in hits] == [0.6, 0.5, 0.5, 0.4]
    assert names(ordered(1, **lists)) == ["ye"]
    assert ordered() == ordered(x=[]) == []


def test_the_best_chunk_of_a_document_is_the_one_with_the_best_score_of_both():
    points = [point("a", 0, 0.9), point("a", 1, 0.2, bm25=8.0), point("b", 0, 0.6, bm25=4.0)]
    first, second = ordered(x=points, scoring=Scoring(0.5, 8.0, 0.6))
    assert (first.document_id, first.text, first.score) == ("a", "a 1", pytest.approx(0.6 / 1.6))
    assert (first.cosine, first.bm25) == (0.2, 8.0)
    assert [chunk.score for chunk in first.chunks] == pytest.approx([0.6 / 1.6, 0.45 / 1.6])
    assert (second.document_id, second.score) == ("b", pytest.approx(0.55 / 1.6))


def test_what_is_read_are_the_best_chunks_those_equal_to_the_last_and_more_if_they_are_of_few_documents():
    question = Question("q", 3, (), Deadline.after(9))

    def read(*points):
        return best_candidates(answers({"x": list(points)}), question, {"x": Scoring()})[0]["x"]

    others = [point(f"other {n}", 0, 0.8 - n / 1000) for n in range(500)]
    assert read(*others) == others[:50]
    assert (
        len(
            read(
                *others[:49],
                *(point(f"equal {n}", 0, 0.1) for n in range(9)),
                point("last", 0, 0.05),
            )
        )
        == 58
    )
    long = [point("long", n, 0.9) for n in range(100)]
    assert read(*long, *others) == [*long, *others[:100]], "50 and then 200"


def test_meaning_and_words_agree_if_a_chunk_is_among_the_best_of_both():
    chunks = [point(str(n), 0, 1 - n / 100) for n in range(100)]
    for worded, agreed in (
        ([24, *range(40, 60)], True),
        ([*range(25, 60)], False),
        ([*range(40, 50), 0, 1], False),  # near, but not among the ten best by words
        ([0], True),
        ([90], False),  # the only one with the words
        ([], False),
    ):
        assert agree(chunks, [chunks[n] for n in worded]) is agreed


def test_meaning_counts_less_in_a_collection_where_it_agrees_with_words_about_few_texts():
    one = answers({"x": [point(str(n), 0, 1 - n / 100) for n in range(100)]})[0]
    question = Question("q", 3, (), Deadline.after(9), dense_weight=0.4)
    for trusted, weight in ((True, 0.4), (False, 0.06)):
        live = replace(one.live, calibration=replace(WITH_WORDS, trusted=trusted))
        assert scorings([replace(one, hybrid=True, live=live)], question)[
            "x"
        ].dense_weight == pytest.approx(weight)


def test_words_find_a_code_and_the_score_is_the_weighted_mean_of_cosine_share_of_the_best_bm25_and_soft_match(
    blank,
):
    """The texts mean the same and differ in a code."""
    with blank.fill(CODES).retriever() as retriever:
        hybrid = retriever.search_sync("what does E-4142 mean", limit=3)
        dense = retriever.search_sync("what does E-4142 mean", limit=3, dense_weight=1)
        assert found(hybrid)[0] == ("comments", "42") != found(dense)[0]
        assert hybrid.hits[0].matched == ("E-4142",)
        assert (hybrid.dense_weight, hybrid.fusion) == (0.7, "score")
        for weight in (0.0, 0.3, 0.99):
            result = retriever.search_sync(
                "devices of building 7 with error E-4107", limit=100, dense_weight=weight
            )
            assert {hit.index for hit in result.hits} == {"comments", "titles"}
            best = max(hit.bm25 for hit in result.hits)
            for hit in result.hits:
                expected = weight * hit.cosine + (1 - weight) * hit.bm25 / best
                expected = (expected + 0.7 * hit.soft) / 1.7 if weight else expected
                assert hit.score == hit.fused == pytest.approx(expected + hit.names, abs=1e-6)
            assert [hit.score for hit in result.hits] == sorted(
                (hit.score for hit in result.hits), reverse=True
            )
        nothing = retriever.search_sync("of the", limit=5)
        assert len(nothing.hits) == 5
        assert all(hit.bm25 == 0 and hit.matched == () for hit in nothing.hits), (
            "frequent words are not searched for"
        )


def test_an_index_without_words_takes_turns_with_one_that_has_them(blank):
    blank.write(titles='search = "dense"')
    blank.fill(CODES)
    with blank.retriever() as retriever:
        result = retriever.search_sync("E-4142", indexes=list(CODES), limit=4)
        assert result.fusion == "rank"
        assert [hit.fused for hit in result.hits] == pytest.approx([1 / 61] * 2 + [1 / 62] * 2)
        assert [hit.index for hit in result.hits] == ["comments", "titles"] * 2
        assert found(result)[0] == ("comments", "42")
        assert not any(hit.bm25 for hit in result.hits if hit.index == "titles")
        assert (
            retriever.search_sync("E-4142", indexes=list(CODES), dense_weight=1).fusion == "score"
        )


def test_a_query_is_taken_apart_as_the_collection_was_whatever_the_settings_say_now(tmp_path):
    desk = Desk(tmp_path, names=("comments",), more={"comments": 'language = "german"'})
    desk.fill({"comments": [(1, "Drucker sind kaputt"), (2, "Printers are broken")]})
    desk.write(comments='language = "english"')
    with desk.retriever() as retriever:
        hits = retriever.search_sync("Druckern").hits
    assert {hit.document_id: hit.matched for hit in hits} == {"1": ("Druckern",), "2": ()}


def texts(seed: int) -> list[tuple[int, str]]:
    """Return 150 documents of few words, some of several chunks, so that no search sees all
    chunks."""
    ranges = [(n, range(60 if n % 9 == 0 else 7)) for n in range(150)]
    return [
        (n, " ".join(WORDS[(n * seed + k * (n % 5 + 1)) % len(WORDS)] for k in some))
        for n, some in ranges
    ]


@pytest.mark.long
def test_the_order_is_that_of_a_search_with_the_same_weight(embedded):
    embedded.fill({"comments": texts(3), "titles": texts(7)}, number=2)
    with embedded.retriever() as retriever:
        for query in (
            "printer offline",
            "backup of the mail server",
            "license",
            "nothing of the kind",
        ):
            for indexes in (None, ["titles"], ["titles", "comments"]):
                candidates = retriever.run(retriever.candidates(query, indexes=indexes, limit=10))
                kept = [
                    point.payload["_rag"]
                    for answer in candidates.answered
                    for point in answer.points
                ]
                assert not any("text" in one for one in kept)
                for weight in (1.0, 0.99, 0.4, 0.05, 0.0):
                    searched = retriever.search_sync(
                        query, indexes=indexes, limit=10, dense_weight=weight
                    )
                    assert ranked(candidates, weight, indexes) == found(searched), (
                        query,
                        indexes,
                        weight,
                    )
                    assert len(searched.hits) == 10


def ago(days: float) -> str:
    return (NOW - dt.timedelta(days=days)).isoformat()


DATED = [
    (1, "The printer on floor two is offline", {"created_at": ago(900), "number": 3}),
    (2, "The printer on floor six is offline", {"created_at": ago(1), "number": 20}),
    (
        3,
        "The printer on floor two is offline, and the scanner",
        {"created_at": NOW.timestamp(), "number": 1.5},
    ),
    (4, "A mailbox that is full", {"created_at": ago(0), "number": 7}),
    (5, "The printer of nobody knows when is offline", {"number": 2}),
]


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("dated"), names=("comments",)).fill({"comments": DATED})


def search(dated, query="printer floor two offline", **options):
    with dated.retriever() as retriever:
        return retriever.search_sync(query, **options)


def test_a_newer_of_nearly_equal_documents_comes_first_by_a_tenth_at_most(dated):
    dated.write()
    plain = {hit.document_id: hit for hit in search(dated).hits}
    assert all(hit.recency is None for hit in plain.values())
    dated.write(comments=RECENCY)
    lifted = search(dated)
    dated.write()
    assert plain["3"].score < plain["1"].score
    assert [one for _, one in found(lifted)][:2] == ["3", "1"]
    for hit in (one for one in lifted.hits if one.score > 0):
        assert hit.score / plain[hit.document_id].score - 1 == pytest.approx(
            0.1 * hit.recency, abs=1e-4
        )
        assert ExplainedHit.model_validate(hit).to_json()["recency"] == pytest.approx(
            hit.recency, abs=1e-5
        )
    by_id = {hit.document_id: hit.recency for hit in lifted.hits}
    assert by_id["1"] == pytest.approx(0.5**5, abs=1e-3)
    assert by_id["2"] == pytest.approx(1, abs=0.01)
    assert by_id["5"] == 0


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_a_number_is_a_time_in_the_unit_of_its_magnitude(unit):
    recency = RecencySettings(field="at", half_life="180d")
    for days, expected in {0: 1.0, 180: 0.5, 900: 0.5**5, 18_000: 0.0}.items():
        at = (NOW - dt.timedelta(days=days)).timestamp() * unit
        for value in (at, int(at), str(int(at))):
            assert freshness(recency, {"at": value}) == pytest.approx(expected, abs=1e-3), value


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ("-created_at", ["3", "2", "1", "5"]),
        ("created_at", ["1", "2", "3", "5"]),
        ("-number", ["2", "1", "5", "3"]),
    ],
)
def test_the_documents_that_fit_are_put_in_the_order_of_a_field(dated, order, ids):
    assert [hit.document_id for hit in search(dated, order=order).hits] == ids, (
        "the mailbox does not fit"
    )
