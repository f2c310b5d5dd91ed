"""The generated desk of the benchmarks: its right answers are right, and choosing shares nothing
with judging."""

import re

import pytest

from benchmarks.searches.tickets import CHOOSING, EXACT, JUDGING, DeskQuery, make_desk


@pytest.fixture(scope="module")
def desks():
    return {seed: make_desk(300, seed) for seed in (CHOOSING, JUDGING)}


def texts_of(desk, *kinds):
    return {query.text for query in desk.queries if query.kind in kinds}


def test_a_right_ticket_has_what_is_asked_and_no_other_ticket_has_it(desks):
    for desk in desks.values():
        whole = {key: f" {text} " for key, _, text in desk.documents}
        for query in desk.queries:
            if query.kind in ("identifier", "name"):
                assert {key for key, text in whole.items() if query.text in text} == query.right, (
                    query
                )
            if query.kind in EXACT:
                assert query.right, query


def test_a_desk_is_the_same_for_the_same_seed(desks):
    again = make_desk(300, JUDGING)
    assert (again.documents, again.queries) == (desks[JUDGING].documents, desks[JUDGING].queries)


def test_numbers_are_judged_with_other_queries_than_they_were_chosen_with(desks):
    choosing, judging = desks[CHOOSING], desks[JUDGING]
    shapes = [
        {re.sub(r"\d", "#", re.sub("[a-zA-Z]", "x", text)) for text in texts_of(desk, "identifier")}
        for desk in (choosing, judging)
    ]
    assert shapes[0].isdisjoint(shapes[1])
    for kind in ("rare words", "question", "nonsense"):
        assert len(texts_of(judging, kind)) > 20
        assert texts_of(choosing, kind).isdisjoint(texts_of(judging, kind)), kind


def test_all_right_tickets_come_first_and_of_a_name_five():
    identifier = DeskQuery("identifier", "SD-1", frozenset({"1", "2"}))
    assert identifier.is_right(["2", "1", "9"])
    assert not identifier.is_right(["2", "9", "1"])
    assert not identifier.is_right([])
    name = DeskQuery("name", "Ann Lee", frozenset("1234567"))
    assert name.is_right([*"76543", "9"])
    assert not name.is_right(["1", "9", "2"])
    assert DeskQuery("question", "no image", frozenset("12")).is_right(["2", "9"])
