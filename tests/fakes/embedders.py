"""Fixtures: a fake Ollama server, and embedders that use such servers and are closed at the end."""

from __future__ import annotations

import asyncio
import time

import pytest

from rag_index.embedders.servers import ServerEmbedder
from rag_index.hosts.pool import Clock
from rag_index.settings import EmbedderSettings
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

    def make(*servers, home=0, workers=1, expected=None, clock=None, **settings):
        given = {"model": servers[0].model, "timeout": 30.0, "wait_for_recovery": 0.0, "batch_texts": 16} | settings
        embedder = ServerEmbedder(
            EmbedderSettings(kind="ollama", hosts=[server.url for server in servers], **given),
            home=home,
            workers=workers,
            expected=expected,
            clock=clock,
        )
        made.append(embedder)
        return embedder

    yield make
    for embedder in made:
        embedder.close()
