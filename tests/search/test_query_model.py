"""Vectors of queries: made once, by one thread where the model is in the process, and kept."""

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.settings import EmbedderSettings, IndexSettings, Settings, SourceSettings
from rag_index.errors import EmbedderUnavailable
from rag_index.search.concurrency import StoreThreads
from rag_index.search.live_collections import LiveCollection
from rag_index.search.query_model import QueryVectors
from tests.waiting import eventually

TEXTS = [f"printer {number}" for number in range(20)]


@pytest.fixture(scope="module")
def local():
    embedder = LocalEmbedder(EmbedderSettings())
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def live(local):
    identity = local.identity()
    return LiveCollection("notes", "notes__1", identity.fingerprint, str(identity), identity)


@dataclass
class Gated:
    """A model that works once its gate is open, and notes which queries it got."""

    inner: LocalEmbedder
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    busy: bool = False

    def identity(self):
        return self.inner.identity()

    def embed_queries(self, texts):
        assert not self.busy, "two threads in a model that is not thread-safe"
        self.busy = True
        self.asked += texts
        self.gate.wait(60)
        self.busy = False
        return self.inner.embed_queries(texts)

    def close(self):
        pass


@pytest.fixture
def opened():
    """Vectors of one model."""
    made, threads = [], StoreThreads(StopIteration, {})

    def make(model):
        settings = Settings(
            source=SourceSettings(url="sqlite:///source.db"),
            indexes=[IndexSettings(name="notes", table="note", key="id", text="body")],
        )
        made.append(QueryVectors(settings, CollectorRegistry(), threads, opener=lambda *_, **__: model))
        return made[-1]

    yield make
    for vectors in made:
        vectors.close()
    threads.close()


def counted(vectors, what):
    return {"vectors": vectors._asked, "embeds": vectors._made}[what]._value.get()


async def started(vectors, model, live, texts):
    """Ask for a first vector, and for others once the model works on that; return the tasks, and open the gate."""
    tasks = [asyncio.create_task(vectors.get(live, "first"))]
    await asyncio.to_thread(eventually, lambda: model.asked)
    tasks += [asyncio.create_task(vectors.get(live, text)) for text in texts]
    await asyncio.to_thread(eventually, lambda: counted(vectors, "vectors") == len(tasks))
    return tasks


def test_each_query_has_its_own_vector_by_one_thread(opened, local, live):
    model = Gated(local)

    async def main():
        tasks = await started(opened(model), model, live, TEXTS)
        model.gate.set()
        return await asyncio.gather(*tasks)

    for text, vector in zip(["first", *TEXTS], asyncio.run(main()), strict=True):
        assert np.array_equal(vector, local.embed_query(text))
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1
    assert model.asked == ["first", *TEXTS]


def test_equal_queries_are_embedded_once_and_one_that_nobody_waits_for_is_not(opened, local, live):
    model = Gated(local)

    async def main():
        vectors = opened(model)
        first, *tasks, left, abandoned = await started(vectors, model, live, [*["same"] * 4, "given up"])
        for task in (left, abandoned):
            task.cancel()
        await asyncio.wait([left, abandoned])
        model.gate.set()
        found = await asyncio.gather(first, *tasks)
        assert all(vector is found[1] for vector in found[1:])
        assert await vectors.get(live, "same") is found[1]
        assert (await vectors.get(live, "given up")).shape == (256,), "asked for again, it is made"
        assert (counted(vectors, "vectors"), counted(vectors, "embeds")) == (8, 4)

    asyncio.run(main())
    assert model.asked == ["first", "same", "given up"]


def test_a_query_that_comes_after_the_end_opens_no_model(opened, local, live):
    model, made = Gated(local), []
    model.gate.set()
    vectors = opened(model)
    asyncio.run(vectors.get(live, "first"))
    [used] = vectors._models.values()
    vectors.close()
    used._opener = made.append
    with pytest.raises(EmbedderUnavailable, match="closed"):
        asyncio.run(vectors.get(live, "late"))
    with pytest.raises(EmbedderUnavailable, match="closed"):
        used.embed(live, "late")
    assert not made
