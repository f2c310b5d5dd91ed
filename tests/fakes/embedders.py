"""Fixtures: a fake Ollama server, and embedders that use such servers and are closed at the end."""

import asyncio
import time

import pytest

from rag_index.components.embedders.servers import ServerEmbedder
from rag_index.components.hosts.host_pool import Clock
from rag_index.core.settings import EmbedderSettings
from tests.fakes.ollama import FakeOllama

FAST = Clock(now=lambda: time.monotonic() * 10, sleep=lambda seconds: asyncio.sleep(seconds / 10))
"""A clock with which pauses take a tenth of their time. Requests take as long as ever."""


@pytest.fixture
def server():
    with FakeOllama() as fake:
        yield fake


@pytest.fixture
def make_embedder():
    """Return a function that opens an embedder of fake servers, by default without waiting for recovery."""
    made = []

    def make(*servers, kind="ollama", expected=None, clock=None, patience=0.0, **settings):
        given = {"model": servers[0].model, "timeout": 30.0, "batch_texts": 16} | settings
        hosts = [server.url + "/v1" * (kind == "openai") for server in servers]
        settings = EmbedderSettings(kind=kind, hosts=hosts, **given)
        made.append(ServerEmbedder(settings, expected=expected, clock=clock, patience=patience))
        return made[-1]

    yield make
    for embedder in made:
        embedder.close()
