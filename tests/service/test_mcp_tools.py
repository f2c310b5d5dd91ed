"""What an agent reads before it calls a tool: which indexes there are, and what their fields hold."""

import json

import jsonschema
import pytest

from rag_index.service import mcp_tools
from rag_index.settings import Settings
from rag_index.settings.payload_indexes import PAYLOAD_KINDS

SQL = {"table": "t", "key": "id", "text": "body"}
COMMENTS = {
    "name": "comments", **SQL, "payload": ["priority", "created_at", "ticket_id", "author"],
    "payload_indexes": {"priority": "keyword", "created_at": "datetime", "ticket_id": "integer"},
}  # fmt: skip
TITLES = {
    "name": "titles",
    **SQL,
    "payload": ["priority", "open"],
    "payload_indexes": {"open": "bool", "priority": "keyword"},
}
CODE = {"name": "code", "kind": "code", "root": "."}
OWN = {"name": "wiki", "kind": "confluence"}


def settings(*indexes: dict) -> Settings:
    return Settings.model_validate({"source": {"url": "sqlite://"}, "indexes": list(indexes)})


def accepts(schema: dict, arguments: object) -> bool:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid(arguments)


def search(*indexes: dict) -> dict:
    return mcp_tools.search_input(settings(*indexes), reranker=False)


def test_the_schema_names_the_indexes_and_their_fields_with_what_they_hold():
    schema = search(COMMENTS, TITLES)
    assert schema["properties"]["indexes"]["items"] == {"enum": ["comments", "titles"]}
    fields = schema["properties"]["filter"]["properties"]
    assert list(fields) == ["priority", "created_at", "ticket_id", "author", "open"]
    assert fields["priority"] == {"$ref": "#/$defs/keyword"}
    assert fields["ticket_id"] == {"$ref": "#/$defs/integer", "description": "of comments"}
    assert fields["open"] == {"$ref": "#/$defs/bool", "description": "of titles"}
    assert fields["author"] == {"$ref": "#/$defs/any", "description": "of comments"}
    assert schema["$defs"]["integer"]["description"] == "a whole number"


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"priority": "high"},
        {"priority": {"not": ["low"]}},
        {"created_at": {"gte": "2024-01-01", "lt": "2025-01-01"}},
        {"author": {"exists": False}},
        {"author.name": "ann"},
    ],
)
def test_what_a_search_understands_fits_the_schema(wanted):
    assert accepts(search(COMMENTS, TITLES), {"query": "printer", "filter": wanted, "limit": 5, "indexes": ["titles"]})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"query": "x", "indexes": ["unknown"]},
        {"query": "x", "filter": {"priority": {"gte": "a"}}},
        {"query": "x", "filter": {"ticket_id": "seven"}},
        {"query": "x", "filter": {"open": {"like": "t"}}},
    ],
)
def test_what_a_search_would_refuse_does_not_fit(arguments):
    assert not accepts(search(COMMENTS, TITLES), arguments)


def test_a_field_that_does_not_exist_fits_only_where_names_are_not_all_known():
    given = {"query": "x", "filter": {"nothing": 1}}
    assert not accepts(search(TITLES), given)
    assert not accepts(search(CODE), given)
    assert accepts(search(COMMENTS), given), "a field without a kind may hold JSON, into which a dot leads"
    assert accepts(search(TITLES, OWN), given), "only the source of the index knows its fields"


def test_indexes_that_disagree_about_a_kind_make_a_field_of_any_kind():
    other = {**TITLES, "name": "other", "payload_indexes": {"priority": "integer", "open": "bool"}}
    schema = search(TITLES, other)
    assert accepts(schema, {"query": "x", "filter": {"priority": "high"}})
    assert accepts(schema, {"query": "x", "filter": {"priority": {"gte": 3}}})


@pytest.mark.parametrize("indexes", [1, 5])
def test_the_tools_take_little_of_what_an_agent_can_read(indexes):
    """With forty fields, of which each index has its share."""
    kinds = [*PAYLOAD_KINDS, None]
    share = 40 // indexes
    made = []
    for number in range(indexes):
        fields = {f"customer_field_{number}_{i}": kinds[i % len(kinds)] for i in range(share)}
        indexed = {field: kind for field, kind in fields.items() if kind}
        made.append({"name": f"index{number}", **SQL, "payload": list(fields), "payload_indexes": indexed})
    described = mcp_tools.descriptions_of(settings(*made), reranker=True)
    sent = json.dumps(described, separators=(",", ":"))
    assert len(sent) < 9000
