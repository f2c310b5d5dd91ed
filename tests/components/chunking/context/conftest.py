"""A fake server that writes contexts, chunkers that use it, and documents."""

import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from rag_index.components.chunking import context
from rag_index.components.chunking.context import ContextChunker, Recipe, close_process_writer
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.ledger import Ledger
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.canonical import hash_text
from rag_index.core.settings import EmbedderSettings
from tests.fakes.ollama import FakeOllama


@pytest.fixture(autouse=True)
def no_writer_of_another_test():
    yield
    close_process_writer()


@pytest.fixture
def url(tmp_path):
    """The URL of an empty ledger."""
    url = make_url(f"sqlite:///{tmp_path / 'cache' / 'ledger.db'}")
    Ledger(url).close()
    return url


@pytest.fixture
def server():
    with FakeOllama(model="fake-talk") as fake:
        yield fake


def servers_of(*servers, **given):
    """Return servers that write contexts. They are waited for only if `given` says so."""
    usual = {"model": "fake-talk", "timeout": 5.0, "requests_in_flight": 10}
    return EmbedderSettings(
        kind="ollama", hosts=[server.url for server in servers], **(usual | given)
    )


@pytest.fixture
def make_chunker(url, monkeypatch):
    """Return a function that makes a chunker for servers. It waits for no server unless `given`
    says so."""

    def make(*servers, num_ctx=4096, patience=0.0, **given):
        monkeypatch.setattr(context, "PATIENCE", patience)
        ledger = SecretStr(url.render_as_string(hide_password=False))
        recipe = Recipe(servers[0].digest, num_ctx)
        return ContextChunker(TextChunker(40, 0), servers_of(*servers, **given), recipe, ledger)

    return make


def page(*texts):
    """Return documents with these texts."""
    count = len(texts)
    return DocumentBatch(
        [*map(str, range(count))],
        [*texts],
        [b"{}"] * count,
        [*map(hash_text, texts)],
        [b""] * count,
    )


def numbered(count, what="sentence"):
    """Return a document that is split into `count` chunks of at most 40 characters."""
    return "\n\n".join(f"This is {what} number {number:03} of a text." for number in range(count))
