"""Fixtures over real servers, for all tests: `pytest_plugins = ["tests.live.fixtures"]`."""

from pathlib import Path

import pytest

from tests.live.mariadb import mariadb
from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import (
    USUAL_ADDRESS,
    OllamaServer,
    RunningOllama,
    answers,
    find_ollama,
)
from tests.live.pooler import pooled
from tests.live.postgres import postgres

__all__ = ["mariadb", "pooled", "postgres", "ollama_model", "ollama_program", "ollama_server"]


@pytest.fixture(scope="session")
def ollama_program():
    """The program of Ollama, for tests that stop a server or give a model the name of a real one;
    else they skip."""
    found = find_ollama()
    if not isinstance(found, Path):
        running = (
            f" (tests do not stop the server at {USUAL_ADDRESS})" if answers(USUAL_ADDRESS) else ""
        )
        pytest.skip(f"{found}{running}")
    return found


@pytest.fixture(scope="session")
def ollama_server(tmp_path_factory):
    """A server of the tests, or else the one that runs at Ollama's usual address; without either,
    tests skip."""
    program = find_ollama()
    if isinstance(program, Path):
        with OllamaServer(program, tmp_path_factory.mktemp("ollama")) as server:
            yield server
    elif answers(USUAL_ADDRESS):
        with RunningOllama() as server:
            yield server
    else:
        pytest.skip(program)


@pytest.fixture(scope="session")
def ollama_model(ollama_server, tmp_path_factory):
    """The name of a tiny embedding model (64-d, 2,048 tokens of context) on `ollama_server`."""
    return ollama_server.create(
        "tiny-embed", write_embedding_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    )
