"""Documents by their ids: read, found by one that is like them, and cited; nobody learns of
others."""

import asyncio
import json
import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_index.errors import DocumentNotFound, SettingsError, StoreError, UnknownIndex
from rag_index.search import (
    ALL_GROUPS,
    AsOf,
    Caller,
    Citation,
    Document,
    DocumentChunk,
    Retriever,
)
from tests.project import Project, run_here
from tests.search.desk import Desk, agent, found
from tests.search.service.live import Live

LONG = " ".join(
    f"Sentence number {number} of a long comment about a printer." for number in range(40)
)
ODD = ["a/b c", "ünï", "007", "7", '["x"]', "[1,2]", "%2F", "…"]
ROWS = {
    "comments": [(1, LONG, {"priority": "high"}), (7, "A short one", {"priority": "low"})],
    "titles": [(key, f"The title of {key}") for key in ODD],
}
NOTES = [
    (1, "The printer on floor two is offline since the update", {"priority": "high"}),
    (2, "the PRINTER on floor two is  offline since the update", {"priority": "low"}),
    (3, "A printer is offline, again after an update", {"priority": "low"}),
    (4, '"Quotes" and -minus: the mailbox is full and no mail arrives', {"priority": "high"}),
    (5, "Mail does not arrive, since the mailbox is full", {"priority": "high"}),
]


@given(
    st.text().filter(str.isprintable),
    st.integers(0, 10**6),
    st.sampled_from(["", "0/16B3748", "12:00Z"]),
)
def test_a_citation_is_one_word_that_can_be_read_again(document_id, chunk, at):
    cited = Citation("notes", document_id, chunk, "0123456789", "abcdef", at)
    assert len(str(cited).split()) == 1
    assert Citation.parse(f"[{cited}]") == Citation.parse(str(cited)) == cited


@pytest.mark.parametrize(
    "text", ["", "notes/1", "notes/1#0", "notes/1#0:12", "notes/1#x:0123456789abcdef"]
)
def test_what_is_no_citation_is_named(text):
    with pytest.raises(SettingsError, match="is no citation"):
        Citation.parse(text)


def test_a_collection_without_a_key_accepts_no_seal():
    document = Document(
        "notes", "1", "", {}, (DocumentChunk(0, "text"),), AsOf(), 1, None, text_hash="0123456789"
    )
    forged = Citation.of(document, AsOf(), "")
    assert not forged.is_sealed(""), "without a key, anybody can compute the seal"
    assert Citation.of(document, AsOf(), "key").is_sealed("key")


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path).fill(4)
    project.write_settings(f'{project.config.read_text()}access = "SELECT id, author FROM note"\n')
    project.run()
    return project


def cite(project):
    with Retriever.from_settings(project.config) as retriever:
        found = retriever.search_sync("ticket", limit=10, groups=ALL_GROUPS)
    return {hit.document_id: hit.citation for hit in found.hits}


def states(project, *citations):
    with Retriever.from_settings(project.config) as retriever:
        return [retriever.verify_sync(one, groups=ALL_GROUPS).state for one in citations]


def test_what_became_of_a_citation_is_told_by_every_way_to_ask(project):
    cited = cite(project)
    project.execute("UPDATE note SET body = 'Mended.' WHERE id = 2")
    project.execute("DELETE FROM note WHERE id = 3")
    project.run(allow_deletes=True)
    out, _ = run_here(
        project.config, "verify", *map(cited.get, "123"), "--all-groups", "--json", code=3
    )
    told = {one["citation"]: one for one in json.loads(out)["citations"]}
    assert [told[cited[number]]["state"] for number in "123"] == ["unchanged", "changed", "deleted"]
    changed = told[cited["2"]]
    assert changed["text"] == "Note 2\nMended."
    assert [told[cited[number]].get("since") for number in "123"] == [
        None,
        *(cited[n].partition("@")[2] for n in "23"),
    ]
    assert changed["as_of"]["at"] > cited["2"].partition("@")[2], "it is true of a later moment"
    _, error = run_here(project.config, "verify", cited["1"], "--all-groups")
    assert error == ""
    run_here(project.config, "verify", changed["new_citation"], "--all-groups")
    with Retriever.from_settings(project.config) as retriever:
        ask = agent(project.settings, retriever, Caller("a", {"author 2"}))
        answer = ask("verify_citations", citations=[*cited.values()])
    assert f"[{cited['2']}] is changed since 20" in answer
    assert "Mended." in answer
    assert f"[{cited['1']}] is unknown" in answer


def invented(citation: str) -> dict[str, str]:
    """Return what somebody could make of a citation, by what is wrong with it."""
    document, chunk, digits, at = re.fullmatch(r"(.*)#(\d+):(\w+)@(.*)", citation).groups()
    flipped = [
        digits[:n] + format(int(digits[n], 16) ^ 1, "x") + digits[n + 1 :] for n in (0, 9, 10, 15)
    ]
    made = {
        f"hash {one}": f"{document}#{chunk}:{one}@{at}" for one in ("0" * 16, "a" * 16, *flipped)
    }
    made |= {f"chunk {one}": f"{document}#{one}:{digits}@{at}" for one in (1, 999)}
    return made | {
        one: citation.replace(document, f"notes/{one}") for one in ("1000", "-1", "x", "3")
    }


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
    assert states(project, first["1"], second["1"], second["2"], second["4"]) == [
        "unchanged"
    ] * 3 + ["deleted"]
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

    for change in (
        "UPDATE note SET body = 'A secret.' WHERE id = 2",
        "DELETE FROM note WHERE id = 3",
    ):
        for groups in (None, ["author 1"], ["nobody"]):
            assert len(told(groups, cited["2"], cited["3"], *forged)) == 1
            assert {state for state, *_ in told(groups, cited["2"])} == {"unknown"}
        project.execute(change)
        project.run(allow_deletes=True)
    with Retriever.from_settings(project.config) as retriever:
        assert retriever.verify_sync(cited["2"], groups=["author 2"]).text.endswith("A secret.")


@pytest.fixture
def documents(blank):
    return blank.fill(ROWS)


def read(retriever, *where):
    return asyncio.run(retriever.document(*where))


def test_every_document_that_a_search_gives_can_be_read_with_all_its_chunks_in_order(documents):
    with documents.retriever() as retriever:
        found = read(retriever, "comments", "1")
        assert [chunk.chunk for chunk in found.chunks] == list(range(len(found.chunks)))
        assert len(found.chunks) > 10
        assert " ".join(chunk.text for chunk in found.chunks) == LONG
        assert found.payload == {"priority": "high"}
        hits = retriever.search_sync("title", indexes=["titles"], limit=50, dense_weight=1).hits
        assert {hit.document_id for hit in hits} == set(ODD)
        for hit in hits:
            assert [chunk.text for chunk in read(retriever, hit.index, hit.document_id).chunks] == [
                hit.text
            ]


def test_what_is_not_there_is_not_found_and_an_index_that_is_empty_or_unknown_is_named(documents):
    documents.write(comments='required_filter = { priority = "high" }')
    with documents.retriever() as retriever:
        assert read(retriever, "comments", "1").chunks
        for missing in ("7", "2", "01", "1.0", " 1", "", '"1"', "a", "\ud800", "1" * 5000):
            with pytest.raises(DocumentNotFound, match="index comments has no document"):
                read(retriever, "comments", missing)
        with pytest.raises(StoreError, match="rag-index index solutions"):
            read(retriever, "solutions", "1")
        with pytest.raises(UnknownIndex, match="did you mean 'titles'"):
            read(retriever, "title", "1")


def test_a_key_of_several_columns_needs_all_of_them(embedded):
    text = embedded.config.read_text().replace('key = "id"', 'key = ["site", "id"]', 1)
    embedded.config.write_text(text)
    with embedded.retriever() as retriever:
        for given in ("1", "[" * 100_000):
            with pytest.raises(SettingsError, match="not a JSON array of 2 values"):
                read(retriever, "comments", given)
        with pytest.raises(DocumentNotFound):
            read(retriever, "comments", '["1",1]')


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, names=("comments", "titles")).fill(
        {"comments": NOTES, "titles": [("t", "Full mailbox")]}
    )


def test_what_is_like_a_document_comes_first_without_itself_and_its_repetitions(desk):
    with desk.retriever() as retriever:
        near = retriever.search_sync(like="comments/1", limit=2)
        other = retriever.search_sync(like="comments/4", limit=2)
        high = retriever.search_sync(
            like="comments/1", filter="priority=high", indexes=["comments"]
        )
    assert found(near)[0] == ("comments", "3")
    assert {*found(other)} == {("comments", "5"), ("titles", "t")}
    assert {*found(high)} == {("comments", "4"), ("comments", "5")}
    assert near.verdict == ""


def test_whoever_may_not_see_a_document_finds_nothing_by_it(tmp_path):
    rows = [
        (n, text, {"_rag": {"groups": ["staff"] if n < 3 else ["staff", "all"]}})
        for n, text, _ in NOTES
    ]
    desk = Desk(tmp_path, names=("comments",), more={"comments": 'access = "acl"'}).fill(
        {"comments": rows}
    )
    with desk.retriever() as retriever:
        assert found(retriever.search_sync(like="comments/3", groups="all", limit=1)) != [
            ("comments", "1")
        ]
        assert found(retriever.search_sync(like="comments/3", groups="staff", limit=1)) == [
            ("comments", "1")
        ]
        with pytest.raises(DocumentNotFound):
            retriever.search_sync(like="comments/1", groups="all")


def test_a_document_whose_key_is_empty_has_others_like_it_in_every_way_to_ask(tmp_path):
    rows = [("" if number == 1 else str(number), text, more) for number, text, more in NOTES]
    desk = Desk(tmp_path, names=("comments",)).fill({"comments": rows})
    printed = json.loads(
        run_here(desk.config, "search", "--like", "comments/", "--limit", "1", "--json")[0]
    )
    assert [hit["document_id"] for hit in printed["hits"]] == ["3"]
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        for found_there in (
            client.post("/search", json={"like": "comments/", "limit": 1}),
            client.get("/search", params={"like": "comments/", "limit": 1}),
        ):
            assert [hit["document_id"] for hit in found_there.json()["hits"]] == ["3"]
        assert "1. [comments/3#0" in agent(desk.settings, live.retriever)(
            "search", like="comments/"
        )
        assert found(live.retriever.search_sync(like="comments/", limit=1)) == [("comments", "3")]
        for other in ("", "/", "comments", "/comments"):
            with pytest.raises(SettingsError, match="like is a document such as comments/4711"):
                live.retriever.search_sync(like=other)
            assert client.post("/search", json={"like": other}).status_code in (400, 422)
        asked = {"query": rows[0][1], "document": "comments/"}
        assert client.post("/why", json=asked).json()["reason"] == "found"


def test_the_command_and_the_service_find_the_same(desk):
    printed = json.loads(
        run_here(desk.config, "search", "--like", "comments/1", "--limit", "1", "--json")[0]
    )
    assert [hit["document_id"] for hit in printed["hits"]] == ["3"]
    for missing in ("comments/77", "comments/"):
        assert "has no document" in run_here(desk.config, "search", "--like", missing, code=1)[1]
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        for found_there in (
            client.post("/search", json={"like": "comments/1", "limit": 1}),
            client.get("/search", params={"like": "comments/1", "limit": 1}),
        ):
            assert [hit["document_id"] for hit in found_there.json()["hits"]] == ["3"]
        assert client.post("/search", json={"like": "comments/77"}).status_code == 404
        assert client.post("/search", json={}).status_code == 422
        assert client.post("/search", json={"like": "comments/1", "query": "x"}).status_code == 400
        assert "1. [comments/3#0" in agent(desk.settings, live.retriever)(
            "search", like="comments/1"
        )
