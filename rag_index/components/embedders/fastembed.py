"""The embedder that runs a model inside the process with fastembed, on one core of each worker.

It needs the extra `fastembed`, which installs onnxruntime. `model_files` finds the models.
"""

from __future__ import annotations

import json
import os
import platform
import warnings
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.components.embedders.local import InProcessEmbedder
from rag_index.components.embedders.model_files import (
    EXTRA,
    LIMITS,
    MAX_NAMED,
    POOLING,
    ModelFiles,
    find_model,
)
from rag_index.core.documents.vectors import probe_digest
from rag_index.errors import (
    EmbedderError,
    ModelMissing,
    TextRefused,
    TextTooLong,
    install_command,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_index.components.embedders.identity import EmbedderIdentity
    from rag_index.core.settings import EmbedderSettings

PROBED = "The quick brown fox jumps over the lazy dog, and 42 other animals watch it from a hill."
"""The sentence whose vector shows whether a processor computes what the one did that made a
collection."""
POOLED = {
    "OnnxTextEmbedding": "CLS",
    "PooledEmbedding": "MEAN",
    "PooledNormalizedEmbedding": "MEAN",
    "LastTokenNormalizedEmbedding": "LAST_TOKEN",
}
"""The pooling of the classes by which the library runs listed models. Releases have moved models
between them. Other classes do more than that: one gives a model the number of its task, another
takes the model's own pooling."""
POOLED_IN_MODEL = "DISABLED"
"""What fastembed calls the pooling of a model that gives one vector for a text."""
INPUTS = {"input_ids", "attention_mask", "token_type_ids", "task_id"}
"""What the library gives a model."""
SCORES = "logits"
"""The name of an output that is not a vector: the scores of classes, or of a pair."""


class FastEmbedEmbedder(InProcessEmbedder):
    """An Embedder that uses fastembed's TextEmbedding: unit vectors, computed on the calling
    thread.

    Each text is a call of its own. So its vector does not depend on other texts by a single bit: a
    model with 8-bit weights scales the numbers of all texts in a call together, and padding costs
    as much as calls do. A document longer than the model's limit becomes TextTooLong; the library
    would truncate it silently. Of a query its beginning counts.

    If `expected` is the identity of a collection, its model is looked for where the collection was
    made, and then where the settings say. Raises ModelMissing if neither has it, and
    ProcessorDiffers. `revision` is the commit of the hub at which a model is requested by its name.
    """

    _files: ModelFiles

    def __init__(
        self,
        settings: EmbedderSettings,
        expected: EmbedderIdentity | None = None,
        *,
        revision: str = "",
    ) -> None:
        super().__init__(settings)
        self._expected, self._revision = expected, revision
        self._digest_of_files = ""

    def identity(self) -> EmbedderIdentity:
        """Return the identity, with the place of the model and the vector that this processor makes of
        a sentence."""
        own = super().identity()
        files = self._files
        return replace(
            own,
            place=files.place,
            revision=files.revision,
            pooling=f"{files.pooling}, by {files.pooling_source}",
            processor=processor_name(),
            probe=self._probe(self._model),
        )

    def _probe(self, model: Any) -> str:
        """Return what a model makes of a fixed sentence on this processor."""
        vector = self._vector(model, PROBED, query=False)
        return probe_digest(vector)

    def _load(self) -> Any:
        if find_spec("fastembed") is None:
            raise EmbedderError(
                f"kind 'fastembed' needs a library that is not installed: {install_command(EXTRA)}"
            )
        # the only way to keep the tokenizer on one thread
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if self._expected is None:
            return self._load_from(self._settings.model, self._revision)
        return self._load_expected(self._expected)

    def _load_expected(self, expected: EmbedderIdentity) -> Any:
        """Load the model of a collection from where it was, or from where the settings say. Only
        the first is downloaded: the settings may name another model, which would not help. Raises
        ModelMissing, ProcessorDiffers."""
        places = [(expected.place, expected.revision, True), (self._settings.model, "", False)]
        failed: ModelMissing | None = None
        for place, revision, download in places:
            if not place:
                continue
            try:
                model = self._load_from(place, revision, download=download)
            except ModelMissing as exc:
                failed = failed or exc
                continue
            if self._digest() == expected.digest:
                self._check_processor(model, expected)
                return model
        why = failed or f"{self._files.place} has other files now"
        raise ModelMissing(f"the files of model {expected.model} were not found ({why})")

    def _load_from(self, given: str, revision: str, *, download: bool = True) -> Any:
        """Load the model of a folder or a name. Raises ModelMissing."""
        library = _TextEmbedders()
        files = find_model(library, given, revision=revision, download=download)
        try:
            model = _opened(files)
            _require_embedder(model, given)
            if files.pooling_source == POOLING and _pools_itself(model):
                name = library.register(files.folder, files.weights, POOLED_IN_MODEL)
                files = replace(
                    files, name=name, pooling=POOLED_IN_MODEL, pooling_source="the model itself"
                )
                model = _opened(files)
            self._limit(model.model.tokenizer, files.folder / LIMITS)
            self._digest_of_files = files.digest()
        except ModelMissing:
            raise
        except Exception as exc:  # errors of onnxruntime have no class in common
            raise ModelMissing(
                f"model {given!r} cannot be loaded ({one_line(exc)}): set another one"
            ) from exc
        if self._vector(model, PROBED, query=False).shape in ((), (1,)):
            raise ModelMissing(_no_embedder(given, "it gives one number for a text"))
        self._files = files
        return model

    def _check_processor(self, model: Any, expected: EmbedderIdentity) -> None:
        """Raise ProcessorDiffers if this processor makes other vectors than the one that made a
        collection: those of 8-bit files differ with and without VNNI."""
        found = replace(expected, probe=self._probe(model), processor=processor_name())
        expected.require_processor(found)

    def _limit(self, tokenizer: Any, limits: Path) -> None:
        """Lower the limit of tokens to that with which the model was trained, if its folder names
        that."""
        with suppress(FileNotFoundError):
            most = json.loads(limits.read_text()).get("max_seq_length") or 0
            now = tokenizer.truncation
            if 0 < most < now["max_length"]:
                tokenizer.enable_truncation(most, direction=now["direction"])

    def _embed(
        self, texts: Sequence[str], prefix: str, *, query: bool
    ) -> list[NDArray[np.float32] | Exception]:
        entries = list[Any]()
        for text in texts:
            prefixed = prefix + text
            refusal = self._refused(prefixed, query)
            entries.append(self._entry(prefixed, query) if refusal is None else refusal)
        return entries

    def _refused(self, text: str, query: bool) -> Exception | None:
        """Return why a text is not embedded, None if it is."""
        tokenizer = self._model.model.tokenizer
        try:
            is_cut = bool(tokenizer.encode(text).overflowing)
        except (TypeError, UnicodeEncodeError):
            return TextRefused("the text is not valid Unicode and cannot be embedded")
        if query or not is_cut:
            return None
        most = tokenizer.truncation["max_length"]
        return TextTooLong(
            f"the text has more than {most} tokens, which {self._settings.model} takes at most: lower"
            " chunk_chars of this index"
        )

    def _entry(self, text: str, query: bool) -> NDArray[np.float32] | Exception:
        self.stats.requests += 1
        vector = self._vector(self._model, text, query=query)
        [entry] = self._entries(vector[np.newaxis])
        return entry

    def _vector(self, model: Any, text: str, *, query: bool) -> NDArray[np.float32]:
        """Return the unit vector of a text; a vector that is not finite, or all zeros, as it is."""
        embed = model.query_embed if query else model.passage_embed
        try:
            [found] = embed([text])
        except Exception as exc:  # errors of onnxruntime have no class in common
            raise EmbedderError(
                f"{self._settings.model} cannot embed ({type(exc).__name__})"
            ) from exc
        vector = np.asarray(found, dtype=np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            return vector / (np.linalg.norm(vector) or 1)

    def _digest(self) -> str:
        return self._digest_of_files


def processor_name() -> str:
    """Return the name of this machine's processor, as /proc/cpuinfo has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class _TextEmbedders:
    """The text embedders of fastembed, as a `Library`."""

    purpose = "text embedder"
    setting = "model"
    needs_pooling = True

    def listed(self) -> list[dict[str, Any]]:
        from fastembed import TextEmbedding

        listed: list[dict[str, Any]] = TextEmbedding.list_supported_models()
        return listed

    def pooling_of(self, name: str) -> str:
        from fastembed import TextEmbedding

        for kind in TextEmbedding.EMBEDDINGS_REGISTRY:
            entries = kind._list_supported_models()  # nothing public lists them by class
            if any(entry.model == name for entry in entries):
                class_name = str(kind.__name__)
                return POOLED.get(class_name, class_name)
        return ""

    def register(self, folder: Path, weights: Sequence[str], pooling: str) -> str:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        path = folder.resolve()
        file, *others = weights
        name = f"{path / file} ({pooling})"
        with suppress(ValueError):  # it is known already
            TextEmbedding.add_custom_model(
                name,
                PoolingType[pooling],
                True,
                ModelSource(url=path.as_uri()),
                dim=0,
                model_file=file,
                additional_files=others,
            )
        return name


def _opened(files: ModelFiles) -> Any:
    """Load a model. Raises whatever fastembed and onnxruntime raise."""
    from fastembed import TextEmbedding

    # a static model has no threads, of which the library warns
    with files.options() as options, warnings.catch_warnings(action="ignore"):
        return TextEmbedding(**options, threads=1, providers=["CPUExecutionProvider"])


def _session(model: Any) -> Any:
    """Return what runs the ONNX file of a model; None for a static model, which has none."""
    session = getattr(model.model, "model", None)
    return session if hasattr(session, "get_inputs") else None


def _pools_itself(model: Any) -> bool:
    """Return whether a model gives one vector for a text, and not one for each token."""
    if _session(model) is None:
        return False
    output = model.model.onnx_embed([PROBED]).model_output
    return bool(output.ndim == 2)


def _require_embedder(model: Any, given: str) -> None:
    """Raise ModelMissing for a model that makes no vectors of texts."""
    session = _session(model)
    if session is None:
        return
    inputs = {node.name for node in session.get_inputs()}
    # a model for images takes `pixel_values`, one that writes texts the state of its last token
    others = sorted(inputs - INPUTS)
    if others:
        raise ModelMissing(_no_embedder(given, f"it takes {', '.join(others[:MAX_NAMED])}"))
    # a reranker or a classifier
    if session.get_outputs()[0].name == SCORES:
        raise ModelMissing(_no_embedder(given, "it gives scores, as rerankers and classifiers do"))


def _no_embedder(given: str, why: str) -> str:
    return f"model {given!r} is no text embedder ({why}): set model to one"
