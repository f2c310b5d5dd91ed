"""Embedders inside the process, and the one that averages wordllama's token vectors, which needs no
server and no download."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from abc import ABC, abstractmethod
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders.identity import EmbedderIdentity
from rag_index.core.documents.vectors import broken_reason, shorten, usable_rows
from rag_index.core.documents.work import Work
from rag_index.errors import BadVectors, EmbedderError, TextRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from rag_index.core.settings import EmbedderSettings

TEXTS_AT_ONCE = 1024
"""The number of vectors in one matrix (chosen). It bounds the memory that a single vector can keep
alive."""
MAX_CACHED_WORDS, MAX_WORD = 50_000, 32
"""The number of words whose tokens are cached, some 15 MB, and the most characters of one."""
TOKENIZER_SIGNS = ("\u2581", "<s>", "</s>", "<unk>")
"""How the tokenizer writes a space, and its own signs, which it takes for tokens wherever they
stand."""
_words = re.compile(" +[^ ]*").findall


class InProcessEmbedder(ABC):
    """An Embedder whose model is loaded on first use. Subclasses embed texts, and define what their
    digest covers."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self._model: Any = None
        self.stats = Work()

    def identity(self) -> EmbedderIdentity:
        """Return the identity. Its digest covers the bytes of everything that decides the
        vectors."""
        path = self._settings.model.rstrip("/")
        model = path.rsplit("/", 1)[-1]
        vector = self.embed_query("rag-index asks for the dimension")
        return EmbedderIdentity.of(self._settings, model, self._digest(), vector.shape[0])

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        return self._embed_with(texts, query=False)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        entry = self.embed_queries([text])[0]
        if isinstance(entry, Exception):
            raise entry
        return entry

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        return self._embed_with(texts, query=True)

    def close(self) -> None:
        self._model = None

    def _embed_with(
        self, texts: Sequence[str], *, query: bool
    ) -> list[NDArray[np.float32] | Exception]:
        """Embed texts with the prefix of queries or documents, and shorten the vectors to the
        dimensions of the settings."""
        began = time.perf_counter()
        if self._model is None:
            self._model = self._load()
        settings = self._settings
        prefix = settings.query_prefix if query else settings.document_prefix
        entries = self._embed(texts, prefix or "", query=query)
        self.stats.embed_seconds += time.perf_counter() - began
        if settings.dimensions is None:
            return entries
        return [
            entry if isinstance(entry, Exception) else shorten(entry, settings.dimensions)
            for entry in entries
        ]

    def _entries(self, matrix: NDArray[np.float32]) -> list[NDArray[np.float32] | Exception]:
        """Return the rows of a matrix of vectors, with an error for each that is unusable."""
        entries: list[NDArray[np.float32] | Exception] = list(matrix)
        for row in np.flatnonzero(~usable_rows(matrix)).tolist():
            why = broken_reason(matrix[row], None)
            entries[row] = BadVectors(
                f"{self._settings.model} returned a vector of {why} for a text"
            )
        return entries

    @abstractmethod
    def _load(self) -> Any:
        """Return the model. Raises as `identity`."""

    @abstractmethod
    def _embed(
        self, texts: Sequence[str], prefix: str, *, query: bool
    ) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order, with the prefix before each text."""

    @abstractmethod
    def _digest(self) -> str:
        """Return a hash of the files that decide the vectors."""


class LocalEmbedder(InProcessEmbedder):
    """An Embedder that uses wordllama: unit vectors of 256 dimensions, computed on the calling
    thread only. The vector of a text does not depend on the other texts. It equals the result of
    `WordLlamaInference.embed(norm=True)` to the last bit. Raises EmbedderError if the package is
    broken."""

    def _load(self) -> tuple[Tokens, NDArray[np.float32]]:
        return load_table()

    def _embed(
        self, texts: Sequence[str], prefix: str, *, query: bool
    ) -> list[NDArray[np.float32] | Exception]:
        texts = [prefix + text for text in texts] if prefix else texts
        entries: list[NDArray[np.float32] | Exception] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            entries += self._unit_vectors(texts[start : start + TEXTS_AT_ONCE])
            self.stats.requests += 1
        return entries

    def _unit_vectors(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return the mean of each text's token vectors, scaled to unit length, or why a text has
        none. Tokens are summed text by text, so nothing is padded and no vector depends on its
        neighbours."""
        tokens_of, weights = self._model
        sums = np.zeros((len(texts), weights.shape[1]), dtype=np.float32)
        tokens = np.ones(len(texts), dtype=np.float32)
        refused: dict[int, Exception] = {}
        for row, text in enumerate(texts):
            try:
                ids = tokens_of.text(text)
            except (UnicodeEncodeError, TypeError) as exc:
                refused[row] = TextRefused(
                    f"the text is not valid Unicode and cannot be embedded: {exc}"
                )
                continue
            if ids:
                np.add.reduce(weights.take(ids, axis=0, mode="clip"), axis=0, out=sums[row])
                tokens[row] = len(ids)
        sums /= tokens[:, np.newaxis]
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        lengths[lengths == 0] = 1
        with np.errstate(invalid="ignore", over="ignore"):
            entries = self._entries(sums / lengths)
        for row, error in refused.items():
            entries[row] = error
        return entries

    def _digest(self) -> str:
        return _digest(_package_folder())


class Tokens(dict[str, list[int]]):
    """A cache of the tokens of words, each with the spaces before it.

    No token of the model has a space elsewhere. So the tokens of a text are those of its words, and
    looking them up takes a quarter of the time.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._model = tokenizer.model

    def text(self, text: str) -> list[int]:
        """Return the tokens of a text. Raises what the tokenizer raises for one that is not valid
        Unicode."""
        if not text:
            return []
        if text.endswith(" ") or any(map(text.__contains__, TOKENIZER_SIGNS)):
            # of a batch of one, which keeps the tokenizer on this thread and computes no offsets
            [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
            ids: list[int] = encoding.ids
            return ids
        words = _words(f" {text}")
        return list(chain.from_iterable(map(self.__getitem__, words)))

    def __missing__(self, word: str) -> list[int]:
        ids = [token.id for token in self._model.tokenize(word.replace(" ", TOKENIZER_SIGNS[0]))]
        if len(word) <= MAX_WORD:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


@cache
def load_table() -> tuple[Tokens, NDArray[np.float32]]:
    """Load the tokens and their vectors, shape (tokens, 256), once. Raises EmbedderError if that
    fails."""
    # wordllama calls logging.basicConfig on import, which does nothing if there is a handler
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    try:
        import wordllama

        model = wordllama.WordLlama.load(cache_dir=_package_folder(), disable_download=True)
    except (ImportError, FileNotFoundError) as exc:
        raise EmbedderError(
            f"the local embedder cannot be loaded ({exc}): reinstall rag-index"
        ) from exc
    finally:
        root.removeHandler(guard)
    model.tokenizer.no_padding()
    return Tokens(model.tokenizer), model.embedding


def _package_folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbedderError("the package wordllama is not installed: reinstall rag-index")
    return Path(spec.origin).parent


def _digest(folder: Path) -> str:
    """Return a hash of the version and the files that determine the vectors (18 MB, about 20
    ms)."""
    digest = hashlib.blake2b(version("wordllama").encode(), digest_size=32)
    for path in sorted((*folder.glob("weights/*"), *folder.glob("tokenizers/*.json"))):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
