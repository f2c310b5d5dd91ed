"""The embedder that runs a sentence-transformers model inside the process: on a GPU, or on one core of each worker.

Needs the extra `sentence-transformers` (which brings torch).
"""

from __future__ import annotations

import hashlib
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from rag_index.documents.vectors import broken_reason, usable_rows
from rag_index.embedders import EmbedderIdentity
from rag_index.embedders.batches import make_batches
from rag_index.errors import BadVectors, EmbedderError, ModelMissing, TextRefused, TextTooLong
from rag_index.hosts.stats import RequestStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_index.settings import EmbedderSettings

__all__ = ["SentenceTransformersEmbedder"]

WEIGHTS = ("*.safetensors", "*.bin", "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "modules.json")
"""What decides the vectors, in a model's folder and below it, beside the modules' config.json."""
SHORTEST_LIMIT = 8
"""Tokens: a model that says it takes fewer does not say it."""


class SentenceTransformersEmbedder:
    """An Embedder over a SentenceTransformer: unit vectors, on one thread or on a GPU.

    The model is loaded on first use, once. A text longer than it takes is TextTooLong (the library would cut it
    silently). A text's vector depends on its neighbours only by rounding (some 1e-7).
    """

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self._model: Any = None
        self.stats = RequestStats()

    def identity(self) -> EmbedderIdentity:
        """What decides the vectors: the bytes of weights, tokenizer and configuration."""
        vector = self._embedded(["rag-index asks for the dimension"])[0]
        if isinstance(vector, Exception):
            raise vector
        return EmbedderIdentity(
            kind="sentence-transformers",
            model=self._settings.model.rstrip("/").rsplit("/", 1)[-1],
            digest=_digest(self._folder()),
            dimension=vector.shape[0],
            document_prefix=self._settings.document_prefix or "",
            query_prefix=self._settings.query_prefix or "",
        )

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """One entry a text, in order: its unit vector, TextTooLong, TextRefused or BadVectors."""
        prefix = self._settings.document_prefix or ""
        return self._embedded([prefix + text for text in texts])

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
        raise TypeError("this embedder stays in its process: send its EmbedderSettings, and open it there")

    def _embedded(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        if self._model is None:
            self._model = _load(self._settings)
        began = time.perf_counter()
        entries: list[NDArray[np.float32] | Exception | None] = [self._unsendable(text) for text in texts]
        rows = [row for row, entry in enumerate(entries) if entry is None]
        chosen, limits = [texts[row] for row in rows], self._settings
        for batch in make_batches(chosen, max_texts=limits.batch_texts, max_chars=limits.batch_chars):
            vectors = self._encode([chosen[row] for row in batch.rows])
            for row, entry in zip(batch.rows, vectors, strict=True):
                entries[rows[row]] = entry
        self.stats.busy_seconds += time.perf_counter() - began
        return [entry for entry in entries if entry is not None]

    def _unsendable(self, text: str) -> Exception | None:
        """Why a text cannot be embedded whole."""
        most = self._model.max_seq_length
        try:
            tokens = len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"])
        except (UnicodeEncodeError, TypeError) as exc:
            return TextRefused(f"the text is no valid Unicode and cannot be embedded: {exc}")
        if most and SHORTEST_LIMIT <= most < tokens:
            name = self._settings.model
            return TextTooLong(f"{tokens} tokens, and {name} takes {most}: lower chunk_chars of this index")
        return None

    def _encode(self, texts: list[str]) -> list[NDArray[np.float32] | Exception]:
        self.stats.requests += 1
        try:
            found = self._model.encode(
                texts,
                prompt="",  # prefixes are put before texts already
                batch_size=len(texts),
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        except RuntimeError as exc:  # torch's own, and out of memory
            raise EmbedderError(f"{self._settings.model} cannot embed ({exc}); try a smaller batch_chars") from exc
        matrix = np.asarray(found, dtype=np.float32)
        entries: list[NDArray[np.float32] | Exception] = list(matrix)
        for row in np.flatnonzero(~usable_rows(matrix)).tolist():
            why = broken_reason(matrix[row], None) or "no length"
            entries[row] = BadVectors(f"{self._settings.model} gives {why} for the text {texts[row][:60]!r}")
        return entries

    def _folder(self) -> Path:
        """Where the model's files are; for one that is known by name, in the library's cache."""
        given = Path(self._settings.model).expanduser()
        if given.is_dir():
            return given
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self._settings.model, local_files_only=True))


def _load(settings: EmbedderSettings) -> Any:
    """The model. Raises ModelMissing where there is none of that name, EmbedderError where it cannot be loaded."""
    if find_spec("sentence_transformers") is None:
        raise EmbedderError(
            "kind 'sentence-transformers' needs a library that is not installed: "
            "pip install 'rag-index[sentence-transformers]'"
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the only way to have the tokenizer on one thread
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading, in each worker
    torch.set_num_threads(1)  # workers are processes: threads of each would fight for the same cores
    device = None if settings.device == "auto" else settings.device
    model = str(Path(settings.model).expanduser())
    try:
        return SentenceTransformer(model, device=device).eval()
    except (OSError, ValueError) as exc:
        said = " ".join(str(exc).split())[:200]
        raise ModelMissing(
            f"there is no model {settings.model!r} that can be loaded ({said}); give a folder with one"
        ) from exc
    except (RuntimeError, AssertionError) as exc:  # a device that is not there
        said = " ".join(str(exc).split())[:200]
        raise EmbedderError(f"{settings.model} cannot be loaded on {settings.device!r} ({said}); set device") from exc


def _digest(folder: Path) -> str:
    """A hash over the files that decide the vectors (90 MB: some 100 ms)."""
    digest = hashlib.blake2b(digest_size=32)
    found = {path for pattern in (*WEIGHTS, "config.json") for path in folder.rglob(pattern)}
    for path in sorted(found):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
