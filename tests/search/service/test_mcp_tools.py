"""What an agent reads before it calls a tool: which indexes there are, and what their fields hold."""

import re

import pytest

from rag_index.core.documents.groups import access_part
from rag_index.core.settings import Settings
from rag_index.errors import SettingsError
from rag_index.search import Caller
from rag_index.search.service import SearchService, answers, mcp_tools
from tests.search.desk import Desk

SQL = {"table": "t", "key": "id", "text": "body"}
COMMENTS = {
    "name": "comments", **SQL, "payload": ["priority", "created_at", "ticket_id", "author"],
    "payload_indexes": {"priority": "keyword", "created_at": "datetime", "ticket_id": "integer"},
}  # fmt: skip
TITLES = {
    "name": "titles", **SQL, "payload": ["priority", "open"],
    "payload_indexes": {"open": "bool", "priority": "keyword"},
}  # fmt: skip
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


def test_an_agent_reads_on_and_learns_the_commonest_values_that_its_caller_may_see(tmp_path):
    kinds = '[indexes.payload_indexes]\npriority = "keyword"\nauthor = "keyword"\nnumber = "integer"'
    desk = Desk(tmp_path / "desk", names=("comments",), more={"comments": f'access = "tenant"\n{kinds}'})
    given = [
        ("a", "high"), ("a", "high"), ("a", "low"), ("a", "x" * 80), ("a", "x" * 80), ("b", "secret"), ("b", "secret"),
    ]  # fmt: skip
    rows = [
        (n, "The printer is offline", {"priority": value, "author": f"author {n}", "_rag": access_part((group,))})
        for n, (group, value) in enumerate(given)
    ]
    desk.fill({"comments": rows})
    with desk.retriever() as retriever:
        tools = mcp_tools.AgentTools(SearchService(desk.settings, retriever))

        def call(name: str, group: str = "a", **given: object) -> str:
            return retriever.run(tools.call(name, given, Caller(group, frozenset([group]))))

        assert 'fields priority (keyword: "high" 2), author (keyword), created_at, tenant, number (integer);' in (
            call("list_indexes").replace(', "low" 1', "")
        )
        assert 'priority (keyword: "secret" 2)' in call("list_indexes", "b")
        pages = [call("search", query="printer", limit=2, offset=offset) for offset in (0, 2, 4)]
        assert [one.partition(".")[0] for one in pages] == ["1", "3", "5"]
        assert "There are more documents: search again with offset 2." in pages[0]
        assert "There are more" not in pages[2]
        assert call("search", query="printer", offset=9).startswith("No further documents.")


LARGE = {
    "log": "log line 3 " * 20_000, "deep": {"a": {"b": {"c": [{"name": "x" * 40}] * 2_000}}},
    "wide": {f"key{number}": "value" * 5 for number in range(3_000)}, "k" * 5_000: "short",
    "signs": "\u6f22\u5b57" * 50_000,
}  # fmt: skip
SMALLER = {"log": "log line 3 " * 200, "deep": {"a": [{"name": "x" * 40}] * 50}}


@pytest.mark.long
def test_an_answer_has_a_bound_and_what_it_cuts_is_read_by_the_name_of_its_field(tmp_path):
    desk = Desk(tmp_path / "desk", names=("comments",))
    text = "The printer is offline since the update. " * 20
    desk.fill({"comments": [(n, text, LARGE if n == 3 else SMALLER if n % 2 else {}) for n in range(60)]})
    with desk.retriever() as retriever:
        tools = mcp_tools.AgentTools(SearchService(desk.settings, retriever))

        def call(name: str, **given: object) -> str:
            answer = retriever.run(tools.call(name, given, Caller("", frozenset())))
            assert len(answer.encode()) <= answers.MAX_ANSWER
            return answer

        found = call("search", query="printer offline", limit=60)
        assert len(re.findall(r"^\d+\. \[comments/", found, re.M)) == 60
        assert "characters]" in found
        assert answers.REST in found
        where = {"index": "comments", "document_id": "3"}
        for most in (1, 1_000, 3_000, 10_000, 200_000):
            answer = call("get_document", **where, max_chars=most)
            assert len(answer) <= max(most, 1_000)
            assert answer.startswith("[comments/3#0:")
            assert "of 220,000 characters]" in answer or most < 10_000
        for field, value in (("log", LARGE["log"]), ("signs", LARGE["signs"]), ("wide.key7", "value" * 5)):
            got, offset = "", 0
            while offset is not None:
                head, _, part = call("get_document", **where, field=field, offset=offset, max_chars=200_000).partition(
                    "\n"
                )
                got += part
                going_on = re.search(r"go on with offset (\d+)$", head)
                offset = int(going_on[1]) if going_on else None
            assert got == value, field
        with pytest.raises(SettingsError, match=r"has no field 'lag'; it has .*log"):
            call("get_document", **where, field="lag")
        with pytest.raises(SettingsError, match=r"offset is 99, but wide.key8 has 25"):
            call("get_document", **where, field="wide.key8", offset=99)
