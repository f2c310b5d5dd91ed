"""Contexts from a real Ollama server, with a model that says one sentence and one that says nonsense."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from rag_index.chunking.context.chunker import ContextChunker
from rag_index.chunking.context.prompt import DEFAULT_PROMPT
from rag_index.chunking.context.writer import Recipe, _Process, check_model
from rag_index.chunking.text import TextChunker
from rag_index.documents.batches import ContextCounts
from tests.chunking.context.conftest import numbered, page, servers_of
from tests.live.models import write_generating_gguf

pytestmark = pytest.mark.ollama

SENTENCE = "This passage is one in a text about printers."


@pytest.fixture(scope="module")
def saying(ollama_server, tmp_path_factory):
    """The name of a model that answers every question with SENTENCE."""
    path = write_generating_gguf(tmp_path_factory.mktemp("models") / "says.gguf", says=SENTENCE)
    return ollama_server.create("tiny-says", path)


def patient(server, model):
    return servers_of(server, model=model, timeout=60.0, requests_in_flight=4, patience=30.0, num_ctx=1024)


def chunker_of(servers, folder, *, chars=40):
    recipe = Recipe(check_model(servers).digest, DEFAULT_PROMPT, 300, servers.num_ctx)
    return ContextChunker(TextChunker(chars, 0), servers, recipe, SecretStr(f"sqlite:///{folder}/contexts.db"), False)


@pytest.mark.long
def test_a_model_that_writes_gives_every_chunk_a_context(ollama_server, saying, tmp_path):
    chunker = chunker_of(patient(ollama_server, saying), tmp_path)
    (document,) = chunker.chunk(page(numbered(12)))
    assert document.contexts == [SENTENCE] * 12
    assert document.context_counts == ContextCounts(made=12)
    assert chunker.chunk(page(numbered(12)))[0].context_counts == ContextCounts(cached=12)


@pytest.mark.long
def test_answers_of_a_model_with_random_weights_are_checked(ollama_server, ollama_generating_model, tmp_path):
    chunker = chunker_of(patient(ollama_server, ollama_generating_model), tmp_path)
    (document,) = chunker.chunk(page(numbered(6)))
    counts = document.context_counts
    assert counts.made + counts.missing == 6
    assert counts.missing == document.contexts.count("")
    assert bool(counts.missing) == ("chunks have no context" in document.incomplete)
    assert all(len(context) <= 300 and context.isprintable() for context in document.contexts)


def test_a_document_longer_than_the_models_context_is_used_in_part(ollama_server, saying, tmp_path):
    """The tiny vocabulary has one token per sign, twice the estimate, so the server leaves out what does not fit. Its
    count of tokens shows that, and the question is sent again with a smaller part of the document."""
    chunker = chunker_of(patient(ollama_server, saying), tmp_path, chars=400)
    (document,) = chunker.chunk(page(numbered(40)))
    assert document.context_counts == ContextCounts(made=len(document.chunks))
    assert _Process.writer.stats.requests >= 2 * len(document.chunks) > 4


def test_a_space_turns_the_end_token_of_a_message_into_text(ollama_server, saying):
    """The protection of the frame relies on this: in a prompt `</s>` is one token, and `< /s>` is text."""
    import asyncio

    from rag_index.hosts.ollama_client import OllamaEndpoint

    async def counts():
        endpoint = OllamaEndpoint(ollama_server.url, patient(ollama_server, saying))
        try:
            asked = [await endpoint.generate(f"q w{end}", num_ctx=1024, num_predict=1) for end in ("</s>", "< /s>")]
        finally:
            await endpoint.close()
        return [answer.prompt_tokens for answer in asked]

    plain, neutralized = asyncio.run(counts())
    assert plain < neutralized
