"""Citations are checked against what an index holds now, and tell nobody of documents that they may not see."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_index.errors import SettingsError
from rag_index.retrieve import ALL_GROUPS, Caller, Citation, Retriever
from rag_index.service.mcp_tools import AgentTools
from rag_index.service.search_service import SearchService
from tests.project import Project, run_here


@given(st.text(min_size=1).filter(str.isprintable), st.integers(0, 10**6), st.sampled_from(["", "0/16B3748", "12:00Z"]))
def test_a_citation_is_one_word_that_can_be_read_again(document_id, chunk, at):
    cited = Citation("notes", document_id, chunk, "0123456789abcdef", at)
    assert len(str(cited).split()) == 1
    assert Citation.parse(f"[{cited}]") == Citation.parse(str(cited)) == cited


@pytest.mark.parametrize("text", ["", "notes/1", "notes/1#0", "notes/1#0:12", "notes/1#x:0123456789abcdef"])
def test_what_is_no_citation_is_named(text):
    with pytest.raises(SettingsError, match="is no citation"):
        Citation.parse(text)


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path).fill(4)
    rights = 'access = "SELECT id, author FROM note"\n'
    project.write_settings(project.config.read_text() + rights)
    project.run()
    return project


def cite(project):
    with Retriever.from_settings(project.config) as retriever:
        found = retriever.search_sync("ticket", limit=10, groups=ALL_GROUPS)
    return {hit.document_id: hit.citation for hit in found.hits}


def test_what_became_of_a_citation_is_told_by_every_way_to_ask(project):
    cited = cite(project)
    project.execute("UPDATE note SET body = 'Mended.' WHERE id = 2")
    project.execute("DELETE FROM note WHERE id = 3")
    project.run(allow_deletes=True)
    out, _ = run_here(project.config, "verify", *map(cited.get, "123"), "--all-groups", "--json", code=3)
    told = {one["citation"]: one for one in json.loads(out)["citations"]}
    assert [told[cited[number]]["state"] for number in "123"] == ["unchanged", "changed", "deleted"]
    changed = told[cited["2"]]
    assert changed["text"] == "Note 2\nMended."
    assert [told[cited[number]].get("since") for number in "123"] == [None, *(cited[n].partition("@")[2] for n in "23")]
    assert changed["as_of"]["at"] > cited["2"].partition("@")[2], "it is true of a later moment"
    _, error = run_here(project.config, "verify", cited["1"], "--all-groups")
    assert error == ""
    run_here(project.config, "verify", changed["new_citation"], "--all-groups")

    async def ask_as_an_agent():
        async with Retriever.from_settings(project.config) as retriever:
            tools = AgentTools(SearchService(project.settings, retriever))
            return await tools.call("verify_citations", {"citations": [*cited.values()]}, Caller("a", {"author 2"}))

    answer = asyncio.run(ask_as_an_agent())
    assert f"[{cited['2']}] is changed since 20" in answer
    assert "Mended." in answer
    assert f"[{cited['1']}] is not for you" in answer


def test_a_document_that_is_not_for_the_caller_is_hidden_with_its_text_whatever_became_of_it(project):
    cited = cite(project)
    project.execute("UPDATE note SET body = 'A secret.' WHERE id = 2")
    project.run()
    with Retriever.from_settings(project.config) as retriever:
        for groups in (None, ["author 1"], ["nobody"]):
            found = retriever.verify_sync(cited["2"], groups=groups)
            assert (found.state, found.text) == ("hidden", "")
        assert retriever.verify_sync(cited["2"], groups=["author 2"]).text.endswith("A secret.")
