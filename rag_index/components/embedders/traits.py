"""What searches have to know of a model that its name does not show: whether it reads the order of
words, and how far apart its cosines are.

It is measured once with texts of our own, and recorded with each collection of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.components.embedders import Embedder

SAME = 0.999
"""The cosine above which a sentence and its words in reverse are the same for a model: a bag of
tokens has 1."""
SENTENCE = (
    "The manager of the small shop paid the driver who had brought the wrong box to her brother."
)
PAIRS = (
    (
        "printer shows blank pages",
        "Every sheet comes out empty although the toner of the office printer is new.",
    ),
    (
        "how to reset a forgotten password",
        "Users who cannot log in may request a new secret by mail.",
    ),
    (
        "train is late because of snow",
        "Winter weather on the tracks delayed the express from the north by an hour.",
    ),
    (
        "recipe for a simple tomato soup",
        "Fry onions, add chopped tomatoes and broth, and boil it for twenty minutes.",
    ),
    (
        "cost of heating an old house",
        "Poor insulation makes the bill for gas high in buildings of the last century.",
    ),
    (
        "symptoms of a common cold",
        "A running nose, a sore throat and some fever pass within a week without treatment.",
    ),
    (
        "why leaves turn red in autumn",
        "As days get shorter, trees lose their green pigment and other colours appear.",
    ),
    (
        "rules for overtime pay",
        "Hours beyond the agreed working time are compensated by money or by days off.",
    ),
    (
        "new bridge across the river",
        "The council will build a second crossing for cars and cyclists downstream.",
    ),
    (
        "learning to play the piano",
        "Beginners practise scales with both hands before they try their first melody.",
    ),
    (
        "software update fails with an error",
        "The installer stops and reports that a file is in use by another program.",
    ),
    (
        "planets that have rings",
        "Saturn is famous for its belt of ice and dust, and three giants have one, too.",
    ),
)
"""Queries, and a text that answers each in other words. None of the other texts does."""


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """What was measured of a model.

    Attributes:
        reads_order: Whether the order of words matters. It does not for averages of token vectors.
        strange: The median of the best cosines between queries and texts that do not answer them.
        known: The median of the cosines between queries and texts that do.
    """

    reads_order: bool
    strange: float
    known: float

    @classmethod
    def from_metadata(cls, recorded: Any) -> ModelTraits | None:
        """Return the recorded traits; None if a collection records none, or in another form."""
        try:
            return cls(**recorded)
        except TypeError:
            return None


def measure_traits(embedder: Embedder) -> ModelTraits:
    """Measure the traits of a model. It embeds 26 short texts. Raises what the embedder raises.

    measure_traits(LocalEmbedder(settings)).reads_order
    # False: wordllama averages the vectors of tokens
    """
    reversed_words = " ".join(reversed(SENTENCE.split()))
    answers = [answer for _, answer in PAIRS]
    texts = _unit_vectors(embedder.embed_documents([SENTENCE, reversed_words, *answers]))
    queries = _unit_vectors(embedder.embed_queries([query for query, _ in PAIRS]))
    reads_order = bool(texts[0] @ texts[1] < SAME)
    cosines = queries @ texts[2:].T
    known = np.diag(cosines).copy()
    # the best of the other texts for each query
    np.fill_diagonal(cosines, -1.0)
    strange = cosines.max(axis=1)
    return ModelTraits(reads_order, _median(strange), _median(known))


def _median(values: Any) -> float:
    return round(float(np.median(values)), 4)


def _unit_vectors(entries: Sequence[Any]) -> Any:
    """Return the vectors of texts as rows of length 1. Raises the error of a text that has none."""
    for entry in entries:
        if isinstance(entry, Exception):
            raise entry
    vectors = np.stack([np.asarray(entry, dtype=np.float32) for entry in entries])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-9)
