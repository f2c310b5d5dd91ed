"""The way of a search from `Retriever.search` to the client of the store: its length, its threads
and its requests."""

import asyncio
import math
import sys
import threading
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from qdrant_client import QdrantClient

import rag_index
from rag_index import Retriever
from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.components.stores.edge.shard import ShardFolder
from rag_index.errors import EmbedderUnavailable
from rag_index.search import positions
from rag_index.search.fan_out import FanOut
from rag_index.search.query_model import QueryModel
from tests.search.desk import DESK, PATIENT

PRODUCT = str(Path(rag_index.__file__).parent)
MAX_FUNCTIONS = 12
QUERY = "Printer offline"


class Ways:
    """The functions of ours that lead to each call of a client, and the threads that were started.

    A new thread, and a new task of an event loop, continue the way of the function that made them.
    """

    def __init__(self) -> None:
        self.made_by = WeakKeyDictionary[object, list[str]]()
        self.threads: list[str] = []
        self.reached: list[list[str]] = []

    def here(self) -> list[str]:
        """Return the functions of ours that lead to the caller, the outermost first."""
        frame, found = sys._getframe(1), list[str]()
        while frame is not None:
            if frame.f_code.co_filename.startswith(PRODUCT):
                found.insert(0, f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
            frame = frame.f_back
        try:
            maker = asyncio.current_task()
        except RuntimeError:  # no event loop runs in this thread
            maker = threading.current_thread()
        return [*self.made_by.get(maker, []), *found]

    def task_factory(self, loop, work, **options):
        task = asyncio.Task(work, loop=loop, **options)
        self.made_by[task] = self.here()
        return task


@pytest.fixture
def ways(monkeypatch):
    # On a slow machine these are due between the two searches.
    monkeypatch.setattr(positions, "REST_SECONDS", math.inf)
    monkeypatch.setattr(positions, "STORE_CHECK_SECONDS", 3600.0)
    ways = Ways()

    class WatchedThread(threading.Thread):
        def start(self) -> None:
            if (way := ways.here()) and "retriever.search" in way:
                ways.made_by[self] = way
                ways.threads.append(way[-1])
            super().start()

    monkeypatch.setattr(threading, "Thread", WatchedThread)
    return ways


def search(desk, ways: Ways, indexes: list[str], *, before=lambda: None) -> None:
    """Search twice, and watch the second time."""

    async def main() -> None:
        async with Retriever.from_settings(desk.settings) as retriever:
            await retriever.search(QUERY, indexes=indexes)
            ways.threads.clear()
            before()
            asyncio.get_running_loop().set_task_factory(ways.task_factory)
            result = await asyncio.create_task(retriever.search(QUERY, indexes=indexes))
            assert len(result.collections) == len(indexes)

    asyncio.run(main())


def test_a_query_passes_few_functions_on_its_way_to_the_client(served, ways, monkeypatch):
    query = QdrantClient.query_batch_points

    def watched(client, *args, **options):
        ways.reached.append(ways.here())
        return query(client, *args, **options)

    monkeypatch.setattr(QdrantClient, "query_batch_points", watched)
    for indexes in (["titles"], ["titles", "comments"]):
        search(served, ways, indexes, before=ways.reached.clear)
        candidates = [way for way in ways.reached if "fan_out._candidates" in way]
        assert len(candidates) == len(indexes), "one request to each index"
        for way in candidates:
            assert way[0] == "retriever.search"
            assert len(way) <= MAX_FUNCTIONS, way


def test_a_search_in_which_everything_is_cached_starts_few_threads_and_sends_few_requests(
    served, qdrant, ways
):
    """On a server, two threads an index: the words are counted, then candidates are searched for.
    One more computes.

    Requests: the number of points, the counts, and the candidates. Another is for what is shown of
    a hit that has the words in its title alone.
    """
    for indexes in (["titles"], ["titles", "comments"]):
        seen: list[int] = []
        search(served, ways, indexes, before=lambda seen=seen: seen.append(len(qdrant.seen)))
        requests = [request.rsplit("/", 1)[-1] for request in qdrant.seen[seen[0] :]]
        assert requests.count("batch") == 2 * len(indexes), requests
        assert len(requests) == 3 * len(indexes), requests
        assert ways.threads == ["concurrency.run"] * (2 * len(indexes) + 1)


def test_a_search_of_the_embedded_store_asks_the_engine_three_times_an_index(
    embedded, ways, monkeypatch
):
    """Its aliases are read for each search, which takes a thread, and no call of the engine."""
    asked, ask = [], ShardFolder.ask
    monkeypatch.setattr(
        ShardFolder, "ask", lambda self, call: asked.append(self.name) or ask(self, call)
    )
    for indexes in (["titles"], ["titles", "comments"]):
        search(embedded, ways, indexes, before=asked.clear)
        assert len(asked) == 3 * len(indexes)
        assert ways.threads == ["concurrency.run"] * (2 * len(indexes) + 2)


def test_an_index_with_a_quick_model_does_not_wait_for_a_slow_one(blank, monkeypatch):
    """The slow one needs until the other index has been searched."""
    blank.fill({"comments": DESK["comments"]})
    blank.write(extra=f"{PATIENT}\n[embedder]\ndimensions = 64")
    blank.fill({"titles": DESK["titles"]})
    is_searched, waited = threading.Event(), list[bool]()
    candidates = FanOut._candidates

    def slowly(self, live, text):
        if live.identity.dimension == 64:
            waited.append(is_searched.wait(30))
        return np.ones(live.identity.dimension, dtype=np.float32)

    def watched(self, asked, answer, vector):
        found = candidates(self, asked, answer, vector)
        if answer.index == "comments":
            is_searched.set()
        return found

    monkeypatch.setattr(QueryModel, "embed", slowly)
    monkeypatch.setattr(FanOut, "_candidates", watched)
    with blank.retriever() as retriever:
        result = retriever.search_sync(QUERY, indexes=["titles", "comments"])
    assert waited == [True]
    assert {hit.index for hit in result.hits} == {"titles", "comments"}
    assert result.fusion == "rank"


def test_by_words_alone_documents_without_a_word_are_not_listed(blank, monkeypatch):
    """No embedder answers, and meaning has no weight. With one, what is near is listed, too."""
    blank.fill()
    with blank.retriever() as retriever:
        both = retriever.search_sync("offline", indexes=["comments"], dense_weight=0)

    def fail(*_):
        raise EmbedderUnavailable("it is away")

    monkeypatch.setattr(QueryModel, "embed", fail)
    with blank.retriever() as retriever:
        worded = retriever.search_sync("offline", indexes=["comments"], dense_weight=0)
        with pytest.raises(EmbedderUnavailable, match="it is away"):
            retriever.search_sync("offline", indexes=["comments"])
    assert [hit.document_id for hit in worded.hits] == ["1"]
    assert worded.hits[0].bm25 == pytest.approx(both.hits[0].bm25, rel=1e-6)
    assert both.hits[0].document_id == "1"
    assert len(both.hits) == 3
    assert (
        "comments was searched by words alone, since its embedder fails: it is away"
        in worded.missing
    )


def test_the_bm25_of_a_hit_has_the_document_frequencies_of_all_indexes(full):
    """Whatever one index alone would say of its words."""
    encoder, names = Bm25Encoder(Bm25Model("english")), list(DESK)
    texts = {(name, str(row[0])): row[1] for name in names for row in DESK[name]}
    vectors = {key: encoder.documents([text]).row(0) for key, text in texts.items()}
    with full.retriever() as retriever:
        hits = retriever.search_sync(QUERY, indexes=names).hits
    for hit in hits:
        own = vectors[hit.index, hit.document_id]
        expected = 0.0
        for word in encoder.query(QUERY).indices:
            having = sum(word in vector.indices for vector in vectors.values())
            idf = math.log((len(texts) - having + 0.5) / (having + 0.5) + 1)
            expected += idf * dict(zip(own.indices, own.values, strict=True)).get(word, 0.0)
        assert hit.bm25 == pytest.approx(expected, rel=1e-4), hit.document_id
    assert len([hit for hit in hits if hit.bm25]) >= 4
