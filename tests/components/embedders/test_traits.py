"""What is measured of a model: whether it reads the order of words, and how far apart its cosines
lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rag_index.components.embedders import open_embedder
from rag_index.components.embedders.traits import PAIRS, ModelTraits, measure_traits
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import BadVectors


class OrderReader:
    """An embedder whose vectors depend on the places of words, and which knows which text answers
    which query."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def embed_queries(self, texts: Sequence[str]) -> list[np.ndarray | Exception]:
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str]) -> list[np.ndarray | Exception]:
        return [
            BadVectors("no vector") if text == self.broken else self._vector(text) for text in texts
        ]

    def _vector(self, text: str) -> np.ndarray:
        vector = np.full(64, 0.2, dtype=np.float32)
        for number, pair in enumerate(PAIRS):
            vector[number] += 3.0 * (text in pair)
        for place, word in enumerate(text.split()):
            vector[16 + place % 48] += len(word) / 10
        return vector


def test_a_bag_of_tokens_is_told_from_a_model_that_reads_order():
    bag = measure_traits(open_embedder(EmbedderSettings()))
    assert bag.reads_order is False
    assert bag.known > bag.strange
    reader = measure_traits(OrderReader())
    assert reader.reads_order is True
    assert reader.known > reader.strange


def test_a_model_that_cannot_embed_a_text_has_no_traits():
    with pytest.raises(BadVectors):
        measure_traits(OrderReader(broken=PAIRS[3][0]))
    assert ModelTraits.from_metadata(None) is None
    assert ModelTraits.from_metadata({"reads_order": True}) is None
    assert (
        ModelTraits.from_metadata({"reads_order": True, "strange": 0.1, "known": 0.5}).reads_order
        is True
    )
