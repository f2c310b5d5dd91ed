"""Contexts from a real Ollama server, with a model that says one sentence and one that says nonsense."""

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from rag_index.components.chunking.context import ContextChunker
from rag_index.components.chunking.context.writer import DEFAULT_PROMPT, Recipe, check_model, process_writer
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.hosts.clients import OllamaEndpoint
from rag_index.components.ledger import Ledger
from rag_index.core.documents.batches import ContextCounts
from tests.chunking.context.conftest import numbered, page, servers_of
from tests.live.models import write_generating_gguf

pytestmark = pytest.mark.ollama

SENTENCE = "This passage is one in a text about printers."


@pytest.fixture(scope="module")
def saying(ollama_server, tmp_path_factory):
    """The name of a model that answers every question with SENTENCE."""
    path = write_generating_gguf(tmp_path_factory.mktemp("models") / "says.gguf", SENTENCE)
    return ollama_server.create("tiny-says", path)


def patient(server, model):
    return servers_of(server, model=model, timeout=60.0, requests_in_flight=4)


def chunker_of(servers, folder, *, chars=40):
    recipe = Recipe(check_model(servers, 1024).digest, DEFAULT_PROMPT, 300, 1024)
    Ledger(make_url(ledger := f"sqlite:///{folder}/ledger.db")).close()
    return ContextChunker(TextChunker(chars, 0), servers, recipe, SecretStr(ledger), False)


@pytest.mark.long
def test_a_document_longer_than_the_models_context_is_used_in_part(ollama_server, saying, tmp_path):
    """The tiny vocabulary has one token per sign, twice the estimate, so the server leaves out what does not fit. Its
    count of tokens shows that, and the question is sent again with a smaller part of the document."""
    chunker = chunker_of(patient(ollama_server, saying), tmp_path, chars=400)
    (document,) = chunker.chunk(page(numbered(40)))
    assert document.contexts == [SENTENCE] * len(document.chunks)
    assert document.context_counts == ContextCounts(made=len(document.chunks))
    writer = process_writer(chunker.servers, chunker.recipe, chunker.ledger)
    assert writer.hosts.stats.requests >= 2 * len(document.chunks) > 4


def test_a_space_turns_the_end_token_of_a_message_into_text(ollama_server, saying):
    """The protection of the frame relies on this: in a prompt `</s>` is one token, and `< /s>` is text."""

    async def counts():
        endpoint = OllamaEndpoint(ollama_server.url, patient(ollama_server, saying))
        try:
            asked = [await endpoint.generate(f"q w{end}", num_ctx=1024, num_predict=1) for end in ("</s>", "< /s>")]
        finally:
            await endpoint.close()
        return [answer.prompt_tokens for answer in asked]

    plain, neutralized = asyncio.run(counts())
    assert plain < neutralized
