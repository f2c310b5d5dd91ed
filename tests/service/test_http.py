"""The HTTP interface of a service with default settings: answers, and problems for what is wrong."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.retrieve.desk import DESK, Desk
from tests.service.live import Live

PROBLEM = "application/problem+json"


def ids(answer) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return [(hit["index"], hit["document_id"]) for hit in answer.json()["hits"]]


def problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    found = answer.json()
    assert found["status"] == status
    assert found["type"] == "about:blank"
    assert found["title"]
    assert found["detail"]
    return found


def test_a_search_by_body_and_one_by_address_find_the_same(client):
    asked = {"query": "Printer offline after update", "limit": 2}
    assert ids(client.post("/search", json=asked)) == ids(client.get("/search", params=asked))
    assert ids(client.get("/search", params=asked)) == [("titles", "t-1"), ("comments", "1")]


def test_filters_and_indexes_narrow_a_search(client):
    body = {"query": "printer", "indexes": ["comments"], "filter": {"priority": "high"}}
    assert {one for _, one in ids(client.post("/search", json=body))} == {"1", "3"}
    texts = {"query": "printer", "indexes": ["comments", "solutions"], "filter": ["priority=high", "number<=1"]}
    assert set(ids(client.get("/search", params=texts))) == {("comments", "1"), ("solutions", "1")}


def test_an_answer_says_how_fresh_it_is_and_explains_on_demand(client):
    plain = client.post("/search", json={"query": "printer"}).json()
    assert plain.keys() == {"hits", "freshness"}
    assert plain["freshness"].keys() == set(DESK)
    explained = client.post("/search", json={"query": "printer", "explain": True, "dense_weight": 1}).json()
    assert explained["timings_ms"]["total"] > 0
    assert explained["dense_weight"] == 1
    assert explained["hits"][0]["chunks"]


def test_a_document_has_its_chunks_in_order(client):
    found = client.get("/documents/comments/2").json()
    assert (found["index"], found["document_id"]) == ("comments", "2")
    assert found["payload"]["priority"] == "low"
    assert [chunk["text"] for chunk in found["chunks"]] == ["The printer prints blank pages"]
    assert "freshness" in found


def test_indexes_tell_their_fields_and_whether_they_can_be_searched(client):
    found = client.get("/indexes").json()["indexes"]
    assert [one["name"] for one in found] == list(DESK)
    assert {"name": "priority", "kind": None} in found[0]["fields"]
    assert all(one["live"] for one in found)
    assert found[0]["language"] == "english"


def test_probes_and_metrics(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for probe in ("/healthz", "/readyz"):
        answer = client.head(probe)
        assert (answer.status_code, answer.content) == (200, b"")
    client.get("/search", params={"query": "mailbox full"})
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'rag_index_search_seconds_count{stage="total"}' in metrics.text
    assert 'rag_index_http_requests_total{method="GET",route="/search",status="200"}' in metrics.text
    assert "mailbox" not in metrics.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": "x", "indexes": ["title"]}, 400, "did you mean 'titles'"),
        ({"query": "x", "filter": {"colour": "red"}}, 400, "there is no field 'colour'"),
        ({"query": "x", "filter": "priority~high"}, 400, "priority~high"),
        ({"query": "  "}, 400, "empty"),
        ({"query": ""}, 422, "query"),
        ({}, 422, "query: Field required"),
        ({"query": "x", "limt": 3}, 422, "limt: Extra inputs"),
        ({"query": "x", "limit": 0}, 422, "limit"),
        ({"query": "x", "timeout": -1}, 422, "timeout"),
        ({"query": "x" * 10_001}, 422, "query"),
        ({"query": "x", "dense_weight": 2}, 422, "dense_weight"),
        ({"query": "x", "rerank": True}, 400, "there is no reranker"),
        ({"query": "x", "rerank": "maybe"}, 422, "rerank"),
        ({"query": "x", "filter": {"priority": {"like": "h"}}}, 400, "'like' is not known"),
    ],
)
def test_what_a_caller_got_wrong_is_named(client, body, status, words):
    assert words in problem(client.post("/search", json=body), status)["detail"]


def test_a_wrong_parameter_of_an_address_is_named(client):
    assert "limt" in problem(client.get("/search", params={"query": "x", "limt": 3}), 422)["detail"]
    assert "query" in problem(client.get("/search"), 422)["detail"]


@pytest.mark.parametrize("body", [b"{", b"", b"[1]", b'{"query": "\\ud800"}', b"\xff", b"[" * 50_000])
def test_a_body_that_is_no_search_is_refused(client, body):
    answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, answer.status_code)["status"] in (400, 422)


def test_a_filter_that_is_not_unicode_is_refused(client):
    body = b'{"query": "x", "filter": {"priority": "\\ud800"}}'
    answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, answer.status_code)["status"] in (400, 422)


def test_what_is_not_there_is_404(client):
    assert "no document '77'" in problem(client.get("/documents/comments/77"), 404)["detail"]
    assert "did you mean" in problem(client.get("/documents/comment/1"), 404)["detail"]
    problem(client.get("/nothing/here"), 404)
    problem(client.get("/documents/comments/"), 404)
    assert client.get("/documents/comments", params={"id": "2"}).json()["document_id"] == "2"
    assert "no document '..'" in problem(client.get("/documents/comments", params={"id": ".."}), 404)["detail"]


def test_another_method_is_405_and_says_which(client):
    answer = client.delete("/search")
    problem(answer, 405)
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


def test_openapi_describes_every_address_with_examples(client):
    described = client.get("/openapi.json").json()
    assert described["paths"].keys() == {
        "/search", "/documents/{index}", "/documents/{index}/{document_id}", "/indexes", "/healthz", "/readyz",
        "/metrics",
    }  # fmt: skip
    body = described["components"]["schemas"]["SearchBody"]["properties"]
    assert body["query"]["examples"]
    assert body["filter"]["examples"]
    assert PROBLEM in json.dumps(described["paths"]["/search"]["post"]["responses"]["400"])


def test_with_nothing_indexed_it_says_what_to_run(tmp_path):
    import httpx

    with Live(Desk(tmp_path / "desk").settings) as live, httpx.Client(base_url=live.url) as client:
        answer = client.get("/search", params={"query": "x"})
        assert "rag-index index-all" in problem(answer, 503)["detail"]
        assert answer.headers["retry-after"]
        assert "rag-index index-all" in problem(client.get("/readyz"), 503)["detail"]
        assert client.get("/healthz").status_code == 200
        assert [one["live"] for one in client.get("/indexes").json()["indexes"]] == [False] * 3


def test_a_body_is_json_whatever_the_client_calls_it(client):
    for kind in ("application/x-www-form-urlencoded", "text/plain; charset=utf-8", ""):
        answer = client.post("/search", content=b'{"query": "printer"}', headers={"Content-Type": kind})
        assert ids(answer)


def test_a_list_without_an_index_is_no_list_of_all(client):
    assert "names no index" in problem(client.post("/search", json={"query": "x", "indexes": []}), 400)["detail"]


def test_a_filter_that_is_too_large_is_refused(client):
    asked = {"query": "printer", "filter": {"priority": {"not": ["x"] * 1001}}}
    assert "1,000 values" in problem(client.post("/search", json=asked), 400)["detail"]


def test_a_caller_may_leave_the_reranker_out(desk):
    class Longest:
        def score(self, query, texts):
            return [len(text) for text in texts]

        def close(self):
            pass

    asked = {"query": "printer", "explain": True}
    with Live(desk.settings, open_reranker=Longest) as live, httpx.Client(base_url=live.url, timeout=30) as client:
        plain = client.post("/search", json={**asked, "rerank": False}).json()
        assert "rerank" not in plain["timings_ms"]
        for answer in (client.post("/search", json=asked), client.get("/search", params={**asked, "rerank": True})):
            hits = answer.json()["hits"]
            lengths = [len(hit["text"]) for hit in hits]
            assert lengths == sorted(lengths, reverse=True) == [hit["rerank_score"] for hit in hits]
            assert answer.json()["reranked"] is True
        arguments = {"name": "search", "arguments": {"query": "printer", "rerank": False}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments}
        told = client.post("/mcp", json=message, headers={"Accept": "application/json, text/event-stream"})
        assert told.status_code == 200
        for agent, page in zip(_told_hits(told.text), plain["hits"], strict=True):
            assert agent["document_id"] == page["document_id"]


def _told_hits(told):
    """Return the hits of an agent's search, which come as an event."""
    line = next(line for line in told.splitlines() if "jsonrpc" in line)
    return json.loads(line.removeprefix("data: "))["result"]["structuredContent"]["hits"]
