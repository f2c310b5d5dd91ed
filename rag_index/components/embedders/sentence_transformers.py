"""The embedder that runs a sentence-transformers model inside the process, on a GPU or on one core of each worker. It
needs the extra `sentence-transformers`, which installs torch."""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders.dispatch import take_batch
from rag_index.components.embedders.local import InProcessEmbedder
from rag_index.core.settings.parts import known_prompts
from rag_index.errors import EmbedderError, ModelMissing, TextRefused, TextTooLong, install_command, one_line
from rag_index.quotes import without_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings

WEIGHTS = ("*.safetensors", "*.bin", "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "modules.json")
"""The files that determine the vectors, in a model's folder and below it, together with each module's config.json."""
PROMPT_NAMES = {
    "document_prefix": ("document", "passage", "corpus", "retrieval.passage", "Retrieval-document"),
    "query_prefix": ("query", "retrieval.query", "Retrieval-query", "web_search_query", "s2p_query"),
}
"""How models call their prompts, the library's own names first. An empty one, which the library adds, is none."""
MIN_PLAUSIBLE_LIMIT = 8
"""Tokens. A model that claims a lower limit does not state its real one."""


class SentenceTransformersEmbedder(InProcessEmbedder):
    """An Embedder that uses a SentenceTransformer: unit vectors, computed on one thread or on a GPU. A text longer than
    the model's limit becomes TextTooLong; the library would truncate it silently. Other texts in a batch change a
    text's vector only by rounding (about 1e-7). Prefixes that the settings lack are the prompts that the model brings,
    or those that are known for its name."""

    def _load(self) -> Any:
        model, given = _load(self._settings), self._settings
        own = [next(filter(None, map(model.prompts.get, names)), "") for names in PROMPT_NAMES.values()]
        prompts = own if any(own) else known_prompts(given.model) or ("", "")
        missing = {key: one for key, one in zip(PROMPT_NAMES, prompts, strict=True) if getattr(given, key) is None}
        self._settings = given.model_copy(update=missing)
        return model

    def _embed(self, texts: Sequence[str], prefix: str, *, query: bool) -> list[NDArray[np.float32] | Exception]:
        encode = partial(self._model.encode_query if query else self._model.encode_document, prompt=prefix)
        entries: list[NDArray[np.float32] | Exception | None] = [self._text_error(prefix + text) for text in texts]
        rows = [row for row, entry in enumerate(entries) if entry is None]
        waiting, limits = deque(sorted(rows, key=lambda row: -len(texts[row]))), self._settings
        while waiting:
            batch = take_batch(waiting, lambda row: len(texts[row]), *limits.usual_request)
            for row, entry in zip(batch, self._encode([texts[row] for row in batch], encode), strict=True):
                entries[row] = entry
        return [entry for entry in entries if entry is not None]

    def _text_error(self, text: str) -> Exception | None:
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            return TextRefused(f"the text is not valid Unicode and cannot be embedded: {exc}")
        max_tokens = self._model.max_seq_length or 0
        if not MIN_PLAUSIBLE_LIMIT <= max_tokens < math.inf:  # a static model has no limit, and another tokenizer
            return None
        if (tokens := len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"])) > max_tokens:
            return TextTooLong(
                f"the text has {tokens} tokens, but {self._settings.model} takes {max_tokens} at most: "
                "lower chunk_chars of this index"
            )
        return None

    def _encode(self, texts: list[str], encode: Callable[..., Any]) -> list[NDArray[np.float32] | Exception]:
        self.stats.requests += 1
        try:
            found = encode(
                texts, batch_size=len(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            )
        except RuntimeError as exc:  # errors of torch, such as out of memory
            why = without_texts(one_line(exc), texts)
            raise EmbedderError(f"{self._settings.model} cannot embed ({why}); try a smaller batch_chars") from exc
        return self._entries(np.asarray(found, dtype=np.float32))

    def _digest(self) -> str:
        """Return a hash of the files that decide the vectors (90 MB, about 100 ms)."""
        digest, folder = hashlib.blake2b(digest_size=32), self._folder()
        found = {path for pattern in (*WEIGHTS, "config.json") for path in folder.rglob(pattern)}
        for path in sorted(found):
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def _folder(self) -> Path:
        """Return the folder of the model's files, which is in the library's cache if the model is given by name."""
        given = Path(self._settings.model).expanduser()
        if given.is_dir():
            return given
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self._settings.model, local_files_only=True))


def _load(settings: EmbedderSettings) -> Any:
    """Load the model. Raises ModelMissing if there is no such model, EmbedderError if it cannot be loaded."""
    if find_spec("sentence_transformers") is None:
        raise EmbedderError(
            "kind 'sentence-transformers' needs a library that is not installed: "
            f"{install_command('sentence-transformers')}"
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the only way to keep the tokenizer on one thread
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # each worker would print one while loading
    torch.set_num_threads(1)  # workers are processes, and their threads would compete for the same cores
    model = str(Path(settings.model).expanduser())
    try:
        return SentenceTransformer(model).eval()
    except (OSError, ValueError) as exc:
        raise ModelMissing(
            f"no model can be loaded from {settings.model!r} ({one_line(exc)}): set model to the folder of one"
        ) from exc
    except (RuntimeError, AssertionError) as exc:  # of the GPU, mostly
        raise EmbedderError(
            f"{settings.model} cannot be loaded ({one_line(exc)}): CUDA_VISIBLE_DEVICES= in the environment hides a GPU"
        ) from exc
