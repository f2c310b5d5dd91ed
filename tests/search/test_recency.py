"""Newer documents: lifted a little where the index says so, and in the order of a field where the caller does."""

import datetime as dt

import pytest

from rag_index.core.settings.sections import RecencySettings
from rag_index.search.fusion import freshness
from tests.search.desk import Desk, found

NOW = dt.datetime.now(dt.UTC)
RECENCY = 'recency = {field = "created_at", half_life = "180d"}'


def ago(days: float) -> str:
    return (NOW - dt.timedelta(days=days)).isoformat()


ROWS = [
    (1, "The printer on floor two is offline", {"created_at": ago(900), "number": 3}),
    (2, "The printer on floor six is offline", {"created_at": ago(1), "number": 20}),
    (3, "The printer on floor two is offline, and the scanner", {"created_at": (NOW.timestamp()), "number": 1.5}),
    (4, "A mailbox that is full", {"created_at": ago(0), "number": 7}),
    (5, "The printer of nobody knows when is offline", {"number": 2}),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"), names=("comments",)).fill({"comments": ROWS})


def search(desk, query="printer floor two offline", **options):
    with desk.retriever() as retriever:
        return retriever.search_sync(query, **options)


def test_a_newer_of_nearly_equal_documents_comes_first_by_a_tenth_at_most(desk):
    desk.write()
    plain = {hit.document_id: hit for hit in search(desk).hits}
    assert all(hit.recency is None for hit in plain.values())
    desk.write(comments=RECENCY)
    lifted = search(desk)
    desk.write()
    assert plain["3"].score < plain["1"].score
    assert [one for _, one in found(lifted)][:2] == ["3", "1"]
    for hit in (one for one in lifted.hits if one.score > 0):
        share = hit.score / plain[hit.document_id].score - 1
        assert share == pytest.approx(0.1 * hit.recency, abs=1e-4)
        assert hit.to_json(explain=True)["recency"] == pytest.approx(hit.recency, abs=1e-5)
    by_id = {hit.document_id: hit.recency for hit in lifted.hits}
    assert by_id["1"] == pytest.approx(0.5**5, abs=1e-3)
    assert by_id["2"] == pytest.approx(1, abs=0.01)
    assert by_id["5"] == 0


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_a_number_is_a_time_in_the_unit_of_its_magnitude(unit):
    recency = RecencySettings(field="at", half_life="180d")
    ages = {0: 1.0, 180: 0.5, 900: 0.5**5, 18_000: 0.0}
    for days, expected in ages.items():
        at = (NOW - dt.timedelta(days=days)).timestamp() * unit
        for value in (at, int(at), str(int(at))):
            assert freshness(recency, {"at": value}) == pytest.approx(expected, abs=1e-3), value


@pytest.mark.parametrize(
    ("order", "ids"),
    [("-created_at", ["3", "2", "1", "5"]), ("created_at", ["1", "2", "3", "5"]), ("-number", ["2", "1", "5", "3"])],
)
def test_the_documents_that_fit_are_put_in_the_order_of_a_field(desk, order, ids):
    hits = search(desk, order=order).hits
    assert [hit.document_id for hit in hits] == ids, "the mailbox does not fit"
