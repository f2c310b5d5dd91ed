"""docs/service.md: its addresses, answers, statuses and limits are those of the service."""

import json
import re

from rag_index.search.service.guard import MAX_BODY_BYTES, MAX_REQUESTS, REQUEST_SECONDS
from tests.docs.pages import blocks, code, page, section, table

PAGE = page("service")


def shape(value: object, *, free: tuple[str, ...] = ("payload",)) -> object:
    """Return the keys of JSON, at all levels; those of a payload, and the names of indexes, are the user's."""
    if isinstance(value, dict):
        named = {key: None if key in free else shape(inner) for key, inner in value.items()}
        return named if "known_by" in value or "comments" not in value else [shape(next(iter(value.values())))]
    return [shape(value[0])] if isinstance(value, list) and value else None


def documented(request: str) -> object:
    (found,) = re.findall(rf"^`{re.escape(request)}`:\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return shape(json.loads(found))


def test_answers_are_as_documented(client):
    assert shape(client.post("/search", json={"query": "printer"}).json()) == documented("POST /search")
    assert shape(client.get("/documents/comments/1").json()) == documented("GET /documents/comments/1")
    assert shape(client.get("/indexes").json()) == documented("GET /indexes")
    problem = client.post("/search", json={"query": "x", "indexes": ["title"]}).json()
    assert shape(problem) == shape(json.loads(blocks(section(PAGE, "## Errors"), "json")[0]))


def test_answers_are_as_openapi_describes_them(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    found = client.post("/search", json={"query": "printer", "explain": True}).json()
    hit, document = found["hits"][0], client.get("/documents/comments/1", params={"find": "printer"}).json()
    checked = client.post("/verify", json={"citations": [hit["citation"]]}).json()["citations"][0]
    for name, answer in (
        ("SearchResult", found),
        ("SearchHit", hit),
        ("ChunkHit", hit["chunks"][0]),
        ("AsOf", document["as_of"]),
        ("Document", document),
        ("DocumentChunk", document["chunks"][0]),
        ("Verified", checked),
        ("Facets", client.post("/facets", json={}).json()),
    ):
        assert set(schemas[name].get("required", [])) <= answer.keys() <= set(schemas[name]["properties"]), name


def test_every_address_is_documented_and_no_other(client):
    rows = {code(row[0]) for row in table(section(PAGE, "## What can be asked"), "address")}
    described = client.get("/openapi.json").json()["paths"]
    known = {
        f"{method.upper()} {path.replace('{document_id}', '{id}')}" for path, on in described.items() for method in on
    }
    assert rows == {*known, "GET /openapi.json"}


def test_every_status_of_the_interface_is_documented(client):
    rows = {row[0] for row in table(section(PAGE, "## Errors"), "status")}
    described = client.get("/openapi.json").json()["paths"]
    statuses = {status for on in described.values() for one in on.values() for status in one["responses"]}
    assert statuses - {"200"} <= rows


def test_limits_are_the_defaults():
    rows = {row[0]: row[1] for row in table(section(PAGE, "## Limits"), "limit")}
    assert rows["size of a body"] == f"{MAX_BODY_BYTES:,} bytes"
    assert rows["time of a request"] == f"{REQUEST_SECONDS:g} s"
    assert rows["requests at a time"].startswith(f"{MAX_REQUESTS},")
