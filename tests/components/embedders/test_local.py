"""Embedders that run inside the process: WordLlama, and sentence-transformers with a fake of the library."""

import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import wordllama
from hypothesis import example, given
from hypothesis import strategies as st

from rag_index.components.embedders import identify, open_embedder, prefix_warning
from rag_index.components.embedders import sentence_transformers as ours
from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import BadVectors, EmbedderError, ModelMissing, TextRefused, TextTooLong
from tests.fakes.ollama import vector_of

TEXTS = [
    "the printer on the third floor is broken", "nobody can print since this morning", "banana bread with walnuts",
    "word " * 800, "ü – 漢字 \U0001f600", "a",
]  # fmt: skip
BARE = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
BITS = [
    " ", "  ", "\n", "\t", "\u00a0", "\u2581", "<s>", "</s>", "<unk>",
    "<", "Word", "isn't", "e\u0301", "漢字", "👩\u200d💻", "4",
]  # fmt: skip


@pytest.fixture(scope="module")
def embedder():
    return LocalEmbedder(EmbedderSettings())


def test_vectors_equal_those_of_wordllama_to_the_last_bit(embedder):
    expected = BARE.embed(TEXTS, norm=True)
    together = embedder.embed_documents(TEXTS * 300)
    assert np.array_equal(np.stack(together[: len(TEXTS)]), expected)
    assert np.array_equal(np.stack(together[-len(TEXTS) :]), expected)
    for row, text in enumerate(TEXTS):
        assert np.array_equal(embedder.embed_documents([text])[0], expected[row])


@given(st.lists(st.sampled_from(BITS) | st.text(max_size=4), min_size=1).map("".join).filter(bool))
@example("ends with one space ")
@example(" \u2581 <s> ")
def test_words_of_any_kind_equal_those_of_wordllama_to_the_last_bit(embedder, text):
    with np.errstate(invalid="ignore"):
        assert np.array_equal(embedder.embed_documents([text])[0], BARE.embed([text], norm=True)[0])


def test_a_text_without_tokens_fails_alone(embedder):
    entries = embedder.embed_documents(["first", "", "broken \ud800 text", "last"])
    assert isinstance(entries[1], BadVectors)
    assert isinstance(entries[2], TextRefused)
    assert np.array_equal(entries[0], embedder.embed_documents(["first"])[0])
    assert np.array_equal(entries[3], embedder.embed_documents(["last"])[0])
    with pytest.raises(BadVectors, match="nothing but zeros"):
        embedder.embed_query("")


def test_the_identity_is_stable_and_includes_the_prefixes(embedder):
    identity = embedder.identity()
    assert (identity.kind, identity.model, identity.dimension) == ("local", "wordllama", 256)
    assert LocalEmbedder(EmbedderSettings()).identity() == identity
    prefixed = LocalEmbedder(EmbedderSettings(document_prefix="document: ", query_prefix="query: "))
    assert prefixed.identity().fingerprint != identity.fingerprint
    expected = embedder.embed_documents(["document: printer", "query: printer"])
    assert np.array_equal(prefixed.embed_documents(["printer"])[0], expected[0])
    assert np.array_equal(prefixed.embed_query("printer"), expected[1])


class FakeSentenceTransformer:
    """The part of SentenceTransformer that the embedder uses."""

    max_seq_length = 20
    prompts: ClassVar[dict[str, str]] = {"query": "", "document": ""}

    def __init__(self, model: str) -> None:
        if not Path(model).is_dir():
            raise OSError(f"{model} is not a local folder and is not a valid model identifier")

    def eval(self):
        return self

    @staticmethod
    def tokenizer(text, **_):
        text.encode()
        return {"input_ids": text.split()}

    def encode_query(self, texts, **options):
        return self.encode_document([f"{text}?" for text in texts], **options)

    def encode_document(self, texts, *, batch_size, prompt, normalize_embeddings, **_):
        assert batch_size == len(texts)
        assert normalize_embeddings
        texts = [prompt + text for text in texts]
        if any("explode" in text for text in texts):
            raise RuntimeError("out of memory")
        return np.array([vector_of(text) for text in texts], dtype=np.float32)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Return the folder of a model, and install a fake library that loads it."""
    threads = []
    torch = types.SimpleNamespace(set_num_threads=threads.append)
    library = types.SimpleNamespace(SentenceTransformer=FakeSentenceTransformer)
    quiet = types.SimpleNamespace(logging=types.SimpleNamespace(disable_progress_bar=lambda: None))
    for name, fake in {"torch": torch, "transformers.utils": quiet, "sentence_transformers": library}.items():
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(ours, "find_spec", lambda name: object())
    monkeypatch.setattr(FakeSentenceTransformer, "prompts", {"query": "", "document": ""})
    folder = tmp_path / "mini"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "README.md").write_text("read me")
    yield folder
    assert set(threads) <= {1}


def settings(model, **given) -> EmbedderSettings:
    return EmbedderSettings(kind="sentence-transformers", model=str(model), **given)


def test_a_text_that_the_model_would_truncate_is_too_long_with_its_prompt(model, monkeypatch):
    entries = open_embedder(settings(model)).embed_documents(["short", "word " * 21, "word " * 20])
    assert [type(entry) for entry in entries] == [np.ndarray, TextTooLong, np.ndarray]
    assert "21 tokens" in str(entries[1])
    assert "takes 20" in str(entries[1])
    monkeypatch.setattr(FakeSentenceTransformer, "prompts", {"query": "", "document": "tell me: "})
    entries = open_embedder(settings(model)).embed_documents(["word " * 18, "word " * 19])
    assert [type(entry) for entry in entries] == [np.ndarray, TextTooLong], "a prompt counts"


def test_the_identity_depends_on_the_weights_and_not_on_their_folder(model, tmp_path):
    identity = open_embedder(settings(model)).identity()
    assert (identity.kind, identity.model, identity.dimension) == ("sentence-transformers", "mini", 8)
    (model / "README.md").write_text("another")
    moved = model.rename(tmp_path / "elsewhere")
    assert open_embedder(settings(moved)).identity().digest == identity.digest
    (moved / "model.safetensors").write_bytes(b"others!")
    assert open_embedder(settings(moved)).identity().digest != identity.digest


def test_every_error_names_the_remedy(model, monkeypatch):
    with pytest.raises(ModelMissing, match="no-such-model"):
        open_embedder(settings("no-such-model")).embed_query("x")
    with pytest.raises(EmbedderError, match="smaller batch_chars"):
        open_embedder(settings(model)).embed_documents(["explode"])
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    with pytest.raises(EmbedderError, match=r"pip install .*\[sentence-transformers\]"):
        open_embedder(settings(model)).embed_query("x")


@pytest.mark.parametrize(
    ("name", "brings", "given", "prefixes"),
    [
        ("mini", {"query": "ask: ", "document": "tell: "}, {}, ("tell: ", "ask: ")),
        ("mini", {"query": "ask: ", "document": "", "passage": "tell: "}, {}, ("tell: ", "ask: ")),
        ("mini", {"s2p_query": "ask: ", "s2s_query": "like: "}, {}, ("", "ask: ")),
        ("e5-small-v2", {"query": "ask: ", "document": ""}, {}, ("", "ask: ")),
        ("e5-small-v2", {"query": "", "document": ""}, {}, ("passage: ", "query: ")),
        ("mini", {"query": "ask: ", "document": "tell: "}, {"query_prefix": ""}, ("tell: ", "")),
        ("mini", {}, {}, ("", "")),
    ],
)
def test_prompts_are_those_of_the_settings_the_model_or_its_name(model, monkeypatch, name, brings, given, prefixes):
    monkeypatch.setattr(FakeSentenceTransformer, "prompts", brings)
    embedder = open_embedder(settings(model.rename(model.parent / name), **given))
    assert embedder.embed_documents(["one"])[0] == pytest.approx(vector_of(f"{prefixes[0]}one"))
    assert embedder.embed_query("one") == pytest.approx(vector_of(f"{prefixes[1]}one?"))
    identity = embedder.identity()
    assert (identity.document_prefix, identity.query_prefix) == prefixes


def test_a_model_of_which_nobody_knows_the_prompts_is_named(model, monkeypatch):
    def warned(given: EmbedderSettings) -> bool:
        return "what model mini was trained to read" in prefix_warning(given, identify(given))

    assert warned(settings(model))
    assert not warned(settings(model, document_prefix=""))
    assert not warned(EmbedderSettings())
    monkeypatch.setattr(FakeSentenceTransformer, "prompts", {"query": "ask: "})
    assert not warned(settings(model))
    assert not warned(settings(model.rename(model.parent / "bge-m3")))
