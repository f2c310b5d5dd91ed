"""What an agent reads before it calls a tool: which indexes there are, and what their fields hold."""

import json

import pytest

from rag_index.core.settings import Settings
from rag_index.core.settings.parts import PAYLOAD_KINDS
from rag_index.search.service import mcp_tools

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


def test_the_schema_names_the_indexes_and_their_fields_with_what_they_hold():
    other = {**TITLES, "name": "other", "payload_indexes": {"priority": "integer"}}
    schema = mcp_tools.descriptions_of(settings(COMMENTS, TITLES, other), reranker=False)[0]["input_schema"]
    assert schema["properties"]["indexes"]["items"] == {"enum": ["comments", "titles", "other"]}
    assert "rerank" not in schema["properties"]
    properties = schema["properties"]["filter"]["properties"]
    assert properties["ticket_id"]["type"] == ["array", "integer", "object"]
    assert {"integer", "string"} <= {*properties["priority"]["type"]}, "the indexes do not agree"
    fields = {name: one["description"] for name, one in properties.items()}
    assert fields == {
        "priority": "text (of comments, titles); a whole number (of other)",
        "created_at": 'a time in ISO 8601, as in {"gte": "2024-01-01"} (of comments)',
        "ticket_id": "a whole number (of comments)",
        "author": "text, numbers, or true and false (of comments)",
        "open": "true or false (of titles); text, numbers, or true and false (of other)",
    }
    assert mcp_tools.filter_schema(settings(CODE).indexes)["properties"]["language"] == {
        "type": ["array", "object", "string"],
        "description": "text",
    }
    assert mcp_tools.filter_schema(settings(OWN).indexes)["properties"] == {}, "its source alone knows its fields"


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
