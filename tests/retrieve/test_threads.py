"""From threads, from running event loops, from several loops: the same answers, and vectors equal to the last bit."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from rag_index.embedders import open_embedder
from rag_index.embedders.local import LocalEmbedder
from rag_index.retrieve.live import LiveCollection
from rag_index.retrieve.query_model import QueryEmbedders
from rag_index.settings import EmbedderSettings
from tests.retrieve.desk import Desk, found


@pytest.fixture(scope="module")
def desk(tmp_path_factory, template):
    return Desk(tmp_path_factory.mktemp("desk"), template=template).fill()


@pytest.fixture(scope="module")
def retriever(desk):
    with desk.retriever() as retriever:
        yield retriever


def test_inside_a_running_event_loop(retriever):
    """There asyncio.run and run_until_complete raise RuntimeError."""

    async def handler():
        in_between = found(retriever.search_sync("printer"))
        return in_between, found(await retriever.search("printer"))

    one, other = asyncio.run(handler())
    assert one == other


def test_from_several_loops_at_once(retriever):
    async def main():
        return [found(await retriever.search(f"printer {n % 3}")) for n in range(9)]

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: asyncio.run(main()), range(4)))
    assert all(answer == answers[0] for answer in answers)


def test_one_thread_serves_all_synchronous_callers(retriever):
    retriever.search_sync("printer")

    def loops():
        return [thread for thread in threading.enumerate() if thread.name == "rag-index-search"]

    before = loops()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: retriever.search_sync("printer"), range(32)))
    assert set(loops()) <= set(before)


def test_a_cancelled_search_leaves_nothing_behind(retriever):
    async def main():
        task = asyncio.ensure_future(retriever.search("a text that nobody asked for before"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return found(await retriever.search("printer"))

    assert asyncio.run(main()) == found(retriever.search_sync("printer"))


# Vectors


class ThreadUnsafe(LocalEmbedder):
    """An embedder that fails if two threads use it at once."""

    inside = 0

    def embed_queries(self, texts):
        type(self).inside += 1
        try:
            assert type(self).inside == 1, "two threads in a model that is not thread-safe"
            time.sleep(0.001)
            return super().embed_queries(texts)
        finally:
            type(self).inside -= 1


def test_equal_vectors_from_sixteen_threads():
    settings = EmbedderSettings()
    with closing(open_embedder(settings)) as embedder:
        identity = embedder.identity()
        texts = [f"printer {n} on floor {n % 7} prints blank pages" for n in range(40)]
        expected = [embedder.embed_query(text) for text in texts]
    live = LiveCollection("notes", "notes__1", identity.fingerprint, str(identity), identity)
    embedders = QueryEmbedders(settings, opener=lambda settings, expected: ThreadUnsafe(settings))
    wrong = []

    def work(seed):
        for row in np.random.default_rng(seed).permutation(40):
            vector = embedders.submit(live, texts[row]).result(30)
            if not np.array_equal(vector, expected[row]):
                wrong.append(row)
            with pytest.raises(ValueError, match="read-only"):
                vector[0] = 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    assert not wrong
    embedders.close()
    with pytest.raises(Exception, match="closed"):
        embedders.submit(live, "printer")
