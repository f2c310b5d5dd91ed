"""Vectors of queries: made once, by one thread where the model is in the process, and kept."""

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.settings import EmbedderSettings, IndexSettings, Settings, SourceSettings
from rag_index.search.concurrency import Deadline, StoreThreads
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


def test_each_query_has_its_own_vector_by_one_thread_and_once(opened, local, live):
    model = Gated(local)

    async def main():
        vectors = opened(model)
        tasks = [asyncio.create_task(vectors.get(live, text, Deadline.after(60))) for text in TEXTS]
        await asyncio.to_thread(eventually, lambda: model.asked)
        model.gate.set()
        found = await asyncio.gather(*tasks)
        again = [await vectors.get(live, text, Deadline.after(60)) for text in TEXTS]
        assert all(kept is made for kept, made in zip(again, found, strict=True))
        assert (counted(vectors, "vectors"), counted(vectors, "embeds")) == (2 * len(TEXTS), len(TEXTS))
        return found

    for text, vector in zip(TEXTS, asyncio.run(main()), strict=True):
        assert np.array_equal(vector, local.embed_query(text))
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1
    assert model.asked == TEXTS
