"""Documents like one: found by its own vector and words, without itself, and for nobody who may not see it."""

import json

import httpx
import pytest

from rag_index.errors import DocumentNotFound
from rag_index.search import Caller
from rag_index.search.service import SearchService
from rag_index.search.service.mcp_tools import AgentTools
from tests.project import run_here
from tests.search.desk import Desk, found
from tests.search.service.live import Live

NOTES = [
    (1, "The printer on floor two is offline since the update", {"priority": "high"}),
    (2, "the PRINTER on floor two is  offline since the update", {"priority": "low"}),
    (3, "A printer is offline, again after an update", {"priority": "low"}),
    (4, '"Quotes" and -minus: the mailbox is full and no mail arrives', {"priority": "high"}),
    (5, "Mail does not arrive, since the mailbox is full", {"priority": "high"}),
]


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path, names=("comments", "titles")).fill({"comments": NOTES, "titles": [("t", "Full mailbox")]})


def test_what_is_like_a_document_comes_first_without_itself_and_its_repetitions(desk):
    with desk.retriever() as retriever:
        near = retriever.search_sync(like="comments/1", limit=2)
        other = retriever.search_sync(like="comments/4", limit=2)
        high = retriever.search_sync(like="comments/1", filter="priority=high", indexes=["comments"])
    assert found(near)[0] == ("comments", "3")
    assert {*found(other)} == {("comments", "5"), ("titles", "t")}
    assert {*found(high)} == {("comments", "4"), ("comments", "5")}
    assert near.verdict == ""


def test_whoever_may_not_see_a_document_finds_nothing_by_it(tmp_path):
    rows = [(n, text, {"_rag": {"groups": ["staff"] if n < 3 else ["staff", "all"]}}) for n, text, _ in NOTES]
    desk = Desk(tmp_path, names=("comments",), more={"comments": 'access = "acl"'}).fill({"comments": rows})
    with desk.retriever() as retriever:
        assert found(retriever.search_sync(like="comments/3", groups="all", limit=1)) != [("comments", "1")]
        assert found(retriever.search_sync(like="comments/3", groups="staff", limit=1)) == [("comments", "1")]
        with pytest.raises(DocumentNotFound):
            retriever.search_sync(like="comments/1", groups="all")


def test_the_command_and_the_service_find_the_same(desk):
    printed = json.loads(run_here(desk.config, "search", "--like", "comments/1", "--limit", "1", "--json")[0])
    assert [hit["document_id"] for hit in printed["hits"]] == ["3"]
    assert "has no document" in run_here(desk.config, "search", "--like", "comments/77", code=1)[1]
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        for found_there in (
            client.post("/search", json={"like": "comments/1", "limit": 1}),
            client.get("/search", params={"like": "comments/1", "limit": 1}),
        ):
            assert [hit["document_id"] for hit in found_there.json()["hits"]] == ["3"]
        assert client.post("/search", json={"like": "comments/77"}).status_code == 404
        assert client.post("/search", json={}).status_code == 422
        assert client.post("/search", json={"like": "comments/1", "query": "x"}).status_code == 400
        tools = AgentTools(SearchService(desk.settings, live.retriever))
        assert "1. [comments/3#0" in live.retriever.run(tools.call("search", {"like": "comments/1"}, Caller()))
