"""The HTTP interface of a service with default settings: answers, and problems for what is wrong."""

import httpx
import pytest

from tests.search.desk import DESK, Desk
from tests.search.service.live import Live

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


def test_the_values_of_fields_are_counted_in_all_documents_that_meet_a_filter(tmp_path):
    keyword = 'payload_indexes = {priority = "keyword", number = "integer"}'
    desk = Desk(tmp_path / "desk", more={"comments": keyword, "titles": keyword})
    long = (4, "The scanner is slow. " * 30, {"priority": "low", "number": 1})
    desk.fill({**DESK, "comments": [*DESK["comments"], long]})
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:

        def counted(**body) -> list[list]:
            found = client.post("/facets", json=body).json()["fields"]["priority"]
            return [[one["value"], one["documents"]] for one in found]

        assert sorted(counted()) == [["high", 2], ["low", 3], ["urgent", 1]]
        assert counted(limit=1) == [["low", 3]]
        assert sorted(counted(indexes=["comments"])) == [["high", 2], ["low", 2]]
        assert sorted(counted(indexes=["comments"], filter={"number": {"lt": 2}})) == [["high", 1], ["low", 1]]
        assert client.post("/facets", json={"indexes": ["solutions"]}).json() == {"fields": {}}
        for body, words in (
            ({"fields": ["author"]}, "give it a keyword index in `payload_indexes`, or ask for priority"),
            ({"filter": {"colour": "red"}}, "there is no field 'colour'"),
            ({"indexes": ["nothing"]}, "nothing"),
        ):
            assert words in problem(client.post("/facets", json=body), 400)["detail"]
        assert "fields" in str(problem(client.post("/facets", json={"fields": []}), 422))
    desk.write(comments=keyword, solutions=keyword)
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        found = client.post("/facets", json={"indexes": ["solutions"]}).json()
        assert found["fields"] == {}
        assert "run `rag-index index solutions`" in found["errors"]["solutions"]


def test_a_question_that_demands_more_than_is_known_is_answered_504_with_how_far_it_is(client):
    for demand in ({"max_age": "10 s"}, {"after": "2026-01-01T00:00:00Z"}):
        answer = client.post("/search", json={"query": "printer", "timeout": 0.3, **demand})
        assert "nothing is known of how far it is; a complete run tells" in problem(answer, 504)["detail"]
        assert problem(client.get("/search", params={"query": "printer", "timeout": 0.3, **demand}), 504)


def test_an_answer_says_what_it_is_true_of_and_explains_on_demand(client):
    plain = client.post("/search", json={"query": "printer"}).json()
    assert plain.keys() == {"hits", "as_of"}
    assert plain["as_of"].keys() == set(DESK)
    explained = client.post("/search", json={"query": "printer", "explain": True, "dense_weight": 1}).json()
    assert explained["timings_ms"]["total"] > 0
    assert explained["dense_weight"] == 1
    assert explained["hits"][0]["chunks"]


def test_probes_and_metrics(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for probe in ("/healthz", "/readyz"):
        answer = client.head(probe)
        assert (answer.status_code, answer.content) == (200, b"")
    client.get("/search", params={"query": "mailbox full"})
    for path in ("/", "/mcp", "/nothing"):
        client.get(path)
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'rag_index_search_seconds_count{stage="total"}' in metrics.text
    for route in ("/search", "/", "/mcp", "other"):
        assert f'rag_index_http_requests_total{{method="GET",route="{route}",status="' in metrics.text
    assert "mailbox" not in metrics.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": "x", "indexes": ["title"]}, 400, "did you mean 'titles'"),
        ({"query": "x", "filter": {"colour": "red"}}, 400, "there is no field 'colour'"),
        ({"query": "  "}, 400, "empty"),
        ({}, 422, "query: Field required"),
        ({"query": "x", "limt": 3}, 422, "limt: Extra inputs"),
        ({"query": "x", "indexes": "titles"}, 422, "indexes: Input should be a valid list"),
        ({"query": "x", "indexes": ["titles", 5]}, 422, "indexes.1: Input should be a valid string"),
        ({"query": "x", "filter": 5}, 422, "filter: Input should be a valid dictionary; filter: Input"),
        ({"query": "x" * 10_001}, 422, "query"),
        ({"query": "x", "dense_weight": 2}, 422, "dense_weight"),
        ({"query": "x", "rerank": True}, 400, "there is no reranker"),
    ],
)
def test_what_a_caller_got_wrong_is_named(client, body, status, words):
    assert words in problem(client.post("/search", json=body), status)["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"query": ', "the body is not JSON: Expecting value at character 10"),
        (b"", "the body has to be a JSON object"),
        (b"[1]", "the body has to be a JSON object"),
        (b'{"query": "\\ud800"}', "query"),
        (b"\xff", ""),
        (b"[" * 50_000, ""),
    ],
)
def test_a_body_that_is_no_search_is_refused(client, body, words):
    answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    found = problem(answer, answer.status_code)
    assert found["status"] in (400, 422)
    assert words in found["detail"]


def test_what_is_not_there_is_404_and_another_method_405(client):
    assert "no document '77'" in problem(client.get("/documents/comments/77"), 404)["detail"]
    assert "did you mean" in problem(client.get("/documents/comment/1"), 404)["detail"]
    problem(client.get("/nothing/here"), 404)
    problem(client.get("/documents/comments/"), 404)
    assert problem(client.delete("/search"), 405)["detail"] == "Method Not Allowed"


def test_with_nothing_indexed_it_says_what_to_run(tmp_path):
    with Live(Desk(tmp_path / "desk").settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        answer = client.get("/search", params={"query": "x"})
        assert "rag-index index-all" in problem(answer, 503)["detail"]
        assert answer.headers["retry-after"]
        assert problem(client.get("/readyz"), 503)["detail"] == "the service is not ready; its log says why"
        assert client.get("/healthz").status_code == 200
        assert [one["live"] for one in client.get("/indexes").json()["indexes"]] == [False] * 3


def test_a_part_of_a_document_is_asked_for(tmp_path_factory):
    text = " ".join(f"Sentence {number} is about the tape robot." for number in range(30)) + " A giraffe at its end."
    desk = Desk(tmp_path_factory.mktemp("long"), names=("solutions",)).fill({"solutions": [("a/b", text)]})
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:

        def part(**wanted) -> tuple[list[int], int | None]:
            found = client.get("/documents/solutions/a%2Fb", params=wanted).raise_for_status().json()
            assert found["total_chunks"] == total
            return [chunk["chunk"] for chunk in found["chunks"]], found["next_chunk"]

        hit = client.get("/search", params={"query": "giraffe"}).json()["hits"][0]
        total = hit["total_chunks"]
        assert part() == (list(range(total)), None)
        assert part(max_chars=300) == ([0, 1], 2)
        assert part(first_chunk=2, max_chars=1) == ([2], 3)
        assert part(around=hit["chunk"], max_chars=150) == ([total - 2, total - 1], None)
        assert part(around=1, max_chars=240) == ([1, 2], 3)
        assert part(around=1, max_chars=360) == ([0, 1, 2], 3)
        assert part(find="giraffes") == ([total - 1], None)
        assert part(find="robots end giraffe", max_chars=150) == ([0, total - 1], None)
        assert part(find="elephant") == ([], None)
        found = client.get("/documents/solutions/a/b", params={"find": "robots giraffe end", "max_chars": 1}).json()
        assert f"#{total - 1}:" in found["citation"]
        assert [chunk["matched"] for chunk in found["chunks"]] == [["giraffe", "end"]]
        problem(client.get("/documents/solutions/a/b", params={"find": "the"}), 400)
        problem(client.get("/documents/solutions/a/b", params={"find": "x", "around": 1}), 422)
        problem(client.get("/documents/solutions/a/b", params={"first_chunk": 1, "around": 1}), 422)
        problem(client.get("/documents/solutions/a/b", params={"first_chunk": 99}), 400)
        wrong = problem(client.get("/documents/solutions/a/b", params={"max_chars": 0}), 422)
        assert wrong["errors"] == [{"field": "max_chars", "detail": "Input should be greater than or equal to 1"}]
