"""The Ollama embedder with a real Ollama server."""

import hashlib
import threading
from contextlib import closing

import numpy as np
import psutil
import pytest

from rag_index.components.embedders import identify, open_embedder
from rag_index.components.embedders.servers import ServerEmbedder
from rag_index.core.settings import EmbedderSettings
from rag_index.core.settings.parts import known_prompts
from rag_index.errors import ModelChanged, ModelMissing, TextTooLong
from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import OllamaServer

pytestmark = pytest.mark.ollama

TEXTS = [f"document {number} about printers " + "and paper " * (number % 9) for number in range(60)]


@pytest.fixture
def embedder(ollama_server, ollama_model):
    with closing(open_embedder(settings_for(ollama_server, ollama_model))) as embedder:
        yield embedder


def settings_for(server, model="tiny-embed"):
    """Return settings with one thread, since Ollama's threads wait much longer for each other in
    parallel test runs."""
    return EmbedderSettings(
        kind="ollama", model=model, hosts=[server.url], num_thread=1, batch_texts=16
    )


def test_identity(embedder, ollama_model, tmp_path):
    """The digest is that of the weights. It does not depend on who created the model and where."""
    identity = embedder.identity()
    assert (
        identity.digest
        == hashlib.sha256(write_embedding_gguf(tmp_path / "again.gguf").read_bytes()).hexdigest()
    )
    assert (identity.kind, identity.model, identity.dimension) == ("ollama", ollama_model, 64)
    assert embedder._loop.run(embedder._endpoints[0].details()).context_length == 2048


@pytest.mark.parametrize(
    "name", ["qwen3-embedding:0.6b", "hf.co/nomic-ai/nomic-embed-text-v1.5-GGUF:Q8_0", "bge-m3"]
)
def test_texts_get_the_prefixes_of_the_model_that_the_server_calls_by_this_name(
    own_server, tmp_path, name, caplog
):
    """Names of models that a person may have pulled into a server of theirs."""
    settings = settings_for(
        own_server, own_server.create(name, write_embedding_gguf(tmp_path / "same.gguf"))
    )
    identity, (document, query) = identify(settings), known_prompts(name)
    assert (identity.document_prefix, identity.query_prefix) == (document, query)
    assert not [message for message in caplog.messages if "it is not known" in message]
    with closing(open_embedder(settings)) as named:
        vectors = [*named.embed_documents(["the printer"]), named.embed_query("the printer")]
    with closing(open_embedder(settings_for(own_server))) as embedder:
        plain = embedder.embed_documents([f"{document}the printer", f"{query}the printer"])
    assert np.abs(np.array(vectors) - np.array(plain)).max() < 1e-6


def test_a_text_has_the_same_vector_alone_and_in_a_batch(embedder):
    """On CPUs to the last bit. GPUs may differ by a millionth."""
    together = embedder.embed_documents(TEXTS)
    assert all(isinstance(vector, np.ndarray) and vector.dtype == np.float32 for vector in together)
    for row in (0, 1, 37, 59):
        assert np.abs(embedder.embed_documents([TEXTS[row]])[0] - together[row]).max() < 1e-6
    assert np.allclose([np.linalg.norm(vector) for vector in together], 1, atol=1e-5)


def test_queries_together_have_the_vectors_of_single_ones_and_only_a_bad_one_fails(embedder):
    found = embedder.embed_queries([*TEXTS[:30], "word " * 5000, *TEXTS[30:]])
    assert isinstance(found.pop(30), TextTooLong)
    for text, vector in zip(TEXTS, found, strict=True):
        assert np.abs(vector - embedder.embed_query(text)).max() < 1e-6


def test_only_the_text_that_is_too_long_fails(embedder):
    entries = embedder.embed_documents([*TEXTS[:20], "word " * 5000, *TEXTS[20:40]])
    [(row, error)] = [
        (row, entry) for row, entry in enumerate(entries) if isinstance(entry, Exception)
    ]
    assert (row, type(error)) == (20, TextTooLong)
    assert "context length" in str(error)


@pytest.fixture(scope="module")
def own_server(ollama_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    with OllamaServer(ollama_program, folder / "server") as server:
        server.create("tiny-embed", write_embedding_gguf(folder / "tiny.gguf"))
        yield server


def test_a_model_process_that_dies_during_a_request_loses_no_text(own_server):
    embedder = ServerEmbedder(settings_for(own_server), patience=60.0)
    expected = embedder.embed_documents(TEXTS)

    def kill_runner():
        for child in psutil.Process(own_server.pid).children(recursive=True):
            child.kill()

    threading.Timer(0.15, kill_runner).start()
    for row, entry in enumerate(embedder.embed_documents(TEXTS * 10)):
        assert np.abs(entry - expected[row % len(TEXTS)]).max() < 1e-6
    embedder.close()


def test_another_model_under_the_same_name_is_noticed(own_server, tmp_path):
    name = own_server.create("renewed-embed", write_embedding_gguf(tmp_path / "one.gguf"))
    embedder = ServerEmbedder(settings_for(own_server, name))
    identity = embedder.identity()
    own_server.create(name, write_embedding_gguf(tmp_path / "other.gguf", seed=5))
    with pytest.raises(ModelChanged, match=identity.digest[:12]):
        embedder.embed_documents(TEXTS)
    embedder.close()


@pytest.mark.long
def test_its_v1_route_gives_the_same_vectors(ollama_server, ollama_model, embedder):
    """The model is known by a vector there; a model that is missing and shorter vectors are as
    documented."""
    server = {"kind": "openai", "hosts": [ollama_server.url], "batch_texts": 16}
    with closing(open_embedder(EmbedderSettings(model=ollama_model, **server))) as other:
        identity, few = (
            other.identity(),
            TEXTS[:3],
        )  # its threads wait for each other: nobody can ask for one alone
        assert (identity.same_model(other.identity()), identity.dimension) == (True, 64)
        for one, same in zip(
            other.embed_documents(few), embedder.embed_documents(few), strict=True
        ):
            assert np.abs(one - same).max() < 1e-6
        assert isinstance(other.embed_documents(["word " * 5000])[0], np.ndarray), (
            "it no longer cuts texts silently"
        )
    with closing(
        open_embedder(EmbedderSettings(model=ollama_model, dimensions=16, **server))
    ) as short:
        first, whole = short.embed_query("a printer"), embedder.embed_query("a printer")[:16]
        assert np.abs(first - whole / np.linalg.norm(whole)).max() < 1e-6
    with (
        closing(open_embedder(EmbedderSettings(model="no-such-model", **server))) as missing,
        pytest.raises(ModelMissing, match="no model 'no-such-model'"),
    ):
        missing.identity()
