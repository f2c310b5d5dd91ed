"""A check with the real library and a real model, run in a separate environment by `python … MODEL_FOLDER`.

It prints OK.
"""

import hashlib
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rag_index.embedders import open_embedder
from rag_index.errors import RerankerError, TextTooLong
from rag_index.rerankers import ModelReranker
from rag_index.settings import EmbedderSettings

TEXTS = [f"The printer on floor {number} does not print " + "any more " * (number % 20) for number in range(80)]


def settings(model: str, **given) -> EmbedderSettings:
    return EmbedderSettings(kind="sentence-transformers", model=model, device="cpu", **given)


def matrix(model: str) -> np.ndarray:
    return np.array(open_embedder(settings(model)).embed_documents(TEXTS))


def in_a_process(model: str) -> str:
    import torch

    found = matrix(model)
    assert torch.get_num_threads() == 1
    return hashlib.sha256(found.tobytes()).hexdigest()


def raised(kind: type[Exception], call: Callable[[], object]) -> str:
    """Return the message of the error that the call must raise."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def check_reranker(model: str) -> None:
    """Check the CrossEncoder with the model's weights and a head that is made up: its numbers are equal each time."""
    from sentence_transformers import CrossEncoder

    folder = tempfile.mkdtemp()
    made = CrossEncoder(model, num_labels=1, device="cpu")
    made.save_pretrained(folder)
    reranker = ModelReranker(folder, "cpu")
    scores = reranker.score("printer", TEXTS)
    expected = made.predict([("printer", text) for text in TEXTS], show_progress_bar=False)
    assert np.abs(np.array(scores) - expected).max() < 1e-5
    assert len(set(scores)) > 1
    assert abs(reranker.score("printer", ["word " * 5000])[0]) < 100
    reranker.close()
    assert "nothing-here" in raised(RerankerError, lambda: ModelReranker(f"{model}/nothing-here", "cpu"))
    assert "[embedder] device to one" in raised(RerankerError, lambda: ModelReranker(folder, "cuda"))
    two = tempfile.mkdtemp()
    CrossEncoder(model, num_labels=2, device="cpu").save_pretrained(two)
    assert "gives 2 numbers" in raised(RerankerError, lambda: ModelReranker(two, "cpu"))


def main(model: str) -> None:
    import torch

    embedder = open_embedder(settings(model))
    identity = embedder.identity()
    assert (identity.kind, identity.model, identity.dimension) == ("sentence-transformers", Path(model).name, 384)
    assert torch.get_num_threads() == 1

    printer, jam, bread = embedder.embed_documents(
        ["The printer is broken.", "Printing fails, paper is stuck in the device.", "Banana bread needs ripe bananas."]
    )
    assert printer @ jam > 0.4 > printer @ bread
    query = embedder.embed_query("The printer is broken.")
    assert np.abs(query - printer).max() < 1e-5

    together = embedder.embed_documents(TEXTS)
    for row in (0, 19, 40):
        assert np.abs(embedder.embed_documents([TEXTS[row]])[0] - together[row]).max() < 1e-5
    entries = embedder.embed_documents([TEXTS[0], "word " * 2000, TEXTS[1]])
    assert [type(entry) for entry in entries] == [np.ndarray, TextTooLong, np.ndarray]

    check_reranker(model)

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = set(pool.map(in_a_process, [model] * 2, chunksize=1))
    assert found == {hashlib.sha256(np.array(together).tobytes()).hexdigest()}
    print("OK")


if __name__ == "__main__":
    main(sys.argv[1])
