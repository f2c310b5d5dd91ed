"""The HTTP interface with default settings: answers as docs/service.md shows them, and problems for
what is wrong."""

import asyncio
import json
import re
from urllib.parse import quote

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.errors import SettingsError
from rag_index.search.service.guard import MAX_BODY_BYTES, MAX_REQUESTS, REQUEST_SECONDS
from tests.docs.pages import blocks, code, page, section, table
from tests.fakes.hosts import VirtualTimeLoop
from tests.search.desk import DESK, Desk
from tests.search.service.in_memory import ask, guarded
from tests.search.service.live import Live

PAGE = page("service")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates().map(str)
    | st.sampled_from(["printer", "high", "1", "titles", "2024-01-01"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["gte", "lt", "eq", "any", "not", "exists", "x"]) | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["priority", "number", "created_at", "author", "tenant", "tenant.inner", "_rag.key", ""]
)
FILTERS = st.dictionaries(FIELDS | st.text(max_size=5), VALUES, max_size=3) | st.lists(
    st.text(max_size=20), max_size=3
)
BODIES = st.fixed_dictionaries(
    {"query": st.text(min_size=1, max_size=50)},
    optional={
        "indexes": st.lists(st.sampled_from(["comments", "titles"]), max_size=3) | VALUES,
        "limit": st.integers(1, 1000) | VALUES,
        "filter": FILTERS | VALUES,
        "timeout": st.floats(0.5, 5) | VALUES,
        "dense_weight": st.floats(0, 1) | VALUES,
        "rerank": st.booleans() | VALUES,
        "explain": st.booleans() | VALUES,
    },
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PATHS = st.one_of(
    TEXT.map(lambda text: f"/documents/comments/{quote(text)}"),
    TEXT.map(lambda text: f"/documents/{quote(text)}/1"),
    TEXT.map(lambda text: f"/{quote(text)}"),
    st.sampled_from(["/search", "/indexes", "/documents"]),
)
NAMES = st.sampled_from(["query", "filter", "limit", "indexes", "timeout", "rerank", "explain"])
PARAMETERS = st.dictionaries(NAMES | TEXT, TEXT, max_size=4)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"])
PLACES = 4
ENDS = {
    "answered": (200, {}),
    "refused": (400, {}),
    "broken": (500, {}),
    "slow": (504, {}),
    "no body": (504, {"body": None}),
    "too large": (413, {"body": b"x" * 200}),
    "gone": (0, {"gone": True}),
    "gone before": (0, {"body": None, "gone": True}),
}


def problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found["type"]) == (status, "about:blank")
    assert found["title"]
    assert found["detail"]
    return found


def test_the_values_of_fields_are_counted_in_all_documents_that_meet_a_filter(tmp_path):
    keyword = 'payload_indexes = {priority = "keyword", number = "integer"}'
    desk = Desk(tmp_path / "desk", more={"comments": keyword, "titles": keyword})
    long = (4, "The scanner is slow. " * 30, {"priority": "low", "number": 1})
    desk.fill({**DESK, "comments": [*DESK["comments"], long]})
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:

        def counted(**body):
            found = client.post("/facets", json=body).json()["fields"]["priority"]
            return [[one["value"], one["documents"]] for one in found]

        assert sorted(counted()) == [["high", 2], ["low", 3], ["urgent", 1]]
        assert counted(limit=1) == [["low", 3]]
        assert sorted(counted(indexes=["comments"])) == [["high", 2], ["low", 2]]
        assert sorted(counted(indexes=["comments"], filter={"number": {"lt": 2}})) == [
            ["high", 1],
            ["low", 1],
        ]
        assert client.post("/facets", json={"indexes": ["solutions"]}).json() == {"fields": {}}
        for body, words in (
            (
                {"fields": ["author"]},
                "give it a keyword index in `payload_indexes`, or ask for priority",
            ),
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


def test_an_answer_says_what_it_is_true_of_explains_on_demand_and_is_504_where_its_age_is_not_known(
    client,
):
    demand = {"query": "printer", "max_age": "10 s"}
    found = problem(client.post("/search", json=demand), 504)
    assert "nothing is known of how far it is; a complete run tells" in found["detail"]
    assert [one["at"] for one in found["as_of"].values()] == [None]
    assert problem(client.get("/search", params=demand), 504)
    assert "after" in str(
        problem(client.post("/search", json={"query": "printer", "after": "now"}), 422)
    )
    plain = client.post("/search", json={"query": "printer"}).json()
    assert plain.keys() == {"hits", "as_of"}
    assert plain["as_of"].keys() == set(DESK)
    explained = client.post(
        "/search", json={"query": "printer", "explain": True, "dense_weight": 1}
    ).json()
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
        assert (
            f'rag_index_http_requests_total{{method="GET",route="{route}",status="' in metrics.text
        )
    assert "mailbox" not in metrics.text


def test_what_a_caller_got_wrong_is_named(client):
    for body, status, words in (
        ({"query": "x", "indexes": ["title"]}, 400, "did you mean 'titles'"),
        ({"query": "x", "filter": {"colour": "red"}}, 400, "there is no field 'colour'"),
        ({"query": "  "}, 400, "empty"),
        ({}, 422, "query: Field required"),
        ({"query": "x", "limt": 3}, 422, "limt: Extra inputs"),
        ({"query": "x", "indexes": "titles"}, 422, "indexes: Input should be a valid list"),
        (
            {"query": "x", "indexes": ["titles", 5]},
            422,
            "indexes.1: Input should be a valid string",
        ),
        (
            {"query": "x", "filter": 5},
            422,
            "filter: Input should be a valid dictionary; filter: Input",
        ),
        ({"query": "x" * 10_001}, 422, "query"),
        ({"query": "x", "dense_weight": 2}, 422, "dense_weight"),
        ({"query": "x", "rerank": True}, 400, "there is no reranker"),
    ):
        assert words in problem(client.post("/search", json=body), status)["detail"]


def test_text_for_a_field_of_numbers_finds_the_number_or_is_refused_in_each_way_to_ask(tmp_path):
    kinds = {**dict.fromkeys(("comments", "titles"), "integer"), "solutions": "keyword"}
    more = {
        name: f'payload_indexes = {{ number = "{kind}", priority = "keyword" }}'
        for name, kind in kinds.items()
    }
    desk = Desk(tmp_path / "desk", more=more).fill()
    whole = ["comments", "titles"]
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:

        def found(given, indexes=whole):
            answer = client.post(
                "/search", json={"query": "printer", "indexes": indexes, "filter": given}
            )
            return sorted(hit["payload"]["number"] for hit in answer.json()["hits"])

        for given, numbers in (
            ({"number": "10"}, [10]),
            ({"number": ["1", " 2"]}, [1, 2]),
            ({"number": {"gt": "2", "lte": "1e1"}}, [3, 10]),
            ({"number": {"not": ["1", "10"]}}, [2, 3, 20]),
            ("number=1,3", [1, 3]),
            (["number>=3"], [3, 10, 20]),
        ):
            assert found(given) == numbers, given
        assert found({"number": "1"}, [*whole, "solutions"]) == [], (
            "one of them has text there, so text it stays"
        )
        asked = {"query": "printer", "indexes": whole}
        assert (
            len(client.get("/search", params={**asked, "filter": "number=10"}).json()["hits"]) == 1
        )
        facets = client.post("/facets", json={"indexes": whole, "filter": {"number": "10"}}).json()[
            "fields"
        ]
        assert facets["priority"] == [{"value": "urgent", "documents": 1}]
        refused = "filter on number: 'soon' is not a number, and the field has the kind integer"
        for answer in (
            client.post("/search", json={**asked, "filter": {"number": "soon"}}),
            client.get("/search", params={**asked, "filter": "number=soon"}),
            client.post("/facets", json={"indexes": whole, "filter": {"number": {"lt": "soon"}}}),
        ):
            assert refused in problem(answer, 400)["detail"]


def test_a_body_that_is_no_search_is_refused(client):
    for body, words in (
        (b'{"query": ', "the body is not JSON: Expecting value at character 10"),
        (b"", "the body has to be a JSON object"),
        (b"[1]", "the body has to be a JSON object"),
        (b'{"query": "\\ud800"}', "query"),
        (b"\xff", ""),
        (b"[" * 50_000, ""),
    ):
        answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
        assert words in problem(answer, answer.status_code)["detail"]
        assert answer.status_code in (400, 422)


def test_what_is_not_there_is_404_and_another_method_405(client):
    assert "no document '77'" in problem(client.get("/documents/comments/77"), 404)["detail"]
    assert "did you mean" in problem(client.get("/documents/comment/1"), 404)["detail"]
    problem(client.get("/nothing/here"), 404)
    problem(client.get("/documents/comments/"), 404)
    assert problem(client.delete("/search"), 405)["detail"] == "Method Not Allowed"


def test_with_nothing_indexed_it_says_what_to_run(tmp_path):
    with (
        Live(Desk(tmp_path / "desk").settings) as live,
        httpx.Client(base_url=live.url, timeout=60) as client,
    ):
        answer = client.get("/search", params={"query": "x"})
        assert "rag-index index-all" in problem(answer, 503)["detail"]
        assert answer.headers["retry-after"]
        assert (
            problem(client.get("/readyz"), 503)["detail"]
            == "the service is not ready; its log says why"
        )
        assert client.get("/healthz").status_code == 200
        assert [one["live"] for one in client.get("/indexes").json()["indexes"]] == [False] * 3


def test_a_part_of_a_document_is_asked_for(tmp_path_factory):
    text = (
        " ".join(f"Sentence {number} is about the tape robot." for number in range(30))
        + " A giraffe at its end."
    )
    desk = Desk(tmp_path_factory.mktemp("long"), names=("solutions",)).fill(
        {"solutions": [("a/b", text)]}
    )
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:

        def part(**wanted):
            found = (
                client.get("/documents/solutions/a%2Fb", params=wanted).raise_for_status().json()
            )
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
        found = client.get(
            "/documents/solutions/a/b", params={"find": "robots giraffe end", "max_chars": 1}
        ).json()
        assert f"#{total - 1}:" in found["citation"]
        assert [chunk["matched"] for chunk in found["chunks"]] == [["giraffe", "end"]]
        problem(client.get("/documents/solutions/a/b", params={"find": "the"}), 400)
        problem(client.get("/documents/solutions/a/b", params={"find": "x", "around": 1}), 422)
        problem(client.get("/documents/solutions/a/b", params={"first_chunk": 1, "around": 1}), 422)
        problem(client.get("/documents/solutions/a/b", params={"first_chunk": 99}), 400)
        wrong = problem(client.get("/documents/solutions/a/b", params={"max_chars": 0}), 422)
        assert wrong["errors"] == [
            {"field": "max_chars", "detail": "Input should be greater than or equal to 1"}
        ]


def shape(value: object) -> object:
    """Return the keys of JSON, at all levels; those of a payload, and the names of indexes, are the
    user's."""
    if isinstance(value, dict):
        named = {key: None if key == "payload" else shape(inner) for key, inner in value.items()}
        return (
            named
            if "known_by" in value or "comments" not in value
            else [shape(next(iter(value.values())))]
        )
    return [shape(value[0])] if isinstance(value, list) and value else None


def documented(request: str) -> object:
    (found,) = re.findall(
        rf"^`{re.escape(request)}`:\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    return shape(json.loads(found))


def test_answers_are_as_documented_and_as_openapi_describes_them(client):
    assert shape(client.post("/search", json={"query": "printer"}).json()) == documented(
        "POST /search"
    )
    assert shape(client.get("/documents/comments/1").json()) == documented(
        "GET /documents/comments/1"
    )
    assert shape(client.get("/indexes").json()) == documented("GET /indexes")
    problem = client.post("/search", json={"query": "x", "indexes": ["title"]}).json()
    assert shape(problem) == shape(json.loads(blocks(section(PAGE, "## Errors"), "json")[0]))
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    found = client.post("/search", json={"query": "printer", "explain": True}).json()
    hit, document = (
        found["hits"][0],
        client.get("/documents/comments/1", params={"find": "printer"}).json(),
    )
    checked = client.post("/verify", json={"citations": [hit["citation"]]}).json()["citations"][0]
    for name, answer in (
        ("ExplainedAnswer", found),
        ("ExplainedHit", hit),
        ("ChunkAnswer", hit["chunks"][0]),
        ("AsOfAnswer", document["as_of"]),
        ("DocumentAnswer", document),
        ("DocumentChunkAnswer", document["chunks"][0]),
        ("VerifiedAnswer", checked),
        ("FacetsAnswer", client.post("/facets", json={}).json()),
    ):
        assert (
            set(schemas[name].get("required", []))
            <= answer.keys()
            <= set(schemas[name]["properties"])
        ), name


def test_every_address_is_documented_and_no_other_and_every_status(client):
    rows = {code(row[0]) for row in table(section(PAGE, "## What can be asked"), "address")}
    described = client.get("/openapi.json").json()["paths"]
    known = {
        (method.upper(), path.replace("{document_id}", "{id}"))
        for path, on in described.items()
        for method in on
    }
    assert rows == {*map(" ".join, known), "GET /openapi.json"}
    statuses = {
        status for on in described.values() for one in on.values() for status in one["responses"]
    }
    parameters = described["/documents/{index}/{document_id}"]["get"]["parameters"]
    assert [one["name"] for one in parameters if one["in"] == "header"] == ["Rag-Index-Query"]
    assert statuses - {"200"} <= {row[0] for row in table(section(PAGE, "## Errors"), "status")}


def test_limits_are_the_defaults():
    rows = {row[0]: row[1] for row in table(section(PAGE, "## Limits"), "limit")}
    assert rows["size of a body"] == f"{MAX_BODY_BYTES:,} bytes"
    assert rows["time of a request"] == f"{REQUEST_SECONDS:g} s"
    assert rows["requests at a time"].startswith(f"{MAX_REQUESTS},")


def check(answer: httpx.Response) -> None:
    if answer.status_code == 307:  # the address without its last slash, or with one
        assert answer.headers["location"].startswith(str(answer.url.copy_with(raw_path=b"/")))
        return
    assert answer.status_code in (200, 400, 404, 405, 422), answer.text
    kind = answer.headers["content-type"]
    if answer.status_code == 200 and kind != "text/html; charset=utf-8":  # which is the page
        answer.json()
    elif answer.status_code != 200:
        problem(answer, answer.status_code)


@settings(max_examples=15)
@given(body=BODIES)
def test_any_search_is_answered(client, body):
    content = json.dumps(body).encode()  # NaN and Infinity too, as careless programs send them
    check(client.post("/search", content=content, headers={"Content-Type": "application/json"}))


@settings(max_examples=15)
@given(method=METHODS, path=PATHS, parameters=PARAMETERS)
def test_any_address_is_answered(client, method, path, parameters):
    check(client.request(method, path, params=parameters))


@settings(max_examples=25, deadline=None)
@given(ends=st.lists(st.sampled_from(list(ENDS)), min_size=1, max_size=2 * PLACES))
def test_whatever_becomes_of_requests_their_places_are_free_again(ends):
    async def answer(scope):
        match scope["path"]:
            case "/refused":
                raise SettingsError("wrong")
            case "/broken":
                raise ValueError("unexpected")
            case "/slow" | "/gone":
                await asyncio.Event().wait()
            case "/together":
                await together.wait()
        return 200

    async def main():
        assert [await ask(guard, f"/{end}", **ENDS[end][1]) for end in ends] == [
            ENDS[end][0] for end in ends
        ]
        asked = [
            asyncio.ensure_future(ask(guard, "/together", client=("127.0.0.1", n)))
            for n in range(PLACES)
        ]
        await asyncio.sleep(0.01)
        assert await ask(guard) == 503, "all places are taken"
        assert await ask(guard, "/healthz") == 200, "but those of probes"
        together.set()
        assert await asyncio.gather(*asked) == [200] * PLACES

    together = asyncio.Event()
    guard = guarded(answer, max_requests=PLACES, max_body=100)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
