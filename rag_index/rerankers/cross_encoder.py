"""The reranker that runs a CrossEncoder of sentence-transformers inside the process.

It needs the extra `sentence-transformers`, which installs torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.errors import RerankerError

if TYPE_CHECKING:
    from collections.abc import Sequence


class CrossEncoderReranker:
    """A Reranker that uses a CrossEncoder. A text longer than the model's limit is judged by its beginning."""

    def __init__(self, model: str, device: str) -> None:
        """Load the model. Raises RerankerError if that fails."""
        self._name = model
        self._model = _load(model, device)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the model's number for each text, in order. Raises RerankerError if it fails."""
        try:
            found = self._model.predict([(query, text) for text in texts], show_progress_bar=False)
        except (RuntimeError, TypeError, ValueError) as exc:  # out of memory, or half a character
            raise RerankerError(f"{self._name} cannot judge the hits ({_one_line(exc)})") from exc
        return [float(score) for score in found]

    def close(self) -> None:
        """Release the model."""
        self._model = None


def _load(name: str, device: str) -> Any:
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = CrossEncoder(str(Path(name).expanduser()), device=None if device == "auto" else device)
    except (OSError, ValueError) as exc:
        raise RerankerError(
            f"no reranker can be loaded from {name!r} ({_one_line(exc)}): set reranker to the folder or name of one"
        ) from exc
    except (RuntimeError, AssertionError) as exc:  # this machine does not have the device
        raise RerankerError(
            f"{name} cannot be loaded on {device!r} ({_one_line(exc)}): "
            "set [embedder] device to one that this machine has"
        ) from exc
    labels = model.config.num_labels
    if labels != 1:
        raise RerankerError(f"{name} gives {labels} numbers for a text, and not one: set reranker to another model")
    return model


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
