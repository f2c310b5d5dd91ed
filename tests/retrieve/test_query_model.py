"""Queries for a model in the process: embedded together by one thread, and one bad query fails alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from rag_index.embedders.local import LocalEmbedder
from rag_index.errors import EmbedderUnavailable, TextRefused
from rag_index.retrieve.live import LiveCollection
from rag_index.retrieve.query_model import MAX_QUERIES, QueryEmbedders
from rag_index.settings import EmbedderSettings
from tests.waiting import eventually

TEXTS = [f"printer {number}" for number in range(20)]
SETTINGS = EmbedderSettings()


@pytest.fixture(scope="module")
def local():
    embedder = LocalEmbedder(SETTINGS)
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def live(local):
    identity = local.identity()
    return LiveCollection("notes", "notes__1", identity.fingerprint, str(identity), identity)


@dataclass
class Gated:
    """A model that works once its gate is open, and notes which queries it got together."""

    inner: LocalEmbedder
    gate: threading.Event = field(default_factory=threading.Event)
    arrays: list[list[str]] = field(default_factory=list)

    def identity(self):
        return self.inner.identity()

    def embed_queries(self, texts):
        self.arrays.append(list(texts))
        self.gate.wait(60)
        return self.inner.embed_queries(texts)

    def close(self):
        pass


class Fragile(Gated):
    """A model that raises, whatever else is in the array."""

    def embed_queries(self, texts):
        self.arrays.append(list(texts))
        if any("bad" in text for text in texts):
            raise TextRefused("a bad text")
        return self.inner.embed_queries(texts)


@pytest.fixture
def opened():
    """Embedders of one model, and the model."""
    made = []

    def make(model):
        made.append(QueryEmbedders(SETTINGS, opener=lambda *_, **__: model))
        return made[-1]

    yield make
    for embedders in made:
        embedders.close()


def started(embedders, model, live):
    """Submit a query, and return its future when the model works on it."""
    first = embedders.submit(live, "first")
    eventually(lambda: model.arrays)
    return first


def test_queries_that_wait_are_embedded_together_and_have_the_vectors_of_single_ones(opened, local, live):
    model = Gated(local)
    embedders = opened(model)
    first = started(embedders, model, live)
    futures = [embedders.submit(live, text) for text in TEXTS]
    model.gate.set()
    for text, future in zip(["first", *TEXTS], [first, *futures], strict=True):
        assert np.array_equal(future.result(30), local.embed_query(text))
    assert model.arrays == [["first"], TEXTS]


def test_arrays_are_bounded(opened, local, live):
    model = Gated(local)
    embedders = opened(model)
    first = started(embedders, model, live)
    futures = [embedders.submit(live, f"printer {number}") for number in range(3 * MAX_QUERIES + 1)]
    model.gate.set()
    for future in (first, *futures):
        future.result(30)
    assert list(map(len, model.arrays)) == [1, MAX_QUERIES, MAX_QUERIES, MAX_QUERIES, 1]


@pytest.mark.parametrize("kind", [LocalEmbedder, Fragile])
def test_a_bad_query_fails_alone(opened, local, live, kind):
    """Whether the model returns the error or raises it."""
    bad = "bad \ud800"
    model = Gated(local) if kind is LocalEmbedder else Fragile(local)
    embedders = opened(model)
    futures = [embedders.submit(live, text) for text in (*TEXTS[:10], bad, *TEXTS[10:])]
    model.gate.set()
    with pytest.raises(TextRefused):
        futures.pop(10).result(30)
    for text, future in zip(TEXTS, futures, strict=True):
        assert np.array_equal(future.result(30), local.embed_query(text))


def test_a_model_that_is_not_there_fails_all_and_is_opened_again(opened, local, live):
    class Absent(Gated):
        def embed_queries(self, texts):
            found = super().embed_queries(texts)
            if len(self.arrays) <= 2:
                raise EmbedderUnavailable("not there")
            return found

    model = Absent(local)
    embedders = opened(model)
    first = started(embedders, model, live)
    futures = [embedders.submit(live, text) for text in TEXTS]
    model.gate.set()
    for future in (first, *futures):
        with pytest.raises(EmbedderUnavailable, match="not there"):
            future.result(30)
    assert embedders.submit(live, "again").result(30).shape == (256,)
