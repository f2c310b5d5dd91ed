"""Faults during a search: a clear error, the hits of the other indexes, and recovery without a
restart."""

import asyncio
import re
import threading
import time

import pytest

from rag_index.components.embedders import open_embedder
from rag_index.errors import EmbedderError, FingerprintChanged, RagIndexError, StoreUnavailable
from rag_index.search import Retriever, SearchFailed, fan_out
from tests.search.desk import DESK, documents, found, sample
from tests.waiting import eventually

TITLES = "POST /collections/desk_titles__1/points/query"
QUERY = "/points/query"
ALL = {(index, str(row[0])) for index, rows in DESK.items() for row in rows}


def without_titles(result) -> bool:
    return documents(result) == {hit for hit in ALL if hit[0] != "titles"}


def test_an_index_that_hangs_delays_no_other_however_often_it_is_asked(served, qdrant, monkeypatch):
    monkeypatch.setattr(fan_out, "REQUESTS", 1)

    async def main():
        async with served.retriever() as retriever:
            await retriever.warm_up()
            qdrant.break_next(
                QUERY, together=len(DESK), times=len(DESK)
            )  # answers none before all have been asked
            together = await retriever.search("mailbox", timeout=120, dense_weight=1)
            assert all(together.timings_ms[name] > 0 for name in DESK)
            qdrant.break_next(TITLES, times=None, hang=20)
            return await asyncio.gather(
                *(retriever.search(f"printer {n}", timeout=5) for n in range(5))
            )

    for result in asyncio.run(main()):
        (reason,) = result.errors.values()
        said = (
            "still being (searched|opened) after 5 s; search again in a moment|does not answer|for"
            " its turn"
        )
        assert re.search(said, reason)
        assert without_titles(result)


def test_an_index_that_the_store_refuses_is_named_and_the_others_answer(served, qdrant):
    with served.retriever() as retriever:
        for fault, message in (
            ({"status": 503, "error": "busy"}, ""),
            ({"cut": True}, ""),
            ({"garbage": True}, ""),
            (
                {"status": 400, "error": "Wrong input: no such thing"},
                "refuses the request (400): Wrong input: no such",
            ),
        ):
            qdrant.break_next(TITLES if message else QUERY, times=None if message else 2, **fault)
            result = retriever.search_sync("printer", timeout=60)
            assert without_titles(result) if message else documents(result) == ALL
            assert message in result.errors.get("titles", "")
        qdrant.faults.clear()
        assert documents(retriever.search_sync("printer", timeout=60)) == ALL


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"status": 500, "error": "Service internal error: segment 3"},
            "500: Service internal error: segment 3",
        ),
        pytest.param({"hang": 20}, "timed out", marks=pytest.mark.long),
    ],
)
def test_an_index_whose_collection_cannot_be_looked_at_is_named_and_the_others_answer(
    served, qdrant, fault, message
):
    qdrant.break_next("GET /collections/desk_titles__1", times=None, **fault)
    with served.retriever() as retriever:
        retriever.search_sync(
            "mailbox", indexes=["comments", "solutions"], timeout=60
        )  # these answer soon then
        result = retriever.search_sync("printer", timeout=8 if "hang" in fault else 60)
    assert without_titles(result)
    assert message in result.errors["titles"]


def test_a_server_that_goes_and_comes_back(served, qdrant):
    with served.retriever(retrieve={"timeout": 10.0}) as retriever:
        retriever.search_sync("printer", timeout=60)
        qdrant.stop()
        for _ in range(2):
            with pytest.raises(
                (StoreUnavailable, SearchFailed), match=r"is it running|still being"
            ):
                retriever.search_sync("printer")
        qdrant.start()
        assert eventually(lambda: documents(retriever.search_sync("printer", timeout=60)) == ALL)


@pytest.mark.long
def test_an_alias_that_moves_is_followed_also_if_the_collection_before_is_dropped_at_once(empty):
    empty.fill()

    def hits(retriever):
        return found(retriever.search_sync("printer", indexes=["titles"]))

    with empty.retriever() as retriever:
        assert documents(retriever.search_sync("printer")) == ALL
        empty.fill({"titles": [("v2", "A printer")]}, number=2)
        assert eventually(lambda: hits(retriever) == [("titles", "v2")])
        empty.point_alias("titles", 1)
        assert eventually(lambda: ("titles", "v2") not in hits(retriever))
        for number in (2, 3):
            empty.fill({"titles": [(f"v{number}", "A printer")]}, number=number)
            empty.drop("titles", number - 1)  # within the second for which aliases are cached
            assert hits(retriever) == [("titles", f"v{number}")]
        empty.drop("titles", 3)
        result = retriever.search_sync("printer", indexes=list(DESK))
        assert without_titles(result)
        assert result.errors == {
            "titles": "index titles is empty: `rag-index index titles` fills it"
        }
        empty.fill({"titles": DESK["titles"]})
        assert documents(retriever.search_sync("printer", indexes=list(DESK))) == ALL


def test_what_the_store_has_in_place_of_a_collection(ollama_desk, ollama):
    """The same name by another model, as where ledger and store were thrown away; another
    dimension; no model."""
    with ollama_desk.retriever() as retriever:
        retriever.search_sync("printer")
        with ollama_desk.opened() as store:
            for name in DESK:
                store.drop(f"desk_{name}__1")
            ollama.restart(digest="d2" * 32)
            ollama_desk.fill_in(store)
        result = retriever.search_sync("mailbox", timeout=60)
        assert (documents(result), result.errors) == (ALL, {})
    with ollama_desk.opened() as store:
        store.create("desk_titles__2", 4, store.points("desk_titles__1").metadata())
        store.point_alias("desk_titles", "desk_titles__2")
        store.points("desk_solutions__1").set_metadata({"embedder_identity": None})
    with ollama_desk.retriever() as retriever:
        result = retriever.search_sync("printer", timeout=60)
        assert {index for index, _ in found(result)} == {"comments"}
        assert "has no vectors of the query's shape (8,)" in result.errors["titles"]
        said = (
            "desk_solutions__1 does not say what made its vectors: run `rag-index rebuild"
            " solutions`"
        )
        assert result.errors["solutions"] == said


@pytest.mark.long
def test_a_slow_or_wrong_embedder_fails_searches_in_time_until_it_is_well(ollama_desk, ollama):
    def fail(message, kind=RagIndexError, query="printer", **options):
        with pytest.raises(kind, match=message):
            retriever.search_sync(query, **options)

    with ollama_desk.retriever() as retriever:
        retriever.search_sync("warm")
        ollama.seconds_per_text = 2  # the next query waits for the host
        fail("comments: timed out after 1 s while the query was embedded", SearchFailed, timeout=1)
        ollama.seconds_per_text = 0
        for fault in ("dimension", "nan"):
            ollama.fault(fault)
            fail(r"dimensions instead of|not finite|zeros", query=f"printer {fault}", timeout=60)
            ollama.clear()
        assert documents(retriever.search_sync("printer", timeout=60)) == ALL
    before = ollama.digest
    ollama.restart(digest="d2" * 32)
    with ollama_desk.retriever() as retriever:
        message = r"desk_comments__1 holds vectors of 8-d nomic.*rebuild INDEX"
        fail(message, FingerprintChanged, indexes=["comments"], timeout=60)
        ollama.restart(digest=before)
        assert documents(retriever.search_sync("printer", timeout=60)) == ALL


def test_closing_ends_searches_that_wait_for_a_host_that_hangs(ollama_desk, ollama):
    before = threading.enumerate()
    ollama.fault("hang")

    async def main():
        retriever = ollama_desk.retriever()
        searches = [
            asyncio.ensure_future(retriever.search(f"printer {n}", timeout=100)) for n in range(20)
        ]
        await asyncio.to_thread(eventually, lambda: sample(retriever, "query_embeds_total") >= 20)
        await retriever.aclose()
        return await asyncio.gather(*searches, return_exceptions=True)

    assert all("the retriever is closed" in str(error) for error in asyncio.run(main()))
    own = [
        one
        for one in threading.enumerate()
        if one.name == "rag-index-embedder" and one not in before
    ]
    assert eventually(lambda: not any(one.is_alive() for one in own))


def test_loading_the_model_does_not_count_for_the_time_limit_and_one_that_fails_is_named(
    embedded, monkeypatch
):
    """On a busy machine the model alone takes longer to load than a search may take."""
    passed, clock = [0.0], time.monotonic
    monkeypatch.setattr("rag_index.search.fan_out.time.monotonic", lambda: clock() + passed[0])

    def open_slowly(*given, **named):
        passed[0] += 200
        return open_embedder(*given, **named)

    def open_nothing(*_, **__):
        raise EmbedderError("no memory for the model: close other programs")

    with Retriever(embedded.settings, open_embedder=open_slowly) as retriever:
        result = retriever.search_sync("printer", timeout=60, indexes=["comments"])
    assert documents(result) == {hit for hit in ALL if hit[0] == "comments"}
    retriever = Retriever(embedded.settings, open_embedder=open_nothing)
    with retriever, pytest.raises(EmbedderError, match="no memory for the model"):
        retriever.search_sync("printer")


@pytest.mark.long
def test_indexes_of_several_models_are_searched_with_their_own_also_if_the_settings_name_them_no_longer(
    served, ollama
):
    """Comments and solutions come from the model in the process, titles from an Ollama server's, as
    settings say."""
    served.write(extra=ollama.settings)
    served.fill({"titles": DESK["titles"]}, number=2)
    query = "Printer offline after update"
    with served.retriever() as retriever:
        ollama.clear()
        result = retriever.search_sync(query, limit=20)
        assert (documents(result), result.errors, result.fusion) == (ALL, {}, "rank")
        assert [text for request in ollama.embeds() for text in request.texts].count(
            f"search_query: {query}"
        ) == 1
        assert sample(retriever, "query_embeds_total") == 2
        assert retriever.search_sync(query, indexes=["comments", "solutions"]).fusion == "score"
        ollama.stop_listening()
        result = retriever.search_sync("mailbox")
        assert (without_titles(result), result.fusion) == (True, "score")
        assert ollama.url in result.errors["titles"]
    served.write(extra="[embedder]\nhosts = ['http://127.0.0.1:9']\n")
    with served.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert without_titles(result), "the Ollama server is not named any more"
        assert "__2 holds vectors of 8-d nomic-embed-text" in result.errors["titles"]
        assert (
            "settings say wordllama: rebuild the index with `rag-index rebuild INDEX`"
            in result.errors["titles"]
        )
