"""Faults during a search: a clear error, the hits of the other indexes, and recovery without a restart."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import pytest

from rag_index.embedders import open_embedder
from rag_index.errors import EmbedderError, FingerprintChanged, SettingsError, StoreUnavailable
from rag_index.retrieve import Retriever, SearchFailed
from rag_index.stores import open_store
from tests.retrieve.desk import DESK, found

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]

TITLES = "POST /collections/desk_titles__1/points/query"
QUERY = "/points/query"
ALL = {(index, str(row[0])) for index, rows in DESK.items() for row in rows}


def documents(result) -> set[tuple[str, str]]:
    return set(found(result))


def without_titles(result) -> bool:
    return documents(result) == {hit for hit in ALL if hit[0] != "titles"}


# Time


def test_indexes_are_asked_at_the_same_time(served, qdrant):
    with served.retriever() as retriever:
        retriever.search_sync("printer", timeout=120)
        qdrant.break_next(QUERY, together=len(DESK), times=len(DESK))  # answers none before all have been asked
        result = retriever.search_sync("mailbox", timeout=120)
    assert result.errors == {}
    assert all(result.timings_ms[name] > 0 for name in DESK)


def test_an_index_that_hangs_delays_no_other_however_often_it_is_asked(served, qdrant):
    async def main():
        async with served.retriever(retrieve={"concurrency": 1}) as retriever:
            await retriever.warm_up()
            qdrant.break_next(TITLES, times=None, hang=6)
            results = await asyncio.gather(*(retriever.search(f"printer {n}", timeout=3.0) for n in range(15)))
            later = await retriever.search("mailbox", timeout=3.0)
            return [*results, later]

    results = asyncio.run(main())
    assert all(result.errors == {"titles": "timed out after 3 s"} for result in results)
    assert all(without_titles(result) for result in results)


# The store


def test_an_index_that_the_store_refuses_is_named_and_the_others_answer(served, qdrant):
    qdrant.break_next(TITLES, times=None, status=400, error="Wrong input: no such thing")
    with served.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert without_titles(result)
        assert "refuses the request (400): Wrong input: no such thing" in result.errors["titles"]
        qdrant.faults.clear()
        assert documents(retriever.search_sync("printer")) == ALL


def test_an_index_whose_collection_cannot_be_read_is_named_and_the_others_answer(served, qdrant):
    qdrant.break_next(
        "GET /collections/desk_titles__1", times=None, status=500, error="Service internal error: segment 3"
    )
    with served.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert without_titles(result)
        assert "answered 500: Service internal error: segment 3" in result.errors["titles"]
    qdrant.faults.clear()
    qdrant.break_next("GET /collections/desk_titles__1", times=None, hang=5)
    with served.retriever() as retriever:
        retriever.search_sync("warm", indexes=["comments", "solutions"])
        result = retriever.search_sync("printer", timeout=2.0)
        assert without_titles(result)
        assert result.errors == {"titles": "timed out after 2 s while its collection was read"}


@pytest.mark.parametrize("fault", [{"status": 503, "error": "busy"}, {"cut": True}, {"garbage": True}])
def test_passing_faults_are_not_seen(served, qdrant, fault):
    with served.retriever() as retriever:
        retriever.search_sync("warm")
        qdrant.break_next(QUERY, times=2, **fault)
        result = retriever.search_sync("printer")
        assert (documents(result), result.errors) == (ALL, {})


def test_a_server_that_goes_and_comes_back(served, qdrant):
    with served.retriever(retrieve={"index_timeout": 1.0, "timeout": 5.0}) as retriever:
        retriever.search_sync("printer", timeout=60)
        qdrant.stop()
        for _ in range(2):
            with pytest.raises((StoreUnavailable, SearchFailed), match=r"is it running|timed out"):
                retriever.search_sync("printer")
        qdrant.start()
        assert documents(retriever.search_sync("printer")) == ALL


def test_an_alias_that_moves_is_followed(empty):
    empty.fill()
    with empty.retriever() as retriever:
        assert documents(retriever.search_sync("printer")) == ALL
        time.sleep(0.2)
        empty.fill({"titles": [("new", "A printer")]}, number=2)
        time.sleep(1.1)
        result = retriever.search_sync("printer", indexes=["titles"])
        assert (found(result), result.collections) == (
            [("titles", "new")],
            {"titles": empty.settings.alias("titles") + "__2"},
        )
        time.sleep(0.2)
        empty.point_alias("titles", 1)
        time.sleep(1.1)
        assert ("titles", "new") not in documents(retriever.search_sync("printer"))


def test_a_collection_that_is_dropped_as_its_alias_moves_is_not_missed(empty):
    """Within the second for which aliases are cached."""
    empty.fill()
    with empty.retriever() as retriever:
        for number in (2, 3):
            retriever.search_sync("printer")
            time.sleep(0.2 if empty.settings.store.url is None else 0)
            empty.fill({"titles": [(f"v{number}", "A printer")]}, number=number)
            empty.drop("titles", number - 1)
            assert found(retriever.search_sync("printer", indexes=["titles"])) == [("titles", f"v{number}")]


def test_an_index_that_vanishes_is_named_and_comes_back(empty):
    empty.fill()
    with empty.retriever() as retriever:
        retriever.search_sync("printer")
        time.sleep(0.2 if empty.settings.store.url is None else 0)
        empty.drop("titles", 1)
        result = retriever.search_sync("printer", indexes=list(DESK))
        assert without_titles(result)
        assert result.errors == {"titles": "index titles is empty: `rag-index index titles` fills it"}
        time.sleep(0.2 if empty.settings.store.url is None else 0)
        empty.fill({"titles": DESK["titles"]})
        assert documents(retriever.search_sync("printer", indexes=list(DESK))) == ALL


def test_a_collection_made_again_under_the_same_name_by_another_model(ollama_desk, ollama):
    """Happens if ledger and store are thrown away: the first run uses the first names again."""
    with ollama_desk.retriever() as retriever:
        retriever.search_sync("printer")
        with closing(open_store(ollama_desk.settings.store)) as store:
            for name in DESK:
                store.drop(f"desk_{name}__1")
            ollama.restart(digest="d2" * 32)
            ollama_desk.fill_in(store)
        result = retriever.search_sync("mailbox")
        assert (documents(result), result.errors) == (ALL, {})


def test_vectors_of_another_dimension_in_the_store(empty):
    empty.fill()
    settings = empty.settings
    with closing(open_store(settings.store, wait=5)) as store:
        described = store.metadata(f"{settings.alias('titles')}__1")
        store.create(f"{settings.alias('titles')}__2", 4, described)
        store.point_alias(settings.alias("titles"), f"{settings.alias('titles')}__2")
    with empty.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert without_titles(result)
        if empty.settings.store.url is None:
            assert "holds 4-d vectors and the query's shape is (256,)" in result.errors["titles"]
        else:
            assert "expected dim: 4, got 256" in result.errors["titles"]


# The model


def test_equal_queries_at_once_are_embedded_once_and_then_cached(ollama_desk, ollama):
    async def main():
        async with ollama_desk.retriever() as retriever:
            await retriever.warm_up()
            ollama.clear()
            ollama.seconds_per_text = 0.2
            results = await asyncio.gather(*(retriever.search("printer") for _ in range(20)))
            again = await retriever.search("printer")
            return results, again, retriever.metrics()

    results, again, metrics = asyncio.run(main())
    assert len(ollama.embeds()) == 1
    assert all(result.hits == again.hits for result in results)
    assert again.timings_ms["embed"] < 100
    assert metrics.vectors_asked - metrics.vectors_made == 20


def test_a_slow_embedder_takes_no_longer_than_the_limit(ollama_desk, ollama):
    with ollama_desk.retriever() as retriever:
        retriever.search_sync("warm")
        ollama.seconds_per_text = 1.5
        with pytest.raises(SearchFailed, match=r"comments: timed out after 0.3 s while the query was embedded"):
            retriever.search_sync("printer", timeout=0.3)
        ollama.seconds_per_text = 0
        assert documents(retriever.search_sync("printer")) == ALL


def test_loading_the_model_does_not_count_for_the_time_limit(embedded, monkeypatch):
    """On a busy machine the model alone takes longer to load than a search may take."""
    passed = [0.0]
    clock = time.monotonic
    monkeypatch.setattr("rag_index.retrieve.fan_out.time.monotonic", lambda: clock() + passed[0])

    def open_slowly(*given, **named):
        passed[0] += 200
        return open_embedder(*given, **named)

    with Retriever(embedded.settings, open_embedder=open_slowly) as retriever:
        result = retriever.search_sync("printer", timeout=60, indexes=["comments"])
    assert documents(result) == {hit for hit in ALL if hit[0] == "comments"}


def test_a_model_that_cannot_be_loaded_is_named(embedded):
    def open_nothing(*_, **__):
        raise EmbedderError("no memory for the model: close other programs")

    retriever = Retriever(embedded.settings, open_embedder=open_nothing)
    with retriever, pytest.raises(EmbedderError, match="no memory for the model"):
        retriever.search_sync("printer")


@pytest.mark.parametrize("fault", ["dimension", "nan"])
def test_a_vector_that_cannot_be_right(ollama_desk, ollama, fault):
    with ollama_desk.retriever() as retriever:
        retriever.search_sync("warm")
        ollama.fault(fault)
        with pytest.raises(Exception, match=r"dimensions instead of|not finite|zeros"):
            retriever.search_sync("printer")
        ollama.clear()
        assert documents(retriever.search_sync("printer")) == ALL


def test_another_model_under_the_same_name(ollama_desk, ollama):
    before = ollama.digest
    ollama.restart(digest="d2" * 32)
    with ollama_desk.retriever() as retriever:
        with pytest.raises(FingerprintChanged, match=r"desk_comments__1 holds vectors of 8-d nomic.*rebuild NAME"):
            retriever.search_sync("printer", indexes=["comments"])
        ollama.restart(digest=before)
        assert documents(retriever.search_sync("printer")) == ALL


# Several models


@pytest.fixture
def mixed(empty, ollama):
    """Comments and solutions come from the model in the process, titles from an Ollama server's, as settings say."""
    empty.fill({name: DESK[name] for name in ("comments", "solutions")})
    empty.write(extra=f"{empty.extra}\n{ollama.settings}")
    return empty.fill({"titles": DESK["titles"]})


def test_indexes_of_several_models_are_searched_with_their_own(mixed, ollama):
    with mixed.retriever() as retriever:
        ollama.clear()
        result = retriever.search_sync("Printer offline after update", limit=20)
        assert (documents(result), result.errors, result.fusion) == (ALL, {}, "rank")
        texts = [text for request in ollama.embeds() for text in request.texts]
        assert texts.count("search_query: Printer offline after update") == 1
        assert retriever.metrics().vectors_made == 2
        local = retriever.search_sync("Printer offline after update", indexes=["comments", "solutions"])
        assert local.fusion == "score"
        with pytest.raises(
            SettingsError, match=r"scores of different models cannot be compared \(256-d wordllama.*8-d nomic"
        ):
            retriever.search_sync("printer", fusion="score")
        ollama.stop_listening()
        result = retriever.search_sync("mailbox")
        assert without_titles(result)
        assert ollama.url in result.errors["titles"]
        assert result.fusion == "score"


def test_an_index_of_a_model_that_the_settings_no_longer_name_is_still_found(mixed, ollama):
    mixed.write(extra=f"{mixed.extra}\n[embedder]\nhosts = ['http://127.0.0.1:9']\n")
    with mixed.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert without_titles(result), "the Ollama server is not named any more"
        assert "__1 holds vectors of 8-d nomic-embed-text" in result.errors["titles"]
        assert "settings say wordllama: rebuild the index with `rag-index rebuild NAME`" in result.errors["titles"]
    mixed.write(extra=f"{mixed.extra}\n[embedder]\nhosts = ['{ollama.url}']\n")
    with mixed.retriever() as retriever:
        assert documents(retriever.search_sync("printer")) == ALL


def test_a_rebuild_with_another_model_is_followed(ollama_desk, ollama):
    """The alias moves from vectors of one model to those of another while a service is running."""
    with ollama_desk.retriever(retrieve={"idle_seconds": 0.05}) as retriever:
        retriever.search_sync("printer")
        time.sleep(0.3)
        ollama.restart(digest="d2" * 32, dimension=12)
        ollama_desk.fill(number=2)
        result = retriever.search_sync("printer")
        assert (documents(result), result.errors) == (ALL, {})
        assert set(result.collections.values()) == {f"desk_{name}__2" for name in DESK}


def test_a_collection_that_does_not_say_its_model_needs_that_of_the_settings(ollama_desk):
    with closing(open_store(ollama_desk.settings.store)) as store:
        for name in DESK:
            store.set_metadata(f"desk_{name}__1", {"embedder_identity": None})
    with ollama_desk.retriever() as retriever:
        assert documents(retriever.search_sync("printer")) == ALL
    ollama_desk.write(extra="")
    message = "desk_comments__1 holds vectors of 8-d nomic.*, settings say 256-d wordllama.*put the settings back"
    with ollama_desk.retriever() as retriever, pytest.raises(FingerprintChanged, match=message):
        retriever.search_sync("printer", indexes=["comments"])


def test_each_index_has_its_own_limit_within_the_whole(served, qdrant):
    with served.retriever(retrieve={"index_timeout": 1.0}) as retriever:
        retriever.search_sync("warm")
        qdrant.break_next(TITLES, times=1, hang=4)
        assert retriever.search_sync("printer", timeout=50).errors == {"titles": "timed out after 1 s"}
