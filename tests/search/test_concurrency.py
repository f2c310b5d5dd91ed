"""Calls wait for threads, callers take turns, and each vector of a query is made once, by one
thread."""

import asyncio
import threading
from contextlib import ExitStack, closing, suppress

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.settings import EmbedderSettings, IndexSettings, Settings, SourceSettings
from rag_index.errors import SearchBusy, SearchTimedOut, StoreError
from rag_index.search.concurrency import Deadline, Places, StoreThreads
from rag_index.search.live_collections import LiveCollection
from rag_index.search.query_model import QueryVectors
from tests.waiting import eventually


@pytest.fixture
def one_thread():
    """A lane of one thread."""
    threads = StoreThreads(StopIteration, {"lane": 1})
    yield threads
    threads.close()


def run_while_busy(threads, main):
    """Run `main(done)` in an event loop while the thread of the lane works, until `done` is set."""
    begun, done = threading.Event(), threading.Event()

    async def busy():
        working = asyncio.ensure_future(
            threads.run("lane", Deadline.after(60), lambda: begun.set() or done.wait(30))
        )
        await asyncio.to_thread(begun.wait, 30)
        try:
            await main(done)
        finally:
            done.set()
            await working

    asyncio.run(busy())


def test_a_call_whose_turn_has_not_come_is_given_up(one_thread):
    run, begun = one_thread.run, []

    async def main(done):
        waiting = asyncio.ensure_future(run("lane", Deadline.after(30), begun.append, "cancelled"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(SearchBusy, match="for its turn"):
            await run("lane", Deadline.after(0.01), begun.append, "late")
        with pytest.raises(SearchTimedOut, match=r"after 0\.01 s"):
            await run("another lane", Deadline.after(0.01), done.wait, 30)
        with pytest.raises(SearchBusy):  # what nobody waits for keeps its thread until it ends
            await run("another lane", Deadline.after(0.01), begun.append, "too many")
        done.set()
        await run("lane", Deadline.after(30), begun.append, "last")
        await run("another lane", Deadline.after(30), begun.append, "last there")

    run_while_busy(one_thread, main)
    assert begun == ["last", "last there"]


def test_a_store_that_is_closed_is_asked_no_more(one_thread):
    one_thread.close()
    with pytest.raises(StoreError, match="closed"), one_thread.store():
        pass


def test_a_caller_who_asks_much_is_one_call_ahead_of_others(one_thread):
    places, order, calls = Places(100), [], []

    async def main(done):
        for caller in ["ann"] * 5 + ["bo"] * 2 + ["kim"]:
            with places.take(caller):
                calls.append(
                    asyncio.create_task(
                        one_thread.run("lane", Deadline.after(30), order.append, caller)
                    )
                )
                await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*calls)

    run_while_busy(one_thread, main)
    assert order == ["ann", "bo", "kim", "ann", "bo", "ann", "ann", "ann"]


def test_one_caller_has_a_share_of_the_places():
    places, fitting = Places(8), ""
    with ExitStack() as held:
        for caller in "aaabcdefghi":
            with suppress(SearchBusy):
                held.enter_context(places.take(caller))
                fitting += caller
        assert fitting == "aabcdefg", "two of one caller, eight of all"
        with pytest.raises(SearchBusy), places.take("z"):
            pass
    with ExitStack() as again:  # each has given back what it had
        for number in range(8):
            again.enter_context(places.take(str(number)))


class Gated:
    """A model that works once its gate is open, and notes which queries it got."""

    def __init__(self, inner):
        self.identity, self.embed, self.close = inner.identity, inner.embed_queries, bool
        self.gate, self.asked, self.busy = threading.Event(), [], False

    def embed_queries(self, texts):
        assert not self.busy, "two threads in a model that is not thread-safe"
        self.busy = True
        self.asked += texts
        self.gate.wait(60)
        self.busy = False
        return self.embed(texts)


def test_each_query_has_its_own_vector_by_one_thread_and_once():
    local, registry = LocalEmbedder(EmbedderSettings()), CollectorRegistry()
    texts, model = [f"printer {number}" for number in range(20)], Gated(local)
    identity = model.identity()
    live = LiveCollection("notes", "notes__1", identity.fingerprint, str(identity), identity)
    index = IndexSettings(name="notes", table="note", key="id", text="body")
    settings = Settings(source=SourceSettings(url="sqlite:///source.db"), indexes=[index])

    async def main():
        tasks = [asyncio.create_task(vectors.get(live, text, Deadline.after(60))) for text in texts]
        await asyncio.to_thread(eventually, lambda: model.asked)
        model.gate.set()
        found = await asyncio.gather(*tasks)
        again = [await vectors.get(live, text, Deadline.after(60)) for text in texts]
        assert all(kept is made for kept, made in zip(again, found, strict=True))
        counted = [
            registry.get_sample_value(f"rag_index_query_{one}_total")
            for one in ("vectors", "embeds")
        ]
        assert counted == [2 * len(texts), len(texts)]
        return found

    threads = StoreThreads(StopIteration, {})
    with (
        closing(threads),
        closing(
            QueryVectors(settings, registry, threads, opener=lambda *_, **__: model)
        ) as vectors,
    ):
        found = asyncio.run(main())
    assert model.asked == texts
    for text, vector in zip(texts, found, strict=True):
        assert np.array_equal(vector, local.embed_query(text))
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1
    local.close()
