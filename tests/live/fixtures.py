"""Fixtures over real servers, for all tests: `pytest_plugins = ["tests.live.fixtures"]`."""

from pathlib import Path

import pytest

from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import OllamaServer, find_ollama
from tests.live.pooler import pooled
from tests.live.postgres import postgres

__all__ = ["pooled", "postgres", "ollama_model", "ollama_program", "ollama_server"]


@pytest.fixture(scope="session")
def ollama_program():
    """The ollama program; tests that need it are skipped if it is not found and cannot be built."""
    found = find_ollama()
    if not isinstance(found, Path):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def ollama_server(ollama_program, tmp_path_factory):
    """A running server without models; a test that stops it starts it again."""
    with OllamaServer(ollama_program, tmp_path_factory.mktemp("ollama")) as server:
        yield server


@pytest.fixture(scope="session")
def ollama_model(ollama_server, tmp_path_factory):
    """The name of a tiny embedding model (64-d, 2,048 tokens of context) on `ollama_server`."""
    path = write_embedding_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    return ollama_server.create("tiny-embed", path)
