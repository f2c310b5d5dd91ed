"""Contexts from a real Ollama server, with a model that answers every question with one
sentence."""

import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from rag_index.components.chunking.context import ContextChunker, check_model
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.ledger import Ledger
from tests.components.chunking.context.conftest import numbered, page, servers_of
from tests.live.models import write_generating_gguf


@pytest.mark.ollama
@pytest.mark.long
def test_a_document_gets_contexts(ollama_server, tmp_path):
    path = write_generating_gguf(
        tmp_path / "says.gguf", "This passage is one in a text about printers."
    )
    model = ollama_server.create("tiny-says", path)
    servers = servers_of(ollama_server, model=model, timeout=60.0, requests_in_flight=4)
    Ledger(make_url(ledger := f"sqlite:///{tmp_path}/ledger.db")).close()
    chunker = ContextChunker(TextChunker(40, 0), servers, check_model(servers), SecretStr(ledger))
    assert chunker.chunk(page(numbered(4)))[0].incomplete == ""
