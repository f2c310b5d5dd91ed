"""The embedder inside the process: wordllama's static token vectors, averaged. It needs no server and no download."""

from __future__ import annotations

import hashlib
import logging
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from rag_index.documents.vectors import broken_reason, usable_rows
from rag_index.embedders import EmbedderIdentity
from rag_index.errors import BadVectors, EmbedderError, TextRefused
from rag_index.hosts.stats import RequestStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from rag_index.settings import EmbedderSettings

__all__ = ["LocalEmbedder"]

TEXTS_AT_ONCE = 1024
"""Vectors made in one matrix: bounds what one kept vector can keep alive."""


class LocalEmbedder:
    """An Embedder over wordllama: unit vectors of 256 dimensions, on the calling thread alone.

    The model is loaded on first use. A text's vector is the same to the last bit whatever it is embedded with, and
    the same as `WordLlamaInference.embed(norm=True)` gives. Raises EmbedderError where the package is broken.
    """

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self._model: tuple[Tokenizer, NDArray[np.float32]] | None = None
        self.stats = RequestStats()

    def identity(self) -> EmbedderIdentity:
        """What decides the vectors: the package's version and the bytes of its weights and tokenizer."""
        vector = self._embedded(["rag-index asks for the dimension"])[0]
        if isinstance(vector, Exception):
            raise vector
        return EmbedderIdentity(
            kind="local",
            model=self._settings.model,
            digest=_digest(_package_folder()),
            dimension=vector.shape[0],
            document_prefix=self._settings.document_prefix or "",
            query_prefix=self._settings.query_prefix or "",
        )

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """One entry a text, in order: its unit vector, BadVectors where no token of it has a vector, TextRefused."""
        prefix = self._settings.document_prefix
        return self._embedded([prefix + text for text in texts] if prefix else texts)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The unit vector of a query. Raises what `embed_documents` would have as its entry."""
        vector = self._embedded([(self._settings.query_prefix or "") + text])[0]
        if isinstance(vector, Exception):
            raise vector
        return vector

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a LocalEmbedder stays in its process: send its EmbedderSettings, and open it there")

    def _embedded(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        if self._model is None:
            self._model = _load()
        began = time.perf_counter()
        entries: list[NDArray[np.float32] | Exception] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            entries += _unit_vectors(*self._model, texts[start : start + TEXTS_AT_ONCE])
            self.stats.requests += 1
        self.stats.busy_seconds += time.perf_counter() - began
        return entries


def _unit_vectors(
    tokenizer: Tokenizer, weights: NDArray[np.float32], texts: Sequence[str]
) -> list[NDArray[np.float32] | Exception]:
    """Mean of each text's token vectors, made unit length.

    Tokens are summed text by text, so nothing is padded and nothing depends on the neighbours. A batch of one text is
    the way to have one thread: a larger one is spread over all cores (rayon) unless an environment variable says no,
    and `encode` computes offsets that nobody needs. Measured: 9,000 texts a second of 444 characters on one core,
    where wordllama's own `embed` makes 2,700 (5,400 sorted by length).
    """
    sums = np.zeros((len(texts), weights.shape[1]), dtype=np.float32)
    tokens = np.ones(len(texts), dtype=np.float32)
    refused: dict[int, Exception] = {}
    encode = tokenizer.encode_batch_fast
    for row, text in enumerate(texts):
        try:
            ids = encode([text], add_special_tokens=False)[0].ids
        except (UnicodeEncodeError, TypeError) as exc:
            refused[row] = TextRefused(f"the text is no valid Unicode and cannot be embedded: {exc}")
            continue
        if ids:
            np.add.reduce(weights.take(ids, axis=0, mode="clip"), axis=0, out=sums[row])
            tokens[row] = len(ids)
    sums /= tokens[:, np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    entries: list[NDArray[np.float32] | Exception] = list(units)
    for row in np.flatnonzero(~usable_rows(units)).tolist():
        why = broken_reason(sums[row], None) or "no length"
        entries[row] = refused.get(row) or BadVectors(f"wordllama gives {why} for the text {texts[row][:60]!r}")
    return entries


def _load() -> tuple[Tokenizer, NDArray[np.float32]]:
    """Tokenizer and token vectors (tokens, 256). Raises EmbedderError where the package has no weights."""
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)  # wordllama calls logging.basicConfig when imported, which does nothing beside a handler
    try:
        import wordllama

        model = wordllama.WordLlama.load(cache_dir=_package_folder(), disable_download=True)
    except (ImportError, FileNotFoundError) as exc:
        raise EmbedderError(f"the local embedder cannot be loaded ({exc}): install rag-index again") from exc
    finally:
        root.removeHandler(guard)
    model.tokenizer.no_padding()
    return model.tokenizer, model.embedding


def _package_folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbedderError("the package wordllama is not installed: install rag-index again")
    return Path(spec.origin).parent


def _digest(folder: Path) -> str:
    """A hash over the version and the files that decide the vectors (18 MB: some 20 ms)."""
    digest = hashlib.blake2b(version("wordllama").encode(), digest_size=32)
    for path in sorted((*folder.glob("weights/*"), *folder.glob("tokenizers/*.json"))):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
