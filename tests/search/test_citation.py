"""Citations are checked against what an index holds now, and tell nobody of documents that they may not see."""

import asyncio
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_index.errors import SettingsError
from rag_index.search import ALL_GROUPS, Caller, Citation, Retriever
from rag_index.search.service import SearchService
from rag_index.search.service.mcp_tools import AgentTools
from tests.project import Project, run_here


@given(st.text().filter(str.isprintable), st.integers(0, 10**6), st.sampled_from(["", "0/16B3748", "12:00Z"]))
def test_a_citation_is_one_word_that_can_be_read_again(document_id, chunk, at):
    cited = Citation("notes", document_id, chunk, "0123456789", "abcdef", at)
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


def states(project, *citations, groups=ALL_GROUPS):
    with Retriever.from_settings(project.config) as retriever:
        return [retriever.verify_sync(one, groups=groups).state for one in citations]


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
    answer = ask_as_an_agent(project, "author 2", *cited.values())
    assert f"[{cited['2']}] is changed since 20" in answer
    assert "Mended." in answer
    assert f"[{cited['1']}] is unknown" in answer


def ask_as_an_agent(project, group: str, *citations: str) -> str:
    async def ask():
        async with Retriever.from_settings(project.config) as retriever:
            tools = AgentTools(SearchService(project.settings, retriever))
            return await tools.call("verify_citations", {"citations": [*citations]}, Caller("a", {group}))

    return asyncio.run(ask())


def invented(citation: str) -> dict[str, str]:
    """Return what somebody could make of a citation, by what is wrong with it."""
    document, chunk, digits, at = re.fullmatch(r"(.*)#(\d+):(\w+)@(.*)", citation).groups()
    flipped = [digits[:n] + format(int(digits[n], 16) ^ 1, "x") + digits[n + 1 :] for n in (0, 9, 10, 15)]
    made = {f"hash {one}": f"{document}#{chunk}:{one}@{at}" for one in ("0" * 16, "a" * 16, *flipped)}
    made |= {f"chunk {one}": f"{document}#{one}:{digits}@{at}" for one in (1, 999)}
    return made | {one: citation.replace(document, f"notes/{one}") for one in ("1000", "-1", "x", "3")}


def test_what_was_never_cited_is_unknown_whatever_became_of_its_document(project):
    cited = cite(project)
    genuine, forged = cited["2"], invented(cited["2"])
    assert states(project, genuine, genuine.partition("@")[0]) == ["unchanged"] * 2
    assert set(states(project, *forged.values())) == {"unknown"}, forged
    project.execute("UPDATE note SET body = 'Mended.' WHERE id = 2")
    project.run()
    assert states(project, genuine) == ["changed"]
    assert set(states(project, *forged.values())) == {"unknown"}
    project.execute("DELETE FROM note WHERE id IN (2, 3)")
    project.run(allow_deletes=True)
    assert states(project, genuine, cited["3"]) == ["deleted"] * 2
    assert set(states(project, *forged.values())) == {"unknown"}


def test_a_citation_is_known_by_the_collections_that_take_the_place_of_its_own(project):
    first = cite(project)
    project.execute("UPDATE note SET body = 'Mended.' WHERE id = 2")
    project.run(full=True, allow_deletes=True)
    assert states(project, first["1"], first["2"]) == ["unchanged", "changed"]
    second = cite(project)
    project.execute("DELETE FROM note WHERE id = 4")
    project.run(allow_deletes=True)
    run_here(project.config, "erase", "notes")
    assert states(project, first["1"], second["1"], second["2"], second["4"]) == ["unchanged"] * 3 + ["deleted"]
    other = Project(project.folder / "other").fill(4)
    other.run()
    assert states(other, *second.values()) == ["unknown"] * 4, "they are citations of another index"


@pytest.mark.long
def test_a_document_that_is_not_for_the_caller_looks_like_one_that_never_was(project):
    cited = cite(project)
    forged = [one for citation in cited.values() for one in invented(citation).values()]

    def told(groups, *citations):
        """Return what is told, but for the citation itself and the seconds since."""
        with Retriever.from_settings(project.config) as retriever:
            found = [retriever.verify_sync(one, groups=groups) for one in citations]
        return {(one.state, one.since, one.text, one.new_citation, one.as_of.at) for one in found}

    for change in ("UPDATE note SET body = 'A secret.' WHERE id = 2", "DELETE FROM note WHERE id = 3"):
        for groups in (None, ["author 1"], ["nobody"]):
            assert len(told(groups, cited["2"], cited["3"], *forged)) == 1
            assert {state for state, *_ in told(groups, cited["2"])} == {"unknown"}
        project.execute(change)
        project.run(allow_deletes=True)
    with Retriever.from_settings(project.config) as retriever:
        assert retriever.verify_sync(cited["2"], groups=["author 2"]).text.endswith("A secret.")
