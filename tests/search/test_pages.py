"""Where the pages of a search end, and which of them lead to a next one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rag_index.search.concurrency import Deadline
from rag_index.search.options import MAX_HITS
from rag_index.search.pages import FURTHER, Sieve, cut_page, with_depth
from rag_index.search.question import Asked, Question
from rag_index.search.results import SearchResult

EVERY = Sieve(model=None, min_relevance=0.0, collapse=None, order=None)
FITTING = SimpleNamespace(relevance=0.9)
UNFIT = SimpleNamespace(relevance=0.1)


def asked_for(limit, **known):
    return Asked(Question("mail", limit, (), Deadline.after(1.0)), [], **known)


def cut(asked, sieve, shown, offset, end):
    return cut_page(asked, sieve, SearchResult((FITTING,) * shown, {}), offset, end)


def test_the_page_that_ends_where_no_search_goes_has_no_next_and_says_why():
    """An offset of 1,000 is refused, so nobody is led there."""
    asked = asked_for(MAX_HITS, hits=[FITTING], left=True)
    before = cut(asked, EVERY, MAX_HITS + 10, MAX_HITS - 20, MAX_HITS - 10)
    assert (len(before.hits), before.next_offset, before.missing) == (10, MAX_HITS - 10, "")
    last = cut(asked, EVERY, MAX_HITS + 10, MAX_HITS - 10, MAX_HITS)
    assert (len(last.hits), last.next_offset, last.missing) == (10, None, FURTHER)


@pytest.mark.parametrize(
    ("known", "limit", "sieve", "following", "missing"),
    [
        ({}, 30, EVERY, None, ""),
        ({"left": True}, 30, EVERY, 10, ""),
        ({"deeper": True, "unranked": True}, 30, EVERY, 10, ""),
        # No search goes deeper.
        ({"deeper": True, "unranked": True}, MAX_HITS, EVERY, None, FURTHER),
        # A deeper search would change the places of these hits.
        ({"deeper": True, "unranked": True}, 30, replace(EVERY, order="number"), None, FURTHER),
        # What follows is too little relevant, as some of what was found.
        ({"left": True, "hits": [UNFIT]}, 30, replace(EVERY, min_relevance=0.5), None, ""),
    ],
)
def test_a_full_page_leads_to_a_next_one_if_hits_may_follow(
    known, limit, sieve, following, missing
):
    page = cut(asked_for(limit, **known), sieve, 10, 0, 10)
    assert (len(page.hits), page.next_offset, page.missing) == (10, following, missing)


def test_every_page_is_cut_from_one_order_however_far_down_it_is():
    question = asked_for(5).question
    depths = {with_depth(question, EVERY, end, top=0).limit for end in (5, 50, 500)}
    assert len(depths) == 1
    collapsed = replace(EVERY, collapse="title")
    wider = with_depth(question, collapsed, 5, top=0)
    assert wider.limit > depths.pop()
    assert wider.hits is None
    assert with_depth(question, EVERY, 5, top=50).limit == 50, "all that a reranker reads"
    assert with_depth(replace(question, limit=MAX_HITS), collapsed, 5, top=0).limit == MAX_HITS
