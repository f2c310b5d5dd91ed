"""An answer that lacks something says so first, and claims nothing about what it lacks."""

import asyncio
import json
import os
import shutil
import socket
from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.search import Caller
from rag_index.search.frameworks import found_in
from rag_index.search.service import SearchService
from rag_index.search.service.mcp_tools import AgentTools, search_text
from tests.project import run_here
from tests.search.desk import DESK, Desk

NONSENSE = "zzqqxx wwvvuu"


@pytest.fixture
def damaged(embedded: Desk) -> Desk:
    """A desk of which one index cannot be opened."""
    shutil.rmtree(embedded.settings.store.path / "collections" / "desk_titles__1")
    return embedded


def test_nothing_fits_is_never_claimed_while_an_index_does_not_answer_and_every_text_says_first_what_is_missing(
    damaged, caplog
):
    with damaged.retriever() as retriever:
        result = retriever.search_sync(NONSENSE, limit=2)
        kept = retriever.search_sync(NONSENSE, indexes=["comments", "solutions"])
        typed = retriever.search_sync("prinetr")
    assert (result.nothing_fits, "titles" in result.errors, len(result.hits)) == (False, True, 2)
    assert kept.nothing_fits
    assert not typed.corrected, "titles may have the word"
    reason = result.errors["titles"].rstrip(".")
    assert result.missing == f"titles did not answer: {reason}. This is only what comments, solutions have."
    assert search_text(result).startswith(result.missing)
    assert "Nothing fits" not in search_text(result)
    hits, said = found_in(result)
    assert "nothing_fits" not in said
    assert hits[0][2]["missing"] == said["missing"] == result.missing
    assert result.missing in caplog.text
    printed = run_here(damaged.config, "search", NONSENSE, code=3)[0]
    assert printed.startswith("titles did not answer: ")
    assert "Nothing fits" not in printed
    left_out = run_here(damaged.config, "search", NONSENSE, "--min-relevance", "0.5", code=3)[0].splitlines()
    assert (len(left_out), left_out[1]) == (2, "Nothing found.")
    answer = json.loads(run_here(damaged.config, "search", NONSENSE, "--json", code=3)[0])
    assert "nothing_fits" not in answer
    assert answer["missing"].startswith("titles did not answer: ")
    assert set(answer["as_of"]) == {"comments", "solutions"}


def test_an_index_that_is_not_there_yet_is_named_and_one_that_is_being_filled_too(tmp_path):
    desk = Desk(tmp_path / "desk", names=("comments", "titles")).fill({"comments": DESK["comments"]})

    def asked(indexes=None):
        with desk.retriever() as retriever:
            return retriever.search_sync(NONSENSE, indexes=indexes)

    result = asked()
    assert result.missing == "titles is not indexed yet. This is only what comments has."
    assert (result.nothing_fits, result.errors) == (False, {})
    assert asked(["comments"]).nothing_fits
    with closing(Ledger(desk.settings.ledger_url)) as ledger:
        for index, said in (
            ("titles", "titles is still being filled. This is only what comments has."),
            ("comments", "comments is still being filled. titles is not indexed yet. This is only what comments has."),
        ):
            with IndexLease(ledger, f"desk_{index}", "a-run"):
                ledger.start_run("a-run", f"desk_{index}", host=socket.gethostname(), pid=os.getpid())
                assert asked().missing == said
        result = asked(["comments"])
        assert (result.missing, result.nothing_fits) == ("comments was never filled, since its last run died.", False)


def test_an_index_that_is_closed_to_the_caller_is_not_said_to_have_nothing(tmp_path):
    rows = [(1, "The printer is offline", {"_rag": {"groups": ["staff"]}})]
    desk = Desk(tmp_path / "desk", names=("comments", "titles"), more={"comments": 'access = "acl"'})
    desk.fill({"comments": rows, "titles": DESK["titles"]})

    async def ask():
        async with desk.retriever() as retriever:
            tools = AgentTools(SearchService(desk.settings, retriever))
            text = await tools.call("search", {"query": NONSENSE}, Caller())
            return text, await retriever.search(NONSENSE), await retriever.search(NONSENSE, groups="staff")

    text, stranger, member = asyncio.run(ask())
    assert (stranger.nothing_fits, member.nothing_fits) == (False, True)
    assert text.startswith("Index comments: it is for members of groups")


def test_words_alone_find_and_judge_while_the_embedder_is_down_and_the_answer_says_so(ollama_desk, ollama):
    ollama.stop_listening()
    with ollama_desk.retriever() as retriever:
        result = retriever.search_sync("printer offline update", dense_weight=0, min_relevance=0.2)
        nonsense = retriever.search_sync("printer giraffe zebra harbour", dense_weight=0)
    assert ("comments", "1") in [(hit.index, hit.document_id) for hit in result.hits]
    assert "comments was searched by words alone, since its embedder fails: " in result.missing
    assert not nonsense.nothing_fits
