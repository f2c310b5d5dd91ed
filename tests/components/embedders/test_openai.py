"""Embedding by servers that answer POST /v1/embeddings: vectors, limits, keys, and models that have no digest."""

from functools import partial

import numpy as np
import pytest

from rag_index.components.embedders import open_embedder
from rag_index.components.hosts.clients import embeddings_address
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import EmbedderError, EmbedderUnavailable, ModelMissing
from tests.fakes.hosts import assert_own_vectors

TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(50)]


@pytest.fixture
def make(make_embedder):
    """Return a function that opens an embedder of these servers."""
    return partial(make_embedder, kind="openai")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host:8000", "http://host:8000/v1/embeddings"),
        ("http://host:8000/v1", "http://host:8000/v1/embeddings"),
        ("https://host/openai/v1", "https://host/openai/v1/embeddings"),
        ("https://host/v1/embeddings", "https://host/v1/embeddings"),
    ],
)
def test_an_address_may_end_anywhere(url, address):
    assert embeddings_address(url) == address


@pytest.mark.parametrize(
    ("answer", "asked"), [("float32", True), ("refused", False), ("ignored", False), ("float64", False)]
)
def test_vectors_are_asked_for_in_base64_where_the_server_gives_the_same_ones(server, make, answer, asked):
    server.base64 = answer
    embedder = make(server)
    assert embedder.identity().dimension == server.dimension
    server.requests.clear()
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert {"encoding_format" in request.body for request in server.embeds()} == {asked}


def test_the_servers_own_limit_of_texts_is_learnt(server, make):
    """A refusal is needed for each halving, and no more of them afterwards."""
    server.max_texts = 4
    embedder = make(server, requests_in_flight=1)
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    server.requests.clear()
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert max(len(request.texts) for request in server.embeds()) == 4


def test_a_key_is_sent_and_never_shown(server, make, monkeypatch):
    server.api_key = "sk-right"
    with pytest.raises(EmbedderError, match=r"401.*set .embedder. api_key_env"):
        make(server).identity()
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    embedder = make(server, api_key_env="MY_KEY")
    with pytest.raises(EmbedderError, match="correct the key in MY_KEY") as refused:
        embedder.identity()
    assert "sk-wrong" not in str(refused.value)
    monkeypatch.setenv("MY_KEY", "sk-right\n")
    settings = EmbedderSettings(kind="openai", model=server.model, url=server.url, api_key_env="MY_KEY")
    assert "sk-right" not in f"{settings!r} {settings.model_dump_json()}"
    assert_own_vectors(make(server, api_key_env="MY_KEY").embed_documents(TEXTS), TEXTS)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(EmbedderError, match=r"MY_KEY .* is not set"):
        make(server, api_key_env="MY_KEY")


def test_what_is_wrong_is_said_in_words(server, make):
    with pytest.raises(ModelMissing, match=r"no model 'other'.*correct"):
        make(server, model="other").identity()
    server.fault("status", code=404, words="Not Found", html=True)
    with pytest.raises(EmbedderError, match="404: Not Found; is it the embedding server"):
        make(server).identity()
    server.clear()
    server.fault("status", code=301, headers={"Location": "https://elsewhere/v1"})
    with pytest.raises(EmbedderError, match="301: name https://elsewhere/v1"):
        make(server).identity()
    server.stop_listening()
    with pytest.raises(EmbedderUnavailable, match="is the embedding server running there"):
        make(server).identity()


@pytest.mark.parametrize("kind", ["openai", "ollama", "local"])
def test_each_kind_cuts_vectors_to_unit_length(server, kind):
    given = {} if kind == "local" else {"model": server.model, "hosts": [server.url]}
    dimensions = 64 if kind == "local" else 5
    embedder = open_embedder(EmbedderSettings(kind=kind, dimensions=dimensions, **given))
    whole = open_embedder(EmbedderSettings(kind=kind, **given))
    cut = embedder.embed_documents(TEXTS)
    for short, long in zip(cut, whole.embed_documents(TEXTS), strict=True):
        assert short.shape == (dimensions,)
        assert np.allclose(short, long[:dimensions] / np.linalg.norm(long[:dimensions]), atol=1e-6)
    assert embedder.identity().fingerprint != whole.identity().fingerprint
    embedder.close(), whole.close()
