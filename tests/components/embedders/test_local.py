"""The embedder that averages wordllama's vectors of words."""

from pathlib import Path

import numpy as np
import pytest
import wordllama
from hypothesis import example, given
from hypothesis import strategies as st

from rag_index.components.embedders.local import LocalEmbedder
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import BadVectors, TextRefused

TEXTS = [
    "the printer on the third floor is broken",
    "nobody can print since this morning",
    "banana bread with walnuts",
    "word " * 800,
    "ü – 漢字 \U0001f600",
    "a",
]
BARE = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
BITS = [
    " ",
    "  ",
    "\n",
    "\t",
    "\u00a0",
    "\u2581",
    "<s>",
    "</s>",
    "<unk>",
    "<",
    "Word",
    "isn't",
    "e\u0301",
    "漢字",
    "👩\u200d💻",
    "4",
]


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
