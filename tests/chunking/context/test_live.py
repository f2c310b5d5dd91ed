"""Contexts from a real Ollama: a model that says one sentence, and one that says nonsense, both made from a seed."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from rag_index.chunking.context import ContextChunker, Recipe, Servers
from rag_index.chunking.context.prompt import DEFAULT_PROMPT
from rag_index.chunking.context.service import look
from rag_index.chunking.context.writer import _Process
from rag_index.chunking.text import TextChunker
from rag_index.documents.batches import ContextCounts
from rag_index.errors import EmbedderError, ModelMissing
from tests.chunking.context.conftest import numbered, page
from tests.live.models import write_generating_gguf

pytestmark = pytest.mark.ollama

SENTENCE = "This passage is one in a text about printers."


@pytest.fixture(scope="module")
def saying(ollama_server, tmp_path_factory):
    """The name of a model that says SENTENCE whatever it is asked."""
    path = write_generating_gguf(tmp_path_factory.mktemp("models") / "says.gguf", says=SENTENCE)
    return ollama_server.create("tiny-says", path)


def servers_of(server, model, **given):
    return Servers(
        **{
            "hosts": (server.url,),
            "model": model,
            "timeout": 60.0,
            "keep_alive": "5m",
            "requests_in_flight": 4,
            "num_thread": 1,
            "patience": 30.0,
            "num_ctx": 1024,
            **given,
        }
    )


def chunker_of(servers, folder, *, chars=40):
    recipe = Recipe(look(servers).digest, DEFAULT_PROMPT, 300, servers.num_ctx)
    return ContextChunker(TextChunker(chars, 0), servers, recipe, SecretStr(f"sqlite:///{folder}/contexts.db"), False)


def test_a_model_that_writes_gives_every_chunk_a_context(ollama_server, saying, tmp_path):
    chunker = chunker_of(servers_of(ollama_server, saying), tmp_path)
    (document,) = chunker.chunk(page(numbered(12)))
    assert document.contexts == [SENTENCE] * 12
    assert document.context_counts == ContextCounts(made=12)
    assert chunker.chunk(page(numbered(12)))[0].context_counts == ContextCounts(cached=12)


def test_of_a_model_of_random_weights_whatever_it_says_is_judged(ollama_server, ollama_generating_model, tmp_path):
    chunker = chunker_of(servers_of(ollama_server, ollama_generating_model), tmp_path)
    (document,) = chunker.chunk(page(numbered(6)))
    counts = document.context_counts
    assert counts.made + counts.missing == 6
    assert counts.missing == document.contexts.count("")
    assert bool(counts.missing) == ("chunks have no context" in document.incomplete)
    assert all(len(context) <= 300 and context.isprintable() for context in document.contexts)


def test_a_document_longer_than_the_models_context_is_shown_in_part(ollama_server, saying, tmp_path):
    """The tiny vocabulary takes a token for each sign, twice what is estimated: the server leaves out what has no
    room, which its count shows, and the question is asked again from a smaller part."""
    chunker = chunker_of(servers_of(ollama_server, saying), tmp_path, chars=400)
    (document,) = chunker.chunk(page(numbered(40)))
    assert document.context_counts == ContextCounts(made=len(document.chunks))
    assert _Process.writer.stats.requests >= 2 * len(document.chunks) > 4


def test_what_a_server_takes_for_the_end_of_a_message_is_a_token_less_only_where_it_is_not_in_a_document(
    ollama_server, saying
):
    """The premise of the frame's protection: in a prompt `</s>` is one token, and `< /s>` is text."""
    import asyncio

    from rag_index.hosts.endpoint import Endpoint

    async def counts():
        endpoint = Endpoint(ollama_server.url, servers_of(ollama_server, saying))
        try:
            asked = [await endpoint.generate(f"q w{end}", num_ctx=1024, num_predict=1) for end in ("</s>", "< /s>")]
        finally:
            await endpoint.close()
        return [answer.prompt_tokens for answer in asked]

    as_it_is, as_it_is_sent = asyncio.run(counts())
    assert as_it_is < as_it_is_sent


def test_a_model_that_embeds_and_cannot_write_is_refused(ollama_server, ollama_model):
    with pytest.raises(EmbedderError, match=r"does not support generate.*name another one"):
        look(servers_of(ollama_server, ollama_model))


def test_a_model_that_is_not_there_is_named(ollama_server):
    with pytest.raises(ModelMissing, match="ollama pull no-such-model"):
        look(servers_of(ollama_server, "no-such-model"))
