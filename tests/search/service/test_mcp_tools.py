"""What an agent reads before it calls a tool, and how many questions one call of `search`
answers."""

import re
import shutil
import subprocess

import pytest

from rag_index.core.documents.groups import access_part
from rag_index.core.settings import Settings, load_settings
from rag_index.errors import SettingsError
from rag_index.search import Caller, Retriever
from rag_index.search.service import answers, mcp_tools
from tests.docs.pages import ROOT
from tests.project import PROGRAM
from tests.search.desk import DESK, Desk, agent

SQL = {"table": "t", "key": "id", "text": "body"}
COMMENTS = {
    "name": "comments",
    **SQL,
    "payload": ["priority", "created_at", "ticket_id", "author"],
    "payload_indexes": {"priority": "keyword", "created_at": "datetime", "ticket_id": "integer"},
}
TITLES = {
    "name": "titles",
    **SQL,
    "payload": ["priority", "open"],
    "payload_indexes": {"open": "bool", "priority": "keyword"},
}
CODE = {"name": "code", "kind": "code", "root": "."}
OWN = {"name": "wiki", "kind": "confluence"}
LARGE = {
    "log": "log line 3 " * 20_000,
    "deep": {"a": {"b": {"c": [{"name": "x" * 40}] * 2_000}}},
    "wide": {f"key{number}": "value" * 5 for number in range(3_000)},
    "k" * 5_000: "short",
    "signs": "\u6f22\u5b57" * 50_000,
}
SMALLER = {"log": "log line 3 " * 200, "deep": {"a": [{"name": "x" * 40}] * 50}}
ANSWERED = 8
"""Of ten: as many as when this was written. Fewer is a loss."""
QUESTIONS = {
    "workshop": {
        "Why does a record player smell of burning, and what is replaced?": "capacitor",
        "What helps if a hair dryer trips the fuse?": "sealed with silicone",
        "How was a grinding noise of a vacuum cleaner repaired?": "sewing-machine oil",
        "Why must one not solder a thermal fuse?": "solder would melt it",
    },
    "pydocs": {
        "How do I leave a loop before its end?": "[topics/break#",
        "Which methods does an object need to be used by a with statement?": (
            "[topics/context-managers#"
        ),
        "How can a function take any number of arguments by keyword?": "**",
        "What happens to an error that no except clause handles?": "[topics/exceptions#",
    },
    "source-tree": {
        "What happens if the bank does not pay?": "CardRefused",
        "Where is a discount taken from the sum?": "def total",
    },
}


def settings(*indexes: dict) -> Settings:
    return Settings.model_validate({"source": {"url": "sqlite://"}, "indexes": list(indexes)})


def test_the_schema_names_the_indexes_and_their_fields_with_what_they_hold():
    other = {**TITLES, "name": "other", "payload_indexes": {"priority": "integer"}}
    schema = mcp_tools.descriptions_of(settings(COMMENTS, TITLES, other), reranker=False)[0][
        "input_schema"
    ]
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
    language = mcp_tools.filter_schema(settings(CODE).indexes)["properties"]["language"]
    assert language == {"type": ["array", "object", "string"], "description": "text"}
    assert mcp_tools.filter_schema(settings(OWN).indexes)["properties"] == {}, (
        "its source alone knows its fields"
    )


def test_an_agent_reads_on_and_learns_the_commonest_values_that_its_caller_may_see(tmp_path):
    kinds = (
        '[indexes.payload_indexes]\npriority = "keyword"\nauthor = "keyword"\nnumber = "integer"'
    )
    desk = Desk(
        tmp_path / "desk", names=("comments",), more={"comments": f'access = "tenant"\n{kinds}'}
    )
    given = [
        *(("a", value) for value in ("high", "high", "low", "x" * 80, "x" * 80)),
        ("b", "secret"),
        ("b", "secret"),
    ]
    rows = [
        (
            n,
            "The printer is offline",
            {"priority": value, "author": f"author {n}", "_rag": access_part((group,))},
        )
        for n, (group, value) in enumerate(given)
    ]
    desk.fill({"comments": rows})
    with desk.retriever() as retriever:
        call, other = (
            agent(desk.settings, retriever, Caller(one, frozenset([one]))) for one in "ab"
        )
        assert (
            'fields priority (keyword: "high" 2), author (keyword), created_at, tenant, number'
            " (integer);" in (call("list_indexes").replace(', "low" 1', ""))
        )
        assert 'priority (keyword: "secret" 2)' in other("list_indexes")
        pages = [call("search", query="printer", limit=2, offset=offset) for offset in (0, 2, 4)]
        assert [one.partition(".")[0] for one in pages] == ["1", "3", "5"]
        assert "There are more documents: search again with offset 2." in pages[0]
        assert "There are more" not in pages[2]
        assert call("search", query="printer", offset=9).startswith("No further documents.")


def test_lists_and_objects_may_be_json_text_and_a_list_of_one_its_only_text(tmp_path):
    desk = Desk(
        tmp_path / "desk", more=dict.fromkeys(DESK, 'payload_indexes = { number = "float" }')
    ).fill()
    with desk.retriever() as retriever:
        call = agent(desk.settings, retriever)

        def found(**given):
            return re.findall(
                r"^\d+\. \[(.+?)#", call("search", query="printer", **given), re.MULTILINE
            )

        both = found(indexes=["comments", "titles"], filter={"number": {"lte": 10}}, limit=5)
        assert both
        assert both == found(
            indexes='["comments", "titles"]', filter='{"number": {"lte": "10"}}', limit="5"
        )
        assert both == found(
            indexes='["comments", "titles"]', filter=' {"number": {"lte": 10}}\n', exact="true"
        )
        for one in ("titles", '"titles"', '["titles"]'):
            assert {name.partition("/")[0] for name in found(indexes=one)} == {"titles"}
        assert found(filter={"number": ["10", "2.5"]}) == found(filter='{"number": [10, 2.5]}')
        citation = re.search(
            r"\[(titles/t-1#\S+?)[\]@]", call("search", query="printer", indexes="titles")
        )[1]
        for one in ([citation], citation, f'["{citation}"]'):
            assert call("verify_citations", citations=one).startswith(f"[{citation}] is "), one
        for wrong, words in (
            ('{"number":' * 5_000, "Input should be a valid dict"),
            ("null", "Input should be a valid dict"),
            ('{"priority": "\\ud800"}', "has text that is not valid Unicode"),
            ('{"number": NaN}', "not a number"),
        ):
            with pytest.raises(SettingsError, match=words):
                found(filter=wrong)


@pytest.mark.long
def test_an_answer_has_a_bound_and_what_it_cuts_is_read_by_the_name_of_its_field(tmp_path):
    desk = Desk(tmp_path / "desk", names=("comments",))
    text = "The printer is offline since the update. " * 20
    desk.fill(
        {"comments": [(n, text, LARGE if n == 3 else SMALLER if n % 2 else {}) for n in range(60)]}
    )
    with desk.retriever() as retriever:

        def call(name, **given):
            answer = agent(desk.settings, retriever)(name, **given)
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
        for field, value in (
            ("log", LARGE["log"]),
            ("signs", LARGE["signs"]),
            ("wide.key7", "value" * 5),
        ):
            got, offset = "", 0
            while offset is not None:
                answer = call(
                    "get_document", **where, field=field, offset=offset, max_chars=200_000
                )
                head, _, part = answer.partition("\n")
                got += part
                going_on = re.search(r"go on with offset (\d+)$", head)
                offset = int(going_on[1]) if going_on else None
            assert got == value, field
        with pytest.raises(SettingsError, match=r"has no field 'lag'; it has .*log"):
            call("get_document", **where, field="lag")
        with pytest.raises(SettingsError, match=r"offset is 99, but wide.key8 has 25"):
            call("get_document", **where, field="wide.key8", offset=99)


def answered_of(folder, corpus: str) -> int:
    config = folder / "rag-index.toml"
    command = [*PROGRAM, "--config", str(config)]
    if corpus == "source-tree":
        shutil.copytree(ROOT / "examples" / corpus, folder, dirs_exist_ok=True)
    else:
        sample = ["sample", corpus, "--out", str(folder / "d.db"), "--settings"]
        subprocess.run([*command, *sample], check=True, capture_output=True)
    index = ["index", "topics"] if corpus == "pydocs" else ["index-all"]
    subprocess.run([*command, *index], check=True, capture_output=True, timeout=300)
    settings, answered = load_settings(config), 0
    with Retriever(settings) as retriever:
        for question, wanted in QUESTIONS[corpus].items():
            answer = agent(settings, retriever)("search", query=question, limit=3)
            answered += (
                wanted in f"{answer}\n{answer.replace('**', '')}"
            )  # with and without what marks words
    return answered


@pytest.mark.long
def test_one_call_answers_most_questions(tmp_path):
    for corpus in QUESTIONS:
        (tmp_path / corpus).mkdir()
    answered = {corpus: answered_of(tmp_path / corpus, corpus) for corpus in QUESTIONS}
    assert sum(answered.values()) >= ANSWERED, answered
    assert sum(map(len, QUESTIONS.values())) == 10
