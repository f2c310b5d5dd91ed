"""Models in the process, by the real library and models of a kilobyte."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from rag_index.components.embedders import fastembed as ours
from rag_index.components.embedders import identify, open_embedder, prefix_warning
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import BadVectors, EmbedderError, ModelMissing, TextRefused, TextTooLong
from tests.fakes.onnx_models import LIMIT, write_model

TEXTS = ["w7", "w8 w9 w31", "w31 w31 w30 w12", "w10 w11", "w7 w7 w7 w7 w8 w9"]


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "mini")


def settings(model, **given) -> EmbedderSettings:
    return EmbedderSettings(kind="fastembed", model=str(model), **given)


def test_a_vector_is_of_unit_length_and_depends_on_no_other_text_by_a_bit(model):
    embedder = open_embedder(settings(model))
    together = embedder.embed_documents(TEXTS * 3)
    assert all(
        entry.dtype == np.float32 and abs(np.linalg.norm(entry) - 1) < 1e-6 for entry in together
    )
    for row, text in enumerate(TEXTS):
        alone = open_embedder(settings(model)).embed_documents([text])[0]
        assert np.array_equal(together[row], alone)
        assert np.array_equal(together[row + 2 * len(TEXTS)], alone)
        assert np.array_equal(embedder.embed_query(text), alone)
    asked = f"""from tests.components.embedders.test_fastembed import *
print(open_embedder(settings({str(model)!r})).embed_documents(TEXTS)[2].tobytes().hex())"""
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == together[2].tobytes().hex()


def test_a_document_that_the_model_would_truncate_is_too_long_and_of_a_query_its_beginning_counts(
    model,
):
    embedder = open_embedder(settings(model, document_prefix="w9 ", query_prefix=""))
    fits = LIMIT - 2 - 1  # without the signs and the prefix
    entries = embedder.embed_documents(["w7 " * fits, "w7 " * (fits + 1)])
    assert [type(entry) for entry in entries] == [np.ndarray, TextTooLong]
    assert f"more than {LIMIT} tokens" in str(entries[1])
    assert np.array_equal(
        embedder.embed_query("w7 " * 500), embedder.embed_query("w7 " * (LIMIT - 2))
    )
    (model / ours.LIMITS).write_text('{"max_seq_length": 5}')
    assert isinstance(
        open_embedder(settings(model)).embed_documents(["w7 w7 w7 w7"])[0], TextTooLong
    )


def test_a_text_that_has_no_vector_fails_alone(model):
    entries = open_embedder(settings(model)).embed_documents(
        ["w7", "broken \ud800", "zero", "nan", "w8"]
    )
    assert [type(entry) for entry in entries] == [
        np.ndarray,
        TextRefused,
        BadVectors,
        BadVectors,
        np.ndarray,
    ]
    (model / "model.onnx").write_bytes(b"half a file")
    with pytest.raises(ModelMissing, match="cannot be loaded"):
        open_embedder(settings(model)).embed_query("w7")


def test_the_identity_is_that_of_the_files_wherever_they_lie(model, tmp_path):
    identity = identify(settings(model))
    assert identity.place == str(model)
    assert (identity.kind, identity.model, identity.dimension) == ("fastembed", "mini", 8)
    (model / "README.md").write_text("read me")
    moved = shutil.copytree(model, tmp_path / "elsewhere" / "another-name")
    found = identify(settings(moved))
    assert (found.fingerprint, found.digest, found.place) == (
        identity.fingerprint,
        identity.digest,
        str(moved),
    )
    (moved / ours.LIMITS).write_text('{"max_seq_length": 5}')
    assert identify(settings(moved)).digest != identity.digest
    vocabulary = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(vocabulary.replace('"w31"', '"w99"'))
    assert identify(settings(model)).digest != identity.digest


def test_a_folder_with_the_name_of_a_listed_model_needs_nothing_that_says_how_it_is_used(tmp_path):
    listed = write_model(tmp_path / "all-MiniLM-L6-v2", pooling=None)
    assert open_embedder(settings(listed)).embed_query("w7").shape == (8,)
    assert (settings(listed).query_prefix, settings(listed).document_prefix) == ("", "")
    e5 = settings(tmp_path / "multilingual-e5-small")
    assert (e5.query_prefix, e5.document_prefix) == ("query: ", "passage: ")
    unknown = settings(write_model(tmp_path / "mini"))
    assert "what model mini was trained to read" in prefix_warning(unknown, identify(unknown))


def test_every_error_names_the_remedy(model, tmp_path, monkeypatch):
    def said(model) -> str:
        with pytest.raises(ModelMissing) as raised:
            open_embedder(settings(model)).embed_query("x")
        return str(raised.value)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "`hf download Qdrant/all-MiniLM-L6-v2-onnx --local-dir all-MiniLM-L6-v2`" in said(
        "all-MiniLM-L6-v2"
    )
    assert "1_Pooling/config.json" in said(write_model(tmp_path / "other", pooling=None))
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    with pytest.raises(EmbedderError, match=r"pip install .*\[fastembed\]"):
        open_embedder(settings(model)).embed_query("x")
