"""The contract of every store on sparse vectors: written, read, counted and searched beside the
dense ones. Points without a dense vector are found by their words."""

from dataclasses import replace

import numpy as np
import pytest

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.components.stores.protocol import PayloadCondition, VectorQuery
from rag_index.components.stores.reads import LOOK_UPS_AT_ONCE
from rag_index.core.documents.batches import PointBatch, StoredPoint
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from rag_index.errors import PointsRefused, StoreMismatch
from tests.components.stores.test_contract import DIMENSION, batch, new_name, store

__all__ = ["store"]

TEXTS = [
    "The printer is offline",
    "A scanner is offline",
    "Printers printing to the printer",
    "Bananas",
    "the of and",
]
WORDS = ("printer", "offline", "scanner", "zz")
ENGLISH = Bm25Encoder(Bm25Model("english"))
IDS = [f"00000000-0000-5000-8000-00000000000{number}" for number in range(4)]
VECTORS = [
    SparseVector(*one) for one in (((1,), (1.0,)), ((1, 2), (1.0, 1.0)), ((2,), (3.0,)), ((), ()))
]
NEAR, FAR = [1.0, 0.0], [-0.6, 0.8]


@pytest.fixture
def name(store):
    """A collection with one point for each text; their dense vectors have nothing to do with
    them."""
    name = new_name()
    store.create(name, DIMENSION, {}, sparse=True)
    store.points(name).upsert(points())
    yield name
    store.drop(name)


def points() -> PointBatch:
    return replace(
        batch(list(range(len(TEXTS))), [{"text": text} for text in TEXTS]),
        sparse=ENGLISH.documents(TEXTS),
    )


def bm25_by_hand(query: str, text: str) -> float:
    """Return the score that Qdrant documents: term frequency part times ln(1 + (N - n + 0.5) / (n +
    0.5))."""
    rows = map(ENGLISH.documents(TEXTS).row, range(len(TEXTS)))
    vectors = [dict(zip(row.indices, row.values, strict=True)) for row in rows]
    total, score = sum(map(bool, vectors)), 0.0
    for word in ENGLISH.query(query).indices:
        having = sum(word in vector for vector in vectors)
        score += vectors[TEXTS.index(text)].get(word, 0.0) * np.log(
            1 + (total - having + 0.5) / (having + 0.5)
        )
    return float(score)


def texts_by_words(limit: int) -> list[str]:
    """Return the best texts by the words of "printer offline"."""
    best = sorted(TEXTS, key=lambda text: -bm25_by_hand("printer offline", text))
    return [text for text in best if bm25_by_hand("printer offline", text)][:limit]


def test_sparse_vectors_come_back_as_they_were_written(store, name):
    written = points()
    assert written.sparse is not None
    read = {point.id: point for point in store.points(name).scroll(vectors=True)}
    for i, point_id in enumerate(written.ids):
        found, wanted = read[point_id].sparse, written.sparse.row(i)
        assert (found.indices if found else ()) == wanted.indices
        np.testing.assert_array_equal(
            np.float32(found.values if found else ()), np.float32(wanted.values)
        )  # REST
        vector = written.vectors[i] / np.linalg.norm(written.vectors[i])
        np.testing.assert_allclose(read[point_id].vector, vector, atol=1e-6)
    assert all(
        point.sparse is None and point.vector is None for point in store.points(name).scroll()
    )


def test_words_are_counted_and_known_from_points_that_meet_the_conditions_alone(store, name):
    printer, offline, scanner, unknown = (ENGLISH.query(word).indices[0] for word in WORDS)
    having = sum(
        printer in point.sparse.indices
        for point in store.points(name).scroll(vectors=True)
        if point.sparse
    )
    counts = store.points(name).word_counts([printer, unknown])
    assert (having > 0, counts.having[unknown]) == (True, 0)
    assert counts.having[printer] == pytest.approx(having, abs=1)
    assert store.points(name).word_counts([]).having == {}
    asked, only = [printer, offline, scanner, unknown], [PayloadCondition("text", "eq", TEXTS[1])]
    ids = points().ids
    found = {word: set(places) for word, places in store.points(name).find_words(asked).items()}
    assert found == {printer: {ids[0], ids[2]}, offline: {ids[0], ids[1]}, scanner: {ids[1]}}
    assert store.points(name).find_words(asked, only) == {offline: [ids[1]], scanner: [ids[1]]}
    assert store.points(name).find_words([]) == {}
    assert store.points(name).word_counts([printer, scanner], only).having[printer] == 0
    assert store.points(name).word_counts([printer, scanner], only).having[scanner] >= 1


def test_both_scores_of_every_candidate_are_right_and_conditions_hold_for_both_vectors(store, name):
    query = np.random.default_rng(2).normal(size=DIMENSION).astype(np.float32)
    for limit in (1, 2, 10):
        found = store.points(name).search(
            VectorQuery(query, limit, ENGLISH.query("printer offline"))
        )
        assert len({point.id for point in found}) == len(found)
        for point in found:
            text = point.payload["text"]
            vector = points().vectors[TEXTS.index(text)]
            cosine = float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
            assert point.score == pytest.approx(cosine, abs=1e-5)
            words = ENGLISH.documents([text]).row(0)
            assert (point.sparse.indices if point.sparse else ()) == words.indices
            assert (point.sparse.values if point.sparse else ()) == pytest.approx(words.values)
        texts = {point.payload["text"] for point in found}
        assert len(texts) >= min(limit, len(TEXTS))
        assert set(texts_by_words(limit)) <= texts
        worded = store.points(name).search(
            VectorQuery(None, limit, ENGLISH.query("printer offline"))
        )
        assert sorted(point.score for point in worded) == pytest.approx(
            sorted(bm25_by_hand("printer offline", point.payload["text"]) for point in worded),
            rel=1e-4,
        )
        assert [point.score for point in worded] == sorted(
            [point.score for point in worded], reverse=True
        )
    conditions = [PayloadCondition("text", "eq", "A scanner is offline")]
    for vector in (points().vectors[0], None):
        found = store.points(name).search(
            VectorQuery(vector, 5, ENGLISH.query("offline"), conditions=conditions)
        )
        assert [point.payload["text"] for point in found] == ["A scanner is offline"]


def test_what_has_a_name_is_found_although_others_are_nearer_and_have_more_words(store, name):
    """Points without any word are found by the vector alone, and nothing is by no query."""
    far = -points().vectors[1]
    asked = VectorQuery(far, 1, ENGLISH.query("printer printers"))
    assert TEXTS[1] not in {point.payload["text"] for point in store.points(name).search(asked)}
    named = replace(asked, names=[ENGLISH.query("scanner")])
    [scanner] = [
        point for point in store.points(name).search(named) if point.payload["text"] == TEXTS[1]
    ]
    assert scanner.score == pytest.approx(-1.0, abs=1e-5)
    alone = replace(named, vector=None)
    assert {point.payload["text"] for point in store.points(name).search(alone)} == {
        TEXTS[1],
        TEXTS[2],
    }
    assert store.points(name).search(VectorQuery(None, 5)) == []


@pytest.mark.parametrize("store", ["edge"], indirect=True)
def test_a_collection_without_words_is_searched_by_the_vector_alone(store):
    """An index is rebuilt with search = "dense" while a service still asks it for words."""
    name, query = new_name(), ENGLISH.query("printer")
    store.create(name, DIMENSION, {})
    store.points(name).upsert(replace(points(), sparse=None))
    by_both = VectorQuery(points().vectors[0], 2, query, names=[query])
    [nearest, _] = store.points(name).search(by_both)
    assert nearest.id == points().ids[0]
    assert store.points(name).search_all([replace(by_both, vector=None)]) == [[]]
    store.drop(name)


def test_many_searches_at_once_find_what_each_of_them_finds_alone(store, name):
    """Those of every kind, and more of them than one request takes."""
    by_words = ENGLISH.documents(["offline"])
    store.points(name).upsert(PointBatch([IDS[0]], None, [{"text": "no vector"}], by_words))
    vector = points().vectors[0]
    kinds = [
        VectorQuery(vector, 2),
        VectorQuery(None, 2, ENGLISH.query("printer offline")),
        VectorQuery(None, 2),
        VectorQuery(vector, 1, ENGLISH.query("offline"), names=[ENGLISH.query("scanner")]),
        VectorQuery(vector, 5, conditions=[PayloadCondition("text", "eq", TEXTS[3])]),
    ]
    queries = kinds * (LOOK_UPS_AT_ONCE // 2)
    alone = [_scores(store.points(name).search(query)) for query in kinds]
    together = [_scores(found) for found in store.points(name).search_all(queries)]
    assert together == alone * (LOOK_UPS_AT_ONCE // 2)
    assert IDS[0] in dict(alone[3]), "a point without a vector is found by its words"
    assert len(set(map(str, alone))) == len(kinds)
    assert store.points(name).search_all([]) == []


def _scores(found: list[StoredPoint]) -> list[tuple[str, float]]:
    return [(point.id, round(point.score, 4)) for point in found]


@pytest.mark.parametrize("store", ["edge", "http", "grpc"], indirect=True)
def test_words_weigh_what_they_do_among_the_points_of_a_corpus(store, name):
    """Its counts and scores are those of a collection that has no other points."""
    own, other = [PayloadCondition("text", "any", TEXTS[1:])], new_name()
    rest = points()
    store.create(other, DIMENSION, {}, sparse=True)
    store.points(other).upsert(
        replace(batch([1, 2, 3, 4], rest.payloads[1:]), sparse=ENGLISH.documents(TEXTS[1:]))
    )
    words = [one for word in WORDS for one in ENGLISH.query(word).indices]
    counted = store.points(name).word_counts(words, own)
    assert dict(counted.having) == dict(zip(words, (1, 1, 1, 0), strict=True))
    assert counted.points == 3, "those with words"
    for limit in (1, 10):
        asked = VectorQuery(None, limit, ENGLISH.query("printer offline"))
        mine = store.points(name).search(replace(asked, conditions=own, corpus=own))
        alone = store.points(other).search(asked)
        assert {p.id: p.score for p in mine} == {
            p.id: pytest.approx(p.score, rel=1e-6) for p in alone
        }
    store.drop(other)


def test_a_collection_without_sparse_vectors_refuses_them(store):
    name = new_name()
    store.create(name, DIMENSION, {})
    with pytest.raises(PointsRefused, match="no sparse vectors: run `rag-index rebuild`"):
        store.points(name).upsert(points())
    with pytest.raises(StoreMismatch, match="no sparse vectors: run `rag-index rebuild`"):
        store.create(name, DIMENSION, {}, sparse=True)
    assert store.points(name).count() == 0
    store.drop(name)


def test_payload_updates_and_new_texts_leave_no_old_words(store, name):
    written = points()
    store.points(name).update_payloads([(written.ids[0], {"text": "other"})])
    kept, before = (
        store.points(name).retrieve(written.ids[:1], vectors=True)[0].sparse,
        written.sparse.row(0),
    )  # type: ignore[union-attr]
    assert kept is not None
    assert (kept.indices, kept.values) == (before.indices, pytest.approx(before.values))
    changed = PointBatch(
        written.ids[:1], written.vectors[:1], written.payloads[:1], ENGLISH.documents(["of the"])
    )
    store.points(name).upsert(changed)
    assert store.points(name).retrieve(written.ids[:1], vectors=True)[0].sparse is None


def mixed_batch(rows, vectors):
    payloads = [{"_rag": {"key": str(row), "chunk": 0}} for row in rows]
    given = None if vectors is None else np.asarray(vectors, dtype=np.float32)
    words = SparseVectors.from_rows([VECTORS[row] for row in rows])
    return PointBatch([IDS[row] for row in rows], given, payloads, words)


def found(store, mixed):
    query = VectorQuery(np.asarray(NEAR, dtype=np.float32), 10, SparseVector((1, 2), (1.0, 1.0)))
    return {IDS.index(point.id): point for point in store.points(mixed).search(query)}


def test_a_missing_vector_is_the_lowest_cosine_of_the_candidates_until_it_comes(store):
    """Two points have vectors, and two have none; the last has no words either."""
    mixed = new_name()
    store.create(mixed, 2, {}, sparse=True)
    store.points(mixed).upsert(mixed_batch([0, 1], [NEAR, FAR]))
    store.points(mixed).upsert(mixed_batch([2, 3], None))
    store.points(mixed).flush()
    points = found(store, mixed)
    assert points.keys() == {0, 1, 2}
    assert [points[n].score for n in (0, 1, 2)] == pytest.approx([1.0, -0.6, -0.6], abs=1e-5)
    assert [points[n].by_words for n in (0, 1, 2)] == [False, False, True]
    assert [points[n].sparse for n in (1, 2)] == [VECTORS[1], VECTORS[2]]
    assert [
        point.id
        for point in store.points(mixed).search(VectorQuery(np.asarray(NEAR, dtype=np.float32), 10))
    ] == IDS[:2]
    assert store.points(mixed).count() == 4
    assert [point.vector is None for point in store.points(mixed).scroll(vectors=True)] == [
        False,
        False,
        True,
        True,
    ]
    store.points(mixed).update_payloads(
        [(IDS[2], {"_rag": {"key": "2", "chunk": 0, "groups": ["staff"]}})]
    )
    store.points(mixed).upsert(mixed_batch([2, 3], [NEAR, FAR]))
    assert store.points(mixed).count() == 4
    assert not any(point.by_words for point in found(store, mixed).values())
