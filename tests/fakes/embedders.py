"""Fixtures: a fake Ollama server, and embedders that use such servers and are closed at the end."""

import pytest

from rag_index.components.embedders.servers import ServerEmbedder
from rag_index.core.settings import EmbedderSettings
from tests.fakes.ollama import FakeOllama


@pytest.fixture
def short_rests(monkeypatch):
    """Let servers rest for a fraction of the usual time."""
    monkeypatch.setattr("rag_index.components.hosts.host.FIRST_REST", 0.02)


@pytest.fixture
def server():
    with FakeOllama() as fake:
        yield fake


@pytest.fixture
def make_embedder():
    """Return a function that opens an embedder of fake servers, by default without waiting for
    recovery."""
    made = []

    def make(*servers, kind="ollama", expected=None, patience=0.0, **settings):
        given = {"model": servers[0].model, "timeout": 30.0, "batch_texts": 16} | settings
        hosts = [server.url + "/v1" * (kind == "openai") for server in servers]
        settings = EmbedderSettings(kind=kind, hosts=hosts, **given)
        made.append(ServerEmbedder(settings, expected=expected, patience=patience))
        return made[-1]

    yield make
    for embedder in made:
        embedder.close()
