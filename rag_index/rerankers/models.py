"""Rerankers that run a model of sentence-transformers inside the process: a CrossEncoder, or one of late interaction.

They need the extra `sentence-transformers`, which installs torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.errors import RerankerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.rerankers import Reranker

LATE_TYPES = {"MultiVectorEncoder", "ColBERT"}
"""`model_type` in config_sentence_transformers.json of sentence-transformers and of PyLate."""
LATE_ARCHITECTURE = "HF_ColBERT"
"""The architecture in config.json of the first ColBERT models, which have no `model_type`."""


class CrossEncoderReranker:
    """A Reranker that uses a CrossEncoder. A text longer than the model's limit is judged by its beginning."""

    def __init__(self, name: str, device: str) -> None:
        """Load the model. Raises RerankerError if that fails."""
        from sentence_transformers import CrossEncoder

        self._name = name
        self._model = _load(CrossEncoder, name, device)
        labels = self._model.config.num_labels
        if labels != 1:
            raise RerankerError(f"{name} gives {labels} numbers for a text, and not one: set reranker to another model")

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the model's number for each text, in order. Raises RerankerError if it fails."""
        pairs = [(query, text) for text in texts]
        return _numbers(self._name, lambda: self._model.predict(pairs, show_progress_bar=False))

    def close(self) -> None:
        """Release the model."""
        self._model = None


class LateInteractionReranker:
    """A Reranker that compares each token of a query with all of a text: Khattab and Zaharia, ColBERT, 2020.

    A text longer than the model's limit is judged by its beginning.
    """

    def __init__(self, name: str, device: str) -> None:
        """Load the model. Raises RerankerError if that fails."""
        from sentence_transformers import MultiVectorEncoder

        self._name = name
        self._model = _load(MultiVectorEncoder, name, device)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the sum of the best similarities, one for each token of the query, for each text, in order.

        Raises RerankerError if the model fails.
        """

        def judge() -> Any:
            asked = self._model.encode_query([query], show_progress_bar=False)
            read = self._model.encode_document(list(texts), show_progress_bar=False)
            return self._model.similarity(asked, read)[0].tolist()

        return _numbers(self._name, judge) if texts else []

    def close(self) -> None:
        """Release the model."""
        self._model = None


def load_reranker(name: str, device: str) -> Reranker:
    """Return the reranker of a folder or a name on the model hub. Raises RerankerError if it cannot be loaded."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    kind = LateInteractionReranker if _is_late(name) else CrossEncoderReranker
    return kind(name, device)


def _is_late(name: str) -> bool:
    """Return whether the model's own files say that it is one of late interaction."""
    return _word(name, "config_sentence_transformers.json", "model_type") in LATE_TYPES or LATE_ARCHITECTURE in (
        _word(name, "config.json", "architectures") or ()
    )


def _word(name: str, file: str, key: str) -> Any:
    """Return what a file of the model says; None if there is no such file, or it says nothing."""
    from sentence_transformers.util import load_file_path

    try:
        path = load_file_path(str(Path(name).expanduser()), file)
        found = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):  # loading the model says it in words
        return None
    return found.get(key) if isinstance(found, dict) else None


def _load(kind: Callable[..., Any], name: str, device: str) -> Any:
    try:
        return kind(str(Path(name).expanduser()), device=None if device == "auto" else device)
    except (OSError, ValueError) as exc:
        raise RerankerError(
            f"no reranker can be loaded from {name!r} ({_one_line(exc)}): set reranker to the folder or name of one"
        ) from exc
    except (RuntimeError, AssertionError) as exc:  # this machine does not have the device
        raise RerankerError(
            f"{name} cannot be loaded on {device!r} ({_one_line(exc)}): "
            "set [embedder] device to one that this machine has"
        ) from exc


def _numbers(name: str, judge: Callable[[], Any]) -> list[float]:
    try:
        return [float(score) for score in judge()]
    except (RuntimeError, TypeError, ValueError) as exc:  # out of memory, or half a character
        raise RerankerError(f"{name} cannot judge the hits ({_one_line(exc)})") from exc


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
